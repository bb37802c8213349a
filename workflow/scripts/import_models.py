"""Check a bundle of trained models, and unpack it to a folder of models.

    python import_models.py --bundle acme.zip --out models/acme
    python import_models.py --bundle acme.zip --try-example

Every file must be on the bundle's list with its size and sha256; links, pickled files, names that
lead out of the folder, newer formats and another label table than --labels are refused, all at
once. Without --out it is checked alone. With --try-example the models make of the bundle's
procedural heart what they made of it before, or that is reported. Nothing is downloaded.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli
from cardiform.labels import load_label_table

log = logging.getLogger("import_models")


def main() -> None:
    parser = cli.build_parser(__doc__)
    group = parser.add_argument_group("files")
    group.add_argument("--bundle", required=True, type=Path, help="zip or folder of export_models")
    group.add_argument("--out", type=Path, help="new folder (default: check alone)")
    group.add_argument("--force", action="store_true", help="replace a bundle that is there")
    group.add_argument("--labels", default="", help="your label table; empty: the bundle's")
    group.add_argument("--try-example", action="store_true", help="compute the example again")
    (args,) = cli.parse(parser, out_is_file=True)
    labels = load_label_table(args.labels) if args.labels else None

    from cardiform.export.models import import_models

    about = import_models(
        args.bundle, args.out, labels=labels, try_example=args.try_example, force=args.force
    )
    for place, said in about["models"].items():
        log.info("%s: %s, trained on %s cases", place, said["kind"], said["cases"] or "unknown")
    log.info("%s is sound%s", args.bundle, f"; unpacked to {args.out}" if args.out else "")


if __name__ == "__main__":
    cli.run(main)
