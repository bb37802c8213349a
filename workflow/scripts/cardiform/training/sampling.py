"""Which sample comes when: the same for any number of ranks, micro-batches and workers."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader

from ..errors import InputError
from ..options import TrainingOptions
from .distributed import World

# Words that keep the streams of one seed apart (see seed_everything).
ORDER, STEP, AFTER_STEP, VALIDATION = range(4)


def seed_everything(*words: int) -> None:
    """Seed Python, numpy and torch (all devices) from non-negative integers.

    The engine calls this with (seed, stream, rank, step) before every step, so the state of
    every generator follows from the step and needs no place in a checkpoint.
    """
    state = np.random.SeedSequence(words).generate_state(4)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(int(state[2]) << 32 | int(state[3]))


def micro_batch_size(options: TrainingOptions, ranks: int) -> int:
    """Samples per rank and micro-batch; an InputError where batch_size cannot be dealt out."""
    share, rest = divmod(options.batch_size, ranks * options.accumulate)
    if rest or share == 0:
        raise InputError(
            f"--batch-size is {options.batch_size}: not a multiple of {ranks} ranks x "
            f"{options.accumulate} micro-batches; change --batch-size or --accumulate"
        )
    return share


class StepSampler:
    """Keys ``(index, draw)`` of this rank's micro-batches, step after step.

    Sample number ``draw`` of the whole training is entry ``draw % size`` of the seeded
    permutation of epoch ``draw // size``; step s takes draws s * batch_size up to
    (s + 1) * batch_size. A dataset derives all randomness of a sample from ``draw``.

    Parameters
    ----------
    size : int
        Samples in the dataset.
    first_step, last_step : int
        Steps to hand out, ``last_step`` excluded.
    """

    def __init__(
        self, size: int, options: TrainingOptions, world: World, first_step: int, last_step: int
    ):
        self.size, self.world, self.seed = size, world, options.seed
        self.batch_size, self.accumulate = options.batch_size, options.accumulate
        self.share = micro_batch_size(options, world.size)
        self.steps = range(first_step, last_step)
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.steps) * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self.steps:
            for micro in range(self.accumulate):
                # micro-batches are dealt to the ranks in turn
                block = micro * self.world.size + self.world.rank
                first = step * self.batch_size + block * self.share
                yield [(self.index(draw), draw) for draw in range(first, first + self.share)]

    def index(self, draw: int) -> int:
        """Dataset index of a draw."""
        epoch, position = divmod(draw, self.size)
        if epoch != self._epoch:
            seeds = np.random.SeedSequence((self.seed, ORDER, epoch))
            self._order = np.random.default_rng(seeds).permutation(self.size)
            self._epoch = epoch
        return int(self._order[position])


def training_batches(
    dataset,
    options: TrainingOptions,
    world: World,
    first_step: int,
    collate: Callable | None = None,
) -> Iterator[list[dict]]:
    """For every step from ``first_step`` on, the list of this rank's micro-batches.

    Closing the iterator ends the loader's processes.
    """
    sampler = StepSampler(len(dataset), options, world, first_step, options.steps)
    batches = iter(_loader(dataset, sampler, options, world, collate))
    for _ in sampler.steps:
        yield [next(batches) for _ in range(options.accumulate)]


def validation_batches(
    dataset, options: TrainingOptions, world: World, collate: Callable | None = None
) -> Iterator[dict]:
    """Every sample once, keys ``(index, index)`` in order; batches lie on the device.

    With ``fast_dev_run`` only so many batches.
    """
    share = micro_batch_size(options, world.size)
    keys = [(i, i) for i in range(len(dataset))]
    if options.fast_dev_run:
        keys = keys[: options.fast_dev_run * share]
    batches = [keys[i : i + share] for i in range(0, len(keys), share)]
    for batch in _loader(dataset, batches, options, world, collate):
        yield to_device(batch, world.device)


def to_device(batch: dict, device: torch.device) -> dict:
    """The batch with its tensors on ``device``; anything else is kept."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }


def _loader(dataset, batch_sampler, options: TrainingOptions, world: World, collate):
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        num_workers=options.workers,
        collate_fn=collate,
        pin_memory=world.device.type == "cuda",
        worker_init_fn=_ignore_stop_signals,
        # its own generator: the loader would otherwise draw a seed from the global one
        generator=torch.Generator().manual_seed(options.seed),
    )


def _ignore_stop_signals(worker: int) -> None:
    # Schedulers and terminals signal the whole process group; the main process decides when
    # to stop and still needs its loaders until then. They end with it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
