"""The vessels of one heart: drawn, measured and written, beside its other classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ... import outputs
from ...anatomy.components import components, count_components
from ...anatomy.tree import Forest
from ...cohort.table import Case
from ...errors import InputError, again, problem
from ...files import write_json
from ...formats import Format
from ...geometry.frame import apply_affine
from ...labels import LabelClass, LabelTable
from ...options.vessels import ORIGIN
from ...volumes import LabelMap, load_label_map, save_label_map
from ..hearts_on_grid import Grid
from .calibre import Calibre
from .field import Votes, decode, encode, load_votes
from .fine import draw, fine_cube, finer
from .growth import Grown, Limits, grow
from .surroundings import HeartWalls
from .tree import VesselTree, load_tree, save_tree

DRAWN = Format(
    "drawn-vessels",
    {
        "case_id": "text",
        "structure": "text",
        "vessels": "object",
        "vessels.*": "number",
        "format_version": "integer",
    },
    again("draw_vessels", "draw_set_vessels"),
)
# Folder -> what the names of its files end with, after that of the heart
FOLDERS = {"walls": ".nii.gz", "votes": ".npz", "nifti": ".nii.gz", "trees": "", "figures": ".json"}
# forest, label map with all classes -> files of the trees, written to a folder
Writer = Callable[[str, Path, Forest, LabelMap, LabelTable], list[Path]]


@dataclass(frozen=True)
class Canvas:
    """A heart on the fine grid.

    walls : its classes but for the vessels.    middle : (3,) RAS mm of its cube.
    """

    walls: HeartWalls
    middle: np.ndarray
    spacing: float
    size: int


def draw_case(
    case: Case,
    *,
    votes: Mapping[str, Path],
    canvas: Callable[[Case], Canvas],
    spacing: float,
    label: LabelClass,
    limits: Limits,
    write_trees: Writer,
    out: Path,
    calibre: Calibre | None = None,
    coded: Callable[[str], Votes | None] | None = None,
) -> list[Path]:
    """Write ``out/nifti/<case>.nii.gz``, ``out/trees/<case>/`` and ``out/figures/<case>.json``.

    The label map lies in the place of the heart, in fine voxels; it has all classes of the heart,
    and the vessels.

    votes : case id -> what is said of its vessels.    canvas : case -> its heart.
    spacing : mm between votes, within which they are neighbours.    label : of the vessels.
    write_trees : writes the trees for people.    calibre : radii, where the votes tell none.
    coded : case id -> its own tree as votes; ``trees/<case>/coded.npz`` is what these keep of it.
    """
    name = case.case_id
    heart = canvas(case)
    grown = grow(load_votes(votes[name]), heart.walls, spacing, limits)
    if calibre:
        grown = replace(grown, tree=calibre.of(grown.tree))
    labels, mask = _labelled(grown.tree, heart, label)
    affine = heart.walls.affine.copy()
    affine[:3, 3] += heart.middle
    path = out / "nifti" / f"{name}.nii.gz"
    save_label_map(path, labels, affine)
    folder = out / "trees" / name
    save_tree(folder / "tree.npz", grown.tree, label.name)
    table = _with(heart.walls.table, label)
    forest = grown.tree.forest(ORIGIN, heart.middle)
    paths = [path, folder / "tree.npz"]
    paths += write_trees(name, folder, forest, LabelMap(labels, affine), table)
    if coded and (known := coded(name)) is not None:
        paths.append(folder / "coded.npz")
        save_tree(paths[-1], grow(known, heart.walls, spacing, limits).tree, label.name)
    figures = out / "figures" / f"{name}.json"
    content = {
        "case_id": name,
        "structure": label.name,
        "vessels": figures_of(grown, mask, heart),
        "format_version": DRAWN.version,
    }
    write_json(figures, content)
    return [*paths, figures]


def on_grid(case: Case, grid: Grid, label: LabelClass, spacing: float) -> Canvas:
    """The heart of a case's label map on the coarse grid."""
    return canvas_of(case.labels, grid, label, spacing)


