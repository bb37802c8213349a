"""Refined masks: coarse to fine against dense, grids and headers, topology, figures."""

import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from thin import CARDIFORM, NEAR, REPAIR, cohort_of, structure
from tubes import SPACING, broken_tube

from cardiform.anatomy.components import count_components
from cardiform.artefact.model import save_model
from cardiform.cohort.table import Case
from cardiform.coronary import level as level_module
from cardiform.coronary import refine as refinement
from cardiform.coronary.cases import (
    fine_grid,
    missed_cases,
    refine_case,
    summarise,
    table_of_figures,
)
from cardiform.coronary.figures import TRUTH_COLUMNS
from cardiform.coronary.level import LEVELS_MM, UNSEEN, chosen_level
from cardiform.coronary.model import DENOISER, NearAutoDecoder, build_cell_field
from cardiform.coronary.model import NEAR as NEAR_KIND
from cardiform.coronary.refine import CaseField, load_refiner, mended
from cardiform.coronary.repair_case import repair_case
from cardiform.coronary.thin_structure import ThinStructure
from cardiform.errors import InputError
from cardiform.fusion.cases import MaskFolder, fuse_case
from cardiform.geometry.distances import signed_distance
from cardiform.geometry.frame import apply_affine
from cardiform.geometry.interpolation import trilinear
from cardiform.labels import LabelTable
from cardiform.options.coronary import CoronaryRefineOptions
from cardiform.options.fusion import FusionOptions
from cardiform.volumes import load_label_map, spacing_of

CPU = torch.device("cpu")
TABLE = LabelTable()


def saved(folder, preset, cases=("c0", "c1"), std=0.02, extra=None, repair=None):
    """A model file with random weights.    repair : options of its labels; None: as early files."""
    torch.manual_seed(1)
    options, module = {
        "cardiform": (CARDIFORM, build_cell_field(CARDIFORM)),
        "near": (NEAR, NearAutoDecoder(NEAR.latent_dim, len(cases))),
    }[preset]
    if preset == "cardiform":
        torch.nn.init.normal_(module.head[-1].weight, std=std)
    path = folder / f"{preset}.pt"
    save_model(
        path,
        {"cardiform": DENOISER, "near": NEAR_KIND}[preset],
        module.state_dict(),
        options={{"cardiform": "coronary", "near": "coronary_near"}[preset]: options}
        | ({"coronary_repair": repair} if repair else {}),
        labels=TABLE,
        figures={"train": {"dice_points": 0.9}},
        training_cases=cases,
        source_sha256="",
        extra=extra,
    )
    return path


def refiner(folder, preset="cardiform", **changes):
    options = CoronaryRefineOptions(preset=preset, **changes)
    model = None if preset == "repair" else saved(folder, preset)
    return load_refiner(model, options, REPAIR, CPU)


@pytest.mark.parametrize("preset", ["cardiform", "near", "repair"])
def test_coarse_to_fine_is_the_dense_field(tmp_path, preset):
    """Every voxel of the fine grid asked, against those near active cells alone."""
    thin = structure(0)
    field = refiner(tmp_path, preset).field("c0", thin)
    shape, affine = fine_grid(thin, 128)
    voxels, distances = field.on_grid(shape, affine)
    every = np.indices(shape).reshape(3, -1).T
    index = apply_affine(np.linalg.inv(thin.affine) @ affine, every.astype(np.float64))
    dense = field.distances(index.astype(np.float32)).reshape(shape)
    active = field.active[
        tuple(np.clip(np.rint(index).astype(int), 0, np.array(thin.label.shape) - 1).T)
    ].reshape(shape)
    np.testing.assert_allclose(dense[tuple(voxels.T)], distances, atol=2e-4)
    expected = (dense < 0) & active
    found = field.mask_on_grid(shape, affine) > 0
    assert (found != expected).sum() <= 2e-6 * expected.size, "but for rounding at the wall"
    if preset != "near":
        assert expected.sum() == (dense < 0).sum() > 1000, "nothing lies beyond the active cells"
        assert len(voxels) < 0.25 * every.shape[0]


