"""Manifests: which files a stage made of which case, and their bytes (standard library only)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, problem, together
from ..formats import Format
from .table import OK, read_table, write_table

log = logging.getLogger(__name__)

MANIFEST_COLUMNS = ("case_id", "path", "bytes", "sha256", "status")
MANIFEST = Format("manifest", dict.fromkeys(MANIFEST_COLUMNS, "text"), marked=False)


@dataclass(frozen=True)
class MadeFile:
    """A file that a stage made of a case, and the hash of its content."""

    case_id: str
    path: Path
    sha256: str


def write_manifest(path: str | Path, rows: Iterable[Sequence]) -> None:
    """Write rows of :data:`MANIFEST_COLUMNS`, atomically."""
    write_table(path, MANIFEST_COLUMNS, rows)


def read_manifest(path: str | Path) -> list[dict[str, str]]:
    """The rows of a manifest: case_id, path, bytes, sha256, status.

    Raises
    ------
    InputError
        It is no manifest, or not a whole one.
    """
    header, rows = read_table(Path(path), whole=True)
    MANIFEST.check_header(path, header)
    return [row for _, row in rows]


def read_manifests(paths: Iterable[str | Path]) -> list[dict[str, str]]:
    """The rows of several manifests; all bad ones are reported."""
    parts = together(*(functools.partial(read_manifest, path) for path in paths))
    return [row for rows in parts for row in rows]


def made_files(
    manifests: Iterable[str | Path],
    case_ids: Iterable[str],
    ending: str,
    remedy: str = "run its stage again",
) -> list[MadeFile]:
    """The files of some cases, in the order of the cases, then of the paths.

    Cases that the manifests skip or filter have none. Of a path that is listed twice, the last
    row holds.

    ending : of the paths, ``.npz`` say; files that end otherwise are left out.
    remedy : what to do where a file is gone.

    Raises
    ------
    InputError
        A manifest is none, or damaged; a file is gone, or a case has two of the same name in
        different folders. All such files are listed.
    """
    listed: dict[str, dict[Path, MadeFile]] = {}
    for row in read_manifests(manifests):
        files = listed.setdefault(row["case_id"], {})
        if row["status"] == OK and row["path"].endswith(ending):
            path = Path(row["path"])
            files[path] = MadeFile(row["case_id"], path, row["sha256"])
    case_ids = list(case_ids)
    if unknown := [case_id for case_id in case_ids if case_id not in listed]:
        log.warning("left out, because no manifest lists them: %s", ", ".join(unknown))
    found = [
        file
        for case_id in case_ids
        for file in sorted(listed.get(case_id, {}).values(), key=lambda f: str(f.path))
    ]
    if problems := [*_gone(found, remedy), *_ambiguous(found)]:
        raise InputError(problems)
    return found


def listed_in(folder: Path, ending: str) -> frozenset[str] | None:
    """The cases whose ``<case><ending>`` a folder's own manifests list; None: it has no manifest.

    Other such files are older: the last run of their stage did not make them.

    Raises
    ------
    InputError
        A manifest is none, or damaged.
    """
    beside = (folder / "manifest.tsv", *sorted(folder.glob("manifest/*.tsv")))
    manifests = [path for path in beside if path.is_file()]
    if not manifests:
        return None
    return frozenset(
        row["case_id"]
        for row in read_manifests(manifests)
        if row["status"] == OK and Path(row["path"]).name == row["case_id"] + ending
    )


def cases_of(files: Iterable[MadeFile]) -> list[str]:
    """The cases of some files, each once, in order."""
    return list(dict.fromkeys(file.case_id for file in files))


def _gone(files: Iterable[MadeFile], remedy: str) -> list[str]:
    return [problem(f.path, "does not exist", remedy) for f in files if not f.path.is_file()]


def _ambiguous(files: Iterable[MadeFile]) -> list[str]:
    """Problems of files of one case and name in different folders: which one is meant?"""
    first: dict[tuple[str, str], Path] = {}
    problems = []
    for file in files:
        other = first.setdefault((file.case_id, file.path.name), file.path)
        if other != file.path:
            fact = f"is listed as a file of {file.case_id} beside {other}"
            problems.append(problem(file.path, fact, "give the manifests of one of the folders"))
    return problems
