"""From the figures of a search's trials to the order of a rung, and to what is best."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, problem
from ..files import read_json
from ..metrics.record import TRAINING_RECORD
from ..options.search import SearchOptions
from .space import text_of

Row = dict[str, Any]  # a trial of a file of rungs.TRIALS


def ranked(
    trials: Sequence[Row], metrics: Sequence[Path], options: SearchOptions, steps: int
) -> list[Row]:
    """The trials of a rung with their figures, the best first; those that diverged come last.

    trials : the rung's, by place.    metrics : metrics.json of each.    steps : of the rung.

    Raises
    ------
    InputError
        A file is damaged, lacks the figure, or is of more steps.
    """
    problems, rows = [], []
    for place, (trial, path) in enumerate(zip(trials, metrics, strict=True)):
        try:
            rows.append({**_named(trial), "place": place, **_figure(path, options, steps)})
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    sign = 1 if options.goal == "lowest" else -1
    return sorted(rows, key=lambda row: (sign * row.get("figure", sign * math.inf), row["trial"]))


def _named(trial: Row) -> Row:
    return {"trial": trial["trial"], "options": trial["options"]}


def _figure(path: Path, options: SearchOptions, most: int) -> Row:
    remedy = "delete it and run the search again"
    content = read_json(path, remedy)
    TRAINING_RECORD.check(path, content, remedy)
    steps = {"steps": content["steps"]}
    if content["steps"] > most:  # fewer: it diverged, or its patience was exhausted
        fact = f"is of {content['steps']} steps, its rung of {most}"
        raise InputError(problem(path, fact, remedy))
    if content.get("diverged"):
        return {**steps, "diverged": True}
    found = content["validation"]
    if options.figure not in found:
        fact = f"has no validation figure {options.figure}"
        remedy = f"set search.figure to one of {', '.join(found)}"
        raise InputError(problem(path, fact, remedy))
    value = float(found[options.figure])
    return {**steps, "figure": value} if math.isfinite(value) else {**steps, "diverged": True}


@dataclass(frozen=True)
class Tried:
    """A trial and how far it came.

    rungs : (steps, figure) of each rung that it finished.    folders : place in each of its rungs.
    rank : among all trials, from 1.
    """

    number: int
    options: Mapping[str, Any]
    rungs: tuple[tuple[int, float], ...]
    places: tuple[int, ...]
    diverged: bool
    rank: int

    @property
    def figure(self) -> float | None:
        """Of its last rung."""
        return self.rungs[-1][1] if self.rungs else None


def history(rankings: Sequence[Sequence[Row]]) -> list[Tried]:
    """Every trial, the best first: who came farther is better, then the order of the last rung;
    those that diverged come behind all others, whatever figures they had before.

    rankings : rows of each rung, as :func:`ranked` gives them.
    """
    found: dict[int, list[Row]] = {}
    for rows in rankings:
        for row in rows:
            found.setdefault(row["trial"], []).append(row)
    order = dict.fromkeys(row["trial"] for rows in reversed(rankings) for row in rows)
    return [
        Tried(
            number,
            found[number][0]["options"],
            tuple((row["steps"], row["figure"]) for row in found[number] if "figure" in row),
            tuple(row["place"] for row in found[number]),
            "figure" not in found[number][-1],
            rank,
        )
        for rank, number in enumerate(
            sorted(order, key=lambda number: "figure" not in found[number][-1]), start=1
        )
    ]


def best_of(tried: Sequence[Tried], where: str | Path) -> Tried:
    """The best trial; InputError where every one diverged."""
    if tried[0].diverged:
        fact = "every trial diverged: none is the best"
        raise InputError(problem(where, fact, "narrow search.space, the learning rate first"))
    return tried[0]


def best_yaml(best: Tried, tried: Sequence[Tried], options: SearchOptions) -> str:
    """A config file with the settings of a trial; what they brought stands above them."""
    [first] = [trial for trial in tried if trial.number == 0]
    text = "diverged" if first.diverged else _up_to(first)
    lines = [
        f"# Trial {best.number} of {len(tried)} of the search for {options.training}: "
        f"{options.figure} {_up_to(best)}.",
        f"# (The config as it was, trial 0: {text}.)",
        "# Name this file after your own: --configfile mine.yaml best.yaml",
    ]
    sections: dict[str, list[str]] = {}
    for name, value in best.options.items():
        section, key = name.split(".")
        sections.setdefault(section, []).append(f"  {key}: {yaml_text(value)}")
    for section, entries in sections.items():
        lines += [f"{section}:", *entries]
    return "\n".join(lines) + "\n"


def _up_to(trial: Tried) -> str:
    """The figure of a trial; that of the lowest loss, so not always of the last step."""
    return f"{trial.figure:.4g} in the best validation up to step {trial.rungs[-1][0]}"


def yaml_text(value: Any) -> str:
    """A value as YAML 1.1 reads it back; to it 1e-06 is a text."""
    text = json.dumps(value)
    return text.replace("e", ".0e") if isinstance(value, float) and "." not in text else text


def table(tried: Sequence[Tried], options: SearchOptions) -> tuple[list[str], list[list[str]]]:
    """Header and rows of trials.tsv, the best first."""
    names = list(tried[0].options)
    steps = [f"{options.figure}_{steps}" for steps in options.rungs]
    rows = []
    for trial in tried:
        figures = [repr(figure) for _, figure in trial.rungs]
        figures += ["diverged"] if trial.diverged else []
        figures += [""] * (len(steps) - len(figures))
        folder = f"rung_{len(trial.places) - 1}/place_{trial.places[-1]:02d}"
        settings = [text_of(trial.options[name]) for name in names]
        rows.append([str(trial.rank), str(trial.number), *figures, *settings, folder])
    return ["rank", "trial", *steps, *names, "folder"], rows
