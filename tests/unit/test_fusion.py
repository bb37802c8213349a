"""Fusion by priority and the rules of consistency."""

import numpy as np
import pytest

from cardiform.cohort.table import Case
from cardiform.coronary.figures import own_figures
from cardiform.errors import InputError
from cardiform.files import read_json
from cardiform.fusion.cases import MaskFolder, fuse_case
from cardiform.fusion.merge import fused
from cardiform.fusion.rules import RULES, changes, check_rules, consistent
from cardiform.fusion.summary import REPORT, lines, summarise
from cardiform.fusion.truth import truth_of, verdict
from cardiform.labels import LabelTable
from cardiform.options.fusion import FusionOptions
from cardiform.volumes import LabelMap, load_label_map, save_label_map

TABLE = LabelTable()
AFFINE = np.eye(4)
SPACING = np.ones(3)
MYO, LA, LV, RA, RV, AORTA, LAA, CORONARY, PV = 1, 2, 3, 4, 5, 6, 8, 9, 10


def ran(labels, *rules, spacing=SPACING, **options):
    """The label map after some rules, and what they reported."""
    found = FusionOptions(rules=rules, **options)
    return consistent(labels, np.asarray(spacing, float), TABLE, found)


@pytest.fixture
def heart():
    labels = np.zeros((40, 40, 40), np.uint8, order="F")
    labels[5:25, 5:25, 5:25] = MYO
    labels[10:20, 10:20, 10:20] = LV
    labels[5:25, 5:25, 26:36] = LA
    return labels


def test_a_replaced_class_gives_its_voxels_up_and_the_prior_class_wins(heart):
    heart[2:5, 2:5, 2:5] = CORONARY
    mask = np.zeros(heart.shape, np.uint8)
    mask[0, 0, 0] = 1
    mask[12, 12, 12] = 1  # within the left ventricle: coronaries lie on top
    result = fused(LabelMap(heart, AFFINE), {CORONARY: LabelMap(mask, AFFINE)}, TABLE)
    assert set(map(tuple, np.argwhere(result == CORONARY))) == {(0, 0, 0), (12, 12, 12)}
    assert result[3, 3, 3] == 0 and heart[3, 3, 3] == CORONARY
    veins = np.ones(heart.shape, np.uint8)
    both = {PV: LabelMap(veins, AFFINE), CORONARY: LabelMap(mask, AFFINE)}
    result = fused(LabelMap(heart, AFFINE), both, TABLE)
    assert result[12, 12, 12] == CORONARY and (result == PV).sum() == result.size - 2
    aorta = fused(LabelMap(heart, AFFINE), {AORTA: LabelMap(veins, AFFINE)}, TABLE)
    assert aorta[7, 7, 7] == MYO and aorta[12, 12, 12] == LV and aorta[0, 0, 0] == AORTA


def test_masks_on_another_grid_are_placed_by_their_affine(heart):
    other = np.eye(4)
    other[:3, 3] = (30, 30, 30)
    other[0, 0] = -1
    mask = np.zeros((10, 10, 10), np.uint8)
    mask[2, 3, 4] = 1
    result = fused(LabelMap(heart, AFFINE), {CORONARY: LabelMap(mask, other)}, TABLE)
    assert np.argwhere(result == CORONARY).tolist() == [[28, 33, 34]]


@pytest.mark.parametrize("way", [1, -1])
def test_what_the_grid_of_a_mask_does_not_reach_stays(heart, way):
    heart[30:33, 5:8, 4:34] = CORONARY
    mask = (heart == CORONARY)[:, :, 10:20][:, :, ::way].astype(np.uint8)
    mask[31, 6] = 0
    other = np.eye(4)
    other[2, 2], other[2, 3] = way, 10 if way > 0 else 19
    result = fused(LabelMap(heart, AFFINE), {CORONARY: LabelMap(mask, other)}, TABLE)
    expected = heart.copy()
    expected[31, 6, 10:20] = 0
    np.testing.assert_array_equal(result, expected)
    nothing = LabelMap(np.zeros_like(mask), other)
    result = fused(LabelMap(heart, AFFINE), {CORONARY: nothing}, TABLE)
    expected[:, :, 10:20][expected[:, :, 10:20] == CORONARY] = 0
    np.testing.assert_array_equal(result, expected)


