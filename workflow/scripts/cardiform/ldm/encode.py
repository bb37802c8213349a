"""Latents of every case, encoded once, and the statistics that diffusion needs of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cohort.table import Case
from ..errors import InputError
from ..files import save_npz, write_json
from ..metrics.overlap import overlap
from ..metrics.summary import mean
from ..options.ldm import LatentsOptions
from ..volumes import image_grid, save_image, save_label_map
from .autoencoder_model import channels_of
from .coder import ShapeCoder
from .data import (
    LATENTS,
    MOVE,
    complete_only,
    load_latents,
    load_shape,
    moved_by,
    random_move,
    to_values,
)
from .diffusion_model import LatentStatistics
from .hearts_on_grid import Grid

LEAST_DEVIATION_ML = 1e-3
USUAL_DEVIATION = 0.2  # of the volume, where one heart alone has the class


def encode_case(
    case: Case,
    *,
    voxels: Mapping[str, Path],
    training: set[str],
    coder: ShapeCoder,
    options: LatentsOptions,
    out: Path,
    cut: Mapping[str, np.ndarray] | None = None,
) -> list[Path]:
    """Write ``out/<case>.npz`` (see :func:`cardiform.ldm.data.load_latents`).

    Training cases get ``variants`` augmented copies beside themselves, with the moves that made
    them, which the diffusion is given. ``reconstructions/<case>.nii.gz`` and ``.json`` say what
    the autoencoder makes of the heart.

    cut : case id -> (classes,) bool, of the cases of which the scan cuts a class.
    """
    source = voxels[case.case_id]
    shape = load_shape(source, coder.grid)
    targets, moves = [shape], [np.zeros(MOVE)]
    if case.case_id in training:
        word = int.from_bytes(hashlib.sha256(case.case_id.encode()).digest()[:8], "big")
        for number in range(options.variants):
            rng = np.random.default_rng((options.seed, word, number))
            moves.append(random_move(options, rng))
            targets.append(moved_by(shape, moves[-1]))
    stacked = torch.stack(targets)
    parts = [coder.encode(part) for part in stacked.split(options.batch_size)]
    mu, sigma = (torch.cat(x) for x in zip(*parts))
    path = out / f"{case.case_id}.npz"
    stored = stacked if stacked.dtype == torch.uint8 else stacked.half()
    save_npz(
        path,
        compressed=True,
        mu=mu.numpy(),
        sigma=sigma.half().numpy(),
        target=stored.numpy(),
        volumes=volumes_ml(stacked, coder.grid).numpy(),
        moves=np.array(moves, np.float32),
        format_version=LATENTS.version,
        **({"cut": cut[case.case_id]} if cut and case.case_id in cut else {}),
    )
    return [path, *_reconstruct(case.case_id, source, shape, mu[:1], coder, out)]


def volumes_ml(targets: Tensor, grid: Grid) -> Tensor:
    """(B, S, S, S) channels to (B, classes) float32 ml; the inside of a field is above 0.5."""
    flat = targets.flatten(1)
    if not grid.has_classes:
        flat = flat > 0.5
    counts = [(flat == k).sum(1) for k in range(1, len(grid.table) + 1)]
    return torch.stack(counts, dim=1).float() * (grid.spacing**3 / 1000)


def centroids_mm(target: np.ndarray, grid: Grid) -> dict[str, np.ndarray]:
    """Class name -> middle of the class, mm from the middle of the cube."""
    found = {}
    for channel, name in enumerate(grid.table.names, start=1):
        index = np.argwhere(target == channel)
        if len(index):
            found[name] = (index.mean(axis=0) - (grid.size - 1) / 2) * grid.spacing
    return found


def statistics_of(
    files: Mapping[str, Path], training: Sequence[str], coder: ShapeCoder, sha256: str
) -> LatentStatistics:
    """Statistics over the training cases, variants included; cases in the order of their ids.

    Cases that lack a class do not count, as they are not trained on (``complete_cases``); beside
    them stands what differs where they are. Classes that the scan cuts count neither in the
    volumes nor in the middles.

    files : case id -> latents file, of all cases.
    """
    grid = coder.grid
    incomplete, cases = [], {}
    for name in sorted(files):
        stored = load_latents(files[name])
        if not bool((stored["volumes"][0] > 0).all()):
            incomplete.append(name)
        if name in training:
            cases[name] = _CaseFigures.of(stored, grid)
    if not cases:
        fact = "none of the training cases has latents"
        raise InputError(f"--train: {fact}; give the split of the cases of --voxels")
    chosen = complete_only(list(cases), incomplete) if grid.has_classes else list(cases)
    largest = np.max([case.largest_move for case in cases.values()], axis=0)
    figures = _summary([cases[name] for name in chosen], grid)
    of_all = {}
    if len(chosen) < len(cases):
        of_all = {n: _plain(v) for n, v in _summary(list(cases.values()), grid).items()}
    return LatentStatistics(
        shape=coder.latent_shape,
        **figures,
        incomplete=tuple(incomplete),
        autoencoder_sha256=sha256,
        largest_move=() if np.isnan(largest).any() else tuple(largest.tolist()),
        of_all=of_all,
    )


@dataclass(frozen=True)
class _CaseFigures:
    """What the statistics need of a case.

    sums : (2, L) of the latents and of their squares.    count : of latents in each channel.
    volumes : (classes,) ml, 0 where absent or cut.    middles : class name -> (3,) mm.
    largest_move : (9,) of its variants.
    """

    sums: np.ndarray
    count: int
    volumes: np.ndarray
    middles: dict[str, np.ndarray]
    largest_move: np.ndarray

    @classmethod
    def of(cls, stored: Mapping[str, Tensor], grid: Grid) -> _CaseFigures:
        mu = stored["mu"].double()
        sums = np.stack([mu.sum((0, 2, 3, 4)).numpy(), mu.square().sum((0, 2, 3, 4)).numpy()])
        cut = stored["cut"].numpy()
        volumes = np.where(cut, 0.0, stored["volumes"][0].double().numpy())
        middles = {}
        if grid.has_classes:
            hidden = {n for n, is_cut in zip(grid.table.names, cut) if is_cut}
            found = centroids_mm(stored["target"][0].numpy(), grid)
            middles = {n: m for n, m in found.items() if n not in hidden}
        largest = stored["moves"].double().abs().amax(dim=0).numpy()
        return cls(sums, mu[:, 0].numel(), volumes, middles, largest)


def _summary(cases: Sequence[_CaseFigures], grid: Grid) -> dict[str, Any]:
    """The fields of :class:`LatentStatistics` that are means over cases."""
    count = sum(case.count for case in cases)
    sums = sum((case.sums for case in cases), np.zeros_like(cases[0].sums))
    average = sums[0] / count
    volumes = np.array([case.volumes for case in cases]).reshape(-1, len(grid.table))
    present = np.ma.masked_equal(volumes, 0)
    average_ml = present.mean(axis=0).filled(0.0)
    deviation_ml = present.std(axis=0).filled(1.0)
    varied = deviation_ml > LEAST_DEVIATION_ML
    deviation_ml = np.where(varied, deviation_ml, USUAL_DEVIATION * average_ml)
    usual = {
        n: np.mean([c.middles[n] for c in cases if n in c.middles], axis=0).tolist()
        for n in grid.table.names
        if any(n in c.middles for c in cases)
    }
    return {
        "mean": tuple(average.tolist()),
        "std": tuple(np.sqrt(sums[1] / count - average**2).tolist()),
        "volume_mean": tuple(average_ml.tolist()),
        "volume_std": tuple(deviation_ml.tolist()),
        "centroids": usual,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _reconstruct(name: str, source: Path, shape, latents, coder: ShapeCoder, out: Path):
    """What the autoencoder makes of a case, and its figures; None where nothing is annotated."""
    folder, grid = out / "reconstructions", coder.grid
    logits = coder.decode(latents)
    _, affine = image_grid(source)
    path = folder / f"{name}.nii.gz"
    figures = folder / f"{name}.json"
    made = channels_of(logits)[0].numpy()
    true = shape.numpy()
    if grid.has_classes:
        save_label_map(path, to_values(made, grid), affine)
    else:
        true = (true > 0.5).astype(np.uint8)
        save_image(path, coder.model.likelihood(logits)[0, 0].numpy(), affine)
    found = overlap(to_values(true, grid), to_values(made, grid), grid.table)
    write_json(figures, {"classes": found, "dice": mean(row["dice"] for row in found.values())})
    return [path, figures]
