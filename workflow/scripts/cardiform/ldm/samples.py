"""Files of generated hearts: label maps, point clouds, meshes and pictures."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import outputs
from ..errors import InputError
from ..files import save_npz, write_text
from ..formats import Format
from ..geometry.grids import cropped_affine
from ..geometry.mesh_files import MESH_ENDING, write_mesh
from ..geometry.sampling import SurfaceSampler, area_quotas
from ..geometry.surface import Mesh, extract_surface, surface_area
from ..labels import LabelTable
from ..metrics.record import refuse_other_figures
from ..options.ldm import SamplingOptions
from ..options.set_diffusion import SetSamplingOptions
from ..pictures.figures import case_picture, sheet_picture
from ..volumes import save_image, save_label_map
from .autoencoder_model import channels_of
from .data import to_values
from .diffusion_model import Condition
from .encode import volumes_ml
from .generator import ShapeGenerator
from .hearts_on_grid import Grid
from .redraw import Drawn, Redraw
from .ridge import on_ridge
from .specks import without_specks

log = logging.getLogger(__name__)

STEEP = 4.0  # logits beyond this are far from a surface: clipped, the corners stay smooth
LEAST_POINTS = 50
# What a stopped job resumes from; one that cannot be read is made again.
SAMPLE = Format(
    "sample",
    {"latents": "f32 (L, s, s, s)", "key": "text", "draws?": "i64", "fits?": "bool"},
    marked=False,
)
FOLDERS = ("latents", "nifti", "meshes", "pointcloud", "pictures")
PICTURE_PIXELS = 260
MOST_IN_OVERVIEW = 24
ONCE = Redraw()


def sample_name(number: int) -> str:
    return f"sample_{number:04d}"


def sampled_latents(
    generator: ShapeGenerator,
    condition: Condition,
    options: SamplingOptions,
    sampler: str,
    key: str,
    folder: Path,
    redraw: Redraw = ONCE,
) -> tuple[Tensor, dict[str, Drawn]]:
    """Latents of all samples, and how each came about; each finished one is a file, and is not
    made again.

    condition : the same for all.
    key : of everything that decides a sample beside its number.
    """
    paths = {n: folder / f"{sample_name(n)}.npz" for n in range(options.num_samples)}
    stored = {n: _stored(path, key) for n, path in paths.items()}
    found = {n: old for n, old in stored.items() if old is not None and redraw.current(old[1])}

    def make(numbers: Sequence[int], more: int) -> Iterator[Tensor]:
        for start in range(0, len(numbers), options.batch_size):
            part = numbers[start : start + options.batch_size]
            yield from generator.latents(
                [number + more for number in part],
                condition.rows(slice(0, len(part)), torch.device("cpu")),
                seed=options.seed,
                sampler=sampler,
                steps=options.num_inference_steps,
                guidance=options.guidance,
                batch_size=options.batch_size,
            )

    def keep(number: int, latents: Tensor, drawn: Drawn) -> None:
        found[number] = latents, drawn
        save_npz(
            paths[number],
            latents=latents.numpy(),
            key=np.array(key),
            draws=np.array(drawn.draws),
            fits=np.array(drawn.fits),
        )

    redraw.draw(
        list(paths),
        {n: drawn for n, (_, drawn) in found.items()},
        make,
        lambda latents: channels_of(decoded(generator, latents, options.speck_share))[0].numpy(),
        keep,
    )
    made = [found[n] for n in paths]
    drawn = {sample_name(n): how for n, (_, how) in zip(paths, made)}
    return torch.stack([latents for latents, _ in made]), drawn


def decoded(generator: ShapeGenerator, latents: Tensor, speck_share: float) -> Tensor:
    """(1, C, S, S, S) logits of one heart, (L, s, s, s), without specks."""
    logits = generator.decode_drawn(latents[None])
    if not generator.grid.has_classes:
        return logits
    kept = without_specks(logits[0].numpy(), generator.grid.table, speck_share)
    return torch.from_numpy(kept)[None]


def write_samples(
    generator: ShapeGenerator, latents: Tensor, options: SamplingOptions, out: Path
) -> tuple[dict[str, dict[str, Mesh]], dict[str, np.ndarray]]:
    """Files of all samples, decoded one at a time.

    Returns the meshes of those that the overview shows, and the volumes of all, ml.
    """
    hearts, volumes = {}, {}
    for number in range(len(latents)):
        name = sample_name(number)
        logits = decoded(generator, latents[number], options.speck_share)
        meshes = write_sample(number, logits[0], generator.grid, options, out)
        volumes[name] = volumes_ml(channels_of(logits), generator.grid)[0].numpy()
        if number < MOST_IN_OVERVIEW:
            hearts[name] = meshes
        log.info("%s (%d of %d)", name, number + 1, len(latents))
    return hearts, volumes


def write_sample(
    number: int, logits: Tensor, grid: Grid, options: SamplingOptions, out: Path
) -> dict[str, Mesh]:
    """Files of one heart in the cohort frame: RAS mm about the middle of the cube.

    logits : (C, S, S, S).    Returns the mesh of each class that is there.
    """
    affine = grid.cube(np.zeros(3)).affine
    meshes = class_meshes(logits.numpy(), grid.table, affine, options.threshold)
    place = None
    if grid.has_classes:
        data = to_values(channels_of(logits[None])[0].numpy(), grid)
    else:
        data = logits.sigmoid()[0].numpy()
        # what was learned is a density, and its walls are no surface
        place = functools.partial(on_ridge, field=data, affine=affine)
    write_heart(number, data, meshes, grid, options, out, place)
    return meshes


def write_heart(
    number: int,
    data: np.ndarray,
    meshes: dict[str, Mesh],
    grid: Grid,
    options: SamplingOptions | SetSamplingOptions,
    out: Path,
    place: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:
    """Files of one heart in the cohort frame.

    data : (S, S, S) class values, or a field.    place : where the points of its cloud lie, in
    place of the meshes.
    """
    name, table = sample_name(number), grid.table
    affine = grid.cube(np.zeros(3)).affine
    for kind, ending in (("nifti", "nii.gz"), ("pointcloud", "csv")):
        if options.save_format not in (kind, "both"):  # of an earlier run, another heart
            outputs.remove(out / kind / f"{name}.{ending}")
    if options.save_format in ("nifti", "both"):
        path = out / "nifti" / f"{name}.nii.gz"
        if grid.has_classes:
            save_label_map(path, data, affine)
        else:
            save_image(path, data, affine)
    folder = out / "meshes" / name
    for label, mesh in meshes.items():
        write_mesh(folder / f"{label}{MESH_ENDING}", mesh)
    for stale in set(folder.glob(f"*{MESH_ENDING}")):
        if stale.stem not in meshes:
            outputs.remove(stale)
    if options.save_format in ("pointcloud", "both"):
        rng = np.random.default_rng((options.seed, number))
        path = out / "pointcloud" / f"{name}.csv"
        write_cloud(path, meshes, table, options.num_points, rng, place)
    colors = {c.name: c for c in table}
    case_picture(
        out / "pictures" / f"{name}.png",
        [(m.vertices, m.faces, colors[n].color, 1.0) for n, m in meshes.items()],
        legend={colors[n].title: colors[n].color for n in meshes},
        caption=name,
        size=PICTURE_PIXELS,
    )


def class_meshes(
    logits: np.ndarray, table: LabelTable, affine: np.ndarray, threshold: float = 0.5
) -> dict[str, Mesh]:
    """Name -> surface where a class's logit passes the largest of the others: between voxels."""
    fields = []
    if len(logits) == 1:
        fields = [np.log(threshold / (1 - threshold)) - logits[0]]
    else:
        for channel in range(1, len(logits)):
            others = np.delete(logits, channel, axis=0).max(axis=0)
            fields.append(others - logits[channel])
    found = {}
    for label, field in zip(table, fields):
        inner = np.clip(field, -STEEP, STEEP)
        padded = np.pad(np.where(inner == 0, 1e-6, inner), 1, constant_values=STEEP)
        mesh = extract_surface(padded.astype(np.float32), cropped_affine(affine, np.full(3, -1.0)))
        if len(mesh.faces):
            found[label.name] = mesh
    return found


