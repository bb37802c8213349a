"""What is noted of a case while it is worked on, and the table of all cases."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..cohort.table import Case
from ..errors import InputError, again
from ..files import sha256_file, write_json, write_text
from ..formats import Format
from ..metrics.overlap import dice_of
from ..metrics.own_grid import own_grid_figures
from ..metrics.summary import mean

log = logging.getLogger(__name__)

FIGURES = Format(
    "applied-figures",
    {
        "format_version": "integer",
        "case_id": "text",
        "tasks": "text (T)",
        "trained_on": "text (M)",
        "notes": "text (N)",
        "models?": "text",
        "files?": "text (F)",
        "rows": "object (R)",
        "rows.*.task": "text",
        "rows.*.family": "text",
        "rows.*.class": "text",
        "rows.*.reference": "text",
        "rows.*.figure": "text",
        "rows.*.value": "number",
    },
    again("apply_models"),
)
ROW = ("task", "family", "class", "reference", "figure", "value")
COLUMNS = ("case_id", *ROW, "trained_on")
# What a figure is held against: the given label map, the truth of the table, the other folds,
# what is usual in the cohort that the models know.
LABEL, TRUTH, FOLDS, COHORT = "label", "truth", "folds", "cohort"


@dataclass(frozen=True)
class Origin:
    """What the figures of a case come from, beside its tasks.

    models : sha256 of the models and of how they are used.    files : of what the case is.
    """

    models: str
    files: list[str]

    @classmethod
    def of(cls, case: Case, models: str) -> Origin:
        """Of the case as its files are now."""
        truth = sha256_file(case.truth) if case.truth else ""
        return cls(models, [sha256_file(case.labels), truth, case.cut])


@dataclass
class Record:
    """Figures and remarks of a case, in the order in which they come up."""

    rows: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, task: str, family: str, reference: str, figures: Mapping[str, Mapping]) -> None:
        """figures : class -> figure -> value; None and what is no number are left out."""
        for name, row in figures.items():
            for figure, value in row.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    cells = (task, family, name, reference, figure, value)
                    self.rows.append(dict(zip(ROW, cells)))

    def against_truth(
        self, task: str, family: str, truth: np.ndarray | None, made: np.ndarray, affine, table
    ) -> None:
        """Figures of every class of ``table`` that the truth has, on their common grid."""
        if truth is None:
            return
        there = [label for label in table if (truth == label.value).any()]
        figures = {
            label.name: own_grid_figures(truth == label.value, made == label.value, affine)
            for label in there
        }
        self.add(task, family, TRUTH, figures)

    def agreement(
        self, task: str, family: str, single: Sequence[np.ndarray], made: np.ndarray, table
    ) -> None:
        """How far several folds agree: the mean Dice of each alone to all together."""
        if not single:
            return
        figures = {}
        for label in table:
            mask = made == label.value
            dice = [dice_of(mask, own == label.value) for own in single]
            figures[label.name] = {"agreement": mean(dice)}
        self.add(task, family, FOLDS, figures)

    def add_earlier(self, path: Path, tasks: Sequence[str], origin: Origin) -> list[str]:
        """Take over the figures that an earlier call wrote to ``path`` for other tasks.

        They are left out, with a warning, where models or files were others.

        Returns
        -------
        ``tasks``, and those of the figures that are taken over.
        """
        try:
            found = FIGURES.load(path)
        except InputError:  # there is none, or it is damaged
            return list(tasks)
        done = {*tasks, *(["refine"] if "fuse" in tasks else [])}
        others = [task for task in found["tasks"] if task not in done]
        if not others:
            return list(tasks)
        if (found.get("models"), found.get("files")) != (origin.models, origin.files):
            why = "they are of other models, options or files"
            log.warning("%s: no figures of %s: %s", found["case_id"], ", ".join(others), why)
            return list(tasks)
        self.rows = [row for row in found["rows"] if row["task"] not in done] + self.rows
        self.notes += [note for note in found["notes"] if note not in self.notes]
        return [*tasks, *others]

    def write(
        self,
        path: Path,
        case_id: str,
        tasks: Sequence[str],
        trained_on: Sequence[str],
        origin: Origin,
    ) -> None:
        content = {
            "format_version": FIGURES.version,
            "case_id": case_id,
            "tasks": list(tasks),
            "trained_on": list(trained_on),
            "notes": self.notes,
            "models": origin.models,
            "files": origin.files,
            "rows": self.rows,
        }
        write_json(path, content)


def figures_path(out: Path, case_id: str) -> Path:
    """Where the figures of a case are."""
    return out / "figures" / f"{case_id}.json"


def earlier_figures(out: Path, cases: Iterable[str], models: str) -> list[Path]:
    """Figures in ``out`` of cases beside ``cases``, made by earlier calls with the same models.

    models : see :class:`Origin`. The log says which are left out, since they are of others.
    """
    own = {figures_path(out, case_id) for case_id in cases}
    found: list[Path] = []
    left_out: list[Path] = []
    for path in sorted(set((out / "figures").glob("*.json")) - own):
        try:
            same = FIGURES.load(path).get("models") == models
        except InputError:
            same = False
        (found if same else left_out).append(path)
    if left_out:
        names = ", ".join(path.stem for path in left_out[:10])
        log.warning(
            "%d cases of earlier calls are not in summary.csv (other models or options): %s%s",
            len(left_out), names, " ..." if len(left_out) > 10 else "",
        )  # fmt: skip
    return found


def write_summary(path: Path, figures: Iterable[Path]) -> None:
    """One CSV row per case, task, class and figure, from the figures of the cases."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for source in sorted(figures):
        found = FIGURES.load(source)
        for row in found["rows"]:
            cells = [row[name] for name in ROW]
            writer.writerow([found["case_id"], *cells, "; ".join(found["trained_on"])])
    write_text(path, text.getvalue())
