"""The SLURM profile on a real SLURM: what jobs ask for, what interruptions cost, two nodes."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import forked_python
import pytest
import torch
import yaml
from planner import LATER
from scontrol import described, megabytes, minutes
from stand_in import write_stand_in

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]

SNAKEMAKE = (
    "snakemake.cli", "snakemake_executor_plugin_slurm", "snakemake_executor_plugin_slurm_jobstep",
    *LATER,
)  # fmt: skip

# Each job notes what SLURM granted it.
NOTE = """
import os, subprocess
job = os.environ.get("SLURM_JOB_ID")
if job:  # a job of its own, not a step that the controller takes itself
    text = subprocess.check_output(["scontrol", "-o", "show", "job", job], text=True)
    text = text.rstrip() + " Devices=" + os.environ.get("CUDA_VISIBLE_DEVICES", "none")
    put(pathlib.Path("granted") / (name + "." + job), text)
"""


# Snakemake asks SLURM ever more rarely: on a busy machine a run of a minute takes many.
PATIENCE_S = 1800


def finish(process):
    text, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, text
    return text


def wait_for(condition, process, what, seconds=PATIENCE_S):
    """What ``condition`` returns as soon as it is true; Snakemake must be alive until then."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if process.poll() is not None:
            raise AssertionError(f"ended before {what}:\n{process.stdout.read()}")
        assert time.monotonic() < end, f"{what} never came"
        time.sleep(0.2)
    return found


