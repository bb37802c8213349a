#!/usr/bin/env python3
"""Cardiform without an installation: set up .venv once, then run a command inside it.

    python3 run.py demo              the whole workflow on the built-in demo cohort
    python3 run.py test              all tests
    python3 run.py coverage          the same, and which lines of the library they run
    python3 run.py docs              the documentation as a site: site/index.html
    python3 run.py snakemake ...     Snakemake (or any other command) inside the environment
    python3 run.py setup             the set-up alone

The set-up installs requirements/lock.txt (hash-checked) and requirements/torch.txt with pip,
so pip's own settings (index, proxy, cache) apply. If the default index has no build of PyTorch
that suits the machine, give another one:

    python3 run.py setup --torch-index URL
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
PYTHON = BIN / "python"
STAMP = VENV / "cardiform-setup.txt"
REQUIREMENTS = (ROOT / "requirements" / "lock.txt", ROOT / "requirements" / "torch.txt")
OLDEST = (3, 11)
CONFIG_OPTIONS = ("--configfile", "--configfiles")


def main():
    if os.name == "nt":
        fail(
            "Cardiform runs on Linux and macOS. On Windows install WSL (wsl --install) and call "
            "this in its Linux shell, in a clone inside of it"
        )
    if sys.version_info < OLDEST:
        fail(
            f"Python {sys.version_info[0]}.{sys.version_info[1]} is too old: Cardiform needs "
            f"{OLDEST[0]}.{OLDEST[1]} or newer; call run.py with such an interpreter, "
            f"for example python{OLDEST[0]}.{OLDEST[1]} run.py demo"
        )
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "command", help="demo, test, coverage, docs, setup, snakemake or any other program"
    )
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="passed on to the command")
    args = parser.parse_args()
    set_up(torch_index(args.rest) if args.command == "setup" else None)
    if args.command == "setup":
        return 0
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"}
    environment["VIRTUAL_ENV"] = str(VENV)
    environment.pop("PYTHONHOME", None)
    own = {"demo": demo_command, "test": pytest_command, "docs": docs_command}
    own["coverage"] = coverage_command
    command = own.get(args.command)
    arguments = command(environment, args.rest) if command else [args.command, *args.rest]
    if args.command == "snakemake":
        check_configs(args.rest)
    return hand_over(arguments, environment)


def demo_command(environment, rest):
    """The whole DAG with the demo's settings, on all cores of this machine."""
    os.chdir(ROOT)
    if any(word.partition("=")[0] in CONFIG_OPTIONS for word in rest):
        fail(
            "demo has a config of its own; for another one on top of it call python3 run.py "
            "snakemake --configfile config/demo.yaml YOUR.yaml"
        )
    settings = ["--profile", "profiles/default", "--configfile", "config/demo.yaml"]
    return ["snakemake", *rest, *settings]


def pytest_command(environment, rest):
    """All tests, each process on one thread, and one more of them than cores: some only wait."""
    os.chdir(ROOT)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = "1"
    # glibc keeps the memory of large arrays, in place of asking the kernel for each one again.
    environment.setdefault("MALLOC_MMAP_THRESHOLD_", str(32 << 20))
    environment.setdefault("MALLOC_TRIM_THRESHOLD_", str(256 << 20))
    # "-q" twice would hide the closing line; durations tell where the time went.
    # A file stays on one process, which makes its cohorts once; the integration tests come first.
    workers = ["-n", str(min((os.cpu_count() or 1) + 1, 8)), "--dist", "loadfile"]
    workers += ["--no-loadscope-reorder"]
    return ["python", "-m", "pytest", *workers, "--durations", "15", *rest]


def coverage_command(environment, rest):
    """The tests, watched line by line, which slows them down."""
    # The floor of coverage (pyproject.toml) holds for the whole suite, not for a part of it.
    floor = ["--cov-fail-under", "0"] if rest else []
    watched = ["--cov", "--cov-report", "term-missing:skip-covered", *floor]
    return [*pytest_command(environment, rest), *watched]


def docs_command(environment, rest):
    """The site of docs/ in site/; a broken link or a page that is not in the nav is an error."""
    os.chdir(ROOT)
    environment["NO_MKDOCS_2_WARNING"] = (
        "1"  # of the theme, about a MkDocs that the lock does not take
    )
    say("The site is written to site/; open site/index.html, no server is needed")
    return ["mkdocs", "build", "--strict", *rest]


