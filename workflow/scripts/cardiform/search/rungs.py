"""How many trials a search has in each rung and round, and the table of a rung's trials
(standard library only)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, problem
from ..files import ANEW, write_json
from ..formats import Format
from ..options.search import SearchOptions

# Proposed trials, in order; or those of a finished rung, the best first.
TRIALS = Format(
    "trials",
    {
        "format_version": "integer",
        "training": "text",
        "trials": "object (N)",
        "trials.*.trial": "integer",
        "trials.*.options": "object",
        "trials.*.place?": "integer",
        "trials.*.steps?": "integer",
        "trials.*.figure?": "number",
        "trials.*.diverged?": "bool",
    },
)


def places(options: SearchOptions) -> list[int]:
    """The number of trials in each rung."""
    counts = [options.trials]
    for _ in options.rungs[1:]:
        counts.append(counts[-1] // options.reduction)
    return counts


def steps_of(options: SearchOptions, count: int) -> int:
    """The steps of the rung that has ``count`` trials; InputError where none has."""
    counts = places(options)
    if count not in counts:
        text = ", ".join(map(str, counts))
        raise InputError(
            f"--metrics names {count} files, the rungs have {text}; name all files of one rung"
        )
    return options.rungs[counts.index(count)]


def round_of(options: SearchOptions, trial: int) -> int:
    """The round that proposes a trial."""
    return trial * options.rounds // options.trials


def trials_of(options: SearchOptions, number: int) -> list[int]:
    """The trials that a round proposes."""
    return [n for n in range(options.trials) if round_of(options, n) == number]


def check_search(options: SearchOptions) -> None:
    """InputError where rungs, rounds and trials do not fit; a line for each."""
    problems = []
    if list(options.rungs) != sorted(set(options.rungs)):
        text = ", ".join(map(str, options.rungs))
        problems.append(f"search.rungs is {text}; each rung has more steps than the one before")
    if not places(options)[-1]:
        problems.append(
            f"search.trials is {options.trials}: too few for {len(options.rungs)} rungs of which "
            f"one in {options.reduction} goes on; raise it, or give fewer rungs"
        )
    if options.rounds > options.trials:
        problems.append(f"search.rounds is {options.rounds}, more than search.trials; lower it")
    if options.rounds > 1 and options.sampler != "tpe":
        problems.append(
            f"search.rounds is {options.rounds}: {options.sampler} learns nothing from a round; "
            "set it to 1, or search.sampler to tpe"
        )
    if options.rounds == 1 and options.sampler == "tpe":
        problems.append(
            "search.sampler is tpe: in one round it has nothing to learn from; set search.rounds "
            "to 2 or more, or take qmc"
        )
    if problems:
        raise InputError(problems)


def trial_at(path: str | Path, place: int) -> dict[str, Any]:
    """One trial of a file of :data:`TRIALS`, for the plan; FileNotFoundError without it."""
    with open(path, encoding="utf-8") as stream:
        try:
            trials = json.load(stream)["trials"]
        except (ValueError, KeyError, TypeError):
            raise InputError(problem(path, "is no table of trials", ANEW)) from None
    # fewer than expected: a file of another plan, which is made again before it is used
    return trials[place] if place < len(trials) else {"trial": -1, "options": {}}


def write_trials(path: str | Path, training: str, trials: Sequence[Mapping[str, Any]]) -> None:
    """A file of :data:`TRIALS`."""
    head = {"format_version": TRIALS.version, "training": training}
    write_json(path, {**head, "trials": list(trials)})


def trials_in(paths: Iterable[str | Path]) -> list[dict[str, Any]]:
    """The trials of several files, one after the other; InputError where one is damaged."""
    return [trial for path in paths for trial in TRIALS.load(path)["trials"]]
