"""The DAG: what a changed key, a new case and a changed label map send round again.

A stand-in ``python`` makes the outputs of every script at once (tests/support/stand_in.py).
What another case table does stands in test_cohort_changes.py.
"""

from __future__ import annotations

import re
import shutil

import pytest
import yaml
from config_tool import load_tool
from dag import ROOT, make_project, planned, run, snakemake, write_config, write_table

from cardiform.options.sections import SECTIONS, base_of


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """All that a plain call makes; not to be changed."""
    project = make_project(tmp_path_factory.mktemp("finished"))
    run(project)
    return project


@pytest.fixture(scope="module")
def finished_with_coronaries(finished, tmp_path_factory):
    """The same and the refined coronaries; not to be changed."""
    folder = tmp_path_factory.mktemp("coronaries")
    project = shutil.copytree(finished, folder / "project", symlinks=True)
    run(project, "all", "coronary")
    return project


@pytest.fixture
def done(finished, tmp_path):
    """A copy of the finished project."""
    return shutil.copytree(finished, tmp_path / "project", symlinks=True)


@pytest.fixture
def done_with_coronaries(finished_with_coronaries, tmp_path):
    return shutil.copytree(finished_with_coronaries, tmp_path / "project", symlinks=True)


ALL = {"write_report": 1, "all": 1}
VECSET = {"train_vecset": 1, "reconstruct_vecset": 1, **ALL}
TOGETHER = "vqvae_windows/together"
STAGES = ("pretrain_vqvae", "train_codebook", "train_vqvae", "reconstruct_vqvae")
VQVAE = dict.fromkeys(STAGES, 1)
SAMPLES = ("sample_diffusion", "evaluate_samples", "complete_labels")
LDM_STAGES = ("resample_labels", "train_autoencoder", "encode_latents", "train_diffusion", *SAMPLES)
LDM = dict.fromkeys(LDM_STAGES, 1)


def test_a_changed_key_reruns_its_stage_and_what_follows(done):
    project = done
    assert planned(project) == {}
    write_config(project, "vecset:\n  lr: 3.0e-4\n")
    assert planned(project) == VECSET
    write_config(project, "# a comment\nvecset:\n  seed: 0\n  lr: 1.0e-4\n")
    assert planned(project) == {}, "comments and spelled-out defaults change nothing"
    write_config(project, "points:\n  seed: 5\n")
    assert planned(project) == {"sample_sdf": 4, **VECSET}
    write_config(project, "vecset_reconstruct:\n  seed: 5\n")
    assert planned(project) == {"reconstruct_vecset": 1, **ALL}


def test_a_shared_key_reruns_all_trainings_and_an_own_key_its_training_alone(done_with_coronaries):
    project = done_with_coronaries
    targets = ("all", "coronary", "results/acme/coronary/near/model.pt", "vessels")
    run(project, *targets)
    assert planned(project, *targets) == {}
    first = set(load_tool().reruns()["training"]) - {"train_set_diffusion"}  # of another preset
    write_config(project, "training:\n  lr: 3.0e-4\n")
    plan = planned(project, *targets)
    assert first <= plan.keys() and plan["train_coronary"] == 2
    assert not {"extract_meshes", "sample_sdf", "voxelize_labels", "repair_coronary"} & plan.keys()
    sections = [n for n, cls in SECTIONS.items() if base_of(cls) == "training"]
    own = "".join(f"{n}:\n  lr: {SECTIONS[n]().lr!r}\n" for n in sections)
    write_config(project, f"training:\n  lr: 3.0e-4\n{own}")
    assert planned(project, *targets) == {}, "each section sets its own"
    write_config(project, "vecset:\n  lr: 3.0e-4\n")
    assert planned(project, *targets) == VECSET


@pytest.mark.parametrize(
    ("section", "key"),
    [("vqvae", "latent_dim: 8"), ("coronary_repair", "dust_mm3: 1.0"), ("ldm", "voxel_size: 32")],
)
def test_the_key_reference_names_the_rules_that_run_again(done_with_coronaries, section, key):
    """Those whose parameters change; what follows from them runs for its inputs."""
    project = done_with_coronaries
    write_config(project, f"{section}:\n  {key}\n")
    result = snakemake(project, "-n", "all", "coronary")
    jobs = re.findall(r"^(?:rule|checkpoint) (\w+):.*?reason: (.*?)$", result.stdout, re.M | re.S)
    changed = {rule for rule, reason in jobs if "Params have changed" in reason}
    listed = set(load_tool().reruns()[section]) - {"convert_pointclouds", "resample_set_labels"}
    # of rules that follow from others, Snakemake names that reason alone
    assert changed and changed <= listed <= {rule for rule, _ in jobs}


def test_a_vecset_that_is_trained_to_complete_is_asked_to(done):
    write_config(done, "vecset:\n  hidden_share: 0.5\n")
    completing = {**VECSET, "complete_vecset": 1}
    assert planned(done) == completing
    run(done)
    assert (done / "results" / "acme" / "vecset" / "completion" / "metrics.json").is_file()
    write_config(done, "vecset:\n  hidden_share: 0.5\nvecset_reconstruct:\n  seed: 5\n")
    assert planned(done) == {"reconstruct_vecset": 1, "complete_vecset": 1, **ALL}


