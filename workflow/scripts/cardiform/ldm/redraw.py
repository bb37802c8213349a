"""Samples that are drawn again: their parts or contacts are not those of the training hearts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..anatomy.validity import Anatomy
from ..cohort import splits
from ..cohort.manifest import made_files
from ..errors import InputError, problem
from ..files import sha256_json
from .data import load_hearts
from .hearts_on_grid import Grid, cut_classes, load_grid
from .set_figures import HeartSet

log = logging.getLogger(__name__)

# With its number and so much more for each, a sample has the noise of its further draws.
APART = 1 << 40
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
    judged : (C,) bool, the classes that are looked at.
    size : voxels along each edge of the cube that the training hearts are in.
    """

    most: int = 0
    anatomy: Anatomy | None = None
    judged: np.ndarray | None = None
    size: int = 0

    @classmethod
    def of(cls, most: int, voxels: Path | None, train: Path | None, grid: Grid) -> Redraw:
        """From the manifest of resample_labels, and the train split.

        A class is judged if most of the training hearts have it and the scan does not cut it there.
        Fields without classes have no parts to judge.

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
        if _sizes(own) != _sizes(grid):
            raise InputError(problem(voxels, "is of another grid than the model", "give its own"))
        names = [name for name, _ in splits.read_split(train)]
        files = made_files([voxels], names, ".nii.gz")
        if not files:
            raise InputError(
                problem(train, "has no case among the voxels", "give those of one run")
            )
        cut = cut_classes(voxels, names, own)
        counts = np.zeros(own.classes, int)

        def hearts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for file in files:
                heart = load_hearts([file.path], own)
                known = HeartSet.real(heart, own.classes, [cut.get(file.case_id)]).known[0]
                counts[known] += 1
                yield heart[0], known

        anatomy = Anatomy.of(hearts(), own.table.usual_parts)
        return cls(most, anatomy, counts > len(files) / 2, own.size)

    @property
    def key(self) -> str:
        """Of the rules; empty where there are none. More draws change no sample that fits."""
        if self.anatomy is None or self.judged is None:
            return ""
        rules = self.anatomy
        listed = [array.tolist() for array in (rules.touching, rules.apart, self.judged)]
        return sha256_json([*listed, [str(part) for part in rules.parts], rules.spare])

    def current(self, drawn: Drawn) -> bool:
        """Whether a sample of an earlier call can have come about so in this one."""
        return drawn.draws <= self.most + 1

    def draw(
        self,
        numbers: Sequence[int],
        before: Mapping[int, Drawn],
        make: Callable[[Sequence[int], int], Iterable[Sample]],
        channels: Callable[[Sample], np.ndarray],
        keep: Callable[[int, Sample, Drawn], None],
    ) -> None:
        """Draw samples until each fits, or was drawn ``most`` times more.

        before : how those came about that an earlier call drew; their draws continue.
        make : of numbers of samples, and what is added to them for their noise: the samples, in
            this order.
        channels : (S, S, S) of a sample: 0, and classes from 1 on.
        keep : is called with each draw.
        """
        drawn = dict(before)
        for further in range(self.most + 1):
            pending = [
                n for n in numbers
                if (further == drawn[n].draws and not drawn[n].fits if n in drawn else not further)
            ]  # fmt: skip
            if further and pending:
                log.info("%d of %d do not fit and are drawn again", len(pending), len(numbers))
            for number, sample in zip(pending, make(pending, further * APART)):
                drawn[number] = Drawn(further + 1, self._fits(sample, channels))
                keep(number, sample, drawn[number])

    def _fits(self, sample: Sample, channels: Callable[[Sample], np.ndarray]) -> bool:
        if self.anatomy is None:
            return True
        return all(self.anatomy.check(channels(sample), self.judged).values())

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


def _sizes(grid: Grid) -> tuple:
    return grid.kind, grid.size, grid.edge_mm, grid.table.values, grid.table.names