def test_an_appendage_that_does_not_touch_the_atrium_goes(heart):
    heart[25:28, 10:13, 28:30] = LAA
    heart[36:39, 36:39, 36:39] = LAA
    result, report = ran(heart, "appendage_touches_atrium")
    assert (result == LAA).sum() == 18
    assert report == [
        {
            "rule": "appendage_touches_atrium",
            "voxels": {"left_atrial_appendage": -27},
            "components": 1,
        }
    ]


@pytest.mark.parametrize("gap, touch_mm, stays", [(0, 0.0, True), (3, 0.0, False), (3, 3.0, True)])
def test_veins_near_the_atrium(heart, gap, touch_mm, stays):
    heart[5:8, 25 + gap : 28 + gap, 28:31] = PV
    heart[25:27, 5:8, 28:31] = PV  # touches in any case
    result, _ = ran(heart, "veins_touch_atrium", touch_mm=touch_mm)
    assert ((result == PV).sum() == 27 + 18) == stays


def test_a_rule_never_takes_a_whole_class_away(heart):
    heart[36:39, 36:39, 36:39] = LAA
    result, report = ran(heart, "appendage_touches_atrium")
    np.testing.assert_array_equal(result, heart)
    assert "all of left_atrial_appendage" in report[0]["skipped"]
    heart[heart == LA] = 0
    assert "no left_atrial" in ran(heart, "appendage_touches_atrium")[1][0]["skipped"]


def test_coronaries_lie_on_the_heart_and_have_some_size(heart):
    heart[26:29, 5:25, 5:7] = CORONARY  # 120 mm^3 on the myocardium
    heart[27:29, 20:22, 20:22] = CORONARY  # near, but 8 mm^3
    heart[36:40, 36:40, 0:8] = CORONARY  # 128 mm^3, 12 mm and more away
    result, report = ran(heart, "coronary_on_heart")
    assert (result == CORONARY).sum() == 120 and report[0]["components"] == 2
    assert (ran(heart, "coronary_on_heart", coronary_min_mm3=5.0)[0] == CORONARY).sum() == 128
    far = ran(heart, "coronary_on_heart", coronary_mm=20.0)[0]
    assert (far == CORONARY).sum() == 120 + 128


def test_distances_and_volumes_are_millimetres(heart):
    heart[26:29, 5:25, 5:7] = CORONARY
    heart[36:40, 5:25, 23:25] = CORONARY  # 12 voxels away, 160 of them

    def left(spacing, **options):
        found, _ = ran(heart, "coronary_on_heart", spacing=spacing, **options)
        return int((found == CORONARY).sum())

    assert left((1, 1, 1)) == 120
    assert left((0.3, 1, 1), coronary_min_mm3=30.0) == 280, "now 3.6 mm away"
    assert left((0.3, 1, 1), coronary_min_mm3=40.0) == 160, "36 and 48 mm^3"


def test_cavities_of_the_myocardium_alone_are_filled(heart):
    heart[7, 7, 7] = 0  # enclosed by myocardium
    heart[10, 15, 15] = 0  # between myocardium and ventricle
    heart[24, 15, 15] = 0  # open to the outside
    result, report = ran(heart, "myocardium_holes")
    assert result[7, 7, 7] == MYO and result[10, 15, 15] == 0 and result[24, 15, 15] == 0
    assert report[0]["components"] == 1
    heart[7:9, 7:9, 7:9] = 0
    assert ran(heart, "myocardium_holes", hole_mm3=5.0)[0][7, 7, 7] == 0


def test_chambers_keep_as_many_parts_as_they_should_have(heart):
    heart[37, 37, 37] = LA
    heart[30:33, 2:5, 2:5] = AORTA
    heart[30:33, 12:15, 2:5] = AORTA
    heart[30, 22, 2] = AORTA
    result, report = ran(heart, "largest_components")
    assert result[37, 37, 37] == 0 and (result == AORTA).sum() == 54
    assert report[0]["components"] == 2
    assert (ran(heart, "largest_components", largest=("aorta",))[0] == LA).sum() == 4001