def test_the_page_follows_what_other_targets_make(done):
    """Measures are an input of it where they are there; coronaries are shown as they are."""
    project, more = done, {"measure_shapes": 4, "trace_coronary": 4, "collect_measures": 1}
    assert run(project, "all", "measures") == {**more, "measures": 1, **ALL}
    assert planned(project) == planned(project, "all", "measures") == {}
    run(project, "coronary")
    assert run(project) == ALL, "which came later"
    assert planned(project) == {}
    write_config(project, "norms:\n  least_cases: 5\ncoronary:\n  lr: 3.0e-4\n")
    assert planned(project) == {"collect_measures": 1, **ALL}, "and no training"
    assert {"train_coronary", *ALL} <= planned(project, "all", "coronary").keys()


def test_a_changed_stage_reruns_itself_and_the_stages_after_it(done):
    project = done
    for position, section in enumerate(("pretrain", "codebook", "joint")):
        write_config(project, f"vqvae_{section}:\n  seed: 5\n")
        assert planned(project) == {**dict.fromkeys(STAGES[position:], 1), **ALL}
    write_config(project, "voxels:\n  resolution: 256\n")
    assert planned(project) == {"voxelize_labels": 4, **VQVAE, **ALL}


def test_a_changed_key_of_latent_diffusion(done):
    project = done
    assert planned(project, "ldm") == {}
    position = {name: LDM_STAGES.index(name) for name in LDM_STAGES}
    for config, first in (
        ("ldm:\n  voxel_size: 128\n", "resample_labels"),
        ("autoencoder:\n  num_channels: [16, 32, 64]\n", "train_autoencoder"),
        ("latents:\n  variants: 2\n", "encode_latents"),
        (
            "diffusion:\n  objective: ddpm\nsampling:\n  num_inference_steps: 50\n",
            "train_diffusion",
        ),
    ):
        write_config(project, config)
        after = dict.fromkeys(LDM_STAGES[position[first] :], 1)
        assert planned(project, "ldm") == {**after, "ldm": 1}, first
    write_config(project, "sampling:\n  seed: 1\n")
    sampled = {"sample_diffusion": 1, "evaluate_samples": 1, "ldm": 1}
    assert planned(project, "ldm") == sampled
    write_config(project, "sampling:\n  redraw: 2\n")
    assert planned(project, "ldm") == sampled
    shown = snakemake(project, "-n", "-p", "ldm").stdout
    voxels, split = "ldm/labels/voxels/manifest.tsv", "split/train.csv"
    assert re.search(rf"sample_diffusion.py .* --voxels \S+{voxels} --train \S+{split}", shown)
    write_config(project, "completion:\n  draws: 1\n")
    assert planned(project, "ldm") == {"complete_labels": 1, "ldm": 1}
    # the key by which earlier configs call it, with the value that it has: nothing to do
    write_config(project, "autoencoder:\n  num_channels: [32, 64, 64]\n")
    assert planned(project, "ldm") == {}
    write_config(project, "diffusion:\n  known_share: 0.0\n")
    assert "complete_labels" not in planned(project, "ldm")


def test_vessels_of_generated_hearts_are_made_where_they_are_asked_for(project):
    stages = ("encode_vessels", "train_vessels", "draw_vessels", "evaluate_vessels")
    run(project, "ldm")
    assert not set(stages) & planned(project, "ldm").keys()
    assert planned(project, "vessels") == {**dict.fromkeys(stages, 1), "vessels": 1}
    run(project, "vessels")
    assert planned(project, "vessels") == planned(project, "ldm") == {}
    for config, first in (
        ("coronary_trace:\n  branch_mm: 4.0\n", 0),
        ("vessels:\n  blur_vox: 0.5\n", 1),
        ("vessel_drawing:\n  spacing_mm: 0.8\n", 2),
    ):
        write_config(project, config)
        assert planned(project, "vessels") == {**dict.fromkeys(stages[first:], 1), "vessels": 1}
    write_config(project, "vessels:\n  channels: [8, 30]\n")
    result = snakemake(project, "-n", "vessels")
    text = result.stdout + result.stderr
    assert result.returncode != 0 and "Traceback" not in text
    assert "vessels.norm_num_groups is 16" in text
    write_config(project, "sampling:\n  seed: 1\n")
    again = ("sample_diffusion", *stages[2:])
    assert planned(project, "vessels") == {**dict.fromkeys(again, 1), "vessels": 1}


@pytest.mark.parametrize(
    ("target", "section"), [("ldm", "sampling"), ("set_diffusion", "set_sampling")]
)
def test_samples_that_are_compared_are_written_as_label_maps(project, target, section):
    """Else all trainings would come before the message."""
    preset = "vecset:\n  preset: demo\n"
    write_config(project, f"{preset}{section}:\n  save_format: pointcloud\n")
    samples = f"results/acme/{'ldm/labels' if target == 'ldm' else target}/samples/metrics.json"
    assert snakemake(project, "-n", samples).returncode == 0, "the samples alone"
    result = snakemake(project, "-n", target)
    text = result.stdout + result.stderr
    assert result.returncode != 0 and "Traceback" not in text
    assert f"{section}.save_format is pointcloud: samples are compared" in text
    for kind in ("nifti", "both"):
        write_config(project, f"{preset}{section}:\n  save_format: {kind}\n")
        assert snakemake(project, "-n", target).returncode == 0


