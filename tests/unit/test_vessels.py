"""Vessels of generated hearts: trees as channels of a coarse grid, and trees grown from these."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from cardiform import outputs
from cardiform.anatomy.components import count_components
from cardiform.errors import InputError
from cardiform.files import write_text
from cardiform.labels import LabelTable
from cardiform.ldm.cube import class_centroids, heart_centers, on_cube
from cardiform.ldm.data import moved_by
from cardiform.ldm.hearts_on_grid import Grid, taking_part
from cardiform.ldm.vessels.data import moved_tree, smoother
from cardiform.ldm.vessels.draw_case import FOLDERS, is_connected, remove_others
from cardiform.ldm.vessels.field import SIGNAL, Box, Votes, decode, encode
from cardiform.ldm.vessels.figures import compare, lines, sizes
from cardiform.ldm.vessels.fine import dense, draw, fine_cube, finer
from cardiform.ldm.vessels.growth import Limits, grow
from cardiform.ldm.vessels.model import VesselGenerator
from cardiform.ldm.vessels.surroundings import HeartWalls
from cardiform.ldm.vessels.task import VesselTask
from cardiform.ldm.vessels.tree import VesselTree, load_tree, save_tree
from cardiform.options.vessels import VesselOptions
from cardiform.phantom.heart import draw_phantom
from cardiform.volumes import LabelMap

LIMITS = Limits(gap_mm=15.0, branch_mm=6.0, smooth_mm=2.0)
TABLE = taking_part(LabelTable(), ["coronary"])
GRID = Grid("labels", 32, 200.0, TABLE)


@pytest.fixture(scope="module")
def heart():
    """A heart on the coarse grid and on a fine one, and its true tree about the cube's middle."""
    phantom = draw_phantom(5, least_vessel_radius=0.75)
    spacing = 3.0
    low, high = phantom.bounds()
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = low - 6
    shape = tuple(np.ceil((high - low + 12) / spacing).astype(int))
    label_map = LabelMap(phantom.label_map(shape, affine), affine)
    middles = class_centroids(label_map, dict(zip(TABLE.names, TABLE.values)))
    middle = heart_centers([middles], TABLE.names)[0]
    coarse = on_cube(label_map, GRID.cube(middle), TABLE.values)
    fine = fine_cube(GRID.edge_mm, 1.0)
    labels = finer(coarse, GRID.cube(np.zeros(3)), fine)
    branches = [(b.points - middle, b.radii, -1) for b in phantom.coronary_branches()]
    return SimpleNamespace(
        coarse=coarse,
        fine=fine,
        walls=HeartWalls(labels, fine.affine, TABLE),
        true=VesselTree.of_branches(branches),
    )


def apart(a: VesselTree, b: VesselTree) -> tuple[np.ndarray, np.ndarray]:
    """mm from the courses of each to those of the other."""
    one, other = (dense(tree, 0.5)[0] for tree in (a, b))
    return cKDTree(other).query(one)[0], cKDTree(one).query(other)[0]


def straight(start, end, radius=1.0, before=-1) -> VesselTree:
    points = np.linspace(start, end, round(np.linalg.norm(np.subtract(end, start))) + 1)
    return VesselTree.of_branches([(points, np.full(len(points), radius), before)])


def test_a_true_tree_comes_back_from_the_coarse_grid(heart):
    votes = decode(encode(heart.true, GRID.size, GRID.spacing), GRID.size, GRID.spacing)
    found = grow(votes, heart.walls, GRID.spacing, LIMITS)
    assert len(found.tree.roots) == 2 and found.lost == 0
    there, back = apart(found.tree, heart.true)
    # voxels have edges of 6.25 mm, the vessels radii of one or two
    assert there.mean() < 0.6 and back.mean() < 0.8
    assert np.percentile(there, 95) < 2.0 and np.percentile(back, 95) < 3.0
    # where branches begin within another, the true ones count twice
    assert 0.8 < found.tree.length / heart.true.length < 1.05
    true_radii = heart.true.radii[cKDTree(heart.true.points).query(found.tree.points)[1]]
    assert np.abs(np.log(found.tree.radii / true_radii)).mean() < 0.12
    mask = draw(found.tree, heart.fine)
    assert count_components(mask) <= 2
    assert is_connected(mask, heart.walls.aorta & ~mask)


