"""The training loop that every task shares; see docs/training.md."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError, problem
from ..options import TrainingOptions
from . import sampling
from .checkpoint import Checkpoints, resume_key
from .distributed import World, connect
from .interruption import EXIT_RESUMABLE, StopRequests
from .optimisation import WeightAverage, build_optimizer, learning_rate
from .runlog import RunLog
from .sampling import seed_everything

HIGH_FIRST_LOSS = 5.0  # a well-scaled loss of an untrained network lies below
AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingError(InputError):
    """A training that cannot go on as it is set up: numbers not finite, memory exhausted."""


class Task(Protocol):
    """What the engine asks of a training. ``step`` counts completed steps, from 0.

    Optional, found by name: ``after_step(step)`` after the weights moved and before they are
    averaged, with the same random numbers on every rank; ``preview(batches, folder, step)``,
    like ``evaluate``; ``find_unused_parameters = True`` where some trainable parameters get
    no gradient in some steps (several ranks only).
    """

    module: nn.Module  # all weights; the engine moves it, saves it, averages its weights
    updates: tuple[str, ...]  # one optimiser each, stepped in this order

    def parameters(self, update: str) -> Iterable[nn.Parameter]:
        """The parameters that this update trains; no parameter belongs to two updates."""

    def loss(self, batch: dict, update: str, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss, the mean over the batch, and figures to log (detached scalars)."""

    def evaluate(self, batches: Iterable[dict]) -> dict[str, float]:
        """Figures over all batches with the averaged weights; ``loss`` picks the best."""


@dataclass(frozen=True)
class Outcome:
    """What a training leaves.

    best, best_step : figures of the best validation and its step.
    last : figures of the last validation.    baseline : of the untrained network.
    weights : state dict to ship, CPU: the averaged weights of the best validation, or those
        of the last step where there is no validation set.
    steps : completed steps.    seconds : over all resumed runs.
    """

    best: dict[str, float]
    best_step: int
    last: dict[str, float]
    baseline: dict[str, float]
    weights: dict[str, Tensor]
    steps: int
    seconds: float


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
        starts the training afresh.
    collate : callable, optional
        List of samples to batch; default: tensors are stacked, texts listed.

    Raises
    ------
    InputError
        Options, data and ranks do not fit, a checkpoint is damaged, the disk is full.
    TrainingError
        Loss or gradient is not finite, or the memory of the GPU is exhausted.
    SystemExit
        Code 75 after SIGTERM, SIGINT or ``max_minutes``: the same call goes on.
    """
    out = Path(out)
    if options.fast_dev_run:
        out = out / "fast_dev_run"  # a rehearsal leaves the real training's files alone
        options = _rehearsal(options)
    with StopRequests(options.max_minutes) as stop, connect(options.device) as world:
        _check(task, train_set, validation_set, options, world)
        if options.fast_dev_run and world.is_main:
            shutil.rmtree(out, ignore_errors=True)
        checkpoints = Checkpoints(out)
        key = resume_key(options, identity)
        decision = checkpoints.prepare(key) if world.is_main else ""
        world.barrier()
        state = checkpoints.load_last()
        resumed_at = None if state is None else state["step"]
        with RunLog(
            out, steps=options.steps, resumed_at=resumed_at, enabled=world.is_main
        ) as runlog:
            runlog.say(decision)
            training = _Training(
                task, train_set, validation_set, options, world, runlog, checkpoints, key, collate
            )
            training.begin(state)
            training.run(stop)
            return training.finish()


@dataclass
class Window:
    """Sums of the figures since the last log line, on the device: no step waits for them."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, value: Tensor | float) -> None:
        """Take up one value of a figure."""
        value = torch.as_tensor(value).detach().double()
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.counts[name] = self.counts.get(name, 0) + 1

    def reduced(self, world: World) -> Window:
        """Averaged over the ranks, which must hold the same names; on the CPU."""
        names = sorted(self.sums)
        if not names:
            return Window()
        total = world.mean(torch.stack([self.sums[n].to(world.device) for n in names])).cpu()
        return Window(dict(zip(names, total)), dict(self.counts))

    def means(self) -> dict[str, float]:
        """Mean of every figure."""
        return {name: float(total) / self.counts[name] for name, total in self.sums.items()}


