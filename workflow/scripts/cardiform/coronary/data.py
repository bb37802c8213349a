"""Thin structures as training samples: patches that are corrupted again, and NeAR's points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..anatomy.corruption import corrupt
from ..anatomy.repair import repair
from ..cohort.manifest import MadeFile, made_files, read_manifests
from ..cohort.table import OK
from ..errors import InputError, again, problem
from ..geometry.distances import box_about, depth_in, distance_to, signed_distance
from ..geometry.interpolation import trilinear
from ..options.coronary import CoronaryOptions, CoronaryRepairOptions, NearOptions
from ..sparse.tensor import Structure
from ..training.shared import Kept
from .thin_structure import PackedMask, same_spacing

JAGGED_SHARE = 0.75  # of the strength that the other kinds reach
WALL_VOXELS = 2.0  # query points within this of the wall count as near it
OFF_CENTRE = 8  # voxels that a patch lies off the centreline, at most
HELD_OUT = 1 << 40  # draws of the validation patches: no training reaches them


class PatchBatch(TypedDict):
    """Several patches, N cells and P query points in all (:func:`collate_patches`)."""

    case_id: list[str]
    samples: int
    coords: Tensor  # (N, 4) int32, the sample first
    inputs: Tensor  # (N, C) float32, see Cells
    points: Tensor  # (P, 4) float32: sample, voxels
    values: Tensor  # (P,) float32 distances of the label before, in truncations
    structure: NotRequired[Structure]  # of the coords, kept by the task when it is first made


class NearBatch(TypedDict):
    """B items of :class:`NearDataset`, P query points each."""

    case_id: list[str]
    index: Tensor  # (B,) int64 number of the training case
    points: Tensor  # (B, P, 3) float32 within [-1, 1]
    occupied: Tensor  # (B, P) float32, 1 inside of the label


def find_repaired(manifests: Iterable[str | Path], case_ids: Iterable[str]) -> list[MadeFile]:
    """The repaired structures of some cases, in their order; cases that lack it have none."""
    return made_files(manifests, case_ids, ".npz", again("repair_coronary"))


def without_structure(manifests: Iterable[str | Path]) -> set[str]:
    """The cases that repair_coronary looked at and found without the structure."""
    rows = [row for row in read_manifests(manifests) if row["status"] == OK]
    having = {row["case_id"] for row in rows if row["path"].endswith(".npz")}
    return {row["case_id"] for row in rows} - having


@dataclass(frozen=True)
class Cells:
    """The cells of a grid that take part, and what is known on them.

    coords : (N, 3) int32 voxels, sorted.
    inputs : (N, C) float32 within [-1, 1], in truncations: distance to the label, to its
        repair, both smoothed at every scale; last the repair at the finest scale again, which
        the network adds to.
    """

    coords: np.ndarray
    inputs: np.ndarray

    @classmethod
    def of(
        cls, label: np.ndarray, repaired: np.ndarray, spacing: float, options: CoronaryOptions
    ) -> Cells:
        """Of (X, Y, Z) bool masks on an isotropic grid."""
        limit = options.truncation_mm
        # at its border the distances are at their limit, as they are all the way beyond
        box = box_about(label | repaired, math.ceil(max(limit, options.reach_mm) / spacing) + 1)
        if box is None:
            return cls(np.zeros((0, 3), np.int32), np.zeros((0, cls.channels(options)), np.float32))
        label, repaired = label[box], repaired[box]
        active = distance_to(label | repaired, spacing, options.reach_mm) <= options.reach_mm
        raw = [signed_distance(mask, spacing, limit) / limit for mask in (label, repaired)]
        channels = raw + [
            ndimage.gaussian_filter(values, scale / spacing, truncate=3.0, mode="nearest")
            for scale in options.scales_mm
            for values in raw
        ]
        # the smoothed repair stands after the smoothed label
        channels.append(channels[3] if options.scales_mm else channels[1])
        values = np.stack([channel[active] for channel in channels], axis=1)
        coords = np.argwhere(active) + [side.start for side in box]
        return cls(coords.astype(np.int32), values.astype(np.float32))

    @staticmethod
    def channels(options: CoronaryOptions) -> int:
        """Number of inputs."""
        return 3 + 2 * len(options.scales_mm)


class PatchDataset(torch.utils.data.Dataset):
    """``dataset[index, draw]``: a patch of a repaired label, corrupted again, and query points.

    The patches lie along the centreline, so that every millimetre of a vessel counts the same,
    however thin. The network sees the corrupted patch and is asked for the label before.
    """

    def __init__(
        self,
        files: Sequence[MadeFile],
        repair_options: CoronaryRepairOptions,
        options: CoronaryOptions,
        *,
        patches: int = 1,
        augment: bool = True,
        shared: Path | None = None,
    ):
        self.files, self.repair_options, self.options = list(files), repair_options, options
        self.patches, self.augment = patches, augment
        self.kept = Kept(self.files, lambda f: packed_mask(f, "repaired"), shared, "repaired")
        self.cases = [PackedMask.of(self.kept.arrays(i)) for i in range(len(self.files))]
        self._check_grids()

    def _check_grids(self) -> None:
        """InputError where files lie on another grid than the model will say of itself."""
        wanted = self.repair_options.spacing_mm
        other = [n for n, c in enumerate(self.cases) if not same_spacing(c.spacing, wanted)]
        if other:
            found = f"lies on a grid of {self.cases[other[0]].spacing:g} mm"
            fact = (
                f"{found}, and spacing_mm is {wanted:g} ({len(other)} of {len(self.files)} files)"
            )
            remedy = "set coronary_repair.spacing_mm (--spacing-mm) to that of repair_coronary"
            raise InputError(problem(self.files[other[0]].path, fact, remedy))

    def __len__(self) -> int:
        return len(self.files) * self.patches

    def __getitem__(self, key: tuple[int, int]) -> dict:
        index, draw = key
        row = index % len(self.files)
        rng = np.random.default_rng((self.options.seed, draw + (0 if self.augment else HELD_OUT)))
        self.kept.check(row)
        case, options = self.cases[row], self.options
        target, depth = self._patch(case, rng)
        corrupted = corrupt(
            target, np.full(3, case.spacing), strengths(options, rng, self.augment), rng
        )
        mended, _ = repair(corrupted, case.spacing, self.repair_options)
        cells = Cells.of(corrupted, mended, case.spacing, options)
        truth = signed_distance(target, case.spacing, options.truncation_mm)
        points = self._points(cells, truth, case.spacing, rng)
        distances = trilinear(truth, points)
        if depth is not None:  # behind the cut there may be more of the vessel
            known = np.abs(distances) <= trilinear(depth, points)
            points, distances = points[known], distances[known]
        values = distances / options.truncation_mm
        return {
            "case_id": self.files[row].case_id,
            "coords": torch.from_numpy(cells.coords),
            "inputs": torch.from_numpy(cells.inputs),
            "points": torch.from_numpy(points),
            "values": torch.from_numpy(values),
        }

    def _patch(self, case: PackedMask, rng) -> tuple[np.ndarray, np.ndarray | None]:
        """A cube of the mask about a place near the centreline, turned and mirrored.

        Returns
        -------
        The mask, and how deep each voxel lies before the planes that cut it, (X, Y, Z) float32
        mm; None where nothing is cut.
        """
        line, edge = case.line, self.options.patch
        middle = line[rng.integers(len(line))] if len(line) else np.array(case.shape) // 2
        start = middle + rng.integers(-OFF_CENTRE, OFF_CENTRE + 1, 3) - edge // 2
        result = np.zeros((edge,) * 3, bool)
        low, high = np.maximum(start, 0), np.minimum(start + edge, case.shape)
        result[tuple(map(slice, low - start, high - start))] = case.part(low, high)
        parts = [result]
        if case.slopes is not None:
            places = np.indices(result.shape).reshape(3, -1).T + start
            parts.append(case.depth(places).reshape(result.shape).astype(np.float32))
        if self.augment:
            axes = rng.permutation(3)
            turned = tuple(slice(None, None, s) for s in rng.choice((-1, 1), 3))
            parts = [part.transpose(axes)[turned] for part in parts]
        target, *depth = map(np.ascontiguousarray, parts)
        return target, depth[0] if depth else None

    def _points(self, cells: Cells, truth: np.ndarray, spacing: float, rng) -> np.ndarray:
        """(P, 3) float32 voxels, jittered within the cells."""
        options = self.options
        if not len(cells.coords):
            return np.zeros((0, 3), np.float32)
        wall = np.abs(truth[tuple(cells.coords.T)]) <= WALL_VOXELS * spacing
        near = np.flatnonzero(wall) if wall.any() else np.arange(len(cells.coords))
        close = round(options.near * options.points)
        rows = np.concatenate(
            [
                rng.choice(near, close),
                rng.integers(len(cells.coords), size=options.points - close),
            ]
        )
        jitter = rng.uniform(-0.5, 0.5, (len(rows), 3))
        return np.clip(cells.coords[rows] + jitter, 0, options.patch - 1).astype(np.float32)


def strengths(options: CoronaryOptions, rng: np.random.Generator, random: bool) -> dict[str, float]:
    """How strongly each kind acts on a patch: at random up to ``strength``, or half of it."""
    top = {k: options.strength * (JAGGED_SHARE if k == "jagged" else 1) for k in options.kinds}
    return {kind: t * (rng.random() if random else 0.5) for kind, t in top.items()}


def collate_patches(samples: Sequence[dict]) -> PatchBatch:
    """The batch of some items of :class:`PatchDataset`."""

    def numbered(name: str) -> Tensor:
        return torch.cat(
            [torch.nn.functional.pad(s[name], (1, 0), value=i) for i, s in enumerate(samples)]
        )

    return {
        "case_id": [s["case_id"] for s in samples],
        "samples": len(samples),
        "coords": numbered("coords"),
        "inputs": torch.cat([s["inputs"] for s in samples]),
        "points": numbered("points"),
        "values": torch.cat([s["values"] for s in samples]),
    }


class NearDataset(torch.utils.data.Dataset):
    """``dataset[index, draw]``: points of one whole label, part of them from its band.

    The band is dilation minus erosion and its points are jittered; the other points are uniform.
    The share of band points falls over the parts of the training (``options.band``).

    uniform : all points are uniform and the same every time, as in the documented validation.
    shared : folder of what all processes share; None: each keeps its own.
    """

    def __init__(
        self,
        files: Sequence[MadeFile],
        options: NearOptions,
        *,
        uniform: bool = False,
        shared: Path | None = None,
    ):
        self.files, self.options, self.uniform = list(files), options, uniform
        self.kept = Kept(self.files, self._made, shared, ["label", options.band_voxels])
        self.cases = [PackedMask.of(self.kept.arrays(i)) for i in range(len(self.files))]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        index, draw = key
        options, bands = self.options, self.kept[index]["band"]
        mask = self.cases[index].mask()
        rng = np.random.default_rng((options.seed, draw + (HELD_OUT if self.uniform else 0)))
        share = 0.0 if self.uniform else self.band_share(draw // options.batch_size)
        close = round(share * options.points)
        shape = np.array(mask.shape)
        rows = bands[rng.integers(len(bands), size=close)]
        points = np.concatenate(
            [
                rows + rng.uniform(-0.5, 0.5, rows.shape),
                rng.uniform(0, shape - 1, (options.points - close, 3)),
            ]
        ).astype(np.float32)
        points = np.clip(points, 0, shape - 1)
        known = np.flatnonzero(self.cases[index].depth(points) >= 0)
        if 0 < len(known) < len(points):  # as many, but none of them behind the cut
            points = points[known[rng.integers(len(known), size=len(points))]]
        occupied = trilinear(mask.astype(np.float32), points) > 0.5
        return {
            "case_id": self.files[index].case_id,
            "index": index,
            "points": torch.from_numpy(unit_points(points, mask.shape)),
            "occupied": torch.from_numpy(occupied.astype(np.float32)),
        }

    def _made(self, file: MadeFile) -> dict[str, np.ndarray]:
        arrays = packed_mask(file, "label")
        band = wall_band(PackedMask.of(arrays).mask(), self.options.band_voxels)
        return arrays | {"band": band.astype(np.int16)}

    def band_share(self, step: int) -> float:
        """Share of band points at a step of the training."""
        parts = self.options.band
        return parts[min(step * len(parts) // self.options.steps, len(parts) - 1)]


def packed_mask(file: MadeFile, name: str) -> dict[str, np.ndarray]:
    """Arrays of a mask of a repaired structure, for :meth:`PackedMask.of`."""
    return PackedMask.load(file.path, name).arrays()


def wall_band(mask: np.ndarray, voxels: int) -> np.ndarray:
    """(N, 3) voxels of the dilation that are not in the erosion, by balls of ``voxels``."""
    outside, inside = distance_to(mask, 1.0, voxels), depth_in(mask, 1.0)
    return np.argwhere((outside <= voxels) & (inside <= voxels))


def unit_points(points: np.ndarray, shape: Sequence[int] | np.ndarray) -> np.ndarray:
    """(N, 3) float32 voxels of a grid to [-1, 1] along every axis, border centres at the ends."""
    return (points / (np.array(shape, np.float32) - 1) * 2 - 1).astype(np.float32)


def identity(parts: Mapping[str, Sequence[MadeFile]]) -> dict[str, list]:
    """What of the files decides a training."""
    return {name: [[f.case_id, f.sha256] for f in files] for name, files in parts.items()}