@pytest.mark.parametrize("seed", range(3))
def test_vessels_reach_the_aorta_however_noisy_the_votes_are(heart, seed):
    field = encode(heart.true, GRID.size, GRID.spacing)
    rng = np.random.default_rng(seed)
    votes = decode(field + rng.normal(0, 0.4, field.shape), GRID.size, GRID.spacing)
    found = grow(votes, heart.walls, GRID.spacing, LIMITS)
    mask = draw(found.tree, heart.fine)
    assert is_connected(mask, heart.walls.aorta & ~mask)
    assert count_components(mask) <= 2
    assert apart(found.tree, heart.true)[0].mean() < 3.0


def test_what_lies_too_far_away_is_left_out_and_counted(heart):
    votes = decode(encode(heart.true, GRID.size, GRID.spacing), GRID.size, GRID.spacing)
    astray = np.array([[90.0, 90.0, -90.0], [92.0, 90.0, -90.0]])
    more = Votes(
        np.concatenate([votes.points, astray]),
        np.concatenate([votes.radii, [1.0, 1.0]]),
        np.concatenate([votes.weights, [1.0, 1.0]]),
    )
    found = grow(more, heart.walls, GRID.spacing, LIMITS)
    assert 0 < found.lost < 0.05
    assert cKDTree(found.tree.points).query(astray)[0].min() > 50


def test_gaps_are_bridged_as_far_as_the_limit_says(heart):
    start = heart.walls.nearest_in_root(heart.true.points[:1])[0]
    along = np.array([-1.0, 0.5, 0.5])
    along /= np.linalg.norm(along)
    way = np.concatenate([np.arange(0, 20, 2.0), np.arange(30, 60, 2.0)])
    gapped = Votes(start + way[:, None] * along, np.ones(len(way)), np.ones(len(way)))
    bridged = grow(gapped, heart.walls, GRID.spacing, LIMITS)
    assert bridged.lost == 0 and 4 < bridged.bridged < 12
    assert len(bridged.tree.roots) == 1 and bridged.tree.tips == 1
    assert bridged.tree.length == pytest.approx(58, abs=3)
    cut = grow(gapped, heart.walls, GRID.spacing, Limits(8.0, 6.0, 2.0))
    assert cut.lost == pytest.approx(15 / 25, abs=0.1) and cut.tree.length < 22


def test_hearts_without_an_aorta_or_without_votes_have_no_vessels(heart):
    votes = decode(encode(heart.true, GRID.size, GRID.spacing), GRID.size, GRID.spacing)
    value = TABLE[TABLE.channel("aorta")].value
    without = np.where(heart.walls.labels == value, 0, heart.walls.labels)
    found = grow(votes, HeartWalls(without, heart.fine.affine, TABLE), GRID.spacing, LIMITS)
    assert len(found.tree) == 0 and found.lost == 1
    nothing = decode(encode(VesselTree.nothing(), 32, 6.25), 32, 6.25)
    found = grow(nothing, heart.walls, GRID.spacing, LIMITS)
    assert len(found.tree) == 0 and found.lost == 0
    mask = draw(found.tree, heart.fine)
    assert not mask.any() and not is_connected(mask, heart.walls.aorta)


def test_thin_vessels_are_drawn_in_one_piece():
    tree = straight((-20, -13, 4), (22, 17, -9), radius=0.05)
    assert count_components(draw(tree, fine_cube(60.0, 1.5))) == 1


def test_finer_hearts_keep_volumes_and_classes(heart):
    for value in np.unique(heart.coarse[heart.coarse > 0]):
        before = (heart.coarse == value).sum() * GRID.spacing**3
        after = (heart.walls.labels == value).sum() * heart.fine.spacing**3
        assert after == pytest.approx(before, rel=0.12), value
    assert set(np.unique(heart.walls.labels)) == set(np.unique(heart.coarse))


@pytest.mark.parametrize("ratio", [2, 3])
def test_finer_boxes_do_not_grow_where_the_grids_are_a_whole_number_apart(ratio):
    """All voxels of a side have the same share then: both sides of a box were won."""
    channels = np.zeros((16, 16, 16), np.uint8)
    channels[4:10, 3:9, 4:12], channels[4:10, 9:14, 4:12] = 1, 2
    coarse = fine_cube(64.0, 4.0)
    made = finer(channels, coarse, fine_cube(64.0, 4.0 / ratio))
    for channel in (1, 2):
        true = (channels == channel).sum() * ratio**3
        assert (made == channel).sum() == pytest.approx(true, rel=0.01)


