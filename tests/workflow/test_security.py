"""Inputs are data: names that could leave their place are refused, paths may be called anything,
nothing is unpickled or executed, and nothing reaches out."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import h5py
import load
import numpy as np
import pytest

from cardiform import cli, labels
from cardiform.cohort.table import Case, read_case_table, read_checked_cases, write_cases
from cardiform.errors import InputError
from cardiform.files import atomic_path, save_npz
from cardiform.geometry.window_names import parse_windows
from cardiform.options.sections import SECTIONS

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow" / "scripts"
SOURCES = [
    *sorted(SCRIPTS.rglob("*.py")), *sorted((ROOT / "tools").glob("*.py")), ROOT / "run.py",
    *sorted((ROOT / "benchmarks").glob("*.py")),
]  # fmt: skip

BAD_NAMES = {
    "parent": "../up", "absolute": "/tmp/canary", "dots": "..", "space": "a b", "quote": "a'b",
    "double": 'a"b', "semicolon": "a;touch canary", "command": "$(touch canary)",
    "backtick": "`touch canary`", "newline": "a\ntouch canary", "tab": "a\tb", "null": "a\0b",
    "dash": "-rf", "glob": "*", "brace": "{chunk}", "pipe": "a|b", "long": "a" * 300,
    "cyrillic": "c\u0430se", "full width": "\uff41", "combining": "e\u0301", "minus": "a\u2010b",
}  # fmt: skip
# A folder and files that people may well have; the canary is what a careless shell would do.
ODD = 'it\'s; $(touch canary) "x" & `touch canary` \u00e9 *'


# --- names that become file names and shell words ---------------------------------------------


def write_rows(path, rows, columns=("case_id", "patient_id", "labels")):
    quoted = [['"' + cell.replace('"', '""') + '"' for cell in row] for row in [columns, *rows]]
    path.write_text("".join("\t".join(row) + "\n" for row in quoted), newline="")


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_ids_that_are_refused(tmp_path, name):
    for row in ((name, "p", "x.nii.gz"), ("c", name, "x.nii.gz")):
        write_rows(tmp_path / "cohort.tsv", [row])
        with pytest.raises(InputError, match=r"(is not usable|is no table)"):
            read_case_table(tmp_path / "cohort.tsv")
    write_cases(tmp_path / "cases.tsv", [Case(case_id=name, patient_id="p", labels="x.nii.gz")])
    with pytest.raises(InputError, match=r"(is not usable|is no table|of 8 columns)"):
        read_checked_cases(tmp_path / "cases.tsv")


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_names_in_the_config_that_are_refused(tmp_path, name):
    for section, key in (("cohort", "name"), ("coronary_repair", "structure")):
        with pytest.raises(InputError, match=f"{section}.{key} is "):
            cli.from_config(SECTIONS, {section: {key: name}})
    with pytest.raises(InputError, match="write name=level/width"):
        parse_windows([f"{name}=300/1500"])
    table = tmp_path / "labels.tsv"
    columns = ("value", "name", "title", "color", "components", "priority")
    write_rows(table, [("1", name, "x", "#ffffff", "1", "1")], columns)
    with pytest.raises(InputError, match=r"(is not made of|is no table|not 1)"):
        labels.load_label_table(table)


@pytest.mark.parametrize("path", ["a\nb", "a\tb", "a\rb", "a\x1bb", "a\u2028b"])
def test_paths_with_control_characters_are_refused(tmp_path, path):
    write_rows(tmp_path / "cohort.tsv", [("c", "p", path + ".nii.gz")])
    with pytest.raises(InputError, match="cannot be part of its name"):
        read_case_table(tmp_path / "cohort.tsv")
    with pytest.raises(InputError, match="one line"):
        cli.from_config(SECTIONS, {"cohort": {"table": path}})


def test_a_path_that_looks_like_a_flag_is_refused():
    with pytest.raises(InputError, match="does not begin with -"):
        cli.from_config(SECTIONS, {"vqvae": {"pretrained": "--help"}})


def write_config(folder, **sections):
    (folder / "mine.yaml").write_text(json.dumps(sections))


def test_a_table_of_bad_names_runs_nothing(tmp_path):
    """All of them are told at once, before a single job."""
    names = [name for name in BAD_NAMES.values() if "\0" not in name]
    write_rows(tmp_path / "cohort.tsv", [(name, "p", "x") for name in names])
    write_config(tmp_path, cohort={"name": "acme", "table": "cohort.tsv"})
    code, text, _ = load.call(tmp_path, "--", "meshes")
    assert code != 0 and text.count("is not usable; use up to 100 letters") == len(names)
    assert "Traceback" not in text
    assert not {"canary", "results", "up"} & {p.name for p in tmp_path.iterdir()}


@pytest.mark.parametrize(
    "sections",
    [
        {"cohort": {"name": "$(touch canary)"}},
        {"coronary_repair": {"structure": "../../$(touch canary)"}},
        {"windows": {"windows": ["$(touch canary)=300/1500"]}},
        {"cohort": {"table": "data {x}/cohort.tsv"}},
        {"vecset": {"resume_from": "{chunk}.pt"}},
        {"cohort": {"labels": "labels.tsv"}},
    ],
    ids=["cohort", "structure", "window", "table with braces", "checkpoint with braces", "class"],
)
def test_a_bad_name_in_the_config_runs_nothing(tmp_path, sections):
    (tmp_path / "data {x}").mkdir()
    write_rows(tmp_path / "data {x}" / "cohort.tsv", [("c", "p", "x.nii.gz")])
    columns = ("value", "name", "title", "color", "components", "priority")
    write_rows(tmp_path / "labels.tsv", [("1", "../up", "x", "#ffffff", "1", "1")], columns)
    write_config(tmp_path, **sections)
    code, text, _ = load.call(tmp_path, "--", "meshes", "fused", "vqvae_windows")
    assert code != 0 and "Traceback" not in text and not load.executed(text), text
    assert not {"canary", "results"} & {p.name for p in tmp_path.iterdir()}


def test_samples_of_a_file_whose_names_are_no_ids_are_refused(tmp_path, run_script):
    with h5py.File(tmp_path / "clouds.h5", "w") as archive:
        for name in ("good", "$(touch canary)", ".. up"):
            archive[f"{name}/points"] = np.eye(4, 3)
        archive["bad/points"] = np.full((4, 3), np.nan)
    arguments = ["--file", "clouds.h5", "--out", "out", "--manifest", "out/manifest.tsv"]
    done = run_script("convert_pointclouds.py", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and "not usable as ids: '$(touch canary)', '.. up'" in done.stderr
    assert "clouds.h5:bad: has points that are not finite" in done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"clouds.h5"}


# --- paths --------------------------------------------------------------------------------------


@pytest.fixture
def odd(tmp_path):
    """A cohort of three cases below a folder, and with files, of odd names."""
    folder = load.make_cohort(tmp_path / ODD, 3, 2)
    (folder / "data").rename(folder / ODD)
    table = folder / f"{ODD}.tsv"
    rows = [(f"case{n}", f"p{n}", f"{ODD}/{n}.nii.gz") for n in range(3)]
    write_rows(table, rows)
    own = folder / f"labels {ODD}.tsv"
    columns = ("value", "name", "title", "color", "components", "priority")
    rows = [("3", "left", "L", "#ffffff", "1", "1"), ("4", "right", "R", "#ffffff", "1", "2")]
    write_rows(own, rows, columns)
    config = json.loads((folder / "mine.yaml").read_text())
    config["cohort"] |= {"table": table.name, "labels": own.name}
    (folder / "mine.yaml").write_text(json.dumps(config))
    return folder, config


def no_canary(folder):
    assert not list(folder.parent.rglob("canary"))


@pytest.mark.slow
def test_folders_and_files_may_be_called_anything(odd):
    folder, _ = odd
    code, text, _ = load.call(folder, "--", "points")
    assert code == 0, text
    cases = read_checked_cases(folder / "results" / "load" / "cases.tsv")
    assert [Path(c.labels).parent.name for c in cases] == [ODD] * 3
    assert (folder / "results" / "load" / "meshes" / "case0" / "left.ply").is_file()
    no_canary(folder)


def test_every_command_carries_odd_paths_as_one_word(odd):
    folder, config = odd
    for name in ("weights.pt", "clouds.h5", "old.pt", "perceptual.pt"):
        (folder / f"{ODD} {name}").write_text("x")
    config |= {
        "vqvae": {"pretrained": f"{ODD} weights.pt"},
        "vecset": {"resume_from": f"{ODD} old.pt"},
        "pointclouds": {"file": f"{ODD} clouds.h5"},
        "ldm": {"sources": ["labels", "pointclouds"]},
        "windows": {"volumes": f"{ODD} volumes"},
    }
    (folder / "mine.yaml").write_text(json.dumps(config))
    targets = ("all", "coronary", "fused", "vqvae_windows")
    code, text, _ = load.call(folder, "-n", "-p", "--", *targets)
    assert code == 0, text
    commands = re.findall(r"^Shell command: (python .*)$", text, re.M)
    words = [shlex.split(command) for command in commands]
    assert len(words) > 20
    for line in words:
        assert sum("canary" in word for word in line) == sum(ODD in word for word in line)
    seen = {word for line in words for word in line if ODD in word}
    names = ("weights.pt", "clouds.h5", "old.pt", "volumes")
    own = config["cohort"]["labels"]
    assert seen == {f"{ODD}.tsv", own, *(f"{ODD} {name}" for name in names)}
    no_canary(folder)


def test_shell_lines_quote_what_is_a_path():
    """A path of the user, and the place of the checkout, reach the shell quoted."""
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        for line in path.read_text().splitlines():
            if not line.strip().startswith('"'):
                continue
            for field in re.findall(r"\{(.*?)\}", line):
                if field.startswith(("input", "params.script", "params.launcher")):
                    assert field.endswith(":q"), f"{path.name}: {line.strip()}"


# --- code and files -----------------------------------------------------------------------------

EXECUTES = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path"}
UNPICKLES = {"marshal", "shelve", "dill", "joblib", "cloudpickle", "pickle"}
NETWORK = {
    "socket", "socketserver", "ssl", "urllib", "http", "ftplib", "smtplib", "xmlrpc", "requests",
    "httpx", "aiohttp", "urllib3", "paramiko", "huggingface_hub", "torch.hub",
}  # fmt: skip


def dotted(node) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def is_constant(call: ast.Call, name: str, value) -> bool:
    return any(
        k.arg == name and isinstance(k.value, ast.Constant) and k.value.value is value
        for k in call.keywords
    )


def faults(tree: ast.AST):
    """What a source must not do."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            for name in [module] if module else [alias.name for alias in node.names]:
                if name and {name, name.split(".")[0]} & (UNPICKLES | NETWORK):
                    yield f"imports {name}"
        if isinstance(node, ast.Attribute) and dotted(node) in ("torch.hub", "pickle.load"):
            yield dotted(node)
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in EXECUTES or name in ("yaml.load", "yaml.unsafe_load"):
            yield f"calls {name}"
        if name in ("np.load", "numpy.load") and not is_constant(node, "allow_pickle", False):
            yield f"{name} without allow_pickle=False"
        if name == "torch.load" and not is_constant(node, "weights_only", True):
            yield f"{name} without weights_only=True"
        if any(k.arg == "shell" for k in node.keywords):
            yield f"{name} through a shell"


