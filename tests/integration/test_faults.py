"""Faults put in on purpose: what was finished is kept, and one line says what to do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import snakemake_runs
import torch
from answers import refused
from mounts import can_mount, run_with_disk
from toy_training import ToyTask, run

from cardiform.errors import InputError
from cardiform.training import exclusive

SUPPORT = Path(__file__).resolve().parents[1] / "support"


class Filling(ToyTask):
    """A training during which somebody else fills the disk."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def loss(self, batch, update, step):
        if step == 5:
            for _ in range(6000):  # what is saved beside the steps is there
                if (self.folder / "out" / "checkpoints" / "best.pt").exists():
                    break
                time.sleep(0.01)
            with (self.folder / "filler").open("wb", buffering=0) as stream:
                try:
                    while True:
                        stream.write(bytes(4096))
                except OSError:
                    pass
        return super().loss(batch, update, step)


def train_on_a_full_disk(disk: Path, whole: Path) -> None:
    """Until it is full, then again with room; report as JSON."""
    expected = run(whole)
    problems = []
    try:
        run(disk / "out", Filling(disk))
    except InputError as error:
        problems = error.problems
    left = sorted(p.name for p in (disk / "out" / "checkpoints").iterdir())
    (disk / "filler").unlink()
    outcome = run(disk / "out")
    equal = all(torch.equal(v, outcome.weights[n]) for n, v in expected.weights.items())
    json.dump({"problems": problems, "left": left, "equal": equal}, sys.stdout)


def inside(function, disk, *arguments, **how):
    """The JSON that a function of this file reports from a process with a disk of its own."""
    name = Path(__file__).stem
    words = f"import sys, {name} as t; from pathlib import Path; t.{function.__name__}"
    code = f"{words}(*map(Path, sys.argv[1:]))"
    paths = os.pathsep.join([str(Path(__file__).parent), str(SUPPORT), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, disk, *arguments]
    result = run_with_disk("full", disk, command, env=environment, **how)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout), result.stderr


def test_a_disk_that_fills_up_during_a_training_costs_no_finished_step(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    found, text = inside(train_on_a_full_disk, disk, tmp_path / "whole", size="4m")
    (line,) = found["problems"]
    assert "No space left" in line or "the disk has" in line
    assert "make room" in line and "run the same command again" in line
    assert found["left"] == ["best.pt", "last.pt"], "nothing half written"
    assert found["equal"], "it goes on as if nothing had happened"
    assert "Traceback" not in text


def start_toy(out, *arguments):
    command = [sys.executable, SUPPORT / "toy_training.py", out, *arguments]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)