@pytest.mark.parametrize("preset", ["cardiform", "near"])
def test_the_chunks_of_an_evaluation_change_nothing(tmp_path, monkeypatch, preset):
    thin = structure(0)
    points = np.random.default_rng(0).uniform(0, 30, (5000, 3)).astype(np.float32)
    values = []
    for size in (4096, 131072, 7):
        monkeypatch.setattr(refinement, "POINTS_AT_A_TIME", size)
        some = points if size > 7 else points[:50]
        values.append(refiner(tmp_path, preset).field("c1", thin).distances(some))
    np.testing.assert_allclose(values[0], values[1], atol=1e-5)
    np.testing.assert_allclose(values[2], values[1][:50], atol=1e-5)


def test_gaps_are_bridged_and_specks_dropped_at_every_resolution():
    whole, label = broken_tube()
    label[80:82, 44:46, 34:36] = True
    affine = np.diag([SPACING] * 3 + [1.0])
    thin = ThinStructure(label, label, np.ones_like(label), affine)
    distance = signed_distance(label, SPACING, 2.0)
    raw = CaseField(lambda points: trilinear(distance, points), distance < 2.0, thin)
    made = mended(raw, REPAIR)
    assert count_components(raw.mask) == 3 and count_components(made.mask) == 1
    unasked = dataclasses.replace(made, distances=lambda points: pytest.fail("asked again"))
    np.testing.assert_array_equal(unasked.mask, made.mask)
    voxels = np.argwhere(made.active)
    asked = made.distances(voxels.astype(np.float32)) < 0
    assert (asked != made.mask[tuple(voxels.T)]).mean() < 1e-3, "the field says what was decided"
    for resolution in (60, 200):
        shape, fine = fine_grid(thin, resolution)
        mask = made.mask_on_grid(shape, fine) > 0
        volume = mask.sum() * abs(np.linalg.det(fine[:3, :3]))
        assert count_components(mask) == 1
        assert volume == pytest.approx(whole.sum() * SPACING**3, rel=0.15)
        assert not mask[int(0.85 * shape[0]) :, int(0.8 * shape[1]) :].any()


def test_two_trees_are_not_joined_by_a_refinement():
    _, label = broken_tube()
    affine = np.diag([SPACING] * 3 + [1.0])
    roots = np.zeros_like(label)
    roots[:14] = roots[-12:] = True
    distance = signed_distance(label, SPACING, 2.0)
    for known, parts in ((None, 1), (roots, 2)):
        thin = ThinStructure(label, label, np.ones_like(label), affine, roots=known)
        raw = CaseField(lambda points: trilinear(distance, points), distance < 2.0, thin)
        assert count_components(mended(raw, REPAIR).mask) == parts


def test_two_trees_that_a_network_joined_are_cut():
    """And nothing else: a piece that only one tree reaches stays with it."""
    whole, label = broken_tube(gap=1.5)
    affine = np.diag([SPACING] * 3 + [1.0])
    roots = np.zeros_like(label)
    roots[:14] = roots[-12:] = True
    thin = ThinStructure(label, label, np.ones_like(label), affine, roots=roots)
    distance = signed_distance(whole, SPACING, 2.0)
    joined = CaseField(lambda points: trilinear(distance, points), distance < 2.0, thin)
    made = mended(joined, REPAIR)
    assert count_components(joined.mask) == 1 and count_components(made.mask) == 2
    assert (joined.mask & ~made.mask)[label].sum() == 0
    assert 0 < (joined.mask & ~made.mask).sum() <= (whole & ~label).sum()
    assert count_components(made.mask_on_grid(label.shape, affine) > 0) == 2
    alone = dataclasses.replace(thin, roots=roots & (np.arange(90) < 20)[:, None, None])
    kept = mended(dataclasses.replace(joined, thin=alone), REPAIR)
    np.testing.assert_array_equal(kept.mask, joined.mask)


