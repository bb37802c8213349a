"""Figures of generated hearts beside references: sets, volumes, anatomy, memorisation.

    python evaluate_samples.py --samples results/acme/ldm/labels/samples/metrics.json \\
        --voxels results/acme/ldm/labels/voxels/manifest.tsv \\
        --latents results/acme/ldm/labels/latents/manifest.tsv \\
        --grid results/acme/ldm/labels/voxels/grid.json --train results/acme/split/train.csv \\
        --test results/acme/split/test.csv --out results/acme/ldm/labels/samples/figures.json

MMD, COV and 1-NNA by Chamfer distance (per class and for all), volumes per class, components and
contacts, and the distance to the nearest training heart, for the generated hearts, for a random
subset of the training hearts, for the autoencoder's reconstructions of these (the ceiling: what a
perfect diffusion would make) and of the test hearts, and for warped training hearts (a trivial
generator). All sets have as many hearts as the smallest; of larger ones several draws are compared.
"""

from __future__ import annotations

import logging
from pathlib import Path

from cardiform import cli
from cardiform.cohort import splits
from cardiform.cohort.manifest import made_files
from cardiform.errors import InputError, problem
from cardiform.files import read_json
from cardiform.options.ldm import GenerationOptions

log = logging.getLogger("evaluate_samples")


def main() -> None:
    parser = cli.build_parser(__doc__, GenerationOptions)
    group = parser.add_argument_group("files")
    group.add_argument("--samples", required=True, type=Path, help="metrics.json of the samples")
    group.add_argument("--voxels", required=True, type=Path, help="manifest of the voxels")
    group.add_argument("--latents", required=True, type=Path, help="manifest of the latents")
    group.add_argument("--grid", required=True, type=Path, help="grid.json beside the voxels")
    cli.add_split_arguments(group, "train", "test")
    group.add_argument("--out", required=True, type=Path, help="figures to write, JSON")
    options, args = cli.parse(parser, GenerationOptions, out_is_file=True)

    import torch

    from cardiform.ldm.copies import load_latents_of
    from cardiform.ldm.data import load_hearts
    from cardiform.ldm.evaluate import References, evaluate, table_of_figures
    from cardiform.ldm.hearts_on_grid import cut_classes, load_grid
    from cardiform.metrics.record import write_held_out_figures

    grid = load_grid(args.grid)
    samples = sample_names(args.samples)
    folder = args.samples.parent / "nifti"
    made = load_hearts([folder / f"{name}.nii.gz" for name in samples], grid)
    rows = splits.read_splits({part: getattr(args, part) for part in ("train", "test")})
    cases = {part: [name for name, _ in found] for part, found in rows.items()}
    files = {part: made_files([args.voxels], names, ".nii.gz") for part, names in cases.items()}
    real = {part: load_hearts([f.path for f in found], grid) for part, found in files.items()}
    if len(real["test"]) < 2:
        log.warning("%s: fewer than two test cases, so there is nothing to measure by", args.test)
        hearts = {"hearts": {"test": len(real["test"])}}
        write_held_out_figures(args.out, "evaluate_samples", hearts, None)
        return
    names = {part: [f.case_id for f in found] for part, found in files.items()}
    coded = {p: made_files([args.latents], names[p], ".nii.gz") for p in ("train", "test")}
    reconstructed = {p: load_hearts([f.path for f in found], grid) for p, found in coded.items()}
    check_whole(args, made, real["train"], len(reconstructed["test"]), len(real["test"]))
    cut = cut_classes(args.voxels, [*cases["train"], *cases["test"]], grid)
    cuts = {p: [cut.get(f.case_id) for f in found] if cut else [] for p, found in files.items()}
    references = References(
        real["train"],
        real["test"],
        reconstructed["test"],
        cuts["train"],
        cuts["test"],
        reconstructed["train"],
    )
    stored = {p: made_files([args.latents], names[p], ".npz") for p in ("test", "train")}
    latents = load_latents_of(
        [args.samples.parent / "latents" / f"{name}.npz" for name in samples],
        [f.path for f in stored["test"]],
        [f.path for f in stored["train"]],
        args.latents.parent / "statistics.json",
        args.samples,
    )
    # Snakemake hands the threads of a rule on as OMP_NUM_THREADS, which torch reads
    figures = evaluate(made, references, grid, options, latents, torch.get_num_threads())
    for line in table_of_figures(figures):
        log.info("%s", line)
    found = figures["memorisation"]
    found["nearest"] = named(found["nearest"], samples, names["train"])
    if redrawn := read_json(args.samples).get("redrawn"):
        log.info("samples were drawn again until they fit: %s", redrawn)
        figures["redrawn"] = redrawn
    write_held_out_figures(args.out, "evaluate_samples", figures, None)


def sample_names(path: Path) -> list[str]:
    """The samples that a metrics.json of sample_diffusion lists."""
    record = read_json(path)
    samples = record.get("samples") if isinstance(record, dict) else None
    if not isinstance(samples, list):  # a training counts its samples under this key
        remedy = "give the metrics.json of sample_diffusion"
        raise InputError(problem(path, "lists no samples", remedy))
    return samples


def named(nearest: list[dict], samples: list[str], train: list[str]) -> dict[str, dict]:
    """Sample -> the training case that is nearest to it, and how near."""
    return {
        sample: {"case_id": train[found["number"]], "distance": found["distance"]}
        for sample, found in zip(samples, nearest)
    }


def check_whole(args, made, train, coded: int, tested: int) -> None:
    """InputError where hearts of the split, or samples, are missing: all that is, at once."""
    checks = [
        (train, args.train, "has no case among the voxels"),
        (coded == tested, args.latents, f"lacks some of {tested} test cases"),
        (made, args.samples, "lists no sample"),
    ]
    remedy = "give the files of one split and one run"
    if problems := [problem(path, fact, remedy) for fine, path, fact in checks if not fine]:
        raise InputError(problems)


if __name__ == "__main__":
    cli.run(main)
