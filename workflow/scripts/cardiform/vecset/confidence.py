"""What a trained VecSet makes of sound label maps: what the confidence in new ones is held against.

``confidence.json`` lies beside the figures of held-out cases, and in a bundle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..artefact.layout import CONFIDENCE as PLACE
from ..cohort.table import Case
from ..errors import InputError, again, problem
from ..files import sha256_file, write_json
from ..formats import Format
from ..geometry.field_of_view import cut_names, cuts_of
from ..labels import LabelTable
from ..metrics.confidence import (
    Signals,
    cleaned,
    contact,
    mean_contact,
    signals,
    typical_signals,
)
from ..volumes import LabelMap, load_label_map

CONFIDENCE = Format(
    "confidence",
    {
        "format_version": "integer",
        "model_sha256": "text",
        "labels": "object (C)",
        "labels.*.value": "integer",
        "labels.*.name": "text",
        "labels.*.title": "text",
        "labels.*.color": "text",
        "labels.*.components": "integer",
        "labels.*.priority": "integer",
        "training_cases": "integer",
        "held_out_cases": "integer",
        "classes": "object",
        "classes.*.contact": "number (K)",
        "classes.*.typical_contact": "number",
        "classes.*.typical_reconstruction": "number",
        "classes.*.held_out_cases": "integer",
    },
    again("reconstruct_vecset"),
)
MOST_CASES = 200  # of the training: the mean of their contact changes no more


@dataclass(frozen=True)
class Sound:
    """What the classes of sound label maps are like.

    contact : class -> (1 + C,) mean shares of its faces that meet background and each class.
    typical : class -> median of each signal over held-out cases.
    counted : class -> held-out cases behind it.
    training_cases, held_out_cases : that were looked at.
    """

    table: LabelTable
    contact: Mapping[str, np.ndarray]
    typical: Mapping[str, Mapping[str, float]]
    counted: Mapping[str, int]
    training_cases: int
    held_out_cases: int
    model_sha256: str

    @classmethod
    def of(
        cls,
        training: Sequence[Case],
        held_out: Sequence[Case],
        reconstructions: Path,
        table: LabelTable,
        model: Path,
    ) -> Sound:
        """From label maps and, of the held-out ones, what the model makes of them.

        Classes that a scan cuts do not count (specks at its border cut none), nor, where there
        are others, those with specks: the model was given these, too. What the model makes nothing
        of is left out.

        reconstructions : folder of ``<case>/labels.nii.gz``.
        """
        training = training[:MOST_CASES]
        usual = mean_contact(_contact_of_whole(case, table) for case in training)
        clean: list[Signals] = []
        specked: list[Signals] = []
        for case in held_out:
            given = load_label_map(case.labels)
            made = load_label_map(reconstructions / case.case_id / "labels.nii.gz").data
            free = LabelMap(cleaned(given.data, given.spacing, table), given.affine)
            found = signals(given.data, made, table, usual)
            found |= dict.fromkeys(cut_names(cuts_of(free, table, case), table))
            lost = np.unique(given.data[given.data != free.data])
            specks = {label.name for label in table if label.value in lost}
            clean.append({n: None if n in specks else row for n, row in found.items()})
            specked.append({n: row if n in specks else None for n, row in found.items()})
        typical, counted = typical_signals(specked), _counted(specked)
        typical |= typical_signals(clean)
        counted |= _counted(clean)
        made_well = {name for name, row in typical.items() if row["reconstruction"]}
        names = [name for name in table.names if name in usual and name in made_well]
        return cls(
            table,
            {name: usual[name] for name in names},
            {name: typical[name] for name in names},
            {name: counted[name] for name in names},
            len(training),
            len(held_out),
            sha256_file(model),
        )

    @classmethod
    def load(cls, path: Path) -> Sound:
        """From ``confidence.json``; InputError where it is damaged or of a newer version."""
        content = CONFIDENCE.load(path)
        try:
            table = LabelTable.from_dicts(content["labels"])
        except TypeError:  # a class has keys that no table has
            raise InputError(problem(path, "has no valid label table", CONFIDENCE.remedy)) from None
        rows = content["classes"]
        if wrong := [name for name, row in rows.items() if not _is_sound(name, row, table)]:
            fact = f"has no valid figures of {wrong[0][:60]!r}"
            raise InputError(problem(path, fact, CONFIDENCE.remedy))
        return cls(
            table,
            {name: np.array(row["contact"], np.float64) for name, row in rows.items()},
            {
                name: {s: row[f"typical_{s}"] for s in ("reconstruction", "contact")}
                for name, row in rows.items()
            },
            {name: row["held_out_cases"] for name, row in rows.items()},
            content["training_cases"],
            content["held_out_cases"],
            content["model_sha256"],
        )

    def write(self, path: Path) -> None:
        """Write ``confidence.json``: figures of the cohort, and no case is named."""
        rows = {
            name: {
                "contact": shares.tolist(),
                **{f"typical_{signal}": value for signal, value in self.typical[name].items()},
                "held_out_cases": self.counted[name],
            }
            for name, shares in self.contact.items()
        }
        content = {
            "format_version": CONFIDENCE.version,
            "model_sha256": self.model_sha256,
            "labels": self.table.as_dicts(),
            "training_cases": self.training_cases,
            "held_out_cases": self.held_out_cases,
            "classes": rows,
        }
        write_json(path, content)

    @classmethod
    def beside(cls, model: Path) -> Sound | None:
        """That of a model file; None where there is none, or it is of other weights."""
        path = model.parent / PLACE
        sound = cls.load(path) if path.is_file() else None
        return sound if sound is not None and sound.model_sha256 == sha256_file(model) else None

    def write_beside(self, model: Path) -> None:
        """Write it for another file with the same weights."""
        replace(self, model_sha256=sha256_file(model)).write(model.parent / PLACE)


def _contact_of_whole(case: Case, table: LabelTable) -> dict[str, np.ndarray]:
    """What the classes touch that the scan does not cut."""
    given = load_label_map(case.labels)
    free = LabelMap(cleaned(given.data, given.spacing, table), given.affine)
    cut = cut_names(cuts_of(free, table, case), table)
    return {name: row for name, row in contact(given.data, table).items() if name not in cut}


def _is_sound(name: str, row: Mapping, table: LabelTable) -> bool:
    """Whether the entry of a class can be used: shares and Dice, from 0 to 1."""
    values = [*row["contact"], row["typical_contact"], row["typical_reconstruction"]]
    known = name in table.names and len(row["contact"]) == 1 + len(table)
    return known and all(0 <= value <= 1 for value in values)


def _counted(several: Sequence[Signals]) -> dict[str, int]:
    """Class -> label maps that have signals of it."""
    return dict(Counter(name for found in several for name, row in found.items() if row))
