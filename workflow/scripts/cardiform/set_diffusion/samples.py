"""Generated hearts of a VecSet: made once, corrected to the volumes asked for, written."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from ..files import save_npz
from ..formats import Format
from ..geometry.surface import Mesh
from ..ldm.data import to_channels
from ..ldm.redraw import Drawn, Redraw
from ..ldm.samples import MOST_IN_OVERVIEW, ONCE, content_of, sample_name, write_heart
from ..options.set_diffusion import SetSamplingOptions
from .generator import SetGenerator, Wanted

log = logging.getLogger(__name__)

# What a stopped job resumes from; one that cannot be read is made again.
SET_SAMPLE = Format(
    "set-sample",
    {"latents": "f32 (M, W)", "frame": "f64 (4)", "key": "text", "draws?": "i64", "fits?": "bool"},
    marked=False,
)
LEAST_ML = 1e-3


@dataclass(frozen=True)
class Made:
    """A heart: (M, W) latents and the (4,) numbers of its frame, and how it came about."""

    latents: np.ndarray
    frame: np.ndarray
    drawn: Drawn = field(default_factory=Drawn)


def made_hearts(
    generator: SetGenerator,
    wanted: Wanted,
    options: SetSamplingOptions,
    key: str,
    folder: Path,
    redraw: Redraw = ONCE,
) -> list[Made]:
    """All samples; each finished one is a file, and is not made again.

    wanted : the same for all.
    key : of everything that decides a sample beside its number.
    """
    paths = {n: folder / f"{sample_name(n)}.npz" for n in range(options.num_samples)}
    stored = {n: _stored(path, key) for n, path in paths.items()}
    found = {n: old for n, old in stored.items() if old is not None and redraw.current(old.drawn)}

    def make(numbers: Sequence[int], more: int) -> Iterator[Made]:
        for start in range(0, len(numbers), options.batch_size):
            part = [number + more for number in numbers[start : start + options.batch_size]]
            yield from _corrected(generator, part, wanted.of(slice(0, len(part))), options)

    def keep(number: int, made: Made, drawn: Drawn) -> None:
        found[number] = replace(made, drawn=drawn)
        save_made(paths[number], found[number], key)
        log.info("%s (%d of %d)", sample_name(number), len(found), options.num_samples)

    def channels(made: Made) -> np.ndarray:
        trained = generator.at(redraw.size)
        heart = trained.decode(torch.from_numpy(made.latents), made.frame, options.speck_share)
        return to_channels(heart.labels(), trained.grid)

    before = {n: made.drawn for n, made in found.items()}
    redraw.draw(list(paths), before, make, channels, keep)
    return [found[n] for n in paths]


def _corrected(
    generator: SetGenerator, numbers: Sequence[int], wanted: Wanted, options: SetSamplingOptions
) -> list[Made]:
    """Hearts of one batch. What comes out larger than it was asked for is asked for smaller, and
    made again of the same noise; of all rounds the one that came closest is kept."""
    classes = len(generator.table)
    aim = wanted.asked[:, :classes]
    rounds = options.corrections if bool(aim.isfinite().any()) else 0
    best: dict[int, tuple[float, Made]] = {}
    for number in range(rounds + 1):
        rows = generator.rows(
            numbers,
            wanted,
            seed=options.seed,
            steps=options.num_inference_steps,
            guidance=options.guidance,
        )
        latents, frames = generator.hearts(rows)
        hearts = [Made(one.numpy(), frame) for one, frame in zip(latents, frames)]
        if not rounds:
            return hearts
        volumes = [_volumes_in_model(generator, made, options.speck_share) for made in hearts]
        got = torch.from_numpy(np.log(volumes))
        apart = torch.where(aim.isfinite(), got - aim, 0).float()
        for row, (made, worst) in enumerate(zip(hearts, apart.abs().amax(dim=1).tolist())):
            if row not in best or worst < best[row][0]:
                best[row] = worst, made
        log.info(
            "round %d: volumes off by %.1f %%",
            number,
            100 * float(apart[aim.isfinite()].abs().mean()),
        )
        asked = wanted.asked.clone()
        asked[:, :classes] -= apart
        wanted = replace(wanted, asked=asked)
    return [best[row][1] for row in range(len(numbers))]


def _volumes_in_model(generator: SetGenerator, made: Made, speck_share: float) -> np.ndarray:
    """(C,) ml of the classes of the model, a little where one is not there."""
    heart = generator.decode(torch.from_numpy(made.latents), made.frame, speck_share)
    own = dict(zip(generator.grid.table.names, volumes_of(generator, heart.labels())))
    return np.array([max(own.get(name, 0.0), LEAST_ML) for name in generator.table.names])


def write_hearts(
    generator: SetGenerator, hearts: Sequence[Made], options: SetSamplingOptions, out: Path
) -> tuple[dict[str, dict[str, Mesh]], dict[str, np.ndarray]]:
    """Files of all samples, as sample_diffusion writes them.

    Returns the meshes of those that the overview shows, and the volumes of all, ml.
    """
    grid = generator.grid
    shown, volumes = {}, {}
    for number, made in enumerate(hearts):
        name = sample_name(number)
        latents = torch.from_numpy(made.latents)
        heart = generator.decode(latents, made.frame, options.speck_share)
        labels, meshes = heart.labels(), heart.surfaces()
        write_heart(number, labels, meshes, grid, options, out)
        volumes[name] = volumes_of(generator, labels)
        if number < MOST_IN_OVERVIEW:
            shown[name] = meshes
        log.info("%s (%d of %d)", name, number + 1, len(hearts))
    return shown, volumes


def volumes_of(generator: SetGenerator, labels: np.ndarray) -> np.ndarray:
    """(classes of the grid,) ml of a label map on the grid."""
    counts = np.bincount(labels.ravel(), minlength=256)
    return counts[list(generator.grid.table.values)] * generator.grid.spacing**3 / 1000


def asked_and_got(
    asked: Mapping[str, float], volumes: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Class name -> volume asked for, mean of those that came out, and the mean and the largest
    relative error over the samples.    names : of the columns of ``volumes``."""
    result = {}
    for name, wanted in asked.items():
        got = np.array([row[list(names).index(name)] for row in volumes.values()])
        errors = np.abs(got - wanted) / wanted
        result[name] = {
            "asked_ml": wanted,
            "mean_ml": float(got.mean()),
            "mean_error": float(errors.mean()),
            "largest_error": float(errors.max()),
        }
    return result


def save_made(path: Path, made: Made, key: str) -> None:
    """A finished sample.    key : of everything that decides it."""
    save_npz(
        path,
        latents=made.latents,
        frame=made.frame,
        key=np.array(key),
        draws=np.array(made.drawn.draws),
        fits=np.array(made.drawn.fits),
    )


def _stored(path: Path, key: str) -> Made | None:
    """A finished sample; None where there is none of this key."""
    content = content_of(path, SET_SAMPLE, key)
    if content is None:
        return None
    return Made(content["latents"], content["frame"], Drawn.of(content))
