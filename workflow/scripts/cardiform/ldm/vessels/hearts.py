"""Hearts that vessels are drawn into, as cases."""

from __future__ import annotations

from pathlib import Path

from ...cohort import splits
from ...cohort.manifest import made_files
from ...cohort.table import Case
from ...errors import InputError, problem
from ...files import read_json


def generated(samples: Path) -> list[Case]:
    """The samples that a metrics.json of sample_diffusion lists."""
    record = read_json(samples)
    names = record.get("samples") if isinstance(record, dict) else None
    if not isinstance(names, list) or not names:
        remedy = "give the metrics.json of sample_diffusion"
        raise InputError(problem(samples, "lists no samples", remedy))
    paths = {name: samples.parent / "nifti" / f"{name}.nii.gz" for name in names}
    if gone := [path for path in paths.values() if not path.is_file()]:
        remedy = "sample with save_format nifti or both"
        raise InputError([problem(path, "does not exist", remedy) for path in gone])
    return [Case(case_id=n, patient_id=n, labels=str(p)) for n, p in paths.items()]


def real(voxels: Path, split: Path) -> list[Case]:
    """The hearts of a part of the split."""
    names = [name for name, _ in splits.read_split(split)]
    files = made_files([voxels], names, ".nii.gz")
    if not files:
        remedy = "give the split of the cases of --voxels"
        raise InputError(problem(split, f"has no case in {voxels}", remedy))
    return [Case(case_id=f.case_id, patient_id=f.case_id, labels=str(f.path)) for f in files]
