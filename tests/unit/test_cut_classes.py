"""What is left out because the scan cuts it: of losses, means, norms and verdicts."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bands import ball_band, write_cohort
from points_files import write_points_file
from thin import CARDIFORM, NEAR, REPAIR, cohort_of, structure

from cardiform.anatomy.beyond import joined
from cardiform.anatomy.validity import Anatomy
from cardiform.cohort import per_case
from cardiform.cohort.checks import check_case, check_cases, judge, notes, summarise
from cardiform.cohort.manifest import MadeFile
from cardiform.cohort.table import Case, read_case_table, read_checked_cases, write_cases
from cardiform.completion.figures import summarise as summarise_completion
from cardiform.completion.figures import table_of_summary as table_of_completion
from cardiform.coronary.data import NearDataset, PatchDataset
from cardiform.coronary.thin_structure import PackedMask
from cardiform.coronary.train import repaired_files
from cardiform.errors import InputError
from cardiform.files import read_json, save_npz, write_json
from cardiform.fusion.summary import summarise as summarise_fusion
from cardiform.geometry.field_of_view import Cut, Plane, cuts_of, larger_grid
from cardiform.geometry.narrowband import NarrowBand
from cardiform.held_out import summarise as summarise_held_out
from cardiform.held_out import table_of_figures
from cardiform.labels import LabelTable
from cardiform.ldm.complete import ClassFrequencies
from cardiform.ldm.encode import statistics_of
from cardiform.ldm.evaluate import References, evaluate
from cardiform.ldm.evaluate import table_of_figures as table_of_sets
from cardiform.ldm.hearts_on_grid import LABELS, Grid, box_case, cut_classes, resample_case
from cardiform.ldm.set_figures import HeartSet, validity
from cardiform.options.ldm import GenerationOptions
from cardiform.options.vecset import VecsetOptions
from cardiform.options.vqvae import VqvaeOptions, VqvaePretrainOptions
from cardiform.vecset.data import CasePoints, Draw, PointDataset, load_case_points
from cardiform.vecset.inputs import Labelled
from cardiform.vecset.train import planes_of
from cardiform.volumes import LabelMap, save_label_map
from cardiform.vqvae.data import VoxelDataset, collate, find_instances
from cardiform.vqvae.model import SparseVQVAE
from cardiform.vqvae.reconstruct import band_figures, solid_of
from cardiform.vqvae.task import VqvaeTask, band_of

TABLE = LabelTable(LabelTable().classes[:3])
GRID = Grid(LABELS, 8, 16.0, TABLE)
HIDDEN = np.array([False, False, True])


# --- the case table ------------------------------------------------------------------------


def test_the_column_cut_goes_through_the_checked_table(tmp_path):
    table = tmp_path / "cases.tsv"
    rows = ["case_id\tlabels\tcut", "a\ta.nii.gz\taorta, coronary", "b\tb.nii.gz\t", "c\tc\tNone"]
    table.write_text("\n".join(rows) + "\n")
    cases = read_case_table(table)
    assert [c.cut for c in cases] == ["aorta coronary", "", "none"]
    assert cases[0].cut_classes(["left_atrium", "aorta"]) == ["left_atrium", "aorta", "coronary"]
    assert cases[1].cut_classes(["aorta"]) == ["aorta"] and cases[2].cut_classes(["aorta"]) == []
    write_cases(tmp_path / "checked.tsv", cases)
    assert read_checked_cases(tmp_path / "checked.tsv") == cases
    write_cases(tmp_path / "plain.tsv", cases[1:2])
    header = (tmp_path / "plain.tsv").read_text().splitlines()[0]
    assert header.split("\t")[-1] == "reason", "as it always was"


def test_an_entry_in_the_column_makes_a_case_again_and_no_other(tmp_path):
    made = []
    for cut in ("", "", "aorta"):
        (tmp_path / "a").write_text("a")
        case = Case(case_id="a", patient_id="a", labels=str(tmp_path / "a"), cut=cut)

        def work(found):
            made.append(found.cut)
            (tmp_path / "out").write_text("")
            return [tmp_path / "out"]

        run = per_case.CaseRun([case], tmp_path, tmp_path / "manifest.tsv")
        per_case.run_cases(run, work, inputs=lambda c: [c.labels], parameters={})
    assert made == ["", "aorta"]


@pytest.fixture
def scans(tmp_path):
    """Three scans of two boxes: all whole, one cut by the border, one cut as the table says."""
    cases = []
    for name, start, cut in (("whole", 2, ""), ("border", 0, ""), ("listed", 2, "left_atrium")):
        data = np.zeros((10, 10, 10), np.uint8)
        data[start : start + 4, 2:6, 2:6] = 2
        data[7:9, 2:6, 2:6] = 3
        save_label_map(tmp_path / f"{name}.nii.gz", data, np.eye(4))
        path = str(tmp_path / f"{name}.nii.gz")
        cases.append(Case(case_id=name, patient_id=name, labels=path, cut=cut))
    return cases


def test_volumes_of_the_cohort_are_those_of_whole_classes(scans, tmp_path):
    for case in scans:
        check_case(case, TABLE, tmp_path / "qc")
    reports = [read_json(tmp_path / "qc" / f"{c.case_id}.json") for c in scans]
    found = summarise(reports, TABLE)
    assert found["left_atrium"]["cases"] == 3 and found["left_atrium"]["cut"] == 2
    assert found["left_atrium"]["volume_ml"]["sd"] == 0
    assert "cut" not in found["left_ventricle"]
    lines = "\n".join(notes(reports))
    assert "left_atrium is cut by the image border: 1 of the cases (border)" in lines
    assert "left_atrium is cut as the case table says: 1 of the cases (listed)" in lines
    assert summarise(reports[1:], TABLE)["left_atrium"]["volume_ml"] is None


def test_a_class_that_the_label_table_lacks_is_refused(scans, tmp_path):
    cases = [dataclasses.replace(scans[0], cut="appendage left_atrium none")]
    manifest = tmp_path / "qc" / "manifest.tsv"
    check_cases(cases, TABLE, out=tmp_path / "qc", manifest=manifest, processes=1)
    found = {"whole": tmp_path / "qc" / "cases" / "whole.json"}
    with pytest.raises(InputError, match=r"column cut.*appendage, none is no class") as caught:
        judge(cases, found, on_bad_case="stop", max_bad_cases=0)
    assert "names of myocardium, left_atrium, left_ventricle" in str(caught.value)


# --- losses --------------------------------------------------------------------------------


def test_a_distance_that_is_far_enough_is_as_good_as_known(tmp_path):
    """Clipped at 0.1: what is at least 0.2 away is outside for sure, whatever is behind."""
    points = np.zeros((3, 3), np.float32)
    sdf = np.array([[0.05], [np.nan], [np.nan]], np.float16)
    least = np.array([[np.nan], [0.2], [-0.05]], np.float16)
    values = np.array([1], np.uint8)
    path = write_points_file(
        tmp_path / "a.npz",
        surface_points=points, surface_labels=np.ones(3, np.uint8),
        near_points=points, near_sdf=sdf, near_labels=np.ones(3, np.uint8),
        volume_points=points, volume_sdf=sdf, annotated=np.ones(1, bool), class_values=values,
        cut=np.ones(1, bool), near_least=least, volume_least=least,
    )  # fmt: skip
    table = LabelTable(TABLE.classes[:1])
    case = load_case_points(path, "a", table, truncation=0.1)
    np.testing.assert_allclose(case.volume_sdf[:2, 0], [0.05, 0.2], rtol=1e-3)
    assert np.isnan(case.volume_sdf[2, 0]), "too near for a verdict"
    np.testing.assert_array_equal(case.near_sdf, case.volume_sdf)
    assert case.volume.channels.tolist() == [1, 1, 1]
    assert np.isnan(load_case_points(path, "a", table).volume_sdf[1:]).all()


NETWORK = VqvaeOptions(channels=(8, 8, 8, 16), blocks=(1, 0, 0, 1), latent_dim=6, max_voxels=20_000)


def test_what_is_made_on_a_cap_costs_nothing(tmp_path):
    manifest = write_cohort(tmp_path, {"a": [0.4]})
    path = tmp_path / "sparse" / "a" / "ball0.npz"
    band = NarrowBand.load(path)
    known = band.coords[:, 0] < 16
    dataclasses.replace(band, known=known).save(path)
    data = VoxelDataset(find_instances([manifest], ["a"]), 20_000, augment=True)
    turned = data[0, 3]
    assert 0.3 < float(turned["known"].float().mean()) < 0.7
    places = turned["coords"][turned["known"]].float()
    spread = places.max(dim=0).values - places.min(dim=0).values
    assert spread.min() < 0.6 * spread.max(), "the known half goes along"
    batch = collate([data[0, 0], {k: v for k, v in data[0, 1].items() if k != "known"}])
    assert batch["known"][-len(band.sdf) :].all(), "a whole one is known throughout"
    torch.manual_seed(0)
    task = VqvaeTask(SparseVQVAE.from_options(NETWORK), NETWORK, VqvaePretrainOptions())
    with torch.no_grad():
        decoded, _, _ = task.model(band_of(batch))
    before = task._terms(batch, decoded, None)
    hidden = ~batch["known"]
    batch["sdf"][hidden] = 0.77
    assert float(task._terms(batch, decoded, None)["recon"]) == float(before["recon"])
    counts = task._known_children(batch)[-1]
    decoded.logits[-1].data[~counts] += 5.0
    assert float(task._terms(batch, decoded, None)["structure"]) == float(before["structure"])
    decoded.logits[-1].data[counts] += 5.0
    assert float(task._terms(batch, decoded, None)["structure"]) != float(before["structure"])
    occupied = task._occupied(batch)[-1]
    parents_known = counts.all(dim=1)
    assert parents_known.any() and not parents_known.all()
    assert not (counts & ~occupied)[~parents_known].any(), "an empty child may be behind the cut"


def test_figures_of_a_band_leave_its_cap_out():
    band = ball_band(0.4)
    known = band.coords[:, 0] < 16
    cut = dataclasses.replace(band, known=known)
    wrong = np.where(known, band.sdf, -band.sdf)
    figures = band_figures(cut, band.coords, solid_of(band.coords, wrong, band))
    assert figures["l1_voxels"] < 1e-3 and figures["sign_iou"] == 1
    figures = band_figures(cut, band.coords[known], solid_of(band.coords, band.sdf, band))
    assert figures["structure_recall"] == figures["structure_precision"] == 1
    nothing = dataclasses.replace(band, known=np.zeros(len(band.sdf), bool))
    assert band_figures(nothing, band.coords, solid_of(band.coords, band.sdf, band)) == {}


def thin_file(folder, cut_at: float) -> MadeFile:
    """A vessel along x that ends at a plane of its own grid."""
    thin = structure(1)
    planes = (Plane(0, 1, cut_at),)
    path = folder / "thin.npz"
    dataclasses.replace(thin, cut=Cut(planes, thin.affine)).save(path)
    return MadeFile("thin", path, "")


def test_no_point_of_a_vessel_lies_behind_the_cut(tmp_path):
    whole = MadeFile("whole", tmp_path / "whole.npz", "")
    structure(1).save(whole.path)
    assert PackedMask.load(whole.path, "label").slopes is None
    line = PackedMask.load(whole.path, "label").line
    middle = float(np.median(line[:, 0]))
    file = thin_file(tmp_path, middle)
    packed = PackedMask.load(file.path, "label")
    np.testing.assert_allclose(
        packed.depth(np.array([[middle - 3, 0, 0], [middle + 2, 5, 5]])),
        packed.spacing * np.array([2.0, -3.0]),
        atol=1e-6,
    )
    near = NearDataset([file], NEAR)[0, 0]["points"].numpy()
    shape = np.array(packed.shape)
    assert ((near + 1) / 2 * (shape - 1))[:, 0].max() < middle
    counts = {
        f.case_id: [len(PatchDataset([f], REPAIR, CARDIFORM)[0, d]["values"]) for d in range(8)]
        for f in (whole, file)
    }
    assert set(counts["whole"]) == {CARDIFORM.points}
    assert min(counts["thin"]) < CARDIFORM.points and max(counts["thin"]) > 0
    # a cut that lies beyond the patch changes nothing of it
    far = PatchDataset([thin_file(tmp_path, 1000.0)], REPAIR, CARDIFORM)[0, 2]
    same = PatchDataset([whole], REPAIR, CARDIFORM)[0, 2]
    assert torch.equal(far["points"], same["points"]) and torch.equal(far["values"], same["values"])


def test_a_vessel_that_is_cut_nobody_knows_where_is_not_trained_on(tmp_path, caplog):
    files = cohort_of(tmp_path, 2)
    thin = structure(0)
    unplaced = Cut((), thin.affine)
    dataclasses.replace(thin, cut=unplaced).save(files[0].path)
    places = np.zeros((2, 3))
    packed = PackedMask.load(files[0].path, "label")
    np.testing.assert_array_equal(packed.depth(places), unplaced.depth(places))
    assert (packed.depth(places) == -np.inf).all()
    for name, cases in (("train", ["c0", "c1"]), ("one", ["c0"])):
        rows = ["case_id,patient_id,path", *(f"{case},{case},x" for case in cases)]
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n")
    both, one = tmp_path / "train.csv", tmp_path / "one.csv"
    found = repaired_files([tmp_path / "manifest.tsv"], both, one)
    assert [f.case_id for f in found["train"]] == ["c1"] and found["validation"] == []
    assert "train: left out, cut, and ending flat nowhere: c0" in caplog.text
    with pytest.raises(InputError, match=r"one\.csv: has no case that can be trained on \(cut, "):
        repaired_files([tmp_path / "manifest.tsv"], one, both)


# --- means and verdicts --------------------------------------------------------------------


def held_out_case(folder, name: str, dice: float, cut: list[str]) -> None:
    row = {"dice": dice, "volume_error": 0.0, "assd_mm": 1.0, "hd95_mm": 2.0}
    figures = {m: {n: dict(row) for n in TABLE.names} for m in ("model", "mean_shape")}
    write_json(folder / name / "figures.json", figures | ({"cut": cut} if cut else {}))


def test_whole_and_cut_classes_have_rows_of_their_own(tmp_path):
    held_out_case(tmp_path, "a", 0.9, [])
    held_out_case(tmp_path, "b", 0.5, ["left_atrium"])
    parts = {"validation": ["a"], "test": ["a", "b"]}
    found = summarise_held_out(parts, tmp_path, ("model", "mean_shape"))
    assert "cut_cases" not in found["validation"] and "cut" not in found["validation"]["model"]
    test = found["test"]
    assert test["model"]["mean"]["left_atrium"]["dice"] == 0.9
    assert test["model"]["mean"]["myocardium"]["dice"] == pytest.approx(0.7)
    assert test["model"]["cut"] == {"left_atrium": {**test["model"]["cut"]["left_atrium"]}}
    assert test["model"]["cut"]["left_atrium"]["dice"] == 0.5
    assert test["cut_cases"] == {"left_atrium": 1}
    lines = table_of_figures(test, TABLE.names, "mean_shape").splitlines()
    row = next(line for line in lines if line.startswith("left_atrium, cut in 1"))
    assert "0.500" in row and sum(line.startswith("left_atrium") for line in lines) == 2


def test_cut_classes_of_long_names_have_rows_of_their_own():
    names = [f"right_upper_pulmonary_vein_{k}" for k in "ab"]
    figures = {"dice": 0.5, "assd_mm": 1.0, "hd95_mm": 2.0, "missed": 0.0, "volume_error": 0.1}
    rows = dict.fromkeys(names, figures)
    groups = {"chambers_and_great_vessels": figures, "all_classes": figures}
    method = {"mean": rows, "cut": rows, **groups}
    part = {"model": method, "mean_shape": method, "cut_cases": dict.fromkeys(names, 1)}
    means = dict.fromkeys(names, dict.fromkeys(("model", "mean_shape"), figures))
    tables = (
        table_of_figures(part, names, "mean_shape").splitlines(),
        table_of_completion({"mean": means, "cut": means}),
    )
    for lines in tables:
        for name in names:
            assert sum(line.startswith(name) for line in lines) == 2, "whole, and cut"
        assert len(set(map(len, lines))) == 1, "its columns are straight"


def test_completion_has_the_same_two_rows(tmp_path):
    for name, dice, cut in (("a", 0.8, {}), ("b", 0.2, {"cut": True})):
        row = {m: {"dice": dice, "volume_error": -dice} for m in ("model", "mean_shape")}
        write_json(tmp_path / f"{name}.json", {"aorta": row | cut})
    found = summarise_completion(["a", "b"], tmp_path, ["aorta"])
    assert found["mean"]["aorta"]["model"] == {"dice": 0.8, "volume_error": 0.8}
    assert found["cut"]["aorta"]["model"]["dice"] == 0.2
    assert "cut" not in summarise_completion(["a"], tmp_path, ["aorta"])


def heart(third=(5, 7)) -> np.ndarray:
    data = np.zeros((8, 8, 8), np.uint8)
    data[1:5, 1:5, 1:5], data[2:4, 2:4, 2:4] = 1, 2
    data[third[0] : third[1], 1:5, 1:5] = 3
    return data


def learned(hearts, parts) -> Anatomy:
    return Anatomy.of(zip(hearts.hearts, hearts.known), parts)


def test_a_cut_class_is_not_judged_and_teaches_no_rule():
    apart = heart((6, 8))  # the third class seems to touch nothing, but it goes on elsewhere
    train, parts = [heart(), heart(), apart], [range(1, 2)] * 3
    assert not learned(HeartSet.real(train, 3), parts).touching[0, 2]
    anatomy = learned(HeartSet.real(train, 3, [None, None, HIDDEN]), parts)
    assert anatomy.touching[0, 2] and anatomy.touching[0, 1]
    split = apart.copy()
    split[0, 0, 0] = 3
    assert validity(HeartSet.real([split], 3), anatomy)["valid"] == 0
    assert validity(HeartSet.real([split], 3, [HIDDEN]), anatomy)["valid"] == 1
    never = learned(HeartSet.real([heart()], 3, [HIDDEN]), parts)
    assert not never.touching[:, 2].any() and not never.apart[:, 2].any()


def test_classes_that_are_cut_count_nowhere():
    real = [heart(), heart((5, 8)), heart((5, 6))]
    options = GenerationOptions(points=16)
    plain = evaluate(real, References(real, real, real), GRID, options)
    cuts = [None, HIDDEN, HIDDEN]
    cut = evaluate(real, References(real, real, real, cuts, cuts), GRID, options)
    assert plain["autoencoder"]["volumes"]["classes"]["left_ventricle"]["w1"] == 0
    assert cut["autoencoder"]["volumes"]["classes"]["left_ventricle"]["w1"] is None
    assert cut["cut"]["test"] == {"myocardium": 0, "left_atrium": 0, "left_ventricle": 2}
    assert "cut" not in plain
    assert "test hearts, left_ventricle 2" in "\n".join(table_of_sets(cut))
    names = set(cut["autoencoder"]["classes"])
    assert names == {"myocardium", "left_atrium"}, "of a single whole one there is no figure"


def test_boxes_say_what_is_cut_and_voxels_of_it_make_no_mean_shape(scans, tmp_path):
    grid = Grid(LABELS, 16, 16.0, TABLE)
    voxels, paths = tmp_path / "voxels", []
    for case in scans:
        box_case(case, table=TABLE, out=voxels / "boxes")
        paths += resample_case(case, grid=grid, boxes=voxels / "boxes", out=voxels)
    assert "cut" not in read_json(voxels / "boxes" / "whole.json")
    found = cut_classes(voxels / "manifest.tsv", [c.case_id for c in scans], grid)
    assert {k: v.tolist() for k, v in found.items()} == {
        "border": [False, True, False], "listed": [False, True, False]
    }  # fmt: skip
    completer = SimpleNamespace(generator=SimpleNamespace(grid=grid))
    cut = [found.get(c.case_id) for c in scans]
    mean = ClassFrequencies.of(paths, completer, cut).share
    alone = ClassFrequencies.of(paths[:1], completer).share
    np.testing.assert_allclose(mean[1], alone[1], atol=1e-6)
    plain = ClassFrequencies.of(paths, completer).share
    assert np.abs(plain[1] - alone[1]).max() > 0.1
    np.testing.assert_array_equal(mean[2], plain[2])


def test_norms_are_those_of_whole_classes(tmp_path):
    files = {}
    for name, third, cut in (("a", (5, 7), None), ("b", (5, 6), HIDDEN)):
        files[name] = tmp_path / f"{name}.npz"
        counts = [(heart(third) == k).sum() for k in (1, 2, 3)]
        save_npz(
            files[name],
            mu=np.ones((1, 2, 2, 2, 2), np.float32),
            sigma=np.ones((1, 2, 2, 2, 2), np.float16),
            target=heart(third)[None],
            volumes=np.array([counts], np.float32),
            format_version=np.int64(1),
            **({} if cut is None else {"cut": cut}),
        )
    coder = SimpleNamespace(grid=GRID, latent_shape=(2, 2, 2, 2))
    found = statistics_of(files, ["a", "b"], coder, "")
    assert found.volume_mean[2] == 32 and found.volume_mean[1] == 8
    alone = statistics_of({"a": files["a"]}, ["a"], coder, "")
    assert found.centroids["left_ventricle"] == alone.centroids["left_ventricle"]
    assert not found.incomplete


def test_a_cut_class_has_no_expected_number_of_parts():
    row = {
        "dice_before_after": 1.0, "components_before": 3, "components_after": 3,
        "components_expected": 1,
    }  # fmt: skip
    reports = {
        name: {"rules": [], "classes": {"aorta": row | cut}}
        for name, cut in (("a", {}), ("b", {"cut": True}))
    }
    found = summarise_fusion(reports)["classes"]["aorta"]
    assert found["unexpected_before"] == 1 and found["cut"] == 1 and found["cases"] == 2


# --- completion ----------------------------------------------------------------------------


def points_case(case_id: str, planes=None) -> CasePoints:
    rng = np.random.default_rng(0)
    way = rng.normal(size=(400, 3))
    sphere = (0.8 * way / np.linalg.norm(way, axis=1, keepdims=True)).astype(np.float32)
    kinds = rng.integers(0, 2, 400).astype(np.uint8)
    labelled = Labelled.of(sphere, kinds, np.array([0.2, 0.8]))
    sdf = np.zeros((400, 2), np.float16)
    return CasePoints(case_id, labelled, labelled, sdf, labelled, sdf, np.ones(2, bool), planes)


def test_whole_hearts_are_encoded_as_if_they_were_cut_where_others_are():
    planes = np.array([[0.0, 0.0, -1.0, 0.3]])  # z up to 0.3 is seen
    cases = [points_case("whole"), points_case("cut", planes)]
    draw = Draw(
        input_points=64, volume_queries=8, near_queries=8, surface_queries=64, balanced=0.5,
        latents=8,
    )  # fmt: skip
    tops = []
    for number in range(40):
        item = PointDataset(cases, draw, completing=True)[0, number]
        tops.append(float(item["points"][:, 2].max()))
        assert item["surface"][:, 2].max() > 0.5, "what lies behind is asked for"
    as_if = np.array(tops) <= 0.3 + 1e-6
    assert 0.25 < as_if.mean() < 0.75, "as often as the scans of the cohort are cut"
    for items in (PointDataset(cases, draw), PointDataset(cases[:1], draw, completing=True)):
        assert all(items[0, k]["points"][:, 2].max() > 0.5 for k in range(10))
    plain, same = PointDataset(cases, draw)[0, 3], PointDataset(cases[:1], draw, completing=True)
    for name, array in plain.items():
        np.testing.assert_array_equal(array, same[0, 3][name])
    away = [points_case("whole"), points_case("cut", np.array([[0.0, 0.0, -1.0, -0.9]]))]
    assert len(PointDataset(away, draw, completing=True)[0, 1]["points"]) == 64
    all_cut = PointDataset([cases[1], points_case("other", planes)], draw, completing=True)
    tops = np.array([float(all_cut[0, k]["points"][:, 2].max()) for k in range(40)])
    assert 0.25 < (tops <= 0.3 + 1e-6).mean() < 0.75, "where every scan cuts something, too"
    moved = [cases[0], dataclasses.replace(cases[1], planes=2 * planes)]
    behind = VecsetOptions(behind_cuts=True)
    assert planes_of(cases, behind) != planes_of(moved, behind)
    assert planes_of(cases, VecsetOptions()) == {}, "results of before stay finished"


def balls(grid: LabelMap) -> np.ndarray:
    """Labels of a ball about the origin, and of one beside it."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.data.shape), indexing="ij"), axis=-1)
    world = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    away = [np.linalg.norm(world - [x, 0, 0], axis=-1) for x in (0, 110)]
    return np.where(np.minimum(*away) < 40, np.uint8(2), np.uint8(0))


