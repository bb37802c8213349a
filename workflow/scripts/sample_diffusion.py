"""Hearts from a trained latent diffusion: label maps, point clouds, meshes and pictures.

    python sample_diffusion.py --model results/acme/ldm/labels/diffusion/model.pt \\
        --out results/acme/ldm/labels/samples --num-samples 16 --num-inference-steps 30

Writes nifti/sample_0000.nii.gz (label map in the cohort frame: RAS mm about the cube's middle),
pointcloud/sample_0000.csv (x, y, z in mm, label), meshes/sample_0000/<class>.ply, pictures/,
overview.png, latents/ and metrics.json. A seed and a number give the same heart whatever the batch
size. Latents of finished samples are kept; files are written from them each time.
--volumes left_ventricle=120 asks for a volume in ml. --redraw 4 draws a heart again, four times at
most, that lacks parts or contacts which the training hearts of --voxels and --train have.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from cardiform import cli
from cardiform.files import sha256_file, sha256_json
from cardiform.ldm.option_checks import chosen_sampler, wanted_volumes
from cardiform.options.ldm import SamplingOptions

log = logging.getLogger("sample_diffusion")


def main() -> None:
    parser = cli.build_parser(__doc__, SamplingOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--model", required=True, type=Path, help="model.pt of train_diffusion")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument("--voxels", type=Path, help="manifest of resample_labels, for --redraw")
    group.add_argument("--train", type=Path, help="train split CSV, for --redraw")
    options, args = cli.parse(parser, SamplingOptions)

    from cardiform.ldm.copies import space_of
    from cardiform.ldm.generator import ShapeGenerator
    from cardiform.ldm.redraw import Redraw
    from cardiform.ldm.samples import (
        draw_overview,
        refuse_foreign,
        remove_others,
        sampled_latents,
        spread,
        volume_condition,
        write_samples,
    )
    from cardiform.metrics.record import write_held_out_figures
    from cardiform.training.distributed import choose_device

    refuse_foreign(args.out, options)
    generator = ShapeGenerator.load(args.model, choose_device(options.device))
    sampler = chosen_sampler(options, generator.options)
    wanted = wanted_volumes(options, generator.options)
    condition = volume_condition(generator, wanted, options.num_samples)
    if wanted:
        generator = replace(generator, bonus=())  # it was found on hearts without requested volumes
    model = sha256_file(args.model)
    redraw = Redraw.of(options.redraw, args.voxels, args.train, generator.grid)
    deciding = [sampler, options.num_inference_steps, options.seed, options.guidance, wanted]
    deciding += [redraw.key, options.speck_share] if redraw.key else []
    key = sha256_json([model, deciding])
    latents, drawn = sampled_latents(
        generator, condition, options, sampler, key, args.out / "latents", redraw
    )
    deviation = float(latents.std())
    log.info("%d samples, deviation of the latents %.3f", len(latents), deviation)
    if not 0.7 < deviation < 1.4:
        log.warning("it should be near 1: train longer, or take more steps")
    hearts, volumes = write_samples(generator, latents, options, args.out)
    remove_others(args.out, volumes)
    draw_overview(args.out / "overview.png", hearts, generator.grid.table)
    figures = {
        "samples": list(volumes),
        "latent_std": deviation,
        "latent_space": space_of(generator.statistics),
        "volume_ml": spread(volumes, generator.grid.table),
        "sampler": sampler,
        "steps": options.num_inference_steps,
        **redraw.figures(drawn),
    }
    write_held_out_figures(args.out / "metrics.json", "sample_diffusion", figures, args.model)


if __name__ == "__main__":
    cli.run(main)
