"""Draw the demo cohort: procedural hearts as label map, CT-like volume and point cloud.

    python make_demo_cohort.py --out resources/demo --cases 16 --spacing-mm 1.5

Writes <out>/labels/phantom_000.nii.gz, <out>/truth/phantom_000.nii.gz (without the noise that
the coronaries of the labels have), <out>/images/phantom_000.nii.gz (HU),
<out>/pointclouds/phantom_000.h5 ... and <out>/cases.tsv. Most scans are ordinary; among them
are flipped, oblique and anisotropic grids, a missing class and a heart cut by the border.
"""

from __future__ import annotations

import functools
import logging
from contextlib import nullcontext
from pathlib import Path

from cardiform import cli, outputs
from cardiform.cohort import per_case
from cardiform.cohort.table import Case, demo_cases
from cardiform.errors import InputError
from cardiform.files import write_text
from cardiform.options.cohort import DemoOptions

CLOUD_POINTS = 20_000

log = logging.getLogger("make_demo_cohort")


def draw(numbered: tuple[int, Case], options: DemoOptions) -> str:
    """Write the files of one case; returns its id."""
    import numpy as np

    from cardiform.phantom.imaging import ct_volume, point_cloud, write_point_cloud
    from cardiform.phantom.scans import draw_scan, noisy_coronaries
    from cardiform.volumes import save_image, save_label_map, spacing_of

    number, case = numbered
    rng = np.random.default_rng((options.seed, number))
    labels, affine = draw_scan(number, options.spacing_mm, options.seed, options.variety)
    save_label_map(case.truth, labels, affine)
    given = noisy_coronaries(labels, spacing_of(affine), options.coronary_noise, rng)
    save_label_map(case.labels, given, affine)
    save_image(case.image, ct_volume(labels, spacing_of(affine), rng), affine)
    write_point_cloud(case.pointcloud, *point_cloud(labels, affine, CLOUD_POINTS, rng))
    return case.case_id


def main() -> None:
    parser = cli.build_parser(__doc__, DemoOptions)
    parser.add_argument("--out", required=True, type=Path, help="output folder")
    parser.add_argument("--processes", type=int, default=1, help="cases at a time (default: 1)")
    options, args = cli.parse(parser, DemoOptions)

    cases = demo_cases(options.cases, args.out)
    files = [Path(path) for case in cases for path in case.files]
    if foreign := outputs.problems_of(files):
        raise InputError(foreign)
    for path in files:  # in order: the same cohort has the same list
        outputs.enlist(path)
    several = per_case.process_pool(args.processes) if args.processes > 1 else nullcontext()
    with several as pool:
        each = pool.map if pool else map
        for case_id in each(functools.partial(draw, options=options), enumerate(cases)):
            log.info("%s drawn", case_id)
    rows = [
        [c.case_id, c.patient_id, *(str(Path(path).relative_to(args.out)) for path in c.files)]
        for c in cases
    ]
    table = [["case_id", "patient_id", "labels", "image", "pointcloud", "truth"], *rows]
    write_text(args.out / "cases.tsv", "".join("\t".join(map(str, r)) + "\n" for r in table))


if __name__ == "__main__":
    cli.run(main)
