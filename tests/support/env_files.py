"""What the rules, their scripts and the environment files say of each other, read as text."""

from __future__ import annotations

import ast
import functools
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "workflow"
SCRIPTS = WORKFLOW / "scripts"
ENVIRONMENTS = sorted((WORKFLOW / "envs").glob("*.yaml"))

# import name -> conda package, and conda package -> PyPI distribution, where they differ
CONDA_NAMES = {
    "skimage": "scikit-image",
    "cc3d": "connected-components-3d",
    "tensorboardX": "tensorboardx",
    "torch": "pytorch-gpu",
    "matplotlib": "matplotlib-base",
    "fast_simplification": "fast-simplification",
    "nrrd": "pynrrd",
}
PYPI_NAMES = {"pytorch-gpu": "torch", "matplotlib-base": "matplotlib", "igl": "libigl"}


@dataclass(frozen=True)
class Rule:
    """A rule with a shell command; ``conda`` is None where it names no environment."""

    name: str
    conda: Path | None
    scripts: tuple[str, ...]
    text: str


def read_rules(folder: Path = WORKFLOW / "rules") -> tuple[list[Rule], list[str]]:
    """Rules that run something, and the names of all rules (targets run nothing)."""
    found: dict[str, Rule] = {}
    names = []
    for path in sorted(folder.glob("*.smk")):
        for name, parent, text in rule_blocks(path.read_text()):
            names.append(name)
            if parent:
                text += found[parent].text  # "use rule ... with": what it leaves out is inherited
            conda = re.search(r'^\s+conda:\s+"(.+?)"', text, flags=re.M)
            if re.search(r"^\s+(shell|script|run|notebook|wrapper):", text, flags=re.M):
                scripts = tuple(dict.fromkeys(re.findall(r'script\("(.+?)"\)', text)))
                env = (path.parent / conda[1]).resolve() if conda else None
                found[name] = Rule(name, env, scripts, text)
    return list(found.values()), names


def rule_blocks(text: str):
    """(name, rule that it follows or None, text) of a file's rules and checkpoints, nested too."""
    start = r"^[ ]*(?:use rule (\w+) as (\w+) with|(?:rule|checkpoint) (\w+)):"
    heads = list(re.finditer(start, text, flags=re.M))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends):
        yield head[2] or head[3], head[1], text[head.end() : end]


def pins(path: Path) -> dict[str, str]:
    """Package -> version of an environment file, which must have two-part pins alone."""
    content = yaml.safe_load(path.read_text())
    found = {}
    for line in content["dependencies"]:
        match = re.fullmatch(r"(\S+) =(\d+\.\d+)", str(line))
        assert match, f"{path.name}: {line!r} is not 'package =major.minor'"
        assert match[1] not in found, f"{path.name}: {match[1]} stands there twice"
        found[match[1]] = match[2]
    return found


@functools.cache
def third_party(script: Path) -> frozenset[str]:
    """Libraries that a script imports anywhere, through the modules of cardiform it reaches."""
    return frozenset(name for file in reached(script) for name in imports(file)[0])


@functools.cache
def reached(script: Path) -> frozenset[Path]:
    """The script and every file of cardiform that it imports, directly or not."""
    seen, todo = set(), [script]
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += imports(file)[1]
    return frozenset(seen)


@functools.cache
def imports(path: Path) -> tuple[set[str], list[Path]]:
    """Libraries, and files of cardiform, that stand in the import statements of a file."""
    libraries, files = set(), []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names, level = [], 0
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            level = node.level
            names = [f"{node.module or ''}.{alias.name}".strip(".") for alias in node.names]
        for name in names:
            first = name.split(".")[0]
            if level or first == "cardiform":
                files += module_files(path.parents[level - 1] if level else SCRIPTS, name)
            elif first not in sys.stdlib_module_names:
                libraries.add(first)
    return libraries, files


def module_files(base: Path, name: str) -> list[Path]:
    """Files that are run by an import of a dotted name; its last words may be no module."""
    words = name.split(".")
    stems = [base.joinpath(*words[:count]) for count in range(1, len(words) + 1)]
    candidates = [f for s in stems for f in (s.with_suffix(".py"), s / "__init__.py")]
    return [file for file in candidates if file.is_file()]


def conda_names(script: Path) -> set[str]:
    """The conda packages of a script's libraries."""
    return {CONDA_NAMES.get(name, name) for name in third_party(script)}
