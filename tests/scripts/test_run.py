"""The bootstrapper: nothing is installed here, its decisions are looked at."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[2] / "run.py"


@pytest.fixture
def run(tmp_path):
    """run.py as a module whose .venv lies in a folder of the test."""
    spec = importlib.util.spec_from_file_location("run", RUN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ROOT = tmp_path
    module.VENV = tmp_path / ".venv"
    module.BIN = module.VENV / "bin"
    module.PYTHON = module.BIN / "python"
    module.STAMP = module.VENV / "stamp.txt"
    return module


def test_needs_nothing_but_the_standard_library():
    result = subprocess.run(
        [sys.executable, "-S", "-I", str(RUN), "--help"], capture_output=True, text=True
    )
    assert result.returncode == 0 and "python3 run.py demo" in result.stdout


def test_old_python_is_told(run, monkeypatch, capsys):
    monkeypatch.setattr(run.sys, "version_info", (3, 9, 1))
    with pytest.raises(SystemExit):
        run.main()
    assert "Python 3.9 is too old" in capsys.readouterr().err


def test_windows_itself_is_told_of_wsl(run, monkeypatch, capsys):
    monkeypatch.setattr(run.os, "name", "nt")
    with pytest.raises(SystemExit):
        run.main()
    monkeypatch.undo()
    assert "On Windows install WSL" in capsys.readouterr().err


def test_a_failed_installation_is_told_and_not_stamped(run, monkeypatch, capsys):
    calls = []

    def fail(command, **kwargs):
        calls.append(command)
        return subprocess.CompletedProcess(command, 1 if "install" in command else 0, "", "")

    monkeypatch.setattr(run.subprocess, "run", fail)
    monkeypatch.setattr(run.venv.EnvBuilder, "create", lambda self, path: path.mkdir())
    with pytest.raises(SystemExit):
        run.set_up(None)
    assert "run the same command again" in capsys.readouterr().err
    assert not run.STAMP.exists() and any("--require-hashes" in c for c in calls)


def test_a_users_own_environment_is_not_deleted(run, monkeypatch, capsys):
    """One of another Python, say, that lies where run.py would make its own."""
    run.VENV.mkdir()
    (run.VENV / "pyvenv.cfg").write_text("mine")
    monkeypatch.setattr(run, "usable_interpreter", lambda: False)
    for _ in range(2):
        with pytest.raises(SystemExit):
            run.set_up(None)
        assert "move it away" in capsys.readouterr().err
    assert (run.VENV / "pyvenv.cfg").read_text() == "mine"


def test_second_setup_does_nothing_until_the_requirements_change(run, monkeypatch):
    installed = []
    monkeypatch.setattr(run, "usable_interpreter", lambda: True)
    monkeypatch.setattr(run, "pip_command", lambda: ["pip"])
    monkeypatch.setattr(run, "install", lambda pip, arguments: installed.append(arguments))
    monkeypatch.setattr(run, "compile_all", lambda: None)
    run.VENV.mkdir()
    run.set_up(None)
    run.set_up(None)
    assert len(installed) == 2
    lock = run.ROOT / "lock.txt"
    lock.write_text("another==1")
    run.REQUIREMENTS = (lock, run.REQUIREMENTS[1])
    run.set_up(None)
    assert len(installed) == 4
    run.set_up("https://example.org/cpu")
    assert installed[-1][:2] == ["--index-url", "https://example.org/cpu"]
    run.set_up(None)  # keeps the chosen PyTorch
    assert len(installed) == 6


def test_what_is_installed_is_compiled_but_for_what_is_no_python(run, monkeypatch):
    folder = run.VENV / "lib" / "site-packages" / "package"
    folder.mkdir(parents=True)
    (folder / "good.py").write_text("x = 1\n")
    (folder / "template.py").write_text("{{ name }} is\n")
    monkeypatch.setattr(run, "PYTHON", Path(sys.executable))
    run.compile_all()
    assert [path.name.split(".")[0] for path in folder.rglob("*.pyc")] == ["good"]


def test_environment_comes_first_on_path(run, monkeypatch):
    seen = {}

    def hand_over(arguments, environment):
        seen.update(arguments=arguments, environment=environment)

    monkeypatch.setattr(run, "set_up", lambda index: None)
    monkeypatch.setattr(run, "hand_over", hand_over)
    monkeypatch.setattr(run.sys, "argv", ["run.py", "snakemake", "-n", "--cores", "2"])
    run.main()
    assert seen["arguments"] == ["snakemake", "-n", "--cores", "2"]
    assert seen["environment"]["PATH"].startswith(str(run.BIN))
    monkeypatch.setattr(run.sys, "argv", ["run.py", "demo", "-n"])
    run.main()
    assert seen["arguments"][:2] == ["snakemake", "-n"]
    assert "config/demo.yaml" in seen["arguments"]


def test_config_files_that_cannot_be_read_are_told_before_snakemake_starts(run, tmp_path, capsys):
    (tmp_path / "latin.yaml").write_bytes("cohort: {}\n# für\n".encode("latin-1"))
    (tmp_path / "good.yaml").write_text("# für\n", encoding="utf-8")
    latin, good, none = (str(tmp_path / f"{name}.yaml") for name in ("latin", "good", "none"))
    run.check_configs(["-n", "--configfile", good, good, "--config", none, "-s", latin, none])
    run.check_configs([f"--configfile={good}", "meshes", "-n"])
    for words in (["--configfile", good, latin, none], [f"--configfile={latin}", f"--x={none}"]):
        with pytest.raises(SystemExit):
            run.check_configs(words)
        text = capsys.readouterr().err
        assert f"error: {latin}:2: is no UTF-8 text (byte 0xfc); save it as UTF-8" in text
        missing = f"error: {none}: cannot be read (No such file or directory); correct"
        assert (missing in text) == (none in words)
        assert "target" not in text


def test_a_target_behind_configfile_is_told_where_it_belongs(run, tmp_path, capsys):
    (tmp_path / "good.yaml").write_text("{}\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        run.check_configs(["-n", "--configfile", str(tmp_path / "good.yaml"), "meshes"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: meshes: cannot be read")
    assert line.endswith("if it is a target, put it before --configfile")


def test_a_config_that_snakemake_would_pass_over_is_told(run, tmp_path, monkeypatch, capsys):
    """Of two --configfile it reads the last alone, and the demo brings one."""
    (tmp_path / "good.yaml").write_text("{}\n", encoding="utf-8")
    good = str(tmp_path / "good.yaml")
    for words in (["--configfile", good, f"--configfile={good}"], ["--configfiles", good] * 2):
        with pytest.raises(SystemExit):
            run.check_configs(words)
        assert "--configfile: is there more than once" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    for words in (["vecset", "--configfile", good], [f"--configfile={good}"]):
        with pytest.raises(SystemExit):
            run.demo_command({}, words)
        assert "demo has a config of its own" in capsys.readouterr().err


def test_unknown_program_is_told(run, capsys):
    with pytest.raises(SystemExit):
        run.hand_over(["no-such-program"], {"PATH": ""})
    assert "no such program" in capsys.readouterr().err


def test_a_warning_of_the_site_is_an_error(run, monkeypatch):
    monkeypatch.chdir(run.ROOT)
    environment = {}
    assert run.docs_command(environment, ["-q"]) == ["mkdocs", "build", "--strict", "-q"]
    assert "NO_MKDOCS_2_WARNING" in environment


def test_the_floor_of_coverage_is_for_the_whole_suite_alone(run, monkeypatch):
    monkeypatch.chdir(run.ROOT)  # which the command leaves
    assert "--cov" not in run.pytest_command({}, [])
    command = run.coverage_command({}, [])
    assert "--cov" in command and "--cov-fail-under" not in command
    for part in (["tests/unit"], ["-k", "sdf"], ["-x"]):
        assert run.pytest_command({}, part)[-len(part) :] == part
        command = run.coverage_command({}, part)
        assert "--cov" in command and command[command.index("--cov-fail-under") + 1] == "0"


def test_coverage_below_the_floor_fails(tmp_path):
    """The settings of pyproject.toml, on a test that uses nothing."""
    (tmp_path / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "1",
        "--cov",
        "-c",
        RUN.parent / "pyproject.toml",
    ]
    result = subprocess.run(
        [*command, tmp_path],
        cwd=RUN.parent,
        env={**os.environ, "COVERAGE_FILE": str(tmp_path / "data")},
        capture_output=True,
        text=True,
    )
    assert "1 passed" in result.stdout or "100%]" in result.stdout
    assert result.returncode != 0 and "Required test coverage" in result.stdout + result.stderr
