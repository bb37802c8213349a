"""The one error that a user can cause and correct."""

from __future__ import annotations

import os
import resource
import traceback
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import Any


class InputError(Exception):
    """Bad input: one line per problem, each naming the file, the fact and the remedy.

    Scripts print the lines without a traceback and leave with exit code 2
    (:func:`cardiform.cli.run`).

    Parameters
    ----------
    problems : str or iterable of str
        ``"<file>: <what is wrong>; <what to do>"``, one string per problem.
    """

    def __init__(self, problems: str | Iterable[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self):
        # The default would rebuild the error from the joined text and lose the list
        # when it crosses a process pool.
        return (type(self), (self.problems,))


# File that the command line names -> its option. What finds a file unfit knows its path alone.
_options: dict[str, str] = {}


def name_options(groups: Iterable[Mapping[str, object]]) -> None:
    """Let messages about files say which option of the command line named them.

    groups : name -> value or list of values; what was said before is forgotten.
    """
    _options.clear()
    for group in groups:
        for name, value in group.items():
            for word in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(word, (str, PathLike)) and str(word):
                    _options.setdefault(str(word), "--" + name.replace("_", "-"))


def problem(where: str | PathLike[str], fact: str, remedy: str) -> str:
    """One problem line in the form of all messages: ``file: fact; remedy``.

    A file that the command line names may be the user's own: nobody is advised to delete it, but
    to correct the option.
    """
    path = str(where)
    if remedy.startswith("correct the path") and _names_home(path):
        return f"{path}: {fact}; write your home folder in full: ~ stands for it in a shell alone"
    option = _options.get(path) or _options.get(path.rpartition(":")[0])
    if option and "delete it" in remedy:
        remedy = f"correct {option}; a result of Snakemake is made again once it is moved away"
    elif option and remedy.startswith("correct the path"):
        remedy = f"correct {option}"
    elif option and remedy.startswith("give the "):
        remedy = f"correct {option}: {remedy}"
    return f"{path}: {fact}; {remedy}"


def _names_home(path: str) -> bool:
    """Whether ``~`` or ``~somebody`` in a path means a home folder: it is one of the folders of the
    path, and none here has that name. Files may have such names (``~$cohort.tsv``)."""
    parts = path.split("/")
    folders = [n for n, part in enumerate(parts[:-1], start=1) if part.startswith("~")]
    return parts[-1] == "~" or any(not os.path.exists("/".join(parts[:n])) for n in folders)


def together(*steps: Callable[[], Any]) -> list[Any]:
    """What the steps return; the problems of all of them are reported in one InputError."""
    results, problems = [], []
    for step in steps:
        try:
            results.append(step())
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return results


def again(*rules: str) -> str:
    """The remedy for a file that a per-case rule made: no declared output, so that Snakemake
    does not miss it by itself."""
    named = " ".join(rules)
    return f"run {' or '.join(rules)} again (snakemake --forcerun {named}): sound files are kept"


def first_line(error: BaseException) -> str:
    """What an error says, on one line; its name where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


SHARED_MEMORY = "/dev/shm"  # where processes pass arrays, and their semaphores lie
NO_SHARING = "set workers: 0 (--workers 0) or --processes 1, or have it made larger and writable"


def files_fact(limit: int) -> tuple[str, str]:
    """Fact and remedy where a process may open no more files.    limit : how many it may."""
    remedy = "raise the limit before the command (ulimit -n 4096), or set fewer workers"
    return f"no more than {limit} files may be open at once", remedy


def limit_fact(error: BaseException) -> tuple[str, str] | None:
    """Which limit of the machine an error is about, as fact and remedy; None for any other.

    Open files, and the shared memory of processes. What loader processes meet arrives as text.
    """
    text = str(error)
    if "Too many open files" in text or "received 0 items of ancdata" in text:
        return files_fact(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    words = ("shared memory", "Bus error", "</torch_", SHARED_MEMORY)
    said = isinstance(error, (RuntimeError, OSError)) and any(word in text for word in words)
    if said or _of_semaphore(error):
        fact = f"the shared memory {SHARED_MEMORY} is full or cannot be used ({first_line(error)})"
        return fact, NO_SHARING
    return None


def _of_semaphore(error: BaseException) -> bool:
    """Whether a pool of processes could not be made; such errors name no file."""
    if not isinstance(error, OSError) or error.filename:
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.endswith("multiprocessing/synchronize.py")


def memory_fact(error: BaseException) -> str:
    """What ran out of memory, if ``error`` says so; empty for any other error.

    torch is no part of the base modules: its errors are known by their names and words.
    """
    text = (str(error).splitlines() or [""])[0]
    cuda = ("CUDA" in text and "out of memory" in text) or "CUBLAS_STATUS_ALLOC_FAILED" in text
    if type(error).__name__ == "OutOfMemoryError" or (cuda and isinstance(error, RuntimeError)):
        return f"the memory of the GPU is exhausted ({text})"
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return f"a loader process was killed, most likely for want of memory ({text})"
    allocator = isinstance(error, RuntimeError) and "can't allocate memory" in text
    if isinstance(error, MemoryError) or allocator:
        return f"the memory is exhausted ({text or 'no more was given'})"
    return ""