def test_the_level_of_the_field_lies_in_the_model(tmp_path):
    thin = structure(0)
    points = np.argwhere(np.abs(signed_distance(thin.label, SPACING, 1.0)) < 1.0)
    points = points.astype(np.float32)

    def field(**changes):
        model = saved(tmp_path, "cardiform", **changes)
        return load_refiner(model, CoronaryRefineOptions(), REPAIR, CPU).field("new", thin)

    plain, moved = field(), field(extra={"level_mm": 0.2})
    np.testing.assert_allclose(plain.distances(points) - moved.distances(points), 0.2, atol=1e-6)
    assert moved.mask.sum() > plain.mask.sum()
    for level in ("wide", True, float("nan")):
        with pytest.raises(InputError, match=r"cardiform\.pt: has level_mm .*, not a number"):
            field(extra={"level_mm": level})


def test_the_level_is_chosen_on_noise_that_the_training_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr(level_module, "PATCHES", 3)
    files = cohort_of(tmp_path)
    assert chosen_level(build_cell_field(CARDIFORM), [], REPAIR, CARDIFORM) == {"level_mm": 0.0}
    levels = []
    for shift in (-0.2, 0.0, 0.2):
        network = build_cell_field(CARDIFORM).eval()
        torch.nn.init.constant_(network.head[-1].bias, shift / CARDIFORM.truncation_mm)
        levels.append(chosen_level(network, files[:1], REPAIR, CARDIFORM)["level_mm"])
    assert set(levels) <= set(LEVELS_MM) and levels[0] < levels[2] and levels == sorted(levels)
    every = dataclasses.replace(CARDIFORM, kinds=(*CARDIFORM.kinds, *UNSEEN))
    assert chosen_level(network, files[:1], REPAIR, every)["level_mm"] in LEVELS_MM


def test_a_model_of_another_preset_is_refused(tmp_path):
    model = saved(tmp_path, "near")
    with pytest.raises(
        InputError, match=r"near\.pt: is a model of kind coronary_near, not a refine"
    ):
        load_refiner(model, CoronaryRefineOptions(), REPAIR, CPU)


def test_a_model_of_another_grid_is_refused(tmp_path, case):
    """Its widths are voxels: on a finer grid it makes masks that are worse than the label."""
    found, repaired = case
    model = saved(tmp_path, "cardiform", repair=dataclasses.replace(REPAIR, spacing_mm=1.0))
    with pytest.raises(InputError, match=r"cardiform\.pt: was trained on a grid of 1 mm, and "):
        load_refiner(model, CoronaryRefineOptions(), REPAIR, CPU)
    coarse = dataclasses.replace(REPAIR, spacing_mm=1.0)
    made = load_refiner(model, CoronaryRefineOptions(), coarse, CPU)
    with pytest.raises(InputError, match=r"c0\.npz: lies on a grid of 0\.5 mm, the model was"):
        refine_case(found, files={"c0": repaired}, refiner=made, table=TABLE, out=tmp_path / "out")
    mean = refinement.MeanRefiner([made, made])
    with pytest.raises(InputError, match=r"c0\.npz: lies on a grid of 0\.5 mm"):
        mean.check(ThinStructure.load(repaired), repaired)
    for known in (REPAIR, None):
        made = load_refiner(
            saved(tmp_path, "cardiform", repair=known), CoronaryRefineOptions(), REPAIR, CPU
        )
        made.check(ThinStructure.load(repaired), repaired)