def test_sets_are_diffused_where_they_are_asked_for(project):
    stages = ("encode_set_latents", "train_set_diffusion", "sample_set_diffusion")
    stages += ("evaluate_set_samples",)
    write_config(project, "set_sampling:\n  known: [aorta]\n")
    assert snakemake(project, "-n").returncode == 0, "no other target minds"
    result = snakemake(project, "-n", "set_diffusion")
    text = result.stdout + result.stderr
    assert result.returncode != 0 and "Traceback" not in text
    assert "vecset.preset is base, whose latents have no places" in text
    assert "set_sampling.known is aorta: target set_diffusion makes whole hearts" in text
    demo = "vecset:\n  preset: demo\n"
    write_config(project, demo)
    run(project)
    assert not {*stages, "resample_set_labels"} & planned(project).keys()
    new = dict.fromkeys(("resample_set_labels", *stages), 1)
    assert planned(project, "set_diffusion") == {**new, "set_diffusion": 1}
    run(project, "set_diffusion")
    assert planned(project, "set_diffusion") == {} and planned(project) == ALL, "the report has it"
    for config, first in (
        ("set_latents:\n  seed: 1\n", 0),
        ("set_diffusion:\n  noise: white\n", 1),
        ("set_sampling:\n  num_samples: 4\n", 2),
        ("set_sampling:\n  redraw: 2\n", 2),
    ):
        write_config(project, demo + config)
        after = dict.fromkeys(stages[first:], 1)
        assert planned(project, "set_diffusion") == {**after, "set_diffusion": 1}
    wrong = "set_diffusion:\n  heads: 3\nset_sampling:\n  columns: [x_age=60]\n"
    write_config(project, demo + wrong + "set_latents:\n  columns: [x_size]\n")
    result = snakemake(project, "-n")
    text = result.stdout + result.stderr
    assert "set_diffusion.heads is 3: no divisor of dim" in text
    assert "x_age is none of set_latents.columns (x_size)" in text
    assert "no column x_size, which set_latents.columns names" in text


def test_vessels_of_sets_are_made_where_they_are_asked_for(project):
    stages = ("encode_set_vessels", "draw_set_vessels", "evaluate_set_vessels")
    demo = "vecset:\n  preset: demo\n"
    write_config(project, demo)
    run(project, "set_diffusion")
    write_config(project, demo + "coronary_trace:\n  structure: aorta\n")
    for target in ("set_vessels", "vessels"):
        result = snakemake(project, "-n", target)
        text = result.stdout + result.stderr
        assert result.returncode != 0 and "coronary_trace.structure is aorta" in text, target
    write_config(project, demo)
    assert planned(project, "set_vessels") == {**dict.fromkeys(stages, 1), "set_vessels": 1}
    run(project, "set_vessels")
    assert planned(project, "set_vessels") == planned(project, "set_diffusion") == {}
    for config, first in (
        ("coronary_trace:\n  branch_mm: 4.0\n", 0),
        ("set_vessels:\n  gap_mm: 9.0\n", 1),
    ):
        write_config(project, demo + config)
        after = dict.fromkeys(stages[first:], 1)
        assert planned(project, "set_vessels") == {**after, "set_vessels": 1}
    write_config(project, demo + "coronary_trace:\n  structure: no_class\n")
    result = snakemake(project, "-n", "set_vessels")
    text = result.stdout + result.stderr
    assert result.returncode != 0 and "Traceback" not in text and "no_class" in text


def test_sets_are_diffused_with_the_vecset_where_the_cohort_says_so(project):
    config = "  with_set_diffusion: true\n"
    write_config(project, config)
    result = snakemake(project, "-n", "vecset")
    text = result.stdout + result.stderr
    assert result.returncode != 0 and "Traceback" not in text
    assert "vecset.preset is base, whose latents have no places" in text
    assert snakemake(project, "-n", "vqvae").returncode == 0, "no other target minds"
    write_config(project, config + "vecset:\n  preset: demo\n")
    stages = {"encode_set_latents", "train_set_diffusion", "evaluate_set_samples"}
    write_config(project, "vecset:\n  preset: demo\n")
    run(project)
    write_config(project, config + "vecset:\n  preset: demo\n")
    new = {"resample_set_labels", "sample_set_diffusion", "set_diffusion", *stages}
    assert planned(project, "vecset").keys() <= {"vecset", *new}, "what was made stays"
    assert stages <= planned(project, "vecset").keys()
    assert stages <= planned(project).keys(), "all has it"
    assert stages <= planned(project, "report").keys(), "the report waits for it"


