"""Fuse label maps with refined masks by priority, and hold them to anatomical consistency.

    python fuse_labels.py --cases results/acme/cases.tsv \\
        --masks coronary=results/acme/coronary/refined \\
        --out results/acme/fused --manifest results/acme/fused/manifest/all.tsv

--masks names folders of <case>.nii.gz that replace a class; their grids may differ, the affines
place them. Where the stage that made them left its manifest there, only what that lists counts:
other masks are older. Writes <out>/<case>.nii.gz (grid and header of the given label map),
<case>.json (what each rule changed) and <case>.png (before and after). Where the case table names
a truth, the JSON judges each rule and both label maps by it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cardiform import cli, labels
from cardiform.cohort import per_case
from cardiform.cohort.table import OK, Case
from cardiform.errors import InputError, problem, together
from cardiform.options.checks import check_classes
from cardiform.options.fusion import FusionOptions

if TYPE_CHECKING:
    from cardiform.fusion.cases import MaskFolder

FIGURES = 2  # version of the figures against a truth: those of the version before are made again
log = logging.getLogger("fuse_labels")


def parse_masks(words: list[str], table: labels.LabelTable) -> dict[str, Path]:
    """``class=folder`` words; InputError where any is none, names no class, or no folder, or two
    are of one class."""

    def parsed(word: str) -> tuple[str, Path]:
        name, equals, folder = word.partition("=")
        if not equals or not folder:
            raise InputError(f"--masks {word}: write class=folder")
        table.channel(name)
        if not Path(folder).is_dir():
            raise InputError(problem(folder, "is no folder", f"correct --masks {word}"))
        return name, Path(folder)

    found = together(*(functools.partial(parsed, word) for word in words))
    names = [name for name, _ in found]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise InputError(f"--masks names {', '.join(twice)} twice; name one folder of each class")
    return dict(found)


def warn_of_missing(cases: list[Case], masks: Mapping[str, MaskFolder]) -> None:
    """A line for each folder that lacks masks of some cases: these keep their own labels."""
    for name, folder in masks.items():
        kept = [c.case_id for c in cases if folder.mask_of(c.case_id) is None]
        if kept:
            text = "%s: has no mask <case>.nii.gz of %d of %d cases, which keep their own %s: %s"
            log.warning(text, folder.path, len(kept), len(cases), name, ", ".join(kept[:5]))
        if old := [c for c in kept if (folder.path / f"{c}.nii.gz").is_file()]:
            text = "%s: not taken, because the manifest there does not list their masks: %s"
            log.warning(text, folder.path, ", ".join(old[:5]))


def main() -> None:
    parser = cli.build_parser(__doc__, FusionOptions)
    cli.add_case_arguments(parser)
    parser.add_argument("--masks", nargs="*", default=[], metavar="CLASS=FOLDER", help="see above")
    options, args = cli.parse(parser, FusionOptions)

    from cardiform.fusion.cases import MaskFolder, fuse_case, mask_files
    from cardiform.fusion.rules import check_rules

    table = labels.load_label_table(args.labels)
    check_classes({"fusion": options}, table.names, args.labels, labels.BUILT_IN)
    check_rules(options)
    folders = parse_masks(args.masks, table)
    masks = {name: MaskFolder.of(folder) for name, folder in folders.items()}
    run = cli.case_run(args)
    warn_of_missing([case for case in run.cases if case.status == OK], masks)
    per_case.run_cases(
        run,
        functools.partial(fuse_case, table=table, options=options, masks=masks, out=args.out),
        inputs=lambda case: [
            case.labels,
            *mask_files(case, masks).values(),
            *([case.truth] if case.truth else []),
        ],
        parameters=lambda case: {
            "options": cli.flags(options),
            "labels": table.as_dicts(),
            **table.other_parts,
            "masks": args.masks,
            **({"figures": FIGURES} if case.truth else {}),
        },
    )


if __name__ == "__main__":
    cli.run(main)
