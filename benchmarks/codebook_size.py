"""A codebook of full size on procedural hearts: how much of it is used, and what it is worth.

    python benchmarks/codebook_size.py --folder /tmp/codebook_size

Hearts with true coronaries at 128^3, each class a structure, the demo's network. Stage 0 is trained
once. From it codebooks of --sizes codes are made by k-means from random latents and moving means,
the largest from k-means++ as well; stage 2 goes on from those of random latents. Over held-out
hearts, which nothing was chosen by: L1 (voxels) and IoU of the inside with the true structure
given, then free-running L1 and Dice, also of the coronaries alone. Over the training hearts: the
share of the codes that they use, and their perplexity. What is finished in the folder is not
trained again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

from measuring import timed
from vqvae_chain import FINE, Bench, make_hearts

log = logging.getLogger(__name__)
PLUS_PLUS = "k-means++"
QUIET = {"validate_every": 0, "checkpoint_every": 250, "log_every": 50, "device": "cpu"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="hearts and models; kept")
    parser.add_argument("--train", type=int, default=300, help="hearts to train on")
    parser.add_argument("--held-out", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1000, help="of stage 0")
    parser.add_argument("--joint-steps", type=int, default=400, help="of each stage 2")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 8192])
    args = parser.parse_args()

    import torch

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    if not (args.folder / str(FINE) / "manifest.tsv").exists():
        make_hearts(args.folder, args.train + args.held_out, (FINE,))
    # the held-out hearts are the validation cases: they are looked at before and after a training
    bench = Sizes(args.folder, args.train, args.held_out)
    titles = ("stage", "codes", "start", "CPU s", "L1", "IoU", "used", "perplexity")
    titles += ("free-running: L1", "Dice", "coronaries: L1", "Dice")
    print(f"| {' | '.join(titles)} |\n|---|---:|---|{'---:|' * (len(titles) - 3)}", flush=True)
    start = bench.continuous(args.steps)
    print(bench.row("0", "", "", start, quantised=False), flush=True)
    for size, first in [*((n, "random") for n in args.sizes), (max(args.sizes), PLUS_PLUS)]:
        print(bench.row("1", size, first, bench.codes(size, first, start)), flush=True)
    for size in args.sizes:
        model = bench.joint(size, "random", args.joint_steps)
        print(bench.row("2", size, "random", model), flush=True)


class Sizes(Bench):
    """Trainings of the three stages on the hearts of a folder."""

    def out(self, *names) -> Path:
        return self.folder / "models" / "_".join(map(str, names))

    def staged(self, section: str, **changes):
        return dataclasses.replace(self.options[section], **(QUIET | changes))

    def finished(self, out: Path, train, *arguments) -> Path:
        """model.pt of a training, and beside it what it took."""
        if not (out / "model.pt").exists():
            seconds = timed(train, *arguments, out)[0]
            (out / "seconds.json").write_text(json.dumps(seconds))
        return out / "model.pt"

    @property
    def data(self):
        return self.sets(FINE, 0)

    def continuous(self, steps: int) -> Path:
        from cardiform.vqvae.train import pretrain

        stage = self.staged("vqvae_pretrain", steps=steps)
        return self.finished(self.out("0"), pretrain, self.network, stage, self.data)

    def codes(self, size: int, first: str, weights: Path) -> Path:
        """Stage 1."""
        from cardiform.vqvae import codebook, train

        changes = {"codebook_size": size, "min_usage": 0.0, "revive_below": 0.05}
        stage = self.staged("vqvae_codebook", **changes)
        out = self.out("1", size, first)
        with ExitStack() as patches:
            patches.enter_context(mock.patch.object(train, "cached_latents", self.kept_latents))
            if first == PLUS_PLUS:
                patches.enter_context(mock.patch.object(codebook, "kmeans", kmeans_plus_plus))
            return self.finished(out, train.train_codebook, self.network, stage, self.data, weights)

    def kept_latents(self, model, dataset, stage, device):
        """Those of stage 0, which every stage 1 has."""
        import torch

        from cardiform.vqvae.codebook import CachedLatents, cached_latents

        path = self.folder / "latents.pt"
        if not path.exists():
            torch.save(cached_latents(model, dataset, stage, device).values, path)
        return CachedLatents(torch.load(path, weights_only=True))

    def joint(self, size: int, first: str, steps: int) -> Path:
        from cardiform.vqvae.train import train_jointly

        weights = self.out("1", size, first) / "model.pt"
        stage = self.staged("vqvae_joint", steps=steps)
        out = self.out("2", size, first)
        return self.finished(out, train_jointly, self.network, stage, self.data, weights)

    def row(self, stage: str, codes, start: str, model: Path, quantised: bool = True) -> str:
        figures = json.loads((model.parent / "metrics.json").read_text())
        seconds = json.loads((model.parent / "seconds.json").read_text())
        seen, train = figures["validation"], figures.get("train", {})
        cells = [stage, str(codes), start, f"{seconds:.0f}"]
        cells += [f"{seen['l1_voxels']:.3f}", f"{seen['iou']:.3f}"]
        cells += (
            [f"{train['usage']:.1%}", f"{train['perplexity']:.0f}"]
            if "usage" in train
            else ["", ""]
        )
        cells += [f"{value:.3f}" for value in self.free_running(model, quantised)]
        return f"| {' | '.join(cells)} |"

    def free_running(self, model: Path, quantised: bool) -> list[float]:
        path = model.parent / "free_running.json"
        if not path.exists():
            found = self.figures(model, self.cases[self.trained :], quantised)
            path.write_text(json.dumps([float(value) for value in found]))
        return json.loads(path.read_text())


def kmeans_plus_plus(latents, size: int, iterations: int, generator):
    """k-means from latents drawn by their squared distance to those drawn before.

    Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding" (2007).
    """
    import torch

    from cardiform.vqvae.quantizer import lloyd

    latents = latents.float()
    codes = latents.new_empty(size, latents.shape[1])
    row = int(torch.randint(len(latents), (), generator=generator))
    square = latents.square().sum(dim=1)
    least = latents.new_full((len(latents),), torch.inf)
    for i in range(size):
        codes[i] = latents[row]
        distance = square - 2 * (latents @ codes[i]) + square[row]
        least = torch.minimum(least, distance.clamp(min=0))
        total = least.double().cumsum(dim=0)
        drawn = torch.rand((), generator=generator, dtype=torch.float64) * total[-1]
        row = int(torch.searchsorted(total, drawn).clamp(max=len(latents) - 1))
    log.info("k-means++ has drawn %d latents", size)
    return lloyd(latents, codes, iterations)


if __name__ == "__main__":
    main()