class _LossOf(nn.Module):
    """One update's loss as a forward call, so that DDP reduces that update's gradients."""

    def __init__(self, task: Task, update: str, parameters: list[nn.Parameter]):
        super().__init__()
        self.trained = nn.ParameterList(parameters)  # DDP sees these and nothing else
        self.task, self.update = _Hidden(task), update

    def forward(self, batch: dict, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.task.content.loss(batch, self.update, step)


@dataclass(frozen=True)
class _Hidden:
    content: Any  # a task that is itself an nn.Module must not be registered as a child


class _Training:
    """The state of one training and its loop."""

    def __init__(
        self, task, train_set, validation_set, options, world, runlog, checkpoints, key, collate
    ):
        self.task, self.options, self.world = task, options, world
        self.train_set, self.validation_set, self.collate = train_set, validation_set, collate
        self.runlog, self.checkpoints, self.key = runlog, checkpoints, key
        self.module = task.module.to(world.device)
        self.after_step = getattr(task, "after_step", None)
        self.preview = getattr(task, "preview", None)
        self.trained = {
            u: [p for p in task.parameters(u) if p.requires_grad] for u in task.updates
        }
        self.optimizers = {
            u: build_optimizer(p, options, world.device) for u, p in self.trained.items()
        }
        self.losses = {u: self._distribute(u) for u in task.updates}
        on_cuda = world.device.type == "cuda"
        self.autocast = torch.autocast(
            world.device.type,
            dtype=AUTOCAST[options.precision],
            enabled=on_cuda and options.precision != "fp32",
        )
        self.scaler = torch.amp.GradScaler(
            world.device.type, enabled=on_cuda and options.precision == "fp16"
        )
        self.average = WeightAverage(self._named_trained(), options.ema_decay)
        self.window = Window()
        self.step, self.best_step = 0, 0
        self.best: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.baseline: dict[str, float] = {}
        self.seconds_before, self.started = 0.0, time.monotonic()
        self.step_seconds, self.steps_timed = 0.0, 0

    # -- start and end ---------------------------------------------------------------------

    def begin(self, state: dict | None) -> None:
        """Restore ``state``, or make all ranks equal and measure the untrained network."""
        if state is not None:
            self._restore(state)
            self.runlog.event("resume", self.step)
            return
        counts = self._parameter_counts()
        self.runlog.event("start", 0, **counts, samples=len(self.train_set))
        self.runlog.say(
            "%(total)d parameters: %(trainable)d trainable, %(frozen)d frozen" % counts
        )
        self.world.broadcast([*self.module.parameters(), *self.module.buffers()])
        self.average = WeightAverage(self._named_trained(), self.options.ema_decay)
        self._validate()

    def run(self, stop: StopRequests) -> None:
        """Every remaining step; SystemExit 75 after a stop was asked for."""
        batches = sampling.training_batches(
            self.train_set, self.options, self.world, self.step, self.collate
        )
        with closing(batches):
            for micro_batches in batches:
                start = time.monotonic()
                self._one_step(micro_batches)
                self.step_seconds += time.monotonic() - start
                self.steps_timed += 1
                self.runlog.advance()
                stopping = self.world.any(bool(stop.reason))
                self._after_step(stopping)
                if stopping and self.step < self.options.steps:
                    reason = stop.reason or "another rank"
                    self._stop(reason)

    def finish(self) -> Outcome:
        """Last event and the outcome, equal on every rank."""
        self.world.barrier()  # best.pt is complete
        if self.best:
            weights = self.checkpoints.load_best()["weights"]
        else:
            weights = self._weights_to_ship()
        self.runlog.event(
            "end", self.step, best_step=self.best_step, best=self.best, seconds=self._seconds()
        )
        return Outcome(
            best=self.best,
            best_step=self.best_step,
            last=self.last,
            baseline=self.baseline,
            weights=weights,
            steps=self.step,
            seconds=self._seconds(),
        )

    def _stop(self, reason: str) -> None:
        self.runlog.event("stop", self.step, reason=reason)
        line = "stopped by %s after step %d, checkpoint saved: the same command resumes"
        self.runlog.say(line, reason, self.step)
        raise SystemExit(EXIT_RESUMABLE)

    # -- one step --------------------------------------------------------------------------

    def _one_step(self, micro_batches: list[dict]) -> None:
        seed, step = self.options.seed, self.step
        seed_everything(seed, sampling.STEP, self.world.rank, step)
        self.module.train()
        self.world.broadcast(self.module.buffers())
        try:
            for update in self.task.updates:
                self._update(update, micro_batches)
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory() from error
        if self.after_step is not None:
            seed_everything(seed, sampling.AFTER_STEP, step)
            with torch.no_grad():
                self.after_step(step)
        self.average.update(step)
        self.step += 1

    def _update(self, update: str, micro_batches: list[dict]) -> None:
        """Gradient over the micro-batches, finite check, clip, optimiser step."""
        self._only_trains(update)
        optimizer = self.optimizers[update]
        optimizer.zero_grad(set_to_none=True)
        losses = [
            self._backward(update, batch, last=i == len(micro_batches) - 1)
            for i, batch in enumerate(micro_batches)
        ]
        self.scaler.unscale_(optimizer)
        limit = self.options.clip_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self.trained[update], limit)
        self._check_finite(update, losses, norm, micro_batches)
        self.window.add(self._name(update, "grad_norm"), norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.options)
        self.scaler.step(optimizer)
        self.scaler.update()

    def _backward(self, update: str, batch: dict, last: bool) -> Tensor:
        batch = sampling.to_device(batch, self.world.device)
        loss_of = self.losses[update]
        # DDP reduces the gradients in the backward pass of the last micro-batch only
        loss_of.require_backward_grad_sync = last
        with self.autocast:
            loss, figures = loss_of(batch, self.step)
        self.scaler.scale(loss / self.options.accumulate).backward()
        for name, value in {"loss": loss, **figures}.items():
            self.window.add(self._name(update, name), value)
        return loss.detach()

    def _check_finite(
        self, update: str, losses: list[Tensor], norm: Tensor, micro_batches: list[dict]
    ) -> None:
        """Raise on every rank, before the weights move, naming the step and the cases."""
        bad = [i for i, loss in enumerate(losses) if not torch.isfinite(loss)]
        # with fp16 an infinite gradient is the scaler's affair: it skips the step
        overflow = not self.scaler.is_enabled() and not bool(torch.isfinite(norm))
        if not self.world.any(bool(bad) or overflow):
            return
        ranks = self.world.gather([_case_ids(micro_batches[i]) for i in bad])
        cases = [c for rank in ranks for batch in rank for c in batch]
        what = "loss is not finite"
        if not cases:
            what = "loss is finite, its gradient is not"
            everywhere = self.world.gather([_case_ids(b) for b in micro_batches])
            cases = [c for rank in everywhere for batch in rank for c in batch]
        fact = f"the {update} {what}; cases of the batch: {', '.join(cases) or 'not named'}"
        remedy = "look at these cases, or lower --lr or --clip-norm, or set --precision fp32"
        raise TrainingError(problem(f"step {self.step}", fact, remedy))

    # -- between the steps -----------------------------------------------------------------

    def _after_step(self, stopping: bool) -> None:
        options, step, ended = self.options, self.step, self.step == self.options.steps
        if step == 1 or step % options.log_every == 0 or ended:
            self._log()
        validated = ended or _due(step, options.validate_every)
        if validated:
            self._validate()
        if self.preview is not None and _due(step, options.preview_every):
            self._preview()
        if ended or stopping or step % options.checkpoint_every == 0:
            self._save()

    def _log(self) -> None:
        figures = self.window.reduced(self.world).means()
        self.window = Window()
        lr = learning_rate(self.step - 1, self.options)
        rate = self.steps_timed / self.step_seconds if self.step_seconds else 0.0
        self.step_seconds, self.steps_timed = 0.0, 0
        extra = {}
        if self.world.device.type == "cuda":
            extra["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        self.runlog.event("log", self.step, figures=figures, lr=lr, steps_per_s=rate, **extra)
        self.runlog.scalars("train", self.step, {**figures, "lr": lr})
        loss = figures[self._name(self.task.updates[0], "loss")]
        self.runlog.progress(self.step, loss, lr, rate)
        if self.step == 1 and loss > HIGH_FIRST_LOSS:
            line = "the first loss is %.3g: above %g the scale of inputs or loss is often wrong"
            self.runlog.say(line, loss, HIGH_FIRST_LOSS, level=logging.WARNING)

    def _validate(self) -> None:
        """Figures of the averaged weights; the best ones are kept (rank 0 computes)."""
        if not self.validation_set or not self.world.is_main:
            return
        start = time.monotonic()
        seed_everything(self.options.seed, sampling.VALIDATION)
        self.module.eval()
        with self.average.applied(), torch.no_grad(), self.autocast:
            figures = {n: float(v) for n, v in self.task.evaluate(self._validation()).items()}
            better = figures["loss"] < self.best.get("loss", math.inf) and self.step > 0
            if better:
                self.checkpoints.save_best(self.step, figures, self._cpu_weights())
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
        if not self.validation_set or not self.world.is_main:
            return
        folder = self.checkpoints.out / "previews"
        folder.mkdir(parents=True, exist_ok=True)
        seed_everything(self.options.seed, sampling.VALIDATION)
        self.module.eval()
        with self.average.applied(), torch.no_grad(), self.autocast:
            self.preview(self._validation(), folder, self.step)

    def _validation(self) -> Iterable[dict]:
        return sampling.validation_batches(
            self.validation_set, self.options, self.world, self.collate
        )
