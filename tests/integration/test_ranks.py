"""Every training on two ranks of one machine, and on two nodes: as one process that accumulates."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import rank_driver
import torch
import toy_training
from tiny_trainings import Trainings

from cardiform.artefact.model import load_model
from cardiform.training.checkpoint import differences, load
from cardiform.training.exclusive import alone_in
from cardiform.training.shared import FOLDER

TWO_RANKS = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
FIGURES = ("start", "log", "validation")
SHORT = {"steps": 3, "log_every": 1, "checkpoint_every": 1, "validate_every": 2}

HELD = ("--steps", 4, "--unfreeze-steps", 1)  # each step trains another level


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """All trainings in one process that takes two micro-batches a step."""
    torch.set_num_threads(1)  # as torchrun does: sums are then in the same order
    made = Trainings(tmp_path_factory.mktemp("trainings"), **SHORT)
    made.make_models("--accumulate", 2)
    return made


class Pair:
    """What both ranks told of their jobs."""

    def __init__(self, folder: Path, jobs: dict[str, list[str]]):
        self.folder = folder
        (folder / "jobs.json").write_text(json.dumps(list(jobs.values())))
        command = [sys.executable, *TWO_RANKS, rank_driver.__file__, folder / "jobs.json", folder]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        reports = [json.loads((folder / f"rank{r}.json").read_text()) for r in range(2)]
        self.told = {name: rows for name, *rows in zip(jobs, *reports)}

    def codes(self, name: str) -> list[int]:
        return [code for code, _, _ in self.told[name]]


@pytest.fixture(scope="module")
def pair(alone, tmp_path_factory):
    """The same on two ranks, from the same inputs; and a training that is stopped on the way."""
    folder = tmp_path_factory.mktemp("ranks")
    jobs = {n: alone.command(n, folder / n, "--accumulate", 1) for n in Trainings.NAMES}
    short = ("--accumulate", 1, "--compress-gradients", "true")
    jobs["compressed"] = alone.command("autoencoder", folder / "compressed", *short)
    jobs["unfrozen"] = alone.command("vqvae_joint", folder / "unfrozen", "--accumulate", 1, *HELD)
    adversarial = ("--accumulate", 1, "--max-minutes", 1e-9)
    jobs["stopped"] = alone.command("autoencoder", folder / "parts", *adversarial)
    jobs["stopped again"] = jobs["stopped"]
    jobs["resumed"] = alone.command("autoencoder", folder / "parts", "--accumulate", 1)
    (folder / "damaged" / "checkpoints").mkdir(parents=True)
    (folder / "damaged" / "checkpoints" / "last.pt").write_bytes(b"nothing")
    jobs["damaged"] = alone.command("autoencoder", folder / "damaged", "--accumulate", 1)
    toy = [toy_training.__file__, str(folder / "toy")]
    jobs["toy stopped"] = [*toy, "--set", "max_minutes=0.000001"]
    jobs["toy resumed"] = toy
    slow = [toy_training.__file__, str(folder / "slow"), "--validation-seconds", "2"]
    jobs["slow validation"] = [*slow, "--set", "steps=3", "validate_every=1"]
    jobs["held"] = alone.command("autoencoder", folder / "held", "--accumulate", 1)
    with alone_in(folder / "held"):
        return Pair(folder, jobs)


def figures(folder: Path) -> dict:
    """Of every event what does not depend on the clock."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    events = [e for e in lines if e["event"] in FIGURES]
    return {(e["event"], e["step"]): e.get("figures", {}) for e in events}


def assert_same_course(one: Path, other: Path) -> None:
    a, b = figures(one), figures(other)
    assert a.keys() == b.keys() and ("log", 3) in a
    for event, values in a.items():
        assert values == pytest.approx(b[event], rel=1e-3, abs=1e-6), event


