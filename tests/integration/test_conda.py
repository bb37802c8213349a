"""Every rule for real, in the environment that its file describes and nothing more.

Conda itself is replaced: tests/support/stand_in_conda.py makes the environments of links to
installed packages, so these tests need neither conda nor a network.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import h5py
import numpy as np
import pytest
import stand_in_conda
from env_files import ENVIRONMENTS, ROOT, SCRIPTS, read_rules, third_party
from tiny_config import TINY, changed

from cardiform import volumes
from cardiform.cohort.table import demo_cases

RULES, _ = read_rules()
NAMES = [case.case_id for case in demo_cases(3, "x")]
DEMO = changed(TINY, "demo", cases=len(NAMES), spacing_mm=5.0)
KEPT = (3, 9)  # left ventricle and coronary: figures and pictures cost by class
# What the Python that runs the tests has, and an environment must not have.
FOREIGN = ("snakemake", "pytest", "yaml", "spconv", "igl")
FOREIGN_TO = {
    "geometry": ("torch", "monai", "tensorboardX", "fpsample", *FOREIGN),
    "torch": ("monai", "einops", "h5py", "pandas", *FOREIGN),
    "ldm": ("fpsample", "pandas", *FOREIGN),
}
LOOK = """
import importlib, importlib.util, json, sys
wanted, foreign = json.loads(sys.argv[1])
for name in wanted:
    importlib.import_module(name)
print(json.dumps([sys.prefix, [n for n in foreign if importlib.util.find_spec(n)]]))
"""


@pytest.fixture(scope="module")
def conda(tmp_path_factory):
    """Folder of the stand-in's programs, and where the environments go."""
    base = tmp_path_factory.mktemp("conda")
    return stand_in_conda.install(base), base / "environments"


@pytest.fixture(scope="module")
def run_in_conda(conda, run_workflow):
    """Run the workflow with an environment per rule; other arguments go to run_workflow."""
    programs, prefix = conda

    def run(folder, config, *arguments, **others) -> str:
        options = ("--sdm", "conda", "--conda-prefix", str(prefix))
        return run_workflow(folder, config, *arguments, *options, path=programs, **others)

    return run


@pytest.fixture(scope="module")
def environments(conda, run_in_conda, tmp_path_factory):
    """Name of an environment file -> folder of the environment that Snakemake made of it."""
    run_in_conda(tmp_path_factory.mktemp("planned"), DEMO, "--conda-create-envs-only")
    made = {path.read_text(): path.with_suffix("") for path in conda[1].glob("*.yaml")}
    return {path.stem: made[path.read_text()] for path in ENVIRONMENTS}


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


def few_classes(folder) -> str:
    """The case table of the demo's hearts, most of their classes removed."""
    demo = folder / "resources" / "demo"
    for path in (demo / "labels").glob("*.nii.gz"):
        labels = volumes.load_label_map(path)
        data = np.where(np.isin(labels.data, KEPT), labels.data, 0)
        volumes.save_label_map(path, data.astype(labels.data.dtype), labels.affine)
    return str(demo / "cases.tsv")


def file_of_clouds(folder) -> str:
    """Forty small point clouds."""
    points = np.random.default_rng(0).normal(size=(40, 50, 3)) * 30
    with h5py.File(folder / "clouds.h5", "w") as archive:
        archive.create_dataset("points", data=points.astype(np.float32))
    return str(folder / "clouds.h5")


def brief(config, **cohort_options):
    """One step of every training, coarse voxels, one chunk."""
    for name in [name for name, section in config.items() if "steps" in section]:
        config = changed(config, name, steps=1, batch_size=1, validate_every=1, warmup_steps=0)
    return changed(changed(config, "voxels", resolution=32), "cohort", chunks=1, **cohort_options)


@pytest.mark.slow
def test_every_rule_runs_in_its_environment(tmp_path, run_in_conda, seed_that_fills_every_part):
    text = run_in_conda(tmp_path, DEMO, "resources/demo/cases.tsv")
    config = brief(DEMO, use_refined=True, table=few_classes(tmp_path))
    seed = seed_that_fills_every_part(NAMES, **TINY["split"])
    config = changed(config, "split", seed=seed)
    config = changed(config, "pointclouds", file=file_of_clouds(tmp_path))
    config = changed(config, "ldm", drop_classes=[])
    text += run_in_conda(
        tmp_path,
        config,
        "all",
        "results/tiny/windows/bone/64/manifest/chunk_000.tsv",
        "results/tiny/ldm/pointclouds/split/train.csv",
    )
    finished = re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)", text, flags=re.M)
    assert set(finished) == {rule.name for rule in RULES} | {"all"}
    in_environments = len(finished) - finished.count("all")
    assert text.count("Activating conda environment: ") == in_environments


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
    assert text.count("conda env create --prefix") == len(ENVIRONMENTS)
    for path in ENVIRONMENTS:
        assert f"/envs/{path.name}" in text
