"""Set-latent diffusion beside the voxel diffusion, on procedural hearts.

    python benchmarks/vecset_completion.py --out HEARTS --train 60 --steps 700 --ways plain
    python benchmarks/set_diffusion.py --hearts HEARTS --out sets

The first call makes hearts, their split and a VecSet (HEARTS/plain_0/model.pt). Both diffusions are
two networks: the VecSet and the diffusion of its latents; an autoencoder of voxels and the
diffusion of its latents. The numbers of steps are such that both first networks take about as many
CPU seconds, and both second ones (seconds are printed). Hearts, split and grid are the same, and so
is what judges them: evaluate_samples on the voxel diffusion's grid, without coronaries, which a
voxel of it cannot hold. With --cohort instead of --hearts they are those of a cohort whose targets
ldm and vecset are made (benchmarks/generation.yaml with generation_sets.yaml). With --sets-on fine
the set diffusion is judged with all classes, on a grid of --fine voxels. Its ways:

fitted   hearts begin as draws of the fitted distribution, and a network changes them
linear   the fitted distribution alone, without a network: a statistical shape model
white    hearts begin as white noise

Prints the figures, and how volumes that are asked for come out. Trainings that are there are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import yaml
from measuring import ROOT

from cardiform import cli
from cardiform.ldm.hearts_on_grid import load_grid
from cardiform.options.sections import SECTIONS

SCRIPTS = ROOT / "workflow" / "scripts"
DEMO = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
CHANGES = {
    "set_diffusion": {
        "dim": 64, "depth": 4, "heads": 4, "batch_size": 8, "lr": 1e-3, "warmup_steps": 20,
        "ema_decay": 0.98, "workers": 0, "known_share": 0.0, "log_every": 20,
    },
    "set_sampling": {"corrections": 2},
    "diffusion": {"volume_hearts": 0},
}  # fmt: skip
WAYS: dict[str, dict] = {
    "fitted": {},
    "linear": {"steps": 1, "lr": 0.0, "final_lr": 0.0, "ema_decay": 0.0},
    "white": {"noise": "white"},
}
ROWS = {
    "train_subset": "training",
    "reconstructed_train": "the same, coded",
    "generated": "generated",
}
ASKED = ("left_ventricle", "left_atrium")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--hearts", type=Path, help="of vecset_completion.py")
    source.add_argument("--cohort", type=Path, help="results of a cohort: results/generation")
    parser.add_argument("--out", required=True, type=Path, help="folder for files")
    parser.add_argument("--fine", type=int, default=48, help="voxels of the grid fine")
    parser.add_argument("--sets-on", choices=("coarse", "fine"), default="coarse")
    parser.add_argument("--samples", type=int, default=24, help="hearts to make")
    parser.add_argument("--set-steps", type=int, default=60)
    parser.add_argument("--autoencoder-steps", type=int, default=600)
    parser.add_argument("--diffusion-steps", type=int, default=130)
    parser.add_argument("--ways", nargs="*", choices=tuple(WAYS), default=tuple(WAYS))
    parser.add_argument("--routes", nargs="*", choices=("sets", "voxel"), default=("sets", "voxel"))
    parser.add_argument("--seed", type=int, default=0, help="of each training")
    parser.add_argument("--set", nargs="*", default=[], help="options of set_diffusion, KEY=VALUE")
    args = parser.parse_args()
    if args.cohort and args.sets_on == "fine":
        parser.error("with --cohort hearts are judged on the grid of its ldm, which is coarse")
    bench = Bench(args)
    bench.make_hearts()
    if "sets" in args.routes:
        bench.encode()
        for way in args.ways:
            bench.make_set_diffusion(way)
        bench.ask(args.ways[0])
    if "voxel" in args.routes:
        bench.make_voxel_diffusion()
    bench.print_table()


class Bench:
    """The stages, each a script, in one folder."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.out = args, args.out
        self.sets = args.out / f"sets_{args.sets_on}"
        cohort = args.cohort
        self.vecset = cohort / "vecset" if cohort else args.hearts / "plain_0"
        self.coarse = cohort / "ldm" / "labels" / "voxels" if cohort else self.out / "coarse"
        split = cohort / "split" if cohort else args.hearts
        config = {name: DEMO.get(name, {}) | CHANGES.get(name, {}) for name in SECTIONS}
        config["set_diffusion"] |= yaml.safe_load("\n".join(args.set).replace("=", ": ")) or {}
        config["cohort"] = {}
        if cohort:  # what benchmarks/generation.yaml has
            config["generation"] = {}
        config["sampling"] = {"num_samples": args.samples}
        config["set_sampling"]["num_samples"] = args.samples
        self.options = cli.from_config(SECTIONS, {k: dict(v) for k, v in config.items()})
        files = (("train", "train"), ("validation", "val"), ("test", "test"))
        self.split = [w for p, n in files for w in (f"--{p}", split / f"{n}.csv")]

    def run(self, script: str, *arguments) -> float:
        """CPU seconds of a script."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, SCRIPTS / f"{script}.py", *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(list(map(str, command)), env=environment, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def flags(self, section: str, **changes) -> list[str]:
        import dataclasses
        import shlex

        return shlex.split(cli.flags(dataclasses.replace(self.options[section], **changes)))

    def make_hearts(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        if self.args.cohort or (self.out / "fine" / "manifest.tsv").exists():
            return
        maps = sorted((self.args.hearts / "labels").resolve().glob("*.nii.gz"))
        rows = [f"{path.name.removesuffix('.nii.gz')}\t{path}" for path in maps]
        (self.out / "table.tsv").write_text("\n".join(["case_id\tlabels", *rows]) + "\n")
        self.run("check_cohort", "--table", self.out / "table.tsv", "--out", self.out)
        self.per_case("resample_labels", "coarse", *self.flags("ldm"))
        edge = load_grid(self.out / "coarse" / "grid.json").edge_mm
        fine = {"voxel_size": self.args.fine, "extent_mm": edge, "drop_classes": ()}
        self.per_case("resample_labels", "fine", *self.flags("ldm", **fine))

    def per_case(self, script: str, folder: str, *arguments) -> None:
        place = self.out / folder
        self.run(script, "--cases", self.out / "cases.tsv", "--out", place,
                 "--manifest", place / "manifest.tsv", *arguments)  # fmt: skip

    def train(self, script: str, section: str, folder: str, *arguments, steps: int, **more):
        """A training of so many steps; its CPU seconds are kept."""
        place = self.out / folder
        if (place / "model.pt").exists():
            return
        quiet = {"preview_every": 0, "seed": self.args.seed, "steps": steps, **more}
        quiet |= {"validate_every": max(steps // 4, 1), "checkpoint_every": steps}
        command = (*self.split[:4], *arguments, "--out", place)
        spent = self.run(script, *command, *self.flags(section, **quiet))
        (place / "seconds.json").write_text(json.dumps([spent, quiet["steps"]]))

    def grid(self, name: str) -> tuple:
        place = self.coarse if name == "coarse" else self.out / name
        return "--voxels", place / "manifest.tsv", "--grid", place / "grid.json"

    def make_voxel_diffusion(self) -> None:
        o = self.out
        voxels = self.grid("coarse")
        given = ("--manifest", voxels[1], *voxels[2:])
        steps = self.args.autoencoder_steps
        self.train("train_autoencoder", "autoencoder", "voxel/autoencoder", *given, steps=steps)
        model = ("--autoencoder", o / "voxel" / "autoencoder" / "model.pt")
        latents = o / "voxel" / "latents"
        self.run("encode_latents", *model, *voxels[:2], *self.split, "--out", latents,
                 "--manifest", latents / "manifest.tsv", *self.flags("latents"))  # fmt: skip
        given = ("--manifest", latents / "manifest.tsv", *model)
        given += ("--statistics", latents / "statistics.json")
        steps = self.args.diffusion_steps
        self.train(
            "train_diffusion", "diffusion", "voxel/diffusion", *given, steps=steps, known_share=0.0
        )
        samples = o / "voxel" / "samples"
        model = ("--model", o / "voxel" / "diffusion" / "model.pt")
        self.run("sample_diffusion", *model, "--out", samples, *self.flags("sampling"))
        self.evaluate(samples, "coarse", latents)

    def encode(self) -> None:
        size = load_grid(self.grid(self.args.sets_on)[3]).size
        latents = self.sets / "latents"
        self.run("encode_set_latents", "--vecset", self.vecset / "model.pt", *self.split,
                 *self.grid(self.args.sets_on), "--out", latents,
                 "--manifest", latents / "manifest.tsv",
                 *self.flags("set_latents", voxel_size=size))  # fmt: skip

    def make_set_diffusion(self, way: str) -> None:
        changes = {"steps": self.args.set_steps} | WAYS[way]
        latents, own = self.sets / "latents", self.sets / way
        given = ("--manifest", latents / "manifest.tsv", "--slots", latents / "slots.npz")
        given += ("--vecset", self.vecset / "model.pt", *self.grid(self.args.sets_on)[2:])
        place = f"sets_{self.args.sets_on}/{way}/model"
        self.train("train_set_diffusion", "set_diffusion", place, *given, **changes)
        model = ("--model", own / "model" / "model.pt", "--out", own / "samples")
        self.run("sample_set_diffusion", *model, *self.flags("set_sampling"))
        self.evaluate(own / "samples", self.args.sets_on, latents)

    def evaluate(self, folder: Path, grid: str, latents: Path) -> None:
        self.run("evaluate_samples", "--samples", folder / "metrics.json", *self.grid(grid),
                 "--latents", latents / "manifest.tsv", *self.split[:2], *self.split[4:],
                 "--out", folder / "figures.json", *self.flags("generation"))  # fmt: skip

    def ask(self, way: str) -> None:
        """Volumes one deviation about the mean of generated hearts, one class at a time."""
        for name in ASKED:
            record = json.loads((self.sets / way / "samples" / "metrics.json").read_text())
            made = record["volume_ml"]
            for sign in (-1, 1):
                wanted = made[name]["mean"] + sign * made[name]["std"]
                out = self.sets / way / f"asked_{name}_{sign}"
                more = self.flags("set_sampling", num_samples=4, volumes=(f"{name}={wanted:.1f}",))
                model = self.sets / way / "model" / "model.pt"
                self.run("sample_set_diffusion", "--model", model, "--out", out, *more)
                print(json.loads((out / "metrics.json").read_text())["asked"])

    def print_table(self) -> None:
        for path in sorted(self.out.rglob("figures.json")):
            folder = path.parent.relative_to(self.out)
            found = json.loads(path.read_text())
            print(f"\n{folder}")
            for row, title in ROWS.items():
                r = found[row]
                cells = [f"{v:.2f}" for v in r["all_classes"].values()]
                cells += [f"{r['volumes']['mean_w1']:.2f}", f"{r['validity']['valid']:.2f}"]
                print(f"| {title} | {' | '.join(cells)} |")
            memory = found["memorisation"]
            print("copies", memory["copies"], "Z_U", memory["z_u"])
            print("validity", found["generated"]["validity"])
        for path in sorted(self.out.rglob("seconds.json")):
            print(path.parent.relative_to(self.out), json.loads(path.read_text()))


if __name__ == "__main__":
    main()
