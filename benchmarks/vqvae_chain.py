"""Stage 0 of the sparse VQ-VAE by way of a coarser resolution, against its own alone.

    python benchmarks/vqvae_chain.py --folder /tmp/chain

Procedural hearts, each class a structure as in the demo, with its true coronaries. Both ways take
the same CPU seconds, one thread: a third of the chain's are steps at the coarser resolution. Steps
are timed at each resolution first. Then the held-out hearts are reconstructed, free-running, by
the continuous autoencoder. Prints for every seed the steps, the CPU seconds that they took,
validations included, L1 (voxels, mean over classes and hearts) and Dice on the label map's own
grid, also of the coronaries alone. --stage2 trains stages 1 and 2 from the way without a chain, for
as many seconds, with all levels from the start and with progressive unfreezing. --gap trains
nothing: of the way without a chain it prints L1 of training hearts beside that of held-out ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from measuring import ROOT, timed

FINE, COARSE = 128, 64
TRAINED, VALIDATED = 16, 3  # the others are held out
VOXELS = {FINE: 90_000, COARSE: 24_000}  # of a micro-batch: about as many structures
SHARE = 1 / 3  # of the chain's seconds, for the coarser resolution
TIMED_STEPS = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="hearts and models; kept")
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=110, help="CPU seconds of steps of a way")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--stage2", action="store_true")
    parser.add_argument("--gap", action="store_true")
    args = parser.parse_args()

    import torch

    torch.set_num_threads(1)
    if not (args.folder / "cases.tsv").exists():
        make_hearts(args.folder, args.cases)
    bench = Bench(args.folder)
    if args.gap:
        for seed in args.seeds:
            model = args.folder / f"seed{seed}" / "alone" / "model.pt"
            seen = bench.figures(model, bench.cases[: len(bench.cases) - TRAINED - VALIDATED])[0]
            print(f"seed {seed}: L1 {seen:.3f} trained, {bench.held_out(model)[0]:.3f} held out")
        return
    print("| seed | way | steps | CPU s | L1 | Dice | coronaries: L1 | Dice |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    for seed in args.seeds:
        for name, steps, seconds, model in (bench.joint if args.stage2 else bench.ways)(
            args.seconds, seed
        ):
            l1, dice, thin_l1, thin = bench.held_out(model, args.stage2)
            cells = f"{steps} | {seconds:.0f} | {l1:.3f} | {dice:.3f} | {thin_l1:.3f} | {thin:.3f}"
            print(f"| {seed} | {name} | {cells} |", flush=True)


def make_hearts(folder: Path, cases: int, resolutions=(COARSE, FINE)) -> None:
    """Label maps, meshes and sparse voxels."""

    def run(script: str, *arguments) -> None:
        command = [sys.executable, ROOT / "workflow" / "scripts" / script, *arguments]
        subprocess.run(list(map(str, command)), check=True, stderr=subprocess.DEVNULL)

    run("make_demo_cohort.py", "--out", folder, "--cases", cases, "--coronary-noise", 0)
    read = ("--cases", folder / "results" / "cases.tsv")
    run("check_cohort.py", "--table", folder / "cases.tsv", "--out", folder / "results")
    meshes = ("--meshes", folder / "meshes")
    run("extract_meshes.py", *read, "--out", folder / "meshes", "--manifest", folder / "m.tsv")
    for resolution in resolutions:
        out = folder / str(resolution)
        places = ("--out", out, "--manifest", out / "manifest.tsv", "--resolution", resolution)
        run("voxelize_labels.py", *read, *meshes, *places)


class Bench:
    """The hearts, the options of the demo, and trainings of so many seconds."""

    def __init__(self, folder: Path, trained: int = TRAINED, validated: int = VALIDATED):
        from cardiform import cli, labels
        from cardiform.cohort.table import read_checked_cases
        from cardiform.options.sections import SECTIONS

        self.folder, self.table = folder, labels.load_label_table("")
        self.trained, self.validated = trained, validated
        self.cases = read_checked_cases(folder / "results" / "cases.tsv")
        config = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
        self.options = cli.from_config(SECTIONS, config)
        self.network = dataclasses.replace(self.options["vqvae"], max_voxels=VOXELS[FINE])
        self.step_seconds: dict[str, float] = {}

    def sets(self, resolution: int, seed: int):
        from cardiform.vqvae.data import VoxelDataset, find_instances
        from cardiform.vqvae.train import Sets

        names = [case.case_id for case in self.cases]
        last = self.trained + self.validated
        parts = names[: self.trained], names[self.trained : last]
        manifest = self.folder / str(resolution) / "manifest.tsv"
        train, validation = (find_instances([manifest], part) for part in parts)
        budget = VOXELS[resolution]
        return Sets(
            VoxelDataset(train, budget, augment=True, seed=seed),
            VoxelDataset(validation, budget, augment=False),
            self.table,
        )

    def training(self, section: str, seconds: float, seed: int, name: str, train, sets) -> tuple:
        """Steps, CPU seconds and model.pt of a training of about so many seconds of steps."""
        options = dataclasses.replace(
            self.options[section], seed=seed, validate_every=0, checkpoint_every=10**6,
            log_every=10**6, device="cpu",
        )  # fmt: skip
        kind = f"{section} {sets.train.instances[0].kind}"
        if kind not in self.step_seconds:
            spent = []
            for count in (2, 2 + TIMED_STEPS):
                brief = dataclasses.replace(options, steps=count)
                with tempfile.TemporaryDirectory() as out:
                    spent.append(timed(train, brief, sets, Path(out))[0])
            self.step_seconds[kind] = (spent[1] - spent[0]) / TIMED_STEPS
        steps = round(seconds / self.step_seconds[kind])
        out = self.folder / f"seed{seed}" / name
        shutil.rmtree(out, ignore_errors=True)  # or it would be found finished
        longer = dataclasses.replace(options, steps=steps)
        return steps, timed(train, longer, sets, out)[0], out / "model.pt"

    def stage0(self, resolution: int, seconds: float, seed: int, name: str, weights=None) -> tuple:
        from cardiform.vqvae.train import pretrain

        network = dataclasses.replace(self.network, max_voxels=VOXELS[resolution])

        def train(options, sets, out):
            pretrain(network, options, sets, out, weights)

        sets = self.sets(resolution, seed)
        return self.training("vqvae_pretrain", seconds, seed, name, train, sets)

    def ways(self, seconds: float, seed: int):
        """Name, steps, CPU seconds and model.pt of each way."""
        yield f"{FINE}^3", *self.stage0(FINE, seconds, seed, "alone")
        first, spent, weights = self.stage0(COARSE, SHARE * seconds, seed, "coarse")
        steps, more, model = self.stage0(FINE, (1 - SHARE) * seconds, seed, "chain", weights)
        yield f"{COARSE}^3, {FINE}^3", f"{first} + {steps}", spent + more, model

    def joint(self, seconds: float, seed: int):
        """Stage 2 with all levels from the start, and with a level more after each quarter."""
        from cardiform.vqvae.train import train_codebook, train_jointly

        sets = self.sets(FINE, seed)
        before, start = (self.folder / f"seed{seed}" / name for name in ("alone", "codes"))
        codebook = dataclasses.replace(
            self.options["vqvae_codebook"], seed=seed, device="cpu", min_usage=0.0
        )
        train_codebook(self.network, codebook, sets, before / "model.pt", start)
        for share in (0, 4):

            def train(options, sets, out, share=share):
                held = options.steps // share if share and options.steps > TIMED_STEPS + 2 else 0
                options = dataclasses.replace(options, unfreeze_steps=held)
                train_jointly(self.network, options, sets, start / "model.pt", out)

            name = "unfreezing" if share else "all levels"
            found = self.training("vqvae_joint", seconds, seed, name.replace(" ", "_"), train, sets)
            yield name, *found

    def held_out(self, model: Path, quantised: bool = False) -> tuple[float, float, float, float]:
        """Figures of the hearts that are held out."""
        return self.figures(model, self.cases[self.trained + self.validated :], quantised)

    def figures(
        self, model: Path, cases, quantised: bool = False
    ) -> tuple[float, float, float, float]:
        """L1 and Dice over all classes, and of the coronaries; from codes where ``quantised``."""
        import torch

        from cardiform.vqvae.data import find_instances
        from cardiform.vqvae.reconstruct import BandNetwork, NarrowBand, Truth, put_through
        from cardiform.vqvae.trained import load_network

        network = BandNetwork(load_network(model, quantised), torch.device("cpu"))
        rows = []
        for case in cases:
            manifest = self.folder / str(FINE) / "manifest.tsv"
            found = find_instances([manifest], [case.case_id])
            bands = {i.name: NarrowBand.load(i.path) for i in found}
            truth = Truth.of_labels(case, self.table, self.folder / "meshes")
            figures = put_through(network.reconstruct(bands), bands, truth, surfaces=False)[1]
            values = [(f["l1_voxels"], f["dice"]) for f in map(figures.get, bands)]
            thin = figures["coronary"]
            rows.append([*np.mean(values, axis=0), thin["l1_voxels"], thin["dice"]])
        return tuple(np.mean(rows, axis=0))


if __name__ == "__main__":
    main()
