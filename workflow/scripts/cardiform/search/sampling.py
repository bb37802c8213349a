"""The settings of a search's trials, from a sampler of optuna; all trials as its storage."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..files import atomic_path
from ..options.search import SearchOptions
from .results import Tried
from .rungs import trials_of
from .space import Dimension

if TYPE_CHECKING:
    import optuna

TRIES = 50  # of a setting that was there before, per trial
STARTUP = 10  # trials by chance before TPE has something to go by


def proposed(
    space: Sequence[Dimension],
    options: SearchOptions,
    number: int,
    given: Mapping[str, Any],
    told: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """The trials of a round: number and options, ``section.key`` -> value.

    The same arguments always give the same trials; without rounds, more trials begin with those of
    fewer.

    number : of the round.    given : values of the config; trial 0 has them.
    told : rows of the trials of earlier rounds after the first rung, with their figures.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction=_direction(options), sampler=_sampler(options, number, len(told))
    )
    ranges = {d.name: _distribution(d) for d in space}
    _tell(study, space, ranges, options, told)
    known = [{d.name: d.value(row["options"][d.name]) for d in space} for row in told]
    trials = []
    for trial in trials_of(options, number):
        if trial == 0:
            found = dict(given)
        else:
            for _ in range(TRIES):
                params = study.ask(ranges).params
                found = {d.name: _value(d, params[d.name]) for d in space}
                if found not in known:
                    break
        known.append(found)
        trials.append({"trial": trial, "options": found})
    return trials


def _sampler(options: SearchOptions, number: int, told: int) -> optuna.samplers.BaseSampler:
    import optuna

    seed = int(np.random.SeedSequence((options.seed, number)).generate_state(1)[0])
    samplers = optuna.samplers
    if options.sampler == "random":
        return samplers.RandomSampler(seed=seed)
    if options.sampler == "tpe":
        startup = min(STARTUP, told)
        return samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=startup)
    chance = samplers.RandomSampler(seed=seed)  # of what is chosen, not measured
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    return samplers.QMCSampler(
        qmc_type="sobol",
        scramble=True,
        seed=seed,
        independent_sampler=chance,
        warn_independent_sampling=False,
        warn_asynchronous_seeding=False,
    )


def _tell(
    study: optuna.Study,
    space: Sequence[Dimension],
    ranges: Mapping[str, optuna.distributions.BaseDistribution],
    options: SearchOptions,
    told: Sequence[Mapping[str, Any]],
) -> None:
    """Give a study the trials of earlier rounds; one that diverged counts as the worst of them."""
    import optuna

    figures = [row["figure"] for row in told if "figure" in row]
    worst = (max if options.goal == "lowest" else min)(figures, default=0.0)
    if options.sampler == "qmc":  # it takes the dimensions from a trial that is complete
        told = [{"options": {d.name: d.extremes[0] for d in space}}]
    for row in told:
        values = {d.name: d.value(row["options"][d.name]) for d in space}
        if all(d.holds(values[d.name]) for d in space):  # not so where the config lies outside
            study.add_trial(
                optuna.trial.create_trial(
                    params={d.name: _param(d, values[d.name]) for d in space},
                    distributions=dict(ranges),
                    value=row.get("figure", worst),
                )
            )


def write_storage(
    path: Path,
    space: Sequence[Dimension],
    options: SearchOptions,
    tried: Sequence[Tried],
) -> None:
    """All trials as a journal that optuna, and its dashboard, open."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    states = optuna.trial.TrialState
    with atomic_path(path) as temporary:
        lock = JournalFileOpenLock(str(temporary))
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(temporary), lock_obj=lock)),
            direction=_direction(options),
            study_name=options.training,
        )
        found = {d.name: [d.value(trial.options[d.name]) for trial in tried] for d in space}
        ranges = {d.name: _distribution(d, found[d.name]) for d in space}
        for trial in sorted(tried, key=lambda t: t.number):
            complete = len(trial.rungs) == len(options.rungs)
            state = states.COMPLETE if complete else states.PRUNED
            params = {d.name: _param(d, d.value(trial.options[d.name])) for d in space}
            study.add_trial(
                optuna.trial.create_trial(
                    params=params,
                    distributions=ranges,
                    state=states.FAIL if trial.diverged else state,
                    value=trial.figure if complete else None,
                    intermediate_values=dict(trial.rungs),
                )
            )


def _direction(options: SearchOptions) -> Literal["minimize", "maximize"]:
    return "minimize" if options.goal == "lowest" else "maximize"


def _distribution(d: Dimension, tried: Sequence[Any] = ()) -> optuna.distributions.BaseDistribution:
    """The range of a dimension, widened to what was tried: the config may lie outside."""
    from optuna import distributions

    if d.values:
        texts = [json.dumps(value) for value in (*d.values, *tried)]
        return distributions.CategoricalDistribution(list(dict.fromkeys(texts)))
    low, high = min([d.low, *tried]), max([d.high, *tried])
    log = d.log and low > 0
    if d.step:
        step = 1 if tried else d.step
        return distributions.IntDistribution(int(low), int(high), log=log, step=step)
    return distributions.FloatDistribution(low, high, log=log)


def _param(d: Dimension, value: Any) -> Any:
    """A value as optuna has it: a choice is a text."""
    return json.dumps(value) if d.values else value


def _value(d: Dimension, param: Any) -> Any:
    return d.value(json.loads(param)) if d.values else d.drawn(param)
