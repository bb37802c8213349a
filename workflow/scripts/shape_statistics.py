"""How the hearts of a cohort vary: modes, scores of every heart, figures of the model.

    python shape_statistics.py --cases results/acme/cases.tsv --meshes results/acme/meshes \\
        --train results/acme/split/train.csv --validation results/acme/split/val.csv \\
        --test results/acme/split/test.csv --out results/acme/shape_statistics
    python shape_statistics.py --model results/acme/shape_statistics/model.npz \\
        --cases results/new/cases.tsv --meshes results/new/meshes --out results/new/scores

Writes <out>/model.npz, template.npz, scores.csv, statistics.json, modes/ (meshes, a picture and an
animation) and registered/ (the template on every heart), with --path and --columns also path/ and
columns/; with --model scores.csv and registered/ alone. docs/statistics.md says what they are.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from cardiform import cli, labels
from cardiform.cohort import splits
from cardiform.cohort.free_columns import read_numbers
from cardiform.cohort.table import read_checked_cases
from cardiform.errors import InputError, problem
from cardiform.options.checks import check_classes
from cardiform.options.statistics import ShapeStatisticsOptions

PARTS = {"train": "train", "validation": "val", "test": "test"}


def main() -> None:
    parser = cli.build_parser(__doc__, ShapeStatisticsOptions)
    group = parser.add_argument_group("cases and files")
    group.add_argument("--cases", required=True, help="cases.tsv of check_cohort")
    group.add_argument("--meshes", required=True, type=Path, help="output of extract_meshes")
    cli.add_split_arguments(group, *PARTS, required=False)
    group.add_argument("--model", type=Path, help="model.npz: score hearts, learn nothing")
    group.add_argument("--table", default="", help="the case table with the columns of --columns")
    group.add_argument("--labels", default="", help="label table, TSV; empty: STACOM-2025")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument("--processes", type=int, default=1, help="cases at a time (default: 1)")
    options, args = cli.parse(parser, ShapeStatisticsOptions)
    given = [name for name in PARTS if getattr(args, name)]
    if bool(args.model) == bool(given) or (given and given != list(PARTS)):
        raise InputError("give --train, --validation and --test to learn, or --model to score")
    if args.model:
        check_scoring(args.model, args.out)
    if options.columns and not args.table:
        raise InputError("--columns needs the case table that has these columns; give --table")
    table = labels.load_label_table(args.labels)
    check_classes({"shape_statistics": options}, table.names, args.labels, labels.BUILT_IN)

    from cardiform.statistics.make import Work, make_model, score_new

    cases = read_checked_cases(args.cases)
    work = Work(cases, table, args.meshes, args.out, args.processes)
    if args.model:
        score_new(work, args.model)
        return
    rows = splits.read_splits({part: getattr(args, name) for name, part in PARTS.items()})
    parts = {case_id: part for part, found in rows.items() for case_id, _ in found}
    numbers = read_numbers(args.table, options.columns, list(parts))
    make_model(work, parts, numbers, options)


def check_scoring(model: Path, out: Path) -> None:
    """InputError where --model stands beside options of learning, or scores go over others."""
    learning = {"--" + f.name.replace("_", "-") for f in dataclasses.fields(ShapeStatisticsOptions)}
    words = [word.partition("=")[0] for word in sys.argv[1:]]
    problems = []
    if unused := [word for word in dict.fromkeys(words) if word in {*learning, "--table"}]:
        problems.append(
            f"{', '.join(unused)}: --model learns nothing, its own run decided this; leave it out"
        )
    if out.resolve() == model.parent.resolve() or (out / "model.npz").exists():
        fact = "has a model of its own, whose scores.csv would be lost"
        problems.append(problem(out, fact, "give another folder (--out)"))
    if problems:
        raise InputError(problems)


if __name__ == "__main__":
    cli.run(main)