def assert_same_weights(one: dict, other: dict, rtol=1e-3) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(
            value, other[name], rtol=rtol, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", Trainings.NAMES)
def test_two_ranks_end_where_one_process_that_accumulates_ends(alone, pair, name):
    """Gradients, noise, order of the samples, figures of the log and of the validation."""
    assert pair.codes(name) == [0, 0], pair.told[name]
    one, two = (load_model(folder / name / "model.pt") for folder in (alone.folder, pair.folder))
    # the statistics of the codes are those of all ranks
    rtol = 1e-4 if name == "vqvae_joint" else 1e-3
    assert_same_weights(one.weights, two.weights, rtol)
    if name != "vqvae_codebook":  # k-means on rank 0 alone has no log
        assert_same_course(alone.folder / name, pair.folder / name)


@pytest.mark.slow
def test_levels_are_unfrozen_on_two_ranks_as_on_one(alone, pair, tmp_path):
    assert pair.codes("unfrozen") == [0, 0], pair.told["unfrozen"]
    alone.must(*alone.command("vqvae_joint", tmp_path / "one", "--accumulate", 2, *HELD))
    one, two = (load_model(f / "model.pt") for f in (tmp_path / "one", pair.folder / "unfrozen"))
    assert_same_weights(one.weights, two.weights, rtol=1e-4)
    assert_same_course(tmp_path / "one", pair.folder / "unfrozen")


def is_shared(path: Path, outs: Path) -> bool:
    """Whether it is of what all ranks make together, or of the list of the folder's files."""
    top = (*path.relative_to(outs).parts, "", "")[1]
    return top in ("", FOLDER, ".cardiform") or bool(re.fullmatch(r"\.tmp-\w{8}", top))


@pytest.mark.slow
def test_the_first_rank_alone_writes_and_talks(pair):
    for name, ((_, said, written), (_, said_too, written_too)) in pair.told.items():
        others = [path for path in written_too if not is_shared(Path(path), pair.folder)]
        assert written and not others, (name, others)
        assert said and not said_too, (name, said_too)


@pytest.mark.slow
def test_a_stop_ends_both_ranks_with_75_and_the_same_command_resumes(alone, pair):
    assert pair.codes("stopped") == pair.codes("stopped again") == [75, 75]
    assert pair.codes("resumed") == [0, 0]
    assert "resuming from step 2" in pair.told["resumed"][0][1]
    whole, parts = (pair.folder / name for name in ("autoencoder", "parts"))
    assert figures(whole) == figures(parts)
    last = [load(f / "checkpoints" / "last.pt", "") for f in (whole, parts)]
    assert {"generator", "discriminator"} == set(last[0]["optimizers"])
    for name, value in last[0]["module"].items():
        assert torch.equal(value, last[1]["module"][name]), name


@pytest.mark.slow
def test_two_ranks_stopped_and_resumed_equal_one(pair, tmp_path):
    """The same samples and random numbers in the same steps; only the order of sums differs."""
    assert pair.codes("toy stopped") == [75, 75]
    assert "the same command resumes" in pair.told["toy stopped"][0][1]
    assert pair.codes("toy resumed") == [0, 0]
    assert "resuming from step 1" in pair.told["toy resumed"][0][1]
    toy_training.run(tmp_path / "one", accumulate=2)
    # the key holds the options that decide the result, and both runs have all but one alike
    outs = tmp_path / "one", pair.folder / "toy"
    one, two = (load(out / "checkpoints" / "last.pt", "") for out in outs)
    assert differences(one["key"], two["key"]) == ["accumulate 2 -> 1"]
    a, b = map(figures, outs)
    assert a.keys() == b.keys()
    for event, values in a.items():
        assert values == pytest.approx(b[event], rel=1e-4), event
    for name, value in one["module"].items():
        torch.testing.assert_close(value, two["module"][name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_damaged_checkpoint_ends_both_ranks_with_one_line(pair):
    assert pair.codes("damaged") == [2, 2]
    said = pair.told["damaged"][0][1]
    assert "last.pt: is damaged" in said and "Traceback" not in said


@pytest.mark.slow
def test_a_folder_in_use_ends_both_ranks_with_one_line(pair):
    assert pair.codes("held") == [2, 2]
    said = pair.told["held"][0][1]
    assert "trains here" in said and "Traceback" not in said


@pytest.mark.slow
def test_the_others_wait_for_a_long_validation(pair):
    assert pair.codes("slow validation") == [0, 0]
    assert [s for e, s in figures(pair.folder / "slow") if e == "validation"] == [0, 1, 2, 3]


def start_nodes(folder: Path, outs: list[Path], *arguments) -> list[subprocess.Popen]:
    """A launcher per node, each in a folder of its own; they meet on the loopback."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    started = []
    for number, out in enumerate(outs):
        home = folder / f"node{number}"
        home.mkdir(exist_ok=True)
        meeting = ["--master-addr", "127.0.0.1", "--master-port", port, "--nnodes", 2]
        rank = ["--node-rank", number, "--nproc-per-node", 1]
        command = [sys.executable, "-m", "torch.distributed.run", *meeting, *rank]
        command += [toy_training.__file__, out, *arguments]
        started.append(
            subprocess.Popen(
                list(map(str, command)),
                cwd=home,
                env=os.environ | {"TMPDIR": str(home), "HOME": str(home), "OMP_NUM_THREADS": "1"},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def ended(nodes: list[subprocess.Popen]) -> tuple[list[int], list[str]]:
    said = [node.communicate(timeout=240)[1] for node in nodes]
    return [node.returncode for node in nodes], said


@pytest.mark.slow
def test_gradients_in_bf16_are_those_of_the_ranks_but_for_rounding(alone, pair):
    """Other weights, by no more than Adam can move them; the first loss is the same."""
    assert pair.codes("compressed") == [0, 0]
    names = ("autoencoder", "compressed")
    whole, short = (load(pair.folder / n / "checkpoints" / "last.pt", "")["module"] for n in names)
    apart = max(float((whole[n].float() - short[n].float()).abs().max()) for n in whole)
    assert 0 < apart < 6 * 1e-3, "three steps"
    first, second = (figures(pair.folder / n) for n in names)
    losses = [n for n in first["log", 1] if "norm" not in n]
    assert losses
    for step, rounding in ((1, 1e-6), (3, 0.03)):
        found = {n: second["log", step][n] for n in losses}
        wanted = {n: first["log", step][n] for n in losses}
        assert found == pytest.approx(wanted, rel=rounding, abs=1e-6), step


@pytest.mark.slow
def test_two_nodes_end_where_one_process_that_accumulates_ends(tmp_path):
    """Stopped, and resumed where the second node does not even see the folder of the first."""
    outs = [tmp_path / "node0" / "out", tmp_path / "node1" / "out"]
    codes, said = ended(start_nodes(tmp_path, outs, "--set", "max_minutes=0.000001"))
    assert all(codes) and "the same command resumes" in said[0], said
    codes, said = ended(start_nodes(tmp_path, outs))
    assert codes == [0, 0] and "resuming from step 1" in said[0], said
    assert not outs[1].exists(), "the rank of all nodes decides who writes, not the node's own"
    toy_training.run(tmp_path / "one", accumulate=2)
    one, two = (load(f / "checkpoints" / "last.pt", "") for f in (tmp_path / "one", outs[0]))
    assert_same_weights(one["module"], two["module"])
    assert figures(tmp_path / "one").keys() == figures(outs[0]).keys()
