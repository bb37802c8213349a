"""Refined masks of a cohort: files, figures and pictures of every case."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from .. import outputs
from ..anatomy.components import count_components
from ..cohort.table import Case
from ..files import read_json, write_json
from ..geometry.grids import cropped_affine
from ..labels import LabelClass, LabelTable
from ..metrics.summary import mean_over_cases
from ..pictures.figures import compare_picture
from ..volumes import load_label_map, save_image, save_like
from .field import CaseField, repaired_field
from .figures import OWN_GRID, TRUTH_COLUMNS, fine_figures, own_figures, surface_of
from .own_label import OwnLabel
from .refine import Refiner
from .thin_structure import ThinStructure

FULL_MEASURES = ("dice", "cl_dice", "component_error", "centreline_overlap", "hd95_mm", "assd_mm")


def refine_case(
    case: Case,
    *,
    files: Mapping[str, Path],
    refiner: Refiner,
    table: LabelTable,
    out: Path,
) -> list[Path]:
    """Write the refined masks, figures and a picture of one case.

    ``out/<case>.nii.gz`` (grid and header of the label map, value 1), ``fine/<case>.nii.gz``
    (isotropic, ``resolution`` voxels), ``probability/<case>.nii.gz`` on request,
    ``<case>.json`` and ``<case>.png``.
    """
    label_map = load_label_map(case.labels)
    structure = table[table.channel(refiner.repair_options.structure)]
    thin = ThinStructure.load(files[case.case_id])
    refiner.check(thin, files[case.case_id])
    field = refiner.refined(case.case_id, thin)
    given = label_map.data == structure.value
    on_own = OwnLabel(given, label_map.affine, thin, refiner.repair_options)
    mask = on_own.mask(field)
    paths = [out / f"{case.case_id}{ending}" for ending in (".nii.gz", ".json", ".png")]
    save_like(paths[0], mask, case.labels)
    options = refiner.options
    if options.resolution:
        paths.append(out / "fine" / f"{case.case_id}.nii.gz")
        shape, affine = fine_grid(thin, options.resolution)
        save_image(paths[-1], field.mask_on_grid(shape, affine), affine)
    if options.probabilities:
        paths.append(out / "probability" / f"{case.case_id}.nii.gz")
        save_image(paths[-1], probability(mask, label_map.affine, field), label_map.affine)
    final = field.mask
    truth = load_label_map(case.truth) if case.truth else None
    fine = dict(zip(TRUTH_COLUMNS, (thin.label, thin.repaired, final)))
    own = dict.fromkeys(TRUTH_COLUMNS, mask)
    if truth is not None:
        own = dict(zip(TRUTH_COLUMNS, (given, on_own.mask(repaired_field(thin)), mask)))
    figures = {
        "preset": options.preset,
        "in_training": refiner.trained_on(case.case_id),
        "against_label": change(given, mask),
        **fine_figures(truth, structure.value, fine, thin),
        OWN_GRID: own_figures(truth, structure.value, own, label_map.affine),
    }
    write_json(paths[1], figures)
    _draw(paths[2], case.case_id, structure, thin, final, figures)
    return paths


def remove_refined(case_id: str, out: Path) -> None:
    """Remove what was made of a case before it lost the structure."""
    masks = [f"{folder}{case_id}.nii.gz" for folder in ("", "fine/", "probability/")]
    for name in (*masks, f"{case_id}.json", f"{case_id}.png", f"state/{case_id}.json"):
        outputs.remove(out / name)


def missed_cases(cases: Iterable[Case], value: int) -> list[str]:
    """Of cases whose label lacks the structure those whose truth has it.

    value : the structure's.
    """
    return [c.case_id for c in cases if c.truth and value in load_label_map(c.truth).boxes]


def change(label: np.ndarray, mask: np.ndarray) -> dict:
    """Dice between a label and its refined mask, and the parts of both: no figure of quality."""
    both = int(label.sum() + mask.sum())
    return {
        "dice": 2 * int((label & mask).sum()) / both if both else None,
        "components_before": count_components(label),
        "components_after": count_components(mask),
    }


def probability(mask: np.ndarray, affine: np.ndarray, field: CaseField) -> np.ndarray:
    """(X, Y, Z) float32: the logistic function of the distance over a cell's edge.

    It agrees with the mask: a voxel that keeps its given value against the field has one half,
    or as little more as a float32 can have.
    """
    voxels, distances = field.on_grid(mask.shape, affine)
    result = np.zeros(mask.shape, np.float32)
    result[tuple(voxels.T)] = 1 / (1 + np.exp(np.clip(distances / field.thin.spacing, -50, 50)))
    half = np.float32(0.5)
    return np.where(mask, np.maximum(result, np.nextafter(half, 1)), np.minimum(result, half))


def summarise(
    parts: Mapping[str, Sequence[str]],
    out: Path,
    trained: Mapping,
    missed: Collection[str] = (),
) -> dict:
    """Means over the cases of every part of the split, from their JSON files.

    trained : the figures of the model file; its Dice on the training's points stands beside.
    missed : cases that have the structure in their truth alone. They are counted, and in no mean:
        there was nothing to refine.
    """
    points = trained.get("train", {}).get("dice_points")
    result: dict = {"dice_training_points": points}
    for part, names in parts.items():
        cases = {name: read_json(out / f"{name}.json") for name in names if name not in missed}
        known = [figures for figures in cases.values() if figures["against_truth"]]
        result[part] = {
            "cases": len(cases),
            "cases_with_truth": len(known),
            "cases_missed": len(set(names) & set(missed)),
            "against_label": mean_over_cases(
                [{"all": f["against_label"]} for f in cases.values()]
            ).get("all", {}),
            **_means(known),
            OWN_GRID: _means([figures[OWN_GRID] for figures in known]),
        }
    return result


def _means(cases: Sequence[Mapping]) -> dict[str, dict]:
    """The means of every column against the truth."""
    return {
        column: mean_over_cases([{"all": figures[column]} for figures in cases]).get("all", {})
        for column in TRUTH_COLUMNS
    }


def table_of_figures(figures: Mapping) -> Iterator[str]:
    """The means as lines of text."""
    points = figures["dice_training_points"]
    yield f"Dice on the points of the training: {'-' if points is None else f'{points:.3f}'}"
    yield f"{'':34}{'Dice':>8}{'clDice':>8}{'parts off':>11}{'overlap':>9}{'HD95':>7}{'ASSD':>7}"
    for part, found in figures.items():
        if part == "dice_training_points" or not (found["cases"] or found["cases_missed"]):
            continue
        line = f"{part}, {found['cases']} cases"
        if found["cases"]:
            change = found["against_label"].get("dice")
            said = "-" if change is None else f"{change:.3f}"
            line += f": Dice against the given label {said}"
        if number := found["cases_missed"]:
            line += f"; {number} more, in no mean, have the structure in the truth alone"
        yield line
        for grid, columns in (("fine", found), ("own", found[OWN_GRID])):
            for column in TRUTH_COLUMNS if found["cases_with_truth"] else ():
                row = [columns[column].get(name) for name in FULL_MEASURES]
                text = ["-" if v is None else f"{v:.3f}" for v in row]
                name = f"{grid}, {column.replace('_', ' ')}"
                yield (
                    f"    {name:30}{text[0]:>8}{text[1]:>8}{text[2]:>11}{text[3]:>9}"
                    f"{text[4]:>7}{text[5]:>7}"
                )


def fine_grid(thin: ThinStructure, resolution: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of the isotropic grid with so many voxels along the structure's box."""
    extent = np.array(thin.label.shape) * thin.spacing
    step = float(extent.max()) / resolution
    shape = tuple(int(n) for n in np.maximum(np.ceil(extent / step - 1e-6), 1))
    ratio = step / thin.spacing
    return shape, cropped_affine(thin.affine, np.full(3, (ratio - 1) / 2), ratio)


def _draw(path: Path, case_id: str, structure: LabelClass, thin, final, figures) -> None:
    """Given beside refined; where truth is known, the caption has its figures."""
    sides = [surface_of(mask, thin.affine, thin.spacing) for mask in (thin.label, final)]
    caption = f"{case_id}: {count_components(thin.label)} parts to {count_components(final)}"
    if figures["against_truth"]:
        before, after = figures["label_against_truth"], figures["against_truth"]
        caption += "; against truth: " + ", ".join(
            f"{title} {before[name] or 0:.3f} to {after[name] or 0:.3f}"
            for title, name in (("Dice", "dice"), ("clDice", "cl_dice"))
        )
    compare_picture(
        path,
        *([(mesh.vertices, mesh.faces, structure.color, 1.0)] for mesh in sides),
        titles=("Given label", "Refined"),
        caption=caption,
    )
