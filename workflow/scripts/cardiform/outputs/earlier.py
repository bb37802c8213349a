"""What shows that a file or a folder was made by Cardiform, before folders had lists."""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

# The first line of tables that Cardiform alone writes, by the ends of their names
MANIFEST_HEADER = "case_id\tpath\tbytes\tsha256\tstatus"
CASES_HEADER = "case_id\tpatient_id\tlabels\timage\tpointcloud\ttruth\tstatus\treason"
SPLIT_HEADER = "case_id,patient_id,path"
USAGE_SIZE = (600).to_bytes(4, "big") + (300).to_bytes(4, "big")  # usage.png of a codebook
# In the head of every page that Cardiform writes, which has no list beside it
PAGE_MARK = '<meta name="generator" content="Cardiform">'
PAGE_HEAD = 500  # bytes
DEMO_ROW = "phantom_000\tphantom_000\tlabels/"
# What is moved aside or deleted of trainings and samples of earlier versions; {} is a sample.
TRAINING_FILES = (
    "checkpoints/last.pt", "checkpoints/best.pt", "metrics.jsonl", "previews/[0-9]*.png",
    "tensorboard/events.out.tfevents.*",
)  # fmt: skip
SAMPLE_FILES = (
    "nifti/{}.nii.gz", "pointcloud/{}.csv", "pictures/{}.png", "latents/{}.npz", "meshes/{}/*.ply",
)  # fmt: skip

SAMPLE_EXTRAS = {"frame.npy", "draws.npy", "fits.npy"}  # beside latents and key

LOOKED_AT = 5  # records of a kind: one may be somebody else's
_earlier: set[Path] = set()  # folders that were recognised


def is_earlier(folder: Path) -> bool:
    """Whether records in a folder show that Cardiform made it, before there were lists."""
    if folder not in _earlier:
        if not any(path.is_file() and is_record(path) for path in _records(folder)):
            return False
        _earlier.add(folder)
    return True


def _records(folder: Path) -> Iterator[Path]:
    """Where records would be: the next is looked for when the one before is none."""
    names = ("metrics.json", "metrics.jsonl", "manifest.tsv", "cases.tsv", "train.csv", ".lock")
    yield from (folder / name for name in (*names, "checkpoints/last.pt", "usage.png"))
    for pattern in ("manifest/*.tsv", "state/*.json", "*/state/*.json", "latents/sample_*.npz"):
        yield from itertools.islice(folder.glob(pattern), LOOKED_AT)


def is_record(path: Path) -> bool:
    """Whether a file is of a kind that Cardiform alone writes, by what is in it."""
    try:
        if path.suffix in (".pt", ".npz"):
            return _is_archive(path)
        if path.suffix == ".png":
            head = path.read_bytes()[:200]
            return head.startswith(b"\x89PNG") and head[16:24] == USAGE_SIZE
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    first, _, rest = text.partition("\n")
    if path.suffix in (".json", ".jsonl"):
        return _is_json_record(path, text if path.suffix == ".json" else first)
    if path.name == ".lock":
        return first.startswith("process ") and " on " in first
    if path.name == "cases.tsv":
        return first == CASES_HEADER or rest.startswith(DEMO_ROW)
    return first == (SPLIT_HEADER if path.suffix == ".csv" else MANIFEST_HEADER)


def is_page(path: Path) -> bool:
    """Whether an HTML file says in its head that it was made here."""
    try:
        with path.open("rb") as stream:
            return PAGE_MARK.encode() in stream.read(PAGE_HEAD)
    except OSError:
        return False


def manifest_paths(path: Path) -> list[str] | None:
    """The paths that a manifest lists; None where it is none."""
    try:
        first, *rows = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    if first != MANIFEST_HEADER:
        return None
    return [cells[1] for row in rows if len(cells := row.split("\t")) > 1 and cells[1]]


def _is_json_record(path: Path, text: str) -> bool:
    try:
        keys = json.loads(text).keys()
    except (ValueError, AttributeError):
        return False
    if path.suffix == ".jsonl":
        return {"event", "step"} <= keys
    state = path.parent.name == "state" and {"key", "outputs"} == keys
    return state or {"source_sha256", "format_version"} <= keys


def _is_archive(path: Path) -> bool:
    """Whether a checkpoint or the latents of a sample are ours, by the names in them."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2]: name for name in archive.namelist()}
            if path.suffix == ".npz":
                return {"latents.npy", "key.npy"} == names.keys() - SAMPLE_EXTRAS
            return b"format_version" in archive.read(names["data.pkl"])
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError):
        return False


def earlier_files(folder: Path) -> list[str]:
    """The files of an earlier run that another one moves or deletes where it makes fewer."""
    patterns = [*TRAINING_FILES, *(f"fast_dev_run/{pattern}" for pattern in TRAINING_FILES)]
    for latents in folder.glob("latents/sample_*.npz"):
        if _is_archive(latents):
            patterns += [pattern.format(latents.stem) for pattern in SAMPLE_FILES]
    found = [path for pattern in patterns for path in folder.glob(pattern)]
    for record in filter(is_record, folder.glob("state/*.json")):
        for output in json.loads(record.read_text(encoding="utf-8"))["outputs"]:
            # the folder may have been moved since: the end of the path is the same
            ends = (Path(output["path"]).parts[-n:] for n in (1, 2, 3))
            found += [path for end in ends if (path := folder.joinpath(*end)).is_file()]
    return [path.relative_to(folder).as_posix() for path in found]
