"""A stand-in for conda: environments of links to packages that this Python has already.

``install(base)`` puts a ``conda`` on disk that answers the calls Snakemake makes. Its
``env create`` makes a venv whose site-packages links to exactly the packages that the file
names and to what those declare to need: what an environment file lacks is missing in the rule.
It needs no network and about a second. It cannot make another Python than this one, and it
knows nothing of channels: whether conda-forge can solve a file shows on a connected machine.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import sys
import sysconfig
import venv
from collections import Counter, deque
from importlib import metadata
from pathlib import Path

import forked_python
from env_files import PYPI_NAMES, pins
from packaging.requirements import Requirement
from packaging.version import Version

ACTIVATE = """# sourced by Snakemake before the command of a rule: source activate PREFIX
export PATH="$1/bin:$PATH" CONDA_PREFIX="$1"
"""


def install(base: Path) -> Path:
    """Write ``conda`` and ``activate`` into ``base/bin``, which belongs first on PATH."""
    folder = base / "bin"
    folder.mkdir(parents=True)
    (folder / "activate").write_text(ACTIVATE)
    command = [sys.executable, str(Path(__file__).resolve()), str(base)]
    (folder / "conda").write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    (folder / "conda").chmod(0o755)
    return folder


def answer(base: str, call: list[str]) -> str:
    """Do what conda would do, and return what it would print."""
    if call == ["info", "--json"]:
        return json.dumps({"conda_prefix": base, "platform": "linux-64"})
    if call == ["--version"]:
        return "conda 26.1.0"
    if call == ["config", "--get", "channel_priority", "--json"]:
        return json.dumps({"get": {"channel_priority": "strict"}})
    if call[:2] == ["env", "create"]:
        value = dict(itertools.pairwise(call))
        create(Path(value["--file"]), Path(value["--prefix"]))
    elif call[0] != "clean":
        sys.exit(f"the stand-in for conda knows no call {call}")
    return ""


def create(file: Path, prefix: Path) -> None:
    """A venv at ``prefix`` that holds what an environment file names."""
    wanted = pins(file)
    wanted.pop("python")
    names = {PYPI_NAMES.get(name, name): pin for name, pin in wanted.items()}
    for name, pin in names.items():
        check_version(name, pin)
    venv.EnvBuilder(symlinks=True, with_pip=False).create(prefix)
    python = prefix / "bin" / "python-of-venv"
    (prefix / "bin" / "python").rename(python)
    forked_python.install(prefix / "bin" / "python", python, forked_python.COARSE)
    site = sysconfig.get_path("purelib", "venv", {"base": str(prefix)})
    link_packages(closure(names), Path(site))


def check_version(name: str, pin: str) -> None:
    try:
        version = Version(metadata.version(name)).public
    except metadata.PackageNotFoundError:
        sys.exit(f"{name} is not installed here, so that it cannot be linked to")
    if version != pin and not version.startswith(f"{pin}."):
        sys.exit(f"{name} {version} is installed here, the environment asks for {pin}")


def closure(names) -> list[metadata.Distribution]:
    """The distributions of these names, and those that they declare to need."""
    found: dict[str, metadata.Distribution] = {}
    seen, todo = set(), deque((name, "") for name in names)
    while todo:
        name, extra = todo.popleft()
        key = normal(name)
        if (key, extra) in seen:
            continue
        seen.add((key, extra))
        try:
            found[key] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # a lack that matters shows in the rule
        for line in found[key].requires or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                todo += [(need.name, more) for more in ("", *need.extras)]
    return list(found.values())


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def link_packages(packages: list[metadata.Distribution], site: Path) -> None:
    """Link the folders and files of packages; a folder that several packages fill, file by file."""
    everything = {normal(found.name): found for found in metadata.distributions()}
    owners = Counter(top for d in everything.values() for top in {t for t, _ in files_of(d)})
    for package in packages:
        for top, path in files_of(package):
            name = top if owners[top] == 1 else path
            target = site / name
            if not target.is_symlink():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(package.locate_file(name))


def files_of(package: metadata.Distribution):
    """(first folder, path) of the files that a package has in site-packages."""
    for file in package.files or []:
        if file.parts[0] not in ("..", "__pycache__"):
            yield file.parts[0], str(file)


if __name__ == "__main__":
    sys.stdout.write(answer(sys.argv[1], sys.argv[2:]))