@pytest.mark.parametrize("pad", [0, 4])
def test_what_is_cut_off_is_completed_past_the_field_of_view(pad):
    index = np.stack(np.meshgrid(*[np.arange(-10, 11)] * 3, indexing="ij"), axis=-1)
    whole = np.where(np.linalg.norm(index / 10, axis=-1) < 0.4, np.uint8(2), np.uint8(0))
    whole[2:5, 9:12, 9:12] = 3
    data = whole.copy()[:12]
    data[6, 10, 10] = 0  # a hole that the scan shows stays
    affine = np.diag([10.0, 10, 10, 1])
    affine[:3, 3] = -100
    label_map = LabelMap(np.pad(data, [(0, pad), (0, 0), (0, 0)]), affine)
    case = Case(case_id="a", patient_id="a", labels="a", cut="left_atrium" if pad else "")
    cuts = cuts_of(label_map, TABLE, case)
    larger = larger_grid(label_map, cuts, 85.0)
    grown = joined(larger.data, balls(larger), larger.affine, cuts)
    assert grown.shape == (21 if not pad else 16, 21, 21)
    np.testing.assert_array_equal(grown[:12], data)
    assert (grown[12:] == whole[12 : len(grown)]).all(), "and no second ball that hangs on nothing"
    np.testing.assert_array_equal(larger.affine, affine)
    low = LabelMap(np.ascontiguousarray(data[::-1]), affine)
    grown = larger_grid(low, cuts_of(low, TABLE), 30.0)
    assert grown.data.shape == (15, 21, 21) and grown.affine[0, 3] == -130
