"""List the files of a cohort: folders of label maps, images and the like to a case table.

    python list_cases.py --labels labels --images images --out cohort.tsv
    python list_cases.py --labels 'scans/{patient}/{case}.label.nii.gz' \\
        --images 'scans/{patient}/{case}.img.nii.gz' --out cohort.tsv

Each of --labels, --images, --meshes, --pointclouds and --truth takes a folder or a quoted pattern.
A cohort may lack label maps, and consist of CTs, meshes or point clouds. In a pattern, {case} and
{patient} are named, and so is anything else by which files belong together ({session}, say); *
stands for any characters of a name, ** for any folders. In a folder, cases are called by the names
of the files without their endings and words such as label, seg or img at their end; names as in
BIDS (sub-01_ses-1_dseg.nii.gz) and folders of one case each (patient01/seg.nii.gz) are understood.

What was matched and what was left over, and why, is printed; --left-over writes all of it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli
from cardiform.cohort.found_files import ENDINGS, without_ending
from cardiform.cohort.listing import (
    list_cases,
    summary,
    take_only,
    with_patients,
    with_patients_of,
    with_whole,
    write_case_table,
)
from cardiform.errors import InputError, problem
from cardiform.labels import load_label_table
from cardiform.tables import write_table

log = logging.getLogger("list_cases")


def parse():
    """The command line, its lists of whole structures by class."""
    parser = cli.build_parser(__doc__)
    group = parser.add_argument_group("files")
    where = "FOLDER|PATTERN"
    group.add_argument("--labels", default="", metavar=where, help="label maps")
    group.add_argument("--images", default="", metavar=where, help="CTs, on the same grids")
    group.add_argument("--meshes", default="", metavar=where, help="meshes, a folder per case")
    group.add_argument("--pointclouds", default="", metavar=where, help="HDF5 point clouds")
    group.add_argument("--truth", default="", metavar=where, help="an expert's label maps")
    group.add_argument("--out", required=True, type=Path, help="case table to write, TSV")
    group.add_argument("--force", action="store_true", help="write over --out where it is there")
    group.add_argument("--left-over", type=Path, metavar="FILE", help="TSV of files left over")
    group = parser.add_argument_group("cases")
    group.add_argument("--only", default="", metavar="FILE", help="list of the cases to take")
    group.add_argument(
        "--patient", default="", metavar="PATTERN", help="patient in the case ids: '{patient}_*'"
    )
    group.add_argument("--patients", default="", metavar="FILE", help="table: case_id, patient_id")
    group.add_argument(
        "--whole",
        nargs="+",
        default=[],
        metavar="CLASS=FILE",
        help="list of the cases that the scan does not cut this class of; the others get it in "
        "the column cut",
    )
    group.add_argument("--label-table", default="", help="label table, TSV; empty: STACOM-2025")
    (args,) = cli.parse(parser, out_is_file=True)
    problems = [line for path in (args.out, args.left_over) if (line := unwritable(path, args))]
    if not any((args.labels, args.images, args.pointclouds, args.meshes)):
        problems.append("no files are named; give --labels a folder or a pattern")
    if args.left_over and args.left_over.resolve() == args.out.resolve():
        problems.append(problem(args.out, "is --out and --left-over", "name two files"))
    if args.patient and args.patients:
        problems.append("--patient and --patients both name the patients; give one of them")
    if problems:
        raise InputError(problems)
    args.whole = whole_lists(args.whole, args.label_table)
    return args


def unwritable(path: Path | None, args) -> str:
    """Why a file is not written; empty: it is."""
    if path is None:
        return ""
    if any(without_ending(path.name, role) for role in ENDINGS):
        return problem(path, "is called like a file of a cohort", "name a table: cohort.tsv, say")
    if not path.exists():
        return ""
    if path.is_dir():
        return problem(path, "is a folder, not a file", "name a file, such as cohort.tsv")
    return "" if args.force else problem(path, "is there already", "name another, or add --force")


def whole_lists(words: list[str], table: str) -> dict[str, str]:
    """Class -> list, of the words of --whole."""
    names = load_label_table(table).names
    lists = dict(word.partition("=")[::2] for word in words)
    problems = [
        f"--whole: {word!r} is no CLASS=FILE with a class of the label table; known classes: "
        f"{', '.join(names)}"
        for word in words
        if word.partition("=")[0] not in names or not word.partition("=")[2]
    ]
    if problems:
        raise InputError(problems)
    return lists


def main() -> None:
    args = parse()
    sources = {
        "labels": args.labels,
        "image": args.images,
        "pointcloud": args.pointclouds,
        "truth": args.truth,
        "meshes": args.meshes,
    }
    listing = list_cases({column: source for column, source in sources.items() if source})
    if args.only:
        take_only(listing, args.only)
    if args.patient:
        listing.cases = with_patients(listing.cases, args.patient)
    if args.patients:
        listing.cases = with_patients_of(listing.cases, args.patients)
    with_whole(listing, args.whole)
    write_case_table(args.out, listing.cases)
    if args.left_over:
        write_table(args.left_over, ["path", "reason"], listing.left_over.items())
    for line in summary(listing):
        log.info("%s", line)
    log.info("%s written; name it in a config, as cohort.table", args.out)


if __name__ == "__main__":
    cli.run(main)
