"""Turn dense label volumes (.npy) into label maps with a place, and list them as a case table.

    python import_volumes.py --volumes processed --spacing 0.8 --out labels
    python import_volumes.py --volumes 'processed/{case}/masks/labels.npy' --axes SAR --out labels

An array has no geometry: --spacing gives the edges of its voxels in mm, one number or one for each
axis of the array, and --axes what its axes point to (R, L, A, P, S, I; SAR for slices, rows and
columns of arrays that count from the feet). Without --spacing it is read from tables called
metadata.csv beside the volumes or above them, or from the one that --metadata names: a column
case_id (or case, id, name) and spacing_mm (or spacing, or spacing_x, spacing_y and spacing_z).
Three edges of a table are those along x (right-left), y (back-front) and z (feet-head), whatever
--axes says.

Writes <out>/<case>.nii.gz and, where it is not there yet, <out>/cohort.tsv; name the table in a
config, as cohort.table. It needs the environment: python3 run.py python workflow/scripts/...
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cardiform import cli
from cardiform.cohort import per_case
from cardiform.cohort.found_files import files_of
from cardiform.cohort.listing import cases_of_files, write_case_table
from cardiform.cohort.spacings import as_spacing, spacings_of
from cardiform.cohort.table import Case
from cardiform.errors import InputError
from cardiform.tables import read_table

log = logging.getLogger("import_volumes")
AXES = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}


def parse():
    """The command line, --spacing as edges along the axes of the array."""
    parser = cli.build_parser(__doc__)
    group = parser.add_argument_group("files")
    where = "FOLDER|PATTERN"
    group.add_argument("--volumes", required=True, metavar=where, help=".npy files of classes")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument("--force", action="store_true", help="write cohort.tsv where it is there")
    group.add_argument("--processes", type=int, default=1, help="volumes at a time (default: 1)")
    group = parser.add_argument_group("geometry")
    group.add_argument(
        "--spacing", nargs="+", type=float, default=[], metavar="MM", help="edges of the voxels"
    )
    group.add_argument("--metadata", default="", metavar="FILE", help="table of the spacings")
    group.add_argument("--axes", default="RAS", help="where the array's axes point (default: RAS)")
    (args,) = cli.parse(parser)
    problems = []
    if args.spacing and args.metadata:
        problems.append("--spacing and --metadata both give the spacing; give one of them")
    given = as_spacing(args.spacing)
    if args.spacing and given is None:
        problems.append("--spacing is one edge in mm above 0, or three")
    args.axes = args.axes.upper()
    if sorted(AXES.get(letter, -1) for letter in args.axes) != [0, 1, 2]:
        problems.append(f"--axes {args.axes} names no three axes; write RAS or SAR, say")
    if problems:
        raise InputError(problems)
    return args, given


def write_label_map(case: Case, *, edges: Mapping[str, Sequence[float]], axes: str, out: Path):
    """Write ``out/<case>.nii.gz``."""
    from cardiform.volumes import save_label_map
    from cardiform.volumes.dense import load_dense_labels

    labels = load_dense_labels(case.labels, edges[case.case_id], axes)
    save_label_map(path := label_map(case, out), labels.data, labels.affine)
    return [path]


def label_map(case: Case, out: Path) -> Path:
    return out / f"{case.case_id}.nii.gz"


def main() -> None:
    args, given = parse()
    found, left = files_of("volume", args.volumes)
    cases = cases_of_files(found, "labels")
    volumes = {case.case_id: Path(case.labels) for case in cases}
    if given:
        edges = dict.fromkeys(volumes, given)
    else:  # a table's x, y and z are those of the world
        order = [AXES[letter] for letter in args.axes]
        found_edges = spacings_of(volumes, args.metadata)
        edges = {case: tuple(xyz[axis] for axis in order) for case, xyz in found_edges.items()}
    per_case.run_cases(
        per_case.CaseRun(cases, args.out, args.out / "manifest.tsv", args.processes),
        functools.partial(write_label_map, edges=edges, axes=args.axes, out=args.out),
        inputs=lambda case: [case.labels],
        parameters=lambda case: {"spacing": edges[case.case_id], "axes": args.axes},
    )
    table = args.out / "cohort.tsv"
    if table.exists() and not args.force:
        listed = {row["case_id"] for _, row in read_table(table)[1] if "case_id" in row}
        absent = ", ".join(sorted(volumes.keys() - listed)) or "none"
        text = "%s is kept as it is; volumes that it does not list: %s (--force writes it again)"
        log.warning(text, table, absent)
    else:
        write_case_table(table, [replace(c, labels=str(label_map(c, args.out))) for c in cases])
    for path, why in left.items():
        log.info("left over: %s: %s", path, why)
    log.info("%d volumes; name %s in a config, as cohort.table", len(cases), table)


if __name__ == "__main__":
    cli.run(main)
