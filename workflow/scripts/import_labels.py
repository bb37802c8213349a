"""Label maps with class values of another label table, as label maps of yours: classes by name.

    python import_labels.py --label-maps other --classes other.tsv --out labels/other
    python import_labels.py --label-maps 'total/{case}/heart.nii.gz' --classes total.tsv \\
        --labels labels.tsv --out labels/total

--classes names the classes of the files: a table with the columns value and name, where a name is
that of a class of your label table (--labels; the built-in one otherwise). Several values may have
one name. A value (1-65535) that it does not list becomes background. So cohorts that were labelled
by different tables train together.

Writes <out>/<case>.nii.gz, on the same grid. List them with list_cases.py. It needs the
environment: python3 run.py python workflow/scripts/...
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from cardiform import cli
from cardiform.cohort import per_case
from cardiform.cohort.found_files import files_of
from cardiform.cohort.listing import cases_of_files
from cardiform.cohort.table import Case
from cardiform.errors import InputError, problem
from cardiform.labels import load_label_table, load_values_by_name

log = logging.getLogger("import_labels")


def parse():
    parser = cli.build_parser(__doc__)
    group = parser.add_argument_group("files")
    where = "FOLDER|PATTERN"
    group.add_argument("--label-maps", required=True, metavar=where, help="label maps to import")
    group.add_argument("--classes", required=True, metavar="FILE", help="their values and names")
    group.add_argument("--labels", default="", metavar="FILE", help="your label table")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument("--processes", type=int, default=1, help="files at a time (default: 1)")
    (args,) = cli.parse(parser)
    return args


def write_label_map(case: Case, *, values: dict[int, int], out: Path) -> list[Path]:
    """Write ``out/<case>.nii.gz``; InputError where it has none of the classes.

    values : of the file to those of the label table.
    """
    from cardiform.volumes import load_renamed, save_label_map

    made, found = load_renamed(case.labels, values)
    if not set(found) & set(values):
        fact = f"has none of the values {', '.join(map(str, values))}"
        raise InputError(
            problem(case.labels, fact, "list its values in --classes, or leave it out")
        )
    if others := [value for value in found if value not in values]:
        text = "%s: %s become background: --classes does not list them"
        log.info(text, case.case_id, ", ".join(map(str, others)))
    path = out / f"{case.case_id}.nii.gz"
    save_label_map(path, made.data, made.affine)
    return [path]


def main() -> None:
    args = parse()
    values = load_values_by_name(args.classes, load_label_table(args.labels))
    found, left = files_of("labels", args.label_maps)
    cases = cases_of_files(found, "labels")
    per_case.run_cases(
        per_case.CaseRun(cases, args.out, args.out / "manifest.tsv", args.processes),
        functools.partial(write_label_map, values=values, out=args.out),
        inputs=lambda case: [case.labels],
        parameters=lambda case: {"values": sorted(values.items())},
    )
    for path, why in left.items():
        log.info("left over: %s: %s", path, why)
    log.info("%d label maps in %s; list them with list_cases.py", len(cases), args.out)


if __name__ == "__main__":
    cli.run(main)
