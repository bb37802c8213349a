"""What the documentation shows is true: its code runs, its configs hold, its commands exist."""

from __future__ import annotations

import dataclasses
import doctest
import functools
import importlib
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
import yaml
from dag import make_project, snakemake
from env_files import read_rules
from planner import planner

from cardiform import cli
from cardiform.artefact.model import save_model
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.geometry.mesh_files import write_mesh
from cardiform.geometry.surface import Mesh
from cardiform.labels import NEEDED, STORED, LabelTable
from cardiform.options.sections import SECTIONS
from cardiform.options.vecset import VecsetOptions
from cardiform.options.vqvae import VqvaeOptions
from cardiform.vecset.model import VECSET
from cardiform.volumes import save_label_map

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "workflow" / "scripts" / "cardiform"
PAGES = [
    ROOT / "README.md",
    *filter(Path.exists, [ROOT / "CONTRIBUTING.md"]),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "config" / "README.md",
]
# Blocks that are neither run nor checked here: mermaid is compared with the rules in test_site.py,
# diff is a part of new_family.md, which a test builds.
SHOWN_ONLY = {"text", "mermaid", "diff"}
RULES = {*read_rules()[1], "all"}
# Programs that are not ours: what they are given is not looked at.
PROGRAMS = {
    ".", "$EDITOR", "cd", "docker", "export", "find", "git", "mkdocs", "mypy", "pgrep", "pip",
    "pre-commit", "ruff", "sbatch", "sed", "sinfo", "snakedeploy", "tensorboard", "uv",
}  # fmt: skip
FENCED = re.compile(r"^ *```.*?^ *```", re.M | re.S)
# A reader's own files.
OWN_FILES = {"acme.yaml", "stacom.yaml", "results/acme/search/vecset/best.yaml"}
RESOURCES = {
    "cpus_per_task", "gpu", "gpu_model", "gres", "mem_mb", "mpi", "nodes", "runtime",
    "slurm_account", "slurm_extra", "slurm_partition", "tasks_per_node",
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A fenced block: where it starts, its language, its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"^ *```", text, re.M)) % 2 == 0, f"{page}: a fence is not closed"
        for match in re.finditer(r"^( *)```(\S*)\n(.*?)^ *```", text, re.M | re.S):
            line = text[: match.start()].count("\n") + 1
            found.append(Block(page, line, match[2], textwrap.dedent(match[3])))
    return found


BLOCKS = blocks()


def of(*languages):
    chosen = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", chosen, ids=str)


def test_every_block_has_a_language_that_is_looked_after():
    """Add a check here before a page uses another language; what no test can check is ``text``."""
    known = SHOWN_ONLY | {"", "sh", "yaml", "python", "snakemake", "tsv"}
    for block in BLOCKS:
        assert block.language in known, f"{block}: {block.language}: one of {sorted(known)}"


# --- Python: the blocks of a page run in order, on what its text speaks of


def _vecset() -> dict:
    from cardiform.vecset.model import VecSet

    points = torch.rand(2, 64, 3 + 10)
    names = {"options": VecsetOptions(preset="demo"), "num_classes": 10, "points": points}
    return {**names, "fps": torch.arange(16).expand(2, 16), "xyz": torch.rand(2, 5, 3)} | {
        "VecSet": VecSet
    }


def _vqvae() -> dict:
    from cardiform.options.vqvae import VqvaeCodebookOptions
    from cardiform.sparse.tensor import SparseTensor, Structure
    from cardiform.vqvae.model import SparseVQVAE

    structure = Structure.of_samples([torch.ones(16, 16, 16).nonzero()], 16)
    band = SparseTensor(torch.rand(len(structure), 1), structure)
    options = VqvaeOptions(channels=(8, 8, 8, 8), blocks=(0, 0, 0, 0))
    codebook = VqvaeCodebookOptions(codebook_size=8)
    return {"SparseVQVAE": SparseVQVAE, "options": options, "codebook": codebook, "band": band}


