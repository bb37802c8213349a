"""Stored latents of hearts, and the same hearts encoded in one pose."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from ..cohort.manifest import made_files
from ..errors import together
from ..geometry.frame import Frame
from ..geometry.sampling import POINTS
from ..geometry.surface import Mesh
from ..labels import LabelTable
from ..set_diffusion.latents import PLACE, SetLatents, frame_of, load_in_slots
from ..set_diffusion.slots import Slots
from ..statistics.case import to_planes, to_surface
from ..statistics.poses import Pose
from ..statistics.quality import POINTS as POINTS_OF_A_CLASS
from ..statistics.quality import lost
from ..vecset.reconstruct import Reconstructor


@dataclass(frozen=True)
class StoredHeart:
    """A heart of encode_set_latents.

    points : its points file.    latents : (M, W) float32, unit frame.
    frame : from there to mm in the cube of the heart.
    present, whole : (C,) bool: there; there, with slots, and not cut.
    """

    case_id: str
    points: Path
    latents: np.ndarray
    frame: Frame
    whole: np.ndarray
    present: np.ndarray

    @classmethod
    def of(cls, case_id: str, points: Path, found: SetLatents, slots: Slots) -> StoredHeart:
        # the volume of a class that is cut or absent is not known
        whole = found.present & np.isfinite(found.volumes)
        whole &= np.isin(np.arange(len(whole)), slots.channels)
        return cls(case_id, points, found.latents, frame_of(found.frame), whole, found.present)

    @property
    def places(self) -> np.ndarray:
        """(M, 3) float64 mm of the slots."""
        return self.frame.to_world(self.latents[:, :PLACE].astype(np.float64))


def stored_hearts(
    manifest: Path,
    rows: Mapping[str, Sequence[tuple[str, Path]]],
    slots: Slots,
    columns: int,
    classes: int,
) -> dict[str, list[StoredHeart]]:
    """The hearts of each part of a split that have latents.

    manifest : of encode_set_latents.    rows : part -> case ids and points files.

    Raises
    ------
    InputError
        Files are missing, damaged, or of other slots: all of them.
    """
    result = {}
    for part, found in rows.items():
        points = dict(found)
        files = made_files([manifest], list(points), ".npz")
        load = functools.partial(load_in_slots, slots=slots, columns=columns, classes=classes)
        loaded = together(*(functools.partial(load, file.path) for file in files))
        result[part] = [
            StoredHeart.of(file.case_id, points[file.case_id], heart, slots)
            for file, heart in zip(files, loaded)
        ]
    return result


@dataclass(frozen=True)
class PosedHeart:
    """A heart in the pose of the mean.

    latents : (M, W) float32, unit frame.    frame : from there to mm in that pose.
    """

    latents: np.ndarray
    frame: Frame


def turned(frame: Frame, pose: Pose) -> Frame:
    """The frame of a heart whose unit frame was turned as ``pose`` turns it."""
    return Frame(pose(frame.center), frame.scale / pose.scale)


def encoded(heart: StoredHeart, pose: Pose, network: Reconstructor) -> PosedHeart:
    """A heart, turned before it is encoded: the codes of a VecSet do not turn along with it.

    The latents begin at the surface points where they began in the heart as it is.

    pose : from the cube of the heart to the mean.
    """
    drawn, _ = network.inputs(heart.points, heart.case_id)
    tree = cKDTree(drawn[0, :, :PLACE].cpu().numpy())
    rows = torch.from_numpy(tree.query(heart.latents[:, :PLACE])[1])[None].to(drawn.device)
    turn = torch.from_numpy(pose.turn.astype(np.float32)).to(drawn.device)
    drawn = torch.cat([drawn[..., :PLACE] @ turn.T, drawn[..., PLACE:]], dim=-1)
    with torch.no_grad():
        latents = network.model.encode(drawn, rows)
    return PosedHeart(latents[0].float().cpu().numpy(), turned(heart.frame, pose))


@dataclass(frozen=True)
class SurfaceTruth:
    """The surface points of a real heart in the pose of the mean.

    points, normals : class value -> (N, 3) mm, and unit vectors.
    """

    points: Mapping[int, np.ndarray]
    normals: Mapping[int, np.ndarray]

    @classmethod
    def of(cls, heart: StoredHeart, pose: Pose, values: Sequence[int]) -> SurfaceTruth:
        """values : of the classes that count."""
        found = POINTS.load(heart.points)
        world = pose(heart.frame.to_world(found["surface_points"].astype(np.float64)))
        normals = found["surface_normals"].astype(np.float64) @ pose.turn.T
        rows = {value: found["surface_labels"] == value for value in values}
        return cls(
            {value: world[own] for value, own in rows.items()},
            {value: normals[own] for value, own in rows.items()},
        )

    def distance(self, parts: Mapping[int, Mesh]) -> float:
        """mm to other surfaces: the mean of both ways, then over the classes."""
        rows = []
        for value, points in self.points.items():
            mesh = parts[value]
            some = points[:: max(len(points) // POINTS_OF_A_CLASS, 1)]
            if not len(mesh.faces):
                rows.append(lost(some))
                continue
            back = to_planes(mesh.vertices, points, self.normals[value])
            rows.append((float(back.mean()) + float(to_surface(some, mesh).mean())) / 2)
        return float(np.mean(rows))


def reasons(
    found: Sequence[StoredHeart], channels: Sequence[int], table: LabelTable
) -> dict[str, str]:
    """Case id -> why a heart is no part of the model: it has not all of some classes whole."""
    result = {}
    for heart in found:
        absent = [table.names[c] for c in channels if not heart.present[c]]
        cut = [table.names[c] for c in channels if heart.present[c] and not heart.whole[c]]
        words = [f"without {', '.join(absent)}"] * bool(absent)
        words += [f"the scan cuts {', '.join(cut)}"] * bool(cut)
        if words:
            result[heart.case_id] = "; ".join(words)
    return result