def allowed(path: Path, fault: str) -> bool:
    """torch_files.py catches an exception of pickle; it loads with weights_only=True. A notebook of
    the documentation is code."""
    if path.name == "run_notebook.py":
        return fault in ("calls exec", "calls compile", "calls eval")
    return path.name == "torch_files.py" and fault == "imports pickle"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_source_executes_data_or_reaches_out(path):
    found = [f for f in faults(ast.parse(path.read_text())) if not allowed(path, f)]
    assert not found, f"{path}: {', '.join(found)}"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from urllib import request", "import torch.hub", "torch.hub.load(x)",
        "np.load(f)", "np.load(f, allow_pickle=True)", "torch.load(f)",
        "yaml.load(f)", "eval(x)", "subprocess.run(x, shell=True)",
        "os.system(x)",
    ],
)  # fmt: skip
def test_what_the_test_above_finds(line):
    assert list(faults(ast.parse(line)))


def test_object_arrays_are_neither_written_nor_read(tmp_path):
    with pytest.raises(TypeError, match="pickle"):
        save_npz(tmp_path / "a.npz", x=np.array([{}]))
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    from cardiform.files import load_npz

    with pytest.raises(InputError, match="cannot be read"):
        load_npz(tmp_path / "a.npz")


def test_temporary_files_are_private(tmp_path):
    with atomic_path(tmp_path / "a.nii.gz") as temporary:
        assert temporary.parent == tmp_path and temporary.name.endswith("-a.nii.gz")
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600


def without_network() -> list[str]:
    """The words before a command that take the network away; empty where that is not possible."""
    words = ["unshare", "--net"]
    try:
        done = subprocess.run([*words, "true"], capture_output=True)
    except FileNotFoundError:
        return []
    return words if done.returncode == 0 else []


def test_a_cohort_is_checked_and_meshed_without_a_network(tmp_path):
    words = without_network()
    if not words:
        pytest.skip("unshare --net needs root (or user namespaces)")
    folder = load.make_cohort(tmp_path / "a", 3)
    out = folder / "results"
    for script, *arguments in (
        ("check_cohort.py", "--table", "cohort.tsv", "--out", out),
        ("extract_meshes.py", "--cases", out / "cases.tsv", "--out", out / "meshes",
         "--manifest", out / "meshes" / "manifest.tsv"),
    ):  # fmt: skip
        command = [*words, sys.executable, SCRIPTS / script, *arguments]
        done = subprocess.run(
            list(map(str, command)), cwd=folder, capture_output=True, text=True, env=os.environ
        )
        assert done.returncode == 0, done.stderr
    assert (out / "meshes" / "manifest.tsv").is_file()