def test_heart_and_tree_move_alike():
    grid = Grid("labels", 32, 64.0, TABLE)
    at = np.array([9.0, -6.0, 12.0])
    block = np.zeros((32, 32, 32), np.uint8)
    low = np.round(at / grid.spacing + 15.5).astype(int) - 1
    block[tuple(slice(k, k + 3) for k in low)] = 1
    middle = (low + 1 - 15.5) * grid.spacing
    move = np.array([0.3, -0.2, 0.25, 0.1, -0.1, 0.05, 0.05, -0.04, 0.03])
    moved = moved_by(torch.from_numpy(block), move).numpy()
    found = (np.argwhere(moved).mean(axis=0) - 15.5) * grid.spacing
    tree = moved_tree(VesselTree(middle[None], np.ones(1), np.array([-1])), move, grid.edge_mm)
    assert np.linalg.norm(tree.points[0] - found) < 0.5 < np.linalg.norm(middle - found)
    assert tree.radii[0] == pytest.approx(np.exp(move[3:6].mean()))


def test_a_blurred_heart_keeps_its_volumes(heart):
    lookup = np.zeros(256, np.uint8)
    lookup[list(TABLE.values)] = np.arange(1, len(TABLE) + 1)
    channels = torch.from_numpy(lookup[heart.coarse])
    assert torch.equal(smoother(channels, -0.5), channels)
    blurred = smoother(channels, 0.8)
    assert not torch.equal(blurred, channels)
    for number in range(1, len(TABLE) + 1):
        assert int((blurred == number).sum()) == pytest.approx(
            int((channels == number).sum()), rel=0.35, abs=3
        )


def test_a_box_holds_what_is_near_to_the_trees(heart):
    box = Box.of([heart.true], GRID.size, GRID.spacing, 4)
    assert all(n % 4 == 0 and 0 < n <= 32 for n in box.size)
    whole = encode(heart.true, GRID.size, GRID.spacing)
    part = encode(heart.true, GRID.size, GRID.spacing, box)
    assert np.array_equal(part, whole[(slice(None), *box.slices)])
    assert (whole[0] > -SIGNAL).sum() == (part[0] > -SIGNAL).sum()
    assert Box.from_lists(box.as_lists()) == box


def test_a_tree_is_cut_into_branches_at_its_forks(tmp_path):
    def line(*ends):
        return np.linspace(*ends, 21)

    trunk, radii = line((0, 0, 0), (20, 0, 0)), np.linspace(2, 1, 21)
    tree = VesselTree.of_branches(
        [
            (trunk, radii, -1),
            (line((20, 0, 0), (20, 20, 0)), radii, 0),
            (line((20, 0, 0), (60, 0, 0)), radii, 0),
        ]
    )
    forest = tree.forest("aorta", np.array([0.0, 0.0, 5.0]))
    assert [round(b.length) for b in forest.branches] == [20, 40, 20]
    assert [b.parent for b in forest.branches] == [-1, 0, 0]
    # the longer way is the same vessel
    assert [b.course for b in forest.branches] == [0, 0, 1]
    assert forest.origins == ("aorta",) and forest.branches[0].forks
    assert np.allclose(forest.branches[0].points[:, 2], 5)
    assert tree.tips == 2 and sizes(tree)["reach_mm"] == pytest.approx(60)
    save_tree(tmp_path / "a.npz", tree, "coronary")
    stored = load_tree(tmp_path / "a.npz")
    assert stored.structure == "coronary" and stored.known
    assert np.allclose(stored.tree.points, tree.points, atol=1e-4)
    save_tree(tmp_path / "a.npz", tree, "coronary", cut=True)
    assert not load_tree(tmp_path / "a.npz").known, "nobody knows where a cut vessel ends"


def test_copies_are_found_and_new_trees_are_not():
    rng = np.random.default_rng(0)

    def some(number):
        ends = rng.normal(0, 10, (number, 3)) + (40, 0, 0)
        return {str(k): straight((0, 0, 0), end) for k, end in enumerate(ends)}

    train, true, new = some(30), some(12), some(8)
    copies = {name: train[name] for name in list(train)[:8]}
    report = {"connected": 1.0, "trees": 1.0, "length_mm": 40.0}
    figures = {"generated": dict.fromkeys(new, report)}
    figures["generated"]["0"] = report | {"length_mm": 2.0}  # a stump at the aorta
    figures["generated"]["1"] = report | {"connected": 0.0}
    found = compare({"generated": new}, figures, true, {}, train)
    assert found["generated"]["copies"] < 0.3
    assert found["generated"]["connected"] == 7 / 8 and found["generated"]["usual"] == 6 / 8
    found = compare({"generated": copies}, figures, true, {}, train)
    assert found["generated"]["copies"] == 1