def test_another_class_is_refused(tmp_path, case):
    """The appendage is not refined by what knows coronaries, nor from a coronary's file."""
    found, repaired = case
    other = dataclasses.replace(REPAIR, structure="left_atrium")
    trained = {
        "cardiform": {"repair": REPAIR},
        "near": {"extra": {"structure": "coronary"}},
    }
    for preset, known in trained.items():
        model = saved(tmp_path, preset, **known)
        options = CoronaryRefineOptions(preset=preset)
        load_refiner(model, options, REPAIR, CPU)
        with pytest.raises(
            InputError, match=r"was trained on coronary, and structure is left_atri"
        ):
            load_refiner(model, options, other, CPU)
        load_refiner(saved(tmp_path, preset), options, other, CPU)  # early files do not say
    plain = load_refiner(None, CoronaryRefineOptions(preset="repair"), other, CPU)
    with pytest.raises(InputError, match=r"c0\.npz: is of coronary, not of left_atrium"):
        refine_case(found, files={"c0": repaired}, refiner=plain, table=TABLE, out=tmp_path / "out")


def test_a_table_of_figures_without_figures():
    """A class of which neither label nor mask has a voxel has no Dice."""
    part = {"cases": 1, "cases_missed": 0, "cases_with_truth": 0, "own_grid": {}}
    part["against_label"] = {"dice": None}
    lines = list(table_of_figures({"dice_training_points": None, "test": part}))
    assert lines[-1] == "test, 1 cases: Dice against the given label -"


def test_latent_steps_move_towards_the_repaired_label(tmp_path):
    thin = structure(0)
    wanted = signed_distance(thin.repaired, SPACING, CARDIFORM.truncation_mm)
    points = np.argwhere(np.abs(wanted) < 1.0).astype(np.float32)

    def error(steps):
        field = refiner(tmp_path, latent_steps=steps, latent_lr=0.01).field("new", thin)
        return np.abs(field.distances(points) - trilinear(wanted, points)).mean()

    start = error(0)
    assert error(30) < 0.9 * start
    assert error(0) == start, "the network itself stays as it is"


def test_near_knows_its_training_cases_and_fits_new_ones(tmp_path):
    thin = structure(0)
    points = np.argwhere(thin.label).astype(np.float32)

    def distances(case_id, steps):
        made = refiner(tmp_path, "near", latent_steps=steps, latent_lr=0.05)
        return made.field(case_id, thin).distances(points)

    assert np.abs(distances("c0", 0) - distances("new", 0)).max() > 1e-4
    # its own vector is where the fit begins: another heart may have the same id
    assert np.abs(distances("c0", 5) - distances("c0", 0)).max() > 1e-4
    assert np.abs(distances("new", 5) - distances("new", 0)).max() > 1e-4


