"""The one error a user can cause and mend."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike


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
    """One problem line in the house form: ``file: fact; remedy``."""
    return f"{where}: {fact}; {remedy}"
