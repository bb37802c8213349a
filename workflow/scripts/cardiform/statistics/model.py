"""Modes of variation of vertices in correspondence: a point distribution model.

Cootes et al., "Active shape models - their training and application", Computer Vision and Image
Understanding 61 (1995).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, again, problem
from ..files import save_npz
from ..formats import Format
from ..geometry.surface import Mesh
from .components import Components
from .poses import aligned, best_pose, onto_mean

MODEL = Format(
    "shape model",
    {
        "vertices": "f32 (V, 3)",
        "faces": "i32 (F, 3)",
        "labels": "u8 (F)",
        "components": "f32 (K, V, 3)",
        "explained": "f32 (K)",
        "template_sha256": "text",
        "classes": "text (C)",
    },
    again("shape_statistics"),
    marked=False,
)
LEAST_SD_MM = 1e-3  # by which vertices vary: less is rounding, too
NOISE_MM2 = 0.01  # of what no mode explains, where only a part of a heart is known


@dataclass(frozen=True)
class ShapeModel:
    """Mean and modes.

    vertices : (V, 3) float32 mm, the mean heart about its middle.
    faces, labels : (F, 3) int32; (F,) uint8 class value of each triangle.
    components : (K, V, 3) float32 mm per standard deviation.
    explained : (K,) float32 shares of the variance of the training hearts.
    remove_size : whether hearts are brought to the size of the mean before they are compared.
    template_sha256 : of the template.npz whose vertices these are.
    classes : names of the classes of that template, in its order.
    """

    vertices: np.ndarray
    faces: np.ndarray
    labels: np.ndarray
    components: np.ndarray
    explained: np.ndarray
    remove_size: bool = False
    template_sha256: str = ""
    classes: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        shapes: np.ndarray,
        faces: np.ndarray,
        labels: np.ndarray,
        *,
        variance: float,
        most_modes: int,
        remove_size: bool,
    ) -> ShapeModel:
        """Of (N, V, 3) vertices in correspondence, three hearts or more.

        variance : share that the modes keep, of which there are ``most_modes`` at most.

        Raises
        ------
        InputError
            The hearts do not differ.
        """
        mean, moved = aligned(shapes, with_scale=remove_size)
        rest = (moved - mean).reshape(len(moved), -1).astype(np.float64)
        rest -= rest.mean(axis=0)
        found = Components.of(rest, variance=variance, most=most_modes)
        if found.total < LEAST_SD_MM**2 * shapes.shape[1]:
            size = " but for their size" if remove_size else ""
            raise InputError(
                f"shape_statistics: the {len(shapes)} training hearts are all the same{size}, so "
                "there are no modes; add cases that differ"
            )
        components = found.directions(rest).reshape(len(found.shares), -1, 3)
        # a mode may point either way: the vertex that it moves most moves outward
        for mode in components:
            place = int((mode**2).sum(axis=1).argmax())
            if mode[place] @ mean[place] < 0:
                mode *= -1
        return cls(
            mean.astype(np.float32),
            faces.astype(np.int32),
            labels.astype(np.uint8),
            components.astype(np.float32),
            found.shares.astype(np.float32),
            remove_size,
        )

    @property
    def modes(self) -> int:
        return len(self.components)

    def posed(self, shape: np.ndarray) -> np.ndarray:
        """(V, 3) float32: vertices of a heart in the pose of the mean."""
        return onto_mean(shape, self.vertices, with_scale=self.remove_size)

    def scores(self, shape: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """(K,) float64 standard deviations of a heart's vertices (V, 3), in any pose.

        known : (V,) bool, the vertices that count: the scores are the likeliest of them then, under
            the model itself. None: all of them, and the scores are exact.
        """
        if known is None or known.all():
            rest = (self.posed(shape) - self.vertices).ravel().astype(np.float64)
            rows = self.components.reshape(self.modes, -1).astype(np.float64)
            return rows @ rest / (rows**2).sum(axis=1)
        own = self.vertices[known].astype(np.float64)
        posed = best_pose(shape[known], own, with_scale=self.remove_size)(shape[known])
        rows = self.components[:, known].reshape(self.modes, -1).astype(np.float64)
        normal = rows @ rows.T / len(own) + NOISE_MM2 * np.eye(self.modes)
        return np.linalg.solve(normal, rows @ (posed - own).ravel() / len(own))

    def shape(self, scores: np.ndarray) -> np.ndarray:
        """(V, 3) float32 vertices of scores; of fewer than K, of the first modes alone."""
        scores = np.asarray(scores, np.float32)
        return self.vertices + np.tensordot(scores, self.components[: len(scores)], axes=1)

    def at(self, mode: int, deviations: float) -> dict[int, Mesh]:
        """Class value -> surface of the mean heart, changed in one mode."""
        return self.parts(self.vertices + np.float32(deviations) * self.components[mode])

    @functools.cached_property
    def _pieces(self) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Class value, its vertices, and its triangles of these."""
        result = []
        for value in np.unique(self.labels):
            own = self.faces[self.labels == value]
            used, corners = np.unique(own, return_inverse=True)
            result.append((int(value), used, corners.reshape(own.shape).astype(np.int32)))
        return result

    def parts(self, vertices: np.ndarray) -> dict[int, Mesh]:
        """Class value -> surface of (V, 3) vertices of this model."""
        return {
            value: Mesh(vertices[used].astype(np.float32), corners)
            for value, used, corners in self._pieces
        }

    def save(self, path: str | Path) -> None:
        arrays = {name: np.asarray(getattr(self, name)) for name in MODEL.keys}
        arrays["classes"] = np.array(self.classes, np.str_)
        save_npz(path, compressed=True, **arrays)

    @classmethod
    def load(cls, path: str | Path, remove_size: bool = False) -> ShapeModel:
        """InputError where the file is missing, damaged, or no model."""
        found = MODEL.load(path)
        if fact := _fault(found):
            raise InputError(problem(path, fact, MODEL.remedy))
        arrays = {name: found[name] for name in MODEL.keys}
        arrays["template_sha256"] = str(arrays["template_sha256"])
        arrays["classes"] = tuple(arrays["classes"].tolist())
        return cls(**arrays, remove_size=remove_size)


def _fault(found: Mapping[str, np.ndarray]) -> str:
    """Why arrays are no model; empty where they are one."""
    faces, count = found["faces"], len(found["vertices"])
    if not len(faces) or faces.min() < 0 or faces.max() >= count:
        return f"has corners that are none of its {count} vertices"
    numbers = (found["vertices"], found["components"], found["explained"])
    if not all(np.isfinite(array).all() for array in numbers):
        return "has numbers that are not finite"
    if not len(found["components"]) or not (found["components"] ** 2).sum(axis=(1, 2)).all():
        return "has no modes, or one that moves nothing"
    if (found["labels"] == 0).any():
        return "has triangles of no class"
    return ""