def coded_on_grid(name: str, trees: Mapping[str, Path], grid: Grid) -> Votes | None:
    """What perfect votes of the coarse grid would say of a tree; None where it is not known."""
    if name not in trees:
        return None
    field = encode(load_tree(trees[name]).tree, grid.size, grid.spacing)
    return decode(field, grid.size, grid.spacing)


def canvas_of(path: str | Path, grid: Grid, label: LabelClass, spacing: float) -> Canvas:
    """The heart of a file on the grid, without the vessels' own class, in finer voxels."""
    given = load_label_map(path)
    if given.data.shape != (grid.size,) * 3:
        fact = f"has the shape {given.data.shape}, the grid {grid.size} voxels along each edge"
        raise InputError(problem(path, fact, "make it again"))
    middle = apply_affine(given.affine, (np.array([given.data.shape]) - 1) / 2)[0]
    fine = fine_cube(grid.edge_mm, spacing)
    heart = np.where(given.data == label.value, 0, given.data)
    labels = finer(heart, grid.cube(np.zeros(3)), fine)
    return Canvas(HeartWalls(labels, fine.affine, grid.table), middle, spacing, fine.size)


def figures_of(grown: Grown, mask: np.ndarray, canvas: Canvas) -> dict[str, float]:
    """What is measured of the vessels of one heart.

    connected : 1 where all voxels of vessels hang together with the aorta.    parts : of the
    vessels' mask.    trees, length_mm, ends, radius_mm : of the centrelines.    lost, bridged_mm :
    see :class:`.growth.Grown`.    inside : share of the centreline within the other classes.
    """
    tree = grown.tree
    weight = tree.steps.sum()
    radius = float((tree.radii * tree.steps).sum() / weight) if weight else 0.0
    return {
        "connected": float(is_connected(mask, canvas.walls.aorta & ~mask)),
        "parts": count_components(mask),
        "trees": len(tree.roots),
        "length_mm": tree.length,
        "ends": tree.tips,
        "radius_mm": radius,
        "lost": grown.lost,
        "bridged_mm": grown.bridged,
        "inside": float(canvas.walls.inside(tree.points).mean()) if len(tree) else 0.0,
    }


def is_connected(mask: np.ndarray, aorta: np.ndarray) -> bool:
    """Whether there are vessels, and each part of them touches the aorta.

    mask, aorta : (X, Y, Z) bool.
    """
    if not mask.any():
        return False
    labelled, voxels = components(mask | aorta)
    with_aorta = np.zeros(len(voxels), bool)
    with_aorta[labelled[aorta]] = True
    return bool(with_aorta[labelled[mask]].all())


def _labelled(tree: VesselTree, canvas: Canvas, label: LabelClass) -> tuple[np.ndarray, np.ndarray]:
    """The label map with the vessels, and their mask."""
    fine = fine_cube(canvas.size * canvas.spacing, canvas.spacing)
    mask = draw(tree, fine)
    labels = canvas.walls.labels.copy()
    labels[mask] = label.value
    return labels, mask


def _with(table: LabelTable, label: LabelClass) -> LabelTable:
    others = [c for c in table if c.name != label.name]
    return LabelTable(tuple(sorted([*others, label], key=lambda c: c.value)))


def remove_others(out: Path, names: Iterable[str]) -> None:
    """Delete the files of hearts that are drawn no more: of a run that had more of them."""
    kept = {*names, "state"}  # beside the hearts, which cannot be called like that
    for folder, ending in FOLDERS.items():
        for path in (out / folder).glob(f"*{ending}"):
            of_heart = bool(ending) or path.is_dir()  # trees: a folder each
            if of_heart and path.name.removesuffix(ending) not in kept:  # ids may have dots
                outputs.remove(path)