def test_lost_voxels_within_the_heart_get_the_nearest_class(heart):
    heart[12, 12, 12] = AORTA  # a speck within the ventricle
    heart[38, 38, 38] = AORTA  # outside
    heart[30:34, 2:5, 2:9] = AORTA
    heart[30:34, 12:15, 2:9] = AORTA
    result, _ = ran(heart, "largest_components", "enclosed_voxels")
    assert result[12, 12, 12] == LV and result[38, 38, 38] == 0
    plain, _ = ran(heart, "largest_components")
    assert plain[12, 12, 12] == 0


def test_all_rules_on_a_table_that_lacks_their_classes():
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[2:5, 2:5, 2:5] = 3
    table = LabelTable(TABLE.classes[2:3])
    result, report = consistent(labels, SPACING, table, FusionOptions())
    np.testing.assert_array_equal(result, labels)
    assert [r["rule"] for r in report] == list(FusionOptions().rules) == list(RULES)
    check_rules(FusionOptions())
    with pytest.raises(InputError, match="no rule tidy; known: appendage_touches_atrium"):
        check_rules(FusionOptions(rules=("tidy",)))


def test_three_trees_of_veins_are_as_expected(heart):
    for x in (2, 6, 10):
        heart[x : x + 2, 2:4, 2:4] = TABLE[TABLE.channel("pulmonary_veins")].value
    report = {"rules": [], "classes": changes(heart, heart, TABLE)}
    assert report["classes"]["pulmonary_veins"]["components_before"] >= 3
    found = summarise(
        {"a": report},
    )["classes"]["pulmonary_veins"]
    assert found["unexpected_before"] == found["unexpected_after"] == 0


def test_the_summary_of_a_cohort(heart):
    heart[36:39, 36:39, 36:39] = LAA
    heart[25:28, 10:13, 28:30] = LAA
    result, rules = ran(heart, "appendage_touches_atrium")
    classes = changes(heart, result, TABLE)
    assert classes["left_atrial_appendage"] == {
        "voxels_before": 45,
        "voxels_after": 18,
        "dice_before_after": pytest.approx(36 / 63),
        "components_before": 2,
        "components_after": 1,
        "components_expected": 1,
        "components_fewest": 1,
        "components_most": 1,
    }
    quiet = {"rules": [{"rule": rules[0]["rule"], "voxels": {}, "components": 0}], "classes": {}}
    summary = summarise({"a": {"rules": rules, "classes": classes}, "b": quiet})
    assert summary["cases"] == 2
    assert summary["rules"]["appendage_touches_atrium"] == {
        "cases": 1,
        "components": 1,
        "voxels": {"left_atrial_appendage": -27},
    }
    appendage = summary["classes"]["left_atrial_appendage"]
    assert appendage["unexpected_before"] == 1 and appendage["unexpected_after"] == 0
    assert list(appendage["most_changed"]) == ["a"] and appendage["changed_cases"] == 1
    text = "\n".join(lines(summary))
    assert "appendage_touches_atrium: 1 of 2 cases, voxels left_atrial_appendage -27" in text


# --- what a mask gives up ------------------------------------------------------------------------


@pytest.fixture
def fuse(tmp_path, monkeypatch):
    """Label map, refined masks by class, truth -> the fused label map and its report."""
    monkeypatch.setattr("cardiform.fusion.cases.compare_picture", lambda *_, **__: None)

    def run(labels, masks, truth=None, truth_affine=AFFINE, options=None):
        save_label_map(tmp_path / "given.nii.gz", labels, AFFINE)
        for name, mask in masks.items():
            save_label_map(tmp_path / name / "a.nii.gz", mask.astype(np.uint8), AFFINE)
        if truth is not None:
            save_label_map(tmp_path / "truth.nii.gz", truth, truth_affine)
        case = Case(
            case_id="a",
            patient_id="a",
            labels=str(tmp_path / "given.nii.gz"),
            truth="" if truth is None else str(tmp_path / "truth.nii.gz"),
        )
        folders = {name: MaskFolder.of(tmp_path / name) for name in masks}
        options = options or FusionOptions()
        fuse_case(case, table=TABLE, options=options, masks=folders, out=tmp_path / "out")
        return load_label_map(tmp_path / "out" / "a.nii.gz").data, tmp_path / "out" / "a.json"

    return run