def test_a_label_table_that_is_not_that_of_the_hearts_is_refused():
    """Its value of the vessels is another class of the hearts, which would be lost."""
    generator = VesselGenerator(VesselOptions(), GRID, "coronary", Box((0,) * 3, (8,) * 3), None)
    assert generator.label_in(LabelTable(), "").value == 9
    coronary = LabelTable()[LabelTable().channel("coronary")]
    other = LabelTable((replace(coronary, value=2), replace(TABLE[1], value=9)))
    with pytest.raises(InputError) as error:
        generator.label_in(other, "other.tsv")
    [line] = error.value.problems
    fact = "coronary has the value 2; in the hearts of the model 2 is left_atrium"
    assert line == f"other.tsv: {fact}; give the label table of its cohort"
    with_own = replace(generator, grid=Grid("labels", 32, 200.0, LabelTable()))
    assert with_own.label_in(LabelTable(), "") == coronary
    with pytest.raises(InputError, match="coronary has the value 2"):
        with_own.label_in(other, "")


def test_hearts_whose_ids_have_dots_keep_their_files(tmp_path):
    """Only what is drawn no more goes: an id may be that of a DICOM series."""
    outputs.register(outputs.Places([tmp_path]))
    names = ["1.2.840.1", "1.2.840.2", "sample_0000"]
    paths = {
        name: [tmp_path / folder / f"{name}{ending}" for folder, ending in FOLDERS.items()]
        for name in names
    }
    for path in [p for own in paths.values() for p in own]:
        write_text(path / "tree.swc" if path.parent.name == "trees" else path, "ours")
    others = [tmp_path / "votes" / "state" / "1.2.840.1.json", tmp_path / "trees" / "summary.tsv"]
    for path in others:
        write_text(path, "no heart's")
    remove_others(tmp_path, names[::2])
    outputs.register(outputs.Places())
    there = [name for name, own in paths.items() for path in own if path.exists()]
    assert there == [name for name in names[::2] for _ in FOLDERS]
    assert all(path.is_file() for path in others)


def test_what_the_grid_keeps_is_measured_by_whole_trees():
    """Neither by those of test cases that the scan cuts, nor by those of which nothing is left."""
    ends = np.random.default_rng(0).normal(0, 10, (9, 3)) + (40, 0, 0)
    trees = {str(k): straight((0, 0, 0), end) for k, end in enumerate(ends)}
    true = {name: trees[name] for name in "012"}
    train = {name: trees[name] for name in "345678"}
    plain = compare({}, {}, true, dict(true), train)["coded"]
    stump = straight((0, 0, 0), (5, 0, 0))
    found = compare({}, {}, true, {**true, "cut": stump, "none": VesselTree.nothing()}, train)
    assert found["coded"] == plain == {**plain, "hearts": 3, "empty": 0, "own_mm": 0}
    lost = compare({}, {}, true, {**true, "0": VesselTree.nothing()}, train)
    json.dumps(lost, allow_nan=False)
    assert lost["coded"]["empty"] == pytest.approx(1 / 3) and lost["coded"]["own_mm"] == 0
    assert lost["coded"]["sizes"]["length_mm"]["mean"] > 30
    nothing = compare({}, {}, true, {"0": VesselTree.nothing()}, train)
    assert nothing["coded"] == {"hearts": 1, "empty": 1} and "coded" in "\n".join(lines(nothing))


def test_the_network_learns_where_the_vessels_run():
    """Of hearts whose vessel follows their one class."""
    torch.manual_seed(0)
    options = VesselOptions(
        channels=(8, 16),
        attention_levels=(False, False),
        num_head_channels=8,
        norm_num_groups=4,
        num_res_blocks=1,
    )
    hearts, fields = [], []
    for height in (2, 5):
        heart = torch.zeros((8, 8, 8), dtype=torch.uint8)
        heart[:, :, height] = 1
        z = height - 3.5
        hearts.append(heart)
        fields.append(torch.from_numpy(encode(straight((-3, 0, z), (3, 0, z)), 8, 1.0)))
    batch = {"case_id": ["a", "b"], "heart": torch.stack(hearts), "field": torch.stack(fields)}
    task = VesselTask(options, 1)
    optimiser = torch.optim.AdamW(task.network.parameters(), 5e-3)
    before = task.evaluate([batch])
    for step in range(40):
        optimiser.zero_grad()
        task.loss(batch, "model", step)[0].backward()
        optimiser.step()
    after = task.evaluate([batch])
    assert after["loss"] < 0.6 * before["loss"]
    assert after["vessel_loss"] < before["vessel_loss"]