def test_vessels_that_cannot_be_made_are_refused_where_they_are_asked_for(project):
    few = "ldm:\n  voxel_size: 36\nautoencoder:\n  channels: [16, 16]\ndiffusion:\n"
    few += "  channels: [32, 32]\n  attention_levels: [false, true]\n"
    write_config(project, f"{few}vessels:\n  channels: [16, 16, 16, 16]\n")
    wrong = snakemake(project, "-n", "vessels")
    text = wrong.stdout + wrong.stderr
    assert wrong.returncode != 0 and "vessels.attention_levels has 3 entries" in text
    levels = "attention_levels: [false, false, false, true]\n  num_head_channels: 16\n"
    levels += "  accumulate: 3"
    write_config(project, f"{few}vessels:\n  channels: [16, 16, 16, 16]\n  {levels}\n")
    wrong = snakemake(project, "-n", "vessels")
    text = wrong.stdout + wrong.stderr
    assert wrong.returncode != 0 and "cannot be halved 3 times" in text
    assert "vessels.batch_size is 16" in text
    assert planned(project, "ldm"), "no other target minds"


def test_latent_diffusion_of_one_file_of_point_clouds(project):
    """It needs no label maps: its samples are split by themselves."""
    (project / "clouds.h5").write_text("clouds")
    config = "ldm:\n  sources: [pointclouds]\npointclouds:\n  file: clouds.h5\n"
    write_config(project, config)
    plan = planned(project, "ldm")
    assert {"convert_pointclouds", "split_pointclouds", "train_diffusion"} <= set(plan)
    assert not {"check_cohort", "split_cohort", "resample_labels", "complete_labels"} & set(plan)
    run(project, "ldm")
    assert planned(project, "ldm") == {}
    assert (project / "results/acme/ldm/pointclouds/split/train.csv").is_file()


def test_what_latent_diffusion_refuses_before_it_runs(project):
    write_config(
        project,
        "ldm:\n  voxel_size: 60\nautoencoder:\n  perceptual_weight: 0.1\n"
        "sampling:\n  sampler: ddim\n",
    )
    result = snakemake(project, "-n", "ldm")
    text = result.stdout + result.stderr
    assert result.returncode != 0 and "Traceback" not in text
    for words in ("take 48 or 64", "without perceptual_file", "take flow"):
        assert words in text


def test_pretrained_weights_take_the_place_of_stage_0(project):
    (project / "mine.pt").write_text("weights")
    write_config(project, "vqvae:\n  pretrained: mine.pt\n")
    plan = planned(project, "vqvae")
    assert "pretrain_vqvae" not in plan and {"train_codebook", "train_vqvae"} <= set(plan)


def test_stage_0_by_way_of_coarser_resolutions(done):
    """A level per resolution, each from the model of the one before; nothing else is new."""
    project = done
    chain = "vqvae_pretrain:\n  coarser: [64, 128]\n  coarser_steps: 7\n"
    chain += "  coarser_voxels: 9000\n"
    write_config(project, chain)
    levels = {"voxelize_labels": 8, **VQVAE, "pretrain_vqvae": 3, **ALL}
    assert planned(project) == levels
    result = snakemake(project, "-n", "-p", "vqvae")
    calls = [line for line in result.stdout.splitlines() if "pretrain_vqvae.py" in line]
    [own] = [line for line in calls if "--steps 7" not in line]
    assert "--weights results/acme/vqvae/stage0_128/model.pt" in own
    [first] = [line for line in calls if "--out results/acme/vqvae/stage0_64 " in line]
    assert "--weights" not in first and "sparse/64/" in first and "sparse/512/" not in first
    assert not any("--coarser" in line for line in calls)
    assert [line for line in calls if "--max-voxels 9000 " not in line] == [own]
    run(project)
    assert planned(project) == {}
    write_config(project, chain.replace("128", "128, 256"))
    assert planned(project) == {**levels, "voxelize_labels": 4, "pretrain_vqvae": 2}
    write_config(project, "")
    assert planned(project) == {**VQVAE, **ALL}, "at its own resolution from the start again"


def test_coarser_resolutions_of_a_window_and_in_a_fold(project):
    write_table(project, 12, "image")
    config = 'windows:\n  windows: ["bone=300/1500"]\n  resolution: 96\nsplit:\n  folds: 3\n'
    write_config(project, f"{config}vqvae_pretrain:\n  coarser: [48]\n")
    plan = planned(project, "vqvae_windows_folds")
    assert plan["window_ct"] == 8 and plan["pretrain_vqvae"] == 6 and plan["train_vqvae"] == 3
    write_config(project, f"{config}vqvae_pretrain:\n  coarser: [48, 96]\n")
    result = snakemake(project, "-n", "vqvae_windows")
    text = result.stdout + result.stderr
    assert result.returncode != 0 and "Traceback" not in text
    assert "vqvae_pretrain.coarser has 96, not below windows.resolution (96)" in text
    assert snakemake(project, "-n", "report").returncode == 0, "no other target minds"


