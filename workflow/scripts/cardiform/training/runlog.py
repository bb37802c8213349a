"""What a training reports: lines or a bar on stderr, metrics.jsonl, TensorBoard, a tracker."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import outputs
from ..errors import InputError
from ..files import write_problem, write_text
from ..options.training import TrainingOptions
from .board import Board
from .distributed import World
from .trackers import Tracker, open_tracker

if TYPE_CHECKING:
    from tqdm import tqdm

LOG = logging.getLogger("cardiform.training")


class Pace:
    """Steps per second of wall time, and which share of it waited for samples.

    Validation, previews and checkpoints do not count.
    """

    def __init__(self) -> None:
        self.seconds, self.waited, self.steps = 0.0, 0.0, 0
        self.mark = time.monotonic()

    def resume(self) -> None:
        """What came since the last mark does not count."""
        self.mark = time.monotonic()

    def count(self, *, steps: int = 0, waited: bool = False) -> None:
        """The time since the last mark, with ``steps`` completed in it."""
        now = time.monotonic()
        self.seconds += now - self.mark
        self.waited += now - self.mark if waited else 0.0
        self.steps += steps
        self.mark = now

    @property
    def rate(self) -> float:
        """Steps per second."""
        return self.steps / self.seconds if self.seconds else 0.0

    @property
    def wait(self) -> float:
        """Share of the time that waited for samples, 0 to 1."""
        return self.waited / self.seconds if self.seconds else 0.0


class RunLog:
    """The voice of a training; silent on every rank but the main one.

    metrics.jsonl has one JSON object per line: ``event`` (start, resume, log, validation,
    stop, end), ``step`` (completed steps) and the event's own entries. A figure that is not
    finite is written as null.

    Parameters
    ----------
    out : Path
        Folder of metrics.jsonl and tensorboard/.
    options : TrainingOptions
        Of the training: its steps, its tracker.
    resumed_at : int or None
        Step from which a run resumes: later events, of the run that was killed, are removed.
        None: a run from the start, nothing is kept.
    enabled : bool
        False: say and write nothing.
    """

    def __init__(
        self, out: Path, *, options: TrainingOptions, resumed_at: int | None, enabled: bool
    ):
        self.steps, self.enabled = options.last_step, enabled
        self._closing = ExitStack()
        self._bar: tqdm | None = None
        self._tracker: Tracker | None = None
        if not enabled:
            return
        if options.tracker and not options.fast_dev_run:
            resumed = resumed_at is not None
            self._tracker = open_tracker(options.tracker, out, vars(options), resumed=resumed)
            self._closing.callback(self._tracker.close)
        path = out / "metrics.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        truncate(path, resumed_at)
        with _full_disk_reported(out):
            outputs.enter(path)
            self._stream = path.open("a", encoding="utf-8")
            self._closing.callback(_close, self._stream)
            self._board = self._open_board(out / "tensorboard", resumed_at)
        if sys.stderr.isatty():
            self._open_bar(resumed_at or 0)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *error) -> None:
        self._closing.close()

    def say(self, text: str, *arguments, level: int = logging.INFO) -> None:
        """One line on stderr."""
        if self.enabled:
            LOG.log(level, text, *arguments)

    def event(self, kind: str, step: int, **entries: Any) -> None:
        """One line in metrics.jsonl, on the disk of this machine when the call returns."""
        if self.enabled:
            line = json.dumps({"event": kind, "step": step, **_finite(entries)})
            with _full_disk_reported(self._stream.name):
                self._stream.write(line + "\n")
                self._stream.flush()

    def scalars(self, group: str, step: int, figures: Mapping[str, float]) -> None:
        """Figures to TensorBoard and the tracker as ``group/name``."""
        if self.enabled:
            with _full_disk_reported(self._board.path):
                self._board.add(group, figures, step)
            if self._tracker is not None:
                self._tracker.add(group, figures, step)

    def advance(self) -> None:
        """One step is done: moves the bar, where there is one."""
        if self._bar is not None:
            self._bar.update()

    def progress(self, step: int, figures: Mapping[str, float], lr: float, pace: Pace) -> None:
        """The state of affairs: on the bar, or as a line where stderr is no terminal."""
        rate, wait = pace.rate, f"wait {100 * pace.wait:.0f} %"
        text = " ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.set_postfix_str(f"{text} lr {lr:.1e} {wait}", refresh=False)
        else:
            eta = clock((self.steps - step) / rate) if rate > 0 else "?"
            line = "step %d/%d %s lr %.1e %.3g it/s %s eta %s"
            self.say(line, step, self.steps, text, lr, rate, wait, eta)

    def _open_bar(self, first_step: int) -> None:
        from tqdm import tqdm
        from tqdm.contrib.logging import logging_redirect_tqdm

        self._closing.enter_context(logging_redirect_tqdm())
        bar = tqdm(total=self.steps, initial=first_step, unit="step", dynamic_ncols=True)
        self._bar = self._closing.enter_context(bar)

    def _open_board(self, folder: Path, resumed_at: int | None) -> Board:
        if resumed_at is None:
            outputs.remove(folder, "events.*")  # of a run that never got to a checkpoint
        board = Board(folder, purge_step=None if resumed_at is None else resumed_at + 1)
        self._closing.callback(board.close)
        return board


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

    def state_dict(self) -> dict:
        """Plain content for a checkpoint."""
        return {"sums": dict(self.sums), "counts": dict(self.counts)}

    @classmethod
    def from_state(cls, state: dict) -> Window:
        """The inverse of :meth:`state_dict`."""
        return cls(dict(state["sums"]), dict(state["counts"]))


def truncate(path: Path, step: int | None) -> None:
    """Keep the events up to ``step`` that a run resumed there will not write again.

    With None nothing is kept. The line that a kill cut short is dropped.
    """
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if step is not None and _keep(line, step)]
    write_text(path, "".join(kept))


def clock(seconds: float) -> str:
    """``hh:mm:ss``."""
    minutes, second = divmod(int(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"


@contextmanager
def _full_disk_reported(path: str | Path) -> Iterator[None]:
    """InputError where the disk is full."""
    try:
        yield
    except OSError as error:
        line = write_problem(path, error)
        if not line:
            raise
        raise InputError(line) from error


def _close(stream) -> None:
    with suppress(OSError):  # every event was flushed, or reported as lost
        stream.close()


def _keep(line: str, step: int) -> bool:
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return False
    return line.endswith("\n") and event["step"] <= step and event["event"] != "end"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
