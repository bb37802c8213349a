"""The model of a cohort, from registered hearts to its files."""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import outputs
from ..errors import InputError, together
from ..files import write_text
from ..labels import LabelTable
from ..options.statistics import ShapeStatisticsOptions
from ..volumes import save_label_map
from . import regression
from .case import RegisteredHeart, registered_path
from .drawing import write_surfaces
from .model import ShapeModel
from .quality import Correspondences, GridTruth, Model, SignedDistances, between, quality
from .scoring import scores_of
from .template import Template, check_seen, in_mm, on_grid
from .voxels import Box, Judge, label_map, label_map_of

log = logging.getLogger(__name__)

PARTS = ("train", "val", "test")
PARTIAL = "partial"  # of hearts that lack a class, or are cut: scored by what they have
NEW = "new"
LONGEST_STEM = 100  # of the names of files
MOST_HEARTS = 60  # of each part by which models are compared: it takes time and memory


@dataclass(frozen=True)
class Cohort:
    """Registered hearts by case id, without their distances, and the part of each.

    folder : of :func:`cardiform.statistics.case.register_case`.
    """

    template: Template
    hearts: Mapping[str, RegisteredHeart]
    parts: Mapping[str, str]
    folder: Path

    @classmethod
    def load(cls, template: Template, folder: Path, parts: Mapping[str, str]) -> Cohort:
        """The hearts of :func:`cardiform.statistics.case.register_case` in ``folder``.

        parts : case id -> its part; a heart of the split that lacks a class becomes
            :data:`PARTIAL`.
        """
        found = together(
            *(
                functools.partial(
                    RegisteredHeart.load, registered_path(folder, case_id), distances=False
                )
                for case_id in parts
            )
        )
        hearts = dict(zip(parts, found))
        named = {
            c: part if hearts[c].whole or part == NEW else PARTIAL for c, part in parts.items()
        }
        return cls(template, hearts, named, folder)

    def on_grid(self, case_id: str) -> RegisteredHeart:
        """A heart with its distances."""
        stored = RegisteredHeart.load(registered_path(self.folder, case_id))
        return dataclasses.replace(self.hearts[case_id], distances=stored.distances)

    def of(self, part: str) -> list[str]:
        """Case ids."""
        return [case_id for case_id, own in self.parts.items() if own == part]

    def fit(self, options: ShapeStatisticsOptions) -> ShapeModel:
        """The model of the training hearts."""
        shapes = np.stack([self.hearts[c].vertices for c in self.of("train")])
        return ShapeModel.fit(
            shapes, self.template.mesh.faces, self.template.labels,
            variance=options.variance, most_modes=options.most_modes,
            remove_size=self.template.remove_size,
        )  # fmt: skip

    def scores(self, model: ShapeModel) -> dict[str, tuple[np.ndarray, float]]:
        """Case id -> scores, and mm between its vertices and those that the modes make."""
        return {c: scores_of(model, self.template, heart) for c, heart in self.hearts.items()}


def write_scores(
    path: Path, scores: Mapping[str, tuple[np.ndarray, float]], parts: Mapping[str, str]
) -> None:
    """case_id, part, mode_1 ... in standard deviations, residual_mm."""
    modes = len(next(iter(scores.values()))[0]) if scores else 0
    lines = [",".join(["case_id", "part", *(f"mode_{k + 1}" for k in range(modes)), "residual_mm"])]
    for case_id, (values, rest) in scores.items():
        numbers = ",".join(f"{value:.5f}" for value in (*values, rest))
        lines.append(f"{case_id},{parts[case_id]},{numbers}")
    write_text(path, "\n".join(lines) + "\n")


