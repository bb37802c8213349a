"""The trees of one case: traced, named, written, drawn."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from .. import outputs
from ..anatomy.tree import Branch, Forest, trace
from ..cohort.table import Case
from ..errors import again
from ..files import write_json
from ..formats import Format
from ..geometry.field_of_view import Cut, cuts_of
from ..geometry.isotropic import isotropic_mask
from ..geometry.mask_surface import blurred_as_large, surface_of_mask
from ..geometry.sdf import class_boxes
from ..labels import LabelTable
from ..options.coronary import CoronaryTraceOptions
from ..pictures.figures import case_picture
from ..pictures.rasteriser import PicturedMesh
from ..volumes import LabelMap, load_label_map
from . import branch_names, tree_files
from .branch_names import Named, name_branches
from .surroundings import Surroundings

MARGIN_MM = 2.0  # room around the structure
CUT_MM = 1.0  # an end so near to a plane that cuts, beyond its radius, is no end of the vessel
LEAST_VOXELS = 3  # of a branch, along the longest edge of a voxel: steps of slices are none
FILES = ("tree.swc", "tree.vtp", "branches.csv", "summary.json")
SUMMARY = Format(
    "tree-summary",
    {
        "case_id": "text",
        "structure": "text",
        "labels": "text",
        "trees": "object (T)",
        "trees.*.side": "text",
        "trees.*.origin": "text",
        "trees.*.length_mm": "number",
        "trees.*.branches": "integer",
        "trees.*.root_mm": "number (3)",
        "names": "object",
        "names.*.branches": "integer",
        "names.*.length_mm": "number",
        "names.*.radius_mean_mm": "number",
        "loose_parts": "integer",
        "specks": "integer",
        "speck_mm3": "number",
        "cut": "bool",
        "notes": "text (K)",
        "format_version": "integer",
    },
    again("trace_coronary"),
)
COLORS = {
    branch_names.LEFT_MAIN: "#7b3294", branch_names.LAD: "#d7301f", branch_names.LCX: "#1f78b4",
    branch_names.RCA: "#238b45", branch_names.RAMUS: "#e6a400", branch_names.TRUNK: "#8c564b",
    branch_names.GRAFT: "#17becf", branch_names.UNNAMED: "#555555",
}  # fmt: skip
HAZE, HAZE_VOXELS = 0.12, 64  # opacity and detail of the heart around the tree
TUBE_SIDES = 10
DRAWN_STEP = 4  # every so many points of a course are drawn


def trace_case(
    case: Case, *, table: LabelTable, options: CoronaryTraceOptions, out: Path
) -> list[Path]:
    """Write ``out/<case>/``: tree.swc, tree.vtp, branches.csv, summary.json, and tree.png.

    A case that lacks the structure has the first four without a branch, and a note.
    """
    label_map = load_label_map(case.labels)
    value = table[table.channel(options.structure)].value
    around = Surroundings(label_map, table)
    forest, notes = traced(label_map, value, around, options), []
    if not around.has(options.structure):
        notes.append(f"the label map has no {options.structure}")
    if options.names:
        named = name_branches(forest, around)
    else:
        named = branch_names.without_names(forest)
    cut = cuts_of(label_map, table, case).get(value)
    folder = out / case.case_id
    paths = [folder / name for name in FILES]
    tree_files.write_swc(paths[0], forest, named)
    tree_files.write_vtp(paths[1], forest, named)
    ends = [_is_cut(branch, cut) for branch in forest.branches]
    tree_files.write_branches(paths[2], tree_files.rows(case.case_id, forest, named, ends))
    summary = summary_of(case, forest, named, options) | {
        "cut": cut is not None,
        "notes": [*notes, *_counted(forest), *named.notes],
        "format_version": SUMMARY.version,
    }
    write_json(paths[3], summary)
    picture = folder / "tree.png"
    if not forest.branches:
        outputs.remove(picture)  # of before, when the case had the structure
    else:
        paths.append(picture)
        _draw(paths[-1], case.case_id, label_map, table, options.structure, forest, named)
    return paths


def traced(
    label_map: LabelMap, value: int, around: Surroundings, options: CoronaryTraceOptions
) -> Forest:
    """The trees of one class of a label map; without a branch where it has none."""
    found = isotropic_mask(label_map, value, options.spacing_mm, MARGIN_MM)
    if found is None:
        return Forest((), ())
    classes = [name for name in options.origins if around.has(name)]

    def distance(points: np.ndarray, name: str) -> np.ndarray:
        return around.distance(points, name)

    return trace(
        *found,
        {name: functools.partial(distance, name=name) for name in classes},
        branch_mm=max(options.branch_mm, LEAST_VOXELS * float(label_map.spacing.max())),
        smooth_mm=options.smooth_mm,
        ostium_mm=options.ostium_mm,
    )


def traced_with_cut(
    case: Case, *, table: LabelTable, options: CoronaryTraceOptions
) -> tuple[Forest, bool]:
    """The trees of a case's structure, without a branch where it has none, and whether the scan
    cuts it."""
    label_map = load_label_map(case.labels)
    value = table[table.channel(options.structure)].value
    forest = traced(label_map, value, Surroundings(label_map, table), options)
    return forest, value in cuts_of(label_map, table, case)


def write_trees(
    name: str,
    folder: Path,
    forest: Forest,
    label_map: LabelMap,
    table: LabelTable,
    *,
    structure: str,
    names: bool,
) -> list[Path]:
    """Write ``folder``/tree.swc, tree.vtp, branches.csv and tree.png of trees that are known.

    structure : the class that they are.    names : whether they are named as coronary arteries.
    """
    around = Surroundings(label_map, table)
    named = name_branches(forest, around) if names else branch_names.without_names(forest)
    paths = [folder / file for file in FILES[:3]]
    tree_files.write_swc(paths[0], forest, named)
    tree_files.write_vtp(paths[1], forest, named)
    ends = [False] * len(forest.branches)
    tree_files.write_branches(paths[2], tree_files.rows(name, forest, named, ends))
    if forest.branches:
        paths.append(folder / "tree.png")
        _draw(paths[-1], name, label_map, table, structure, forest, named)
    return paths


def summary_of(case: Case, forest: Forest, named: Named, options: CoronaryTraceOptions) -> dict:
    """What is in ``summary.json``, but for cut and notes."""
    trees = []
    for number, origin in enumerate(named.origins):
        own = forest.of_tree(number)
        sides = _lengths(forest, named.sides, own)
        trees.append(
            {
                "side": max(sides, key=lambda side: sides[side]),
                "origin": origin or "none",
                "length_mm": round(sum(forest.branches[k].length for k in own), 3),
                "branches": len(own),
                "root_mm": forest.branches[own[0]].points[0].round(3).tolist(),
            }
        )
    names = {}
    for name in branch_names.NAMES:
        found = [b for b, other in zip(forest.branches, named.names) if other == name]
        if found:
            length = sum(branch.length for branch in found)
            mean = sum(branch.length * float(branch.radii.mean()) for branch in found) / length
            names[name] = {
                "branches": len(found),
                "length_mm": round(length, 3),
                "radius_mean_mm": round(mean, 3),
            }
    return {
        "case_id": case.case_id,
        "structure": options.structure,
        "labels": case.labels,
        "trees": trees,
        "names": names,
        "loose_parts": sum(not origin for origin in named.origins),
        "specks": forest.specks,
        "speck_mm3": round(forest.speck_mm3, 3),
    }


def _lengths(forest: Forest, words: Sequence[str], branches: Iterable[int]) -> dict[str, float]:
    """Word -> mm of the branches that have it; words : one for each branch of the forest."""
    total: dict[str, float] = {}
    for k in branches:
        total[words[k]] = total.get(words[k], 0.0) + forest.branches[k].length
    return total


def _counted(forest: Forest) -> list[str]:
    """Notes on what was left out or cut."""
    notes = []
    if forest.specks:
        notes.append(f"{forest.specks} specks are no branch ({forest.speck_mm3:.1f} mm^3)")
    return notes


def _is_cut(branch: Branch, cut: Cut | None) -> bool:
    """Whether a branch ends at a plane beyond which the scan shows nothing."""
    if cut is None or branch.forks:
        return False
    return float(cut.depth(branch.points[-1:])[0]) <= branch.radii[-1] + CUT_MM


def _draw(
    path: Path,
    case_id: str,
    label_map: LabelMap,
    table: LabelTable,
    structure: str,
    forest: Forest,
    named: Named,
) -> None:
    """The tree in the colours of its names, the heart around it as a haze."""
    meshes: list[PicturedMesh] = []
    for label in table:
        if label.name != structure:
            meshes += _haze(label_map, label.value, label.color)
    for name, branch in zip(named.names, forest.branches):
        meshes.append((*tube_surface(branch), COLORS[name], 1.0))
    total = _lengths(forest, named.names, range(len(forest.branches)))
    shown = [name for name in branch_names.NAMES if name in total]
    case_picture(
        path,
        meshes,
        legend={f"{name} {total[name]:.0f} mm": COLORS[name] for name in shown},
        title=case_id,
    )


def _haze(label_map: LabelMap, value: int, color: str) -> list[PicturedMesh]:
    box = class_boxes(label_map.data).get(value)
    if box is None:
        return []
    step = -(-max(s.stop - s.start for s in box) // HAZE_VOXELS)
    mesh = surface_of_mask(
        np.ascontiguousarray(label_map.data[box][::step, ::step, ::step] == value),
        label_map.affine,
        functools.partial(blurred_as_large, sigma_vox=1.0),
        pad=3,
        start=[s.start for s in box],
        step=step,
    )
    return [(mesh.vertices, mesh.faces, color, HAZE)]


def tube_surface(branch: Branch) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles of a tube along a branch, open at both ends."""
    last = len(branch.points) - 1
    chosen = np.unique([*range(0, last, DRAWN_STEP), last])
    points, radii = branch.points[chosen], branch.radii[chosen]
    ahead = np.gradient(points, axis=0)
    ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
    side = np.eye(3)[np.abs(ahead[0]).argmin()]
    angles = np.linspace(0, 2 * np.pi, TUBE_SIDES, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rings = []
    for point, radius, way in zip(points, radii, ahead):
        side = side - (side @ way) * way  # carried along the course without a twist
        side /= max(float(np.linalg.norm(side)), 1e-9)
        rings.append(point + radius * circle @ np.stack([side, np.cross(way, side)]))
    corner = np.arange(TUBE_SIDES)
    nearby = (corner + 1) % TUBE_SIDES
    ring = np.concatenate(
        [
            np.stack([corner, nearby, corner + TUBE_SIDES], axis=1),
            np.stack([nearby, nearby + TUBE_SIDES, corner + TUBE_SIDES], axis=1),
        ]
    )
    faces = np.concatenate([ring + k * TUBE_SIDES for k in range(len(points) - 1)])
    return np.concatenate(rings), faces