def _measures() -> dict:
    """Z-scores of two hearts, where the page reads them."""
    folder = Path("results/acme/measures")
    folder.mkdir(parents=True)
    row = "{},left_atrium,whole,volume,{},ml,{},9,60,8,{}\n"
    rows = [row.format(*score) for score in SCORES]
    header = "case_id,class,part,measure,value,unit,cut,cases,mean,sd,z\n"
    (folder / "zscores.csv").write_text(header + "".join(rows))
    return {}


def _statistics() -> dict:
    """Scores of two hearts, and distances of a new one, where the page reads them."""
    folder = Path("results/acme/shape_statistics")
    folder.mkdir(parents=True)
    rows = "case_id,part,mode_1,residual_mm\n007,train,-2.5,0.3\nb,val,1.0,0.4\n"
    (folder / "scores.csv").write_text(rows)
    np.savez(folder / "model.npz", classes=np.array(["myocardium", "aorta"]))
    new = Path("results/new/scores/registered")
    new.mkdir(parents=True)
    np.savez(new / "b.npz", residual_mm=np.array([0.312, np.nan]))
    return {}


def _python() -> dict:
    """A case, a surface and a model, where the page reads them."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    ventricle = np.zeros((8, 8, 8), np.uint8)
    ventricle[2:6, 2:6, 2:6] = 3
    folder = Path("results/acme/vecset/reconstructions/case001")
    folder.mkdir(parents=True)
    Path("labels").mkdir()
    for path in ("labels/case001.nii.gz", folder / "labels.nii.gz"):
        save_label_map(path, ventricle, affine)
    Path("cohort.tsv").write_text("case_id\tlabels\ncase001\tlabels/case001.nii.gz\n")
    rows = ["\t".join(str(row[name]) for name in STORED) for row in LabelTable().as_dicts()]
    Path("labels.tsv").write_text("\n".join(["\t".join(STORED), *rows]) + "\n")
    Path("results/acme/meshes/case001").mkdir(parents=True)
    ball = trimesh.creation.icosphere(radius=5.0)
    surface = Mesh(ball.vertices.astype(np.float32), ball.faces.astype(np.int32))
    for path in (folder, Path("results/acme/meshes/case001")):
        write_mesh(path / "left_ventricle.ply", surface)
    save_model(
        "results/acme/vecset/model.pt",
        VECSET,
        {},
        options={"vecset": VecsetOptions()},
        labels=LabelTable(),
        figures={"validation": {"loss": 1.0}},
        training_cases=["case001"],
        source_sha256="",
    )
    return {}


SCORES = (("a", 80, False, 2.5), ("b", 52, False, -1.0), ("c", 41, True, ""))
NAMES = {
    "docs/measures.md": _measures,
    "docs/python.md": _python,
    "docs/statistics.md": _statistics,
    "docs/vecset.md": _vecset,
    "docs/vqvae.md": _vqvae,
}
# New files of a family are written and run by the test of its page.
RUN = [b for b in BLOCKS if b.language == "python" and not b.text.startswith("# file: ")]


@pytest.mark.parametrize("page", dict.fromkeys(b.page for b in RUN), ids=lambda p: p.stem)
def test_python_runs(page, tmp_path, monkeypatch):
    """Names that a page's text explains and its code does not define are given by NAMES."""
    monkeypatch.chdir(tmp_path)
    names = NAMES.get(str(page.relative_to(ROOT)), dict)()
    torch.manual_seed(0)
    for block in RUN:
        if block.page == page:
            exec(compile(block.text, str(block), "exec"), names)
    if "far" in names:
        assert list(names["far"].case_id) == ["a"] and len(names["wide"]) == 3
    if "unlike_most" in names:
        assert list(names["unlike_most"].case_id) == ["007"]
    if "volumes_ml" in names:
        assert names["volumes_ml"]["case001", "left_ventricle"] == pytest.approx(0.512)
        assert names["dice"]["left_ventricle"] == 1 and names["distances"]["assd_mm"] < 0.1
    elif "distances" in names:
        assert names["distances"].shape == (2, 5, 10)


