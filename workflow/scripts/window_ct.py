"""Turn the region of a CT window into sparse voxels: distances in a narrow band about it.

    python window_ct.py --cases results/acme/cases.tsv --windows bone=300/1500 \\
        --out results/acme/windows/bone/512 --manifest results/acme/windows/bone/512/all.tsv

Writes <out>/<case>/<window>.npz of every case with an image, in the unit frame of its volume.
A band with too few or too many voxels is marked in the manifest and left out of training.
"""

from __future__ import annotations

import functools
from dataclasses import replace

from cardiform import cli
from cardiform.cohort import per_case
from cardiform.errors import InputError
from cardiform.geometry.window_names import parse_windows
from cardiform.options.geometry import WindowsOptions


def main() -> None:
    parser = cli.build_parser(__doc__, WindowsOptions)
    cli.add_case_arguments(parser)
    options, args = cli.parse(parser, WindowsOptions)
    if options.together or options.linked:
        parser.error("--together and --linked are of the workflow: see --windows of the trainings")
    windows = parse_windows(options.windows)
    if len(windows) != 1:
        raise InputError("--windows names several windows; run the script once for each")

    from cardiform.geometry.ct_windows import source_files, verdict, window_case

    (window,) = windows.values()
    run = cli.case_run(args, "" if options.volumes else "image")
    if not options.volumes:
        without = {"status": "skipped", "reason": "no image"}
        run = replace(run, cases=[c if c.image else replace(c, **without) for c in run.cases])
    per_case.run_cases(
        run,
        functools.partial(window_case, window=window, options=options, out=args.out),
        inputs=lambda case: source_files(case, window, options),
        parameters={"options": cli.flags(options)},
        verdict=functools.partial(verdict, options=options),
    )


if __name__ == "__main__":
    cli.run(main)
