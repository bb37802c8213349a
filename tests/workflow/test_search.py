"""A search's plan, its jobs, and that nothing of it is lost; trainings have a stand-in."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from dag import ROOT, make_project, planned, run, snakemake, write_config
from stand_in import write_stand_in

from cardiform.options.search import SEARCHED

SEARCH = """search:
  training: vecset
  space: ["lr=1e-5..1e-1/log", "balanced=0.2..0.8"]
  trials: 6
  rungs: [10, 20, 40]
  reduction: 2
"""
JOBS = {"propose_trials": 1, "train_vecset": 10, "rank_trials": 3, "collect_search": 1, "search": 1}
BEFORE = dict.fromkeys(
    ("check_cases", "check_cohort", "split_cohort", "extract_meshes", "sample_sdf"), 1
)


@pytest.fixture
def project(tmp_path):
    project = make_project(tmp_path)
    write_config(project, SEARCH, chunks=1)
    return project


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished search, and what was printed; not to be changed."""
    project = make_project(tmp_path_factory.mktemp("done"))
    write_config(project, SEARCH, chunks=1)
    result = snakemake(project, "search")
    assert result.returncode == 0, result.stdout + result.stderr
    return project, result.stdout + result.stderr


def folder(project, training="vecset") -> Path:
    return project / "results" / "acme" / "search" / training


def trials(project) -> list[dict[str, str]]:
    header, *rows = (folder(project) / "trials.tsv").read_text().splitlines()
    return [dict(zip(header.split("\t"), row.split("\t"))) for row in rows]


def test_the_whole_search_is_planned_before_anything_is_there(project):
    assert planned(project, "search") == {**BEFORE, **JOBS}
    assert not {"propose_trials"} & planned(project).keys()


def test_a_search_runs_every_trial_and_the_best_ones_longer(done):
    project, text = done
    assert planned(project, "search") == {}
    rows = trials(project)
    assert sorted(int(row["trial"]) for row in rows) == list(range(6))
    reached = [sum(bool(row[f"loss_{n}"]) for n in (10, 20, 40)) for row in rows]
    assert reached == [3, 2, 2, 1, 1, 1]
    first = {row["trial"]: float(row["loss_10"]) for row in rows}
    assert [row["trial"] for row in rows][:1] == [min(first, key=first.get)]
    assert float(rows[[r["trial"] for r in rows].index("0")]["vecset.lr"]) == 1e-4, "the config"
    best = yaml.safe_load((folder(project) / "best.yaml").read_text())
    assert best["vecset"]["lr"] == float(rows[0]["vecset.lr"])
    for name in ("search.png", "study.log"):
        assert (folder(project) / name).stat().st_size > 0
    # every trial is a command that can be copied
    (line,) = re.findall(r"^Shell command: python .*rung_2/place_00/vecset .*$", text, re.M)
    assert f"--lr {rows[0]['vecset.lr']} " in line
    assert "--steps 40 " in line and "--until 40 " in line
    taken = re.search(r"--resume-from (\S+)/vecset/checkpoints/last.pt", line)[1]
    before = folder(project) / "rung_1" / Path(taken).name / "vecset" / "metrics.json"
    assert f'"loss": {rows[0]["loss_20"]}' in before.read_text()


def test_the_best_settings_are_named_with_the_config(done):
    project, _ = done
    best = yaml.safe_load((folder(project) / "best.yaml").read_text())
    more = (str(folder(project) / "best.yaml"), "--", "vecset")
    text = snakemake(project, "-n", "-p", "--configfile", "mine.yaml", *more).stdout
    assert f"--lr {best['vecset']['lr']} " in text and "--until" not in text


def test_more_trials_and_another_figure_keep_what_is_proposed(done, tmp_path):
    project = shutil.copytree(done[0], tmp_path / "project", symlinks=True)
    write_config(project, SEARCH + "  goal: highest\n", chunks=1)
    plan = planned(project, "search")
    assert "propose_trials" not in plan and plan["rank_trials"] == 3
    table = project / "results" / "acme" / "search" / "vecset" / "round_0" / "trials.json"
    before = json.loads(table.read_text())["trials"]
    write_config(project, SEARCH.replace("trials: 6", "trials: 9"), chunks=1)
    run(project, table.relative_to(project))
    assert json.loads(table.read_text())["trials"][:6] == before


def test_rounds_follow_each_other(project):
    config = SEARCH.replace("trials: 6", "trials: 4").replace("10, 20, 40", "10")
    write_config(project, config + "  sampler: tpe\n  rounds: 2\n", chunks=1)
    assert planned(project, "search")["propose_trials"] == 2
    run(project, "search")
    assert planned(project, "search") == {} and len(trials(project)) == 4


RULES = {
    "vqvae_pretrain": "pretrain_vqvae", "vqvae_codebook": "train_codebook",
    "vqvae_joint": "train_vqvae", "coronary_near": "train_coronary",
}  # fmt: skip


