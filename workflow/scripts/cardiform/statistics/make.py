"""The whole of shape_statistics: template, registration case by case, model, figures, files."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..cohort import per_case
from ..cohort.table import Case
from ..errors import InputError
from ..files import sha256_file, write_json
from ..geometry.meshed import mesh_files
from ..labels import LabelTable
from ..options.statistics import ShapeStatisticsOptions
from . import TEMPLATE, regression
from .case import register_case
from .cohort import (
    NEW,
    PARTIAL,
    PARTS,
    Cohort,
    check_path,
    compared,
    registration_figures,
    remove_stale,
    summary_lines,
    write_columns,
    write_path,
    write_scores,
)
from .drawing import write_modes
from .hearts import (
    RIM_MM,
    Outline,
    central,
    check_enough,
    chosen_classes,
    extent,
    outlines,
    split_off,
)
from .scoring import Scorer, beyond
from .template import Template, make_template

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """Which hearts, where their meshes are, where to, how many at a time."""

    cases: Sequence[Case]
    table: LabelTable
    meshes: Path
    out: Path
    processes: int = 1

    def registered(self, template: Path, names: Sequence[str]) -> Path:
        """Register the template to some hearts; finished ones are skipped. The folder of them."""
        folder = self.out / "registered"
        wanted = set(names)
        per_case.run_cases(
            per_case.CaseRun(
                [case for case in self.cases if case.case_id in wanted],
                folder,
                folder / "manifest.tsv",
                self.processes,
            ),
            functools.partial(
                register_case,
                template=Template.load(template),
                table=self.table,
                meshes=self.meshes,
                out=folder,
            ),
            inputs=lambda case: [case.labels, *mesh_files(case, self.meshes)],
            parameters={"template": sha256_file(template), "labels": self.table.as_dicts()},
            made={self.meshes: "extract_meshes"},
        )
        return folder


def make_model(
    work: Work, parts: Mapping[str, str], columns: Mapping[str, Mapping[str, float]],
    options: ShapeStatisticsOptions,
) -> None:  # fmt: skip
    """Write model.npz, template.npz, scores.csv, statistics.json, modes/, path/, columns/.

    parts : case id -> train, val or test; other cases take no part.
    columns : of :func:`cardiform.cohort.free_columns.read_numbers`.

    Raises
    ------
    InputError
        Bad meshes, too few whole hearts or all the same, a class or case that there is none of, a
        class too thin for the grid.
    """
    table, out = work.table, work.out
    found = outlines([case for case in work.cases if case.case_id in parts], table, work.meshes)
    train = [o for o in found if parts[o.case.case_id] == "train"]
    channels = chosen_classes(train, table, options)
    names = [table.names[c] for c in channels]
    whole, reasons = split_off(found, channels, table)
    learned = [o for o in whole if parts[o.case.case_id] == "train"]
    check_enough(learned, len(train), names)
    log.info("classes of the model: %s", ", ".join(names))
    for case_id, reason in reasons.items():
        log.info("%s: no part of the model (%s)", case_id, reason)
    shown = [o.case.case_id for o in found if o.whole[channels].any()]
    check_path(options.path, [o.case.case_id for o in whole])
    scored = {n: {c: v for c, v in own.items() if c in shown} for n, own in columns.items()}
    regression.check_known(scored)
    first = central(learned, channels)
    middles = first.middles[channels] - first.middles[channels].mean(axis=0)
    reach = extent(learned, channels, middles) + [[-RIM_MM], [RIM_MM]]
    template = make_template(
        first, channels, table, work.meshes, grid_mm=options.grid_mm, mesh_mm=options.mesh_mm,
        smoothing_mm=options.smoothing_mm, remove_size=options.remove_size,
        reach=reach,
    )  # fmt: skip
    template.save(out / "template.npz")
    note_beyond([o for o in found if o.case.case_id in shown], channels, template)
    folder = work.registered(out / "template.npz", shown)
    cohort = Cohort.load(template, folder, {c: parts[c] for c in shown})
    model = cohort.fit(options)
    scores = cohort.scores(model)
    figures, judge = compared(cohort, model, table, options)
    record = {
        "template": first.case.case_id,
        "classes": names,
        "hearts": {part: len(cohort.of(part)) for part in (*PARTS, PARTIAL)},
        "left_out": reasons,
        "options": asdict(options),
        "registration": registration_figures(cohort, table),
        "explained": [float(share) for share in model.explained],
        **figures,
        "path": {},
    }
    made = write_modes(out / "modes", model, table)
    if options.path:
        paths, record["path"] = write_path(out / "path", cohort, model, table, judge, options)
        made += paths
    paths, record["columns"] = write_columns(out / "columns", scored, scores, model, table, options)
    remove_stale(out, made + paths)
    write_scores(out / "scores.csv", scores, cohort.parts)
    made_of = sha256_file(out / "template.npz")
    replace(model, template_sha256=made_of, classes=tuple(names)).save(out / "model.npz")
    write_json(out / "statistics.json", record)
    for line in summary_lines(record):
        log.info("%s", line)


def note_beyond(found: Sequence[Outline], channels: Sequence[int], template: Template) -> None:
    """Log the hearts that reach beyond the grid: it is made by the training hearts."""
    for outline in found:
        if text := beyond(outline, channels, template):
            log.info("%s: %s", outline.case.case_id, text)


def score_new(work: Work, model_path: Path) -> None:
    """Write scores.csv of hearts by a model.npz and the template.npz beside it.

    Raises
    ------
    InputError
        The two are missing, damaged, not of one run, or of another label table; bad meshes; no
        heart with a whole class.
    """
    remedy = "give the label table of the model (--labels)"
    scorer = Scorer.load(model_path, work.table, remedy)
    model, template = scorer.model, scorer.template
    channels = [work.table.values.index(value) for value in template.values]
    found = outlines(work.cases, work.table, work.meshes)
    shown = [o.case.case_id for o in found if o.whole[channels].any()]
    for outline in found:
        if outline.case.case_id not in shown:
            log.info("%s: no score, it has no class of the model whole", outline.case.case_id)
    if not shown:
        raise InputError(
            f"shape_statistics: none of {len(found)} hearts has one of {', '.join(model.classes)} "
            "whole, so that none can be scored; give hearts that the scan does not cut"
        )
    note_beyond([o for o in found if o.case.case_id in shown], channels, template)
    folder = work.registered(model_path.with_name(TEMPLATE), shown)
    cohort = Cohort.load(template, folder, dict.fromkeys(shown, NEW))
    write_scores(work.out / "scores.csv", cohort.scores(model), cohort.parts)
    mean = registration_figures(cohort, work.table)["mean_mm"]
    log.info("%d hearts scored, surfaces %.2f mm from their own", len(shown), mean)
