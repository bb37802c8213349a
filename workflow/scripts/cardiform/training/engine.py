"""The training loop that every task shares; see docs/training.md."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import outputs
from ..errors import InputError, limit_fact, memory_fact, problem
from ..files import sha256_sources
from ..options.sections import memory_advice
from ..options.training import TrainingOptions
from ..training import sampling
from .checkpoint import Checkpoints, resume_key
from .distributed import World, connect
from .exclusive import alone_in
from .interruption import EXIT_RESUMABLE, StopRequests
from .optimisation import learning_rate, parameter_counts
from .runlog import Pace, RunLog, Window
from .saves import Saves
from .steps import Stepper
from .task import Diverged, Task, TrainingError

HIGH_FIRST_LOSS = 5.0  # a well-scaled loss of an untrained network lies below


@dataclass(frozen=True)
class Outcome:
    """What a training leaves.

    best, best_step : figures of the best validation and its step.
    last : figures of the last validation.    baseline : of the untrained network.
    weights : state dict to ship, CPU: the averaged weights of the best validation, or those
        of the last step where there is no validation set.
    steps : completed steps.    seconds : over all resumed runs.
    source : hash of the code that took the last of them (files.sha256_sources).
    out : folder that holds the files; a rehearsal has one of its own.
    diverged : loss or gradient were not finite, and it ended there.
    """

    best: dict[str, float]
    best_step: int
    last: dict[str, float]
    baseline: dict[str, float]
    weights: dict[str, Tensor]
    steps: int
    seconds: float
    source: str
    out: Path
    diverged: bool = False


def train(
    task: Task,
    train_set,
    validation_set,
    *,
    options: TrainingOptions,
    out: Path,
    identity: Mapping[str, Any],
    collate: Callable | None = None,
) -> Outcome:
    """Train ``task``, or go on with the training that was interrupted in ``out``.

    Parameters
    ----------
    train_set, validation_set : map-style datasets
        ``dataset[index, draw]`` gives a sample (see sampling.StepSampler).
        ``validation_set`` may be None or empty: then the last weights are shipped.
    out : Path
        Folder of checkpoints/, metrics.jsonl, tensorboard/ and previews/.
    identity : mapping
        What beside ``options`` decides the result, hashes of split and data, say: a change
        starts the training from scratch.
    collate : callable, optional
        List of samples to batch; default: tensors are stacked, texts listed.

    Raises
    ------
    InputError
        Options, data and ranks do not fit, a checkpoint is damaged, the disk is full, another
        process trains in ``out``.
    TrainingError
        Loss or gradient is not finite (without ``until``), or memory is exhausted.
    SystemExit
        Code 75 after SIGTERM, SIGINT or ``max_minutes``: the same call resumes.
    """
    out = Path(out)
    if options.fast_dev_run:
        out = out / "fast_dev_run"  # a rehearsal leaves the real training's files alone
        options = options.rehearsal()
    with StopRequests(options.max_minutes) as stop, connect(options.device) as world:
        _check(train_set, options, world)
        if options.fast_dev_run and world.is_main:
            outputs.remove(out)
        with ExitStack() as held:
            # where the first rank is refused the others end with it, instead of waiting for it
            world.from_main(lambda: held.enter_context(alone_in(out)))
            checkpoints = Checkpoints(out)
            key = resume_key(options, identity)
            decision, state = world.from_main(
                lambda: (
                    checkpoints.prepare(key, options.resume_from, options.last_step),
                    checkpoints.load_last(),
                )
            )
            resumed_at = None if state is None else state["step"]
            with RunLog(
                out, options=options, resumed_at=resumed_at, enabled=world.is_main
            ) as runlog:
                runlog.say(decision)
                data = Data(train_set, validation_set, collate, options, world)
                return Loop(task, data, options, world, runlog, checkpoints, key).course(
                    state, stop
                )


@dataclass(frozen=True)
class Data:
    """Both datasets and how to make batches of them."""

    train_set: Any
    validation_set: Any
    collate: Callable | None
    options: TrainingOptions
    world: World

    def training(self, first_step: int) -> Generator[list[Any], None, None]:
        """This rank's micro-batches of every remaining step."""
        return sampling.training_batches(
            self.train_set, self.options, self.world, first_step, self.collate
        )

    def validation(self) -> Iterable[Any]:
        """Every validation sample once."""
        return sampling.validation_batches(
            self.validation_set, self.options, self.world, self.collate
        )


