"""The ``python`` that forks: a script in it ends, fails and dies as in a Python of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import forked_python
import pytest

pytestmark = pytest.mark.no_cover
ENDS = {
    "nothing": "pass",
    "text": "raise SystemExit('what is wrong')",
    "number": "raise SystemExit(7)",
    "large": "raise SystemExit(263)",
    "none": "raise SystemExit(None)",
    "object": "raise SystemExit([])",
    "error": "def f():\n    raise ValueError('wrong')\nf()",
    "syntax": "1 +",
    "missing": "import no_such_module",
    "hook": "import sys\nsys.excepthook = lambda *_: print('mine')\n1 / 0",
    "at_end": "import atexit\natexit.register(print, 'at end')\nprint('first')",
    "interrupted": "raise KeyboardInterrupt",
    "killed": "import os\nprint('x', flush=True)\nos.kill(os.getpid(), 9)",
    "arguments": "import os, sys\nprint(sys.argv, os.getcwd(), sys.path[0], os.environ['OWN'])",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    made = tmp_path_factory.mktemp("forked") / "python"
    forked_python.install(made, sys.executable, ("wave", "numpy", "no_such_module"))
    return made


@pytest.mark.parametrize("name", ENDS)
def test_a_script_ends_as_in_a_python_of_its_own(program, tmp_path, name):
    script = tmp_path / "script.py"
    script.write_text(ENDS[name])
    environment = {**os.environ, "OWN": "a variable"}
    forked, alone = (
        subprocess.run(
            [python, script, "one", "two"], capture_output=True, env=environment, cwd=tmp_path
        )
        for python in (program, sys.executable)
    )

    assert (forked.returncode, forked.stdout, forked.stderr) == (
        alone.returncode,
        alone.stdout,
        alone.stderr,
    )


def test_snakemake_is_a_fork_too(program, tmp_path):
    (tmp_path / "Snakefile").write_text(
        "import sys\nprint('wave' in sys.modules, sys.executable)\nrule all:\n    input: []\n"
    )
    words = [program, "-m", "snakemake", "-n", "--quiet"]
    said = subprocess.run(words, capture_output=True, cwd=tmp_path, text=True)
    assert said.returncode == 0 and said.stdout.split()[:2] == ["True", str(program)], said.stderr


def test_what_python_reads_at_its_start_takes_a_python_of_its_own(program, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint('wave' in sys.modules, hash('text'))")

    def printed(**more):
        environment = {**os.environ, **more}
        return subprocess.check_output([program, script], env=environment, text=True).split()

    assert printed()[0] == "True"
    assert printed(PYTHONHASHSEED="1") == printed(PYTHONHASHSEED="1") != printed(PYTHONHASHSEED="2")
    assert printed(PYTHONHASHSEED="1")[0] == "False"


def test_forks_draw_numbers_of_their_own(program, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nassert 'wave' in sys.modules\nimport random, numpy\n"
        "print(random.random())\nprint(numpy.random.random())"
    )
    drawn = [subprocess.check_output([program, script]).split() for _ in range(2)]

    assert len({*drawn[0], *drawn[1]}) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_script_ends_with_its_caller(program, tmp_path, number):
    script, note = tmp_path / "script.py", tmp_path / "pid"
    script.write_text(
        f"import os, time\nopen('part', 'w').write(str(os.getpid()))\n"
        f"os.rename('part', {note.name!r})\ntime.sleep(60)"
    )
    caller = subprocess.Popen(
        [program, script],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        # a shell that starts the tests in the background has Ctrl-C ignored, and this is inherited
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    waited_for(note.is_file)
    running = int(note.read_text())
    assert running != caller.pid
    caller.send_signal(number)

    assert caller.wait(timeout=30) == -number
    waited_for(lambda: not alive(running))


def test_a_signal_before_the_script_runs_is_not_lost(program, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import time\ntime.sleep(60)")
    for delay in (0.0, 0.02, 0.04, 0.06, 0.08):
        caller = subprocess.Popen([program, script], stderr=subprocess.DEVNULL)
        time.sleep(delay)
        caller.terminate()
        assert caller.wait(timeout=30) == -signal.SIGTERM


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def waited_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
