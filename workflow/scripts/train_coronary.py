"""Train the refinement of a thin structure on its repaired labels; no clean labels are needed.

    python train_coronary.py --preset cardiform --train results/acme/split/train.csv \\
        --validation results/acme/split/val.csv \\
        --manifest results/acme/coronary/repaired/manifest/*.tsv --out results/acme/coronary/model

--preset cardiform: an encoder and a pointwise head, trained to undo corruptions that are laid
over the repaired labels again. --preset near: the documented shape-only NeAR auto-decoder.
(--preset near --help shows its options.) Writes model.pt, metrics.json, metrics.jsonl, curves.png,
checkpoints/ and tensorboard/ to --out. The same command resumes an interrupted training.
"""

from __future__ import annotations

import argparse
import logging

from cardiform import cli
from cardiform.options.coronary import CoronaryOptions, CoronaryRepairOptions, NearOptions

log = logging.getLogger("train_coronary")

PRESETS = {"cardiform": (CoronaryOptions, CoronaryRepairOptions), "near": (NearOptions,)}


def parse() -> tuple:
    """The preset, its options and the files; the preset decides which options there are."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--preset", choices=tuple(PRESETS), default="cardiform")
    preset = first.parse_known_args()[0].preset
    parser = cli.build_parser(__doc__, *PRESETS[preset])
    parser.add_argument("--preset", choices=tuple(PRESETS), default="cardiform")
    cli.add_training_arguments(parser)
    *options, args = cli.parse(parser, *PRESETS[preset])
    return preset, options, args


def main() -> None:
    preset, options, args = parse()

    from cardiform.coronary.train import cell_field_job, near_job, run, write_model
    from cardiform.training.distributed import is_main

    if preset == "cardiform":
        job = cell_field_job(*options, args)
    else:
        job = near_job(*options, args)
    outcome = run(job, args.out)
    if is_main():
        write_model(job, outcome)


if __name__ == "__main__":
    cli.run(main)
