"""apply_models and collect_applied: the bytes of the workflow, folds, and what is refused.

Pictures are blank here, which takes half of the time away.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import zipfile

import numpy as np
import pytest
from answers import refused
from inside import run_inside
from tiny_trainings import HELD_OUT, TRAIN, Trainings

from cardiform import volumes
from cardiform.apply.latents import LATENTS
from cardiform.apply.models import find_folds
from cardiform.apply.networks import Content
from cardiform.apply.record import FIGURES
from cardiform.files import load_npz, sha256_file
from cardiform.labels import LabelTable
from cardiform.metrics.confidence import usual_contact
from cardiform.vecset.confidence import Sound

pytestmark = pytest.mark.slow
# folder of a results folder -> that of the trainings
PLACES = {
    "vecset": "vecset", "vqvae/stage0": "vqvae_pretrain", "vqvae/stage1": "vqvae_codebook",
    "vqvae/stage2": "vqvae_joint", "coronary/cardiform": "coronary",
    "ldm/labels/autoencoder": "autoencoder", "ldm/labels/diffusion": "diffusion",
    "meshes": "meshes", "points": "points", "sparse/64": "voxels",
    "coronary/repaired": "coronary_repair", "ldm/labels/latents": "latents",
}  # fmt: skip


class Families(Trainings):
    NAMES = tuple(n for n in Trainings.NAMES if n not in ("codebook_by_gradient", "coronary_near"))
    SPACING_MM = 5.0


def blank(meshes, size=600, **_):
    return np.full((size, size, 3), 255, np.uint8)


@pytest.fixture(scope="module", autouse=True)
def blank_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cardiform.pictures.figures.render_meshes", blank)
        yield


@pytest.fixture(scope="module")
def made(blank_pictures, tmp_path_factory):
    """A results folder of tiny trainings, and what the workflow makes of the held-out case."""
    folder = tmp_path_factory.mktemp("apply")
    (folder / "trainings").mkdir()
    trainings = Families(folder / "trainings", steps=2)
    trainings.make_models()
    results = folder / "acme"
    for place, source in PLACES.items():
        (results / place).parent.mkdir(parents=True, exist_ok=True)
        (results / place).symlink_to(folder / "trainings" / source)
    split = (*trainings.split, "--test", trainings.folder / "test.csv")
    cases = trainings.cases
    out = results / "vecset" / "reconstructions"
    trainings.must(
        "reconstruct_vecset.py", "--model", results / "vecset" / "model.pt", *split, *cases,
        "--meshes", results / "meshes", "--out", out, "--metrics", out / "metrics.json",
        *trainings.flags("vecset_reconstruct"),
    )  # fmt: skip
    stages = (("model", 2), ("stage1", 1), ("continuous", 0))
    models = [w for flag, k in stages for w in (f"--{flag}", results / f"vqvae/stage{k}/model.pt")]
    trainings.must(
        "reconstruct_vqvae.py", *models, *split[2:], "--manifest", trainings.manifest("voxels"),
        *cases, "--meshes", results / "meshes", "--out", results / "vqvae" / "reconstructions",
        *trainings.flags("vqvae_reconstruct"),
    )  # fmt: skip
    trainings.must(
        "refine_coronary.py", "--model", results / "coronary" / "cardiform" / "model.pt", *cases,
        "--manifest", trainings.manifest("coronary_repair"),
        "--out", results / "coronary" / "refined",
        *trainings.flags("coronary_refine", "coronary_repair"),
    )  # fmt: skip
    trainings.must(
        "fuse_labels.py", *cases, "--masks", f"coronary={results / 'coronary' / 'refined'}",
        "--out", results / "fused", "--manifest", results / "fused" / "manifest" / "all.tsv",
        *trainings.flags("fusion"),
    )  # fmt: skip
    _complete(trainings, results)
    _make_sound(trainings, results)
    return trainings, results


def _complete(trainings, results):
    """A label map without its thin classes, and what the workflow makes of it."""
    given = volumes.load_label_map(labels_of(trainings))
    lacking = np.where(np.isin(given.data, (9, 10)), 0, given.data).astype(np.uint8)
    volumes.save_label_map(results.parent / "lacking.nii.gz", lacking, given.affine)
    model = results / "ldm" / "labels" / "diffusion" / "model.pt"
    trainings.must(
        "complete_labels.py", "--model", model, "--label-maps", results.parent / "lacking.nii.gz",
        "--out", results / "ldm" / "labels" / "completion", *trainings.flags("completion"),
    )  # fmt: skip


def _make_sound(trainings, results):
    """Put into confidence.json what a longer training would: these networks make nothing yet."""
    model = results / "vecset" / "model.pt"
    sound = Sound.beside(model)
    assert (sound.training_cases, sound.held_out_cases, sound.contact) == (2, 1, {})
    usual = usual_contact(
        [volumes.load_label_map(labels_of(trainings, TRAIN[0])).data], sound.table
    )
    typical = {name: {"reconstruction": 0.9, "contact": 0.9} for name in usual}
    counted = dict.fromkeys(usual, 1)
    dataclasses.replace(sound, contact=usual, typical=typical, counted=counted).write_beside(model)


def labels_of(trainings, name=HELD_OUT):
    return trainings.folder / "demo" / "labels" / f"{name}.nii.gz"


def apply(results, out, *arguments):
    words = ("--models", results, "--out", out, "--device", "cpu", *arguments)
    return run_inside("apply_models.py", *words)


def applied_well(*arguments) -> str:
    result = apply(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stderr


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def applied(made, tmp_path_factory):
    """All tasks on the held-out case."""
    trainings, results = made
    out = tmp_path_factory.mktemp("applied") / "out"
    return out, applied_well(results, out, "--labels", labels_of(trainings))


def test_same_bytes_as_the_workflow_makes_of_a_case(made, applied):
    _, results = made
    out, _ = applied
    for family in ("vecset", "vqvae"):
        wanted = results / family / "reconstructions" / HELD_OUT
        there = {p.name for p in wanted.iterdir()} - {"compare.png", "figures.json"}
        assert len(there) >= 2
        assert there == {p.name for p in (out / family / HELD_OUT).iterdir()}
        for name in there:
            own = out / family / HELD_OUT / name
            assert own.read_bytes() == (wanted / name).read_bytes(), own
    name = f"{HELD_OUT}.nii.gz"
    for own, wanted in (
        (out / "coronary" / name, results / "coronary" / "refined" / name),
        (out / "coronary" / "fine" / name, results / "coronary" / "refined" / "fine" / name),
        (out / "fused" / name, results / "fused" / name),
    ):
        assert own.read_bytes() == wanted.read_bytes(), own


def test_latents_of_every_family_are_those_of_the_workflow(made, applied):
    _, results = made
    out, _ = applied
    found = LATENTS.load(out / "latents" / f"{HELD_OUT}.npz")
    vecset = load_npz(results / "vecset" / "reconstructions" / HELD_OUT / "latents.npz")
    np.testing.assert_array_equal(found["fold0_vecset"], vecset["latents"])
    np.testing.assert_array_equal(found["center"], vecset["center"])
    codes = load_npz(results / "vqvae" / "reconstructions" / HELD_OUT / "codes.npz")
    assert codes
    for name, array in codes.items():
        np.testing.assert_array_equal(found[f"fold0_vqvae_{name}"], array)
    ldm = load_npz(results / "ldm" / "labels" / "latents" / f"{HELD_OUT}.npz")
    np.testing.assert_array_equal(found["fold0_ldm_mu"], ldm["mu"][0])
    np.testing.assert_array_equal(found["fold0_ldm_sigma"], ldm["sigma"][0])
    assert "fold0/vecset/model.pt" in found["models"].tolist() and len(found["sha256"][0]) == 64


def test_a_bundle_does_what_its_results_folder_does(made, applied, tmp_path):
    trainings, results = made
    bundle, out = tmp_path / "acme.zip", tmp_path / "out"
    for script, *words in (
        ("export_models.py", "--models", results, "--out", bundle),
        ("import_models.py", "--bundle", bundle, "--out", tmp_path / "acme"),
    ):
        result = run_inside(script, *words)
        assert result.returncode == 0, result.stderr
    applied_well(bundle, out, "--labels", labels_of(trainings))
    whole = applied[0]
    same = [p.relative_to(whole) for p in whole.rglob("*") if p.suffix in (".ply", ".gz")]
    assert len(same) > 10
    for name in same:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    figures = [json.loads((f / f"figures/{HELD_OUT}.json").read_text()) for f in (out, whole)]
    assert len({found.pop("models") for found in figures}) == 2, "its files are others"
    assert figures[0] == figures[1]
    again = applied_well(tmp_path / "acme", out, "--labels", labels_of(trainings))
    assert "1 of 1 cases are finished already" in again, "the folder is the zip"
    name = "vecset/reconstructions/confidence.json"
    path, listing = tmp_path / "acme" / name, tmp_path / "acme" / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_sha256": "0" * 64}))
    about = json.loads(listing.read_text())
    about["files"][name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    listing.write_text(json.dumps(about))
    taken = run_inside("import_models.py", "--bundle", tmp_path / "acme")
    refused(taken, "is not the model that reconstructions/confidence.json is of; get the bundle")
    stages = tmp_path / "acme" / "stages.json"
    stages.write_text(stages.read_text().replace("smoothing", "Smoothing"))
    changed = apply(tmp_path / "acme", tmp_path / "other", "--labels", labels_of(trainings))
    assert changed.returncode == 2 and "stages.json" in changed.stderr
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr("../evil.json", "{}")
    (tmp_path / "half.zip").write_bytes(bundle.read_bytes()[:5000])
    for name, words in ((bundle, "acme.zip: ../evil.json leads out of it"),
                        (tmp_path / "half.zip", "half.zip: is no zip, or is damaged")):  # fmt: skip
        refused(apply(name, tmp_path / "other", "--labels", labels_of(trainings)), words)
    assert not (tmp_path / "other").exists() and not list(tmp_path.rglob("evil.json"))


def confidence_in(out, case_id=HELD_OUT) -> dict[str, float]:
    rows = FIGURES.load(out / "figures" / f"{case_id}.json")["rows"]
    return {r["class"]: r["value"] for r in rows if r["figure"] == "confidence"}


def test_how_far_a_label_map_can_be_trusted(applied):
    """Every class: the model makes nothing of any, and their contact is as usual."""
    out, said = applied
    found = confidence_in(out)
    assert set(found) == set(LabelTable().names)
    assert all(0.4 < value <= 0.55 for value in found.values()), found
    rows = [r for r in rows_of(out / "summary.csv") if r["reference"] == "cohort"]
    assert {r["figure"] for r in rows} == {"confidence", "reconstruction", "contact", "parts"}
    assert len(rows) == 4 * len(found)
    parts = {r["class"]: float(r["value"]) for r in rows if r["figure"] == "parts"}
    assert parts["coronary"] < 1 == parts["aorta"], "the coronaries have specks"
    lowest = min(found, key=found.get)
    assert f"{HELD_OUT}: least sure of {lowest} {found[lowest]:.2f}, " in said
    assert said.count(f"{HELD_OUT} done") == 1


def test_what_was_done_is_said(applied):
    out, said = applied
    tasks = ["reconstruct", "encode", "refine", "complete", "fuse"]
    assert f"tasks: {', '.join(tasks)}" in said
    content = FIGURES.load(out / "figures" / f"{HELD_OUT}.json")
    assert content["tasks"] == tasks and content["trained_on"] == []
    assert {"reconstruct", "refine", "fuse"} <= {row["task"] for row in content["rows"]}


def test_finished_cases_are_kept_and_other_tasks_make_them_again(made, applied, tmp_path):
    trainings, results = made
    shutil.copytree(applied[0], tmp_path / "out")
    labels = ("--labels", labels_of(trainings))
    assert "1 of 1 cases are finished already" in applied_well(results, applied[0], *labels)
    fewer = (*labels, "--tasks", "refine", "fuse")
    assert f"{HELD_OUT} done (1 of 1)" in applied_well(results, tmp_path / "out", *fewer)
    before, after = (rows_of(folder / "summary.csv") for folder in (applied[0], tmp_path / "out"))
    assert sorted(map(str, after)) == sorted(map(str, before)), "the other tasks' figures stay"
    other = (labels_of(trainings, TRAIN[0]), "--tasks", "refine")
    applied_well(results, tmp_path / "out", "--labels", *other)
    assert {r["case_id"] for r in rows_of(tmp_path / "out" / "summary.csv")} == {HELD_OUT, TRAIN[0]}


def test_one_bad_case_stops_no_other_and_truth_is_measured(made, tmp_path):
    trainings, results = made
    given = volumes.load_label_map(labels_of(trainings))
    lacking = volumes.load_label_map(results.parent / "lacking.nii.gz").data
    other = np.where(given.data == 9, 77, given.data).astype(np.uint8)
    affine = given.affine.copy()
    affine[:3, :3] *= 10
    for name, data, grid in (
        ("lacking", lacking, given.affine),
        ("other", other, given.affine),
        ("coarse", np.ascontiguousarray(given.data[::4, ::4, ::4]), affine),
    ):
        volumes.save_label_map(tmp_path / f"{name}.nii.gz", data, grid)
    (tmp_path / "broken.nii.gz").write_bytes(b"nothing")
    truth = trainings.folder / "demo" / "truth" / f"{HELD_OUT}.nii.gz"
    lines = ["case_id,labels,truth", f"lacking,lacking.nii.gz,{truth}"]
    lines += [f"{name},{name}.nii.gz," for name in ("other", "broken", "coarse", "gone")]
    lines.append(f"{TRAIN[0]},{labels_of(trainings, TRAIN[0])},")
    (tmp_path / "new.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    result = apply(results, out, "--table", tmp_path / "new.csv")
    refused(
        result,
        "label 77 is not in the label table (1-10); remap it to the classes that the models",
        "case broken:", "case gone:", "10.0 times the", "pulmonary_veins is missing",
    )  # fmt: skip
    assert result.stderr.count("error: ") == 3
    done = {p.stem for p in (out / "figures").glob("*.json")}
    assert done == {"lacking", "coarse", TRAIN[0]}
    for name in done:
        assert (out / "pictures" / f"{name}.png").stat().st_size > 0
    figures = FIGURES.load(out / "figures" / "lacking.json")
    assert "nothing is refined: coronary is missing" in figures["notes"]
    assert not (out / "coronary" / "lacking.nii.gz").exists()
    own = out / "completed" / "lacking.nii.gz"
    workflow = results / "ldm" / "labels" / "completion" / "lacking.nii.gz"
    assert own.read_bytes() == workflow.read_bytes(), "what complete_labels makes of the same map"
    completed = volumes.load_label_map(own).data
    np.testing.assert_array_equal(completed[lacking > 0], lacking[lacking > 0])
    rows = rows_of(out / "summary.csv")
    of_truth = {r["task"] for r in rows if r["case_id"] == "lacking" and r["reference"] == "truth"}
    assert {"reconstruct", "fuse"} <= of_truth
    assert {r["trained_on"] for r in rows if r["case_id"] == "lacking"} == {""}
    assert all("acme: vecset" in r["trained_on"] for r in rows if r["case_id"] == TRAIN[0])


def test_orientation_does_not_matter(made, applied, tmp_path):
    """The same voxels stored from right to left are the same heart, in the same place."""
    trainings, results = made
    given = volumes.load_label_map(labels_of(trainings))
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror[0, 3] = given.data.shape[0] - 1
    folder = tmp_path / "new"
    data, affine = np.ascontiguousarray(given.data[::-1]), given.affine @ mirror
    volumes.save_label_map(folder / f"{HELD_OUT}.nii.gz", data, affine)
    out = tmp_path / "out"
    applied_well(results, out, "--labels", folder, "--tasks", "reconstruct,encode")
    both = [load_npz(f / "latents" / f"{HELD_OUT}.npz") for f in (applied[0], out)]
    np.testing.assert_allclose(both[0]["center"], both[1]["center"], atol=0.05)
    np.testing.assert_allclose(both[0]["scale"], both[1]["scale"], rtol=1e-3)
    labels = volumes.load_label_map(out / "vqvae" / HELD_OUT / "labels.nii.gz")
    np.testing.assert_allclose(labels.affine, affine, atol=1e-4)


def test_folds_that_are_one_model_twice_make_what_it_makes(made, tmp_path):
    """The mean of equal fields is that field, and the folds agree wholly."""
    trainings, results = made
    shutil.copytree(results, tmp_path / "folds" / "0")
    shutil.copytree(results, tmp_path / "folds" / "1")
    given = volumes.load_label_map(labels_of(trainings))
    data = np.where(given.data == 10, 0, given.data).astype(np.uint8)
    volumes.save_label_map(tmp_path / f"{HELD_OUT}.nii.gz", data, given.affine)
    labels = ("--labels", tmp_path / f"{HELD_OUT}.nii.gz")
    applied_well(results, tmp_path / "one", *labels)
    applied_well(tmp_path / "folds", tmp_path / "two", *labels)
    for name in (
        f"vecset/{HELD_OUT}/labels.nii.gz", f"vqvae/{HELD_OUT}/labels.nii.gz",
        f"coronary/{HELD_OUT}.nii.gz", f"fused/{HELD_OUT}.nii.gz", f"completed/{HELD_OUT}.nii.gz",
    ):  # fmt: skip
        one, two = (volumes.load_label_map(tmp_path / out / name).data for out in ("one", "two"))
        assert (one != two).mean() < 1e-3, name
    rows = rows_of(tmp_path / "two" / "summary.csv")
    sure = confidence_in(tmp_path / "two")
    assert sure and sure == pytest.approx(confidence_in(tmp_path / "one"), abs=0.01)
    agreement = [float(r["value"]) for r in rows if r["figure"] == "agreement"]
    assert len(agreement) >= 10 and min(agreement) > 0.98
    assert "agreement" not in {r["figure"] for r in rows_of(tmp_path / "one" / "summary.csv")}
    latents = LATENTS.load(tmp_path / "two" / "latents" / f"{HELD_OUT}.npz")
    np.testing.assert_array_equal(latents["fold0_vecset"], latents["fold1_vecset"])


def test_fused_label_maps_take_the_place_of_the_given_ones(made, tmp_path):
    trainings, results = made
    options = ("--use-refined", "true", "--tasks", "fuse", "encode")
    applied_well(results, tmp_path / "out", "--labels", labels_of(trainings), *options)
    fused = tmp_path / "out" / "fused" / f"{HELD_OUT}.nii.gz"
    applied_well(results, tmp_path / "alone", "--labels", fused, "--tasks", "encode")
    one, two = (load_npz(tmp_path / f / "latents" / f"{HELD_OUT}.npz") for f in ("out", "alone"))
    np.testing.assert_array_equal(one["fold0_vecset"], two["fold0_vecset"])


def test_chunks_are_summed_up_as_one_call_is(made, applied, tmp_path):
    trainings, results = made
    """A chunk lists its bad cases: they would keep the others from being summed up."""
    lines = ["case_id,labels", f"{HELD_OUT},{labels_of(trainings)}", "gone,gone.nii.gz"]
    (tmp_path / "new.csv").write_text("\n".join([*lines, "other,x.nii.gz"]) + "\n")
    out = tmp_path / "out"
    shutil.copytree(applied[0], out)  # the good case is finished
    (out / "summary.csv").unlink()
    manifest = out / "manifest" / "chunk_000.tsv"
    table = ("--table", tmp_path / "new.csv", "--select", HELD_OUT, "gone", "--manifest", manifest)
    applied_well(results, out, *table)
    assert not (out / "summary.csv").exists()
    places = ("--applied", out, "--out", out / "summary.csv")
    summed = run_inside("collect_applied.py", "--manifest", manifest, *places)
    assert summed.returncode == 0, summed.stderr
    assert "left out: gone: skipped: " in summed.stderr and "does not exist" in summed.stderr
    assert (out / "summary.csv").read_text() == (applied[0] / "summary.csv").read_text()


def test_models_that_do_not_fit_are_named_before_anything_is_made(made, tmp_path):
    trainings, results = made
    only = tmp_path / "only"
    only.mkdir()
    (only / "vecset").symlink_to(results / "vecset")
    labels = ("--labels", labels_of(trainings))
    result = apply(only, tmp_path / "out", *labels, "--tasks", "refine", "complete")
    refused(result, "only: has no model for the task refine", "for the task complete")
    result = apply(only, tmp_path / "out", *labels, "--use-refined", "true")
    refused(result, "only: has no model for the task fuse")
    result = apply(results, results, *labels)
    refused(result, "acme: is a folder of models; choose another output folder")
    (only / "coronary" / "cardiform").mkdir(parents=True)
    (only / "coronary" / "cardiform" / "model.pt").write_bytes(b"nothing")
    refused(apply(only, tmp_path / "out", *labels), "model.pt: is damaged or no file of this")
    assert not (tmp_path / "out").exists()
    (tmp_path / "empty.csv").write_text("case_id,labels\n")
    result = apply(tmp_path / "gone", tmp_path / "out", "--table", tmp_path / "empty.csv")
    refused(result, "empty.csv: has no cases; list at least one", "gone: does not exist")


def test_without_figures_that_fit_there_is_no_confidence_and_damaged_ones_are_refused(
    made, tmp_path
):
    trainings, results = made
    only = tmp_path / "only"
    (only / "vecset" / "reconstructions").mkdir(parents=True)
    (only / "vecset" / "model.pt").symlink_to(results / "vecset" / "model.pt")
    path = only / "vecset" / "reconstructions" / "confidence.json"
    place = "vecset/reconstructions/confidence.json"
    content = Content.of(find_folds([only]))
    [line] = content.unsure
    assert content.sound == [None] and f"only: has no {place}; run reconstruct_vecset again" in line
    sound = Sound.beside(results / "vecset" / "model.pt")
    sound.write_beside(only / "vecset" / "model.pt")
    assert Content.of(find_folds([results, only])).sound[1].model_sha256 == sound.model_sha256
    dataclasses.replace(sound, model_sha256="0" * 64).write(path)
    content = Content.of(find_folds([results, only]))
    assert content.sound[0] is not None and content.sound[1] is None
    assert f"only: has another VecSet than that of {place}" in content.unsure[0]
    other = LabelTable(tuple(dataclasses.replace(c, priority=1) for c in sound.table))
    dataclasses.replace(sound, table=other).write(path)
    labels = ("--labels", labels_of(trainings))
    for words in ("is of another label table than the VecSet", "1 column 2"):
        result = apply(only, tmp_path / "out", *labels)
        refused(result, f"{place}: ", words)
        assert result.stderr.count("error: ") == 1
        path.write_text("{")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def with_modes(made):
    """A results folder of a VecSet and modes of variation, and scores of the held-out case."""
    trainings, results = made
    folder = results.parent / "modes"
    (folder / "vecset").mkdir(parents=True)
    (folder / "vecset" / "model.pt").symlink_to(results / "vecset" / "model.pt")
    hearts = (*trainings.cases, "--meshes", results / "meshes")
    lines = ["case_id,patient_id,path", *(f"{name},{name},-" for name in (*TRAIN, HELD_OUT))]
    (folder / "all.csv").write_text("\n".join(lines) + "\n")
    none = trainings.folder / "test.csv"
    split = ("--train", folder / "all.csv", "--validation", none, "--test", none)
    quick = ("--grid-mm", 6, "--mesh-mm", 6, "--samples", 1, "--pairs", 1, "--classes", "aorta")
    out = folder / "shape_statistics"
    trainings.must("shape_statistics.py", *hearts, *split, "--out", out, *quick)
    with open(out / "scores.csv") as stream:
        rows = {row["case_id"]: row for row in csv.DictReader(stream)}
    return folder, rows[HELD_OUT]


def test_scores_are_those_of_the_statistics(made, with_modes, tmp_path):
    trainings, _ = made
    folder, wanted = with_modes
    labels = ("--labels", labels_of(trainings))
    applied_well(folder, tmp_path / "out", *labels)
    rows = [r for r in rows_of(tmp_path / "out" / "summary.csv") if r["class"] == "heart"]
    found = {r["figure"]: float(r["value"]) for r in rows}
    modes = {name: float(value) for name, value in wanted.items() if name.startswith("mode_")}
    assert modes and found == pytest.approx(
        modes | {"residual_mm": float(wanted["residual_mm"])}, abs=2e-3
    )
    model = folder / "shape_statistics" / "model.npz"
    content = model.read_bytes()
    model.write_bytes(content[:500])
    refused(apply(folder, tmp_path / "other", *labels), "model.npz: cannot be read")
    model.write_bytes(content)
    beside = model.with_name("template.npz")
    beside.rename(tmp_path / "template.npz")
    refused(apply(folder, tmp_path / "other", *labels), "template.npz: does not exist")
    (tmp_path / "template.npz").rename(beside)


def test_label_maps_or_a_table(tmp_path):
    refused(apply("x", tmp_path / "out"), "name --labels or --table, one of them: see --help")
    words = ("--labels", "a.nii.gz", "--select", "a")
    refused(apply("x", tmp_path / "out", *words), "--select needs --table")
    table = ("--table", "a.tsv")
    nothing = apply("x", tmp_path / "out", *table, "--select")
    refused(nothing, "argument --select: expected at least one argument")
    nothing = apply("x", tmp_path / "out", *table, "--tasks")
    refused(nothing, "argument --tasks: expected one argument")
