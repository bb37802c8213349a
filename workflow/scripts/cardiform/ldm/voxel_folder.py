"""Hearts that are voxels already: a folder of NIfTI files in place of point clouds."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cohort.found_files import without_ending
from ..cohort.table import Case, id_remedy
from ..errors import InputError, problem
from ..labels import LabelTable
from ..options.ldm import LdmOptions, PointcloudsOptions
from ..volumes import save_image, save_label_map
from ..volumes.voxels import Voxels, load_voxels
from .hearts_on_grid import FIELD, INSIDE, LABELS, Grid, present

log = logging.getLogger(__name__)

PARTS = ("train", "val", "test")  # folders of hearts that are split already
ENDINGS = (".nii.gz", ".nii")
TOLERANCE = 1e-3  # of values within [0, 1], and of edges


@dataclass(frozen=True)
class VoxelFolder:
    """The files of a folder, or of ``train``, ``val`` and ``test`` in it.

    files : case id -> file.    parts : part of the split -> case ids; empty: not split yet.
    """

    path: Path
    files: dict[str, Path]
    parts: dict[str, list[str]]

    @classmethod
    def of(cls, path: str | Path) -> VoxelFolder:
        """InputError where there is no file, or two are called alike."""
        path = Path(path)
        split = (path / PARTS[0]).is_dir()
        found = {part: _volumes(path / part) for part in PARTS} if split else {"": _volumes(path)}
        names = {part: [_case_id(f) for f in files] for part, files in found.items()}
        counts = Counter(name for part in names.values() for name in part)
        every = [file for files in found.values() for file in files]
        problems = []
        for file in every:
            name = _case_id(file)
            if remedy := id_remedy(name):
                problems.append(problem(file, f"{name!a} is not usable as an id", remedy))
            if counts[name] > 1:
                fact = f"is one of {counts[name]} files called {name}"
                problems.append(problem(file, fact, "give each another name"))
        if not found[PARTS[0] if split else ""]:
            where = path / PARTS[0] if split else path
            problems.append(problem(where, "has no .nii or .nii.gz file", "name another folder"))
        if problems:
            raise InputError(problems)
        if split:
            _report_others(path)
        return cls(path, {_case_id(file): file for file in every}, names if split else {})

    def cases(self, out: Path) -> list[Case]:
        """Each file as a case; ``out``: where its voxels will lie."""
        return [
            Case(case_id=n, patient_id=n, labels=str(out / f"{n}.nii.gz"), status="ok")
            for n in self.files
        ]

    def grid(self, ldm: LdmOptions, options: PointcloudsOptions, table: LabelTable) -> Grid:
        """The grid that all files lie on.

        Raises
        ------
        InputError
            Lists all files of another size, spacing or kind of values than the config and the
            first one, and those whose values are no classes of the table and none within [0, 1].
        """
        problems: list[str] = []
        values: set[int] = set()
        first: Voxels | None = None
        for file in self.files.values():
            try:
                voxels = load_voxels(file)
            except InputError as error:
                problems += error.problems
                continue
            first = first or voxels
            problems += [problem(file, *fact) for fact in _facts(voxels, first, ldm)]
            if voxels.labelled:
                values |= set(np.unique(voxels.data).tolist())
        if first is not None and first.labelled:
            if unknown := sorted(values - {0, *table.values} - set(dropped(ldm))):
                fact = f"has labels {', '.join(map(str, unknown))}, no classes of the label table"
                problems.append(problem(self.path, fact, "name a table that has them (labels)"))
            elif not problems and not values & set(table.values):
                problems.append(problem(self.path, "has no class that takes part", "drop fewer"))
        if problems or first is None:
            raise InputError(problems)
        edge = ldm.extent_mm or first.spacing * options.unit_mm * ldm.voxel_size
        kind = LABELS if first.labelled else FIELD
        grid = Grid(kind, ldm.voxel_size, edge, present(table, values) if values else INSIDE)
        log.info("grid of %d voxels of %.2f mm, edge %g mm", grid.size, grid.spacing, edge)
        return grid


def dropped(ldm: LdmOptions) -> list[int]:
    """Values of the built-in classes that are left out."""
    built_in = LabelTable()
    return [c.value for c in built_in if c.name in ldm.drop_classes]


def take_over(case: Case, *, grid: Grid, files: dict[str, Path], out: Path) -> list[Path]:
    """Write ``out/<case>.nii.gz``: the voxels of one file, about the middle of the cube."""
    data = load_voxels(files[case.case_id]).data
    path = out / f"{case.case_id}.nii.gz"
    affine = grid.cube(np.zeros(3)).affine
    if grid.has_classes:
        kept = np.where(np.isin(data, grid.table.values), data, 0).astype(np.uint8)
        save_label_map(path, kept, affine)
    else:
        save_image(path, np.clip(data, 0, 1).astype(np.float32), affine)
    return [path]


def _volumes(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if _is_volume(p))


def _is_volume(path: Path) -> bool:
    """Hidden files are none: macOS leaves ``._a.nii.gz`` beside ``a.nii.gz``."""
    named = path.name.lower().endswith(ENDINGS) and not path.name.startswith(".")
    return named and path.is_file()


def _report_others(path: Path) -> None:
    """Warn of what lies beside the folders of a split and is not taken."""
    others = [p for p in sorted(path.iterdir()) if p.name not in PARTS]
    if left := [p.name for p in others if _is_volume(p) or _volumes(p)]:
        log.warning(
            "%s: not taken, beside %s: %s", path, ", ".join(PARTS), ", ".join(map(ascii, left[:5]))
        )


def _case_id(file: Path) -> str:
    return without_ending(file.name, "labels")


def _facts(voxels: Voxels, first: Voxels, ldm: LdmOptions) -> list[tuple[str, str]]:
    """What is wrong with a file, and what to do."""
    found = []
    size = voxels.data.shape
    if set(size) != {ldm.voxel_size}:
        fact = f"has {'x'.join(map(str, size))} voxels, ldm.voxel_size is {ldm.voxel_size}"
        found.append((fact, "set it to the size of the files, which must be cubes"))
    if abs(voxels.spacing - first.spacing) > TOLERANCE * first.spacing:
        fact = f"has voxels of {voxels.spacing:.4g}, the first file of {first.spacing:.4g}"
        found.append((fact, "bring all to one spacing"))
    if voxels.labelled != first.labelled:
        found.append(("has integers where others have floats, or the other way round", "make all"
                      " label maps, or all densities"))  # fmt: skip
    elif not voxels.labelled:
        low, high = float(voxels.data.min()), float(voxels.data.max())
        if not -TOLERANCE <= low <= high <= 1 + TOLERANCE:
            found.append((f"has values from {low:.3g} to {high:.3g}", "scale densities to [0, 1]"))
    return found
