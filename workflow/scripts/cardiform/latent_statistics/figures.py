"""Hearts of latents as surfaces, and the model as it is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..geometry.coarse_to_fine import sample_field
from ..geometry.frame import Frame
from ..geometry.surface import Mesh
from ..labels import LabelTable
from ..set_diffusion.encode import as_encoded, chosen
from ..statistics.components import nearest
from ..statistics.quality import Truth
from ..statistics.voxels import Box, label_map
from ..vecset.reconstruct import Reconstructor
from .hearts import PosedHeart
from .model import LatentModel


@dataclass(frozen=True)
class Decoder:
    """A VecSet, the classes that are shown, and the edge of their triangles, mm."""

    network: Reconstructor
    table: LabelTable
    mesh_mm: float

    def surfaces(self, latents: np.ndarray, frame: Frame) -> dict[int, Mesh]:
        """Class value -> surface, mm in the pose of the mean, of (M, W) latents."""
        rows = torch.from_numpy(latents)[None].to(self.network.device)
        field = self.network.field(as_encoded(rows, self.network))
        size = int(np.ceil(2 / frame.scale / self.mesh_mm)) + 1
        affine = np.diag([self.mesh_mm] * 3 + [1.0])
        affine[:3, 3] = frame.center - self.mesh_mm * (size - 1) / 2
        own = chosen(field, self.network.table, self.table)
        found = sample_field(own, (size,) * 3, affine, frame.to_unit)
        return {value: found.surface(k) for k, value in enumerate(self.table.values)}

    def labels(self, parts: Mapping[int, Mesh]) -> np.ndarray:
        """(X, Y, Z) uint8 label map of surfaces, 1 mm."""
        vertices = np.concatenate([mesh.vertices for mesh in parts.values()])
        if not len(vertices):
            return np.zeros((1, 1, 1), np.uint8)
        return label_map(parts, Box.around(vertices), self.table)


class LatentModes:
    """A :class:`LatentModel` as it is compared and drawn."""

    def __init__(
        self, model: LatentModel, decoder: Decoder, hearts: Mapping[str, Sequence[PosedHeart]]
    ):
        """hearts : those that are compared, part by part."""
        self.model, self.decoder = model, decoder
        self.codes = {part: [model.scores(h) for h in found] for part, found in hearts.items()}
        self.train = np.stack(self.codes["train"])
        self.modes, self.explained = model.modes, model.explained
        self.shares = model.explained
        self._drawn: dict[tuple[float, ...], dict[int, Mesh]] = {}  # pictures show them again

    def code(self, number: int, part: str) -> np.ndarray:
        return self.codes[part][number]

    def surfaces(self, scores: np.ndarray, number: int, part: str) -> dict[int, Mesh]:
        return self.decoder.surfaces(*self.model.heart(scores))

    def nearest(self, scores: np.ndarray) -> int:
        return nearest(self.train, scores, self.shares)

    def labels(self, scores: np.ndarray, table: LabelTable) -> np.ndarray:
        return self.decoder.labels(self.decoder.surfaces(*self.model.heart(scores)))

    def at(self, mode: int, deviations: float) -> dict[int, Mesh]:
        """Class value -> surface of the mean heart, changed in one mode; classes that are lost have
        none."""
        scores = np.zeros(self.modes)
        scores[mode] = round(float(deviations), 6)
        key = tuple(scores.tolist())
        if key not in self._drawn:
            found = self.decoder.surfaces(*self.model.heart(scores))
            self._drawn[key] = {value: mesh for value, mesh in found.items() if len(mesh.faces)}
        return self._drawn[key]


def ceiling(
    decoder: Decoder,
    hearts: Mapping[str, Sequence[PosedHeart]],
    truths: Mapping[str, Sequence[Truth]],
    most_training: int,
) -> dict[str, float | None]:
    """mm from hearts to what the VecSet makes of their own latents, without modes."""
    errors: dict[str, list[float]] = {}
    for part, found in hearts.items():
        own = list(zip(found, truths[part]))[: most_training if part == "train" else None]
        errors[part] = [
            truth.distance(decoder.surfaces(heart.latents, heart.frame)) for heart, truth in own
        ]
    held_out = [*errors.get("val", []), *errors.get("test", [])]
    return {
        "held_out_mm": float(np.mean(held_out)) if held_out else None,
        "training_mm": float(np.mean(errors["train"])),
    }
