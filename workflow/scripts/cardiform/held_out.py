"""Figures and pictures of held-out hearts, whatever model reconstructed them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from . import outputs
from .cohort.table import Case
from .errors import InputError, again, problem
from .files import read_json
from .geometry.mesh_files import MESH_ENDING, read_mesh, write_mesh
from .geometry.surface import Mesh
from .labels import CHAMBERS_AND_GREAT_VESSELS, LabelTable
from .metrics.summary import mean_over_cases, mean_over_classes
from .pictures.figures import compare_picture
from .tables import names_width

NO_MESH = Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))


def draw_comparison(
    path: Path,
    case_id: str,
    table: LabelTable,
    truth: Sequence[Mesh],
    made: Sequence[Mesh],
    figures: Mapping[str, Mapping],
) -> None:
    """Truth beside reconstruction; classes that the truth lacks are left out."""
    shown = [k for k, mesh in enumerate(truth) if len(mesh.faces)]
    group = mean_over_classes(figures["model"], CHAMBERS_AND_GREAT_VESSELS)
    caption = case_id
    if group.get("dice") is not None:
        caption += f": mean Dice {group['dice']:.3f} (chambers and great vessels)"
    compare_picture(
        path,
        *([(m[k].vertices, m[k].faces, table[k].color, 1.0) for k in shown] for m in (truth, made)),
        legend={table[k].title: table[k].color for k in shown},
        caption=caption,
    )


def summarise(parts: Mapping[str, Sequence[str]], out: Path, methods: Sequence[str]) -> dict:
    """Figures of all cases from their figures.json, and their means, by part of the split.

    Classes that the scan cuts (``cut`` of figures.json) count in no mean but those of ``cut``,
    and ``cut_cases`` says in how many cases they are; without any there is neither.

    parts : ``validation`` and ``test`` -> case ids.
    methods : keys of figures.json to take means of.
    """
    result = {}
    for part, names in parts.items():
        cases = {name: read_json(out / name / "figures.json") for name in names}
        counts = Counter(name for figures in cases.values() for name in figures.get("cut", []))
        summary: dict = {}
        for method in methods:
            means = mean_over_cases([_rows(figures, method, False) for figures in cases.values()])
            summary[method] = {
                "mean": means,
                "chambers_and_great_vessels": mean_over_classes(means, CHAMBERS_AND_GREAT_VESSELS),
                "all_classes": mean_over_classes(means, means),
            }
            if counts:
                found = mean_over_cases([_rows(f, method, True) for f in cases.values()])
                summary[method]["cut"] = {name: found[name] for name in found if name in counts}
        if counts:
            summary["cut_cases"] = dict(counts)
        result[part] = {**summary, "cases": cases}
    return result


def without_figures(figures: dict, names: Iterable[str]) -> None:
    """Make the rows of some classes None, in place: they mean nothing."""
    for name in names:
        figures[name] = dict.fromkeys(figures[name])


def _rows(figures: Mapping, method: str, cut: bool) -> dict[str, Mapping]:
    """The figures of a case, those of its whole classes or of its cut ones None."""
    listed = figures.get("cut", [])
    return {
        name: row if (name in listed) == cut else dict.fromkeys(row)
        for name, row in figures[method].items()
    }


def table_of_figures(part: Mapping, names: Sequence[str], baseline: str) -> str:
    """The means of one part of the split as lines of text; cut classes have rows of their own.

    names : classes, in order.    baseline : method whose Dice stands beside the model's.
    """
    title = baseline.replace("_", " ") + " Dice"
    rows = {name: part["model"]["mean"].get(name, {}) for name in names}
    base = {name: part[baseline]["mean"].get(name, {}) for name in names}
    for name in ("chambers_and_great_vessels", "all_classes"):
        rows[name], base[name] = part["model"][name], part[baseline][name]
    for name, cases in part.get("cut_cases", {}).items():
        key = f"{name}, cut in {cases}"
        rows[key], base[key] = part["model"]["cut"][name], part[baseline]["cut"][name]
    width = names_width(rows)
    head = f"{'Dice':>8}{'ASSD mm':>9}{'HD95 mm':>9}{'missed':>8}{title:>17}"
    lines = [" " * width + head]
    for name, row in rows.items():
        values = [row.get(figure) for figure in ("dice", "assd_mm", "hd95_mm", "missed")]
        text = ["-" if v is None else f"{v:.3f}" for v in (*values, base[name].get("dice"))]
        cells = f"{text[0]:>8}{text[1]:>9}{text[2]:>9}{text[3]:>8}{text[4]:>17}"
        lines.append(f"{name:{width}}{cells}")
    return "\n".join(lines)


def write_meshes(folder: Path, meshes: Mapping[str, Mesh]) -> list[Path]:
    """Write ``<name>.ply`` of every mesh that is not empty; delete ours of an earlier run."""
    written = []
    for name, mesh in meshes.items():
        if len(mesh.faces):
            written.append(folder / f"{name}{MESH_ENDING}")
            write_mesh(written[-1], mesh)
    for stale in set(folder.glob(f"*{MESH_ENDING}")) - set(written):
        outputs.remove(stale)
    return written


def truth_mesh(folder: Path, name: str) -> Mesh:
    """The surface of a class, empty where the case lacks it."""
    path = folder / f"{name}{MESH_ENDING}"
    return read_mesh(path, again("extract_meshes")) if path.is_file() else NO_MESH


def checked_cases(rows: Sequence[tuple[str, Path]], cases: Mapping[str, Case], where: Path):
    """The case of every row of a split, with its points file; InputError where one is gone."""
    missing = [name for name, _ in rows if name not in cases]
    if missing:
        raise InputError(problem(where, f"has no case {', '.join(missing)}", "run split_cohort"))
    return [(cases[name], path) for name, path in rows]
