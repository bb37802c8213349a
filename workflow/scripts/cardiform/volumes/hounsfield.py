"""Whether the values of an image are Hounsfield units: one judge, for the check and the windows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, problem
from .affines import corners_apart_mm, place_tolerance_mm
from .files import LabelMap

LEAST_SPAN_HU = 300  # air, soft tissue and bone lie further apart
MOST_HU = 40_000  # metal on an extended scale, and what interpolation adds to it
# HU of what a body has, whatever contrast and noise.
AIR_AND_LUNG = (-1150, -600)
FAT, SOFT = (-150, -60), (-20, 70)
BODY_FROM, MUSCLE_FROM, LUNG_OR_FAT_TO = -300, 40, -20
# Above it is only bone, calcium and metal. Where 1000 or 1024 were not subtracted, everything but
# air and lung is, also fat; of what is labelled in hearts the densest contrast is not.
DENSE_FROM = 850
# Shares of the voxels that may be of a body; and how much fat there is at least.
FEW, SOME, MANY = 0.01, 0.02, 0.08
FAT_OF_DENSE, FAT_OF_SOFT = 0.8, 0.15
LEAST_VOXELS, LEAST_LABELLED = 1000, 8  # of fewer a distribution says nothing
LABELS_AT_MOST = 32
SLAB_VOXELS = 1 << 22

REMEDY = "give the CT in Hounsfield units, with slope and intercept in its header, or name no image"
NO_LABEL_MAP = "give the CT, not a label map, or name no image"
OFFSET = "stored values, without the intercept of the scanner?"


def check_hounsfield(
    path: str | Path, image: np.ndarray, labelled: np.ndarray | None = None
) -> list[str]:
    """What is doubtful about the values of a CT; empty where they are Hounsfield units.

    Air is near -1000, lung near -850, fat near -100, soft tissue 0 to 100, blood with contrast
    200 to 600, bone above. What is below air is padding; exactly 0 may be.

    image : (X, Y, Z), any kind of real numbers.
    labelled : (X, Y, Z), above 0 inside of segmented structures; None where that is unknown.

    Raises
    ------
    InputError
        The values cannot be Hounsfield units.
    """
    values = Histogram.of(path, image, labelled)
    if fact := _impossible(values) or _without_offset(values) or _unlike_a_body(values):
        few = values.low >= 0 and np.count_nonzero(values.counts) <= LABELS_AT_MOST
        labels = few and values.high <= 255 and bool((image == np.rint(image)).all())
        raise InputError(problem(path, fact, NO_LABEL_MAP if labels else REMEDY))
    return _doubts(values)


def labels_on(
    labels: LabelMap | None, shape: tuple[int, ...], affine: np.ndarray
) -> np.ndarray | None:
    """The label map's (X, Y, Z) where it is stored on the very grid of an image, else None."""
    if labels is None or labels.data.shape != tuple(shape[:3]):
        return None
    apart = corners_apart_mm(shape, affine, labels.affine)
    return labels.data if apart <= place_tolerance_mm(shape, labels.spacing) else None


