"""Memory and time of a training step of the sparse VQ-VAE.

    python benchmarks/vqvae_memory.py --config config/full.yaml

One sample, the band of +-3 voxels about a curved shell, fp32, each variant in a process of its
own with one thread: as configured, and with checkpointing. Prints the parameters, and per active
voxel the peak memory above weights and optimizer state, and the CPU microseconds.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import sparse_conv
import yaml
from measuring import ROOT, peak_mib, resident_mib, run_child, timed

RESOLUTION = 128


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "full.yaml")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.config, args.child == "checkpointing")))
        return
    print("| | parameters | voxels | kB per voxel | CPU us per voxel |\n|---|---:|---:|---:|---:|")
    for variant in ("plain", "checkpointing"):
        found = run_child(__file__, variant, "--config", args.config)
        cells = f"{found['parameters']:,} | {found['voxels']:,} | {found['bytes'] / 1e3:.2f}"
        print(f"| {variant} | {cells} | {found['seconds'] * 1e6:.0f} |", flush=True)


def measure(config: Path, checkpointing: bool) -> dict:
    import torch

    from cardiform import cli
    from cardiform.options.sections import SECTIONS
    from cardiform.vqvae.model import SparseVQVAE
    from cardiform.vqvae.task import VqvaeTask

    torch.set_num_threads(1)
    torch.manual_seed(0)
    options = cli.from_config(SECTIONS, yaml.safe_load(config.read_text()))
    network = replace(options["vqvae"], checkpointing=checkpointing)
    model = SparseVQVAE.from_options(network, options["vqvae_codebook"])
    task = VqvaeTask.joint(model, network, options["vqvae_joint"], options["vqvae_codebook"])
    optimizer = torch.optim.AdamW(task.parameters("model"), lr=0.0)
    sparse_conv.HALF_BAND = 3.0
    coords = sparse_conv.shell(RESOLUTION)

    def step(coords) -> None:
        batch = {
            "coords": torch.nn.functional.pad(coords.int(), (1, 0)),
            "sdf": torch.rand(len(coords), 1),
            "samples": 1,
            "resolution": RESOLUTION,
            "band_voxels": 3.0,
        }
        task.loss(batch, "model", 0)[0].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)  # the gradients count as state

    step(coords[:500])
    before = resident_mib()
    seconds, _ = timed(step, coords)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "voxels": len(coords),
        "bytes": (peak_mib() - before) * 2**20 / len(coords),
        "seconds": seconds / len(coords),
    }


if __name__ == "__main__":
    main()