def registration_figures(cohort: Cohort, table: LabelTable) -> dict:
    """mm between the moved template and the hearts, over all of them and by class (None: no heart
    has it whole)."""
    rows = np.stack([heart.residual for heart in cohort.hearts.values()])
    names = [table.names[table.values.index(value)] for value in cohort.template.values]
    known = ~np.isnan(rows).all(axis=0)
    by_class = dict.fromkeys(names) | dict(
        zip(np.array(names)[known].tolist(), np.nanmean(rows[:, known], axis=0).tolist())
    )
    means = np.nanmean(rows, axis=1)
    worst = int(means.argmax())
    return {
        "mean_mm": float(means.mean()),
        "by_class_mm": by_class,
        "worst": {"case_id": list(cohort.hearts)[worst], "mm": float(means[worst])},
        "folded_share": max(heart.folded for heart in cohort.hearts.values()),
    }


def compared(
    cohort: Cohort, model: ShapeModel, table: LabelTable, options: ShapeStatisticsOptions
) -> tuple[dict, Judge]:
    """Figures of the model and of the plain one, and what the training hearts have in common.

    Raises
    ------
    InputError
        A class of some heart is too thin for the grid.
    """
    rng = np.random.default_rng(options.seed)
    hearts: dict[str, list[RegisteredHeart]] = {}
    lost: dict[int, list[str]] = {}
    template = cohort.template
    for part in PARTS:
        names = cohort.of(part)
        names = [names[k] for k in sorted(rng.permutation(len(names))[:MOST_HEARTS])]
        hearts[part] = [cohort.on_grid(case_id) for case_id in names]
        for case_id, heart in zip(names, hearts[part]):
            for value in np.array(template.values)[~on_grid(heart.distances)].tolist():
                lost.setdefault(value, []).append(case_id)
    check_seen(table, lost, grid_mm=template.spacing)
    truths = {part: [GridTruth.of(h, template) for h in found] for part, found in hearts.items()}
    # each way of drawing a label map is judged by training hearts that were drawn the same way
    maps = {
        part: [
            label_map(model.parts(heart.vertices), Box.around(heart.vertices), table)
            for heart in found
        ]
        for part, found in hearts.items()
    }
    judge = Judge(maps["train"], template.values, table)
    held_out = [judge.valid(heart) for part in PARTS[1:] for heart in maps[part]]
    fields = (label_map_of(in_mm(heart.distances), template, table) for heart in hearts["train"])
    number = len(hearts["train"])
    both = [rng.choice(number, 2, replace=False) for _ in range(options.pairs)]
    pairs = [(int(a), int(b)) for a, b in both]
    figures: dict = {
        "compared_hearts": {part: len(found) for part, found in hearts.items()},
        "by_modes": {},
        "interpolated": {},
        "valid_training": float(np.mean([judge.valid(heart) for heart in maps["train"]])),
        "valid_held_out": float(np.mean(held_out)) if held_out else None,
    }
    plain = SignedDistances(template, hearts, options.most_modes)
    models: dict[str, tuple[Model, Judge]] = {
        "correspondences": (Correspondences(model, hearts), judge),
        "signed_distances": (plain, Judge(fields, template.values, table)),
    }
    for name, (own, by) in models.items():
        figures["by_modes"][name] = quality(own, truths, options.samples, options.seed)
        figures["interpolated"][name] = between(own, pairs, by, table)
    return figures, judge


def check_path(path: Sequence[str], whole: Sequence[str]) -> None:
    """InputError where the ends of a path are no two of the ``whole`` hearts."""
    if not path:
        return
    if len(path) != 2 or path[0] == path[1]:
        raise InputError(
            f"shape_statistics.path: {', '.join(path)}; name two different cases, or none"
        )
    if absent := [name for name in path if name not in whole]:
        raise InputError(
            f"shape_statistics.path: {', '.join(absent)} is no heart with all classes of the model"
            f"; name two of {', '.join(whole[:10])}{' ...' if len(whole) > 10 else ''}"
        )


