"""The command line of a script that completes label maps, or measures how well."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError


def add_arguments(parser: argparse.ArgumentParser, model: str):
    """Its arguments but those of the split; returns their group.

    model : the script that makes its model.pt.
    """
    group = parser.add_argument_group("files")
    group.add_argument("--model", required=True, type=Path, help=f"model.pt of {model}")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument("--label-maps", nargs="+", type=Path, default=[], help="to complete")
    group.add_argument("--missing", nargs="+", default=[], metavar="CLASS", help="to make")
    group.add_argument("--cases", type=Path, help="cases.tsv of check_cohort, to measure")
    return group


def check_form(args: argparse.Namespace, *measuring: str) -> None:
    """That they ask either to complete or to measure.

    measuring : names of the arguments that measuring takes, all of them.

    Raises
    ------
    InputError
        They ask for both, for neither, or for half of one.
    """
    given = [getattr(args, name) for name in measuring]
    if bool(args.label_maps) == any(given) or not (args.label_maps or all(given)):
        *first, last = (f"--{name}" for name in measuring)
        raise InputError(f"name --label-maps, or {', '.join(first)} and {last}: see --help")
    if args.missing and not args.label_maps:
        raise InputError("--missing needs --label-maps: with --cases every class is made, in turn")
