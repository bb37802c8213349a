"""Hearts that vessels are drawn into, as cases."""

from __future__ import annotations

from pathlib import Path

from ...cohort import splits
from ...cohort.manifest import made_files
from ...cohort.table import Case
from ...errors import InputError, problem
from ...files import read_json
from .tree import VesselTree, load_tree


def generated(
    samples: Path,
    pattern: str = "nifti/{}.nii.gz",
    remedy: str = "sample with save_format nifti or both",
) -> list[Case]:
    """The samples that a metrics.json of sample_diffusion or sample_set_diffusion lists.

    pattern : their files, beside it.    remedy : where one is missing.
    """
    record = read_json(samples)
    names = record.get("samples") if isinstance(record, dict) else None
    if not isinstance(names, list) or not names:
        instead = "give the metrics.json of a script that samples"
        raise InputError(problem(samples, "lists no samples", instead))
    paths = {name: samples.parent / pattern.format(name) for name in names}
    if gone := [path for path in paths.values() if not path.is_file()]:
        raise InputError([problem(path, "does not exist", remedy) for path in gone])
    return [Case(case_id=n, patient_id=n, labels=str(p)) for n, p in paths.items()]


def real(made: Path, split: Path, ending: str = ".nii.gz") -> list[Case]:
    """The hearts of a part of the split.

    made : manifest of their files.    ending : of these.
    """
    names = [name for name, _ in splits.read_split(split)]
    files = made_files([made], names, ending)
    if not files:
        remedy = "make them of the same split"
        raise InputError(problem(split, f"has no case in {made}", remedy))
    return [Case(case_id=f.case_id, patient_id=f.case_id, labels=str(f.path)) for f in files]


def trees_of(made: Path, split: Path) -> tuple[list[VesselTree], str]:
    """The whole trees of a part of the split, and the structure that they are.

    made : manifest of encode_vessels.
    """
    names = [name for name, _ in splits.read_split(split)]
    stored = [load_tree(file.path) for file in made_files([made], names, ".npz")]
    found = [one for one in stored if one.known]
    if not found:
        fact = f"has no case with a whole tree in {made}"
        raise InputError(problem(split, fact, "there is nothing to learn the radii from"))
    return [one.tree for one in found], found[0].structure