def test_each_window_is_a_training_of_its_own(project):
    windows = 'windows:\n  windows: ["bone=300/1500", "liver=60/150"]\n'
    write_table(project, 12, "image")
    write_config(project, windows)
    plan = planned(project, "vqvae_windows")
    assert plan["window_ct"] == 8 and all(plan[stage] == 2 for stage in STAGES)
    assert "extract_meshes" not in plan, "a CT window needs no meshes"
    run(project, "vqvae_windows")
    assert (project / "results/acme/vqvae_windows/liver/stage2/model.pt").is_file()
    write_config(project, windows.replace("60/150", "60/200"))
    plan = planned(project, "vqvae_windows")
    assert plan["window_ct"] == 4 and all(plan[stage] == 1 for stage in STAGES)


def test_all_windows_in_one_training(project):
    windows = 'windows:\n  windows: ["bone=300/1500", "liver=60/150"]\n'
    write_table(project, 12, "image")
    write_config(project, windows)
    run(project, "vqvae_windows")
    write_config(project, f"{windows}  together: true\n")
    plan = planned(project, "vqvae_windows")
    assert plan == {**dict.fromkeys(STAGES, 1), "vqvae_windows": 1}, "the regions are there"
    result = snakemake(project, "-n", "vqvae_windows")
    for script in ("pretrain_vqvae", "train_codebook", "train_vqvae"):
        call = next(line for line in result.stdout.splitlines() if f"{script}.py" in line)
        assert " --windows bone=300/1500 liver=60/150 " in call + " "
        assert "windows/bone/512/" in call and "windows/liver/512/" in call
        assert f"--out results/acme/{TOGETHER}/stage" in call
    call = next(line for line in result.stdout.splitlines() if "reconstruct_vqvae.py" in line)
    assert "windows/liver/512/" in call and "--windows" not in call
    run(project, "vqvae_windows")
    assert (project / f"results/acme/{TOGETHER}/reconstructions/metrics.json").is_file()
    assert planned(project, "vqvae_windows") == {}
    write_config(project, f"{windows}  together: true\n  linked: true\n")
    plan = planned(project, "vqvae_windows")
    assert plan == {**dict.fromkeys(STAGES, 1), "vqvae_windows": 1}
    result = snakemake(project, "-n", "vqvae_windows")
    assert "liver=60/150 --linked" in result.stdout
    write_config(project, f"{windows.replace('60/150', '60/200')}  together: true\n")
    plan = planned(project, "vqvae_windows")
    assert plan["window_ct"] == 4 and all(plan[stage] == 1 for stage in STAGES)
    folds = "split:\n  folds: 3\nvqvae_pretrain:\n  coarser: [64]\n"
    write_config(project, f"{windows}  together: true\n{folds}")
    plan = planned(project, "vqvae_windows_folds")
    assert plan["window_ct"] == 8 and plan["pretrain_vqvae"] == 6 and plan["train_vqvae"] == 3


def test_a_window_that_is_none(project):
    write_config(project, 'windows:\n  windows: ["bone"]\n')
    result = snakemake(project, "-n")
    assert result.returncode != 0 and "write name=level/width" in result.stdout + result.stderr


REFINED = {"repair_coronary": 4, "train_coronary": 1, "refine_coronary": 1}
FUSED = {**REFINED, "fuse_labels": 4, "collect_fused": 1}


def test_refinement_is_a_target_of_its_own(project):
    assert planned(project, "coronary") == {
        "check_cases": 4, "check_cohort": 1, "split_cohort": 1, **REFINED, "coronary": 1
    }  # fmt: skip
    run(project, "fused")
    assert planned(project, "fused") == {}
    write_config(project, "fusion:\n  coronary_mm: 8.0\n")
    assert planned(project, "fused") == {"fuse_labels": 4, "collect_fused": 1, "fused": 1}
    write_config(project, "coronary_refine:\n  preset: near\n  latent_steps: 100\n")
    changed = {"refine_coronary": 1, "fuse_labels": 4, "collect_fused": 1, "fused": 1}
    assert planned(project, "fused") == {"train_coronary": 1, **changed}
    write_config(project, "coronary_refine:\n  preset: repair\n")
    assert planned(project, "fused") == changed, "the repair alone needs no training"
    write_config(project, "coronary_near:\n  lr: 0.1\n")
    assert planned(project, "fused") == {}, "the other preset is not in use"
    write_config(project, "coronary_repair:\n  gap_mm: 4.0\n")
    assert planned(project, "fused") == {**FUSED, "fused": 1}


def test_trees_are_a_target_of_their_own(project):
    """Of the given label maps, or of the fused ones; no training is part of it without these."""
    jobs = {"trace_coronary": 4, "collect_trees": 1}
    assert planned(project, "trees") == {"check_cases": 4, "check_cohort": 1, **jobs, "trees": 1}
    assert not jobs.keys() & planned(project).keys()
    run(project, "trees")
    assert planned(project, "trees") == {}
    write_config(project, "coronary_trace:\n  branch_mm: 8.0\n")
    assert planned(project, "trees") == {**jobs, "trees": 1}
    (project / "mine.yaml").write_text((project / "mine.yaml").read_text().replace(
        "chunks: 4", "chunks: 4\n  use_refined: true"
    ))  # fmt: skip
    assert {*FUSED, *jobs} <= planned(project, "trees").keys()
    text = snakemake(project, "-n", "-p", "-F", "trees").stdout
    assert "trace_coronary.py --cases results/acme/fused/cases.tsv" in text


