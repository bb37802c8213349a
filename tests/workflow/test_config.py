"""The config files, the schema and the environments follow from the code."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cardiform import cli
from cardiform.options import SECTIONS

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow" / "scripts"


def load_tool():
    path = ROOT / "tools" / "write_config_files.py"
    spec = importlib.util.spec_from_file_location("write_config_files", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_files_are_current():
    for path, text in load_tool().generated_files().items():
        current = (ROOT / path).read_text(encoding="utf-8")
        assert current == text, f"{path}: run python tools/write_config_files.py"


def test_config_yaml_gives_the_defaults():
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    assert list(config) == list(SECTIONS)
    for name, options in SECTIONS.items():
        assert cli.from_section(options, config[name], name) == options()


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configs_are_valid(path):
    for name, section in yaml.safe_load(path.read_text()).items():
        cli.from_section(SECTIONS[name], section, name)


# --- environments -----------------------------------------------------------------------

# import name -> conda package, where they differ
CONDA_NAMES = {
    "skimage": "scikit-image",
    "cc3d": "connected-components-3d",
    "tensorboardX": "tensorboardx",
    "yaml": "pyyaml",
    "torch": "pytorch-gpu",
    "matplotlib": "matplotlib-base",
}
PYPI_NAMES = {"pytorch-gpu": "torch", "matplotlib-base": "matplotlib"}


def rules():
    """(rule name, conda file, script) of every rule that runs a script."""
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        for block in re.split(r"^(?:    )?rule ", path.read_text(), flags=re.M)[1:]:
            script = re.search(r'script=script\("(.+?)"\)', block)
            conda = re.search(r'conda:\s+"(.+?)"', block)
            if "shell:" in block:
                yield block.split(":")[0], conda and path.parent / conda[1], script and script[1]


def environment(path: Path) -> dict[str, str]:
    content = yaml.safe_load(path.read_text())
    assert content["channels"] == ["conda-forge", "nodefaults"]
    pins = {}
    for line in content["dependencies"]:
        name, pin = re.fullmatch(r"(\S+) =(\d+\.\d+)", line).groups()
        pins[name] = pin
    return pins


def third_party(path: Path, seen: set[Path]) -> set[str]:
    """Libraries that a script needs, through the modules of cardiform that it imports."""
    if path in seen:
        return set()
    seen.add(path)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names, level = [], 0
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            level = node.level
            names = [f"{node.module or ''}.{a.name}".strip(".") for a in node.names]
        for name in names:
            base = path.parents[level - 1] if level else SCRIPTS
            first = name.split(".")[0]
            if level or first == "cardiform":
                for count in range(1, len(name.split(".")) + 1):
                    module = base.joinpath(*name.split(".")[:count])
                    for file in (module.with_suffix(".py"), module / "__init__.py"):
                        if file.is_file():
                            found |= third_party(file, seen)
            elif first not in sys.stdlib_module_names:
                found.add(first)
    return found


# Imported where a setting asks for it alone, with a message that says how to install it.
OPTIONAL = {"spconv"}


def test_every_rule_names_an_environment_that_holds_its_imports():
    checked = 0
    for rule, conda, script in rules():
        assert conda is not None, f"rule {rule} has no conda:"
        pins = environment(conda)
        for name in third_party(SCRIPTS / script, set()) - OPTIONAL:
            assert CONDA_NAMES.get(name, name) in pins, f"{conda.name} lacks {name} ({script})"
        checked += 1
    assert checked >= 5


def test_environment_pins_agree_with_the_lock():
    """Each pin stands in the lock too: what is tested is what conda installs."""
    lock = (ROOT / "requirements" / "lock.txt").read_text()
    lock += (ROOT / "requirements" / "torch.txt").read_text()
    for path in sorted((ROOT / "workflow" / "envs").glob("*.yaml")):
        for name, pin in environment(path).items():
            if name != "python":
                locked = re.findall(
                    rf"^{PYPI_NAMES.get(name, name)}==(\S+)", lock, flags=re.M | re.I
                )
                assert any(v.startswith(pin + ".") or v == pin for v in locked), (
                    path,
                    name,
                    locked,
                )


def test_unknown_key_is_named(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("vecset:\n  learning_rate: 1\n")
    result = subprocess.run(
        [Path(sys.executable).parent / "snakemake", "-n", "-s", ROOT / "workflow" / "Snakefile"]
        + ["--configfile", config],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert "learning_rate" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
