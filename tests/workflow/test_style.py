"""Formatting, lint and the import rules of docs/architecture.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "workflow" / "scripts"
LIBRARY = SCRIPTS / "cardiform"
BIN = Path(sys.executable).parent

# Module (or package) of cardiform -> the parts of cardiform it may import.
BASE = {
    "errors", "files", "labels", "options", "cohort", "splits", "case_runs", "ct_windows",
    "ldm_checks",
}  # fmt: skip
MAY_IMPORT = {
    "errors": set(),
    "options": set(),
    "labels": {"errors"},
    "cli": {"errors", "files", "options"},
    "files": {"errors"},
    "launching": {"errors"},
    "cohort": {"errors", "files"},
    "ct_windows": {"errors"},
    "ldm_checks": {"errors", "options"},
    "splits": {"errors", "files", "options", "cohort"},
    "case_runs": {"errors", "files", "cohort"},
    "nifti": {"errors", "files"},
    "cohort_check": BASE | {"nifti"},
    "phantom": BASE | {"nifti", "geometry", "phantom", "anatomy"},
    "anatomy": BASE | {"nifti", "geometry", "anatomy", "render"},
    "fusion_summary": set(),
    "render": BASE,
    "curves": BASE,
    "sections": BASE,
    "geometry": BASE | {"nifti", "geometry"},
    "metrics": BASE | {"metrics", "geometry", "anatomy"},
    "sparse": {"errors", "sparse"},
    "models": {"errors", "options", "models", "sparse"},
    "data": BASE | {"nifti", "geometry", "data", "anatomy"},
    "training": {"errors", "files", "options", "training"},
    "tasks": BASE | {"sparse", "models", "data", "metrics", "tasks", "geometry", "sections"},
    "held_out": BASE | {"geometry", "metrics", "render"},
    "reconstruct": BASE
    | {"models", "data", "metrics", "geometry", "nifti", "training", "held_out"},
    "shape_coder": BASE | {"models", "geometry", "training"},
    "latents": BASE | {"models", "data", "metrics", "geometry", "nifti", "tasks", "shape_coder"},
    "ldm_training": BASE
    | {"models", "data", "geometry", "tasks", "training", "curves", "shape_coder"},
    "shape_generator": BASE | {"models", "geometry", "training", "shape_coder"},
    "shape_samples": BASE
    | {"models", "data", "geometry", "nifti", "tasks", "render", "latents", "shape_generator"},
    "shape_figures": BASE | {"data", "geometry", "metrics"},
    "completion": BASE
    | {"models", "data", "geometry", "metrics", "nifti", "render", "shape_generator"},
    "coronary_training": BASE | {"data", "training", "tasks", "curves"},
    "refinement": BASE | {"sparse", "models", "data", "geometry", "training", "tasks", "anatomy"},
    "refined_cases": BASE | {"refinement", "anatomy", "geometry", "metrics", "nifti", "render"},
    "vqvae_stages": BASE | {"models", "data", "training", "tasks", "curves"},
    "vqvae_reconstruct": BASE
    | {"sparse", "models", "data", "metrics", "geometry", "nifti", "tasks", "held_out"},
}
STANDARD_LIBRARY_ONLY = {
    "errors", "options", "labels", "cli", "files", "cohort", "splits", "case_runs", "ct_windows",
    "fusion_summary", "launching", "ldm_checks",
}  # fmt: skip
TORCH_ALLOWED = {
    "models", "data", "tasks", "training", "sparse", "reconstruct",
    "vqvae_stages", "vqvae_reconstruct", "coronary_training", "refinement", "refined_cases",
    "shape_coder", "latents", "ldm_training", "shape_generator", "shape_samples", "shape_figures",
    "completion",
}  # fmt: skip


def modules():
    return sorted(LIBRARY.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imports(path: Path, top_level_only: bool = False):
    """Absolute dotted names that a file imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    package = (
        ("cardiform", *path.relative_to(LIBRARY).parts[:-1]) if LIBRARY in path.parents else ()
    )
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, node.module] if node.module else base)
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def allowed_parts(path: Path) -> set[str]:
    part = part_of(path)
    assert part in MAY_IMPORT, f"{path.name}: give {part} a place in the import rules"
    return MAY_IMPORT[part]


@pytest.mark.parametrize(
    "path", [m for m in modules() if m.name != "__init__.py"], ids=lambda p: p.stem
)
def test_library_imports(path):
    allowed = allowed_parts(path)
    for name in imports(path):
        words = name.split(".")
        if (
            words[0] == "cardiform"
            and len(words) > 1
            and words[1] not in ("__version__", "STARTED")
        ):
            assert words[1] in allowed, f"{path}: {part_of(path)} must not import {name}"
        if words[0] == "torch":
            assert part_of(path) in TORCH_ALLOWED, f"{path}: no torch here"
        assert words[0] != "snakemake", f"{path}: nothing imports snakemake"
    if part_of(path) in STANDARD_LIBRARY_ONLY:
        for name in imports(path, top_level_only=True):
            first = name.split(".")[0]
            assert first in sys.stdlib_module_names | {"cardiform", "__future__"}, (path, name)


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.py")), ids=lambda p: p.stem)
def test_script_imports(path):
    scripts = {p.stem for p in SCRIPTS.glob("*.py")}
    for name in imports(path):
        assert name.split(".")[0] not in scripts, f"{path}: scripts never import each other"
    light = sys.stdlib_module_names | {"cardiform", "__future__"}
    for name in imports(path, top_level_only=True):
        assert name.split(".")[0] in light, f"{path}: import {name} inside main(), for --help"
        heavy = name.startswith("cardiform.") and name.split(".")[1] not in (
            STANDARD_LIBRARY_ONLY | {"options"}
        )
        assert not heavy, f"{path}: import {name} inside main(), for --help"


def test_no_file_hides_a_library():
    libraries = sys.stdlib_module_names | {"torch", "numpy", "scipy", "trimesh", "edt", "skimage"}
    for path in SCRIPTS.glob("*"):
        assert path.name.removesuffix(".py") not in libraries, path


def test_scripts_answer_help_and_stay_short():
    for path in sorted(SCRIPTS.glob("*.py")):
        result = subprocess.run(
            [sys.executable, str(path), "--help"], capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        assert "python " in result.stdout, f"{path.name}: the help shows how to run it"
        assert len(path.read_text().splitlines()) <= 140, f"{path.name}: logic belongs in cardiform"


@pytest.mark.parametrize(
    "command",
    [
        [BIN / "ruff", "check", "."],
        [BIN / "ruff", "format", "--check", "."],
        [BIN / "snakefmt", "--check", "workflow"],
        [BIN / "snakemake", "--lint"],
    ],
    ids=["ruff", "ruff-format", "snakefmt", "snakemake-lint"],
)
def test_linters(command):
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
