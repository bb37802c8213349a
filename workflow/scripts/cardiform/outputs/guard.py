"""Where this process writes, and which files there are ours.

A folder of outputs has a list of the files that were written below it. A file that is there and
on no list is somebody else's: it is not written over, moved or deleted.
"""

from __future__ import annotations

import fnmatch
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError, problem
from .earlier import is_earlier, is_page, is_record, manifest_paths
from .lists import begin_list, check_list, has_list, is_taken_over, lists_of, put_on, take_off

MOVE = "choose another output, or move it away"


@dataclass
class Places:
    """folders : everything below is guarded.    files : outputs beside these.
    inputs : device and number of the files that are read, and therefore never written.
    maker : script and options, for the head of a list.
    """

    folders: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    inputs: set[tuple[int, int]] = field(default_factory=set)
    maker: str = ""


# What writes a file knows its path alone, wherever in the library it is. Who knows the places (the
# command line) registers them here; a pool hands them to its processes. Where nothing is
# registered (a function is called from a notebook, say) nothing is checked.
HERE = Places()
_entering = threading.RLock()  # threads write, too


def register(places: Places) -> None:
    """From now on the outputs are these; a new :class:`Places` ends all guarding."""
    HERE.__dict__.update(vars(places))


def register_command(groups: Sequence[Mapping], out_is_file: bool, maker: str = "") -> None:
    """Register the outputs of a command line, and every file that it names beside them.

    groups : name -> value of its arguments, then of each class of options. Of the arguments
        --out is written, so are --manifest, --metrics and --left-over where they are paths
        (manifests that are read are texts). A script with --force looks after its files itself.
    maker : script and options.

    Raises
    ------
    InputError
        A place cannot be written to, or a file that is not ours would be written over.
    """
    named, *options = map(dict, groups)
    by_hand = "force" in named
    written = ("manifest", "metrics", "left_over")
    files = [named.pop(name) for name in written if isinstance(named.get(name), Path)]
    out = [named.pop("out")] if named.get("out") else []
    values = [v for group in (named, *options) for k, v in group.items() if k != "resume_from"]
    words = [w for value in values for w in (value if isinstance(value, list) else [value])]
    folders = [] if out_is_file else [absolute(path) for path in out]
    files = [] if by_hand else files + (out if out_is_file else [])
    register(Places(folders, [absolute(path) for path in files], maker=maker))
    protect(word for word in words if word and isinstance(word, (str, Path)))
    problems = [line for folder in folders if (line := _no_folder(folder))]
    if not problems:
        for folder in folders:
            check_list(folder)
        problems = problems_of(HERE.files)
    if problems:
        raise InputError(problems)


def protect(inputs: Iterable[str | Path]) -> None:
    """Add files that are read to those that are never written; what is no file is left out."""
    HERE.inputs |= {found for path in inputs if (found := _identity(path)) is not None}


@contextmanager
def reading() -> Iterator[None]:
    """What :func:`protect` is given within the block is forgotten after it."""
    before = set(HERE.inputs)
    try:
        yield
    finally:
        HERE.inputs = before


def problems_of(paths: Iterable[Path]) -> list[str]:
    """Why some outputs cannot be written, a line each: known before anything is computed."""
    return list(dict.fromkeys(line for path in paths if (line := _refusal(absolute(path)))))


def enter(path: str | Path) -> None:
    """Before ``path`` is written: put it on its folder's list.

    Raises
    ------
    InputError
        A file of somebody else's is there, or the path is an input.
    """
    with _entering:
        if line := _refusal(absolute(path)):
            raise InputError(line)
        enlist(path)


def enlist(path: str | Path) -> None:
    """Put a file on its folder's list."""
    path = absolute(path)
    root = _root(path)
    if root is not None:
        begin_list(root, HERE.maker)
        if not lists_of(path):
            put_on(path, root)


def is_ours(path: str | Path) -> bool:
    """Whether a file may be written over; so may every file where nothing is registered."""
    path = absolute(path)
    root = _root(path)
    if root is None:
        return path not in HERE.files or _is_ours_by_content(path)
    if lists_of(path):
        return True
    return is_taken_over(root) if has_list(root) else is_earlier(root)


