"""Draw the demo cohort: label maps of procedural hearts, and their case table.

    python make_demo_cohort.py --out resources/demo --cases 16 --spacing-mm 1.5

Writes <out>/labels/phantom_000.nii.gz ... and <out>/cases.tsv. Most scans are ordinary; among
them are flipped, oblique and anisotropic grids, a missing class and a heart cut by the border.
"""

from __future__ import annotations

import concurrent.futures
import functools
import logging
from pathlib import Path

from cardiform import cli, cohort
from cardiform.files import write_text
from cardiform.options import DemoOptions

log = logging.getLogger("make_demo_cohort")


def draw(numbered: tuple[int, cohort.Case], options: DemoOptions) -> str:
    """Write the label map of one case; returns its id."""
    from cardiform.nifti import save_label_map
    from cardiform.phantom.scans import draw_scan

    number, case = numbered
    save_label_map(case.labels, *draw_scan(number, options.spacing_mm, options.seed))
    return case.case_id


def main() -> None:
    parser = cli.build_parser(__doc__, DemoOptions)
    parser.add_argument("--out", required=True, type=Path, help="output folder")
    parser.add_argument("--processes", type=int, default=1, help="cases at a time (default: 1)")
    options, args = cli.parse(parser, DemoOptions)

    cases = cohort.demo_cases(options.cases, args.out)
    with concurrent.futures.ProcessPoolExecutor(args.processes) as pool:
        for case_id in pool.map(functools.partial(draw, options=options), enumerate(cases)):
            log.info("%s drawn", case_id)
    rows = [[c.case_id, c.patient_id, Path(c.labels).relative_to(args.out)] for c in cases]
    table = [["case_id", "patient_id", "labels"], *rows]
    write_text(args.out / "cases.tsv", "".join("\t".join(map(str, r)) + "\n" for r in table))


if __name__ == "__main__":
    cli.run(main)
