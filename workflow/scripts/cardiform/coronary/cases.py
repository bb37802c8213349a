"""Refined masks of a cohort: files, figures and pictures of every case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..anatomy.components import count_components
from ..cohort.table import Case
from ..files import read_json, write_json
from ..geometry.grids import cropped_affine
from ..geometry.isotropic import mask_of, signed_distance
from ..geometry.mask_surface import surface_of_mask
from ..geometry.surface import Mesh
from ..labels import LabelClass, LabelTable
from ..metrics.summary import mean_over_cases
from ..metrics.surface import surface_figures
from ..metrics.topology import topology_figures
from ..pictures.figures import compare_picture
from ..volumes import load_label_map, save_image, save_like
from .refine import Refiner
from .thin_structure import ThinStructure

TRUTH_COLUMNS = ("label_against_truth", "repair_against_truth", "against_truth")
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
    field = refiner.refined(case.case_id, thin)
    voxels, distances = field.on_grid(label_map.data.shape, label_map.affine)
    mask = np.zeros(label_map.data.shape, np.uint8)
    mask[tuple(voxels[distances < 0].T)] = 1
    paths = [out / f"{case.case_id}{ending}" for ending in (".nii.gz", ".json", ".png")]
    save_like(paths[0], mask, case.labels)
    options = refiner.options
    if options.resolution:
        paths.append(out / "fine" / f"{case.case_id}.nii.gz")
        shape, affine = fine_grid(thin, options.resolution)
        save_image(paths[-1], field.mask_on_grid(shape, affine), affine)
    if options.probabilities:
        paths.append(out / "probability" / f"{case.case_id}.nii.gz")
        chance = np.zeros(mask.shape, np.float32)
        chance[tuple(voxels.T)] = 1 / (1 + np.exp(np.clip(distances / thin.spacing, -50, 50)))
        save_image(paths[-1], chance, label_map.affine)
    final = field.mask
    figures = {
        "preset": options.preset,
        "in_training": refiner.trained_on(case.case_id),
        "against_label": change(label_map.data == structure.value, mask > 0),
        **against_truth(truth_mask(case, structure, thin), final, thin),
    }
    write_json(paths[1], figures)
    _draw(paths[2], case.case_id, structure, thin, final, figures)
    return paths


def change(label: np.ndarray, mask: np.ndarray) -> dict:
    """Dice between a label and its refined mask, and the parts of both: no figure of quality."""
    both = int(label.sum() + mask.sum())
    return {
        "dice": 2 * int((label & mask).sum()) / both if both else None,
        "components_before": count_components(label),
        "components_after": count_components(mask),
    }


def against_truth(truth: np.ndarray | None, final: np.ndarray, thin: ThinStructure) -> dict:
    """Figures of the refined mask, the given label and the repair; None where truth is unknown."""
    masks = dict(zip(TRUTH_COLUMNS, (thin.label, thin.repaired, final)))
    if truth is None:
        return dict.fromkeys(masks)
    return {column: figures_against(truth, mask, thin) for column, mask in masks.items()}


def summarise(parts: Mapping[str, Sequence[str]], out: Path, trained: Mapping) -> dict:
    """Means over the cases of every part of the split, from their JSON files.

    trained : the figures of the model file; its Dice on the training's points stands beside.
    """
    points = trained.get("train", {}).get("dice_points")
    result: dict = {"dice_training_points": points}
    for part, names in parts.items():
        cases = {name: read_json(out / f"{name}.json") for name in names}
        known = [figures for figures in cases.values() if figures["against_truth"]]
        result[part] = {
            "cases": len(cases),
            "cases_with_truth": len(known),
            "against_label": mean_over_cases(
                [{"all": f["against_label"]} for f in cases.values()]
            ).get("all", {}),
            **{
                column: mean_over_cases([{"all": f[column]} for f in known]).get("all", {})
                for column in TRUTH_COLUMNS
            },
        }
    return result


def table_of_figures(figures: Mapping) -> Iterator[str]:
    """The means as lines of text."""
    points = figures["dice_training_points"]
    yield f"Dice on the points of the training: {'-' if points is None else f'{points:.3f}'}"
    yield f"{'':34}{'Dice':>8}{'clDice':>8}{'parts off':>11}{'overlap':>9}{'HD95':>7}{'ASSD':>7}"
    for part, found in figures.items():
        if part == "dice_training_points" or not found["cases"]:
            continue
        change = found["against_label"]["dice"]
        yield f"{part}, {found['cases']} cases: Dice against the given label {change:.3f}"
        for column in TRUTH_COLUMNS if found["cases_with_truth"] else ():
            row = [found[column].get(name) for name in FULL_MEASURES]
            text = ["-" if v is None else f"{v:.3f}" for v in row]
            name = column.replace("_", " ")
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


def truth_mask(case: Case, structure: LabelClass, thin: ThinStructure) -> np.ndarray | None:
    """(X, Y, Z) bool on the isotropic grid, from the case's ``truth``; None where it has none."""
    if not case.truth:
        return None
    label_map = load_label_map(case.truth)
    return mask_of(label_map, structure.value, thin.label.shape, thin.affine)


def figures_against(truth: np.ndarray, mask: np.ndarray, thin: ThinStructure) -> dict:
    """Voxel, centreline, component and surface figures on the isotropic grid."""
    surfaces = surface_figures(_surface(truth, thin), _surface(mask, thin))
    return topology_figures(truth, mask, thin.spacing) | surfaces


def _surface(mask: np.ndarray, thin: ThinStructure) -> Mesh:
    def field(padded: np.ndarray, _) -> np.ndarray:
        return signed_distance(padded, thin.spacing, 3 * thin.spacing)

    return surface_of_mask(mask, thin.affine, field, pad=2)


def _draw(path: Path, case_id: str, structure: LabelClass, thin, final, figures) -> None:
    """Given beside refined; where truth is known, the caption has its figures."""
    sides = [_surface(mask, thin) for mask in (thin.label, final)]
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
