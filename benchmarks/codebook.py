"""Ways to find a codebook, after stage 1 and after stage 2, on a finished demo.

    python3 run.py demo && python benchmarks/codebook.py

Every way starts from the demo's own stage 0 and has the demo's settings. Prints L1 (voxels) and
sign IoU over the validation cases with the true structure given, and the share of the codes that
the training split uses with its perplexity. FSQ has as many codes as the codebook, nearly.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import yaml
from measuring import ROOT

WAYS = {
    "gradient, N(0, 1)": {"method": "gradient"},
    "k-means": {"method": "kmeans"},
    "k-means + EMA + revival": {"method": "kmeans_ema"},
    "FSQ": {"quantizer": "fsq", "fsq_levels": (8, 8, 4)},
}


def main() -> None:
    from cardiform import cli
    from cardiform.options.sections import SECTIONS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=Path("results/demo"))
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "demo.yaml")
    args = parser.parse_args()
    options = cli.from_config(SECTIONS, yaml.safe_load(args.config.read_text()))
    network, joint = options["vqvae"], options["vqvae_joint"]
    resolution = options["voxels"].resolution
    files = [
        f"--{p}={args.results}/split/{f}.csv" for p, f in (("train",) * 2, ("validation", "val"))
    ]
    manifests = sorted((args.results / "sparse" / str(resolution) / "manifest").glob("*.tsv"))
    continuous = args.results / "vqvae" / "stage0"

    def run(script: str, weights: Path, out: Path, *sections) -> dict:
        command = [sys.executable, ROOT / "workflow" / "scripts" / script, *files]
        command += ["--manifest", *manifests, "--weights", weights / "model.pt", "--out", out]
        for section in (network, *sections):
            command += shlex.split(cli.flags(section))
        subprocess.run(list(map(str, command)), check=True, stderr=subprocess.DEVNULL)
        return json.loads((out / "metrics.json").read_text())

    print("| | stage 1: L1 | IoU | used | perplexity | stage 2: L1 | IoU | used | perplexity |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    figures = json.loads((continuous / "metrics.json").read_text())["validation"]
    print(f"| continuous | {figures['l1_voxels']:.3f} | {figures['iou']:.3f} | | | | | | |")
    for name, changes in WAYS.items():
        # as many gradient steps as the joint training has
        changed = {"steps": joint.steps, "warmup_steps": joint.warmup_steps, "min_usage": 0.0}
        changed |= {"preview_every": 0, "validate_every": joint.validate_every, "ema_decay": 0.0}
        codebook = replace(options["vqvae_codebook"], **changed, **changes)
        with tempfile.TemporaryDirectory() as folder:
            one = run("train_codebook.py", continuous, Path(folder) / "1", codebook)
            two = run("train_vqvae.py", Path(folder) / "1", Path(folder) / "2", joint)
        cells = [cell for figures in (one, two) for cell in row(figures)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def row(figures: dict) -> list[str]:
    held_out, train = figures["validation"], figures["train"]
    return [
        f"{held_out['l1_voxels']:.3f}",
        f"{held_out['iou']:.3f}",
        f"{train['usage']:.1%}",
        f"{train['perplexity']:.0f}",
    ]


if __name__ == "__main__":
    main()