def test_measures_are_a_target_of_their_own(project):
    """With the trees, which they read; another key runs its stage and the table alone."""
    trees = {"extract_meshes": 4, "trace_coronary": 4}
    jobs = {"measure_shapes": 4, "collect_measures": 1}
    plan = {"check_cases": 4, "check_cohort": 1, **trees, **jobs, "measures": 1}
    assert planned(project, "measures") == plan
    assert not jobs.keys() & planned(project).keys()
    run(project, "measures")
    assert planned(project, "measures") == {}
    write_config(project, "measures:\n  vessels: [aorta]\n")
    assert planned(project, "measures") == {**jobs, "measures": 1}
    write_config(project, "norms:\n  least_cases: 5\n")
    assert planned(project, "measures") == {"collect_measures": 1, "measures": 1}
    write_config(project, "norms:\n  groups: [x_sex]\n")
    refused = snakemake(project, "-n", "measures")
    assert (
        "cohort.tsv: no column x_sex, which norms.groups names" in refused.stdout + refused.stderr
    )
    table = (project / "cohort.tsv").read_text().splitlines()
    rows = [f"{row}\t{'fm'[k % 2]}" for k, row in enumerate(table[1:])]
    (project / "cohort.tsv").write_text("\n".join([f"{table[0]}\tx_sex", *rows]) + "\n")
    text = snakemake(project, "-n", "-p", "-F", "measures").stdout
    assert "--table cohort.tsv" in text and "--trees results/acme/coronary/trees" in text


def test_statistics_are_a_target_of_their_own(project):
    """Of meshes and a split; a column of the case table is looked for when a run is planned."""
    jobs = {"extract_meshes": 4, "split_cohort": 1, "shape_statistics": 1}
    plan = {"check_cases": 4, "check_cohort": 1, **jobs, "statistics": 1}
    found = planned(project, "statistics")
    assert plan.items() <= found.items()
    assert "shape_statistics" not in planned(project)
    run(project, "statistics")
    assert planned(project, "statistics") == {}
    write_config(project, "shape_statistics:\n  most_modes: 5\n")
    assert planned(project, "statistics") == {"shape_statistics": 1, "statistics": 1}
    write_config(project, "shape_statistics:\n  columns: [x_age]\n")
    refused = snakemake(project, "-n", "statistics")
    wanted = "cohort.tsv: no column x_age, which shape_statistics.columns names"
    assert wanted in refused.stdout + refused.stderr


def test_statistics_of_latents_follow_the_latents_and_the_options_that_they_share(project):
    write_config(project, "vecset:\n  preset: demo\n")
    run(project)
    assert "latent_statistics" not in planned(project)
    new = ("resample_set_labels", "encode_set_latents", "latent_statistics")
    assert planned(project, "latent_statistics") == dict.fromkeys(new, 1)
    run(project, "latent_statistics")
    for section, first in (
        ("shape_statistics:\n  most_modes: 5\n", 2),
        ("shape_statistics:\n  grid_mm: 5\n", 3),
        ("set_latents:\n  input_points: 999\n", 1),
    ):
        write_config(project, "vecset:\n  preset: demo\n" + section)
        assert planned(project, "latent_statistics") == dict.fromkeys(new[first:], 1)


def test_exports_are_a_target_of_their_own(project):
    jobs = {"export_shapes": 4}
    plan = {"check_cases": 4, "check_cohort": 1, "extract_meshes": 4, **jobs, "exports": 1}
    assert planned(project, "exports") == plan
    assert not jobs.keys() & planned(project).keys()
    run(project, "exports")
    write_config(project, "exports:\n  formats: [stl]\n")
    assert planned(project, "exports") == {**jobs, "exports": 1}


def test_a_table_without_the_traced_structure_has_measures_all_the_same(project):
    rows = "value\tname\ttitle\tcolor\tcomponents\tpriority\n1\tliver\tLiver\t#aa2200\t1\t1\n"
    (project / "labels.tsv").write_text(rows)
    write_config(project, "  labels: labels.tsv\n")
    plan = planned(project, "measures")
    assert plan["measure_shapes"] == 4 and "trace_coronary" not in plan


def test_trainings_read_the_fused_label_maps_where_they_are_asked_to(done):
    project = done
    assert not (project / "results/acme/fused").exists()
    config = "  use_refined: true\n"
    (project / "mine.yaml").write_text((project / "mine.yaml").read_text() + config)
    plan = planned(project)
    per_case = dict.fromkeys(("extract_meshes", "sample_sdf", "voxelize_labels"), 4)
    expected = {"check_cohort": 1, **FUSED, **per_case, **VECSET, **VQVAE, **LDM}
    assert plan in (expected, {**expected, "split_cohort": 1})
    run(project)
    assert planned(project) == {}
    text = snakemake(project, "-n", "-p", "-F", "meshes").stdout
    assert "extract_meshes.py --cases results/acme/fused/cases.tsv" in text


