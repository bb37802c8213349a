"""Labelled surface points and distances of a cohort, drawn and augmented for the VecSet."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
from torch import Tensor

from ..errors import InputError, problem
from ..geometry.sampling import POINTS
from ..labels import LabelTable, channel_of_value
from ..options.vecset import VecsetOptions
from .inputs import Labelled, draw_input, moved
from .similarity import Similarity

# Half a voxel of a coarse case, unit frame: what is thinner is not known to be.
LEAST_DEPTH = 0.005
UNIT_WITHIN = 0.01  # lengths of normals
LEAST_SEEN = 0.5  # of a surface that is encoded as if it were cut


class PointBatch(TypedDict):
    """A batch of B items of :class:`PointDataset`, which are the same without the B.

    Unit frame, float32 unless said; distances of unknown classes are NaN. The last two are there
    where classes may be hidden.
    """

    points: Tensor  # (B, N, 3 + C), or with the normals (B, N, 3 + C + 3)
    fps: Tensor  # (B, M) int64; (B, 0) with learned queries
    volume: Tensor  # (B, V, 3)
    volume_sdf: Tensor  # (B, V, C)
    near: Tensor  # (B, Q, 3)
    near_sdf: Tensor  # (B, Q, C)
    surface: Tensor  # (B, S, 3)
    surface_channel: Tensor  # (B, S) int64
    annotated: Tensor  # (B, C) bool
    case_id: list[str]
    hidden: NotRequired[Tensor]  # (B, C) bool
    near_hidden: NotRequired[Tensor]  # (B, Q) bool


@dataclass(frozen=True)
class CasePoints:
    """What is drawn from of a points file; distances stay (N, C) float16."""

    case_id: str
    surface: Labelled
    near: Labelled
    near_sdf: np.ndarray
    volume: Labelled
    volume_sdf: np.ndarray
    annotated: np.ndarray
    planes: np.ndarray | None = None  # (P, 4), where the scan cuts the heart
    check: Callable[[], None] = lambda: None  # of the files that are mapped; InputError
    stored_digest: str = ""

    def digest(self) -> str:
        """Hex digest of the case id and of all that is kept."""
        if self.stored_digest:
            return self.stored_digest
        state = hashlib.sha256(self.case_id.encode())
        for part in (self.surface, self.near, self.volume):
            state.update(np.ascontiguousarray(part.points).data)
            state.update(np.ascontiguousarray(part.channels).data)
        for array in (self.near_sdf, self.volume_sdf, self.annotated, self.surface.normals):
            if array is not None:
                state.update(np.ascontiguousarray(array).data)
        return state.hexdigest()


def load_case_points(
    path: str | Path,
    case_id: str,
    labels: LabelTable,
    keep: int = 0,
    truncation: float = math.inf,
    normals: bool = False,
) -> CasePoints:
    """Read the points file of a case.

    keep : first near and volume points that are kept (0: all). Files are shuffled, so the
        first ones are a fair sample.
    truncation : where a cut hides a distance, but not that it is at least this (unit frame), it
        is taken to be what it is at least: trainings that clip there see no difference.
    normals : of the surface points, too.

    Raises
    ------
    InputError
        All problems of the file: not of the format, another label table, no points, or
        normals that are not unit vectors.
    """
    arrays, remedy = POINTS.load(path), POINTS.remedy
    values = tuple(int(v) for v in arrays["class_values"])
    if values != labels.values:
        text = f"was made for the classes {values}, the label table has {labels.values}"
        raise InputError(problem(path, text, remedy))
    problems = [
        problem(path, f"{name} is empty", remedy)
        for name in ("surface_points", "near_points", "volume_points")
        if not len(arrays[name])
    ]
    if normals and (bad := int((~_unit(arrays["surface_normals"])).sum())):
        fact = f"{bad} of its {len(arrays['surface_normals'])} surface_normals are not unit vectors"
        problems.append(problem(path, fact, f"{remedy}, or set vecset.normals to false"))
    if problems:
        raise InputError(problems)
    channel = np.array(channel_of_value(values), np.uint8)
    head = slice(0, keep or None)
    near_channels = channel[arrays["near_labels"][head]]
    near_sdf, volume_sdf = (
        _filled(arrays[f"{name}_sdf"][head], arrays.get(f"{name}_least"), truncation)
        for name in ("near", "volume")
    )
    return CasePoints(
        case_id=case_id,
        surface=surface_of(arrays, channel, normals),
        near=Labelled.of(arrays["near_points"][head].copy(), near_channels),
        near_sdf=near_sdf,
        volume=Labelled.of(arrays["volume_points"][head].copy(), _within(volume_sdf)),
        volume_sdf=volume_sdf,
        annotated=arrays["annotated"].astype(bool),
        planes=arrays.get("cut_planes"),
    )


def surface_of(
    arrays: Mapping[str, np.ndarray], channel: np.ndarray, normals: bool = False
) -> Labelled:
    """The surface of the arrays of a points file.    channel : of each class value."""
    return Labelled.of(
        arrays["surface_points"],
        channel[arrays["surface_labels"]],
        weights=1 / _depths(arrays["near_sdf"], arrays["volume_sdf"]),
        normals=arrays["surface_normals"] if normals else None,
    )


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How an item is drawn; the names are those of VecsetOptions.

    latents : those that start at input points (0 with learned queries).
    """

    input_points: int
    volume_queries: int
    near_queries: int
    surface_queries: int
    balanced: float
    latents: int
    augment_rotation_deg: float = 0.0
    augment_scale: float = 0.0
    augment_shift: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if self.input_points < self.latents:  # said here: workers would say it amid the run
            raise InputError(
                f"vecset.input_points: {self.input_points} points are too few for the "
                f"{self.latents} latents of the preset; raise it"
            )

    @classmethod
    def from_options(cls, options: VecsetOptions, latents: int, augment: bool) -> Draw:
        """The draws that ``options`` describe; only training items are augmented."""
        names = {field.name for field in fields(cls)} - {"latents"}
        if not augment:
            names -= {"augment_rotation_deg", "augment_scale", "augment_shift"}
        return cls(latents=latents, **{name: getattr(options, name) for name in names})


