"""The list of a folder: which files Cardiform made in it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ..errors import InputError, problem
from .earlier import earlier_files, is_earlier

LIST = ".cardiform"
TITLE = "# The files that Cardiform made in this folder; it writes over no other."
# A line of a list: the folder is of a version that kept none, and its files count as ours.
EARLIER = "# made by an earlier version"
GONE = "# deleted: "
LEVELS = 5  # so far above a file its list lies at most
_read: dict[Path, tuple[tuple[int, int], set[str]]] = {}  # lists as they were read last


def has_list(folder: Path) -> bool:
    return os.path.lexists(folder / LIST)


def check_list(folder: Path) -> None:
    """InputError where something else is in the place of a folder's list."""
    if has_list(folder):
        _names(folder)


def is_taken_over(folder: Path) -> bool:
    """Whether a folder with a list is of an earlier version."""
    return EARLIER in _names(folder)


def lists_of(path: Path) -> list[Path]:
    """The folders above ``path`` that list it."""
    above = [folder for folder in path.parents[:LEVELS] if has_list(folder)]
    return [folder for folder in above if _name(path, folder) in _names(folder)]


def put_on(path: Path, folder: Path) -> None:
    _append(folder, _name(path, folder))


def take_off(path: Path) -> None:
    """Note that a file is gone: what somebody else puts in its place is theirs."""
    for folder in lists_of(path):
        _append(folder, GONE + _name(path, folder))


def begin_list(folder: Path, maker: str) -> None:
    """Make the list of a folder, whole at once: of several jobs the first makes it.

    maker : script and options, for its head.
    """
    if has_list(folder):
        check_list(folder)
        return
    lines = [TITLE, *([f"# {maker}"] if maker else [])]
    lines += [EARLIER, *earlier_files(folder)] if is_earlier(folder) else []
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", dir=folder)
    try:
        with open(handle, "wb") as stream:
            stream.write("".join(f"{line}\n" for line in lines).encode())
        Path(name).chmod(0o664)
        try:
            os.link(name, folder / LIST)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            Path(name).replace(folder / LIST)
    finally:
        Path(name).unlink(missing_ok=True)


def _name(path: Path, folder: Path) -> str:
    """A path as a line of the folder's list."""
    return path.relative_to(folder).as_posix().replace("\n", "\\n")


def _append(folder: Path, line: str) -> None:
    """Add a line in one write, because jobs write at the same time."""
    handle = os.open(folder / LIST, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(handle, f"{line}\n".encode())
    finally:
        os.close(handle)


def _names(folder: Path) -> set[str]:
    """What is on the list of a folder; InputError where it is none."""
    path = folder / LIST
    if not path.is_file():
        raise InputError(_no_list(path))
    found = path.stat()
    state = (found.st_mtime_ns, found.st_size)
    if path not in _read or _read[path][0] != state:
        text = path.read_text(encoding="utf-8", errors="replace")
        if not text.startswith(TITLE):
            raise InputError(_no_list(path))
        names: set[str] = set()
        for line in text.splitlines():
            if line.startswith(GONE):
                names.discard(line.removeprefix(GONE))
            else:
                names.add(line)
        _read[path] = (state, names)
    return _read[path][1]


def _no_list(path: Path) -> str:
    fact = "is there already and is no list of Cardiform"
    return problem(path, fact, "choose another output folder, or move it away")
