"""Real coronary trees that nobody corrupted: the repair leaves them as they are, and coarse grids
keep them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.spatial import cKDTree

from cardiform.anatomy.components import components, count_components
from cardiform.cohort.table import Case
from cardiform.coronary.repair_case import repair_case
from cardiform.coronary.thin_structure import ThinStructure
from cardiform.coronary.trace_case import traced_with_cut
from cardiform.labels import LabelTable
from cardiform.ldm.cube import class_centroids, heart_centers, on_cube
from cardiform.ldm.hearts_on_grid import Grid, taking_part
from cardiform.ldm.vessels.draw_case import is_connected
from cardiform.ldm.vessels.field import decode, encode
from cardiform.ldm.vessels.fine import dense, draw, fine_cube, finer
from cardiform.ldm.vessels.growth import Limits, grow
from cardiform.ldm.vessels.surroundings import HeartWalls
from cardiform.ldm.vessels.tree import VesselTree
from cardiform.options.coronary import CoronaryRepairOptions, CoronaryTraceOptions
from cardiform.volumes import load_label_map

TABLE = LabelTable()
CORONARY = TABLE[TABLE.channel("coronary")].value


def repaired(path, out):
    """Given and repaired structure on their own grid, and the report."""
    case = Case(case_id="tree", patient_id="tree", labels=str(path))
    repair_case(case, table=TABLE, options=CoronaryRepairOptions(), out=out)
    given = load_label_map(path).data == CORONARY
    return given, load_label_map(out / "tree.nii.gz").data > 0, json.loads(
        (out / "tree.json").read_text()
    )  # fmt: skip


def kept(given, made):
    assert count_components(made) == count_components(given)
    assert made.sum() == pytest.approx(given.sum(), rel=0.03)
    assert 2 * (made & given).sum() / (made.sum() + given.sum()) > 0.97


def test_two_whole_trees(tmp_path, real_hearts):
    """Left and right tree of an anatomical model, both at the aorta."""
    given, made, report = repaired(real_hearts / "anatomy_ten_classes.nii.gz", tmp_path)
    assert count_components(given) == report["components_after"] == 2
    kept(given, made)
    thin = ThinStructure.load(tmp_path / "tree.npz")
    labelled, voxels = components(thin.repaired)
    assert len(voxels) == 3
    assert set(np.unique(labelled[thin.roots])) == {0, 1, 2}, "each springs from the aorta"
    assert np.bincount(labelled[thin.roots])[1:].max() < 0.1 * voxels[1:].min()


def test_a_vessel_in_slices_of_3_mm(tmp_path, real_data):
    given, made, report = repaired(real_data / "thorax_heart1_lad9.nii.gz", tmp_path)
    assert count_components(given) == 1 and report["bridges"] == 0
    kept(given, made)


def test_two_real_trees_come_back_from_a_grid_of_generated_hearts(real_hearts):
    """Voxels of 6.25 mm, vessels a third as wide, about thirty ends."""
    case = Case(case_id="a", patient_id="a", labels=str(real_hearts / "anatomy_ten_classes.nii.gz"))
    forest, cut = traced_with_cut(case, table=TABLE, options=CoronaryTraceOptions())
    assert not cut
    others = taking_part(TABLE, ["coronary"])
    grid = Grid("labels", 32, 200.0, others)
    label_map = load_label_map(case.labels)
    middles = class_centroids(label_map, dict(zip(others.names, others.values)))
    cube = grid.cube(heart_centers([middles], others.names)[0])
    true = VesselTree.of_forest(forest, cube.center)
    fine = fine_cube(grid.edge_mm, 1.0)
    coarse = on_cube(label_map, cube, others.values)
    walls = HeartWalls(finer(coarse, grid.cube(np.zeros(3)), fine), fine.affine, others)
    votes = decode(encode(true, grid.size, grid.spacing), grid.size, grid.spacing)
    found = grow(votes, walls, grid.spacing, Limits(15.0, 5.0, 2.0))
    assert found.lost == 0 and len(found.tree.roots) == len(true.roots) == 2
    assert 0.9 < found.tree.length / true.length < 1.05
    there, here = (dense(tree, 0.5)[0] for tree in (true, found.tree))
    assert cKDTree(here).query(there)[0].mean() < 0.5
    assert cKDTree(there).query(here)[0].mean() < 0.5
    mask = draw(found.tree, fine)
    assert count_components(mask) == 2
    assert is_connected(mask, walls.aorta & ~mask)
