"""How the hearts of a cohort vary, by a VecSet's latents: modes, scores of every heart, figures.

    python latent_statistics.py --vecset results/acme/vecset/model.pt \\
        --latents results/acme/set_diffusion/latents/manifest.tsv \\
        --slots results/acme/set_diffusion/latents/slots.npz \\
        --train results/acme/split/train.csv --validation results/acme/split/val.csv \\
        --test results/acme/split/test.csv --out results/acme/latent_statistics

Writes <out>/model.npz, scores.csv, statistics.json and modes/ (meshes, a picture and an animation).
docs/statistics.md says what they are, and when to take shape_statistics.
"""

from __future__ import annotations

from pathlib import Path

from cardiform import cli
from cardiform.cohort import splits
from cardiform.options.statistics import LatentStatisticsOptions

PARTS = {"train": "train", "validation": "val", "test": "test"}


def main() -> None:
    parser = cli.build_parser(__doc__, LatentStatisticsOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--vecset", required=True, type=Path, help="model.pt of train_vecset")
    group.add_argument("--latents", required=True, type=Path, help="manifest of the latents")
    group.add_argument("--slots", required=True, type=Path, help="slots.npz beside the latents")
    cli.add_split_arguments(group, *PARTS)
    group.add_argument("--out", required=True, type=Path, help="output folder")
    options, args = cli.parse(parser, LatentStatisticsOptions)

    from cardiform.latent_statistics.make import Files, make_model

    rows = splits.read_splits({part: getattr(args, name) for name, part in PARTS.items()})
    make_model(Files(args.latents, args.slots, args.vecset, args.out), rows, options)


if __name__ == "__main__":
    cli.run(main)
