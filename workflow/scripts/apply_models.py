"""Apply trained models to new label maps: no split, no truth and no training.

    python apply_models.py --models results/acme --labels new/*.nii.gz --out out
    python apply_models.py --models results/acme --table cases.csv --out out --tasks reconstruct

--models takes a results folder or a bundle, zipped or not; of several (the folds of a k-fold) the
fields are averaged before surfaces are cut. Tasks: reconstruct (meshes, label map on the own grid,
latents, codes, how far the label map can be trusted), encode (the latents of every family in one
file per case), refine (thin structures), complete (missing classes), fuse (refined structures in
the label map); by default all that the models can do. Figures against the truth come where the
table has a column truth. Finished cases are skipped; one bad case stops no other. Nothing is
downloaded.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from cardiform import cli
from cardiform.errors import InputError, together
from cardiform.options.apply import ApplyOptions

log = logging.getLogger("apply_models")


def with_commas(words: list[str]) -> list[str]:
    """The words of a command line, ``--tasks a b`` as ``--tasks a,b``."""
    found: list[str] = []
    of_tasks = False
    for word in words:
        if of_tasks and found[-1] != "--tasks" and not word.startswith("-"):
            found[-1] += "," * bool(found[-1]) + word
            continue
        of_tasks = word == "--tasks" or (of_tasks and not word.startswith("-"))
        found.append(word)
    return found


def parse() -> tuple:
    """Options and files of the command line."""
    parser = cli.build_parser(__doc__, ApplyOptions)
    group = parser.add_argument_group("files")
    models = "results folder or bundle; several: folds"
    group.add_argument("--models", required=True, nargs="+", type=Path, help=models)
    group.add_argument("--labels", nargs="+", default=[], metavar="FILE", help="label maps")
    group.add_argument("--table", default="", help="case table, TSV or CSV, in place of --labels")
    group.add_argument("--select", nargs="+", default=[], metavar="CASE", help="default: all")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    manifest = "manifest of one chunk; default: <out>/manifest.tsv, and summary.csv of all cases"
    group.add_argument("--manifest", type=Path, help=manifest)
    options, args = cli.parse(parser, ApplyOptions, arguments=with_commas(sys.argv[1:]))
    if bool(args.labels) == bool(args.table):
        raise InputError("name --labels or --table, one of them: see --help")
    if args.select and not args.table:
        raise InputError("--select needs --table")
    return options, args


def main() -> None:
    options, args = parse()

    from cardiform.apply.inputs import cases_of_files, cases_of_table
    from cardiform.apply.run import Call, apply_all, prepared, unzipped

    with unzipped(args.models) as folders:
        cases, (networks, tasks) = together(
            lambda: (
                cases_of_table(args.table, args.select)
                if args.table
                else cases_of_files(args.labels)
            ),
            lambda: prepared(folders, options, args.out),
        )
        call = Call(cases, args.out, args.manifest)
        apply_all(call, networks, tasks, options)


if __name__ == "__main__":
    cli.run(main)
