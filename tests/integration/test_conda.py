"""The environment that each file describes, and nothing more (rules in them: test_workflow.py).

Conda itself is replaced: tests/support/stand_in_conda.py makes the environments of links to
installed packages, so these tests need neither conda nor a network.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from env_files import ENVIRONMENTS, ROOT, SCRIPTS, read_rules, third_party
from tiny_config import TINY, changed

RULES, _ = read_rules()
DEMO = changed(TINY, "demo", cases=8, spacing_mm=5.0)
# What the Python that runs the tests has, and an environment must not have.
FOREIGN = ("snakemake", "pytest", "yaml", "spconv", "mlflow", "wandb", "highdicom", "pydicom")
FOREIGN_TO = {
    "geometry": ("torch", "monai", "tensorboardX", "fpsample", "safetensors", *FOREIGN),
    "torch": ("igl", "monai", "einops", "h5py", "pandas", *FOREIGN),
    "ldm": ("igl", "fpsample", "pandas", *FOREIGN),
}
LOOK = """
import importlib, importlib.util, json, sys
wanted, foreign = json.loads(sys.argv[1])
for name in wanted:
    importlib.import_module(name)
print(json.dumps([sys.prefix, [n for n in foreign if importlib.util.find_spec(n)]]))
"""


@pytest.fixture(scope="module")
def environments(conda, run_in_conda, tmp_path_factory):
    """Name of an environment file -> folder of the environment that Snakemake made of it.

    That of target apply is missing: it is made where there are trained models.
    """
    run_in_conda(tmp_path_factory.mktemp("planned"), DEMO, "--conda-create-envs-only")
    made = {path.read_text(): path.with_suffix("") for path in conda[1].glob("*.yaml")}
    return {p.stem: made[p.read_text()] for p in ENVIRONMENTS if p.stem in FOREIGN_TO}


@pytest.mark.parametrize("name", FOREIGN_TO)
def test_an_environment_has_the_imports_of_its_scripts_and_no_others(name, environments, tmp_path):
    scripts = {s for rule in RULES if rule.conda.stem == name for s in rule.scripts}
    wanted = set().union(*(third_party(SCRIPTS / script) for script in scripts)) - set(FOREIGN)
    python = environments[name] / "bin" / "python"
    argument = json.dumps([sorted(wanted), FOREIGN_TO[name]])
    result = subprocess.run(
        [python, "-I", "-c", LOOK, argument], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [str(environments[name]), []]


@pytest.fixture
def edited(tmp_path):
    """Edit geometry.yaml of a copy of the workflow; the copy."""

    def edit(pattern: str, replacement: str):
        for name in ("workflow", "config"):
            shutil.copytree(ROOT / name, tmp_path / name)
        path = tmp_path / "workflow" / "envs" / "geometry.yaml"
        text, count = re.subn(pattern, replacement, path.read_text())
        assert count == 1
        path.write_text(text)
        return tmp_path

    return edit


def test_a_package_that_an_environment_lacks_fails_its_rule(edited, run_in_conda):
    """What the tests above would tell, had an environment file forgotten a package."""
    folder = edited(r".*h5py.*\n", "")
    text = run_in_conda(folder, DEMO, "resources/demo/cases.tsv", root=folder, succeeds=False)
    assert "No module named 'h5py'" in text and "Error in rule make_demo_cohort" in text


def test_a_pin_that_is_not_met_makes_no_environment(edited, run_in_conda):
    folder = edited("nibabel =.*", "nibabel =1.0")
    text = run_in_conda(folder, DEMO, "resources/demo/cases.tsv", root=folder, succeeds=False)
    assert re.search(r"nibabel \S+ is installed here, the environment asks for 1.0", text)


def test_containerize_prints_every_environment(tmp_path, run_in_conda):
    text = run_in_conda(tmp_path, DEMO, "--containerize")
    assert re.search(r"^FROM condaforge/miniforge3", text, flags=re.M)
    # the demo is no cohort of meshes
    wanted = [path for path in ENVIRONMENTS if path.stem != "meshes"]
    assert text.count("conda env create --prefix") == len(wanted)
    for path in wanted:
        assert f"/envs/{path.name}" in text