def write_cloud(
    path: Path,
    meshes: dict[str, Mesh],
    table: LabelTable,
    number: int,
    rng,
    place: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:
    """CSV: x, y, z in RAS mm, and the class value; points spread evenly over the surfaces.

    place : where they lie in place of there.
    """
    lines = ["x,y,z,label"]
    names = list(meshes)
    if names:
        least = min(LEAST_POINTS, number // len(names))
        quotas = area_quotas([surface_area(meshes[n]) for n in names], number, least)
        for name, quota in zip(names, quotas):
            value = table[table.channel(name)].value
            points, _ = SurfaceSampler(meshes[name]).draw(int(quota), rng)
            points = place(points) if place else points
            lines += [f"{x:.3f},{y:.3f},{z:.3f},{value}" for x, y, z in points]
    write_text(path, "\n".join(lines) + "\n")


def remove_others(out: Path, names: Iterable[str]) -> None:
    """Delete the files of samples that are none any more: of a run that made more of them."""
    kept = set(names)
    for folder in FOLDERS:
        for path in (out / folder).glob("sample_*"):
            if path.name.split(".")[0] not in kept:
                outputs.remove(path)


def refuse_foreign(
    out: Path, options: SamplingOptions | SetSamplingOptions, kind: str = "sample_diffusion"
) -> None:
    """InputError where a file of somebody else's lies where a sample goes: before any is made.

    kind : the rule that makes them.
    """
    paths = [out / "overview.png", out / "metrics.json"]
    for name in map(sample_name, range(options.num_samples)):
        paths += [out / "latents" / f"{name}.npz", out / "pictures" / f"{name}.png"]
        if options.save_format in ("nifti", "both"):
            paths.append(out / "nifti" / f"{name}.nii.gz")
        if options.save_format in ("pointcloud", "both"):
            paths.append(out / "pointcloud" / f"{name}.csv")
    if problems := outputs.problems_of(paths):
        raise InputError(problems)
    refuse_other_figures(out / "metrics.json", kind)


def draw_overview(path: Path, hearts: dict[str, dict[str, Mesh]], table: LabelTable) -> None:
    """Hearts side by side."""
    colors = {c.name: c.color for c in table}
    sheet_picture(
        path,
        {
            name: [(m.vertices, m.faces, colors[n], 1.0) for n, m in meshes.items()]
            for name, meshes in hearts.items()
        },
        legend={c.title: c.color for c in table},
    )


def volume_condition(generator: ShapeGenerator, wanted: dict[str, float], number: int) -> Condition:
    """Samples that are given the volumes ``wanted`` (class name -> ml)."""
    nothing = generator.unconditional(number)
    if not wanted:
        return nothing
    if not generator.network.follows_volumes:
        raise InputError(
            "sampling.volumes: the model was not trained on volumes; set diffusion.volumes_share"
        )
    channels = {name: generator.grid.table.channel(name) for name in wanted}
    if never := [n for n, k in channels.items() if not generator.statistics.volume_mean[k]]:
        raise InputError(
            [
                f"sampling.volumes: no training heart has a volume of {name}; leave it out"
                for name in never
            ]
        )
    volumes, given = nothing.volumes.clone(), nothing.given.clone()
    for name, value in wanted.items():
        volumes[:, channels[name]], given[:, channels[name]] = value, True
    scores = generator.statistics.volume_scores(volumes)
    return Condition(nothing.target, nothing.known, scores, given)


def spread(volumes: Mapping[str, np.ndarray], table: LabelTable) -> dict:
    """Class name -> mean and deviation of its volume, ml."""
    columns = np.array(list(volumes.values())).T
    return {
        name: {"mean": float(column.mean()), "std": float(column.std())}
        for name, column in zip(table.names, columns)
    }


def _stored(path: Path, key: str) -> tuple[Tensor, Drawn] | None:
    """The latents of a finished sample, and how it came about; None where there is none of this
    key."""
    content = content_of(path, SAMPLE, key)
    return None if content is None else (torch.from_numpy(content["latents"]), Drawn.of(content))


def content_of(path: Path, kind: Format, key: str) -> Mapping[str, np.ndarray] | None:
    """What the file of a finished sample holds; None where there is none of this key."""
    if not path.is_file():
        return None
    try:
        content = kind.load(path)
    except InputError:
        return None
    return content if str(content["key"]) == key else None
