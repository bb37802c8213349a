"""How far a new label map can be trusted, class by class, by what a VecSet makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..geometry.field_of_view import cut_names, cuts_of
from ..metrics.confidence import cleaned, confidence, in_expected_parts, signals
from ..vecset.reconstruct import Made, Reconstructor, load_frame
from ..volumes import LabelMap, save_label_map
from .networks import Networks
from .ready import Ready
from .record import COHORT, Record

NAMED = 3  # classes that the log and the picture name


def add_confidence(
    record: Record, ready: Ready, networks: Networks, made: Made, folder: Path
) -> dict[str, float]:
    """Put confidence and signals of every class that the scan does not cut into the record.

    Of several folds those count that were not trained on the case, if there are such; a value is
    their mean. The networks run again only where the label map has specks.

    made : by ``networks.vecset``, of the label map as it is.    folder : for passing files.

    Returns
    -------
    Class name -> confidence, from 0 to 1.
    """
    content, given, table = networks.content, ready.label_map, networks.table
    known = {k: sound for k, sound in enumerate(content.sound) if sound is not None}
    if not known:
        record.notes.append(f"no confidence: {content.unsure[0]}")
        return {}
    knowing = content.folds_trained_on(ready.case.case_id, "vecset")
    folds = {k: sound for k, sound in known.items() if k not in knowing} or known
    clean = cleaned(given.data, given.spacing, table)
    if (clean == given.data).all():
        single = [made.single[k] if made.single else made.labels for k in folds]
    else:
        try:
            single = _made_of(clean, ready, [networks.vecset[k] for k in folds], folder)
        except InputError as error:  # the case itself is fine
            reason = error.problems[0].replace(f"{folder}/", "")
            record.notes.append(f"no confidence: without specks {reason}")
            return {}
    # specks at the border cut no class
    cut = cut_names(cuts_of(LabelMap(clean, given.affine), table, ready.case), table)
    rows: dict[str, list[dict[str, float]]] = {}
    for sound, labels in zip(folds.values(), single):
        found = signals(given.data, labels, sound.table, sound.contact)
        sure = confidence(found, sound.typical)
        for name in sound.contact:
            value, row = sure[name], found[name]
            if value is not None and row is not None and name not in cut:
                rows.setdefault(name, []).append({"confidence": value, **row})
    figures = _means(rows, table.names)
    parts = in_expected_parts(given.data, table)
    for name, row in figures.items():
        row["parts"] = parts[name]
    if without := [name for name in table.names if name in parts and name not in figures]:
        reason = "cut here, or never whole in the cohort, or not what the VecSet makes"
        record.notes.append(f"no confidence in {', '.join(without)}: {reason}")
    record.add("reconstruct", "vecset", COHORT, figures)
    return {name: row["confidence"] for name, row in figures.items()}


def least_sure(sure: Mapping[str, float]) -> str:
    """The classes with the lowest confidence below 1.00, in words; empty where none has one."""
    rounded = {name: f"{sure[name]:.2f}" for name in sorted(sure, key=lambda name: sure[name])}
    named = [f"{name} {value}" for name, value in rounded.items() if value != "1.00"][:NAMED]
    if named:
        return f"least sure of {', '.join(named)}"
    return "sure of every class that is judged" if sure else ""


def _made_of(
    labels: np.ndarray, ready: Ready, networks: Sequence[Reconstructor], folder: Path
) -> list[np.ndarray]:
    """What each network makes of another label map on the grid of the case."""
    path, grid = folder / f"{ready.case.case_id}.nii.gz", ready.label_map
    save_label_map(path, labels, grid.affine)
    other = Ready(replace(ready.case, labels=str(path)), ready.table, ready.stages, folder)
    frame, values = load_frame(other.points), ready.table.values
    encoded = [network.encode(other.points, other.case.case_id) for network in networks]
    return [n.sample(found, frame, grid).labels(values) for n, found in zip(networks, encoded)]


def _means(
    rows: Mapping[str, Sequence[Mapping[str, float]]], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Class -> mean of each figure over the folds, in the order of the label table."""
    found = {name: rows[name] for name in names if name in rows}
    return {
        name: {figure: float(np.mean([row[figure] for row in those])) for figure in those[0]}
        for name, those in found.items()
    }
