"""Modes of variation of a VecSet's latents.

The slots are points in correspondence, so their modes are those of a point distribution model
(Cootes et al., CVIU 61, 1995). What a slot moves by along the surface changes no shape: it counts
only how far it moves along the normal. Latents and frames vary along with the modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, again
from ..files import save_npz
from ..formats import Format
from ..geometry.frame import Frame
from ..options.statistics import ModesOptions
from ..set_diffusion.latents import PLACE, frame_of, numbers_of
from ..statistics.components import Components
from ..statistics.model import LEAST_SD_MM
from .hearts import PosedHeart

LATENT_MODEL = Format(
    "latent model",
    {
        "places": "f32 (M, 3)",
        "normals": "f32 (M, 3)",
        "directions": "f32 (K, M)",
        "explained": "f32 (K)",
        "latents": "f32 (M, W)",
        "frame": "f64 (4)",
        "components": "f32 (K, M, W)",
        "frame_components": "f64 (K, 4)",
        "channels": "u8 (M)",
        "classes": "text (C)",
        "remove_size": "bool",
        "vecset_sha256": "text",
        "format_version": "i64",
    },
    again("latent_statistics"),
)


@dataclass(frozen=True)
class LatentModel:
    """Mean and modes.

    places : (M, 3) float32 mm of the slots of the mean heart.    normals : (M, 3) float32 means of
        the training hearts' unit normals there, shorter where these differ.
    directions : (K, M) float32 mm along the normals, of one standard deviation.
    explained : (K,) float32 shares of the variance of the training hearts.
    latents : (M, W) float32, with their places in mm, and frame : (4,) float64 of the mean heart.
    components : (K, M, W) float32.    frame_components : (K, 4) float64. What goes along with one
        standard deviation.
    """

    places: np.ndarray
    normals: np.ndarray
    directions: np.ndarray
    explained: np.ndarray
    latents: np.ndarray
    frame: np.ndarray
    components: np.ndarray
    frame_components: np.ndarray

    @classmethod
    def fit(cls, hearts: Sequence[PosedHeart], options: ModesOptions) -> LatentModel:
        """Of three hearts or more.

        Raises
        ------
        InputError
            The hearts do not differ.
        """
        places = np.mean([heart.places for heart in hearts], axis=0)
        normals = np.mean([heart.normals for heart in hearts], axis=0)
        latents = np.stack([in_mm(heart) for heart in hearts])
        frames = np.stack([numbers_of(heart.frame) for heart in hearts])
        mean, frame = latents.mean(axis=0), frames.mean(axis=0)
        moved = np.stack([((heart.places - places) * normals).sum(axis=1) for heart in hearts])
        found = Components.of(moved, variance=options.variance, most=options.most_modes)
        if found.total < LEAST_SD_MM**2 * len(places):
            raise InputError(
                f"latent_statistics: the {len(hearts)} training hearts are all the same, so there "
                "are no modes; add cases that differ"
            )
        components = found.directions((latents - mean).reshape(len(hearts), -1))
        return cls(
            places.astype(np.float32),
            normals.astype(np.float32),
            found.directions(moved).astype(np.float32),
            found.shares.astype(np.float32),
            mean.astype(np.float32),
            frame,
            components.reshape(-1, *mean.shape).astype(np.float32),
            found.directions(frames - frame),
        )

    @property
    def modes(self) -> int:
        return len(self.directions)

    def moved(self, heart: PosedHeart) -> np.ndarray:
        """(M,) float64 mm that the slots of a heart lie from the mean, along the normals."""
        return ((heart.places - self.places) * self.normals).sum(axis=1)

    def scores(self, heart: PosedHeart) -> np.ndarray:
        """(K,) float64 standard deviations of a heart in the pose of the mean."""
        rows = self.directions.astype(np.float64)
        return rows @ self.moved(heart) / (rows**2).sum(axis=1)

    def residual_mm(self, heart: PosedHeart, scores: np.ndarray) -> float:
        """Mean distance, along the normals, of a heart's slots from those that the modes make."""
        rest = np.abs(self.moved(heart) - scores @ self.directions)
        return float(rest.sum() / np.linalg.norm(self.normals, axis=1).sum())

    def heart(self, scores: np.ndarray) -> tuple[np.ndarray, Frame]:
        """(M, W) float32 latents of scores, unit frame, and their frame; of fewer than K scores, of
        the first modes alone."""
        scores = np.asarray(scores, np.float64)
        latents = self.latents + np.tensordot(scores, self.components[: len(scores)], axes=1)
        frame = frame_of(self.frame + scores @ self.frame_components[: len(scores)])
        unit = np.concatenate([frame.to_unit(latents[:, :PLACE]), latents[:, PLACE:]], axis=1)
        return unit.astype(np.float32), frame

    def save(
        self, path: Path, channels: np.ndarray, classes: Sequence[str], remove_size: bool,
        vecset_sha256: str,
    ) -> None:  # fmt: skip
        """With the channel of each slot, the names of all classes, and the hash of the VecSet."""
        save_npz(
            path,
            compressed=True,
            **{name: np.asarray(value) for name, value in vars(self).items()},
            channels=channels,
            classes=np.array(list(classes), np.str_),
            remove_size=np.array(remove_size),
            vecset_sha256=np.array(vecset_sha256),
            format_version=np.int64(LATENT_MODEL.version),
        )


def in_mm(heart: PosedHeart) -> np.ndarray:
    """(M, W) float64 latents with their places in mm."""
    latents = heart.latents.astype(np.float64)
    return np.concatenate([heart.frame.to_world(latents[:, :PLACE]), latents[:, PLACE:]], axis=1)