@pytest.mark.parametrize("refined", ["coronary", "left_atrial_appendage", "pulmonary_veins"])
@pytest.mark.parametrize("low", [(13, 13, 13), (6, 12, 12), (12, 12, 28), (8, 13, 13)])
def test_what_a_refined_mask_gives_up_within_structures_is_filled(fuse, heart, low, refined):
    value = TABLE[TABLE.channel(refined)].value
    heart[30:33, 5:25, 5:7] = value
    given = heart.copy()
    x, y, z = low
    given[x : x + 4, y : y + 4, z : z + 4] = value
    result, _ = fuse(given, {refined: heart == value})
    np.testing.assert_array_equal(result, heart)


def test_a_blob_between_two_structures_is_shared_between_them(fuse):
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[5:35, 5:35, 5:20], labels[5:35, 5:35, 20:35] = MYO, RV
    labels[36:38, 5:25, 5:7] = CORONARY
    truth = labels.copy()
    index = np.moveaxis(np.indices(labels.shape), 0, -1)
    labels[np.linalg.norm(index - np.array([20, 20, 21]), axis=-1) < 8] = CORONARY
    assert (labels != truth).sum() > 2000
    result, _ = fuse(labels, {"coronary": truth == CORONARY})
    lost = labels != truth
    assert (result[lost] > 0).all() and (result[lost] == truth[lost]).mean() > 0.95
    labels = truth.copy()
    labels[5:35, 5:35, 17:23] = CORONARY  # all that is between them, open at its rim
    result, _ = fuse(labels, {"coronary": truth == CORONARY})
    lost = (labels == CORONARY) & (truth != CORONARY)
    assert lost.sum() == 5400 and (result[lost] > 0).mean() > 0.9
    assert (result[lost] == truth[lost]).mean() > 0.9


def test_a_blob_on_a_wall_gives_the_wall_back_and_no_more(fuse, heart):
    heart[30:33, 30:38, 5:7] = CORONARY
    given = heart.copy()
    index = np.moveaxis(np.indices(heart.shape), 0, -1)
    given[np.linalg.norm(index - np.array([25, 15, 15]), axis=-1) < 5] = CORONARY
    result, _ = fuse(given, {"coronary": heart == CORONARY})
    np.testing.assert_array_equal(result, heart)


def test_a_vessel_that_becomes_thinner_grows_nothing_below_it(fuse, heart):
    thick, thin = heart.copy(), heart.copy()
    thick[25:30, 10:13, 6:24] = CORONARY
    thin[26:29, 11:12, 7:23] = CORONARY
    result, _ = fuse(thick, {"coronary": thin == CORONARY})
    np.testing.assert_array_equal(result, thin)


def test_what_a_dropped_part_of_a_mask_lay_on_is_there_again(fuse, heart):
    heart[25:28, 5:25, 5:7] = CORONARY
    mask = heart == CORONARY
    mask[14:16, 14:16, 14:16] = True  # a speck in the ventricle, far from the tree
    result, path = fuse(heart, {"coronary": mask})
    np.testing.assert_array_equal(result, heart)
    assert read_json(path)["rules"][2]["components"] == 1


# --- against a truth -----------------------------------------------------------------------------


def test_rules_and_label_maps_are_judged_by_the_truth(fuse, heart):
    truth = heart.copy()
    truth[25:28, 5:25, 5:7] = CORONARY
    given = truth.copy()
    given[25:28, 14:17, 5:7] = 0  # a gap
    given[36:39, 36:39, 36:39] = CORONARY  # a speck
    refined = (given == CORONARY) | (truth == CORONARY)
    result, path = fuse(given, {"coronary": refined}, truth)
    np.testing.assert_array_equal(result, truth)
    report = REPORT.load(path)
    rule = next(r for r in report["rules"] if r["rule"] == "coronary_on_heart")
    assert rule["taken_false"] == {"coronary": 27} and not rule["taken_true"]
    found = report["classes"]["coronary"]
    assert found["dice_given"] == pytest.approx(2 * 102 / (120 + 102 + 27))
    assert found["dice_fused"] == found["cl_dice_fused"] == 1 > found["cl_dice_given"]
    assert found["components_truth"] == 1
    assert report["classes"]["left_ventricle"]["dice_fused"] == 1
    assert "cl_dice_given" not in report["classes"]["left_ventricle"]


