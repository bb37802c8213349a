"""Trained models as a bundle to hand on: a folder or a zip that stands alone.

    python export_models.py --models results/acme --out acme.zip
    python export_models.py --models results/acme --families vecset coronary --out acme

Writes the weights as safetensors with their options and label table, bundle.json (the sha256 of
every file, label table, frame, versions), README.md (the card, with figures of held-out cases and
fields to fill in), and example/ (a procedural heart and what each model makes of it). No case is
named and nothing is uploaded. How the training data were made is read from the results folder.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from cardiform import cli
from cardiform.errors import InputError

FAMILIES = ("vecset", "vqvae", "coronary", "ldm")
log = logging.getLogger("export_models")


def main() -> None:
    parser = cli.build_parser(__doc__)
    group = parser.add_argument_group("files")
    group.add_argument("--models", required=True, type=Path, help="results folder: results/acme")
    group.add_argument("--out", required=True, type=Path, help="new folder, or FILE.zip")
    group.add_argument("--force", action="store_true", help="replace a bundle that is there")
    group.add_argument(
        "--families", nargs="+", default=[], choices=FAMILIES, help="default: all that are there"
    )
    group.add_argument("--name", default="", help="of the models (default: that of the folder)")
    (args,) = cli.parse(parser, out_is_file=True)
    name = args.name or args.models.resolve().name
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name):
        raise InputError(f"--name {name!r} is no name; use letters, digits, dots, _ and -")

    from cardiform.export.models import export_models

    export_models(
        args.models,
        args.out,
        name=name,
        families=args.families,
        force=args.force,
    )
    log.info("%s written; fill in its README.md before you share it", args.out)


if __name__ == "__main__":
    cli.run(main)
