"""A results folder of the version before: finished for this one too, and its files are read."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
import yaml
from answers import refused
from dag import planned
from inside import run_inside

from cardiform import volumes
from cardiform.artefact.model import load_model
from cardiform.cohort.manifest import read_manifest
from cardiform.cohort.per_case import STATE
from cardiform.cohort.splits import read_split
from cardiform.cohort.table import read_checked_cases
from cardiform.coronary.model import DENOISER, NEAR
from cardiform.coronary.thin_structure import ThinStructure
from cardiform.fusion.summary import REPORT as FUSION
from cardiform.geometry.mesh_files import read_mesh
from cardiform.geometry.meshed import FRAME
from cardiform.geometry.narrowband import NarrowBand
from cardiform.labels import LabelTable
from cardiform.ldm.autoencoder_model import AUTOENCODER
from cardiform.ldm.data import load_latents
from cardiform.ldm.diffusion_model import DIFFUSION, LatentStatistics
from cardiform.ldm.hearts_on_grid import load_grid, read_box
from cardiform.ldm.samples import SAMPLE
from cardiform.options.sections import SECTIONS
from cardiform.vecset.data import load_case_points
from cardiform.vecset.model import VECSET
from cardiform.vecset.reconstruct import LATENTS, load_frame
from cardiform.vqvae.model import CONTINUOUS, QUANTISED
from cardiform.vqvae.reconstruct import CODES

ARCHIVE = Path(__file__).parents[1] / "data" / "results_before.tar.xz"
# Defaults of that version which have changed: with them its results are what this one would make.
DEFAULTS = {"coronary_repair": {"evidence": ["myocardium", "aorta"], "gap_mm": 6.0}}
TARGETS = ("all", "coronary", "fused", "ldm", "vqvae_windows")
KINDS = {
    "vecset": VECSET, "coronary/cardiform": DENOISER, "coronary/near": NEAR,
    "ldm/labels/autoencoder": AUTOENCODER, "ldm/labels/diffusion": DIFFUSION,
    **{f"{route}/stage0": CONTINUOUS for route in ("vqvae", "vqvae_windows/bone")},
    **{f"{r}/stage{n}": QUANTISED for r in ("vqvae", "vqvae_windows/bone") for n in (1, 2)},
}  # fmt: skip


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The folder; not to be changed."""
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def results(unpacked):
    return unpacked / "results" / "before"


