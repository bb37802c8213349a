"""Trained models on many new cases: what is asked for, checked, done, and summed up."""

from __future__ import annotations

import contextlib
import functools
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import outputs
from ..artefact.bundle import check_bundle, is_bundle, unpack
from ..cli import flags
from ..cohort import per_case
from ..cohort.table import OK, Case, write_cases
from ..errors import InputError, problem, together
from ..files import sha256_json
from ..options.apply import TASKS, ApplyOptions
from ..training.distributed import choose_device
from .case import apply_case
from .inputs import look_at
from .models import find_folds, is_zip
from .networks import Content, Networks, load_networks
from .record import earlier_figures, figures_path, write_summary
from .tasks import choose, left_out, usable

log = logging.getLogger(__name__)

VERSION = 3  # of what is written for a case: those of another are made again


@dataclass(frozen=True)
class Call:
    """Which cases, and where to.

    manifest : of one chunk of many, where a bad case is left out and listed; None: all cases are in
        this call, which sums them up and fails for a bad one at its end.
    """

    cases: Sequence[Case]
    out: Path
    manifest: Path | None = None


@contextlib.contextmanager
def unzipped(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """The folders of models, each zip as a folder of its name that is deleted after the block.

    Raises
    ------
    InputError
        A line for each fault of the zips: see :func:`cardiform.artefact.bundle.unpack`.
    """
    with tempfile.TemporaryDirectory(prefix="cardiform-") as name:
        places = {p: Path(name) / str(k) / p.stem for k, p in enumerate(paths) if is_zip(p)}
        try:
            together(*(functools.partial(_unzip, *pair) for pair in places.items()))
            yield [places.get(path, path) for path in paths]
        except InputError as error:
            lines = error.problems
            for path, place in places.items():
                lines = [line.replace(str(place), str(path)) for line in lines]
            raise InputError(lines) from None


def _unzip(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    unpack(path, folder)


def prepared(
    folders: Sequence[Path], options: ApplyOptions, out: Path
) -> tuple[Networks, tuple[str, ...]]:
    """The networks of some folders, and the tasks that are done with them.

    Raises
    ------
    InputError
        A folder without models, or without those of a task that is asked for; ``out`` is one of
        the folders; folds that do not fit together.
    """
    models = find_folds(folders)
    tops = dict.fromkeys([*folders, *(m.folder for m in models)])
    together(*(functools.partial(check_bundle, top) for top in tops if is_bundle(top)))
    if any(out.resolve() == m.folder.resolve() for m in models):
        raise InputError(problem(out, "is a folder of models", "choose another output folder"))
    content = Content.of(models)
    reasons = left_out(models, content.stored)
    tasks = choose(_with_fusion(options, content, reasons), reasons)
    outputs.protect(path for m in models for path in (*m.files.values(), *m.helpers))
    if not options.tasks:
        for task, reason in reasons.items():
            log.info("%s is left out: %s", task, reason)
    if len(models) > 1:
        names = ", ".join(m.folder.name for m in models)
        log.info("%d folds, which are averaged: %s", len(models), names)
    log.info("tasks: %s", ", ".join(tasks))
    if "reconstruct" in tasks and "vecset" in usable(models):
        for reason in content.unsure:
            log.warning("no confidence: %s", reason)
    if content.stages.refined and not uses_refined(options, content):
        log.warning("the models were trained on fused label maps; the given ones are used here")
    if defaults := sorted(set(content.stages.options) - content.stages.known):
        log.info("%s holds no options of %s: defaults", models[0].folder.name, ", ".join(defaults))
    return load_networks(content, tasks, choose_device(options.device)), tasks


def uses_refined(options: ApplyOptions, content: Content) -> bool:
    """Whether shapes are made of fused label maps."""
    if options.use_refined != "auto":
        return options.use_refined == "true"
    return content.stages.refined and "refiner" in usable(content.folders)


def _with_fusion(
    options: ApplyOptions, content: Content, reasons: Mapping[str, str]
) -> tuple[str, ...]:
    """The tasks that are asked for, and fuse where it comes before some of them."""
    if not uses_refined(options, content) or options.tasks == ("refine",):
        return options.tasks
    if not options.tasks:
        return tuple(t for t in TASKS if t == "fuse" or t not in reasons)
    log.info("label maps are fused first, as those of the training were")
    return tuple(dict.fromkeys([*options.tasks, "fuse"]))


def apply_all(call: Call, networks: Networks, tasks: Sequence[str], options: ApplyOptions) -> None:
    """Look at all cases, do the tasks with the good ones, write manifest and summary.

    Raises
    ------
    InputError
        A line per problem of a bad case; the others are finished then.
    """
    out, manifest = call.out, call.manifest or call.out / "manifest.tsv"
    looked = look_at(
        call.cases,
        networks.table,
        out=out / "qc",
        manifest=out / "qc" / "manifest" / f"{manifest.stem}.tsv",
        training_mm=networks.stages.spacing_mm,
    )
    for line in looked.problems:
        log.warning("left out: %s", line)
    problems = list(looked.problems) if call.manifest is None else []
    run = per_case.CaseRun(looked.cases, out, manifest)
    refined = uses_refined(options, networks.content)
    shared = _shared(networks)
    models = sha256_json({**shared, "use_refined": refined})
    try:
        per_case.run_cases(
            run,
            functools.partial(
                apply_case,
                networks=networks,
                tasks=tasks,
                out=out,
                notes=looked.notes,
                use_refined=refined,
                models=models,
                # what a workflow makes depends on its config alone
                keep=call.manifest is None,
            ),
            inputs=lambda case: [case.labels, *([case.truth] if case.truth else [])],
            parameters={"options": flags(options), "tasks": list(tasks), **shared},
        )
    except InputError as error:
        problems += error.problems
    if call.manifest is None:
        write_cases(out / "cases.tsv", looked.cases)
        done = [figures_path(out, c.case_id) for c in looked.cases if c.status == OK]
        earlier = earlier_figures(out, [c.case_id for c in looked.cases], models)
        write_summary(out / "summary.csv", [*(p for p in done if p.is_file()), *earlier])
    if problems:
        raise InputError(problems)


def _shared(networks: Networks) -> dict:
    """What decides the outputs of all cases, beside tasks and options."""
    shapes = networks.content.shapes_hashes()
    return {
        "labels": networks.table.as_dicts(),
        "stages": {name: flags(values) for name, values in networks.stages.options.items()},
        "models": dict(networks.sha256),
        "confidence": networks.content.confidence_hashes(),
        "version": VERSION,
        # cases of folders without modes stay finished
        **({"shapes": shapes} if shapes else {}),
    }
