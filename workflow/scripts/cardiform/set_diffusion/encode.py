"""Hearts of a cohort through a VecSet, their latents in the order of the slots."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..cohort.free_columns import read_numbers
from ..cohort.table import Case
from ..errors import InputError, problem, together
from ..files import save_npz
from ..geometry.coarse_to_fine import FieldFunction
from ..geometry.frame import Frame, apply_affine
from ..labels import LabelTable
from ..ldm.hearts_on_grid import Grid
from ..vecset.reconstruct import Reconstructor, load_frame
from ..volumes import LabelMap, load_label_map, save_label_map
from .decoded import Decoded
from .latents import PLACE, SET_LATENTS, numbers_of
from .mean_heart import MOST_HEARTS, mean_heart
from .slots import Slots, Surface

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoder:
    """A VecSet, the slots of the cohort, and the grid that hearts are written on."""

    network: Reconstructor
    slots: Slots
    grid: Grid

    def latents(self, points: Path, case_id: str) -> tuple[torch.Tensor, np.ndarray]:
        """(1, M, W) latents in the order of the slots, and (C,) bool: the classes there are."""
        drawn, _ = self.network.inputs(points, case_id)
        places, channels = surface_of(drawn, len(self.network.table))
        rows = torch.from_numpy(self.slots.rows(places, channels))[None]
        with torch.no_grad():
            latents = self.network.model.encode(drawn, rows.to(drawn.device))
        classes = len(self.network.table)
        return latents, np.isin(np.arange(classes), channels)


def surface_of(drawn: torch.Tensor, classes: int) -> Surface:
    """Points and channels of the network's input, (1, N, 3 + C), with normals 3 more."""
    found = drawn[0].cpu().numpy()
    return found[:, :3], found[:, 3 : 3 + classes].argmax(axis=1)


def refuse_unplaced(network: Reconstructor, path: Path) -> None:
    """InputError where a VecSet's latents have no places."""
    if not network.model.shape.anchored:
        fact = f"keeps its latents at no places (preset {network.training.preset})"
        remedy = "give a VecSet of the preset demo, local or local_large"
        raise InputError(problem(path, fact, remedy))


def slots_of(network: Reconstructor, points: Mapping[str, Path]) -> Slots:
    """Of training cases, case id -> points file; those that lack a class do not count.

    Where none has every class, those count that have most, and of these those that have the same:
    a class that they lack has no slots.

    Raises
    ------
    InputError
        All problems of the files; no case.
    """
    names = list(points)[:MOST_HEARTS]
    hearts = together(*(functools.partial(network.inputs, points[n], n) for n in names))
    surfaces = [surface_of(drawn, len(network.table)) for drawn, _ in hearts]
    if not surfaces:
        raise InputError("--train: lists no case; give the split of the cases of --voxels")
    whole, present = alike(surfaces)
    if lacking := [name for k, name in enumerate(network.table.names) if k not in present]:
        log.warning("no slots for %s: too few training hearts have them", ", ".join(lacking))
    return mean_heart(whole, network.model.starts)


def alike(surfaces: Sequence[Surface]) -> tuple[list[Surface], frozenset[int]]:
    """Those that have the most frequent of the largest sets of channels, and this set."""
    sets = [frozenset(np.unique(channels).tolist()) for _, channels in surfaces]
    most = max(map(len, sets))
    [(present, _)] = Counter(found for found in sets if len(found) == most).most_common(1)
    return [s for s, found in zip(surfaces, sets) if found == present], present


def columns_of(
    table: str | Path, names: Sequence[str], cases: Sequence[str]
) -> dict[str, np.ndarray]:
    """Case id -> (K,) float64 values of the columns ``names`` of a case table; NaN where empty.

    Raises
    ------
    InputError
        There is no such column, or an entry is no number: all of them.
    """
    found = read_numbers(table, names, cases)
    return {case: np.array([found[name].get(case, np.nan) for name in names]) for case in cases}


def encode_case(
    case: Case,
    *,
    points: Mapping[str, Path],
    voxels: Mapping[str, Path],
    columns: Mapping[str, np.ndarray],
    cut: Mapping[str, np.ndarray],
    encoder: Encoder,
    out: Path,
) -> list[Path]:
    """Write ``out/<case>.npz`` and ``out/reconstructions/<case>.nii.gz``, on the grid.

    voxels : case id -> its label map on the grid.
    columns : case id -> (K,) values.    cut : case id -> (classes of the grid,) bool.
    """
    name, grid, table = case.case_id, encoder.grid, encoder.network.table
    heart = load_label_map(voxels[name])
    if heart.data.shape != (grid.size,) * 3:
        fact = f"has the shape {heart.data.shape}, the grid {grid.size} voxels along each edge"
        raise InputError(problem(voxels[name], fact, "make it again"))
    frame = load_frame(points[name])
    latents, present = encoder.latents(points[name], name)
    middle = apply_affine(heart.affine, np.full(3, (grid.size - 1) / 2))
    field = chosen(encoder.network.field(latents), table, grid.table)
    made = Decoded.of(field, grid.cube(middle), grid.table, frame.to_unit)
    written = [out / f"{name}.npz", out / "reconstructions" / f"{name}.nii.gz"]
    save_npz(
        written[0],
        latents=latents[0].cpu().numpy(),
        frame=numbers_of(Frame(frame.center - middle, frame.scale)),
        present=present,
        volumes=_volumes(heart, cut.get(name), grid, table),
        columns=columns[name],
        format_version=SET_LATENTS.version,
    )
    save_label_map(written[1], made.labels(), heart.affine)
    return written


def as_encoded(latents: torch.Tensor, network: Reconstructor) -> torch.Tensor:
    """(..., M, W) latents as the VecSet's bottleneck could have made them."""
    if network.training.bottleneck != "normalized":
        return latents
    codes = latents[..., PLACE:]
    codes = F.layer_norm(codes, codes.shape[-1:], eps=network.model.shape.code_eps)
    return torch.cat([latents[..., :PLACE], codes], dim=-1)


def chosen(field: FieldFunction, table: LabelTable, wanted: LabelTable) -> FieldFunction:
    """A field of the classes ``table`` as one of the classes ``wanted``, which are among them."""
    columns = [table.values.index(value) for value in wanted.values]
    return lambda points: field(points)[:, columns]


def refuse_other_classes(table: LabelTable, path: Path, grid: Grid, where: Path) -> None:
    """InputError where a grid has classes that the label table of a model lacks."""
    if unknown := sorted(set(grid.table.values) - set(table.values)):
        fact = f"has the classes {', '.join(map(str, unknown))}, which {path} does not know"
        raise InputError(problem(where, fact, "give files of one label table"))


def _volumes(heart: LabelMap, cut: np.ndarray | None, grid: Grid, table: LabelTable) -> np.ndarray:
    """(C,) ml of the classes of ``table``; NaN where they are not known."""
    counts = np.bincount(heart.data.ravel(), minlength=256)
    result = np.full(len(table), np.nan)
    for number, value in enumerate(grid.table.values):
        if counts[value] and not (cut is not None and cut[number]):
            result[table.values.index(value)] = counts[value] * grid.spacing**3 / 1000
    return result
