"""Which sample comes when: the same for any number of ranks, micro-batches and workers."""

from __future__ import annotations

import functools
import itertools
import multiprocessing.connection
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from ..errors import NO_SHARING, SHARED_MEMORY, InputError, files_fact, first_line, problem
from ..options.training import TrainingOptions
from .distributed import World

# Words that keep the streams of one seed apart (see seed_everything).
ORDER, STEP, AFTER_STEP, VALIDATION = range(4)
FILES_BESIDE, FILES_OF_WORKER = 16, 8  # so many a training opens at least, beside what is open
SHARED_OF_WORKER = 1 << 17  # bytes of shared memory, without its batches
PACKING_WINDOW = 256  # samples among which those are sought that fill a batch together


def seed_everything(*words: int) -> None:
    """Seed Python, numpy and torch (all devices) from non-negative integers.

    The engine calls this with (seed, stream, step, update, place of the micro-batch in the step)
    before every micro-batch, so the state of every generator follows from there and needs no
    place in a checkpoint.
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
            f"{options.accumulate} micro-batches; change --batch-size or --accumulate, or start "
            "fewer ranks"
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


class BudgetSampler:
    """The same for samples of unequal cost: a micro-batch never costs more than the budget.

    Every epoch the seeded permutation is cut into windows, and each is packed into batches, full
    ones wherever that can be. Batches of about the same cost make a step together, so that no rank
    waits for another, and the steps are shuffled; a step deals its batches to micro-batches and
    ranks in turn. Which batches a step gets follows from its number.

    Parameters
    ----------
    costs : (size,) int
        Cost of each sample, none above ``budget``.
    """

    def __init__(
        self,
        costs: np.ndarray,
        budget: int,
        options: TrainingOptions,
        world: World,
        first_step: int,
        last_step: int,
    ):
        self.costs, self.budget, self.world, self.seed = costs, budget, world, options.seed
        self.accumulate = options.accumulate
        self.share = micro_batch_size(options, world.size)
        self.steps = range(first_step, last_step)

    def __len__(self) -> int:
        return len(self.steps) * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batches in itertools.islice(self.dealt(), self.steps.start, self.steps.stop):
            yield from batches[self.world.rank :: self.world.size]

    def dealt(self) -> Iterator[list[list[tuple[int, int]]]]:
        """The batches of every step, of all ranks, from the first step on, without end."""
        count = self.accumulate * self.world.size
        left: list[list[tuple[int, int]]] = []
        for epoch in itertools.count():
            batches = left + self.epoch(epoch)
            steps = [batches[i : i + count] for i in range(0, len(batches), count)]
            left = steps.pop() if len(steps[-1]) < count else []
            seeds = np.random.SeedSequence((self.seed, ORDER, epoch, 1))
            for number in np.random.default_rng(seeds).permutation(len(steps)):
                yield steps[number]

    def epoch(self, epoch: int) -> list[list[tuple[int, int]]]:
        """The batches of an epoch, as (index, draw), the cheapest first."""
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, ORDER, epoch)))
        order = rng.permutation(len(self.costs))
        windows = np.array_split(order, range(PACKING_WINDOW, len(order), PACKING_WINDOW))
        batches = [b for w in windows for b in packed(w, self.costs, self.budget, self.share)]
        batches.sort(key=lambda batch: self.costs[batch].sum())
        numbered = itertools.count(epoch * len(order))
        return [[(index, next(numbered)) for index in batch] for batch in batches]


def packed(window, costs: np.ndarray, budget: int, most: int) -> list[list[int]]:
    """Samples in batches that cost up to ``budget``, up to ``most`` in each: every sample goes into
    the first that has room.

    In the order of the window: the dearest first would fill a few more, but a small cohort would
    get the same batches in every epoch.
    """
    batches: list[list[int]] = []
    room = np.zeros(len(window), np.int64)
    for index in map(int, window):
        place = int(np.argmax(room[: len(batches)] >= costs[index])) if batches else 0
        if not batches or room[place] < costs[index]:
            place = len(batches)
            batches.append([])
            room[place] = budget
        batches[place].append(index)
        room[place] = room[place] - costs[index] if len(batches[place]) < most else -1
    return batches


def filled(order, costs: np.ndarray, budget: int, most: int) -> list[list[int]]:
    """``order`` cut into batches that cost up to ``budget`` and have up to ``most`` samples."""
    batches: list[list[int]] = []
    spent = 0
    for index in map(int, order):
        cost = int(costs[index])
        if not batches or len(batches[-1]) == most or spent + cost > budget:
            batches.append([])
            spent = 0
        batches[-1].append(index)
        spent += cost
    return batches


def training_batches(
    dataset,
    options: TrainingOptions,
    world: World,
    first_step: int,
    collate: Callable | None = None,
) -> Generator[list[Any], None, None]:
    """For every step from ``first_step`` on, the list of this rank's micro-batches.

    A dataset with ``costs`` and ``budget`` is dealt out by a :class:`BudgetSampler`. Closing
    the iterator ends the loader's processes.
    """
    span = (options, world, first_step, options.last_step)
    if hasattr(dataset, "budget"):
        sampler: StepSampler | BudgetSampler = BudgetSampler(dataset.costs, dataset.budget, *span)
    else:
        sampler = StepSampler(len(dataset), *span)
    with _started(_loader(dataset, sampler, options, world, collate)) as batches:
        for _ in sampler.steps:
            yield [_sound(next(batches)) for _ in range(options.accumulate)]


def validation_batches(
    dataset, options: TrainingOptions, world: World, collate: Callable | None = None
) -> Iterator[Any]:
    """Every sample once, keys ``(index, index)`` in order; batches lie on the device.

    With ``fast_dev_run`` only so many batches.
    """
    share = micro_batch_size(options, world.size)
    costs = getattr(dataset, "costs", np.zeros(len(dataset), dtype=np.int64))
    dealt = filled(range(len(dataset)), costs, getattr(dataset, "budget", 0), share)
    if options.fast_dev_run:
        dealt = dealt[: options.fast_dev_run]
    keys = [[(i, i) for i in batch] for batch in dealt]
    with _started(_loader(dataset, keys, options, world, collate)) as batches:
        for batch in batches:
            yield to_device(_sound(batch), world.device)


def to_device(batch: dict, device: torch.device) -> dict:
    """The batch with its tensors on ``device``; anything else is kept."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }


class _ErrorsAsSamples(Dataset):
    """A dataset whose bad input comes as a sample: a loader process would wrap the error into
    its traceback."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Any:
        try:
            return self.dataset[key]
        except InputError as error:
            return error


def _batch_or_error(collate: Callable, samples: list) -> Any:
    """The batch, or the first error among its samples."""
    return next((s for s in samples if isinstance(s, InputError)), None) or collate(samples)


def _sound(batch: dict | InputError) -> dict:
    if isinstance(batch, InputError):
        raise batch
    return batch


def check_machine(workers: int) -> None:
    """InputError where so many loader processes cannot run: they would end amid the training.

    Each keeps some files open, and passes its batches through the shared memory.
    """
    if not workers:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len(os.listdir("/proc/self/fd")) + FILES_BESIDE + FILES_OF_WORKER * workers
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            fact, remedy = files_fact(soft)
            raise InputError(problem("workers", f"{fact}, {workers} need about {needed}", remedy))
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    if not os.access(SHARED_MEMORY, os.W_OK):
        raise InputError(problem(SHARED_MEMORY, "cannot be written", NO_SHARING))
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < SHARED_OF_WORKER * workers:
        fact = f"has {free:,} bytes, too few for {workers} loader processes"
        raise InputError(problem(SHARED_MEMORY, fact, NO_SHARING))


def _loader(dataset, batch_sampler, options: TrainingOptions, world: World, collate):
    check_machine(options.workers)
    return DataLoader(
        _ErrorsAsSamples(dataset),
        batch_sampler=batch_sampler,
        num_workers=options.workers,
        collate_fn=functools.partial(_batch_or_error, collate or default_collate),
        pin_memory=world.device.type == "cuda",
        worker_init_fn=_ignore_stop_signals,
        # forked loaders have the dataset without a copy of it
        multiprocessing_context="fork" if options.workers else None,
        # its own generator: the loader would otherwise draw a seed from the global one
        generator=torch.Generator().manual_seed(options.seed),
    )


@contextmanager
def _started(loader: DataLoader) -> Iterator[Iterator]:
    """The loader's iterator, whose processes end with the block.

    An error's traceback keeps the iterator alive, and Python would wait for its processes at
    exit, forever: they ignore the signal by which it ends them. A process that is killed while
    it hands over a batch breaks a connection; that is the same error as a killed one found later.
    """
    batches = iter(loader)
    try:
        yield batches
    except (ConnectionError, EOFError) as error:
        if not _one_ended(batches):
            raise
        text = first_line(error)
        raise RuntimeError(f"DataLoader worker ended while it passed a batch: {text}") from error
    finally:
        if hasattr(batches, "_shutdown_workers"):
            batches._shutdown_workers()


def _one_ended(batches: Iterator) -> bool:
    """Whether a loader process has ended; a killed one closes its files shortly before it has."""
    sentinels = [process.sentinel for process in getattr(batches, "_workers", ())]
    return bool(sentinels and multiprocessing.connection.wait(sentinels, timeout=1))


def _ignore_stop_signals(worker: int) -> None:
    # Schedulers and terminals signal the whole process group; the main process decides when
    # to stop and still needs its loaders until then. They end with it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
