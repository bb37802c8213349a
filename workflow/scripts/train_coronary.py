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

from cardiform import cli, labels
from cardiform.options.coronary import CoronaryOptions, CoronaryRepairOptions, NearOptions

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

    from cardiform.coronary.train import denoiser_job, level_chooser, near_job, repaired_files
    from cardiform.training import job
    from cardiform.training.shared import FOLDER

    table = labels.load_label_table(args.labels)
    places = args.manifest, args.train, args.validation
    if preset == "cardiform":
        own, repair = options
        files = repaired_files(*places, structure=repair.structure)
        made = denoiser_job(own, repair, files, table, args.out / FOLDER)
        chosen = level_chooser(own, repair, files)
    else:
        (own,) = options
        files = repaired_files(*places, mask="label")
        made, chosen = near_job(own, files, table, args.out / FOLDER), None
    job.run(made, args.out, chosen=chosen)


if __name__ == "__main__":
    cli.run(main)
