"""One process or many: rank, device and the few collectives a training needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ..errors import InputError, problem

# Rank 0 validates alone while the others wait in a collective. A dead rank is noticed by
# torchrun, which ends the others; the timeout only has to be longer than a validation.
COLLECTIVE_TIMEOUT = timedelta(hours=12)

# Process groups that are closed. The last owner of a group takes it apart, which waits for the
# group's threads; DDP's reducer does that without giving them the interpreter lock, and where
# they need it all stand still. So the last owner is here.
_CLOSED: list[Any] = []


@dataclass(frozen=True)
class World:
    """This process among all processes of the training.

    rank : 0 is the main process, the only one that writes files.
    size : number of processes.
    device : where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and lines."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier(device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` holds on any rank; every rank gets the same answer."""
        if self.size == 1:
            return flag
        votes = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return bool(votes.item())

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` averaged over the ranks (a new tensor; the shape is the same everywhere)."""
        if self.size == 1:
            return values.clone()
        total = values.clone()
        dist.all_reduce(total)
        return total / self.size

    def broadcast(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite ``tensors`` with those of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def from_main(self, work: Callable[[], Any]) -> Any:
        """What ``work`` gives on rank 0, on every rank; only there it is called.

        Plain values, mappings, lists, tuples and tensors, which arrive on the CPU. So no other
        rank reads the folder that rank 0 writes to: it may lie on another node.

        Raises
        ------
        InputError
            ``work`` raised it. The other ranks get one without lines: they are said once.
        """
        if self.size == 1:
            return work()
        tensors: list[torch.Tensor] = []
        answer: list = [None, None]  # outline, whether it failed
        failure = None
        if self.is_main:
            try:
                answer = [_outline(work(), tensors), False]
            except InputError as error:
                answer, failure = [None, True], error
        dist.broadcast_object_list(answer, src=0)
        if answer[1]:
            raise failure or InputError([])
        return self._filled(answer[0], iter(tensors))

    def _filled(self, outline: Any, given: Iterator[torch.Tensor]) -> Any:
        """The content of an outline; each of its tensors is broadcast, one at a time."""
        if isinstance(outline, _Place):
            if self.is_main:
                tensor = next(given).to(self.device).contiguous()
            else:
                tensor = torch.empty(outline.shape, dtype=outline.dtype, device=self.device)
            dist.broadcast(tensor, src=0)
            return tensor.cpu()
        if isinstance(outline, dict):
            return {name: self._filled(value, given) for name, value in outline.items()}
        if isinstance(outline, (list, tuple)):
            return type(outline)(self._filled(value, given) for value in outline)
        return outline

    def gather(self, item: Any) -> list:
        """``item`` of every rank, in rank order, on every rank (small picklable things)."""
        if self.size == 1:
            return [item]
        items: list = [None] * self.size
        dist.all_gather_object(items, item)
        return items


def is_main() -> bool:
    """Whether this process writes the files; also outside of :func:`connect`."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def connect(device: str = "auto") -> Iterator[World]:
    """Join the ranks that torchrun started; alone where it did not.

    device : ``auto`` (CUDA where there is one), ``cpu`` or ``cuda``. Ranks talk over NCCL
        on CUDA and gloo on the CPU.

    Raises
    ------
    InputError
        CUDA is asked for and there is none, or there are more ranks than devices.
    """
    rank = int(os.environ.get("RANK", "0"))
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if chosen.type == "cuda":
        _prepare(chosen)
    world = World(rank=rank, size=size, device=chosen)
    if size == 1:
        yield world
        return
    dist.init_process_group(
        "nccl" if chosen.type == "cuda" else "gloo",
        timeout=COLLECTIVE_TIMEOUT,
        device_id=chosen if chosen.type == "cuda" else None,
    )
    try:
        yield world
    except SystemExit:  # a stop that all ranks agreed on
        _close()
        raise
    # No farewell after an error: it waits for the others, which may wait for this one in a
    # collective. This process just ends, and torchrun ends the others.
    _close()


def _prepare(device: torch.device) -> None:
    """Settings of CUDA that every training is better off with, before it is first used."""
    # batches of changing size leave gaps that blocks of fixed size cannot fill
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    torch.set_float32_matmul_precision("high")  # TF32 where fp32 is multiplied
    torch.cuda.set_device(device)


def _close() -> None:
    _CLOSED.append(dist.group.WORLD)
    dist.destroy_process_group()


def choose_device(device: str, local_rank: int = 0) -> torch.device:
    """The device of a rank: ``auto``, ``cpu`` or ``cuda``; see :func:`connect`."""
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(
            problem("--device cuda", "this machine shows no CUDA device", "set --device auto")
        )
    count = torch.cuda.device_count()
    if local_rank >= count:
        fact = f"rank {local_rank} of this node has no device, {count} are visible"
        raise InputError(problem("--nproc-per-node", fact, f"start {count} ranks on this node"))
    return torch.device("cuda", local_rank)


@dataclass(frozen=True)
class _Place:
    """Where a tensor stood."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def _outline(content: Any, tensors: list[torch.Tensor]) -> Any:
    """``content`` with a place for each tensor; the tensors are added to ``tensors``."""
    if isinstance(content, torch.Tensor):
        tensors.append(content.detach())
        return _Place(tuple(content.shape), content.dtype)
    if isinstance(content, dict):
        return {name: _outline(value, tensors) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(_outline(value, tensors) for value in content)
    return content
