"""Write one page about a cohort and its models: figures, curves, hearts that turn.

    python write_report.py --results results/acme --out results/acme/report.html

The page is one file of some megabytes that opens without a network. It shows what the results
folder has: the cohort and what was left out of it, the split, every training, held-out figures
with intervals, the best, the median and the worst heart, refined coronaries, generated hearts.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli
from cardiform.labels import load_label_table

log = logging.getLogger("write_report")


def main() -> None:
    parser = cli.build_parser(__doc__)
    group = parser.add_argument_group("files")
    group.add_argument("--results", required=True, type=Path, help="results folder of a cohort")
    group.add_argument("--out", required=True, type=Path, help="the page, .html")
    group.add_argument("--labels", default="", help="label table, TSV (default: STACOM-2025)")
    group.add_argument("--name", default="", help="heading (default: name of the folder)")
    (args,) = cli.parse(parser, out_is_file=True)

    from cardiform.report.page import write_report

    sections = write_report(args.results, args.out, load_label_table(args.labels), args.name)
    size = args.out.stat().st_size / 1e6
    log.info("%s: %.1f MB: %s", args.out, size, ", ".join(s.title for s in sections))


if __name__ == "__main__":
    cli.run(main)
