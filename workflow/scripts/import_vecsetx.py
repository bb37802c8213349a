"""Read weights that VecSetX has released (or trained) as a VecSet of this project.

    python import_vecsetx.py --weights point_vec1024x32_dim1024_depth24_sdf_nb.pth \\
        --out models/vecsetx/model.pt

Writes the model.pt of a network of preset vecsetx that computes the same distances: every class of
--labels gets that to the union, which is the only one that VecSetX knows. A training of hearts
starts from it with vecset: {preset: vecsetx, pretrained: models/vecsetx/model.pt}. The checkpoint
is read from the disk without running code of it; nothing is downloaded.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli
from cardiform.labels import load_label_table

log = logging.getLogger("import_vecsetx")


def main() -> None:
    parser = cli.build_parser(__doc__)
    group = parser.add_argument_group("files")
    group.add_argument("--weights", required=True, type=Path, help="checkpoint of VecSetX")
    group.add_argument("--out", required=True, type=Path, help="model.pt to write")
    group.add_argument("--labels", default="", help="your label table; empty: the built-in one")
    (args,) = cli.parse(parser, out_is_file=True)
    table = load_label_table(args.labels)

    from cardiform.vecset.vecsetx import convert_vecsetx

    options = convert_vecsetx(args.weights, args.out, table)
    log.info("%s written: queries %s, bottleneck %s", args.out, options.queries, options.bottleneck)
    log.info("train with preset %s and the same queries and bottleneck", options.preset)


if __name__ == "__main__":
    cli.run(main)