def write_path(
    folder: Path, cohort: Cohort, model: ShapeModel, table: LabelTable, judge: Judge,
    options: ShapeStatisticsOptions,
) -> tuple[list[Path], dict]:  # fmt: skip
    """step_00.vtp and step_00.nii.gz ... from one heart to another; the files, and which hearts are
    valid."""
    first, last = (model.posed(cohort.hearts[name].vertices) for name in options.path)
    box = Box.around(np.concatenate([first, last]))
    paths, valid = [], []
    for step, share in enumerate(np.linspace(0, 1, options.path_steps)):
        vertices = (1 - share) * first + share * last
        parts = model.parts(vertices)
        paths += [folder / f"step_{step:02d}{ending}" for ending in (".vtp", ".nii.gz")]
        write_surfaces(paths[-2], parts, table)
        labels = label_map(parts, box, table)
        save_label_map(paths[-1], labels, box.affine)
        valid.append(judge.valid(labels))
    return paths, {"cases": list(options.path), "steps": len(valid), "valid": valid}


def write_columns(
    folder: Path, columns: Mapping[str, Mapping[str, float]], scores: Mapping, model: ShapeModel,
    table: LabelTable, options: ShapeStatisticsOptions,
) -> tuple[list[Path], dict]:  # fmt: skip
    """The hearts at the percentiles of every column as <column>_p05.vtp ..., and its figures."""
    paths, result = [], {}
    stems = file_stems(columns)
    for name, numbers in columns.items():
        known = np.stack([scores[case_id][0] for case_id in numbers])
        values = np.array(list(numbers.values()))
        figures, predicted = regression.regression(
            known, model.explained.astype(np.float64), values, options.permutations, options.seed
        )
        for place, found in zip(figures["at"], predicted):
            parts = model.parts(model.shape(found))
            paths.append(folder / f"{stems[name]}_{place}.vtp")
            write_surfaces(paths[-1], parts, table)
        figures["files"] = stems[name]
        figures["scores_at"] = dict(zip(figures["at"], np.round(predicted, 5).tolist()))
        result[name] = figures
    return paths, result


def file_stems(columns: Iterable[str]) -> dict[str, str]:
    """Column -> how its files begin: plain letters, and no two alike on any disk."""
    plain = {name: re.sub(r"[^A-Za-z0-9._-]", "_", name)[:LONGEST_STEM] for name in columns}
    stems: dict[str, str] = {}
    for name in sorted(plain, key=lambda name: plain[name] != name):  # plain names stay as they are
        stem, number = plain[name], 2
        while stem.lower() in (taken.lower() for taken in stems.values()):
            stem, number = f"{plain[name]}_{number}", number + 1
        stems[name] = stem
    return stems


def summary_lines(record: Mapping) -> list[str]:
    """The record as lines of text."""
    place = record["registration"]
    lines = [
        f"{record['hearts']['train']} training hearts, template {record['template']}, "
        f"{len(record['explained'])} modes with {sum(record['explained']):.1%} of the variance",
        f"surfaces after registration {place['mean_mm']:.2f} mm from the hearts' own "
        f"(worst: {place['worst']['case_id']}, {place['worst']['mm']:.2f} mm)",
    ]
    for name, rows in record["by_modes"].items():
        last = rows[-1]
        held_out = last["generalisation_mm"]
        text = "no held-out hearts" if held_out is None else f"held-out hearts {held_out:.2f} mm"
        lines.append(
            f"{name}: {last['modes']} modes, {text}, specificity {last['specificity_mm']:.2f} mm, "
            f"valid between two hearts {share_text(record['interpolated'][name]['valid'])}"
        )
    for name, found in record["columns"].items():
        lines.append(
            f"{name}: {found['explained']:.1%} of the variance of the shape (p {found['p']:.3g}), "
            f"R2 of the column {found['r2_of_column']:.2f}"
        )
    return lines


def share_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def remove_stale(out: Path, kept: Sequence[Path]) -> None:
    """Delete the meshes and label maps of an earlier run that this one does not make."""
    patterns = ("modes/mode_*.vtp", "path/step_*.vtp", "path/step_*.nii.gz", "columns/x_*.vtp")
    for path in {path for pattern in patterns for path in out.glob(pattern)} - set(kept):
        outputs.remove(path)
