"""How good a model of shapes is: compactness, generalisation, specificity, anatomy.

Davies, "Learning shape: optimal models for analysing natural variability" (2002); Styner et al.,
"Evaluation of 3D correspondence methods for model building", IPMI 2003. All distances are between
surfaces and those of real hearts, so that models of different kinds compare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..geometry.surface import Mesh, extract_surface
from ..labels import LabelTable
from .case import RegisteredHeart, to_surface
from .components import Components, nearest
from .model import ShapeModel
from .poses import best_pose
from .template import Template, in_mm
from .velocity import rows_at
from .voxels import Box, Judge, distances_of, label_map, label_map_of

POINTS = 1000  # of each class of a real heart, by which its distance is measured
MOST_TRAINING = 12  # training hearts that are rebuilt
LEAST_SHARE = 1e-6  # of the variance of float32 distances: less is rounding


class Truth(Protocol):
    """A real heart, in the frame that models make surfaces in."""

    def distance(self, parts: Mapping[int, Mesh]) -> float:
        """mm to other surfaces, class value -> surface."""
        ...


@dataclass(frozen=True)
class GridTruth:
    """A real heart, in the frame of the template.

    distances : (X, Y, Z, C) int8 steps.    points : class value -> (N, 3) mm of its surface.
    """

    distances: np.ndarray
    points: Mapping[int, np.ndarray]
    template: Template

    @classmethod
    def of(cls, heart: RegisteredHeart, template: Template) -> GridTruth:
        found = surfaces_of(distances_of(heart.distances), template)
        points = {v: m.vertices[:: max(len(m.vertices) // POINTS, 1)] for v, m in found.items()}
        return cls(heart.distances, points, template)

    def distance(self, parts: Mapping[int, Mesh]) -> float:
        """mm to other surfaces: the mean of both ways, then over the classes."""
        rows, template = [], self.template
        for channel, value in enumerate(template.values):
            mesh = parts[value]
            if not len(mesh.faces):
                rows.append(lost(self.points[value]))
                continue
            field = in_mm(self.distances[..., channel, None])
            there = np.abs(rows_at(field, template.index(mesh.vertices))).mean()
            rows.append((float(there) + float(to_surface(self.points[value], mesh).mean())) / 2)
        return float(np.mean(rows))


def lost(points: np.ndarray) -> float:
    """mm that a class counts as, of (N, 3) points, where it is not there at all: half its edge."""
    return float(np.ptp(points, axis=0).max()) / 2


def surfaces_of(distances: np.ndarray, template: Template) -> dict[int, Mesh]:
    """Class value -> surface of (X, Y, Z, C) distances in mm on the template's grid."""
    affine = np.diag([template.spacing] * 3 + [1.0])
    affine[:3, 3] = template.origin
    result = {}
    for channel, value in enumerate(template.values):
        field = np.ascontiguousarray(distances[..., channel])
        result[value] = extract_surface(field, affine, np.abs(field) < 3 * template.spacing)
    return result


class Model(Protocol):
    """What is compared: a linear model of some kind."""

    @property
    def modes(self) -> int: ...

    @property
    def shares(self) -> np.ndarray:
        """(K,) of the variance."""
        ...

    def code(self, number: int, part: str) -> np.ndarray:
        """(K,) scores of a heart of a part."""
        ...

    def surfaces(self, scores: np.ndarray, number: int, part: str) -> dict[int, Mesh]:
        """Class value -> surface of scores, in the frame of that heart."""
        ...

    def nearest(self, scores: np.ndarray) -> int:
        """The training heart that is most like the scores."""
        ...

    def labels(self, scores: np.ndarray, table: LabelTable) -> np.ndarray:
        """(X, Y, Z) uint8 label map of scores."""
        ...


Hearts = Mapping[str, Sequence[RegisteredHeart]]


class Correspondences:
    """A :class:`ShapeModel` as it is compared."""

    def __init__(self, model: ShapeModel, hearts: Hearts):
        self.model, self.hearts = model, hearts
        self.train = np.stack([model.scores(heart.vertices) for heart in hearts["train"]])
        self.shares = model.explained

    @property
    def modes(self) -> int:
        return self.model.modes

    def code(self, number: int, part: str) -> np.ndarray:
        return self.model.scores(self.hearts[part][number].vertices)

    def surfaces(self, scores: np.ndarray, number: int, part: str) -> dict[int, Mesh]:
        own = self.hearts[part][number].vertices
        pose = best_pose(own, self.model.vertices, with_scale=self.model.remove_size).inverse
        return self.model.parts(pose(self.model.shape(scores).astype(np.float64)))

    def nearest(self, scores: np.ndarray) -> int:
        return nearest(self.train, scores, self.shares)

    def labels(self, scores: np.ndarray, table: LabelTable) -> np.ndarray:
        vertices = self.model.shape(scores)
        return label_map(self.model.parts(vertices), Box.around(vertices), table)


