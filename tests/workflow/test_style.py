"""Formatting, lint, types and the import rules of docs/architecture.md."""

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

# The house: families stand on ground floors and never on each other (docs/architecture.md). A key
# is a room or a file; the longest that a module's name begins with holds. So ``cohort.checks`` may
# do what the other files of ``cohort`` may not.
FAMILIES = {"vecset", "vqvae", "coronary", "fusion", "ldm"}
LIGHT = {"errors", "files", "formats", "labels", "options", "outputs", "tables"}
GROUND = LIGHT | {"cohort", "volumes", "geometry", "anatomy", "pictures", "metrics"}
TORCH_GROUND = {"sparse", "training", "artefact"}
MAY_IMPORT = {
    "errors": set(),
    "options": {"options"},
    "options.field": {"errors"},
    "options.checks": {"errors", "options"},
    "options.config_files": {"errors", "options"},
    "labels": {"errors", "tables"},
    "tables": {"errors", "files"},
    "outputs": {"errors", "outputs"},
    "files": {"errors", "outputs"},
    "formats": {"errors", "files"},
    "launching": {"errors"},
    "cli": {"cohort", "errors", "files", "options", "outputs"},
    "volumes": {"errors", "files", "volumes"},
    "volumes.clouds": {"errors", "options", "volumes"},
    "search": LIGHT | {"metrics", "search"},
    "search.space": {"errors", "options"},
    "search.rungs": {"errors", "files", "formats", "options"},
    "held_out": GROUND,
    "completion": GROUND | {"completion"},
    "completion.arguments": {"errors"},
    "cohort": {"errors", "files", "formats", "options", "outputs", "tables", "cohort"},
    "cohort.checks": LIGHT | {"cohort", "volumes"},
    "cohort.contents": LIGHT | {"cohort", "volumes"},
    "geometry": LIGHT | {"cohort", "volumes", "geometry"},
    "geometry.window_names": {"errors"},
    "anatomy": LIGHT | {"geometry", "anatomy"},
    "pictures": {"errors", "files", "pictures"},
    "metrics": LIGHT | {"geometry", "anatomy", "metrics"},
    "phantom": {"files", "labels", "geometry", "anatomy", "phantom"},
    "sparse": {"errors", "sparse"},
    "artefact": LIGHT | {"artefact"},
    "metrics.record": {"errors", "files", "formats"},
    "training": LIGHT | {"artefact", "metrics", "pictures", "training"},
    "fusion.summary": {"errors", "formats", "tables"},
    "ldm.option_checks": {"errors", "options", "tables"},
    # they stand above the families
    "set_diffusion": GROUND | TORCH_GROUND | {"vecset", "ldm", "set_diffusion"},
    "set_diffusion.option_checks": {"errors", "options", "tables"},
    "latent_statistics": GROUND
    | TORCH_GROUND
    | {"vecset", "set_diffusion", "statistics", "latent_statistics"},
    "apply": GROUND
    | TORCH_GROUND
    | FAMILIES
    | {"cli", "held_out", "completion", "statistics", "apply"},
    "apply.models": {"errors", "artefact"},
    "export": GROUND | TORCH_GROUND | FAMILIES | {"cli", "phantom", "apply", "export"},
    "report": GROUND | {"coronary", "report"},
    "measures": GROUND | {"coronary", "measures"},
    "statistics": GROUND | {"statistics"},
} | {family: GROUND | TORCH_GROUND | {"held_out", "completion", family} for family in FAMILIES}
STANDARD_LIBRARY_ONLY = {
    "errors": True, "options": True, "labels": True, "files": True, "formats": True, "tables": True,
    "outputs": True,
    "launching": True, "cli": True, "cohort": True, "cohort.checks": False,
    "cohort.contents": False,
    "geometry.window_names": True, "ldm.option_checks": True, "fusion.summary": True,
    "apply.models": True, "search.space": True, "search.rungs": True,
    "completion.arguments": True, "set_diffusion.option_checks": True,
}  # fmt: skip
MAY_USE_TORCH = {
    "sparse": True, "artefact": True, "artefact.layout": False, "training": True, "export": True,
    "export.shapes": False, "export.classes": False, "export.dicom": False,
    "export.regions": False,
    "vecset": True, "vqvae": True, "coronary": True, "ldm": True,
    "apply": True, "set_diffusion": True, "set_diffusion.option_checks": False,
    "latent_statistics": True,
    # what the geometry environment runs
    "coronary.repair_case": False, "coronary.thin_structure": False, "coronary.field": False,
    "coronary.own_label": False,
    "coronary.links": False, "coronary.figures": False,
    "coronary.wall_noise": False,
    "coronary.trace_case": False, "coronary.surroundings": False, "coronary.branch_names": False,
    "coronary.tree_files": False, "coronary.tree_cohort": False, "coronary.tree_figures": False,
    "ldm.set_figures": False,
    "ldm.hearts_on_grid": False, "ldm.clouds": False, "ldm.cube": False, "ldm.option_checks": False,
    "ldm.clouds_on_grid": False, "ldm.outside": False, "ldm.voxel_folder": False,
    "ldm.bonus": False,
    # what the Snakefile and the geometry environment run
    "apply.models": False, "apply.record": False,
    "ldm.vessels.tree": False, "ldm.vessels.field": False, "ldm.vessels.growth": False,
    "ldm.vessels.fine": False, "ldm.vessels.surroundings": False, "ldm.vessels.draw_case": False,
    "ldm.vessels.calibre": False,
}  # fmt: skip
LOOSE_FILES_AT_MOST = 8
LINES_AT_MOST = 400