@dataclass(frozen=True)
class Histogram:
    """How often each whole HU is in an image: all that the judge looks at, read once.

    counts : int64, of -MOST_HU to MOST_HU; what lies beyond counts at the ends.
    inside : the same of the labelled voxels.
    low, high : of the values themselves.
    """

    counts: np.ndarray
    inside: np.ndarray
    low: float
    high: float

    @classmethod
    def of(cls, path, image: np.ndarray, labelled: np.ndarray | None) -> Histogram:
        """InputError where values are not finite."""
        counts, inside = np.zeros((2, 2 * MOST_HU + 1), np.int64)
        low, high = np.inf, -np.inf
        step = max(1, SLAB_VOXELS // max(1, image[..., 0].size))
        for start in range(0, image.shape[-1], step):
            slab = image[..., start : start + step]
            least, most = float(slab.min()), float(slab.max())
            if not np.isfinite([least, most]).all():  # NaN passes through both
                raise InputError(problem(path, "has values that are not finite", "repair the CT"))
            low, high = min(low, least), max(high, most)
            bins = np.rint(np.clip(slab, -MOST_HU, MOST_HU)).astype(np.intp)
            bins += MOST_HU
            counts += np.bincount(bins.ravel(order="K"), minlength=len(counts))
            if labelled is not None:  # transposed: files come in Fortran order
                chosen = bins.T[labelled[..., start : start + step].T > 0]
                inside += np.bincount(chosen, minlength=len(counts))
        return cls(counts, inside, low, high)

    def number(self, low: float = -MOST_HU, high: float = MOST_HU) -> int:
        """Voxels from ``low`` to ``high``."""
        return int(self.counts[int(low) + MOST_HU : int(high) + MOST_HU + 1].sum())

    def uneven(self, low: int, high: int) -> int:
        """The same without the two values that are most frequent there: padding is constant."""
        part = self.counts[low + MOST_HU : high + MOST_HU + 1]
        return int(np.sort(part)[:-2].sum())

    @property
    def scanned(self) -> int:
        """Voxels that may be of a body or the air around it: no padding."""
        return max(1, self.number(AIR_AND_LUNG[0]) - self.number(0, 0))

    def share(self, low: float, high: float = MOST_HU) -> float:
        """Of the scanned voxels."""
        return self.number(low, high) / self.scanned

    def quantile(self, share: float, low: float) -> float:
        """The value below which a share of the voxels from ``low`` lies, exact zeros left out."""
        part = self.counts[int(low) + MOST_HU :].copy()
        part[-int(low)] = 0
        return _quantile(part, share) + low

    @property
    def median_inside(self) -> float | None:
        """Of the labelled voxels, padding left out; None of too few."""
        part = self.inside[AIR_AND_LUNG[0] + MOST_HU :]
        few = part.sum() < LEAST_LABELLED
        return None if few else float(_quantile(part, 0.5) + AIR_AND_LUNG[0])

    @property
    def has_air(self) -> bool:
        """Whether there is air or lung that is no constant padding."""
        return self.uneven(*AIR_AND_LUNG) >= SOME * self.scanned

    @property
    def has_fat(self) -> bool:
        return self.share(*FAT) >= FEW

    @property
    def lacks_light(self) -> bool:
        """Whether there is hardly anything lighter than soft tissue but padding."""
        return self.share(AIR_AND_LUNG[0], LUNG_OR_FAT_TO) < FEW

    @property
    def lacks_fat(self) -> bool:
        """Whether there is no air, and less fat than there is about bone and in soft tissue.

        Air whose values lack the offset looks like soft tissue, and its noise like a little fat.
        """
        dense, soft = self.share(DENSE_FROM), self.share(*SOFT)
        return not self.has_air and self.share(*FAT) < max(FAT_OF_DENSE * dense, FAT_OF_SOFT * soft)


def _impossible(values: Histogram) -> str:
    """Why values are no Hounsfield units, by their ends alone."""
    low, high = values.low, values.high
    if low >= 0:
        return f"has no value below 0 ({low:g} to {high:g}): not Hounsfield units"
    if high - low < LEAST_SPAN_HU or high > MOST_HU:
        return f"has values from {low:g} to {high:g}: not Hounsfield units"
    return ""


def _without_offset(values: Histogram) -> str:
    """Whether the labelled structures, or much of the image, are as dense as bone without fat."""
    if not values.lacks_fat:
        return ""
    inside, dense = values.median_inside, values.share(DENSE_FROM)
    if inside is not None and inside > DENSE_FROM:
        return f"has a median of {inside:g} where the label map has its structures: {OFFSET}"
    if dense >= MANY and values.counts.sum() >= LEAST_VOXELS:
        return f"has {dense:.0%} of its values above {DENSE_FROM} and hardly one of fat: {OFFSET}"
    return ""


def _unlike_a_body(values: Histogram) -> str:
    """Why no body looks like this in Hounsfield units."""
    total, air = int(values.counts.sum()), AIR_AND_LUNG[0]
    if total < LEAST_VOXELS:
        return ""
    if values.uneven(-MOST_HU, air - 1) > MANY * total:
        below = values.number(-MOST_HU, air - 1) / total
        return f"has {below:.0%} of its values below air (-1000): was an intercept applied twice?"
    if values.share(BODY_FROM) < SOME:
        return f"has no soft tissue ({values.share(BODY_FROM):.1%} of its values are above -300)"
    if (most := values.quantile(0.999, BODY_FROM)) < MUSCLE_FROM:
        return f"has hardly a value above {most:g}, where muscle and blood are"
    if values.lacks_light and values.number(-MOST_HU, air - 1) < FEW * total:
        return "has hardly a value of air, lung or fat (below -20)"
    return ""


def _doubts(values: Histogram) -> list[str]:
    """Warnings without figures: one line tells them of all cases."""
    doubts = []
    inside = values.median_inside
    if not values.has_air and not values.has_fat and (inside is None or values.lacks_light):
        doubts.append("the image has neither fat nor air but padding: is it in Hounsfield units?")
    if inside is not None and not BODY_FROM <= inside <= DENSE_FROM:
        what = "air or lung" if inside < BODY_FROM else "bone or metal"
        doubts.append(f"the image shows {what} where structures are labelled: do they fit?")
    return doubts


def _quantile(counts: np.ndarray, share: float) -> int:
    """The bin below which a share of the counts lies."""
    summed = np.cumsum(counts)
    return int(np.searchsorted(summed, share * summed[-1]))
