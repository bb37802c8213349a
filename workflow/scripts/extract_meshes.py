"""Turn label maps into closed surfaces in millimetres.

    python extract_meshes.py --cases results/acme/cases.tsv --out results/acme/meshes \\
        --manifest results/acme/meshes/manifest/all.tsv

Writes <out>/<case>/<class>.ply for every class that is there, <out>/<case>/frame.json (the unit
frame of the case, volumes in voxels and mesh, and which classes the image border cuts) and
<out>/<case>/fields.npz, the signed distances that sample_sdf and voxelize_labels read.
"""

from __future__ import annotations

import functools

from cardiform import cli, labels
from cardiform.cohort import per_case
from cardiform.options.geometry import MeshesOptions


def main() -> None:
    parser = cli.build_parser(__doc__, MeshesOptions)
    cli.add_case_arguments(parser)
    options, args = cli.parse(parser, MeshesOptions)

    from cardiform.geometry.cases import mesh_case

    table = labels.load_label_table(args.labels)
    per_case.run_cases(
        cli.case_run(args),
        functools.partial(mesh_case, table=table, options=options, out=args.out),
        inputs=lambda case: [case.labels],
        parameters={"options": cli.flags(options), "labels": table.as_dicts()},
    )


if __name__ == "__main__":
    cli.run(main)
