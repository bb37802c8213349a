"""Fuse label maps with refined masks by priority, and hold them to anatomical consistency.

    python fuse_labels.py --cases results/acme/cases.tsv \\
        --masks coronary=results/acme/coronary/refined \\
        --out results/acme/fused --manifest results/acme/fused/manifest/all.tsv

--masks names folders of <case>.nii.gz that replace a class; their grids may differ, the affines
place them. Writes <out>/<case>.nii.gz (grid and header of the given label map), <case>.json
(what each rule changed) and <case>.png (before and after). Where the case table names a truth, the
JSON judges each rule and both label maps by it.
"""

from __future__ import annotations

import functools
from pathlib import Path

from cardiform import cli, labels
from cardiform.cohort import per_case
from cardiform.errors import InputError, together
from cardiform.options.checks import check_classes
from cardiform.options.fusion import FusionOptions


def parse_masks(words: list[str], table: labels.LabelTable) -> dict[str, Path]:
    """``class=folder`` words; InputError where any is none, or names no class."""

    def parsed(word: str) -> tuple[str, Path]:
        name, equals, folder = word.partition("=")
        if not equals or not folder:
            raise InputError(f"--masks {word}: write class=folder")
        table.channel(name)
        return name, Path(folder)

    return dict(together(*(functools.partial(parsed, word) for word in words)))


def main() -> None:
    parser = cli.build_parser(__doc__, FusionOptions)
    cli.add_case_arguments(parser)
    parser.add_argument("--masks", nargs="*", default=[], metavar="CLASS=FOLDER", help="see above")
    options, args = cli.parse(parser, FusionOptions)

    from cardiform.fusion.cases import fuse_case, mask_files
    from cardiform.fusion.rules import check_rules

    table = labels.load_label_table(args.labels)
    check_classes({"fusion": options}, table.names, args.labels, labels.BUILT_IN)
    check_rules(options)
    masks = parse_masks(args.masks, table)
    per_case.run_cases(
        cli.case_run(args),
        functools.partial(fuse_case, table=table, options=options, masks=masks, out=args.out),
        inputs=lambda case: [
            case.labels,
            *(path for path in mask_files(case, masks).values() if path.is_file()),
            *([case.truth] if case.truth else []),
        ],
        parameters={"options": cli.flags(options), "labels": table.as_dicts(), "masks": args.masks},
    )


if __name__ == "__main__":
    cli.run(main)