WITH_EXAMPLES = [p for p in sorted(LIBRARY.rglob("*.py")) if ">>> " in p.read_text()]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_examples_of_docstrings_run(path):
    words = path.relative_to(LIBRARY.parent).with_suffix("").parts
    module = importlib.import_module(".".join(w for w in words if w != "__init__"))
    failed, tried = doctest.testmod(module)
    assert tried and not failed


# --- YAML: a config that the workflow takes, or a part of the SLURM profile


@of("yaml")
def test_yaml_holds(block):
    text = block.text
    if text.split(":")[0] not in {*SECTIONS, "default-resources", "set-resources"}:
        text = "set-resources:\n" + textwrap.indent(text, "  ")
    for anchor in set(re.findall(r"\*(\w+)", text)) - set(re.findall(r"&(\w+)", text)):
        text = f"{anchor}_of_the_profile: &{anchor} {{}}\n" + text
    content = yaml.safe_load(text)
    if set(content) <= set(SECTIONS):
        cli.from_config(SECTIONS, content)
        return
    for name, value in content.items():
        if name == "default-resources":
            assert set(value) <= RESOURCES
        elif name == "set-resources":
            assert set(value) <= RULES | {"one_gpu", "gpus"}, (
                "rules, and the anchors of the profile"
            )
            assert {key for resources in value.values() for key in resources} <= RESOURCES
        else:
            assert name.endswith("_of_the_profile"), f"{block}: {name} is no section of the config"


# --- tables and rules


@of("tsv")
def test_tables_have_columns_that_are_read(block):
    header, *rows = [line.split("\t") for line in block.text.splitlines()]
    if "value" in header:
        assert set(NEEDED) <= set(header) <= set(STORED)
    else:
        assert {"case_id", "labels"} <= set(header)
        own = {name for name in header if name.startswith("x_")}
        assert set(header) - own <= {f.name for f in dataclasses.fields(Case)}
    assert all(len(row) == len(header) for row in rows)


# New files of a family are written and run by the test of its page.
OTHER_SNAKEFILES = [b for b in BLOCKS if b.language == "snakemake" and "# file: " not in b.text]


@pytest.mark.parametrize("block", OTHER_SNAKEFILES, ids=str)
def test_snakefiles_name_rules_that_exist(block):
    named = set(re.findall(r"\brules\.heart_(\w+)", block.text))
    assert named <= RULES
    assert named or block.text.startswith("containerized: ")


# --- keys and files within the text

QUOTED = re.compile(r"`([^`\n]+)`")
FOLDERS = "tests|workflow|config|tools|benchmarks|profiles|docs|requirements"
# What a reader of the page makes.
MADE = {"workflow/envs/geometry.linux-64.pin.txt", "docs/extents.md"}


def quoted() -> list[tuple[str, str]]:
    """(place, words) of the code within the text; of keys of earlier code what they became."""
    found = []
    for page in PAGES:
        text = FENCED.sub(lambda m: "\n" * m[0].count("\n"), page.read_text(encoding="utf-8"))
        if page.name == "migration.md":
            text = re.sub(r"^\| [^|]* \|", "", text, flags=re.M)
        for match in QUOTED.finditer(text):
            line = text[: match.start()].count("\n") + 1
            found.append((f"{page.relative_to(ROOT)}:{line}", match[1]))
    return found


def test_keys_of_the_text_exist():
    keys = {
        (section, name)
        for section, cls in SECTIONS.items()
        for field in dataclasses.fields(cls)
        for name in (field.name, field.metadata["alias"])
    }
    files = {"csv", "json", "npz", "png", "pt", "py", "tsv", "yaml"}
    checked = 0
    for where, words in quoted():
        match = re.fullmatch(r"([a-z_]+)\.([a-z_]+)(: .*)?", words)
        if match is None or match[1] not in SECTIONS or match[2] in files:
            continue
        if not (LIBRARY / match[1] / f"{match[2]}.py").is_file():
            checked += 1
            assert match.group(1, 2) in keys, f"{where}: {words} is no key"
    assert checked > 50