@pytest.fixture
def before(unpacked, tmp_path, monkeypatch):
    """A copy with the same times; the working directory, for all paths in it are relative."""
    shutil.copytree(unpacked, tmp_path / "copy")
    config = yaml.safe_load((tmp_path / "copy" / "mine.yaml").read_text())
    for section, values in DEFAULTS.items():
        config[section] = {**values, **config.get(section, {})}
    (tmp_path / "copy" / "mine.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def recorded(rule: str, contains: str = "") -> list[str]:
    """Script and arguments of a job, as Snakemake recorded them."""
    for path in sorted(Path(".snakemake/metadata").iterdir()):
        record = json.loads(path.read_text())
        if record["rule"] == rule and contains in record["shellcmd"]:
            [words] = re.findall(r".*/(\w+\.py .*) 2>&1", record["shellcmd"])
            return shlex.split(words)
    raise AssertionError(f"no job of {rule} is recorded")


NEW = {"write_report": 1, "all": 1}  # the version before had no report


@pytest.mark.parametrize("triggers", ["", "mtime params input code software-env"])
def test_nothing_is_to_be_done(before, triggers):
    more = ("--rerun-triggers", *triggers.split()) if triggers else ()
    assert planned(before, *TARGETS, *more) == NEW


def test_a_changed_default_plans_its_stage(before):
    """Without its key the evidence of the repair is every other class."""
    config = yaml.safe_load((before / "mine.yaml").read_text())
    del config["coronary_repair"]["evidence"]
    (before / "mine.yaml").write_text(yaml.safe_dump(config))
    assert {"repair_coronary", "refine_coronary"} <= set(planned(before, *TARGETS))


def test_a_changed_key_plans_its_stage_and_what_follows(before):
    config = yaml.safe_load((before / "mine.yaml").read_text())
    config["vecset"]["lr"] = 3e-4
    (before / "mine.yaml").write_text(yaml.safe_dump(config))
    assert set(planned(before, *TARGETS)) == {"train_vecset", "reconstruct_vecset", *NEW}


@pytest.mark.parametrize(
    "rule", ["extract_meshes", "sample_sdf", "voxelize_labels", "repair_coronary"]
)
def test_a_finished_case_is_known(before, rule):
    script, *arguments = recorded(rule, "phantom_000")
    first = arguments.index("--select")
    del arguments[first + 2]  # the files of the other case are not in the archive
    result = run_inside(script, *arguments)
    assert result.returncode == 0, result.stderr
    assert "1 of 1 cases are finished already" in result.stderr


@pytest.mark.parametrize("rule", ["resample_labels", "encode_latents"])
def test_voxels_and_latents_are_made_again_where_their_stage_is_called(before, rule):
    """Cubes lie about the chambers now, and latents hold how their variants were moved."""
    script, *arguments = recorded(rule)
    result = run_inside(script, *arguments)
    assert result.returncode == 0, result.stderr
    assert "(4 of 4)" in result.stderr and "are finished already" not in result.stderr
    assert "4 of 4 cases are finished already" in run_inside(script, *arguments).stderr


def test_a_diffusion_is_not_trained_on_latents_without_their_moves(before):
    script, *arguments = recorded("train_diffusion")
    arguments += ["--out", "other"]
    refused(
        run_inside(script, *arguments),
        "statistics.json: is of an earlier version",
        "--forcerun encode_latents",
    )
    encode, *of_encode = recorded("encode_latents")
    assert run_inside(encode, *of_encode).returncode == 0
    result = run_inside(script, *arguments)
    assert result.returncode == 0, result.stderr
    model = load_model("other/model.pt", DIFFUSION)
    assert len(model.extra["statistics"]["largest_move"]) == 9


@pytest.mark.parametrize("folder", KINDS)
def test_models_are_read(results, folder):
    model = load_model(results / folder / "model.pt", KINDS[folder])
    assert model.options and all(model.section(name, SECTIONS[name]) for name in model.options)
    if KINDS[folder] is DENOISER:  # the only one that kept its cases
        assert model.trained_on("phantom_003") and not model.trained_on("phantom_000")


def test_every_model_has_its_kind(results):
    found = {str(p.parent.relative_to(results)) for p in results.rglob("model.pt")}
    assert found == set(KINDS)


READERS = {
    "points/*.npz": (load_frame, lambda p: load_case_points(p, "phantom_000", LabelTable())),
    "sparse/32/*/*.npz": (NarrowBand.load,),
    "windows/bone/32/*/*.npz": (NarrowBand.load,),
    "meshes/*/frame.json": (FRAME.load,),
    "meshes/*/*.ply": (read_mesh,),
    "coronary/repaired/*.npz": (ThinStructure.load,),
    "coronary/repaired/*.nii.gz": (volumes.load_label_map,),
    "fused/phantom_*.json": (FUSION.load,),
    "ldm/labels/voxels/grid.json": (load_grid,),
    "ldm/labels/voxels/boxes/*.json": (read_box,),
    "ldm/labels/latents/*.npz": (load_latents,),
    "ldm/labels/latents/statistics.json": (LatentStatistics.load,),
    "ldm/labels/samples/latents/*.npz": (SAMPLE.load,),
    "vecset/reconstructions/*/latents.npz": (LATENTS.load,),
    "vqvae/reconstructions/*/codes.npz": (CODES.load,),
    "**/state/*.json": (STATE.load,),
    "**/manifest/*.tsv": (read_manifest,),
    "**/manifest.tsv": (read_manifest,),
    "cases.tsv": (read_checked_cases,),
    "fused/cases.tsv": (read_checked_cases,),
    "split/*.csv": (read_split,),
}


@pytest.mark.parametrize("pattern", READERS)
def test_stored_files_are_read(results, pattern):
    paths = sorted(results.glob(pattern))
    assert paths
    for path in paths:
        for reader in READERS[pattern]:
            assert reader(path) is not None


def test_an_interrupted_training_goes_on(before):
    script, *arguments = recorded("train_coronary")
    result = run_inside(script, *arguments, "--out", "interrupted")
    assert result.returncode == 0, result.stderr
    assert "resuming from step 1" in result.stderr
    lines = [json.loads(x) for x in Path("interrupted/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 4
    model = load_model("interrupted/model.pt", DENOISER)
    assert all(torch.isfinite(w).all() for w in model.weights.values())
