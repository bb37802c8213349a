"""The conda environments hold what the scripts of their rules import."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import stand_in_conda
import yaml
from env_files import (
    ENVIRONMENTS,
    PYPI_NAMES,
    ROOT,
    SCRIPTS,
    conda_names,
    imports,
    pins,
    read_rules,
    rule_blocks,
    third_party,
)
from planner import planner

RULES, RULE_NAMES = read_rules()
# import name -> what pip installs; imported where a setting asks for it alone (the spconv
# backend), with a message that says how to install it.
OPTIONAL = {
    "spconv": "spconv-cu126", "mlflow": "mlflow", "wandb": "wandb",
    "highdicom": "highdicom", "pydicom": "highdicom",
}  # fmt: skip
# No script imports these, but one of its libraries does and does not declare it.
UNDECLARED = {"einops": "monai", "rtree": "trimesh", "scipy": "optuna"}
# Rules of other cohorts than the demo's.
OF_OTHERS = {"voxelize_meshes"}
# Steps that no rule runs, and the environment that they work in.
STAND_ALONE = {
    "list_cases.py": "geometry.yaml",
    "import_labels.py": "geometry.yaml",
    "import_volumes.py": "geometry.yaml",
    "export_models.py": "apply.yaml",
    "import_models.py": "apply.yaml",
    "import_vecsetx.py": "torch.yaml",
}


def scripts_of(environment: Path) -> set[Path]:
    """Every script that runs in an environment."""
    names = {name for rule in RULES if rule.conda == environment for name in rule.scripts}
    names |= {name for name, file in STAND_ALONE.items() if file == environment.name}
    return {SCRIPTS / name for name in names}


def test_every_rule_that_snakemake_knows_is_looked_at(tmp_path):
    listed = subprocess.run(
        [Path(sys.executable).parent / "snakemake", "--list-rules", "-s"]
        + [ROOT / "workflow" / "Snakefile"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert listed.returncode == 0, listed.stderr
    assert set(listed.stdout.split()) == {*RULE_NAMES, "all"} - OF_OTHERS


def test_every_script_is_of_a_rule_or_stands_alone():
    named = {name for rule in RULES for name in rule.scripts}
    assert {path.name for path in SCRIPTS.glob("*.py")} == named | set(STAND_ALONE)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_names_an_environment_that_holds_the_imports_of_its_scripts(rule):
    assert rule.scripts, "a rule runs a script of the workflow"
    assert rule.conda in ENVIRONMENTS, "it names a file of workflow/envs"
    held = pins(rule.conda)
    for script in rule.scripts:
        lacking = conda_names(SCRIPTS / script) - set(OPTIONAL) - set(held)
        assert not lacking, f"{rule.conda.name} lacks {lacking} ({script})"
    if "launch.py" in rule.scripts:
        assert "pytorch-gpu" in held, "the launcher starts torchrun"


def test_scripts_without_a_rule_find_their_imports():
    for script, name in STAND_ALONE.items():
        held = pins(ROOT / "workflow" / "envs" / name)
        assert conda_names(SCRIPTS / script) - set(OPTIONAL) <= set(held)


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_an_environment_holds_nothing_that_its_scripts_do_not_need(path):
    held = set(pins(path)) - {"python"}
    needed = set().union(*map(conda_names, scripts_of(path)))
    needed |= {name for name, by in UNDECLARED.items() if by in needed}
    assert held <= needed, f"{path.name}: no script imports {held - needed}"
    assert not held & set(OPTIONAL)


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_environments_come_from_conda_forge_alone(path):
    content = yaml.safe_load(path.read_text())
    assert content["channels"] == ["conda-forge", "nodefaults"]
    assert set(content) == {"channels", "dependencies"}
    assert {"python", "numpy"} <= set(pins(path))
    assert "pytorch" not in pins(path), "without a GPU in sight conda would take a CPU build"


def test_pins_of_shared_packages_agree():
    versions: dict[str, dict[str, str]] = {}
    for path in ENVIRONMENTS:
        for name, version in pins(path).items():
            versions.setdefault(name, {})[path.name] = version
    assert sum(len(found) > 1 for found in versions.values()) > 5
    for name, found in versions.items():
        assert len(set(found.values())) == 1, f"{name}: {found}"


def test_pins_agree_with_the_lock():
    """What is tested is what conda installs."""
    requirements = ROOT / "requirements"
    lock = (requirements / "lock.txt").read_text() + (requirements / "torch.txt").read_text()
    for path in ENVIRONMENTS:
        for name, pin in pins(path).items():
            if name == "python":
                continue
            wanted = re.escape(PYPI_NAMES.get(name, name))
            locked = re.findall(rf"^{wanted}==([^\s;]+)", lock, flags=re.M | re.I)
            assert any(v == pin or v.startswith(f"{pin}.") for v in locked), (path, name, locked)


def test_the_oldest_python_is_that_of_the_environments():
    wanted = re.search(r'requires-python = ">=(.+?)"', (ROOT / "pyproject.toml").read_text())
    assert {pins(path)["python"] for path in ENVIRONMENTS} == {wanted[1]}


def test_optional_libraries_are_imported_with_a_remedy():
    seen = set()
    for path in SCRIPTS.rglob("*.py"):
        for name in imports(path)[0] & set(OPTIONAL):
            seen.add(name)
            guarded = [
                ast.unparse(node)
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Try) and "ImportError" in ast.unparse(node.handlers)
            ]
            text = next(text for text in guarded if f"import {name}" in text)
            assert f"pip install {OPTIONAL[name]}" in text, path
    assert seen == set(OPTIONAL)


def test_imports_are_statements():
    """An import that hides in a call would pass these tests by."""
    for path in SCRIPTS.rglob("*.py"):
        assert not re.search(r"\b(import_module|__import__)\(", path.read_text()), path


# --- the reading itself -----------------------------------------------------------------


def test_nested_and_derived_rules_are_read(tmp_path):
    (tmp_path / "a.smk").write_text(
        'rule target:\n    input:\n        "x",\n\n'
        'if True:\n\n    rule first:\n        conda:\n            "e.yaml"\n'
        '        params:\n            script=script("one.py"),\n        shell:\n            "x"\n\n'
        'use rule first as second with:\n    log:\n        "l",\n\n'
        'checkpoint bare:\n    params:\n        script=script("two.py"),\n    shell:\n        "y"\n'
    )
    found, names = read_rules(tmp_path)
    assert names == ["target", "first", "second", "bare"]
    first, second, bare = found
    assert first.scripts == second.scripts == ("one.py",)
    assert first.conda == second.conda == tmp_path / "e.yaml"
    assert bare.conda is None and bare.scripts == ("two.py",)
    assert [name for name, _, _ in rule_blocks("rule a:\n  b\nuse rule a as c with:\n  d\n")] == [
        "a",
        "c",
    ]


def test_imports_are_followed_through_the_library():
    assert "torch" in third_party(SCRIPTS / "train_vecset.py")
    assert "torch" not in third_party(SCRIPTS / "extract_meshes.py")
    assert "h5py" in third_party(SCRIPTS / "check_cohort.py"), "imported inside a function"
    assert "torch" not in third_party(SCRIPTS / "launch.py"), "it starts torchrun by its name"


def test_the_guide_makes_the_environments_that_it_names(tmp_path):
    """On a login node, for compute nodes without a network."""
    guide = (ROOT / "docs" / "environments.md").read_text()
    (words,) = re.findall(r"^snakemake (.* --list-conda-envs.*)$", guide, re.M)
    (named,) = re.findall(r"the plan of the demo includes the environments (.*?), all but", guide)
    words = words.replace("config/", f"{ROOT}/config/").split()
    programs = stand_in_conda.install(tmp_path / "conda")
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    places = ["-s", ROOT / "workflow" / "Snakefile", "--cores", "1"]
    result = planner()([*places, *words], tmp_path, environment)
    listed = set(re.findall(r"envs/(\w+)\.yaml", result.stdout))
    assert listed == set(re.findall(r"\w+", named.replace(" and ", " "))), result.stderr
    assert listed | {"search"} == {path.stem for path in ENVIRONMENTS}
