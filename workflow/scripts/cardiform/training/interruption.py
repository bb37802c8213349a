"""When to stop early: signals and the time limit."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType

from .. import STARTED

# what signal.signal gives back
Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None

EXIT_RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h: the same command resumes


class StopRequests:
    """Within the block SIGTERM and SIGINT are noted instead of obeyed.

    max_minutes : also ask for a stop this long after the start of the process (0: never).
    """

    def __init__(self, max_minutes: float):
        self.seconds = max_minutes * 60
        self._signal: signal.Signals | None = None
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> StopRequests:
        # Python allows handlers in the main thread only; elsewhere the time limit remains.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self._signal = signal.Signals(number)

    @property
    def reason(self) -> str:
        """Why to stop; empty while there is no reason."""
        if self._signal is not None:
            return self._signal.name
        if self.seconds and time.monotonic() - STARTED >= self.seconds:
            return f"max_minutes {self.seconds / 60:g}"
        return ""
