"""Modes of variation of a VecSet's latents.

The places of the latents are points in correspondence, so their modes are those of a point
distribution model (Cootes et al., CVIU 61, 1995); the codes, which say what the surface is like
about each place, vary along with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, again
from ..files import save_npz
from ..formats import Format
from ..options.statistics import ModesOptions
from ..set_diffusion.latents import PLACE, frame_of, numbers_of
from ..statistics.components import Components
from ..statistics.model import LEAST_SD_MM
from .hearts import PosedHeart

LATENT_MODEL = Format(
    "latent model",
    {
        "latents": "f32 (M, W)",
        "frame": "f64 (4)",
        "components": "f32 (K, M, W)",
        "frame_components": "f64 (K, 4)",
        "explained": "f32 (K)",
        "code_mm": "f64",
        "channels": "u8 (M)",
        "classes": "text (C)",
        "remove_size": "bool",
        "vecset_sha256": "text",
        "format_version": "i64",
    },
    again("latent_statistics"),
)
CODE_SHARE = 1.0  # of the variance of the places: so much the codes count


@dataclass(frozen=True)
class LatentModel:
    """Mean and modes.

    latents : (M, W) float32 of the mean heart: the place of each slot in mm, and its code.
    frame : (4,) float64 of the mean heart, as in stored latents.
    components : (K, M, W) float32.    frame_components : (K, 4) float64. Both of one standard
        deviation.
    explained : (K,) float32 shares of the variance of the training hearts.
    code_mm : as how many mm a step of 1 in a number of a code counts.
    """

    latents: np.ndarray
    frame: np.ndarray
    components: np.ndarray
    frame_components: np.ndarray
    explained: np.ndarray
    code_mm: float

    @classmethod
    def fit(cls, hearts: Sequence[PosedHeart], options: ModesOptions) -> LatentModel:
        """Of three hearts or more.

        Raises
        ------
        InputError
            The hearts do not differ.
        """
        latents = np.stack([in_mm(heart) for heart in hearts])
        frames = np.stack([numbers_of(heart.frame) for heart in hearts])
        mean, frame = latents.mean(axis=0), frames.mean(axis=0)
        rest = latents - mean
        places, codes = (float((part**2).sum()) for part in _parts(rest))
        if places < LEAST_SD_MM**2 * latents.shape[1] * (len(hearts) - 1):
            raise InputError(
                f"latent_statistics: the {len(hearts)} training hearts are all the same, so there "
                "are no modes; add cases that differ"
            )
        code_mm = float(np.sqrt(CODE_SHARE * places / max(codes, np.finfo(np.float64).tiny)))
        weighed = (rest * _weights(rest.shape[-1], code_mm)).reshape(len(rest), -1)
        found = Components.of(weighed, variance=options.variance, most=options.most_modes)
        components = found.directions(rest.reshape(len(rest), -1))
        return cls(
            mean.astype(np.float32),
            frame,
            components.reshape(-1, *mean.shape).astype(np.float32),
            found.directions(frames - frame),
            found.shares.astype(np.float32),
            code_mm,
        )

    @property
    def modes(self) -> int:
        return len(self.components)

    def scores(self, heart: PosedHeart) -> np.ndarray:
        """(K,) float64 standard deviations of a heart in the pose of the mean."""
        weights = _weights(self.latents.shape[1], self.code_mm)
        rest = ((in_mm(heart) - self.latents) * weights).ravel()
        rows = (self.components * weights).reshape(self.modes, -1).astype(np.float64)
        return rows @ rest / (rows**2).sum(axis=1)

    def latents_of(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M, W) latents in mm and the (4,) frame of scores; of fewer than K, of the first modes
        alone."""
        number = len(scores)
        latents = self.latents + np.tensordot(scores, self.components[:number], axes=1)
        return latents, self.frame + scores @ self.frame_components[:number]

    def heart(self, scores: np.ndarray) -> PosedHeart:
        """The heart of scores."""
        latents, numbers = self.latents_of(np.asarray(scores, np.float64))
        frame = frame_of(numbers)
        unit = np.concatenate([frame.to_unit(latents[:, :PLACE]), latents[:, PLACE:]], axis=1)
        return PosedHeart(unit.astype(np.float32), frame)

    def residual_mm(self, heart: PosedHeart, scores: np.ndarray) -> float:
        """Mean distance between the slots of a heart and those that the modes make of scores."""
        made = self.latents_of(scores)[0][:, :PLACE]
        return float(np.linalg.norm(in_mm(heart)[:, :PLACE] - made, axis=1).mean())

    def save(
        self, path: Path, channels: np.ndarray, classes: Sequence[str], remove_size: bool,
        vecset_sha256: str,
    ) -> None:  # fmt: skip
        """With the class of each slot, the names of the classes, and the hash of the VecSet."""
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


def _parts(latents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return latents[..., :PLACE], latents[..., PLACE:]


def _weights(width: int, code_mm: float) -> np.ndarray:
    return np.array([1.0] * PLACE + [code_mm] * (width - PLACE))
