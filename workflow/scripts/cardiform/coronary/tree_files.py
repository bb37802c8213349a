"""Traced trees as files: SWC, VTP and a table of branches."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..anatomy.tree import Forest
from ..files import write_text
from ..formats import Format
from ..geometry import vtp
from ..tables import read_table
from .branch_names import GRAFT, LAD, LCX, LEFT_MAIN, RAMUS, RCA, TRUNK, UNNAMED, Named

# The type of a node in SWC, and the name of a cell in VTP; SWC leaves 5 and above to the user.
CODES = {
    UNNAMED: 0, LEFT_MAIN: 11, LAD: 12, LCX: 13, RCA: 14, RAMUS: 15, TRUNK: 16, GRAFT: 17,
}  # fmt: skip
SIDE_CODES = {"unknown": 0, "left": 1, "right": 2}
COLUMNS = (
    "case_id", "tree", "origin", "side", "name", "course", "branch", "parent", "length_mm",
    "radius_mean_mm", "radius_min_mm", "radius_max_mm",
    "start_x", "start_y", "start_z", "end_x", "end_y", "end_z", "ends_in",
)  # fmt: skip
BRANCHES = Format("branch table", dict.fromkeys(COLUMNS, "text"), marked=False)
FORK, END, CUT = "fork", "end", "cut"
DIGITS = 3  # of a micrometre: label maps know less


def rows(case_id: str, forest: Forest, named: Named, cut: Sequence[bool]) -> list[list]:
    """A row of :data:`COLUMNS` for every branch; numbers of trees and branches count from 1.

    cut : whether each branch ends where the scan cuts the structure.
    """
    result = []
    for k, branch in enumerate(forest.branches):
        radii = branch.radii
        result.append(
            [
                *(case_id, branch.tree + 1, named.origins[branch.tree] or "none", named.sides[k]),
                *(named.names[k], named.courses[k], k + 1, branch.parent + 1),
                *(_text(v) for v in (branch.length, radii.mean(), radii.min(), radii.max())),
                *(_text(v) for v in (*branch.points[0], *branch.points[-1])),
                FORK if branch.forks else CUT if cut[k] else END,
            ]
        )
    return result


def write_branches(path: str | Path, found: Iterable[Sequence]) -> None:
    """Write rows of branches as CSV, atomically."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *found])
    write_text(path, text.getvalue())


def read_branches(path: str | Path) -> list[dict[str, str]]:
    """The rows of such a table, as they are written.

    Raises
    ------
    InputError
        It is no table of branches, or not a whole one.
    """
    header, found = read_table(path, whole=True)
    BRANCHES.check_header(path, header)
    return [row for _, row in found]


def write_swc(path: str | Path, forest: Forest, named: Named) -> None:
    """Write the trees as SWC: a node per line, a root (parent -1) per tree.

    Columns: number, type (:data:`CODES`), x, y, z, radius, parent; RAS millimetres.
    """
    codes = ", ".join(f"{code} {name}" for name, code in CODES.items())
    lines = ["# id type x y z radius parent; millimetres, RAS", f"# type: {codes}"]
    last: list[int] = []  # number of the last node of each branch
    number = 0
    for k, branch in enumerate(forest.branches):
        before = last[branch.parent] if branch.parent >= 0 else -1
        first = 1 if branch.parent >= 0 else 0  # the fork is the parent's node
        for point, radius in zip(branch.points[first:], branch.radii[first:]):
            number += 1
            place = " ".join(_text(v) for v in (*point, radius))
            lines.append(f"{number} {CODES[named.names[k]]} {place} {before}")
            before = number
        last.append(before)
    write_text(path, "\n".join(lines) + "\n")


def write_vtp(path: str | Path, forest: Forest, named: Named) -> None:
    """Write the branches as polylines of VTK, XML as text: RAS millimetres.

    Points have ``radius``, mm; cells ``name`` (:data:`CODES`), ``side`` (0 unknown, 1 left,
    2 right), ``tree``, ``branch`` and ``parent`` (0: none), which count from 1.
    """
    branches = forest.branches
    points = np.concatenate([b.points for b in branches]) if branches else np.zeros((0, 3))
    radii = np.concatenate([b.radii for b in branches]) if branches else np.zeros(0)
    ends = np.cumsum([len(b.points) for b in branches], dtype=np.int64)
    cells = {
        "name": [CODES[name] for name in named.names],
        "side": [SIDE_CODES[side] for side in named.sides],
        "tree": [b.tree + 1 for b in branches],
        "branch": [k + 1 for k in range(len(branches))],
        "parent": [b.parent + 1 for b in branches],
    }
    codes = ", ".join(f"{code} {name}" for name, code in CODES.items())
    remark = f"millimetres, RAS; name: {codes}; side: 0 unknown, 1 left, 2 right"
    ints = {name: np.array(values, np.int32) for name, values in cells.items()}
    order = np.arange(len(points))
    lines = vtp.PolyData(points, order, ends, "Lines", {"radius": radii}, ints, remark)
    vtp.write_vtp(path, lines)


def _text(value: float) -> str:
    return f"{value:.{DIGITS}f}"
