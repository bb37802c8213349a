"""Fusion of one case."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cohort.manifest import listed_in
from ..cohort.table import Case
from ..errors import InputError, problem
from ..files import write_json
from ..geometry.field_of_view import cut_names, cuts_of
from ..geometry.mask_surface import surface_of_mask
from ..geometry.sdf import class_boxes, smooth_distance
from ..labels import LabelTable
from ..options.fusion import FusionOptions
from ..pictures.figures import compare_picture
from ..volumes import LabelMap, check_mask, load_label_map, save_like
from .merge import fused
from .rules import changes, consistent
from .truth import WholeTruth, against_truth

log = logging.getLogger(__name__)

HAZE, HAZE_VOXELS = 0.15, 96  # opacity and detail of what stands around in a picture
SMOOTHING_VOX = 1.0  # of what a picture shows


@dataclass(frozen=True)
class MaskFolder:
    """Masks ``<case>.nii.gz`` that replace a class.

    listed : the cases whose mask is of the last run of its stage; None: every file counts.
    """

    path: Path
    listed: frozenset[str] | None = None

    @classmethod
    def of(cls, path: Path) -> MaskFolder:
        """What a folder's manifest lists, or all that is there where it has none."""
        return cls(path, listed_in(path, ".nii.gz"))

    def mask_of(self, case_id: str) -> Path | None:
        """The mask of a case; None where it has none, or only an older one."""
        file = self.path / f"{case_id}.nii.gz"
        current = self.listed is None or case_id in self.listed
        return file if current and file.is_file() else None


def fuse_case(
    case: Case,
    *,
    table: LabelTable,
    options: FusionOptions,
    masks: Mapping[str, MaskFolder],
    out: Path,
) -> list[Path]:
    """Write ``out/<case>.nii.gz``, ``.json`` of what each rule changed, and ``.png``.

    Where the case has a truth, the JSON judges the rules and both label maps by it.

    masks : class name -> masks, on any grid, that replace the class; a case without one keeps
        its own.

    Raises
    ------
    InputError
        An unusable label map, mask or truth, a mask that is none of its class
        (:func:`cardiform.volumes.check_mask`), or nothing is labelled after the fusion.
    """
    base = load_label_map(case.labels)
    values = dict(zip(table.names, table.values))
    given = mask_files(case, masks)
    replacing = {
        values[name]: _mask(path, base, values[name], name) for name, path in given.items()
    }
    merged = fused(base, replacing, table)
    if not merged.any():
        fact = "nothing is labelled after the fusion"
        raise InputError(problem(case.labels, fact, "look at the masks, or leave the case out"))
    truth = WholeTruth.of(case, base, table)
    result, rules = consistent(
        merged,
        base.spacing,
        table,
        options,
        given=base.data,
        replaced=tuple(replacing),
        truth=None if truth is None else truth.inside,
    )
    paths = [out / f"{case.case_id}{ending}" for ending in (".nii.gz", ".json", ".png")]
    save_like(paths[0], result, case.labels)
    found = changes(base.data, result, table)
    for name in cut_names(cuts_of(LabelMap(result, base.affine), table, case), table):
        found[name]["cut"] = True
    thin = set(given) or {"coronary"}
    if truth is not None:
        measured = against_truth(base.data, result, truth, base.spacing, table, thin)
        for name in measured.keys() & found.keys():
            found[name] |= measured[name]
    report = {
        "labels": case.labels,
        "replaced": {name: str(path) for name, path in given.items()},
        "rules": rules,
        "classes": found,
    }
    write_json(paths[1], report)
    caption = f"{case.case_id}: " + (
        "; ".join(_line(name, found[name]) for name in sorted(thin) if name in found) or "no change"
    )
    compare_picture(
        paths[2],
        *(_meshes(LabelMap(m, base.affine), table, thin) for m in (base.data, result)),
        titles=("Given", "Fused"),
        legend={c.title: c.color for c in table if c.name in found},
        caption=caption,
    )
    return paths


def mask_files(case: Case, masks: Mapping[str, MaskFolder]) -> dict[str, Path]:
    """Class name -> the case's mask file, where it has one."""
    found = {name: folder.mask_of(case.case_id) for name, folder in masks.items()}
    return {name: path for name, path in found.items() if path is not None}


def _mask(path: Path, base: LabelMap, value: int, name: str) -> LabelMap:
    """A mask that takes the place of a class of the label map; what is doubtful about it is
    logged."""
    mask = load_label_map(path)
    for doubt in check_mask(path, mask, base, value, name):
        log.warning("%s: %s", path, doubt)
    return mask


def _meshes(label_map: LabelMap, table: LabelTable, opaque: set[str]):
    """What a picture shows: some classes opaque, the others as a haze and on a coarser grid."""
    result = []
    for label in table:
        box = class_boxes(label_map.data).get(label.value)
        if box is None:
            continue
        size = max(s.stop - s.start for s in box)
        step = 1 if label.name in opaque else -(-size // HAZE_VOXELS)
        mask = label_map.data[box][::step, ::step, ::step] == label.value
        mesh = surface_of_mask(
            np.ascontiguousarray(mask),
            label_map.affine,
            functools.partial(smooth_distance, sigma_vox=SMOOTHING_VOX),
            pad=3,
            start=[s.start for s in box],
            step=step,
        )
        alpha = 1.0 if label.name in opaque else HAZE
        result.append((mesh.vertices, mesh.faces, label.color, alpha))
    return result


def _line(name: str, found: Mapping) -> str:
    before, after = found["components_before"], found["components_after"]
    line = f"{name} {before} parts to {after}, Dice to the given label " + (
        f"{found['dice_before_after']:.3f}"
    )
    if "dice_given" in found:
        line += f", to the truth {found['dice_given']:.3f} to {found['dice_fused']:.3f}"
    return line