def test_another_structure_has_a_folder_of_its_own(project):
    write_config(project, "coronary_repair:\n  structure: pulmonary_veins\n")
    run(project, "fused")
    assert (project / "results/acme/pulmonary_veins/cardiform/model.pt").is_file()
    text = snakemake(project, "-n", "-p", "-F", "fused").stdout
    assert "--masks pulmonary_veins=results/acme/pulmonary_veins/refined" in text


def test_named_targets_and_single_files(project):
    assert set(planned(project, "meshes")) == {
        "check_cases", "check_cohort", "extract_meshes", "meshes"
    }  # fmt: skip
    cases = planned(project, "results/acme/cases.tsv")
    assert cases == {"check_cases": 4, "check_cohort": 1}
    assert "train_vecset" in planned(project, "vecset")
    assert "reconstruct_vecset" not in planned(project, "results/acme/vecset/model.pt")


def test_jobs_are_bounded_by_the_chunks(project):
    write_table(project, 200)
    write_config(project, chunks=16)
    plan = planned(project)
    assert plan["extract_meshes"] == plan["sample_sdf"] == 16


def test_missing_table_and_bad_rows_are_told_without_a_traceback(project):
    (project / "cohort.tsv").write_text("case_id\tlabels\na b\tx.nii.gz\nc\t\n")
    result = snakemake(project, "-n")
    text = result.stdout + result.stderr
    assert result.returncode != 0 and "Traceback" not in text
    assert "case_id 'a b' is not usable" in text and "labels is empty" in text
    (project / "cohort.tsv").unlink()
    result = snakemake(project, "-n")
    assert "cohort.tsv: cannot be read" in result.stdout + result.stderr


def test_slurm_profile_asks_for_gpus(project):
    result = snakemake(project, "-n", "all", "coronary", profile="slurm")
    text = result.stdout + result.stderr
    assert result.returncode == 0, text
    blocks = {b.split(":")[0]: b for b in re.split(r"^rule ", text, flags=re.M)[1:]}
    others = ("train_coronary", "refine_coronary", "train_autoencoder", "train_diffusion")
    for rule in ("train_vecset", "reconstruct_vecset", *STAGES, *others, "sample_diffusion"):
        assert re.search(r"resources: .*\bgpu=[1-9]", blocks[rule]), blocks[rule]
    assert "gpu=" not in blocks["extract_meshes"] + blocks["repair_coronary"]


@pytest.mark.parametrize(
    ("number", "wanted", "one"),
    [
        (0, "gpu=4, gpu_model=a100", "gpu=1"),
        (1, "gpu=0, gres=gpu:a100:4", "gpu=0, gres=gpu:a100:1"),
    ],
)
def test_the_sites_of_the_cluster_guide(project, number, wanted, one):
    """Each block takes the place of the profile's own."""
    block = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/cluster.md").read_text(), re.S)[number]
    if "set-resources:" not in block:
        block = "set-resources:\n" + block
    text = (ROOT / "profiles/slurm/config.yaml").read_text()
    text, count = re.subn(r"^default-resources:.*?^# -+$", block, text, flags=re.M | re.S)
    assert count == 1
    (project / "site").mkdir()
    (project / "site" / "config.yaml").write_text(text)
    result = snakemake(project, "-n", profile=project / "site")
    text = result.stdout + result.stderr
    assert result.returncode == 0, text
    for rule, resources in (("train_vecset", wanted), ("train_codebook", one)):
        (line,) = re.findall(rf"^rule {rule}:.*?resources: (.*?)$", text, re.M | re.S)
        found = set(line.split(", "))
        assert set(resources.split(", ")) <= found, line
        assert ("slurm_extra=--signal=TERM@120" in found) == (rule == "train_vecset"), line


def test_limits_of_this_machine_are_none_of_a_cluster(project):
    """In the checkout, where Snakemake lays profiles/default over the profile that is named."""
    shutil.copytree(ROOT / "profiles", project / "profiles")
    path = project / "profiles" / "slurm" / "config.yaml"
    text, count = re.subn(r"gpu: 1( +# up to as many)", r"gpu: 4\1", path.read_text())
    assert count == 1
    path.write_text(text)
    calls = {
        ("--profile", "profiles/slurm"): 4,
        ("--profile=profiles/slurm", "--cores", "2"): 4,
        ("--executor", "slurm", "--jobs", "9", "--set-resources", "train_vecset:gpu=4"): 4,
        ("--set-resources", "train_vecset:gpu=4"): 1,
        ("--profile", "profiles/default", "--set-resources", "train_vecset:gpu=4"): 1,
        ("--resources", "gpu=2", "--set-resources", "train_vecset:gpu=4"): 2,
    }
    for words, wanted in calls.items():
        result = snakemake(project, "-n", "results/acme/vecset/model.pt", *words, profile=None)
        (granted,) = re.findall(r"^rule train_vecset:.*?\bgpu=(\d+)", result.stdout, re.M | re.S)
        assert int(granted) == wanted, words


