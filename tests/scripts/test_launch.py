"""Which GPUs a job gets, how many processes start, and when they are told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cardiform import launching
from cardiform.errors import InputError

LAUNCH = Path(__file__).resolve().parents[2] / "workflow" / "scripts" / "launch.py"

# Says what it was given, then waits to be told to end.
SCRIPT = """
import json, os, pathlib, sys, time
note = pathlib.Path(sys.argv[1])
report = {"devices": os.environ.get("CUDA_VISIBLE_DEVICES"), "arguments": sys.argv[2:],
          "threads": os.environ.get("OMP_NUM_THREADS"), "pid": os.getpid(),
          "rank": os.environ.get("RANK"), "world": os.environ.get("WORLD_SIZE")}
note = note.with_name(note.name + (report["rank"] or ""))
note.with_suffix(".tmp").write_text(json.dumps(report))
note.with_suffix(".tmp").rename(note)
while "wait" in sys.argv and not note.with_name("end").exists():
    time.sleep(0.05)
"""


@pytest.fixture
def job(tmp_path):
    """Start launch.py with a script that notes what it got; the caller reads the notes."""
    (tmp_path / "script.py").write_text(SCRIPT)
    started = []

    def start(name, *options, arguments=(), **environment):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "CUDA_"))}
        command = [sys.executable, str(LAUNCH), *options, str(tmp_path / "script.py")]
        process = subprocess.Popen(
            [*command, str(tmp_path / name), *arguments],
            env={**clean, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    (tmp_path / "end").touch()  # ranks outlive the launcher that is killed, and hold its stderr
    for process in started:
        process.kill()
        process.communicate()


def note(folder, name):
    """What a job's script noted, as soon as it did."""
    for _ in range(1200):
        if (folder / name).exists():
            return json.loads((folder / name).read_text())
        time.sleep(0.05)
    raise AssertionError(f"{name} never started")


def finished(process):
    _, text = process.communicate(timeout=120)
    return process.returncode, text


def test_jobs_side_by_side_never_share_a_device(tmp_path, job):
    devices = {"CUDA_VISIBLE_DEVICES": "7,8,9"}
    first = job("a", "--gpus", "1", "--single", arguments=["wait"], **devices)
    assert note(tmp_path, "a")["devices"] == "7"
    job("b", "--gpus", "1", "--single", arguments=["wait"], **devices)
    assert note(tmp_path, "b")["devices"] == "8"
    third = job("c", "--gpus", "2", "--single", **devices)
    assert "waiting for 2 free GPUs of 7, 8, 9" in third.stderr.readline()
    assert not (tmp_path / "c").exists()
    first.send_signal(signal.SIGKILL)  # the lock goes with the process, however it ends
    assert note(tmp_path, "c")["devices"] == "7,9"


def test_the_script_takes_the_launchers_place(tmp_path, job):
    process = job("a", "--gpus", "0", arguments=["wait"])
    found = note(tmp_path, "a")
    assert found["pid"] == process.pid and found["devices"] == "", "signals reach it; no GPU"


def test_more_gpus_than_there_are_is_refused(job):
    code, text = finished(job("a", "--gpus", "2", CUDA_VISIBLE_DEVICES="0"))
    assert code == 2 and "asks for 2 GPUs, 1 are visible here; set gpu: 1" in text


def test_several_nodes_need_slurm(job):
    code, text = finished(job("a", "--gpus", "2", "--nodes", "2"))
    assert code == 2 and "--nodes" in text and "SLURM" in text


@pytest.mark.slow
def test_a_training_gets_a_process_per_gpu_and_its_share_of_the_threads(tmp_path, job):
    slurm = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0,3", "OMP_NUM_THREADS": "8"}
    process = job("a", "--gpus", "0", "--minutes", "100", **slurm)  # gres: gpu is 0 then
    assert finished(process)[0] == 0
    for rank in ("0", "1"):
        found = note(tmp_path, f"a{rank}")
        assert (found["rank"], found["world"], found["threads"]) == (rank, "2", "4")
        assert found["devices"] == "0,3" and found["arguments"] == ["--max-minutes", "95"]


def test_slurms_devices_go_and_are_not_locked(tmp_path, job):
    slurm = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0"}
    for name in ("a", "b"):  # two jobs on two nodes may both be told 0
        job(name, "--gpus", "1", "--single", arguments=["wait"], **slurm)
        assert note(tmp_path, name)["devices"] == "0"


def test_jobs_side_by_side_in_one_slurm_job_share_out_its_devices(tmp_path, job):
    slurm = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0,1"}
    for name, device in (("a", "0"), ("b", "1")):
        job(name, "--gpus", "1", "--single", arguments=["wait"], **slurm)
        assert note(tmp_path, name)["devices"] == device
    other = {"SLURM_JOB_ID": "8", "CUDA_VISIBLE_DEVICES": "0,1"}  # not the same two
    job("c", "--gpus", "1", "--single", arguments=["wait"], **other)
    assert note(tmp_path, "c")["devices"] == "0"


@pytest.mark.parametrize(
    ("minutes", "given", "expected"),
    [
        (2160, [], "2150"),  # the margin: at most 10 minutes,
        (100, [], "95"),  # a twentieth of the limit,
        (10, [], "8"),  # at least two minutes,
        (1, [], "0.5"),  # and at most half
        (100, ["--max-minutes", "7.0"], "7"),
        (100, ["--max-minutes=0.0"], "95"),
    ],
)
def test_a_training_stops_before_slurm_ends_it(minutes, given, expected):
    arguments = ["--lr", "-1e-3", *given, "--resume-from", ""]
    found = launching.stop_in_time(arguments, minutes, {"SLURM_JOB_ID": "7"})
    assert found == ["--lr", "-1e-3", "--resume-from", "", "--max-minutes", expected]
    assert launching.stop_in_time(arguments, minutes, {}) == arguments, "no SLURM, no limit"


def test_processes_of_several_nodes_meet_on_the_first_one():
    inside = {
        "SLURM_JOB_ID": "123456", "SLURM_STEP_NUM_NODES": "2", "SLURM_NODEID": "1",
        "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.5",
    }  # fmt: skip
    assert launching.on_a_node_of_several(inside)
    command = " ".join(launching.torchrun_arguments(4, inside))
    assert "--nproc-per-node 4" in command and "--nnodes 2 --node-rank 1" in command
    assert "--master-addr 10.0.0.5 --master-port 23456" in command
    assert launching.torchrun_arguments(1, {}) == []
    assert "--standalone" in launching.torchrun_arguments(2, {"SLURM_STEP_NUM_NODES": "1"})


def test_every_librarys_threads_are_divided():
    threads = {f"{name}_NUM_THREADS": "32" for name in ("OMP", "MKL", "OPENBLAS")}
    environment = {"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0,1,2,3", **threads}
    assert launching.take_gpus(4, environment) == 4
    assert {environment[name] for name in threads} == {"8"}


def test_devices_of_this_machine():
    assert launching.visible_devices({"CUDA_VISIBLE_DEVICES": "2, MIG-a/1"}) == ["2", "MIG-a/1"]
    for hidden in ("", "-1"):
        assert launching.visible_devices({"CUDA_VISIBLE_DEVICES": hidden}) == []


def test_the_folder_of_locks_is_this_users_own(tmp_path, monkeypatch):
    monkeypatch.setattr(launching.os, "getuid", lambda: 987654321)
    with pytest.raises(InputError, match="is not this user's own folder"):
        try:
            launching.lock_folder()
        finally:
            Path("/tmp/cardiform-gpus-987654321").rmdir()
