"""Hearts from a trained set-latent diffusion: label maps, point clouds, meshes and pictures.

    python sample_set_diffusion.py --model results/acme/set_diffusion/model/model.pt \\
        --out results/acme/set_diffusion/samples --num-samples 16

Writes what sample_diffusion writes: nifti/sample_0000.nii.gz (RAS mm about the cube's middle),
pointcloud/sample_0000.csv, meshes/sample_0000/<class>.ply, pictures/, overview.png, latents/ and
metrics.json. --volumes left_ventricle=120 asks for a volume in ml, --columns x_age=60 for the value
of a column; --known left_ventricle,myocardium --heart <case>.npz takes these classes from a heart
of encode_set_latents. A seed and a number give the same heart whatever the batch size, up to
rounding. --redraw 4 draws a heart again, four times at most, that lacks parts or contacts which the
training hearts of --voxels and --train have. Latents of finished samples are kept; files are
written from them each time.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli
from cardiform.errors import together
from cardiform.files import sha256_file, sha256_json
from cardiform.options.set_diffusion import SetSamplingOptions
from cardiform.set_diffusion.option_checks import wanted_columns, wanted_volumes

log = logging.getLogger("sample_set_diffusion")


def main() -> None:
    parser = cli.build_parser(__doc__, SetSamplingOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--model", required=True, type=Path, help="model.pt of train_set_diffusion")
    group.add_argument("--heart", type=Path, help="latents file with the classes of --known")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument("--voxels", type=Path, help="manifest of resample_labels, for --redraw")
    group.add_argument("--train", type=Path, help="train split CSV, for --redraw")
    options, args = cli.parse(parser, SetSamplingOptions)
    volumes, columns = together(lambda: wanted_volumes(options), lambda: wanted_columns(options))

    from cardiform.ldm.redraw import Redraw
    from cardiform.ldm.samples import draw_overview, refuse_foreign, remove_others, spread
    from cardiform.metrics.record import write_held_out_figures
    from cardiform.set_diffusion.decoded import FINE_MM
    from cardiform.set_diffusion.generator import SetGenerator
    from cardiform.set_diffusion.samples import asked_and_got, made_hearts, write_hearts
    from cardiform.training.distributed import choose_device

    refuse_foreign(args.out, options, "sample_set_diffusion")
    device = choose_device(options.device)
    generator = SetGenerator.load(args.model, device, options.query_batch)
    trained = generator.grid
    generator = generator.at(options.voxel_size)
    wanted = generator.wanted(options.num_samples, volumes, columns, options.known, args.heart)
    redraw = Redraw.of(options.redraw, args.voxels, args.train, trained)
    deciding = [options.num_inference_steps, options.seed, options.guidance, volumes, columns]
    deciding += [options.corrections, options.known, args.heart and sha256_file(args.heart)]
    deciding += [options.voxel_size, options.speck_share, FINE_MM] if volumes else [0]  # measured
    deciding += [redraw.key, options.speck_share, FINE_MM] if redraw.key else []
    key = sha256_json([sha256_file(args.model), deciding])
    hearts = made_hearts(generator, wanted, options, key, args.out / "latents", redraw)
    shown, made = write_hearts(generator, hearts, options, args.out)
    remove_others(args.out, made)
    table = generator.grid.table
    draw_overview(args.out / "overview.png", shown, table)
    figures = {
        "samples": list(made),
        "volume_ml": spread(made, table),
        "asked": asked_and_got(volumes, made, table.names),
        "asked_columns": columns,
        "steps": options.num_inference_steps,
        **redraw.figures({name: heart.drawn for name, heart in zip(made, hearts)}),
    }
    for name, found in figures["asked"].items():
        log.info("%s: %.1f ml asked for, %.1f came out", name, found["asked_ml"], found["mean_ml"])
    write_held_out_figures(args.out / "metrics.json", "sample_set_diffusion", figures, args.model)


if __name__ == "__main__":
    cli.run(main)
