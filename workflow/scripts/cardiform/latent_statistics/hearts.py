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
from ..geometry.frame import UNIT_RADIUS, Frame
from ..geometry.sampling import POINTS
from ..geometry.surface import Mesh
from ..labels import LabelTable, channel_of_value
from ..set_diffusion.encode import surface_of
from ..set_diffusion.latents import PLACE, SetLatents, frame_of, load_in_slots
from ..set_diffusion.slots import Slots
from ..statistics.case import to_planes, to_surface
from ..statistics.poses import Pose, best_pose
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
class Surface:
    """What the slots get of the surface of a heart, which is turned like the mean heart.

    turn : (3, 3) from the unit frame of the heart.
    places : (M, 3) float64 mm, about the middle of the frame.    normals : (M, 3) means of unit
        vectors, shorter where the surface bends.
    """

    turn: np.ndarray
    places: np.ndarray
    normals: np.ndarray

    @classmethod
    def of(cls, heart: StoredHeart, slots: Slots, values: Sequence[int]) -> Surface:
        """Of all surface points, not of the few that are encoded.

        values : of the classes, channel by channel.
        """
        found = POINTS.load(heart.points)
        turn = best_pose(heart.latents[:, :PLACE], slots.places).turn
        points, normals = (found[f"surface_{key}"] @ turn.T for key in ("points", "normals"))
        channels = np.array(channel_of_value(values))[found["surface_labels"]]
        means = slots.means(points, channels, np.concatenate([points, normals], axis=1))
        return cls(turn, means[:, :PLACE] / heart.frame.scale, means[:, PLACE:])

    def pose(self, heart: StoredHeart, pose: Pose) -> Pose:
        """From the cube of the heart to where ``pose`` brings the places."""
        turn = pose.turn @ self.turn
        return Pose(turn, pose.shift - pose.scale * turn @ heart.frame.center, pose.scale)


@dataclass(frozen=True)
class PosedHeart:
    """A heart in the pose of the mean.

    latents : (M, W) float32, unit frame.    frame : from there to mm in that pose.
    places, normals : (M, 3) float64 of its surface there.
    """

    latents: np.ndarray
    frame: Frame
    places: np.ndarray
    normals: np.ndarray


def turned(drawn: torch.Tensor, turn: torch.Tensor, classes: int) -> torch.Tensor:
    """The network's input, (1, N, 3 + C) or with normals (1, N, 3 + C + 3), of a turned heart."""
    places, channels, normals = drawn.tensor_split([PLACE, PLACE + classes], dim=-1)
    if normals.shape[-1]:
        normals = normals @ turn.T
    return torch.cat([places @ turn.T, channels, normals], dim=-1)


def encoded(
    heart: StoredHeart, surface: Surface, onto: Pose, slots: Slots, network: Reconstructor
) -> PosedHeart:
    """A heart, turned before it is encoded: the codes of a VecSet do not turn along with it.

    onto : from the places of the surface to those of the mean.
    """
    pose = surface.pose(heart, onto)
    drawn, _ = network.inputs(heart.points, heart.case_id)
    turn = torch.from_numpy(pose.turn.astype(np.float32)).to(drawn.device)
    classes = len(network.table)
    drawn = turned(drawn, turn, classes)
    places = onto(surface.places)
    frame = Frame(pose(heart.frame.center), heart.frame.scale / pose.scale)
    points, channels = surface_of(drawn, classes)
    apart = 2.0 * UNIT_RADIUS  # no point of another class is as near
    tree = cKDTree(np.column_stack([points, 2 * apart * channels]))
    wanted = np.column_stack([frame.to_unit(places), 2 * apart * slots.channels])
    rows = torch.from_numpy(tree.query(wanted)[1])[None].to(drawn.device)
    with torch.no_grad():
        latents = network.model.encode(drawn, rows)
    return PosedHeart(
        latents[0].float().cpu().numpy(), frame, places, surface.normals @ onto.turn.T
    )


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