@pytest.mark.parametrize("training", [name for name in SEARCHED if name != "vecset"])
def test_every_training_can_be_searched(project, training):
    config = SEARCH.replace("vecset", training).replace(', "balanced=0.2..0.8"', "")
    write_config(project, config, chunks=1)
    plan = planned(project, "search")
    # with those that it starts from
    assert plan[RULES.get(training, f"train_{training}")] == 10 and plan["rank_trials"] == 3
    assert not {"reconstruct_vecset", "reconstruct_vqvae", "sample_diffusion"} & plan.keys()


def refusal(project, config) -> str:
    write_config(project, config, chunks=1)
    result = snakemake(project, "-n", "search")
    text = result.stdout + result.stderr
    assert result.returncode != 0 and "Traceback" not in text
    return text


def test_what_is_wrong_with_a_search_is_a_line_each_and_stops_no_other_target(project):
    wrong = SEARCH.replace("bal", "ball").replace("lr=1e-5", "lr=-1").replace("/log", "")
    text = refusal(project, wrong.replace("20, 40", "20, 20").replace("trials: 6", "trials: 3"))
    for words in (
        "vecset.ballanced is not a known key; did you mean balanced?",
        "lr is -1.0; at least 0",
        "each rung has more steps",
        "too few for 3 rungs",
    ):
        assert words in text
    assert planned(project, "vecset")
    text = refusal(project, SEARCH.replace("balanced=0.2..0.8", "input_points=100|9000"))
    assert "config: search.space: vecset.input_points 100: vecset.input_points is 100" in text
    assert "a search ranks by validation" in refusal(project, SEARCH + "split:\n  validation: 0\n")
    text = refusal(project, SEARCH.replace("training: vecset", ""))
    assert "config: search.training is empty; name a training" in text
    stage0 = SEARCH.replace("vecset", "vqvae_pretrain").replace(', "balanced=0.2..0.8"', "")
    text = refusal(project, f"{stage0}vqvae_pretrain:\n  coarser: [64]\n")
    assert "vqvae_pretrain.coarser is set, and trials of vqvae_pretrain start from random" in text
    joint = stage0.replace("vqvae_pretrain", "vqvae_joint")
    text = refusal(project, f"{joint}vqvae_joint:\n  unfreeze_steps: 5\n")
    assert "vqvae_joint.unfreeze_steps is 5: trials would be ranked after step " in text


def test_another_training_than_the_one_of_the_config_is_refused(project):
    result = snakemake(project, "-n", "results/acme/search/diffusion/best.yaml")
    assert result.returncode != 0
    assert "search.training is vecset; set it to diffusion" in result.stdout + result.stderr


KILL = """
marks = pathlib.Path("marks")
if "--until" in arguments and name == "train_vecset":
    with open("calls.txt", "a") as calls:
        calls.write(" ".join(arguments) + "\\n")
    mark = marks / content
    if int(content, 16) % 3 == 0 and not mark.exists():  # a third of them, once
        put(mark)
        os.kill(os.getpid(), 9)
"""


def test_killed_at_random_and_called_again_it_ends_with_the_same_table(done, tmp_path):
    """Jobs are killed, and so is Snakemake itself with all that it started."""
    project = make_project(tmp_path)
    write_stand_in(project / "bin", KILL)
    write_config(project, SEARCH, chunks=1)
    run(project, "points")
    command = [Path(sys.executable).parent / "snakemake", "-s", ROOT / "workflow" / "Snakefile"]
    command += ["--profile", ROOT / "profiles" / "default", "--configfile", "mine.yaml"]
    environment = {**os.environ, "PATH": f"{project / 'bin'}:{os.environ['PATH']}"}
    with open(project / "out.txt", "w") as out:
        process = subprocess.Popen(
            [*command, "--cores", "2", "search"], cwd=project, env=environment,
            stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
        wanted, end = random.Random(0).randint(1, 3), time.monotonic() + 60
        while len(list(folder(project).rglob("model.pt"))) < wanted:
            running = time.monotonic() < end and process.poll() is None
            assert running, (project / "out.txt").read_text()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (folder(project) / "best.yaml").exists()
    snakemake(project, "--unlock")
    for _ in range(10):
        result = snakemake(project, "search")
        if result.returncode == 0:
            break
    assert result.returncode == 0, result.stdout + result.stderr
    assert list((project / "marks").iterdir()), "some were killed"
    for name in ("trials.tsv", "best.yaml"):
        assert (folder(project) / name).read_bytes() == (folder(done[0]) / name).read_bytes()
    calls = (project / "calls.txt").read_text().splitlines()
    finished = set(calls)
    assert len(finished) == 10, "every place once, those that were killed again"
    assert len(calls) <= 10 + len(list((project / "marks").iterdir())) + 2
