"""Bundles: the models of a results folder with all that is needed to use them, to hand on.

A bundle is a folder or a zip with the layout of a results folder (layout.py). ``bundle.json``
lists every file with its sha256. Whatever is not as that list says is refused, and nothing in a
bundle can run code. README.md, which its owner fills in, is the one file without a checksum.
"""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError, first_line, problem
from ..files import load_npz, os_problem, read_json, sha256_file, write_json
from ..formats import VERSION, Format
from .tensor_files import is_tensor_file

LIST = "bundle.json"
CARD = "README.md"
MODEL = "model.safetensors"
REMEDY = "get the bundle again from where it came"
BUNDLE = Format(
    "bundle",
    {
        "format_version": "integer",
        "name": "text",
        "models": "object",
        "models.*.kind": "text",
        "models.*.cases": "integer",
        "labels": "object (C)",
        "labels.*.value": "integer",
        "labels.*.name": "text",
        "labels.*.title": "text",
        "labels.*.color": "text",
        "labels.*.components": "integer",
        "labels.*.priority": "integer",
        "frame": "object",
        "example": "text (E)",
        "versions": "object",
        "files": "object",
        "files.*.bytes": "integer",
        "files.*.sha256": "text",
    },
    REMEDY,
)
ENDINGS = (".safetensors", ".json", ".nii.gz", ".npz")  # of files that a bundle may list
PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".npy")
LONGEST_TEXT = 16 << 20  # bytes of bundle.json and of README.md
ANY_DATE = (1980, 1, 1, 0, 0, 0)  # the same bundle is the same zip, whenever it is packed
BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)