def with_site(folder: Path) -> Path:
    """The profile with its site lines in use, as docs/cluster.md says to edit them."""
    text = (ROOT / "profiles" / "slurm" / "config.yaml").read_text()
    for line, value in (
        ("slurm_partition: cpu", "slurm_partition: main"),
        ("slurm_partition: gpu", "slurm_partition: main"),
        ("gpu_model: a100", "gpu_model: a100"),
    ):
        text, count = re.subn(rf"# {line} +#", f"{value}  #", text)
        assert count == 1, line
    text, count = re.subn(r"gpu: 1( +# up to as many)", r"gpu: 4\1", text)
    assert count == 1
    (folder / "config.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def granted(cluster, tmp_path_factory):
    """Every rule through the profile, the scripts stood in for: rule -> what its jobs got."""
    folder = tmp_path_factory.mktemp("asks")
    write_stand_in(folder / "bin", NOTE)
    (folder / "profiles").symlink_to(ROOT / "profiles")  # as in the checkout
    for name in ("labels.nii.gz", "image.nii.gz"):
        (folder / name).write_text(name)
    (folder / "cohort.tsv").write_text("case_id\tlabels\timage\na\tlabels.nii.gz\timage.nii.gz\n")
    (folder / "new.csv").write_text("case_id,labels\nb,labels.nii.gz\n")
    (folder / "shared" / "vecset").mkdir(parents=True)
    (folder / "shared" / "vecset" / "model.pt").write_text("a model")
    config = {
        "cohort": {"name": "acme", "table": "cohort.tsv"},
        "windows": {"windows": ["bone=300/1500", "brain=40/80"]},
        "split": {"validation": 0.0, "test": 0.0},
        "vecset": {"hidden_share": 0.5, "preset": "demo"},
        "ldm": {"drop_classes": ["coronary"]},
        "apply": {"table": "new.csv", "models": ["shared"]},
    }
    windows = [f"results/acme/windows/{w}/512/manifest/a.tsv" for w in ("bone", "brain")]
    profile = with_site(tmp_path_factory.mktemp("profile"))
    arrays = ["--slurm-array-jobs", "window_ct"]
    # Each job starts Snakemake twice, whose import takes longer than what the job does.
    python = folder / "python"
    forked_python.install(python, sys.executable, SNAKEMAKE)
    environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    run = cluster.snakemake(
        folder,
        config,
        "all",
        "fused",
        "set_diffusion",
        "set_vessels",
        "latent_statistics",
        "vessels",
        "apply",
        *windows,
        *arrays,
        profile=profile,
        python=python,
        **environment,
    )
    finish(run)
    found = {}
    for note in sorted((folder / "granted").iterdir()):
        found.setdefault(note.name.split(".")[0], []).append(note.read_text())
    settings = yaml.safe_load((profile / "config.yaml").read_text())
    return found, settings


def test_gpu_rules_are_granted_their_gpus_memory_and_time(granted):
    found, settings = granted
    rules = {n: r for n, r in settings["set-resources"].items() if n not in ("one_gpu", "gpus")}
    threads = {**dict.fromkeys(rules, 8), "apply_models": 4, **settings["set-threads"]}
    assert len(rules) == 22 and rules["train_vecset"]["gpu"] == 4
    for name, asked in rules.items():
        assert name in found, f"{name} never ran"
        for job in map(described, found[name]):
            assert job["TresPerJob"] == f"gres:gpu:a100:{asked['gpu']}", name
            assert len(job["Devices"].split(",")) == asked["gpu"], name
            assert minutes(job["TimeLimit"]) == asked["runtime"], name
            assert megabytes(job["MinMemoryNode"]) == asked["mem_mb"], name
            assert job["CPUs/Task"] == str(threads[name]), name
            assert job["NumNodes"] == "1" and job["Partition"] == "main" and job["Requeue"] == "1"


def test_other_rules_are_granted_no_gpu_but_memory_and_time(granted):
    found, settings = granted
    others = set(found) - set(settings["set-resources"])
    assert {"check_cases", "extract_meshes", "sample_sdf", "window_ct", "fuse_labels"} <= others
    for name in others:
        for job in map(described, found[name]):
            assert "TresPerJob" not in job and "TresPerNode" not in job, name
            assert job["Devices"] == "none" and job["Requeue"] == "1", name
            assert minutes(job["TimeLimit"]) in (60, 240), name
            assert 1500 <= megabytes(job["MinMemoryNode"]) <= 24_000, name


def test_chunks_may_be_a_job_array(granted):
    found, _ = granted
    arrays = [described(line).get("ArrayJobId") for line in found["window_ct"]]
    assert len(arrays) == 2 and arrays[0] and len(set(arrays)) == 1
    assert all("ArrayJobId" not in described(line) for line in found["sample_sdf"])


VECSET = {
    "cohort": {"name": "tiny", "chunks": 3},
    "demo": {"cases": 4, "spacing_mm": 5.0},
    "split": {"validation": 0.3, "test": 0.0, "seed": 1},
    "points": {
        "surface_points": 2000,
        "min_class_points": 100,
        "near_points": 2000,
        "volume_points": 1000,
    },
    "vecset": {
        "preset": "demo",
        "input_points": 512,
        "volume_queries": 32,
        "near_queries": 32,
        "surface_queries": 32,
        "eikonal_queries": 8,
        "eikonal_start": 2,
        "steps": 60,
        "batch_size": 2,
        "warmup_steps": 2,
        "validate_every": 30,
        "checkpoint_every": 2,
        "log_every": 2,
        "preview_every": 0,
        "workers": 0,
        "device": "cpu",
    },
}
MODEL = "results/tiny/vecset/model.pt"
ONE_THREAD = ["--set-threads", "train_vecset=1"]


@pytest.fixture(scope="module")
def points(cluster, tmp_path_factory):
    """Points of four coarse hearts, and the weights of a training that nothing interrupts."""
    folder = tmp_path_factory.mktemp("tiny")
    local = ["--cores", "2", *ONE_THREAD]
    finish(cluster.snakemake(folder, VECSET, MODEL, *local, profile="default"))
    whole = weights(folder)
    (folder / "results/tiny/vecset").rename(folder / "uninterrupted")
    return folder, whole


def weights(folder):
    return torch.load(folder / MODEL, weights_only=True)["weights"]


def test_a_cancelled_and_a_timed_out_training_end_with_the_same_weights(cluster, points, events):
    folder, whole = points
    out = folder / "results/tiny/vecset"

    def stand_still() -> str:
        """So that what SLURM does is what ends the training, however busy the machine is."""
        cluster.call("pkill", "-STOP", "-f", "^[^ ]*python[^ ]* [^ ]*train_vecset.py")
        return cluster.jobs("rule_train_vecset", folder)[-1]["JobId"]

    run = cluster.snakemake(folder, VECSET, MODEL, *ONE_THREAD)
    wait_for((out / "checkpoints/last.pt").exists, run, "a checkpoint")
    cluster.call("scancel", stand_still())
    wait_for(lambda: events(out, "resume"), run, "the second attempt")
    cluster.call("scontrol", "update", f"JobId={stand_still()}", "TimeLimit=1")
    text = finish(run)
    jobs = cluster.jobs("rule_train_vecset", folder)
    assert len(jobs) == 3, text
    first, second, third = jobs
    assert first["JobState"] == "CANCELLED" and third["JobState"] == "COMPLETED"
    assert second["JobState"] in ("TIMEOUT", "FAILED")
    assert [e["reason"] for e in events(out, "stop")] == ["SIGTERM", "SIGTERM"], (
        "it saved both times"
    )
    for name, value in whole.items():
        assert torch.equal(value, weights(folder)[name]), name


def test_a_training_on_two_nodes(cluster, points, tmp_path):
    """With the lines of docs/cluster.md; it cannot start before both nodes have met."""
    folder, _ = points
    (text,) = re.findall(
        r"```yaml\n(  train_vecset: .*?)```", (ROOT / "docs/cluster.md").read_text(), re.S
    )
    profile = (ROOT / "profiles/slurm/config.yaml").read_text()
    text = text.replace("gpu:a100:4", "gpu:a100:1")  # two processes are enough
    profile, count = re.subn(r"  train_vecset: \{.*\}\n", text, profile)
    assert count == 1 and "gpu:a100:1" in profile
    (tmp_path / "config.yaml").write_text(profile)
    config = {**VECSET, "vecset": {**VECSET["vecset"], "steps": 4, "validate_every": 2}}
    finish(cluster.snakemake(folder, config, MODEL, *ONE_THREAD, profile=tmp_path))
    job = cluster.jobs("rule_train_vecset", folder)[-1]
    assert job["JobState"] == "COMPLETED" and job["NumNodes"] == "2"
    assert job["TresPerNode"] == "gres:gpu:a100:1" and job["NodeList"] == "node[1-2]"
    assert torch.load(folder / MODEL, weights_only=True)["figures"]["steps"] == 4
