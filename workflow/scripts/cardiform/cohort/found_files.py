"""Files of a cohort found in folders, by patterns or by their usual names (standard library only).

A pattern is a path with named parts: ``scans/{patient}/{case}.label.nii.gz``. A name stands for
any characters but a slash, and for the same ones wherever it is repeated; ``*`` and ``?`` stand
for any characters of one name, ``**`` for any folders. A folder is a pattern, too: of all files
below it that have the usual endings, called by their names.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, problem

log = logging.getLogger(__name__)

CASE, PATIENT = "case", "patient"
NIFTI = (".nii.gz", ".nii", ".mgz", ".mgh", ".hdr", ".hdr.gz")
MESHES = (".ply", ".stl", ".obj")
ENDINGS = {
    "labels": NIFTI,
    "image": NIFTI,
    "truth": NIFTI,
    "pointcloud": (".h5", ".hdf5"),
    "meshes": MESHES,
    "volume": (".npy",),
}
# Last words of a file name that tell what it is, and not of whom.
LABEL_WORDS = {
    "label", "labels", "seg", "segs", "dseg", "segmentation", "mask", "labelmap", "gt", "truth"
}  # fmt: skip
CHANNEL = "0000"  # of nnU-Net, behind the names of images
IMAGE_WORDS = {"img", "image", "ct", "cta", "volume", "scan", CHANNEL}
CLOUD_WORDS = {"pointcloud", "points", "cloud"}
WORDS = LABEL_WORDS | IMAGE_WORDS | CLOUD_WORDS
FOREIGN = {"labels": IMAGE_WORDS, "truth": IMAGE_WORDS, "image": LABEL_WORDS}
# Folders that sort files by their kind; the name above them is the case's.
KINDS = WORDS | {"anat", "images", "masks", "segmentations", "pointclouds", "nifti", "meshes"}
# Of a BIDS file name (bids-specification.readthedocs.io): entities that tell how a file was made.
BIDS = re.compile(r"sub-[A-Za-z0-9]+(_[a-z]+-[A-Za-z0-9+]+)*(_[A-Za-z0-9]+)?")
MADE_BY = ("desc-", "space-", "res-", "den-", "label-", "seg-", "atlas-")
_TOKEN = re.compile(r"\{(\w*)\}|(\*\*/)|(\*\*)|(\*)|(\?)|([^{*?]+)|(.)")


@dataclass(frozen=True)
class Found:
    """A file, and the named parts of its path."""

    path: Path
    parts: dict[str, str]

    @property
    def name(self) -> str:
        """What the case is called: ``{case}``, or else all named parts."""
        return self.parts.get(CASE) or "_".join(self.parts.values())


def files_of(role: str, source: str) -> tuple[list[Found], dict[Path, str]]:
    """The files of a role that a folder or a pattern has, and why others are not among them.

    role : of ENDINGS. Meshes that share a folder with others below the one that is named are one
        case's: the folder is found, called by its name.

    Raises
    ------
    InputError
        No such folder, a pattern without named parts or with a bad one, no file that fits.
    """
    source = os.path.expanduser(source)  # in quotes the shell leaves it
    if role == "meshes" and not source.lower().endswith(MESHES):
        found, left = _mesh_folders(source)
        looked_for = f"a folder with files that end in {', '.join(MESHES)}"
    elif not re.search(r"[{*?]", source):
        found, left = _by_name(role, Path(source))
        looked_for = f"a file that ends in {', '.join(ENDINGS[role])}"
    else:
        found, left = _by_pattern(source), {}
        looked_for = "a file that fits"
    if not found:
        example = next((f"; found {path.name}: {why}" for path, why in left.items()), "")
        remedy = "correct the path, or name a pattern such as 'scans/{case}.label.nii.gz'"
        raise InputError(problem(source, f"has not {looked_for}{example}", remedy))
    return found, left


def as_id(name: str) -> str:
    """A name as a case id: spaces and the like become ``_``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip("._-")[:100]