def finish_bundle(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the list of a folder's files, which makes a bundle of it.

    about : the keys of :data:`BUNDLE` but ``format_version`` and ``files``.
    """
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
        for name in sorted(_names_below(folder))
        if name not in (LIST, CARD)
    }
    write_json(folder / LIST, {VERSION: BUNDLE.version, **about, "files": files})


def check_bundle(folder: Path) -> dict[str, Any]:
    """What ``bundle.json`` says of a bundle whose files are all as it says.

    Raises
    ------
    InputError
        A line for each file that is missing, changed, not listed, a link, or could run code.
    """
    about = _listed(folder / LIST)
    problems = [line for name in about["files"] if (line := _name_problem(folder, name))]
    if not problems:
        for name, entry in about["files"].items():
            problems += _file_problems(folder / name, entry)
        problems += _not_listed(folder, about["files"])
        problems += _models_not_listed(folder / LIST, about)
    if problems:
        raise InputError(problems)
    return about


def is_bundle(path: Path) -> bool:
    """Whether a folder or a zip has a list of files as bundles have."""
    if path.is_dir():
        return (path / LIST).is_file()
    try:
        with zipfile.ZipFile(path) as archive:
            return LIST in archive.namelist()
    except BAD_ZIP:
        return False


def pack(folder: Path, path: Path) -> None:
    """Write a bundle's folder to a zip, which is the same bytes every time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(_names_below(folder), key=lambda name: (name != LIST, name)):
            info = zipfile.ZipInfo(name, ANY_DATE)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            with (folder / name).open("rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def unpack(path: Path, folder: Path) -> None:
    """Write the files of a bundle's zip below an empty folder: those on its list, at their size.

    Raises
    ------
    InputError
        It is no zip, or damaged; an entry is a link, encrypted, leads out of the folder, is there
        twice, is on no list, or has another size than listed; the disk has no room.
    """
    with _archive(path) as archive:
        entries = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        _refuse(path, _entry_problems(archive.infolist()))
        if LIST not in entries:
            raise InputError(problem(path, f"is no bundle (no {LIST})", "give a zip of one"))
        sizes = {LIST: entries[LIST].file_size}
        _refuse(path, _too_long(sizes))
        _copy(archive, entries[LIST], folder / LIST)
        about = _listed(folder / LIST)
        sizes |= {name: entry["bytes"] for name, entry in about["files"].items()}
        if CARD in entries:
            sizes[CARD] = entries[CARD].file_size
        facts = [f"{_shown(n)} is on no list" for n in entries if n not in sizes]
        facts += [f"{_shown(n)} is missing" for n in sizes if n not in entries]
        facts += [
            f"{_shown(n)} has {entries[n].file_size:,} bytes, {size:,} are listed"
            for n, size in sizes.items()
            if n in entries and entries[n].file_size != size
        ]
        _refuse(path, facts + _too_long({CARD: sizes.get(CARD, 0)}))
        _check_room(path, sum(sizes.values()), folder)
        for name in sizes:
            _copy(archive, entries[name], folder / name)


def copy_bundle(source: Path, folder: Path) -> None:
    """Copy the listed files of a checked bundle's folder, its list and its card."""
    names = [*read_json(source / LIST)["files"], LIST]
    names += [CARD] if (source / CARD).is_file() and not (source / CARD).is_symlink() else []
    _check_room(source, sum((source / name).stat().st_size for name in names), folder)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)


def _listed(path: Path) -> dict[str, Any]:
    """A bundle.json whose layout is right."""
    if not path.is_file() or path.is_symlink():
        remedy = "give the folder or zip that export_models wrote"
        raise InputError(problem(path.parent, f"is no bundle (no {LIST})", remedy))
    if path.stat().st_size > LONGEST_TEXT:
        raise InputError(problem(path, f"is longer than {LONGEST_TEXT:,} bytes", REMEDY))
    try:
        content = read_json(path, REMEDY)
    except RecursionError:
        raise InputError(problem(path, "is no list of a bundle (too deep)", REMEDY)) from None
    BUNDLE.check(path, content)
    wrong = [key for key in ("models", "files") if not isinstance(content[key], dict)]
    wrong += [name for name, entry in content["files"].items() if entry["bytes"] < 0]
    if wrong:
        fact = f"is no list of a bundle ({_shown(wrong[0])})"
        raise InputError(problem(path, fact, REMEDY))
    return content


def _name_problem(folder: Path, name: str) -> str:
    """Why a listed name is refused; empty: it is not."""
    if not _is_safe(name):
        return problem(folder / LIST, f"lists {_shown(name)}, which leads out of it", REMEDY)
    if name.lower().endswith(PICKLED):
        return problem(folder / name, "could run code: it may be pickled", REMEDY)
    if not name.endswith(ENDINGS):
        fact = f"is none of the files that a bundle has ({', '.join(ENDINGS)})"
        return problem(folder / _shown(name), fact, REMEDY)
    return ""


def _is_safe(name: str) -> bool:
    """Whether a name stays below the folder that it is joined to, on any system."""
    parts = name.split("/")
    odd = {"", ".", ".."} & set(parts)
    return not odd and "\\" not in name and ":" not in name and name.isprintable()


def _file_problems(path: Path, entry: Mapping[str, Any]) -> list[str]:
    """Why a listed file is refused, at most one line."""
    unlike = path.suffix == ".safetensors"
    checks = (
        (lambda: path.is_symlink() or path.parent.is_symlink(), "is a link"),
        (lambda: not path.is_file(), "is missing"),
        (lambda: path.stat().st_size != entry["bytes"], "has another size than listed"),
        (lambda: sha256_file(path) != entry["sha256"], "was changed (its sha256 is another)"),
        (lambda: unlike and not is_tensor_file(path), "is no safetensors: it could run code"),
    )
    facts = (fact for found, fact in checks if found())
    fact = next(facts, "")
    if fact:
        return [problem(path, fact, REMEDY)]
    try:
        if path.suffix == ".npz":
            load_npz(path, REMEDY)
    except InputError as error:  # pickled arrays, say
        return error.problems
    return []


def _not_listed(folder: Path, files: Iterable[str]) -> list[str]:
    """Lines about what is in a bundle and on no list; hidden files of its top are passed over."""
    known = {*files, LIST, CARD}
    return [
        problem(folder / _shown(name), "is on no list of the bundle", "take it away")
        for name in sorted(_names_below(folder))
        if name not in known and not name.startswith(".")
    ]


def _models_not_listed(path: Path, about: Mapping[str, Any]) -> list[str]:
    missing = [place for place in about["models"] if f"{place}/{MODEL}" not in about["files"]]
    return [problem(path, f"lists no file of the model {_shown(p)}", REMEDY) for p in missing]


def _names_below(folder: Path) -> Iterator[str]:
    """Relative names of all that is no folder; links are not followed."""
    for top, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(top, name))]
        for name in (*files, *links):
            yield PurePosixPath(os.path.relpath(os.path.join(top, name), folder)).as_posix()


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip to read; whatever is wrong with it is an InputError."""
    if not path.is_file():
        raise InputError(problem(path, "does not exist", "correct the path"))
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except BAD_ZIP as error:
        if os_problem(error, str(path)):  # a full disk, say
            raise
        fact = f"is no zip, or is damaged ({first_line(error)})"
        raise InputError(problem(path, fact, REMEDY)) from error


def _entry_problems(infos: Iterable[zipfile.ZipInfo]) -> list[str]:
    """What is wrong with the entries of a zip, whatever is in them."""
    facts, seen = [], set()
    for info in infos:
        name, kind = info.filename, stat.S_IFMT(info.external_attr >> 16)
        if not _is_safe(name.rstrip("/")):
            facts.append(f"{_shown(name)} leads out of it")
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            facts.append(f"{_shown(name)} is a link")
        elif info.flag_bits & 1:
            facts.append(f"{_shown(name)} is encrypted")
        elif name.casefold() in seen:
            facts.append(f"{_shown(name)} is there twice")
        seen.add(name.casefold())
    return facts


def _refuse(path: Path, facts: Iterable[str]) -> None:
    if lines := [problem(path, fact, REMEDY) for fact in facts]:
        raise InputError(lines)


def _too_long(sizes: Mapping[str, int]) -> list[str]:
    return [
        f"{n} is longer than {LONGEST_TEXT:,} bytes" for n, s in sizes.items() if s > LONGEST_TEXT
    ]


def _check_room(path: Path, needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        fact = f"holds {needed:,} bytes, the disk has {free:,}"
        raise InputError(problem(path, fact, "make room, or name another --out"))


def _copy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    """Write an entry, and no more of it than it said; what is cut is no longer its checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left = info.file_size
    with archive.open(info) as source, path.open("wb") as target:
        while left > 0 and (part := source.read(min(left, 1 << 20))):
            target.write(part)
            left -= len(part)


def _shown(name: str) -> str:
    """A name of a stranger's, for a message on one line."""
    return name[:100] if name.isprintable() else repr(name)[:100]
