"""docs/new_family.md builds a family that works: options, rule, training, model.pt, figures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from planner import planner
from points_files import write_points_file

from cardiform.cohort.manifest import MANIFEST_COLUMNS
from cardiform.cohort.table import write_table
from cardiform.files import read_json, sha256_file
from cardiform.labels import LabelTable
from cardiform.metrics.record import TRAINING_RECORD

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "new_family.md"
BIN = Path(sys.executable).parent
COPIED = ("workflow", "config", "tools", "profiles", "tests", "benchmarks", "pyproject.toml")
CASES = ("a", "b", "c")


def blocks() -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks of the page."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def apply(root: Path, text: str) -> None:
    """Make a new file, or add and replace the lines of a diff."""
    first, _, rest = text.partition("\n")
    if first.startswith("# file: "):
        path = root / first.removeprefix("# file: ")
        path.parent.mkdir(exist_ok=True)
        assert not path.exists(), path
        path.write_text(rest, encoding="utf-8")
        return
    path = root / first
    lines, place = path.read_text(encoding="utf-8").splitlines(), 0
    for line in rest.splitlines():
        mark, content = line[:1], line[1:]
        if mark == "+":
            lines.insert(place, content)
            place += 1
            continue
        assert lines.count(content) == 1, f"{first}: {content!r} is there {lines.count(content)}x"
        place = lines.index(content) + 1
        if mark == "-":
            place -= 1
            del lines[place]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the project after all steps of the page."""
    root = tmp_path_factory.mktemp("family") / "project"
    root.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "data", ".snakemake")
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, root / name, **({"ignore": ignored} if copy is shutil.copytree else {}))
    found = blocks()
    for language, text in found:
        if language in ("python", "snakemake", "diff"):
            apply(root, text)
    commands = [text.strip() for language, text in found if not language]
    assert commands == ["python tools/write_config_files.py"]
    must(root, [sys.executable, "tools/write_config_files.py"])
    return root


def must(cwd: Path, command, **environment) -> str:
    result = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **environment},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_the_fence_lets_the_family_in(checkout):
    """Import rules, scripts, config files, environments, linters, and the family's own test."""
    tests = ["tests/workflow/test_style.py", "tests/workflow/test_environments.py"]
    tests += ["tests/workflow/test_config.py", "tests/unit/test_extents.py"]
    chosen = (
        "library or scripts_ or house or ruff or snakefmt or generated or extents or rule or script"
    )
    must(
        checkout, [sys.executable, "-m", "pytest", *tests, "-k", f"({chosen}) and not lint and not "
        "conda", "-q", "-p", "no:cacheprovider"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(checkout) -> Path:
    """A working directory in which ``snakemake extents`` has run on three cases."""
    folder = checkout.parent / "acme"
    folder.mkdir()
    table = [["case_id", "patient_id", "labels"], *([n, n, f"{n}.nii.gz"] for n in CASES)]
    (folder / "cohort.tsv").write_text("\n".join("\t".join(row) for row in table) + "\n")
    points = folder / "results/acme/points"
    for number, name in enumerate(CASES):
        (folder / f"{name}.nii.gz").write_text("not read here")
        path = write_hearts_points(points / f"{name}.npz", number)
        rows = [[name, path, path.stat().st_size, sha256_file(path), "ok"]]
        write_table(points / "manifest" / f"{name}.tsv", MANIFEST_COLUMNS, rows)
    for part, names in (("train", CASES[:2]), ("val", CASES[2:]), ("test", ())):
        rows = [[name, name, points / f"{name}.npz"] for name in names]
        text = "\n".join(",".join(map(str, r)) for r in [["case_id", "patient_id", "path"], *rows])
        (folder / "results/acme/split").mkdir(exist_ok=True)
        (folder / f"results/acme/split/{part}.csv").write_text(text + "\n")
    (folder / "mine.yaml").write_text(
        "cohort: {name: acme, table: cohort.tsv}\n"
        "training: {steps: 6, validate_every: 3, batch_size: 2, workers: 0, device: cpu}\n"
        "extents: {latent_dim: 2, input_points: 64}\n"
    )
    snakemake(folder, checkout)
    return folder


def snakemake(folder: Path, checkout: Path, *more) -> str:
    """What the rule of the family alone says: points and split are there already."""
    places = ["-s", checkout / "workflow/Snakefile", "--profile", checkout / "profiles/default"]
    target = ["results/acme/extents/model.pt", "--allowed-rules", "train_extents"]
    words = [*target, *places, "--configfile", "mine.yaml", *more]
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    result = planner()(words, folder, {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def write_hearts_points(path: Path, seed: int) -> Path:
    """Points about the middle, of every class of the default table."""
    table, rng = LabelTable(), np.random.default_rng(seed)
    values = np.repeat(np.array(table.values, np.uint8), 20)
    points = rng.normal(size=(len(values), 3)).astype(np.float32) / 4
    distances = np.zeros((len(values), len(table)), np.float16)
    return write_points_file(
        path,
        surface_points=points, surface_labels=values,
        near_points=points, near_labels=values, near_sdf=distances,
        volume_points=points, volume_sdf=distances,
        annotated=np.ones(len(table), bool), class_values=np.array(table.values, np.uint8),
    )  # fmt: skip


def test_the_training_leaves_what_every_training_leaves(trained):
    out = trained / "results/acme/extents"
    figures = read_json(out / "metrics.json")
    TRAINING_RECORD.check(out / "metrics.json", figures)
    assert figures["kind"] == "extents" and figures["steps"] == 6
    assert figures["cases"] == {"train": 2, "validation": 1}
    assert figures["validation"]["loss"] < figures["before"]["loss"]
    for name in ("model.pt", "curves.png", "checkpoints/last.pt", "tensorboard"):
        assert (out / name).exists(), name


def test_the_model_is_used_and_no_other_in_its_place(checkout, trained):
    code = (
        "import sys, torch\n"
        "from cardiform.extents.encode import encode\n"
        "print(tuple(encode(sys.argv[1], torch.ones(3, 10)).shape))\n"
        "from cardiform.artefact.model import load_model\n"
        "from cardiform.errors import InputError\n"
        "from cardiform.vecset.model import VECSET\n"
        "try: load_model(sys.argv[1], VECSET)\n"
        "except InputError as error: print(error)\n"
    )
    model = trained / "results/acme/extents/model.pt"
    scripts = str(checkout / "workflow/scripts")
    said = must(trained, [sys.executable, "-c", code, model], PYTHONPATH=scripts)
    assert "(3, 2)" in said and "is a model of kind extents, not a VecSet autoencoder" in said


def test_the_plan_follows_the_family_s_keys_and_those_of_all_trainings(checkout, trained):
    assert "Nothing to be done" in snakemake(trained, checkout, "-n")
    for change in ("training: {lr: 0.01}", "extents: {latent_dim: 3}"):
        (trained / "more.yaml").write_text(f"{change}\n")
        said = snakemake(trained, checkout, "more.yaml", "-n")
        assert "train_extents" in said and "Params have changed" in said, change


@pytest.mark.parametrize("step", range(len(blocks())))
def test_no_step_of_the_page_is_idle(step):
    """Each block is a file, a change or the one command: nothing on the page is only to be read."""
    language, text = blocks()[step]
    first = text.partition("\n")[0]
    if language in ("python", "snakemake"):
        assert first.startswith("# file: ")
    elif language == "diff":
        assert (ROOT / first).is_file() and re.search(r"^\+", text, re.M)
    else:
        assert not language and first == "python tools/write_config_files.py"