def is_listed(path: str | Path, known: str = "*") -> bool:
    """Whether a file may be moved or deleted: it is on a list.

    known : pattern of the names of such files, which decides where nothing is registered.
    """
    path = absolute(path)
    root = _root(path)
    if root is None:
        return path not in HERE.files and fnmatch.fnmatch(path.name, known)
    begin_list(root, HERE.maker)
    return bool(lists_of(path))


def is_above(path: str | Path) -> bool:
    """Whether ``path`` is a registered folder, or one in which registered outputs lie."""
    above = {folder for file in HERE.files for folder in file.parents}
    above |= {folder for out in HERE.folders for folder in (out, *out.parents)}
    return bool(path) and absolute(path) in above


def remove(path: Path, known: str = "*") -> None:
    """Delete our files at or below ``path``, and the folders that held nothing else.

    known : see :func:`is_listed`.
    """
    for file in _files_below(path):
        if is_listed(file, known):
            file.unlink()
            _gone(file, path)


def move(source: Path, target: Path, known: str = "*") -> None:
    """Move our files at or below ``source``; at once where all of them are ours.

    known : see :func:`is_listed`.
    """
    files = _files_below(source)
    moved = {file: target / file.relative_to(source) for file in files if is_listed(file, known)}
    for new in moved.values():
        enter(new)
    if moved and len(moved) == len(files) and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    for file, new in moved.items():
        if file.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            file.rename(new)
        _gone(file, source)


def absolute(path: str | Path) -> Path:
    """Without ``..``; links stay links."""
    return Path(os.path.abspath(path))


def _root(path: Path) -> Path | None:
    """The innermost registered folder above ``path``."""
    return next((folder for folder in path.parents if folder in HERE.folders), None)


def _refusal(path: Path) -> str:
    """Why ``path`` is not written; empty: it is."""
    if path.is_dir():
        return problem(path, "is a folder, not a file", MOVE)
    if path.exists() and not path.is_file():
        return problem(path, "is no regular file", MOVE)
    above = next(folder for folder in path.parents if os.path.lexists(folder))
    if not above.is_dir():
        return problem(above, "is a file where a folder is needed", MOVE)
    if _identity(path) in HERE.inputs:
        return problem(path, "is an input of this call", "choose another output")
    if os.path.lexists(path) and not is_ours(path):
        return problem(path, "is there already and was not made by this script", MOVE)
    return ""


def _is_ours_by_content(path: Path) -> bool:
    """Whether an output beside the folders is a page, figures, or a list of files in these."""
    if path.suffix == ".html":
        return is_page(path)
    if path.suffix == ".json":
        return is_record(path)
    listed = manifest_paths(path)
    if listed is None:
        return False
    return all(_root(absolute(other)) is not None for other in listed)


def _no_folder(folder: Path) -> str:
    """Why nothing can be written to a folder; empty: it can."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not there.is_dir():
        fact = "is a file, not a folder" if there.exists() else "is a link that leads nowhere"
        return problem(there, fact, "correct --out")
    if not os.access(there, os.W_OK | os.X_OK):
        read_only = os.statvfs(there).f_flag & os.ST_RDONLY
        fact = "Read-only file system" if read_only else "Permission denied"
        remedy = "choose a folder that you may write to"
        return problem(folder, f"could not be written ({fact})", remedy)
    return ""


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Device and number of a file, which are the same by whatever path it is reached."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _files_below(path: Path) -> list[Path]:
    if path.is_dir() and not path.is_symlink():
        return sorted(p for p in path.rglob("*") if p.is_symlink() or not p.is_dir())
    return [path] if os.path.lexists(path) else []


def _gone(file: Path, top: Path) -> None:
    """Take a file off its list, and delete the folders up to ``top`` that it leaves empty."""
    file = absolute(file)
    if _root(file) is not None:
        take_off(file)
    folder, top = file.parent, absolute(top)
    while (folder == top or top in folder.parents) and folder.is_dir():
        if any(folder.iterdir()):
            break
        folder.rmdir()
        folder = folder.parent