class SignedDistances:
    """The plain way: principal components of clipped distances on a grid (Leventon et al., CVPR
    2000), of the same hearts in the same poses."""

    def __init__(self, template: Template, hearts: Hearts, modes: int):
        self.template, self.hearts = template, hearts
        rows = np.stack([heart.distances.ravel() for heart in hearts["train"]])
        self.mean = rows.mean(axis=0, dtype=np.float32)
        rest = rows - self.mean
        found = Components.of(rest, variance=1.0, most=modes, least=LEAST_SHARE)
        self.modes, self.shares = len(found.shares), found.shares
        self.components = found.directions(rest)
        self.norms = np.einsum("km,km->k", self.components, self.components)
        self.train = (rest @ self.components.T) / self.norms

    def code(self, number: int, part: str) -> np.ndarray:
        rest = self.hearts[part][number].distances.ravel() - self.mean
        return self.components @ rest / self.norms

    def field(self, scores: np.ndarray) -> np.ndarray:
        """(X, Y, Z, C) float32 mm."""
        scores = np.asarray(scores, np.float32)
        flat = self.mean + scores @ self.components[: len(scores)]
        found = in_mm(flat).reshape(self.template.distances.shape)
        return np.where(found == 0, np.float32(1e-3), found)

    def surfaces(self, scores: np.ndarray, number: int, part: str) -> dict[int, Mesh]:
        return surfaces_of(self.field(scores), self.template)

    def nearest(self, scores: np.ndarray) -> int:
        return nearest(self.train, scores, self.shares)

    def labels(self, scores: np.ndarray, table: LabelTable) -> np.ndarray:
        return label_map_of(self.field(scores), self.template, table)


def numbers_of_modes(modes: int) -> list[int]:
    """Those that are reported: few, and all."""
    return sorted({n for n in (1, 2, 4, 8, 16) if n < modes} | {modes})


def quality(
    model: Model, truths: Mapping[str, Sequence[Truth]], samples: int, seed: int
) -> list[dict]:
    """A row for some numbers of modes.

    compactness : share of the variance.
    generalisation_mm : from held-out hearts (parts val and test) to what the modes make of them;
        None where there are none. training_mm : the same of training hearts.
    specificity_mm : from hearts drawn from the model to the most similar training heart.
    """
    rows = []
    parts = {part: range(len(found)) for part, found in truths.items()}
    parts["train"] = parts["train"][:MOST_TRAINING]
    codes = {part: [model.code(n, part) for n in numbers] for part, numbers in parts.items()}
    drawn = np.random.default_rng(seed).normal(size=(samples, model.modes))
    for modes in numbers_of_modes(model.modes):
        errors = {
            part: [
                truths[part][n].distance(model.surfaces(codes[part][n][:modes], n, part))
                for n in numbers
            ]
            for part, numbers in parts.items()
        }
        held_out = [*errors.get("val", []), *errors.get("test", [])]
        special = []
        for scores in drawn[:, :modes]:
            number = model.nearest(scores)
            found = model.surfaces(scores, number, "train")
            special.append(truths["train"][number].distance(found))
        rows.append(
            {
                "modes": modes,
                "compactness": float(np.sum(model.shares[:modes])),
                "generalisation_mm": float(np.mean(held_out)) if held_out else None,
                "training_mm": float(np.mean(errors["train"])),
                "specificity_mm": float(np.mean(special)),
            }
        )
    return rows


def between(
    model: Model, pairs: Sequence[tuple[int, int]], judge: Judge, table: LabelTable
) -> dict:
    """Share of hearts on the way between two training hearts whose anatomy is valid."""
    checks = []
    for first, second in pairs:
        ends = [model.code(n, "train") for n in (first, second)]
        for share in (0.25, 0.5, 0.75):
            scores = (1 - share) * ends[0] + share * ends[1]
            checks.append(judge.check(model.labels(scores, table)))
    if not checks:
        return {"hearts": 0, "valid": None}
    rules = {name: float(np.mean([check[name] for check in checks])) for name in checks[0]}
    valid = float(np.mean([all(check.values()) for check in checks]))
    return {"hearts": len(checks), **rules, "valid": valid}