@pytest.fixture
def case(tmp_path):
    """A case on an anisotropic LPS grid in 16 bits, with its repaired structure and a truth."""
    whole, broken = broken_tube()
    affine = np.diag([-SPACING, -SPACING, 2 * SPACING, 1.0])
    affine[:3, 3] = (40.0, 20.0, -7.0)
    for name, mask in (("labels", broken), ("truth", whole)):
        data = np.zeros((*whole.shape[:2], whole.shape[2] // 2), np.int16)
        data[:, 30:] = 1
        data[mask[:, :, ::2]] = 9
        image = nib.Nifti1Image(data, affine)
        image.header["descrip"] = b"manual"
        image.header.set_xyzt_units("mm")
        image.set_qform(affine, code=2)
        image.set_sform(affine, code=1)
        nib.save(image, tmp_path / f"{name}.nii.gz")
    found = Case(
        case_id="c0",
        patient_id="c0",
        labels=str(tmp_path / "labels.nii.gz"),
        truth=str(tmp_path / "truth.nii.gz"),
    )
    paths = repair_case(found, table=TABLE, options=REPAIR, out=tmp_path / "repaired")
    return found, paths[0]


def test_a_refined_mask_keeps_grid_header_and_dtype(tmp_path, case):
    found, repaired = case
    made = refiner(tmp_path, "repair", resolution=64, probabilities=True)
    out = tmp_path / "out"
    paths = refine_case(found, files={"c0": repaired}, refiner=made, table=TABLE, out=out)
    assert all(path.is_file() for path in paths) and len(paths) == 5
    given, mask = nib.load(found.labels), nib.load(out / "c0.nii.gz")
    assert mask.header == given.header and mask.get_data_dtype() == np.int16
    np.testing.assert_array_equal(mask.affine, given.affine)
    assert set(np.unique(mask.dataobj)) == {0, 1}
    fine = load_label_map(out / "fine" / "c0.nii.gz")
    assert max(fine.data.shape) == 64 and np.ptp(spacing_of(fine.affine)) < 1e-5
    centre = [
        apply_affine(m.affine, np.argwhere(m.data).mean(axis=0))
        for m in (load_label_map(out / "c0.nii.gz"), fine)
    ]
    assert np.linalg.norm(centre[0] - centre[1]) < 0.5
    chance = nib.load(out / "probability" / "c0.nii.gz")
    values = np.asarray(chance.dataobj)
    assert values.dtype == np.float32 and values.min() >= 0 and values.max() <= 1
    np.testing.assert_array_equal(values > 0.5, np.asarray(mask.dataobj) == 1)


def test_the_three_columns_of_figures(tmp_path, case):
    found, repaired = case
    made = refiner(tmp_path, "repair", resolution=0)
    out = tmp_path / "out"
    refine_case(found, files={"c0": repaired}, refiner=made, table=TABLE, out=out)
    figures = json.loads((out / "c0.json").read_text())
    assert figures["label_against_truth"]["component_error"] == 1
    assert figures["against_truth"]["component_error"] == 0
    assert figures["against_truth"]["dice"] > figures["label_against_truth"]["dice"]
    assert 0.5 < figures["against_label"]["dice"] < 1
    assert not (out / "fine").exists()
    blind = dataclasses.replace(found, case_id="c1", truth="")
    refine_case(blind, files={"c1": repaired}, refiner=made, table=TABLE, out=out)
    summary = summarise({"train": ["c0", "c1"], "test": []}, out, {"train": {"dice_points": 0.9}})
    assert summary["dice_training_points"] == 0.9
    assert summary["train"]["cases"] == 2 and summary["train"]["cases_with_truth"] == 1
    assert summary["train"]["against_truth"]["dice"] == figures["against_truth"]["dice"]
    text = "\n".join(table_of_figures(summary))
    assert "points of the training: 0.900" in text and "Dice against the given label" in text


def test_a_truth_without_the_structure_counts_as_none(tmp_path, case):
    """Nobody annotated it: neither the label nor its repair nor the refined mask is wrong."""
    found, repaired = case
    image = nib.load(found.truth)
    data = np.asarray(image.dataobj)
    nib.save(nib.Nifti1Image(np.where(data == 9, 0, data), image.affine), tmp_path / "other.nii.gz")
    blind = dataclasses.replace(found, case_id="c1", truth=str(tmp_path / "other.nii.gz"))
    files, out = {"c0": repaired, "c1": repaired}, tmp_path / "out"
    for one in (found, blind):
        made = refiner(tmp_path, "repair", resolution=0)
        refine_case(one, files=files, refiner=made, table=TABLE, out=out)
    figures = json.loads((out / "c1.json").read_text())
    for place in (figures, figures["own_grid"]):
        assert [place[column] for column in TRUTH_COLUMNS] == [None] * 3
    summary = summarise({"test": ["c0", "c1"]}, out, {})["test"]
    assert summary["cases"] == 2 and summary["cases_with_truth"] == 1
    alone = summarise({"test": ["c0"]}, out, {})["test"]
    for column in TRUTH_COLUMNS:
        assert summary[column] == alone[column]
        assert summary["own_grid"][column] == alone["own_grid"][column]


def test_cases_that_miss_the_structure_are_counted(tmp_path, case):
    found, repaired = case
    out = tmp_path / "out"
    made = refiner(tmp_path, "repair", resolution=0)
    refine_case(found, files={"c0": repaired}, refiner=made, table=TABLE, out=out)
    other = [dataclasses.replace(found, case_id=name) for name in ("c1", "c2", "c3")]
    other[1] = dataclasses.replace(other[1], truth="")
    missed = missed_cases(other, 9)
    assert missed == ["c1", "c3"] and missed_cases(other, 7) == []
    parts = {"validation": ["c0", "c1"], "test": ["c3"]}
    summary = summarise(parts, out, {}, missed)
    assert [summary[p]["cases"] for p in parts] == [1, 0]
    assert [summary[p]["cases_missed"] for p in parts] == [1, 1]
    alone = summarise({"validation": ["c0"]}, out, {})["validation"]
    assert summary["validation"] == alone | {"cases_missed": 1}
    text = "\n".join(table_of_figures(summary))
    assert "; 1 more, in no mean, have the structure in the truth alone" in text
    assert "test, 0 cases; 1 more" in text


def test_a_structure_that_a_case_lacks(tmp_path, case):
    found, _ = case
    other = dataclasses.replace(REPAIR, structure="left_atrium")
    paths = repair_case(found, table=TABLE, options=other, out=tmp_path / "atrium")
    assert [p.name for p in paths] == ["c0.json"]
    assert json.loads(paths[0].read_text()) == {"absent": "left_atrium"}
    repair_case(found, table=TABLE, options=other, out=tmp_path / "repaired")
    assert [p.name for p in (tmp_path / "repaired").iterdir()] == ["c0.json"], "it had it before"


def test_the_real_heart_with_its_coronary(tmp_path, real_data):
    """A manual label of one vessel in slices of 3 mm: the grid stays, the vessel stays one."""
    path = real_data / "thorax_heart1_lad9.nii.gz"
    found = Case(case_id="lad", patient_id="lad", labels=str(path))
    repaired = repair_case(found, table=TABLE, options=REPAIR, out=tmp_path)
    made = load_refiner(saved(tmp_path, "cardiform"), CoronaryRefineOptions(), REPAIR, CPU)
    refine_case(found, files={"lad": repaired[0]}, refiner=made, table=TABLE, out=tmp_path / "r")
    given, mask = nib.load(path), nib.load(tmp_path / "r" / "lad.nii.gz")
    assert mask.shape == given.shape and mask.get_data_dtype() == given.get_data_dtype()
    np.testing.assert_array_equal(mask.affine, given.affine)
    label, refined = np.asarray(given.dataobj) == 9, np.asarray(mask.dataobj) == 1
    assert count_components(refined) <= count_components(label)
    assert 0.5 < 2 * (label & refined).sum() / (label.sum() + refined.sum()) <= 1
    masks = {"coronary": MaskFolder.of(tmp_path / "r")}
    fuse_case(found, table=TABLE, options=FusionOptions(), masks=masks, out=tmp_path / "f")
    fused = nib.load(tmp_path / "f" / "lad.nii.gz")
    assert fused.header == given.header
    values = np.asarray(fused.dataobj)
    assert (values[~label & ~refined] == np.asarray(given.dataobj)[~label & ~refined]).mean() > 0.99
    assert (values == 9).sum() > 0.9 * refined.sum()


def test_a_fine_grid_covers_the_box_of_the_structure():
    thin = structure(0)
    shape, affine = fine_grid(thin, 256)
    assert max(shape) == 256
    low = apply_affine(affine, np.full(3, -0.5))
    high = apply_affine(affine, np.array(shape) - 0.5)
    np.testing.assert_allclose(low, apply_affine(thin.affine, np.full(3, -0.5)), atol=1e-6)
    box = apply_affine(thin.affine, np.array(thin.label.shape) - 0.5)
    assert (high - box >= -1e-6).all() and (high - box < 2 * spacing_of(affine)).all()
