"""The one error that a user can cause and correct."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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


def problem(where: str | PathLike[str], fact: str, remedy: str) -> str:
    """One problem line in the form of all messages: ``file: fact; remedy``."""
    return f"{where}: {fact}; {remedy}"


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
