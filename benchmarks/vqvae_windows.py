"""CT windows in one sparse VQ-VAE against a training for each, on procedural CTs.

    python benchmarks/vqvae_windows.py --folder /tmp/windows

Stages 0, 1 and 2 with half the widths of the demo's network and --codes codes: --steps of stage 0
and of stage 2 for each window alone, and as many times that for all windows together as there are
windows, so that every window has as many steps. The third way is the second with linked windows,
where a sample is a scan. Prints of every window, over the held-out scans with the true structure
given, L1 (voxels) and IoU of the inside from the codes; and over the training scans the share of
the codes that it uses and their perplexity. The whole codebook's use has a row of its own. What is
finished in the folder is not trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import yaml
from measuring import ROOT, timed

WINDOWS = ("lung=-600/1500", "bone=300/1500", "soft_tissue=50/400")
HELD_OUT = 4
MOST_VOXELS = 32_000  # of a micro-batch: all windows of a scan fit


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="scans and models; kept")
    parser.add_argument("--cases", type=int, default=14)
    parser.add_argument("--steps", type=int, default=60, help="of a window, stage 0 and stage 2")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--codes", type=int, default=64)
    args = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    if not (args.folder / "cases.tsv").exists():
        make_scans(args.folder, args.cases, args.resolution)
    bench = Bench(args.folder, args.steps, args.codes)
    ways = {name: bench.train(name, [text], 1) for name, text in bench.windows.items()}
    shared = {n: bench.train(n, WINDOWS, len(WINDOWS)) for n in ("together", "linked")}
    print("| window | way | L1 | IoU | used | perplexity |")
    print("|---|---|---:|---:|---:|---:|")
    for name, alone in ways.items():
        print(row(name, "alone", alone, ""))
        for way, figures in shared.items():
            print(row(name, way, figures, f"_{name}"))
    for way, figures in shared.items():
        print(row("all", way, figures, ""))


def make_scans(folder: Path, cases: int, resolution: int) -> None:
    """CT-like volumes, and the region of every window in them."""

    def run(script: str, *arguments) -> None:
        command = [sys.executable, ROOT / "workflow" / "scripts" / script, *arguments]
        subprocess.run(list(map(str, command)), check=True, stderr=subprocess.DEVNULL)

    run("make_demo_cohort.py", "--out", folder, "--cases", cases)
    run("check_cohort.py", "--table", folder / "cases.tsv", "--out", folder / "results")
    for text in WINDOWS:
        out = folder / text.partition("=")[0]
        places = ("--out", out, "--manifest", out / "manifest.tsv", "--resolution", resolution)
        run("window_ct.py", "--cases", folder / "results" / "cases.tsv", *places, "--windows", text)


class Bench:
    """The scans, the options of the demo, and trainings on some of the windows."""

    def __init__(self, folder: Path, steps: int, codes: int):
        from cardiform import cli
        from cardiform.cohort.table import read_checked_cases
        from cardiform.options.sections import SECTIONS

        self.folder, self.steps = folder, steps
        self.windows = {text.partition("=")[0]: text for text in WINDOWS}
        self.cases = [c.case_id for c in read_checked_cases(folder / "results" / "cases.tsv")]
        config = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
        config["vqvae"] |= {"channels": [8, 16, 32, 64], "max_voxels": MOST_VOXELS}
        config["vqvae_codebook"]["codebook_size"] = codes
        self.options = cli.from_config(SECTIONS, config)

    def sets(self, texts, linked: bool):
        from cardiform.labels import LabelTable
        from cardiform.vqvae.data import VoxelDataset, find_instances
        from cardiform.vqvae.train import Sets
        from cardiform.vqvae.windows import NO_WINDOWS, WindowSet

        windows = WindowSet.parse(texts, linked) if len(texts) > 1 else NO_WINDOWS
        names = [text.partition("=")[0] for text in texts]
        manifests = [self.folder / name / "manifest.tsv" for name in names]
        parts = self.cases[HELD_OUT:], self.cases[:HELD_OUT]
        train, held_out = (find_instances(manifests, part) for part in parts)
        budget = self.options["vqvae"].max_voxels
        return Sets(
            VoxelDataset(train, budget, augment=True, windows=windows),
            VoxelDataset(held_out, budget, augment=False, windows=windows),
            LabelTable(),
        )

    def train(self, name: str, texts, times: int) -> dict:
        """metrics.json of stage 2 of a training."""
        from cardiform.vqvae.train import pretrain, train_codebook, train_jointly

        out = self.folder / "models" / name
        if not (out / "2" / "model.pt").exists():
            changes = {"validate_every": 0, "checkpoint_every": 10**6, "device": "cpu"}
            changes |= {"log_every": 10**6}
            longer = changes | {"steps": times * self.steps}
            network, sets = self.options["vqvae"], self.sets(texts, name == "linked")
            zero, two = (
                dataclasses.replace(self.options[section], **longer)
                for section in ("vqvae_pretrain", "vqvae_joint")
            )
            one = dataclasses.replace(self.options["vqvae_codebook"], min_usage=0.0, **changes)
            seconds = timed(pretrain, network, zero, sets, out / "0")[0]
            timed(train_codebook, network, one, sets, out / "0" / "model.pt", out / "1")
            seconds += timed(train_jointly, network, two, sets, out / "1" / "model.pt", out / "2")[
                0
            ]
            print(f"{name}: {seconds:.0f} CPU s of stages 0 and 2", file=sys.stderr, flush=True)
        return json.loads((out / "2" / "metrics.json").read_text())


def row(window: str, way: str, figures: dict, ending: str) -> str:
    """A line of the table; ``ending`` of the names of the window's figures."""
    held_out, train = figures["validation"], figures["train"]
    cells = [
        f"{held_out[f'l1_voxels{ending}']:.3f}",
        f"{held_out[f'iou{ending}']:.3f}",
        f"{train[f'usage{ending}']:.1%}",
        f"{train[f'perplexity{ending}']:.0f}",
    ]
    return f"| {window} | {way} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
