"""The case table of the fused label maps, and what fusion changed over the whole cohort.

    python collect_fused.py --cases results/acme/cases.tsv \\
        --manifest results/acme/fused/manifest/*.tsv --out results/acme/fused

Writes <out>/cases.tsv, which has the fused label maps in place of the given ones (a case that no
manifest lists keeps its own, and is named), and <out>/summary.json: per rule the cases and voxels
that it changed, per class the change of volume and components, and the cases that changed most;
where truths are known, how many voxels each rule took and added rightly and wrongly, and the
figures of the given and the fused label maps.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import replace
from pathlib import Path

from cardiform import cli
from cardiform.cohort.manifest import read_manifests
from cardiform.cohort.table import OK, read_checked_cases, write_cases
from cardiform.errors import together
from cardiform.files import write_json
from cardiform.fusion.summary import REPORT, lines, summarise

log = logging.getLogger("collect_fused")


def main() -> None:
    parser = cli.build_parser(__doc__)
    parser.add_argument("--cases", required=True, help="cases.tsv of check_cohort")
    parser.add_argument("--manifest", required=True, nargs="+", help="manifests of fuse_labels")
    parser.add_argument("--out", required=True, type=Path, help="output folder")
    (args,) = cli.parse(parser)

    rows = read_manifests(args.manifest)
    maps = {r["case_id"]: r["path"] for r in rows if r["path"].endswith(".nii.gz")}
    paths = {r["case_id"]: r["path"] for r in rows if r["path"].endswith(".json")}
    loaded = together(*(functools.partial(REPORT.load, path) for path in paths.values()))
    reports = dict(zip(paths, loaded))
    given = read_checked_cases(args.cases)
    if unfused := [c.case_id for c in given if c.status == OK and c.case_id not in maps]:
        log.warning(
            "in no manifest, the given label map stays in cases.tsv: %s", ", ".join(unfused)
        )
    cases = [replace(case, labels=maps.get(case.case_id, case.labels)) for case in given]
    summary = summarise(reports)
    for line in lines(summary):
        log.info("%s", line)
    write_json(args.out / "summary.json", summary)
    write_cases(args.out / "cases.tsv", cases)


if __name__ == "__main__":
    cli.run(main)