def natural(text: str) -> list:
    """Key to sort names by, numbers by their value."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return [(0, int(part), "") if part[0].isdecimal() else (1, 0, part) for part in parts]


def _by_pattern(pattern: str) -> list[Found]:
    return _fitting(pattern, _walk(_top(pattern)))


def _top(pattern: str) -> Path:
    """The folder that all that fits a pattern is below of."""
    fixed = re.split(r"[{*?]", os.path.normpath(pattern))[0].rpartition("/")[0]
    return Path(fixed or ("/" if pattern.startswith("/") else "."))


def _fitting(pattern: str, paths: Iterable[Path]) -> list[Found]:
    expression = re.compile(_expression(os.path.normpath(pattern)))
    matches = ((path, expression.fullmatch(str(path))) for path in paths)
    return [Found(path, match.groupdict()) for path, match in matches if match]


def _mesh_folders(source: str) -> tuple[list[Found], dict[Path, str]]:
    """Folders with mesh files that a folder or a pattern has; files of the folder itself."""
    named = bool(re.search(r"[{*?]", source))
    top = _top(source) if named else Path(source)
    if not named and not top.is_dir():
        return _by_name("meshes", top)  # which says so
    folders: dict[Path, list[Path]] = {}
    for path in _walk(top):
        if without_ending(path.name, "meshes"):
            folders.setdefault(path.parent, []).append(path)
    if named:
        return _fitting(source, folders), {}
    found = [Found(path, _parts(path.stem, path, top)) for path in folders.pop(top, [])]
    found += [Found(path, _parts("", path / "mesh", top)) for path in folders]
    return found, {}


def _expression(pattern: str) -> str:
    """A regular expression for the paths that fit ``pattern``."""
    made, names = [], []
    for name, folders, any_path, any_text, one, text, other in _TOKEN.findall(pattern):
        if folders:
            made.append("(?:.*/)?")
        elif any_path:
            made.append(".*")
        elif any_text:
            made.append("[^/]*")
        elif one:
            made.append("[^/]")
        elif text:
            made.append(re.escape(text))
        elif other or not name.isidentifier():
            fact = "has a part in braces that is no name"
            raise InputError(problem(pattern, fact, "write names such as {case} and {patient}"))
        elif name in names:
            made.append(f"(?P={name})")
        else:
            names.append(name)
            made.append(f"(?P<{name}>[^/]+?)")
    if not names:
        fact = "has no named part"
        remedy = "name what tells cases apart, as in 'scans/{case}.label.nii.gz'"
        raise InputError(problem(pattern, fact, remedy))
    return "".join(made)


def _by_name(role: str, folder: Path) -> tuple[list[Found], dict[Path, str]]:
    """Files below a folder, called by their names without endings and words such as ``seg``."""
    if not folder.is_dir():
        fact = "is a file" if folder.exists() else "is not there"
        remedy = "name a folder, or a pattern such as 'scans/{case}.label.nii.gz'"
        raise InputError(problem(folder, fact, remedy))
    found, left = [], {}
    names = {path: name for path in _walk(folder) if (name := without_ending(path.name, role))}
    numbered = {match[1] for name in names.values() if (match := _number(name))}
    for path, name in names.items():
        stem, words = _stem(name, numbered)
        if words & FOREIGN.get(role, set()):
            kind = "a label map" if role == "image" else "an image"
            left[path] = f"is called like {kind}"
            continue
        found.append(Found(path, _parts(stem, path, folder)))
    return found, left


def without_ending(name: str, role: str) -> str:
    """A file name without the ending of a role; empty: it has none."""
    ending = next((e for e in ENDINGS[role] if name.lower().endswith(e)), "")
    return name[: -len(ending)] if ending else ""


def case_name(name: str) -> str:
    """What the case of a label map is called: its file name without ending and words such as
    label and seg; empty: it has not the ending of one."""
    stem = without_ending(name, "labels")
    return _stem(stem, None)[0] or stem


def _number(name: str) -> re.Match | None:
    """A name that ends in a number of four digits, but for words; [1]: what is before it."""
    match = re.fullmatch(r"(|.*?[._-])([0-9]{4})", _stem(name, None)[0])
    return match if match and match[2] != CHANNEL else None


def _stem(name: str, numbered: Container[str] | None) -> tuple[str, set[str]]:
    """A file name without the words at its end that tell what it is, and these words.

    numbered : starts of names that go on with a number: 0000 is one there, and no channel; None:
        everywhere.
    """
    words: set[str] = set()
    while match := re.fullmatch(r"(.*?)[._-]?([A-Za-z]+|0000)", name):
        word = match[2].lower()
        separated = len(match[1]) + len(match[2]) < len(name) or not match[1]
        if word not in WORDS or not separated:
            break
        is_number = numbered is None or name[: -len(CHANNEL)] in numbered or CHANNEL in words
        if word == CHANNEL and is_number:
            break
        name, words = match[1], words | {word}
    return name, words


def _parts(stem: str, path: Path, top: Path) -> dict[str, str]:
    if BIDS.fullmatch(stem):
        entities = [e for e in stem.split("_") if "-" in e and not e.startswith(MADE_BY)]
        return {PATIENT: entities[0], CASE: "_".join(entities)}
    if not stem:  # patient01/seg.nii.gz
        above = path.parent.relative_to(top).parts[::-1]
        stem = next((name for name in above if name.lower() not in KINDS), "")
    return {CASE: stem or path.name}


def _walk(top: Path) -> Iterator[Path]:
    """Files below a folder, in order; none that is hidden, none twice through links."""
    seen: set[tuple[int, int]] = set()
    for folder, names, files in os.walk(top, onerror=_unread, followlinks=True):
        place = os.stat(folder)
        if (place.st_dev, place.st_ino) in seen:
            names.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        names[:] = sorted(n for n in names if not n.startswith((".", "__MACOSX")))
        yield from (Path(folder) / n for n in sorted(files) if not n.startswith("."))


def _unread(error: OSError) -> None:
    log.warning("%s: cannot be read (%s): no file in it is listed", error.filename, error.strerror)


def read_ids(path: str | Path, names: Sequence[str]) -> tuple[set[str], list[str]]:
    """The cases of a list, and its entries that are none.

    path : text, an id on a line or several with commas or spaces between them; an id may be that
        of a file (``17.img.nii.gz`` for 17), lack zeros (17 for 017), and be the name that it was
        made from (a line ``patient 17`` for patient_17).    names : of the cases that there are.

    Raises
    ------
    InputError
        It cannot be read, or no entry is a case.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        fact = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise InputError(problem(path, fact, "name a text file with an id on each line")) from None
    known, found, others = set(names), set(), []
    counts = Counter(map(_without_zeros, known))
    same = {key: name for name in known if counts[key := _without_zeros(name)] == 1}
    for line in lines:
        entries = re.findall(r"[^\s,;]+", line)
        cases = [_cases_called(entry, known, same) for entry in entries]
        if not all(cases) and (whole := _cases_called(line.strip(), known, same)):
            entries, cases = [line], [whole]
        found |= set().union(*cases)
        others += [entry for entry, called in zip(entries, cases) if not called]
    if not found:
        some = " ".join(" ".join(lines).split()[:3])
        fact = f"lists no case; it has {some or 'no entry'}"
        raise InputError(problem(path, fact, f"cases are called {' '.join(names[:3])} ..."))
    return found, others


def _cases_called(entry: str, known: set[str], same: Mapping[str, str]) -> set[str]:
    """The cases that an entry of a list names.    same : ids without zeros -> the id."""
    name = without_ending(entry, "labels") or entry
    stems = {entry, name}
    if name != entry:
        stems |= {_stem(name, ())[0], _stem(name, None)[0]}
    if not entry.startswith("#"):  # with it people take an entry out of a list
        stems |= set(map(as_id, stems))
    return stems & known or {same[z] for z in map(_without_zeros, stems) if z in same}


def _without_zeros(name: str) -> str:
    """A name without the zeros before its numbers, which spreadsheets take away."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", name)