def check_configs(arguments):
    """Config files that Snakemake would meet with a traceback, or pass over, before it starts."""
    reading, problems, options = False, [], 0
    for word in arguments:
        alone = False  # behind "=" there is one file: what follows is a target
        if word.startswith("-"):
            option, equals, word = word.partition("=")
            reading, alone = option in CONFIG_OPTIONS, bool(equals)
            options += reading
            if not equals:
                continue
        if reading:
            reading = not alone
            try:
                Path(word).read_bytes().decode("utf-8")
            except OSError as error:
                remedy = "correct --configfile"
                if not word.endswith((".yaml", ".yml", ".json")):
                    remedy += "; if it is a target, put it before --configfile"
                problems.append(f"{word}: cannot be read ({error.strerror}); {remedy}")
            except UnicodeDecodeError as error:
                line = error.object[: error.start].count(b"\n") + 1
                fact = f"is no UTF-8 text (byte 0x{error.object[error.start]:02x})"
                problems.append(f"{word}:{line}: {fact}; save it as UTF-8")
    if options > 1:
        problems.append(
            "--configfile: is there more than once, and Snakemake reads the last alone; name all "
            "files behind one --configfile"
        )
    if problems:
        fail("\nerror: ".join(problems))


def hand_over(arguments, environment):
    """Become the command, so that signals and the exit status are its own."""
    program = shutil.which(arguments[0], path=environment["PATH"])
    if program is None:
        fail(f"{arguments[0]}: no such program in .venv or on PATH; see python3 run.py --help")
    sys.stdout.flush()
    os.execve(program, arguments, environment)


def set_up(index):
    """Make .venv match the requirement files; nothing to do if its stamp shows that it does."""
    wanted = stamp_text(index)
    if STAMP.is_file() and (STAMP.read_text() == wanted or (index is None and same_lock(wanted))):
        return
    lock = ROOT / ".venv.lock"
    ours = STAMP.is_file() or lock.exists() or not VENV.exists()  # a set-up may have been ended
    with exclusive(lock):
        if STAMP.is_file() and STAMP.read_text() == wanted:
            return  # another run did it meanwhile
        say("Setting up .venv (once; a few minutes and 1.5 GB or more, mostly PyTorch)")
        usable = usable_interpreter()
        if not usable and not ours:
            lock.unlink()
            fail(".venv: exists already, is not usable and was not made by run.py; move it away")
        STAMP.unlink(missing_ok=True)
        if not usable:
            shutil.rmtree(VENV, ignore_errors=True)
            venv.EnvBuilder(with_pip=False, symlinks=True).create(VENV)
        pip = pip_command()
        say("  1 of 2: packages of requirements/lock.txt")
        install(pip, ["--require-hashes", "--no-deps", "-r", str(REQUIREMENTS[0])])
        say("  2 of 2: PyTorch, requirements/torch.txt")
        source = ["--index-url", index] if index else []
        install(pip, [*source, "-r", str(REQUIREMENTS[1])])
        compile_all()
        STAMP.write_text(wanted)
        say("  done")


def stamp_text(index):
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in REQUIREMENTS)).hexdigest()
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return f"requirements {digest}\npython {python}\ntorch index {index or 'default'}\n"


def same_lock(wanted):
    """True where only the PyTorch source differs: a later plain call keeps the chosen one."""
    return STAMP.read_text().splitlines()[:2] == wanted.splitlines()[:2]


def usable_interpreter():
    """True where .venv holds a working Python of this version."""
    code = "import sys; print(*sys.version_info[:2])"
    try:
        result = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True)
    except OSError:
        return False
    return result.stdout.split() == [str(n) for n in sys.version_info[:2]]


def pip_command():
    """A pip that installs into .venv: this interpreter's, or one put there by ensurepip."""
    outside = [sys.executable, "-m", "pip", "--python", str(PYTHON)]
    if subprocess.run([*outside, "--version"], capture_output=True).returncode == 0:
        return outside
    inside = [str(PYTHON), "-m", "pip"]
    if subprocess.run([*inside, "--version"], capture_output=True).returncode == 0:
        return inside
    made = subprocess.run([str(PYTHON), "-m", "ensurepip"], capture_output=True)
    if made.returncode == 0:
        return inside
    fail(
        "this Python has neither pip 22.3 (or newer) nor ensurepip; install one of them "
        "(Debian and Ubuntu: apt install python3-pip python3-venv) and run the same command again"
    )


def install(pip, arguments):
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-compile"]
    command = [*pip, "install", *quiet, *arguments]
    if subprocess.run(command).returncode:
        fail(
            "the installation failed (see pip's message above); if it is the network or a "
            "proxy, fix that and run the same command again: what was downloaded is kept"
        )


def compile_all():
    """Bytecode on all cores; pip would take one, for a minute."""
    command = [str(PYTHON), "-m", "compileall", "-q", "-j", "0", str(VENV / "lib")]
    # some packages hold files that are no Python of this version: nobody imports them
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def torch_index(rest):
    parser = argparse.ArgumentParser(prog="run.py setup")
    parser.add_argument("--torch-index", help="package index that holds the wanted PyTorch build")
    return parser.parse_args(rest).torch_index


@contextlib.contextmanager
def exclusive(path):
    """Only one set-up at a time; the lock goes with the process."""
    with path.open("w") as stream:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def say(text):
    print(text, file=sys.stderr, flush=True)


def fail(text):
    say(f"error: {text}")
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
