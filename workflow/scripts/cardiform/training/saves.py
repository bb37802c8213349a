"""Checkpoints that are written while the training takes its next steps."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .checkpoint import Checkpoints

log = logging.getLogger(__name__)


class Saves:
    """last.pt and best.pt, written by one thread, one after the other.

    A step waits only until the state is copied to memory of the processor (pinned where the state
    lies on a GPU), or until an earlier file of the same name is written: so there are two copies
    at most, of the state and of the best weights. Files are replaced when they are complete, in
    the order of the calls: last.pt never speaks of a best.pt that is not there.
    """

    def __init__(self, files: Checkpoints):
        self.files = files
        self.copy = HostCopy()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending: dict[str, Future] = {}

    def last(self, key: Mapping[str, Any], step: int, state: Mapping[str, Any]) -> None:
        """Replace last.pt; ``state`` may change once this returns.

        Raises
        ------
        InputError
            An earlier file could not be written.
        """
        self._finish("last")  # the copy is still that of the earlier one
        content = self.copy.of(state)
        self._pending["last"] = self._thread.submit(self.files.save_last, key, step, content)

    def best(self, step: int, figures: Mapping[str, float], weights: Mapping[str, Tensor]) -> None:
        """Replace best.pt; ``weights`` are kept until then. InputError as of :meth:`last`."""
        self._finish("best")
        self._pending["best"] = self._thread.submit(self.files.save_best, step, figures, weights)

    def look(self) -> None:
        """InputError where a file could not be written, as far as that is known by now."""
        for name in [name for name, future in self._pending.items() if future.done()]:
            self._finish(name)

    def wait(self) -> None:
        """Until all is written; InputError where it could not be."""
        for name in list(self._pending):
            self._finish(name)

    def close(self) -> None:
        """Until all is written, whatever happened: the last chance of what is under way."""
        try:
            self.wait()
        except (InputError, OSError, RuntimeError) as error:
            log.error("%s", error)
        finally:
            self._thread.shutdown()

    def _finish(self, name: str) -> None:
        if name in self._pending:
            self._pending.pop(name).result()


class HostCopy:
    """Copies of nested mappings and lists of tensors, in memory that is used again."""

    def __init__(self) -> None:
        self.held: dict[tuple, Tensor] = {}

    def of(self, content: Any) -> Any:
        """``content`` with every tensor copied to the processor's memory; valid until the next."""
        found: dict[tuple, Tensor] = {}
        copied = self._copied(content, (), found)
        self.held = found
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return copied

    def _copied(self, content: Any, place: tuple, found: dict[tuple, Tensor]) -> Any:
        if isinstance(content, Tensor):
            found[place] = self._memory(content.detach(), place)
            return found[place].copy_(content.detach(), non_blocking=True)
        if isinstance(content, Mapping):
            items = {n: self._copied(v, (*place, n), found) for n, v in content.items()}
            if not isinstance(content, OrderedDict):
                return items
            ordered = OrderedDict(items)
            ordered.__dict__.update(vars(content))  # the versions of a module's parts
            return ordered
        if isinstance(content, (list, tuple)):
            return type(content)(self._copied(v, (*place, i), found) for i, v in enumerate(content))
        return content

    def _memory(self, tensor: Tensor, place: tuple) -> Tensor:
        """Memory for a copy: what was used for it last time, if it fits."""
        held = self.held.get(place)
        if held is not None and (held.shape, held.dtype) == (tensor.shape, tensor.dtype):
            return held
        if tensor.is_cuda:
            try:
                return torch.empty_like(tensor, device="cpu", pin_memory=True)
            except RuntimeError as error:  # limits of the system: slower, but the same
                log.warning("no pinned memory for checkpoints (%s)", error)
        return torch.empty_like(tensor, device="cpu")