class PointDataset:
    """``dataset[index, draw]`` is an item, decided by (seed, draw) alone.

    completing : where scans cut some of the cases, the others are encoded as if they were cut
        in the same places, as often (at most half of the items). Their distances are known there,
        so the network can learn what lies behind a cut. Where most cases are cut, so are these,
        once more.
    """

    def __init__(self, cases: Sequence[CasePoints], draw: Draw, completing: bool = False):
        self.cases, self.draw = list(cases), draw
        self.planes = [c.planes for c in cases if c.planes is not None and completing]
        self.checked: set[int] = set()  # by this process
        self.mostly_cut = 2 * len(self.planes) > len(self.cases)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        index, number = key
        case, draw = self.cases[index], self.draw
        if index not in self.checked:  # not before the training, which would read the whole cohort
            case.check()
            self.checked.add(index)
        rng = np.random.default_rng((draw.seed, number))
        move = Similarity.draw(
            rng, draw.augment_rotation_deg, draw.augment_scale, draw.augment_shift
        )
        points, fps, move = self.encoded(self._seen(case, number), number, move, rng)
        near = case.near.draw(draw.near_queries, draw.balanced, rng)
        volume = self.volume_rows(case, points, move, rng)
        surface = case.surface.draw(draw.surface_queries, draw.balanced, rng)
        return {
            "points": points,
            "fps": fps,
            "volume": move.apply(case.volume.points[volume]),
            "volume_sdf": case.volume_sdf[volume].astype(np.float32) * np.float32(move.scale),
            "near": move.apply(case.near.points[near]),
            "near_sdf": case.near_sdf[near].astype(np.float32) * np.float32(move.scale),
            "surface": move.apply(case.surface.points[surface]),
            "surface_channel": case.surface.channels[surface].astype(np.int64),
            "annotated": case.annotated,
            "case_id": case.case_id,
            **self.counted(case, points, near),
        }

    def volume_rows(
        self, case: CasePoints, points: np.ndarray, move: Similarity, rng: np.random.Generator
    ) -> np.ndarray:
        """(V,) rows of the volume points of a case that an item asks for.

        points : what is encoded.    move : the map of the case to where that is.
        """
        return case.volume.draw(self.draw.volume_queries, self.draw.balanced, rng)

    def counted(
        self, case: CasePoints, points: np.ndarray, near: np.ndarray
    ) -> dict[str, np.ndarray]:
        """What else an item has: how its near rows count. Here all count the same."""
        return {}

    def encoded(
        self, surface: Labelled, number: int, move: Similarity, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, Similarity]:
        """Of what is seen of a case: points (N, 3 + C) and fps (M,), and the map of the case."""
        draw = self.draw
        classes = self.cases[0].near_sdf.shape[1]
        points, fps = draw_input(
            surface,
            classes,
            input_points=draw.input_points,
            latents=draw.latents,
            balanced=draw.balanced,
            rng=rng,
        )
        return moved(points, move, classes), fps, move

    def _seen(self, case: CasePoints, number: int) -> Labelled:
        """The surface that is encoded of a case: all of it, or what a cut would leave."""
        if not self.planes or (case.planes is not None and not self.mostly_cut):
            return case.surface
        rng = np.random.default_rng((self.draw.seed, number, 1))
        if rng.random() >= min(len(self.planes) / len(self.cases), 0.5):
            return case.surface
        planes = self.planes[rng.integers(len(self.planes))]
        kept = (case.surface.points @ planes[:, :3].T + planes[:, 3] >= 0).all(axis=1)
        # planes of other hearts may fit a heart badly
        return case.surface if kept.mean() < LEAST_SEEN else case.surface.part(kept)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """(N,) bool: the (N, 3) vectors of length 1; those that are no numbers have none."""
    return np.abs(np.linalg.norm(vectors, axis=1) - 1) < UNIT_WITHIN


def _filled(sdf: np.ndarray, least: np.ndarray | None, truncation: float) -> np.ndarray:
    """A copy of (N, C) distances, the unknown ones what they are at least if that is enough."""
    sdf = sdf.copy()
    if least is not None:
        least = least[: len(sdf)]
        far = np.isnan(sdf) & (np.abs(least) >= truncation)
        sdf[far] = least[far]
    return sdf


def _depths(*distances: np.ndarray) -> np.ndarray:
    """(C,) how far inside of each class its deepest point lies, unit frame.

    The radius of a vessel, half the thickness of a wall. To cover a surface in steps of this
    size takes the fewer points the thicker a structure is.
    """
    lowest = np.min([np.nanmin(d, axis=0, initial=0) for d in distances], axis=0)
    return np.maximum(-lowest.astype(np.float64), LEAST_DEPTH)


def _within(sdf: np.ndarray) -> np.ndarray:
    """(N, C) distances to the channel (N,) of the deepest class, C outside of all."""
    known = np.where(np.isnan(sdf), np.float16(np.inf), sdf)
    return np.where(known.min(1) < 0, known.argmin(1), sdf.shape[1]).astype(np.uint8)
