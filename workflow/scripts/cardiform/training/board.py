"""TensorBoard's file of a training."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import outputs


class Board:
    """Scalars for TensorBoard, on the disk when a call returns.

    The usual writer works in a thread: where the disk is full the thread dies, and the training
    waits for it forever.

    purge_step : TensorBoard hides what an earlier file says from this step on.
    """

    def __init__(self, folder: Path, purge_step: int | None = None):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder
        there = set(folder.iterdir())
        self._writer = EventsWriter(str(folder / "events"))  # its name holds time and machine
        for path in set(folder.iterdir()) - there:
            outputs.enlist(path)
        if purge_step is not None:
            self._write(purge_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, group: str, figures: Mapping[str, float], step: int) -> None:
        """Figures as ``group/name``; OSError where the disk is full."""
        from tensorboardX.summary import scalar

        for name, value in figures.items():
            self._write(step, summary=scalar(f"{group}/{name}", value))
        self._writer.flush()

    def close(self) -> None:
        """Everything is written already: a disk that is full now loses nothing."""
        with contextlib.suppress(OSError):
            self._writer.close()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))
