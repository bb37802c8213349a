"""What the processes of a training share beside the files of the stages: made once, then mapped."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from ..errors import InputError
from ..files import save_npz, sha256_json
from .mapped import MappedNpz

log = logging.getLogger(__name__)

FOLDER = "shared"  # of a training
LOADERS = 4  # files that are opened or made at a time
KEY = "key"
LAYOUT = 1  # of what the datasets keep; with another one it is made again
Arrays = Mapping[str, np.ndarray]


class Source(Protocol):
    """A file of a case, and the hash of its content."""

    @property
    def case_id(self) -> str: ...

    @property
    def sha256(self) -> str: ...


S = TypeVar("S", bound=Source)


class Kept(Generic[S]):
    """Some arrays of each file: in this process's memory, or shared with all others.

    made : the arrays of a file.    folder : where they are shared; None: they are not.
    what : what beside the file decides them, plain values.
    """

    def __init__(
        self,
        files: Sequence[S],
        made: Callable[[S], dict[str, Any]],
        folder: Path | None = None,
        what: object = None,
    ):
        def one(file: S) -> MappedNpz | Arrays:
            if folder is None:
                return {name: np.asarray(array) for name, array in made(file).items()}
            key = sha256_json([file.case_id, file.sha256, what, LAYOUT])
            return shared_npz(folder / f"{file.case_id}.npz", key, lambda: made(file))

        self.cases = each_of_all(one, files)
        self.checked: set[int] = set()  # by this process

    def __len__(self) -> int:
        return len(self.cases)

    def arrays(self, index: int) -> Arrays:
        """The arrays of a file, read only where they are shared."""
        case = self.cases[index]
        return case.arrays if isinstance(case, MappedNpz) else case

    def check(self, index: int) -> None:
        """InputError where bytes of a file have changed, once for each process.

        Before a training this would read the whole cohort.
        """
        case = self.cases[index]
        if isinstance(case, MappedNpz) and index not in self.checked:
            case.check()
            self.checked.add(index)

    def __getitem__(self, index: int) -> Arrays:
        """The arrays of a file, checked."""
        self.check(index)
        return self.arrays(index)


def shared_npz(path: Path, key: str, make: Callable[[], Mapping[str, Any]]) -> MappedNpz:
    """The npz at ``path`` if it has this key; else it is made, and replaced when complete.

    key : hash of all that decides the arrays of ``make``, none of which is named "key".
    """
    if (found := _found(path, key)) is not None:
        return found
    try:
        save_npz(path, key=np.array(key), **make())
    except InputError:  # another node has made it, whose list of the folder is not seen here yet
        if (found := _found(path, key)) is None:
            raise
        return found
    return MappedNpz.open(path)


def _found(path: Path, key: str) -> MappedNpz | None:
    """The npz at ``path`` if it is sound and has this key."""
    if not path.exists():
        return None
    try:
        found = MappedNpz.open(path)
    except InputError as error:
        log.warning("%s: it is made again", "; ".join(error.problems))
        return None
    if KEY in found.arrays and str(found.arrays[KEY]) == key:
        return found
    log.info("%s is of other data or options: it is made again", path)
    return None


def each_of_all(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """``work`` of every item, in their order, several at a time.

    Every rank begins elsewhere: what the first one makes and stores, the others find.

    Raises
    ------
    InputError
        All problems of all items, in their order.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    first = rank * len(items) // size
    order = [*range(first, len(items)), *range(first)]
    found: dict[int, Any] = {}
    problems: dict[int, list[str]] = {}
    interrupted: list[int] = []
    with ThreadPoolExecutor(LOADERS) as pool:
        jobs = [pool.submit(work, items[i]) for i in order]
        done = tqdm(jobs, desc="opening cases", unit="case", disable=None, delay=2)
        for i, job in zip(order, done):
            try:
                found[i] = job.result()
            except InputError as error:
                problems[i] = error.problems
            except SystemError:  # CPython 3.11 fails at times where threads parse npy headers
                interrupted.append(i)
    for i in interrupted:  # one at a time
        try:
            found[i] = work(items[i])
        except InputError as error:
            problems[i] = error.problems
    if problems:
        raise InputError([line for i in sorted(problems) for line in problems[i]])
    return [found[i] for i in range(len(items))]