class Loop:
    """The course of one training: what happens after which step."""

    def __init__(
        self,
        task: Task,
        data: Data,
        options: TrainingOptions,
        world: World,
        runlog: RunLog,
        checkpoints: Checkpoints,
        key: Mapping[str, Any],
    ):
        self.task, self.data, self.options, self.world = task, data, options, world
        self.runlog, self.checkpoints, self.key = runlog, checkpoints, key
        self.saves = Saves(checkpoints)
        self.stepper = Stepper(task, options, world)
        self.window = Window()
        self.step, self.best_step = 0, 0
        self.diverged = False
        self.best: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.baseline: dict[str, float] = {}
        self.seconds_before, self.started = 0.0, time.monotonic()
        self.saved_at = self.started
        # As of the last checkpoint: a finished training that is called again, by other code
        # even, writes the same figures.
        self.seconds, self.source = 0.0, ""
        self.code = sha256_sources()
        self.pace = Pace()

    def course(self, state: dict | None, stop: StopRequests) -> Outcome:
        """All of the training; TrainingError where memory does not suffice for it."""
        try:
            self.begin(state)
            self.run(stop)
            return self.finish()
        except (RuntimeError, MemoryError, OSError) as error:
            if limit := limit_fact(error):
                raise InputError(problem(f"step {self.step}", *limit)) from error
            fact = memory_fact(error)
            if not fact:
                raise
            sections = type(self.options), *getattr(self.task, "memory_options", ())
            line = problem(f"step {self.step}", fact, memory_advice(*sections))
            raise TrainingError(line) from error
        finally:
            self.saves.close()

    def begin(self, state: dict | None) -> None:
        """Restore ``state``, or make all ranks equal and measure the untrained network."""
        if state is not None:
            self._restore(state)
            self.runlog.event("resume", self.step)
            return
        counts = parameter_counts(self.stepper.module)
        self.runlog.event("start", 0, **counts, samples=len(self.data.train_set))
        text = ", ".join(f"{number:,} {name}" for name, number in counts.items())
        self.runlog.say("parameters: %s", text)
        self.stepper.synchronise()
        self._validate()

    def run(self, stop: StopRequests) -> None:
        """Every remaining step; SystemExit 75 after a stop was asked for."""
        if self._settled():
            return
        with closing(self.data.training(self.step)) as batches:
            self.pace.resume()
            for micro_batches in batches:
                self.pace.count(waited=True)
                if not self._stepped(micro_batches):
                    return
                self.step += 1
                self.pace.count(steps=1)
                self.runlog.advance()
                stopping = self.world.any(bool(stop.reason))
                self._between_steps(stopping)
                if stopping and self.step < self.options.last_step:
                    self._stop(stop.reason or "another rank")
                if self._settled():
                    line = "no lower loss in %d validations: the training ends after step %d"
                    self.runlog.say(line, self.options.patience, self.step)
                    self._save(wait=True)
                    return
                self.pace.resume()

    def _stepped(self, micro_batches: list[Any]) -> bool:
        """Take a step; False where that cannot be, and the training is a trial, which ends."""
        try:
            self.stepper.step(self.step, micro_batches, self.window)
        except Diverged as error:
            if not self.options.until:
                raise
            self.diverged, self.source = True, self.code
            self.saves.wait()
            self.runlog.say("the training ends here: %s", error, level=logging.WARNING)
        return not self.diverged

    def _settled(self) -> bool:
        """Whether ``patience`` is exhausted; the first rank, which validates, decides."""
        options = self.options
        if not options.patience or not _due(self.step, options.validate_every):
            return False
        waited = (self.step - self.best_step) // options.validate_every
        return self.world.any(self.world.is_main and bool(self.best) and waited >= options.patience)

    def finish(self) -> Outcome:
        """Last event and the outcome, equal on every rank."""
        found = self.world.from_main(self._found)
        ending = {name: found[name] for name in ("best_step", "best", "seconds")}
        self.runlog.event("end", self.step, **ending)
        return Outcome(**found, steps=self.step, out=self.checkpoints.out, diverged=self.diverged)

    def _found(self) -> dict[str, Any]:
        """What rank 0 alone knows of the outcome."""
        if self.best:
            found = self.checkpoints.load_best()
            # a kill between both saves leaves a best.pt that last.pt does not know of
            self.best, self.best_step = found["figures"], found["step"]
            weights = found["weights"]
        else:
            weights = self.stepper.averaged_weights()
        return {
            "best": self.best,
            "best_step": self.best_step,
            "last": self.last,
            "baseline": self.baseline,
            "weights": weights,
            "seconds": self.seconds,
            "source": self.source,
        }

    def _stop(self, reason: str) -> None:
        self.runlog.event("stop", self.step, reason=reason)
        line = "stopped by %s after step %d, checkpoint saved: the same command resumes"
        self.runlog.say(line, reason, self.step)
        raise SystemExit(EXIT_RESUMABLE)

    def _between_steps(self, stopping: bool) -> None:
        options, step, ended = self.options, self.step, self.step == self.options.last_step
        self.saves.look()
        if step == 1 or step % options.log_every == 0 or ended:
            self._log()
        if ended or _due(step, options.validate_every):
            self._validate()
        if _due(step, options.preview_every):
            self._preview()
        if ended or stopping or self._save_due():
            self._save(wait=ended or stopping)

    def _save_due(self) -> bool:
        options = self.options
        if _due(self.step, options.checkpoint_every):
            return True
        since = time.monotonic() - self.saved_at
        late = self.world.is_main and since >= 60 * options.checkpoint_minutes
        return options.checkpoint_minutes > 0 and self.world.any(late)

    def _log(self) -> None:
        figures = self.window.reduced(self.world).means()
        self.window = Window()
        lr = learning_rate(self.step - 1, self.options)
        self.pace.count()  # a device worked on until its figures were read
        pace, self.pace = self.pace, Pace()
        entries = {"figures": figures, "lr": lr, "steps_per_s": pace.rate, "wait": pace.wait}
        if self.world.device.type == "cuda":
            entries["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
            torch.cuda.reset_peak_memory_stats()  # the most since the last line
        self.runlog.event("log", self.step, **entries)
        self.runlog.scalars("train", self.step, {**figures, "lr": lr})
        loss = figures[self.stepper.figure(self.task.updates[0], "loss")]
        self.runlog.progress(self.step, figures, lr, pace)
        if self.step == 1 and loss > HIGH_FIRST_LOSS:
            line = "the first loss is %.3g: above %g the scale of inputs or loss is often wrong"
            self.runlog.say(line, loss, HIGH_FIRST_LOSS, level=logging.WARNING)

    def _validate(self) -> None:
        """Figures of the averaged weights; the best ones are kept (rank 0 computes)."""
        if not self.data.validation_set or not self.world.is_main:
            return
        start = time.monotonic()
        with self.stepper.evaluating():
            found = self.task.evaluate(self.data.validation())
            figures = {name: float(value) for name, value in found.items()}
            better = self.step > 0 and figures["loss"] < self.best.get("loss", math.inf)
            if better:
                self.saves.best(self.step, figures, self.stepper.weights())
        self.last = figures
        if self.step == 0:
            self.baseline = figures
        if better:
            self.best, self.best_step = figures, self.step
        seconds = time.monotonic() - start
        self.runlog.event("validation", self.step, figures=figures, best=better, seconds=seconds)
        self.runlog.scalars("validation", self.step, figures)
        text = " ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self.runlog.say("validation after step %d: %s", self.step, text)

    def _preview(self) -> None:
        preview = getattr(self.task, "preview", None)
        if preview is None or not self.data.validation_set or not self.world.is_main:
            return
        folder = self.checkpoints.out / "previews"
        folder.mkdir(parents=True, exist_ok=True)
        with self.stepper.evaluating():
            preview(self.data.validation(), folder, self.step)

    def _save(self, wait: bool) -> None:
        """Replace last.pt.    wait : until that is done, on every rank."""
        self.window = self.window.reduced(self.world)  # so a resumed run logs what this one would
        self.seconds = self.seconds_before + time.monotonic() - self.started
        self.source, self.saved_at = self.code, time.monotonic()
        if self.world.is_main:
            state = {
                **self.stepper.state_dict(),
                "window": self.window.state_dict(),
                "best": self.best,
                "best_step": self.best_step,
                "last": self.last,
                "baseline": self.baseline,
                "seconds": self.seconds,
                "source": self.source,
            }
            self.saves.last(self.key, self.step, state)
        if wait:
            self.saves.wait()
            self.world.barrier()

    def _restore(self, state: dict) -> None:
        self.stepper.load_state_dict(state)
        self.window = Window.from_state(state["window"])
        self.step, self.seconds_before = state["step"], state["seconds"]
        self.seconds = self.seconds_before
        self.source = state.get("source", "")  # earlier checkpoints do not say it
        self.best, self.best_step = state["best"], state["best_step"]
        self.last, self.baseline = state["last"], state["baseline"]
        if self.world.is_main and self.best and not self.checkpoints.has_best():
            line = "%s is gone: the best validation after step %d is shipped, or else the last"
            self.runlog.say(line, self.checkpoints.best, self.step, level=logging.WARNING)
            self.best, self.best_step = {}, 0


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _check(train_set, options: TrainingOptions, world: World) -> None:
    """InputError where options, data and ranks do not fit, before anything is computed."""
    if not len(train_set):
        raise InputError("the training split is empty: lower the shares of the other parts")
    sampling.micro_batch_size(options, world.size)