def test_files_of_the_text_exist():
    for where, words in quoted():
        if re.fullmatch(rf"(?:{FOLDERS})/[\w./-]+\w", words) and words not in MADE:
            assert (ROOT / words).exists(), f"{where}: no file {words}"


# --- shell: scripts and their flags, rules, files and options of Snakemake


def commands(text: str) -> list[list[str]]:
    """The words of each command; comments and continued lines are seen to."""
    found: list[list[str]] = [[]]
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for word in words:
            ends = word.endswith(";") and len(word) > 1
            if word in ("&&", "|", ";", "||"):
                found.append([])
            else:
                found[-1].append(word.rstrip(";") if ends else word)
        found.append([])
    return [words for words in found if words]


@functools.cache
def flags_of(script: Path) -> frozenset[str]:
    """The flags that a script's help lists; benchmarks import too much to be asked."""
    if script.parent.name == "benchmarks":
        return frozenset(re.findall(r'"(--[a-z-]+)"', script.read_text(encoding="utf-8")))
    result = subprocess.run(
        [sys.executable, str(script), "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    return frozenset(re.findall(r"(?<![\w-])--?[a-z][\w-]*", result.stdout))


@functools.cache
def options_of_snakemake() -> frozenset[str]:
    text = planner()(["--help"], ROOT, {"PATH": "/usr/bin:/bin"}).stdout
    return frozenset(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", text))


def check_python(words: list[str], where) -> None:
    """``python script.py --flags``; torchrun's own flags stand before the script."""
    if words[0] == "-m":
        assert words[1] in ("pytest", "venv"), f"{where}: python -m {words[1]}"
        return
    if words in (["…"], ["..."]):
        return
    script = next((k for k, word in enumerate(words) if word.endswith(".py")), None)
    assert script is not None, f"{where}: no script in {words}"
    path = ROOT / words[script]
    assert path.is_file(), f"{where}: {words[script]} does not exist"
    if path.name == "run.py":
        check_run(words[script + 1 :], where)
        return
    for word in words[script + 1 :]:
        flag = word.split("=")[0]
        if re.match(r"--?[a-z]", flag):
            assert flag in flags_of(path), f"{where}: {path.name} has no {flag}"


def check_run(words: list[str], where) -> None:
    """``python3 run.py <command>``"""
    program, *rest = words
    if program == "setup":
        assert {w for w in rest if w.startswith("-")} <= {"--torch-index"}, where
    elif program in ("test", "coverage"):
        paths = [word for word in rest if word.startswith("tests")]
        assert all((ROOT / path).exists() for path in paths), f"{where}: {paths}"
    elif program == "demo":
        check_snakemake(rest, where)
    elif program == "docs":
        assert not rest, where
    else:
        check(words, where)


def check_snakemake(words: list[str], where) -> list[str]:
    """Its options exist, and the files and rules that they name; returns the targets."""
    targets, option = [], ""
    for word in words:
        if option == "--apptainer-args":
            option = ""
        elif re.match(r"--?[a-zA-Z]", word):
            option = word.split("=")[0]
            assert option in options_of_snakemake(), f"{where}: snakemake has no {option}"
        elif option == "--configfile" and word not in ("...", "…"):
            # It takes every word up to the next option: a target behind it would be no target.
            assert word.endswith(".yaml"), f"{where}: {word} belongs before --configfile"
            assert word in OWN_FILES or (ROOT / word).is_file(), f"{where}: no file {word}"
        elif option == "--config" and "=" in word:
            section, values = word.split("=", 1)
            cli.from_config(SECTIONS, {section: yaml.safe_load(values)})
        elif option == "--profile":
            assert (ROOT / word).is_dir(), f"{where}: no profile {word}"
            option = ""
        elif option == "--forcerun":
            assert word in RULES, f"{where}: no rule {word}"
        elif option in ("--sdm", "--rulegraph", "--cores"):
            pass
        elif word not in ("...", "…"):
            known = word in RULES or word.startswith("results/")
            assert known, f"{where}: {word} is neither a rule nor a file of the results"
            targets.append(word)
    return targets


def check(words: list[str], where) -> list[str]:
    """Check one command; returns the targets that it gives to Snakemake."""
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, *rest = words
    if program == "tmux":
        return [target for inner in commands(rest[-1]) for target in check(inner, where)]
    if program == "snakemake":
        return check_snakemake(rest, where)
    if re.fullmatch(r"python(3(\.\d+)?)?|torchrun", program):
        if program != "torchrun" or any(word.endswith(".py") for word in rest):
            check_python(rest, where)
        return check_snakemake(rest[2:], where) if rest[:2] == ["run.py", "snakemake"] else []
    hint = "a program of another project belongs in PROGRAMS, what is no command in a text block"
    assert program in PROGRAMS, f"{where}: {program}: {hint}"
    return []


SHELL = [b for b in BLOCKS if b.language in ("", "sh")]
# `snakemake ...` within a sentence or a table
INLINE = re.compile(r"`((?:snakemake|python3?|torchrun) [^`]+)`")


def spoken() -> list[tuple[str, str]]:
    """(place, command) of the commands that stand within the text of the pages."""
    found = []
    for page in PAGES:
        text = FENCED.sub(lambda m: "\n" * m[0].count("\n"), page.read_text(encoding="utf-8"))
        for match in INLINE.finditer(text):
            line = text[: match.start()].count("\n") + 1
            command = " ".join(match[1].split()).replace("<cohort>", "acme")
            found.append((f"{page.relative_to(ROOT)}:{line}", command))
    return found


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_exist(block):
    for words in commands(block.text):
        check(words, block)


def test_commands_within_the_text_exist():
    found = spoken()
    assert len(found) > 20
    for where, command in found:
        for words in commands(command):
            check(words, where)


def test_snakemake_can_plan_every_target_of_the_pages(tmp_path):
    """All in one plan, of a cohort like that of the README, whatever a page calls it."""
    places = [(str(b), b.text) for b in SHELL] + spoken()
    targets = {t for where, text in places for words in commands(text) for t in check(words, where)}
    assert {"results/acme/vecset/model.pt", "meshes", "fused", "vqvae_windows"} <= targets
    project = make_project(tmp_path, "image")
    (project / "clouds.h5").write_text("clouds")
    config = yaml.safe_load((project / "mine.yaml").read_text())
    config["ldm"] = {"sources": ["labels", "pointclouds"]}
    config["pointclouds"] = {"file": "clouds.h5"}
    config["split"] = {"folds": 3}
    config["vecset"] = {**config.get("vecset", {}), "preset": "demo"}  # of set_diffusion
    config["search"] = {"training": "vecset", "space": ["lr=1e-4..1e-2/log"]}
    config["apply"] = {"table": "cohort.tsv", "models": ["trained"]}
    (project / "trained" / "vecset").mkdir(parents=True)
    (project / "trained" / "vecset" / "model.pt").write_text("a model")
    (project / "mine.yaml").write_text(yaml.safe_dump(config))
    named = {re.sub("^results/stacom2025/", "results/acme/", target) for target in targets}
    result = snakemake(project, "-n", *sorted(named))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "python workflow/scripts/train_vecset.py --no-such-flag 1",
        "python workflow/scripts/no_such_script.py",
        "snakemake --no-such-option",
        "snakemake no_such_target",
        "snakemake --forcerun no_such_rule",
        "snakemake --configfile config/no_such.yaml",
        "snakemake --configfile config/demo.yaml meshes",
        "snakemake --config 'cohort={no_such_key: 1}' points",
        "python3 run.py no_such_program",
        "tmux new 'snakemake no_such_target'",
    ],
)
def test_the_checks_find_what_is_wrong(command):
    with pytest.raises((AssertionError, InputError)):
        for words in commands(command):
            check(words, "here")