def test_a_second_training_in_the_same_folder_is_refused(tmp_path, monkeypatch):
    """As after a Snakemake that was killed, whose jobs go on."""
    first = start_toy(tmp_path, "--signal-at", 2, "--signal", "SIGSTOP")
    os.waitpid(first.pid, os.WUNTRACED)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(InputError, match=rf"process {first.pid} on .* trains here; wait for it"):
        run(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    monkeypatch.setattr(exclusive, "LEASE_S", 0.2)
    monkeypatch.setattr(exclusive, "TICK_S", 0.05)
    (tmp_path / ".lock").write_text("process 7 on node3")  # it may be gone with its machine
    with pytest.raises(InputError, match=r"process 7 on node3 trains here; .* delete .*\.lock"):
        run(tmp_path)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    outcome = run(tmp_path)  # the lock went with the process
    expected = run(tmp_path / "whole")
    assert all(torch.equal(v, outcome.weights[n]) for n, v in expected.weights.items())


STAND_IN = """#!{python}
import os, pathlib, sys, time
arguments = sys.argv[1:]
value = lambda flag: pathlib.Path(arguments[arguments.index(flag) + 1])
name = pathlib.Path(arguments[0]).stem
out = value("--out") / "cases.tsv" if name == "check_cohort" else value("--manifest")
with open("runs", "a") as stream:
    stream.write(name + " " + out.stem + "\\n")
if name == "sample_sdf" and out.stem == "c1" and not os.path.exists("held"):
    open("held", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.05)
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(name)
if name == "check_cohort":
    (value("--out") / "qc").mkdir(exist_ok=True)
    (value("--out") / "qc" / "cohort.json").write_text(name)
"""


@pytest.fixture
def stood_in(tmp_path):
    """A project of three cases whose scripts are stood in for; the points of c1 wait for ``go``."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(STAND_IN.format(python=sys.executable))
    python.chmod(0o755)
    rows = [f"c{i}\tc{i}.nii.gz" for i in range(3)]
    for i in range(3):
        (tmp_path / f"c{i}.nii.gz").write_text(f"labels {i}")
    (tmp_path / "cohort.tsv").write_text("\n".join(["case_id\tlabels", *rows]) + "\n")
    (tmp_path / "mine.yaml").write_text("cohort: {name: acme, table: cohort.tsv}\n")
    return tmp_path


def contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_killed_snakemake_and_a_second_one_beside_it(stood_in):
    """The second is refused and touches nothing; unlocked, the next one does what is left."""
    controller = subprocess.Popen(
        snakemake_runs.command("--cores", 1, "points"), cwd=stood_in,
        env=snakemake_runs.environment(stood_in), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        snakemake_runs.wait_for(stood_in / "held")
        before = contents(stood_in / "results")
        code, text = snakemake_runs.call(stood_in, "points")
        assert code != 0 and "cannot be locked" in text and "--unlock" in text
        assert controller.poll() is None and contents(stood_in / "results") == before
    finally:
        controller.kill()
        controller.wait()
    finished = (stood_in / "runs").read_text().splitlines()
    assert contents(stood_in / "results") == before
    (stood_in / "go").touch()  # its job goes on, as jobs do, and ends
    snakemake_runs.wait_for(stood_in / "results/acme/points/manifest/c1.tsv")
    code, text = snakemake_runs.call(stood_in, "points")
    assert code != 0 and "--unlock" in text, "the lock outlives the kill"
    assert snakemake_runs.call(stood_in, "--unlock")[0] == 0
    code, text = snakemake_runs.call(stood_in, "points")
    assert code == 0, text
    runs = (stood_in / "runs").read_text().splitlines()
    again = [line for line in runs[len(finished) :] if line in finished]
    assert again == ["sample_sdf c1"], "finished jobs are not done again"
    names = ("check_cases", "extract_meshes", "sample_sdf")
    assert set(runs) == {"check_cohort cases", *(f"{n} c{i}" for n in names for i in range(3))}


TARGETS = (
    "points", "voxels", "results/acme/coronary/repaired/manifest/chunk_000.tsv",
    "results/acme/ldm/labels/voxels/manifest.tsv",
)  # fmt: skip
CONFIG = {
    "cohort": {"name": "acme", "table": "data/cases.tsv", "chunks": 1},
    "points": {
        "surface_points": 3000,
        "min_class_points": 100,
        "near_points": 4000,
        "volume_points": 2000,
    },
    "voxels": {"resolution": 64},
    "coronary_repair": {"spacing_mm": 2.0, "fragment_mm3": 60.0},
    "ldm": {"voxel_size": 16},
}


def dates(folder):
    return {p: p.stat().st_mtime_ns for p in sorted(folder.rglob("*"))}


@pytest.fixture(scope="module")
def acme(tmp_path_factory, run_script):
    """Three coarse hearts, and the label route of their folder, which cannot be written."""
    folder = tmp_path_factory.mktemp("acme")
    places = ("--out", folder / "data", "--cases", 3, "--spacing-mm", 4)
    result = run_script("make_demo_cohort.py", *places)
    assert result.returncode == 0, result.stderr
    (folder / "mine.yaml").write_text(json.dumps(CONFIG))
    before = dates(folder / "data")
    command = snakemake_runs.command("--cores", 2, *TARGETS)
    if can_mount(folder / "data"):
        where = {"cwd": folder, "env": snakemake_runs.environment(folder)}
        result = run_with_disk("read_only", folder / "data", command, **where)
        code, text = result.returncode, result.stdout + result.stderr
    else:
        code, text = snakemake_runs.call(folder, *TARGETS)
    assert code == 0, text[-6000:]
    assert dates(folder / "data") == before, "nothing is written beside the inputs"
    return folder


def test_the_input_folder_may_be_read_only(acme):
    results = acme / "results" / "acme"
    for made in ("points/phantom_002.npz", "sparse/64/phantom_002", "ldm/labels/voxels/grid.json"):
        assert (results / made).exists(), made
    assert can_mount(acme / "data") or pytest.skip("mounts are not permitted here")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


DAMAGED = {
    "sample_sdf": "points/phantom_001.npz",
    "extract_meshes": "meshes/phantom_001/left_ventricle.ply",
    "voxelize_labels": "sparse/64/phantom_001/aorta.npz",
}


def test_the_command_that_the_messages_name_mends_damaged_files(acme):
    """To the same bytes; no other case is made again, and no stage for another's sake."""
    results = acme / "results" / "acme"
    sound = {results / name: (results / name).read_bytes() for name in DAMAGED.values()}
    before = products(acme)
    for path in sound:
        flip(path)
    code, text = snakemake_runs.call(acme, *TARGETS)
    assert code == 0 and "Nothing to be done" in text, "Snakemake does not see it by itself"
    code, text = snakemake_runs.call(acme, *TARGETS, "--forcerun", *DAMAGED)
    assert code == 0, text[-6000:]
    assert {path: path.read_bytes() for path in sound} == sound
    changed = {p for p, date in products(acme).items() if date != before[p]}
    assert set(sound) <= changed
    assert {p.parent for p in changed} == {p.parent for p in sound}
    assert all("phantom_001" in str(p) for p in changed)


def products(folder):
    found = [p for p in (folder / "results").rglob("*") if p.suffix in (".npz", ".ply", ".gz")]
    return {p: p.stat().st_mtime_ns for p in found}


def test_a_damaged_mesh_is_not_made_into_points(acme, run_script):
    results = acme / "results" / "acme"
    path = results / "meshes" / "phantom_001" / "left_ventricle.ply"
    sound = path.read_bytes()
    flip(path)
    result = sample(acme, run_script, "fresh")
    path.write_bytes(sound)
    words = ("left_ventricle.ply: is not what extract_meshes wrote", "--forcerun extract_meshes")
    refused(result, *words)
    made = {p.stem for p in (acme / "fresh").glob("*.npz")}
    assert made == {"phantom_000", "phantom_002"}, "the other cases are done"


def sample(acme, run_script, out):
    options = [f"--{k.replace('_', '-')}={v}" for k, v in CONFIG["points"].items()]
    places = ("--cases", "results/acme/cases.tsv", "--meshes", "results/acme/meshes")
    places += ("--out", out, "--manifest", f"{out}/manifest.tsv")
    return run_script("sample_sdf.py", *places, *options, cwd=acme)


def test_a_label_map_that_is_cut_after_the_check_costs_its_case_alone(acme, run_script):
    path = acme / "data" / "labels" / "phantom_002.nii.gz"
    sound = path.read_bytes()
    path.write_bytes(sound[: len(sound) // 2])
    places = ("--cases", "results/acme/cases.tsv", "--out", "cut", "--manifest", "cut/m.tsv")
    result = run_script("extract_meshes.py", *places, cwd=acme)
    path.write_bytes(sound)
    refused(result, "phantom_002.nii.gz: cannot be read to its end", "copy or export the file")
    kept = dates(acme / "cut" / "phantom_000")
    assert not (acme / "cut" / "m.tsv").exists()
    result = run_script("extract_meshes.py", *places, cwd=acme)
    assert result.returncode == 0 and "2 of 3 cases are finished already" in result.stderr
    assert dates(acme / "cut" / "phantom_000") == kept


def test_what_is_wrong_with_the_files_is_told_once(tmp_path):
    """Attempts are for jobs that ran short of something; a cluster would queue each anew."""
    (tmp_path / "cohort.tsv").write_text("case_id\tlabels\na\tnone.nii.gz\n")
    (tmp_path / "mine.yaml").write_text("cohort: {name: acme, table: cohort.tsv}\n")
    code, text = snakemake_runs.call(tmp_path, "--retries", 3, "results/acme/cases.tsv")
    assert code != 0 and "none.nii.gz: does not exist" in text
    assert "Trying to restart" not in text


def test_a_clock_that_jumped_costs_nothing(acme):
    """Neither for a label map from the future nor for results from there."""
    before, later = products(acme), time.time() + 11 * 365 * 86400
    path = acme / "data" / "images" / "phantom_000.nii.gz"
    small = path.read_bytes()
    path.write_bytes(small + bytes(1_100_000))  # of small files Snakemake compares the content
    os.utime(path, (later, later))
    code, text = snakemake_runs.call(acme, *TARGETS)
    assert code != 0 and "Traceback" not in text
    assert "was changed in the future" in text and "touch data/images/phantom_000.nii.gz" in text
    path.write_bytes(small)  # and its date with it
    code, text = snakemake_runs.call(acme, *TARGETS)
    assert code == 0, text[-6000:]
    assert products(acme) == before


def test_results_from_the_future_are_given_a_date(acme):
    """What docs/troubleshooting.md says of Snakemake's words on clock skew."""
    before, later = products(acme), time.time() + 11 * 365 * 86400
    stages = acme / "results" / "acme"
    os.utime(stages / "meshes" / "manifest" / "chunk_000.tsv", (later, later))
    (stages / "points" / "manifest" / "chunk_000.tsv").unlink()
    code, text = snakemake_runs.call(acme, *TARGETS)
    assert code != 0 and "clock skew" in text
    guide = (snakemake_runs.ROOT / "docs" / "troubleshooting.md").read_text()
    (remedy,) = re.findall(r"find results .*", guide)
    subprocess.run(remedy, shell=True, cwd=acme, check=True)
    code, text = snakemake_runs.call(acme, *TARGETS)
    assert code == 0, text[-6000:]
    assert products(acme) == before