def modules():
    return sorted(p for p in LIBRARY.rglob("*.py") if p.name != "__init__.py")


def name_of(path: Path) -> str:
    """``vecset.model`` of .../cardiform/vecset/model.py"""
    return ".".join(path.relative_to(LIBRARY).with_suffix("").parts)


def rule_for(name: str, rules: dict, default=None):
    """The rule of the longest key that ``name`` begins with, in whole words."""
    words = name.split(".")
    keys = [".".join(words[:n]) for n in range(len(words), 0, -1)]
    return next((rules[key] for key in keys if key in rules), default)


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


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_library_imports(path):
    own = name_of(path)
    allowed = rule_for(own, MAY_IMPORT)
    assert allowed is not None, f"{path.name}: give {own} a place in the import rules"
    for name in imports(path):
        words = name.split(".")
        if words[0] == "cardiform" and words[1] not in ("__version__", "STARTED"):
            assert words[1] in allowed, f"{path}: {own} must not import {name}"
        if words[:3] == ["cardiform", "volumes", "nifti"]:
            assert own.startswith("volumes."), f"{path}: import volumes, whatever the format"
        if words[0] == "torch":
            assert rule_for(own, MAY_USE_TORCH, False), f"{path}: no torch here"
        assert words[0] != "snakemake", f"{path}: nothing imports snakemake"
    if rule_for(own, STANDARD_LIBRARY_ONLY, False):
        for name in imports(path, top_level_only=True):
            first = name.split(".")[0]
            assert first in sys.stdlib_module_names | {"cardiform", "__future__"}, (path, name)


def test_no_torch_comes_in_by_another_file():
    """A file without torch imports none that has it, at its head."""
    for path in modules():
        if rule_for(name_of(path), MAY_USE_TORCH, False):
            continue
        for name in imports(path, top_level_only=True):
            if name.startswith("cardiform."):
                other = name.removeprefix("cardiform.")
                assert not rule_for(other, MAY_USE_TORCH, False), f"{path} imports {name}"


def test_the_house_has_rooms():
    loose = [p for p in modules() if p.parent == LIBRARY]
    assert len(loose) <= LOOSE_FILES_AT_MOST, "does each new line have a room?"
    for path in modules():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= LINES_AT_MOST, f"{path}: {lines} lines; a file has one reason to exist"


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.py")), ids=lambda p: p.stem)
def test_script_imports(path):
    scripts = {p.stem for p in SCRIPTS.glob("*.py")}
    for name in imports(path):
        assert name.split(".")[0] not in scripts, f"{path}: scripts never import each other"
    known = sys.stdlib_module_names | {"cardiform", "__future__"}
    for name in imports(path, top_level_only=True):
        assert name.split(".")[0] in known, f"{path}: import {name} inside main(), for --help"
        if name.startswith("cardiform."):
            light = rule_for(name.removeprefix("cardiform."), STANDARD_LIBRARY_ONLY, False)
            assert light, f"{path}: import {name} inside main(), for --help"


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
        [BIN / "mypy"],
    ],
    ids=["ruff", "ruff-format", "snakefmt", "snakemake-lint", "mypy"],
)
def test_linters(command):
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
