"""The list of a folder: which files Cardiform made in it.

It is a folder of text files, one for each process that wrote: jobs on several machines write at the
same time, and a shared file system may lose lines that two of them add to one file.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError, problem
from .earlier import earlier_files, is_earlier

LIST = ".cardiform"
ABOUT = "about.txt"
TITLE = "# The files that Cardiform made in this folder; it writes over no other."
# A line of a list: the folder is of a version that kept none, and its files count as ours.
EARLIER = "# made by an earlier version"
GONE = "# deleted: "
AGAIN = "# made again by: "  # the script and its options, where others began the list
LEVELS = 5  # so far above a file its list lies at most


@dataclass
class _Names:
    """What was read of a list last.

    sizes : bytes of each of its files.    counts : name -> how often it was made, less how often
    it was deleted: so the order in which the files are read does not matter.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


_read: dict[Path, _Names] = {}
_noted: set[tuple[Path, str]] = set()  # folders and makers that this process has looked at


def has_list(folder: Path) -> bool:
    return os.path.lexists(folder / LIST)


def check_list(folder: Path) -> None:
    """InputError where something else is in the place of a folder's list."""
    if has_list(folder):
        _names(folder)


def is_taken_over(folder: Path) -> bool:
    """Whether a folder with a list is of an earlier version."""
    return _names(folder).counts[EARLIER] > 0


def lists_of(path: Path) -> list[Path]:
    """The folders above ``path`` that list it."""
    return [f for f in path.parents[:LEVELS] if has_list(f) and _is_on(_name(path, f), f)]


def put_on(path: Path, folder: Path) -> None:
    _append(folder, _name(path, folder))


def take_off(path: Path) -> None:
    """Note that a file is gone: what somebody else puts in its place is theirs."""
    for folder in lists_of(path):
        _append(folder, GONE + _name(path, folder))


def begin_list(folder: Path, maker: str) -> None:
    """Make the list of a folder, whole at once: of several jobs the first makes it.

    maker : script and options, for its head; other ones than last time are noted.
    """
    if has_list(folder):
        check_list(folder)
        if maker and (folder, maker) not in _noted:
            _noted.add((folder, maker))
            if maker_of(folder, maker.partition(" ")[0]) != maker:
                _append(folder, AGAIN + maker)
        return
    lines = [TITLE, *([f"# {maker}"] if maker else [])]
    lines += [EARLIER, *earlier_files(folder)] if is_earlier(folder) else []
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder))
    try:
        (made / ABOUT).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        made.chmod(0o775)
        made.rename(folder / LIST)
    except OSError:
        shutil.rmtree(made, ignore_errors=True)
        if not has_list(folder):
            raise


def maker_of(folder: Path, script: str) -> str:
    """A script and its options in the last of its runs that wrote to a folder; empty: none did."""
    place = folder / LIST
    if not (place / ABOUT).is_file():
        return ""
    for path in sorted(place.iterdir(), key=lambda p: p.stat().st_mtime_ns, reverse=True):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        started = [AGAIN, "# "] if path.name == ABOUT else [AGAIN]
        notes = [line.removeprefix(s) for line in lines for s in started if line.startswith(s)]
        if own := [line for line in notes if line.partition(" ")[0] == script]:
            return own[-1]
    return ""


def _name(path: Path, folder: Path) -> str:
    """A path as a line of the folder's list."""
    return path.relative_to(folder).as_posix().replace("\n", "\\n")


def _append(folder: Path, line: str) -> None:
    """Add a line to the file of this process, in one write."""
    own = folder / LIST / f"{platform.node()}-{os.getpid()}.txt"
    handle = os.open(own, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o664)
    try:
        os.write(handle, f"{line}\n".encode())
    finally:
        os.close(handle)


def _is_on(name: str, folder: Path) -> bool:
    """Whether a list has a name; it is read again where the name was not on it."""
    return _names(folder).counts[name] > 0


def _names(folder: Path) -> _Names:
    """What is on the list of a folder; InputError where it is none."""
    place = folder / LIST
    about = place / ABOUT
    try:
        with about.open(encoding="utf-8", errors="replace") as stream:
            if stream.readline().rstrip("\n") != TITLE:
                raise InputError(_no_list(place))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(_no_list(place)) from None
    found = _read.setdefault(place, _Names())
    with os.scandir(place) as entries:
        sizes = {entry.name: entry.stat().st_size for entry in entries}
    if found.sizes.keys() - sizes.keys() or any(sizes[n] < s for n, s in found.sizes.items()):
        found = _read[place] = _Names()  # another folder under the same name
    for name, size in sizes.items():
        if size > found.sizes.get(name, 0):
            _count(place / name, found)
    return found


def _count(path: Path, found: _Names) -> None:
    """Take in what was added to a file since it was read last; whole lines alone."""
    start = found.sizes.get(path.name, 0)
    with path.open("rb") as stream:
        stream.seek(start)
        added = stream.read()
    whole = added[: added.rfind(b"\n") + 1]
    found.sizes[path.name] = start + len(whole)
    for line in whole.decode("utf-8", errors="replace").splitlines():
        if line.startswith(GONE):
            found.counts[line.removeprefix(GONE)] -= 1
        else:
            found.counts[line] += 1


def _no_list(path: Path) -> str:
    fact = "is there already and is no list of Cardiform"
    return problem(path, fact, "choose another output folder, or move it away")
