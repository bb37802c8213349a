"""The files beside the code: hooks, templates, changelog."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_all_hooks_are_local():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_the_command_of_a_hook_exists(hook):
    assert hook["language"] == "system"
    words = shlex.split(hook["entry"])
    assert words[:2] == ["python3", "run.py"]
    program, *rest = words[2:]
    assert (BIN / program).is_file(), f"{program} is not in the lock"
    for word in rest:
        assert not word.endswith(".py") or (ROOT / word).is_file()
    flags = [word for word in rest if word.startswith("--")]
    if flags:
        command = [str(BIN / program), rest[0], "--help"]
        text = subprocess.run(command, capture_output=True, text=True).stdout
        assert all(flag in text for flag in flags)
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    assert not files or any(re.search(hook.get("files", ""), name) for name in files.splitlines())


def test_large_files_are_refused(tmp_path):
    (tmp_path / "large").write_bytes(b"0" * 1001)
    (tmp_path / "small").write_bytes(b"0" * 1000)
    for name, code in (("large", 1), ("small", 0)):
        command = [sys.executable, ROOT / "tools" / "check_sizes.py", "1", tmp_path / name]
        assert subprocess.run(command, capture_output=True).returncode == code


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_are_of_the_form_that_github_takes(path):
    content = yaml.safe_load(path.read_text())
    if path.stem == "config":
        assert set(content) <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= set(content)
    ids = [part["id"] for part in content["body"]]
    assert len(set(ids)) == len(ids)
    for part in content["body"]:
        assert part["type"] in ("textarea", "input", "dropdown", "checkboxes")
        assert part["attributes"]["label"]


def test_the_changelog_is_dated_and_by_kind():
    text = (ROOT / "CHANGELOG.md").read_text()
    releases = re.findall(r"^## (.*)$", text, re.M)
    assert releases[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", name) for name in releases[1:])
    kinds = set(re.findall(r"^### (.*)$", text, re.M))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert any(name.startswith(f"[{version}] ") for name in releases[1:])


def test_every_folder_of_tests_is_run():
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    holding = {path.relative_to(ROOT).parts[1] for path in (ROOT / "tests").rglob("test_*.py")}
    assert {f"tests/{name}" for name in holding} == set(named["testpaths"])


def test_every_mutant_is_another_program(monkeypatch):
    """A change that is no Python, or none at all, would falsify the score."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    import mutate

    path = ROOT / mutate.LIBRARY / "metrics" / "overlap.py"
    source = path.read_bytes()
    programs = [ast.dump(ast.parse(m.applied(source))) for m in mutate.mutants_of(path)]
    assert len(programs) > 10
    assert ast.dump(ast.parse(source)) not in programs
