"""Which models a folder holds, what can be done with them, and how their data were made."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cardiform import cli, outputs
from cardiform.apply import case as apply_steps
from cardiform.apply.inputs import cases_of_files, cases_of_table
from cardiform.apply.models import find_folds, find_models
from cardiform.apply.networks import one_table
from cardiform.apply.record import FIGURES, LABEL, Origin, Record, earlier_figures, figures_path
from cardiform.apply.stages import FOLDERS, find_stages
from cardiform.apply.tasks import choose, left_out, usable
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.files import write_json, write_text
from cardiform.labels import LabelTable
from cardiform.options.coronary import CoronaryRepairOptions
from cardiform.options.geometry import PointsOptions
from cardiform.options.sections import SECTIONS

ALL = ("vecset", "vqvae/stage1", "coronary/near", "ldm/labels/autoencoder", "ldm/labels/diffusion")


@pytest.fixture(autouse=True)
def unguarded():
    yield
    outputs.register(outputs.Places())


def put(folder, *places, suffix=".pt"):
    for place in places:
        (folder / place).mkdir(parents=True)
        (folder / place / f"model{suffix}").write_text("weights")
    return folder


def problems_of(call, *arguments) -> str:
    with pytest.raises(InputError) as error:
        call(*arguments)
    return "\n".join(error.value.problems)


def ran(folder, script, options):
    """A folder that a script wrote to with some options."""
    maker = f"{script} {cli.flags(options)}"
    outputs.register(outputs.Places([outputs.absolute(folder)], maker=maker))
    write_text(folder / f"{len(list(folder.glob('*')))}.txt", "made")


# --- the folder --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_models_are_found_by_their_places_in_results_and_in_bundles(tmp_path, suffix):
    found = find_models(put(tmp_path, *ALL, suffix=suffix))
    assert found.vecset == tmp_path / "vecset" / f"model{suffix}"
    assert found.vqvae == tmp_path / "vqvae" / "stage1" / f"model{suffix}"
    assert list(found.refiners) == [("coronary", "near")]
    assert found.coder == tmp_path / "ldm" / "labels" / "autoencoder" / f"model{suffix}"
    put(tmp_path, "vqvae/stage2", suffix=suffix)
    assert find_models(tmp_path).vqvae == tmp_path / "vqvae" / "stage2" / f"model{suffix}"


def test_the_diffusion_alone_encodes_too_and_point_clouds_do_not_count(tmp_path):
    put(tmp_path, "ldm/labels/diffusion", "ldm/pointclouds/autoencoder")
    found = find_models(tmp_path)
    assert found.autoencoder is None and found.coder == found.diffusion


def test_folds_are_named_one_by_one_or_lie_in_a_folder(tmp_path):
    folds = [put(tmp_path / f"fold{k}", "vecset") for k in range(3)]
    assert [m.folder for m in find_folds([tmp_path])] == folds
    assert [m.folder for m in find_folds(folds[:2])] == folds[:2]
    inside = put(tmp_path / "acme" / "folds" / "0", "vecset")
    assert [m.folder for m in find_folds([tmp_path / "acme"])] == [inside]


def test_folders_without_models_are_all_named(tmp_path):
    file = put(tmp_path / "a", "vecset") / "vecset" / "model.pt"
    (tmp_path / "empty").mkdir()
    text = problems_of(find_folds, [file, tmp_path / "gone", tmp_path / "empty"])
    assert "model.pt: is a file, not a folder of models; name a results folder" in text
    assert "gone: does not exist" in text and "empty: has no trained model" in text
    assert "is named twice" in problems_of(find_folds, [tmp_path / "a", tmp_path / "a"])


# --- the tasks ---------------------------------------------------------------------------------


def test_by_default_all_that_the_models_can_do(tmp_path):
    models = [find_models(put(tmp_path, "vecset"))]
    reasons = left_out(models, [{}])
    assert choose((), reasons) == ("reconstruct", "encode")
    assert set(reasons) == {"refine", "complete", "fuse"}
    text = problems_of(choose, ("refine", "reconstruct", "fuse"), reasons)
    assert text.count("has no model for the task") == 2 and "coronary/cardiform" in text


def test_folds_can_do_what_each_of_them_can(tmp_path):
    models = [
        find_models(put(tmp_path / "a", "vecset", "coronary/cardiform")),
        find_models(put(tmp_path / "b", "vecset")),
    ]
    assert usable(models) == ["vecset"]
    assert (
        f"{tmp_path / 'b'}: has no model for the task refine"
        in left_out(models, [{}, {}])["refine"]
    )


# --- how the training data were made -----------------------------------------------------------


def test_options_of_the_last_run_of_each_script_are_read_back(tmp_path):
    folder = tmp_path / "points"
    ran(folder, "sample_sdf", PointsOptions(seed=3, near_sigma=(0.01, 0.02)))
    ran(folder, "another", CoronaryRepairOptions(gap_mm=9))
    assert find_stages(tmp_path)["points"] == PointsOptions(seed=3, near_sigma=(0.01, 0.02))
    ran(folder, "sample_sdf", PointsOptions(seed=4))
    assert find_stages(tmp_path)["points"].seed == 4
    ran(folder, "sample_sdf", PointsOptions(seed=3))
    stages = find_stages(tmp_path)
    assert stages["points"].seed == 3 and stages.known == {"points"}


def test_stages_are_found_however_a_folder_is_written(tmp_path, monkeypatch):
    ran(tmp_path / "acme" / "points", "sample_sdf", PointsOptions(seed=3))
    fold = put(tmp_path / "acme" / "folds" / "0", "vecset")
    for place, written in ((fold, "."), (fold.parent, "0"), (fold / "vecset", "..")):
        monkeypatch.chdir(place)
        assert find_stages(Path(written)) == find_stages(fold)
        assert find_stages(Path(written))["points"].seed == 3
        assert [m.folder.name for m in find_folds([Path(written)])] == ["0"]


def test_latent_diffusion_alone_may_know_fewer_classes(tmp_path):
    def stored(name, classes):
        table = LabelTable(tuple(LabelTable())[:classes])
        return SimpleNamespace(path=tmp_path / name, labels=True, table=table)

    whole = stored("vecset", 10)
    assert one_table([], [{"vecset": whole, "diffusion": stored("diffusion", 9)}]) == LabelTable()
    text = problems_of(one_table, [], [{"vecset": whole}, {"vecset": stored("other", 9)}])
    assert "other: was trained with another label table than" in text


def test_empty_lists_and_the_structure_are_read_back(tmp_path):
    given = CoronaryRepairOptions(structure="veins", evidence=(), gap_mm=2.5)
    ran(tmp_path / "veins" / "repaired", "repair_coronary", given)
    assert find_stages(tmp_path, "veins")["coronary_repair"] == given
    assert find_stages(tmp_path)["coronary_repair"] == CoronaryRepairOptions()


def test_stages_of_a_bundle_are_those_of_its_results(tmp_path):
    ran(tmp_path / "a" / "points", "sample_sdf", PointsOptions(seed=5, near_sigma=(0.03,)))
    found = dataclasses.replace(find_stages(tmp_path / "a"), spacing_mm=(0.5, 0.7), refined=True)
    outputs.register(outputs.Places())
    found.write(tmp_path / "b")
    assert find_stages(tmp_path / "b") == found
    write_json(
        tmp_path / "b" / "stages.json", {"format_version": 2, "stages": {}, "spacing_mm": []}
    )
    assert "stages format 2" in problems_of(find_stages, tmp_path / "b")


def test_training_data_of_fused_label_maps_are_known_by_their_voxels(tmp_path):
    frame = {
        "format_version": 1, "center_mm": [0, 0, 0], "scale": 0.01, "affine": np.eye(4).tolist(),
        "spacing_mm": [0.5, 0.5, 4.0], "shape": [9, 9, 9], "smoothing_vox": 0.7, "classes": {},
    }  # fmt: skip
    a_class = {
        "value": 9, "voxels": 7, "volume_voxels_mm3": 1, "volume_mesh_mm3": 1, "area_mm2": 1,
        "shift_mm": 0, "touches_border": False, "watertight": True,
    }  # fmt: skip
    counted = {"voxels": 7, "volume_ml": 1.0, "components": 1, "touches_border": False}
    report = {"case_id": "a", "sha256": [], "problems": [], "warnings": []}
    write_json(tmp_path / "meshes" / "a" / "frame.json", frame | {"classes": {"coronary": a_class}})
    path = tmp_path / "qc" / "cases" / "a.json"
    write_json(path, report | {"classes": {"coronary": counted}})
    found = find_stages(tmp_path)
    assert not found.refined and found.spacing_mm == (1.0,)
    assert found["meshes"].smoothing_vox == 0.7, "of the newest files, whatever was noted"
    write_json(path, report | {"classes": {"coronary": counted | {"voxels": 8}}})
    assert find_stages(tmp_path).refined


def test_every_recorded_section_is_one_of_the_config(tmp_path):
    assert set(FOLDERS) <= set(SECTIONS)
    assert set(find_stages(tmp_path).options) == set(FOLDERS)


# --- the cases ---------------------------------------------------------------------------------


def test_cases_are_called_by_their_files(tmp_path):
    for name in ("7.label.nii.gz", "b_seg.nii", "notes.txt"):
        (tmp_path / name).write_text("x")
    by_folder = {c.case_id: c.labels for c in cases_of_files([str(tmp_path)])}
    by_pattern = {c.case_id for c in cases_of_files([str(tmp_path / "*.nii*")])}
    assert set(by_folder) == by_pattern == {"7", "b"}
    assert by_folder["7"] == str(tmp_path / "7.label.nii.gz")


def test_names_that_cannot_be_used_are_all_told(tmp_path):
    paths = ["x/a.nii.gz", "y/a_seg.nii.gz", "a b.nii.gz", "state.nii.gz", "c.txt", "none*.nii.gz"]
    text = problems_of(cases_of_files, paths)
    assert "y/a_seg.nii.gz: would be the case a, as x/a.nii.gz; give both an id" in text
    assert "'a b', which is not usable" in text and "'state', which is not usable" in text
    assert "c.txt: is not called like a label map" in text
    assert "none*.nii.gz: fits no file" in text
    assert len(text.splitlines()) == 5


def test_of_a_table_label_map_and_truth_count(tmp_path):
    (tmp_path / "new.csv").write_text("case_id,labels,image,truth\na,a.nii.gz,ct.nii.gz,t.nii.gz\n")
    (case,) = cases_of_table(tmp_path / "new.csv")
    assert case.files == [str(tmp_path / "a.nii.gz"), str(tmp_path / "t.nii.gz")]


# --- several folds -----------------------------------------------------------------------------


def test_the_mean_of_solids_is_that_of_their_distances():
    from cardiform.geometry.closed_band import Solid, mean_solid

    def ball(radius, size, start):
        index = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), -1) + start
        values = np.linalg.norm(index - 20, axis=-1) - radius
        affine = np.diag([2.0, 2.0, 2.0, 1.0])
        affine[:3, 3] = 2.0 * start
        return Solid(np.clip(values / 3, -1, 1).astype(np.float32), affine)

    small, large = ball(5, 21, 10), ball(9, 31, 5)
    middle = mean_solid([small, large])
    assert (middle.values < 0).sum() == pytest.approx(4 / 3 * np.pi * 7**3, rel=0.05)
    nothing = Solid(np.ones((1, 1, 1), np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))
    assert not (mean_solid([small, nothing, nothing]).values < 0).any()
    np.testing.assert_allclose(mean_solid([small, small]).values, small.values, atol=2e-4)


def test_the_picture_of_a_fused_case_shows_what_was_given(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(apply_steps, "draw_case", lambda path, ready, *_: drawn.append(ready))
    monkeypatch.setattr(apply_steps, "STEPS", {"fuse": lambda work: drawn.append(work.ready)})
    content = SimpleNamespace(trained_on=lambda case_id: [])
    networks = SimpleNamespace(table=LabelTable(), stages=None, content=content)
    monkeypatch.chdir(tmp_path)
    Path("given.nii.gz").write_bytes(b"a label map")
    case = Case(case_id="a", patient_id="a", labels="given.nii.gz")
    how = {"networks": networks, "tasks": ("fuse",), "out": tmp_path, "notes": {}}
    apply_steps.apply_case(case, **how, use_refined=True)
    assert [ready.case.labels for ready in drawn] == ["given.nii.gz", "given.nii.gz"]


def test_figures_of_other_tasks_stay_while_models_and_files_are_the_same(tmp_path, caplog):
    path, same = figures_path(tmp_path, "a"), Origin("m", ["l", "", ""])

    def call(tasks, origin, dice):
        record = Record(notes=["coarse"])
        for task in tasks:
            record.add(task, "vecset", LABEL, {"aorta": {"dice": dice}})
        done = record.add_earlier(path, tasks, origin)
        record.write(path, "a", done, [], origin)
        found = FIGURES.load(path)
        assert found["notes"] == ["coarse"]
        return found["tasks"], [(row["task"], row["value"]) for row in found["rows"]]

    assert call(["reconstruct", "refine"], same, 0.1)[0] == ["reconstruct", "refine"]
    tasks, rows = call(["fuse"], same, 0.2)  # which refines, too
    assert tasks == ["fuse", "reconstruct"] and rows == [("reconstruct", 0.1), ("fuse", 0.2)]
    assert call(["reconstruct"], same, 0.3)[1] == [("fuse", 0.2), ("reconstruct", 0.3)]
    assert not caplog.messages
    tasks, rows = call(["encode"], Origin("m", ["other", "", ""]), 0.4)
    assert tasks == ["encode"] and rows == [("encode", 0.4)]
    assert caplog.messages == [
        "a: no figures of reconstruct, fuse: they are of other models, options or files"
    ]


def test_earlier_cases_stay_in_the_summary_where_their_models_are_the_same(tmp_path, caplog):
    for name, models in (("a", "m"), ("b", "m"), ("c", "other"), ("d", "m")):
        Record().write(figures_path(tmp_path, name), name, [], [], Origin(models, []))
    found = earlier_figures(tmp_path, ["d"], "m")
    assert [path.stem for path in found] == ["a", "b"]
    assert caplog.messages == [
        "1 cases of earlier calls are not in summary.csv (other models or options): c"
    ]
