"""The config files and the schema follow from the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from config_tool import load_tool

from cardiform import cli
from cardiform.options.sections import SECTIONS

ROOT = Path(__file__).resolve().parents[2]


def test_generated_files_are_current():
    for path, text in load_tool().generated_files().items():
        current = (ROOT / path).read_text(encoding="utf-8")
        assert current == text, f"{path}: run python tools/write_config_files.py"


def test_an_empty_choice_is_not_listed():
    for path, text in load_tool().generated_files().items():
        assert "one of ," not in text, path


def test_config_yaml_gives_the_defaults():
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    assert list(config) == list(SECTIONS)
    for name, options in SECTIONS.items():
        assert cli.from_section(options, config[name], name) == options()


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configs_are_valid(path):
    for name, section in yaml.safe_load(path.read_text()).items():
        cli.from_section(SECTIONS[name], section, name)


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