def test_a_truth_on_another_grid_is_brought_onto_the_own_one(fuse, heart):
    heart[25:28, 5:25, 5:7] = CORONARY
    moved = AFFINE.copy()
    moved[:3, 3] = (3, -2, 4)
    truth = np.zeros((36, 44, 36), np.uint8)
    truth[:, 2:42, :] = heart[3:39, :40, 4:40]
    _, path = fuse(heart, {}, truth, moved)
    for name, found in REPORT.load(path)["classes"].items():
        assert found["dice_given"] == found["dice_fused"] == 1, name


@pytest.mark.parametrize("way", [1, -1])
def test_what_of_the_truth_lies_beyond_the_label_map_was_missed(fuse, heart, way):
    """As the figures of refined masks count it."""
    heart[26:29, 5:25, 5:7] = CORONARY
    moved, truth = AFFINE.copy(), np.pad(heart, [(0, 20), (0, 0), (0, 0)])
    truth[30:58, 5:8, 5:7] = CORONARY
    if way < 0:
        heart, truth = heart[::-1], truth[::-1]
        moved[0, 3] = -20
    _, path = fuse(heart, {}, truth, moved)
    found = REPORT.load(path)["classes"]["coronary"]
    masks = {"given": heart == CORONARY}
    own = own_figures(LabelMap(truth, moved), CORONARY, masks, AFFINE)["given"]
    assert found["dice_given"] == own["dice"] == pytest.approx(2 * 120 / (120 + 120 + 168))
    assert found["cl_dice_given"] == own["cl_dice"] < 1
    assert found["components_truth"] == 2


def test_what_the_truth_has_not_annotated_is_not_judged(fuse, heart):
    truth = np.where(heart == LV, heart, 0)
    heart[37, 37, 37] = LA
    _, path = fuse(heart, {}, truth)
    report = REPORT.load(path)
    assert not any(rule["taken_true"] or rule["taken_false"] for rule in report["rules"])
    assert [n for n, f in report["classes"].items() if "dice_given" in f] == ["left_ventricle"]
    before, after = np.array([LA, LV, 0, 0]), np.array([0, 0, LA, LV])
    found = verdict(before, after, np.array([LV, LV, LV, LV]), TABLE)
    assert found["taken_true"] == {"left_ventricle": 1} == found["added_true"]
    assert not found["taken_false"] and not found["added_false"]


def test_cases_without_a_truth_have_no_figures_against_it(fuse, heart):
    _, path = fuse(heart, {})
    report = REPORT.load(path)
    assert all("taken_true" not in rule for rule in report["rules"])
    assert "dice_given" not in report["classes"]["left_atrium"]
    case = Case(case_id="a", patient_id="a", labels="")
    assert truth_of(case, LabelMap(heart, AFFINE), TABLE) is None
    summary = summarise({"a": report})
    assert "against the truth" not in "\n".join(lines(summary))


def test_the_summary_against_the_truth():
    def report(taken, false, dice):
        rule = {"rule": "coronary_on_heart", "voxels": {"coronary": -taken - false}}
        rule |= {"components": 1, "taken_true": {"coronary": taken}, "added_true": {}}
        rule |= {"taken_false": {"coronary": false}, "added_false": {}}
        found = {"dice_before_after": 0.9, "components_before": 9, "components_after": 2}
        found |= {"components_expected": 2, "dice_given": 0.8, "dice_fused": dice}
        found |= {"cl_dice_given": 0.7, "cl_dice_fused": 0.9}
        return {"rules": [rule], "classes": {"coronary": found}}

    quiet = {"rules": [], "classes": {}}
    summary = summarise({"a": report(3, 40, 0.9), "b": report(9, 2, 0.76), "c": quiet})
    rule = summary["rules"]["coronary_on_heart"]
    assert rule["taken_true"] == {"coronary": 12} and rule["taken_false"] == {"coronary": 42}
    assert rule["cases_with_truth"] == 2 and rule["harmed"] == {"b": {"coronary": 7}}
    found = summary["classes"]["coronary"]["against_truth"]
    assert found == {
        "cases": 2,
        "dice_given": pytest.approx(0.8),
        "dice_fused": pytest.approx(0.83),
        "cl_dice_given": pytest.approx(0.7),
        "cl_dice_fused": pytest.approx(0.9),
        "worst_case": "b",
        "worst_change": pytest.approx(-0.04),
    }
    text = "\n".join(lines(summary))
    assert "took 12 true and 42 false voxels, added 0 true and 0 false" in text
    assert "0.800  0.830    -0.040         0.700  0.900" in text
