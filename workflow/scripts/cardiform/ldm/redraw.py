"""Samples that are drawn again: their parts or contacts are not those of the training hearts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..anatomy.validity import Anatomy
from ..cohort import splits
from ..cohort.manifest import made_files
from ..errors import InputError, problem
from ..files import sha256_file
from .data import load_hearts
from .hearts_on_grid import Grid, cut_classes, load_grid
from .set_figures import HeartSet

log = logging.getLogger(__name__)

# With its number and so much more for each, a sample has the noise of its further draws.
APART = 1_000_000
Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Drawn:
    """How a sample came about.

    draws : how often it was drawn.    fits : whether it has what training hearts have, in the end.
    """

    draws: int = 1
    fits: bool = True

    @classmethod
    def of(cls, content: Mapping[str, np.ndarray]) -> Drawn:
        """As the file of a sample has it; those of earlier versions were drawn once."""
        return cls(int(content.get("draws", 1)), bool(content.get("fits", True)))


@dataclass(frozen=True)
class Redraw:
    """When a sample is drawn again, and how often at most.

    most : further draws.    anatomy : of the training hearts; None: each sample is drawn once.
    size : voxels along each edge of the cube that these are in.
    key : of the files that the rules come from.
    """

    most: int = 0
    anatomy: Anatomy | None = None
    size: int = 0
    key: tuple[str, ...] = ()

    @classmethod
    def of(cls, most: int, voxels: Path | None, train: Path | None, grid: Grid) -> Redraw:
        """From the manifest of resample_labels, and the train split. Fields without classes have
        no parts to judge.

        Raises
        ------
        InputError
            A file is not given, or they are not of the grid or of one run.
        """
        if not most or not grid.has_classes:
            return cls()
        if voxels is None or train is None:
            raise InputError("--redraw needs --voxels and --train: training hearts set the rules")
        own = load_grid(voxels.parent / "grid.json")
        if own.as_dict() != grid.as_dict():
            raise InputError(problem(voxels, "is of another grid than the model", "give its own"))
        names = [name for name, _ in splits.read_split(train)]
        files = made_files([voxels], names, ".nii.gz")
        if not files:
            raise InputError(
                problem(train, "has no case among the voxels", "give those of one run")
            )
        cut = cut_classes(voxels, names, own)
        hearts = HeartSet.real(
            load_hearts([file.path for file in files], own),
            own.classes,
            [cut.get(file.case_id) for file in files],
        )
        anatomy = Anatomy.of(zip(hearts.hearts, hearts.known), own.table.usual_parts)
        return cls(most, anatomy, own.size, (str(most), sha256_file(voxels), sha256_file(train)))

    def draw(
        self,
        numbers: Sequence[int],
        make: Callable[[Sequence[int], int], Iterable[Sample]],
        channels: Callable[[Sample], np.ndarray],
        keep: Callable[[int, Sample, Drawn], None],
    ) -> None:
        """Draw samples until each fits, or was drawn ``most`` times more.

        make : of numbers of samples, and what is added to them for their noise: the samples, in
            this order.
        channels : (S, S, S) of a sample: 0, and classes from 1 on.
        keep : is called with each in the end.
        """
        pending = list(numbers)
        for further in range(self.most + 1):
            again = []
            for number, sample in zip(pending, make(pending, further * APART)):
                fits = self.anatomy is None or all(self.anatomy.check(channels(sample)).values())
                if fits or further == self.most:
                    keep(number, sample, Drawn(further + 1, fits))
                else:
                    again.append(number)
            if again:
                log.info("%d of %d do not fit and are drawn again", len(again), len(pending))
            pending = again

    def figures(self, drawn: Mapping[str, Drawn]) -> dict:
        """What metrics.json says of it; nothing where no sample is drawn again."""
        if self.anatomy is None:
            return {}
        unfit = [name for name, how in drawn.items() if not how.fits]
        if unfit:
            log.warning(
                "%d of %d hearts do not fit after %d draws: %s",
                len(unfit), len(drawn), self.most + 1, ", ".join(unfit),
            )  # fmt: skip
        at_once = sum(how == Drawn() for how in drawn.values())
        draws = sum(how.draws for how in drawn.values())
        return {"redrawn": {"draws": draws, "fit_at_once": at_once / len(drawn), "unfit": unfit}}