def test_limits_hold_where_the_last_executor_named_is_this_machine(project, monkeypatch):
    shutil.copytree(ROOT / "profiles", project / "profiles")
    settings = project / "settings" / "snakemake"
    for name, content in {
        "profiles/here": 'executor: "local"',
        "profiles/old": "executor: local",
        "profiles/old/config.v9+.yaml": "executor: slurm",
        "profiles/old/notes.of.mine.which.are.long.yaml": "executor: local",
        "settings/snakemake/site": "executor: slurm",
    }.items():
        path = project / name if name.endswith(".yaml") else project / name / "config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\njobs: 5\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(settings.parent))
    slurm, here = ("--profile", "profiles/slurm"), ("--profile", "profiles/here")
    calls = [
        ("", here, 1),
        ("", (*slurm, "--executor", "local"), 1),
        ("", (*slurm, *here), 1),
        ("", (*here, *slurm), 4),
        ("", ("--profile", "profiles/old"), 4),
        ("", ("--profile", "site"), 4),
        ("site", (), 4),
        ("site", ("--profile", "none"), 1),
        ("site", here, 1),
    ]
    for named, words, wanted in calls:
        monkeypatch.setenv("SNAKEMAKE_PROFILE", named or "none")
        more = ["--set-resources", "train_vecset:gpu=4"]
        result = snakemake(
            project, "-n", "results/acme/vecset/model.pt", *words, *more, profile=None
        )
        (granted,) = re.findall(r"^rule train_vecset:.*?\bgpu=(\d+)", result.stdout, re.M | re.S)
        assert int(granted) == wanted, words


def test_every_rule_with_a_gpu_is_in_the_slurm_profile():
    """Else its jobs would go to the partition without GPUs, past the lines of "Your site"."""
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())["set-resources"]
    rules = "".join(path.read_text() for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    blocks = re.split(r"^rule (\w+):$", rules, flags=re.M)[1:]
    wanted = {name for name, text in zip(blocks[::2], blocks[1::2]) if "        gpu=1,\n" in text}
    assert len(wanted) > 15
    shared = {"one_gpu", "gpus"}
    assert set(profile) - shared == wanted
    assert all(profile[name].keys() >= profile["one_gpu"].keys() for name in wanted)


def test_rulegraph(project):
    result = snakemake(project, "--rulegraph", "mermaid-js")
    assert result.returncode == 0 and "train_vecset" in result.stdout


def test_a_k_fold_trains_every_fold_and_makes_cases_ready_once(project):
    write_config(project, "split:\n  folds: 3\n")
    plan = planned(project, "vecset_folds", "vqvae_folds")
    trainings = ("train_vecset", "reconstruct_vecset", *STAGES)
    assert {name: plan[name] for name in trainings} == dict.fromkeys(trainings, 3)
    assert plan["split_cohort"] == 3 and plan["collect_folds"] == 2
    assert {plan[name] for name in ("extract_meshes", "sample_sdf", "voxelize_labels")} == {4}
    run(project, "vecset_folds")
    folds = project / "results" / "acme" / "folds"
    assert {p.name for p in folds.iterdir()} == {"0", "1", "2", "vecset"}
    models = {(folds / str(n) / "vecset" / "model.pt").read_text() for n in range(3)}
    assert len(models) == 3, "each from a split of its own"
    assert not (project / "results" / "acme" / "vecset").exists()
    # the plain targets are those of one fold, beside them
    plan = {"split_cohort": 1, "train_vecset": 1, "reconstruct_vecset": 1, "vecset": 1}
    assert planned(project, "vecset") == plan


def test_a_k_fold_of_the_refinement_and_of_latent_diffusion(project):
    """From the same repaired structures and voxels; the refinement is of the tested cases."""
    write_config(project, "split:\n  folds: 3\n")
    plan = planned(project, "coronary_folds", "ldm_folds")
    stages = ("train_autoencoder", "encode_latents", "train_diffusion", "complete_labels")
    stages += ("train_coronary", "refine_coronary", "split_cohort")
    assert {name: plan[name] for name in stages} == dict.fromkeys(stages, 3)
    assert (plan["repair_coronary"], plan["resample_labels"], plan["collect_folds"]) == (4, 1, 2)
    run(project, "coronary_folds")
    text = snakemake(project, "-n", "-p", "-F", "coronary_folds", "ldm_folds", "coronary").stdout
    assert text.count(" --held-out ") == 3, "the refinement beside the folds is of all cases"
    assert "--out results/acme/folds/2/coronary/refined" in text
    assert "--test results/acme/folds/0/split/test.csv results/acme/folds/1/split/test.csv" in text
    assert "--out results/acme/folds/1/ldm/labels/completion" in text


def test_a_k_fold_without_folds_is_one_line(project):
    for family in ("vecset", "coronary", "ldm"):
        result = snakemake(project, "-n", f"{family}_folds")
        assert result.returncode != 0
        assert "config: split.folds is 0; set it to 3 or more" in result.stdout + result.stderr
    write_config(project, "split:\n  folds: 3\ndiffusion:\n  known_share: 0.0\n")
    result = snakemake(project, "-n", "ldm_folds")
    assert "no class is completed, which ldm_folds measures" in result.stdout + result.stderr
