"""Set-latent diffusion beside the voxel diffusion, at equal CPU seconds, on procedural hearts.

    python benchmarks/set_diffusion.py --out /tmp/sets

Both are two networks: a VecSet and the diffusion of its latents; an autoencoder of voxels and the
diffusion of its latents. Each first network gets --seconds[0] of one CPU thread, each second one
--seconds[1] (the time of a step is measured, the number of steps follows). Hearts, split and grid
are the same, and so is what judges them: evaluate_samples on the voxel diffusion's grid, without
coronaries, which a voxel of it cannot hold. The set diffusion's hearts are written on a finer grid,
and laid on the coarse one as real hearts are. Ways of the set diffusion:

fitted   hearts begin as draws of the fitted distribution, and a network changes them
linear   the fitted distribution alone, without a network: a statistical shape model
white    hearts begin as white noise

Prints the table, and how volumes that are asked for come out. Stages that are there are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from measuring import ROOT

from cardiform import cli
from cardiform.ldm.cube import on_cube
from cardiform.ldm.hearts_on_grid import load_grid
from cardiform.options.sections import SECTIONS
from cardiform.volumes import load_label_map, save_label_map

SCRIPTS = ROOT / "workflow" / "scripts"
DEMO = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
CHANGES = {
    "points": {"surface_points": 20_000, "near_points": 30_000, "volume_points": 20_000},
    "set_diffusion": {
        "dim": 64, "depth": 4, "heads": 4, "batch_size": 8, "lr": 1e-3, "warmup_steps": 20,
        "ema_decay": 0.98, "workers": 0, "known_share": 0.0, "log_every": 20,
    },
    "set_sampling": {"corrections": 2},
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
TRIED = (4, 16)  # steps that tell the time of one
ASKED = ("left_ventricle", "right_ventricle", "left_atrium")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for files")
    parser.add_argument("--train", type=int, default=40, help="hearts to train on")
    parser.add_argument("--validation", type=int, default=4, help="hearts to validate")
    parser.add_argument("--test", type=int, default=16, help="hearts to compare with")
    parser.add_argument("--spacing-mm", type=float, default=2.5, help="voxel edge of the hearts")
    parser.add_argument("--fine", type=int, default=64, help="voxels of the set diffusion's grid")
    parser.add_argument(
        "--seconds", type=int, nargs=2, default=(240, 120), help="CPU, each network"
    )
    parser.add_argument("--ways", nargs="*", choices=tuple(WAYS), default=tuple(WAYS))
    parser.add_argument("--seed", type=int, default=0, help="of each training")
    args = parser.parse_args()
    bench = Bench(args)
    bench.make_hearts()
    bench.make_voxel_diffusion()
    bench.make_vecset()
    for way in args.ways:
        bench.make_set_diffusion(way)
    bench.ask(args.ways[0])
    bench.print_table()


class Bench:
    """The stages, each a script, in one folder."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.out = args, args.out
        config = {name: DEMO.get(name, {}) | CHANGES.get(name, {}) for name in SECTIONS}
        config["cohort"] = {}
        config["sampling"] = {"num_samples": args.test}
        config["set_sampling"]["num_samples"] = args.test
        self.options = cli.from_config(SECTIONS, {k: dict(v) for k, v in config.items()})
        parts = ("train", "val", "test")
        self.split = [word for p, n in zip(("train", "validation", "test"), parts)
                      for word in (f"--{p}", self.out / f"{n}.csv")]  # fmt: skip

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
        a, out = self.args, self.out
        number = a.train + a.validation + a.test
        if (out / "hearts.json").exists():
            return
        size = ("--cases", number, "--spacing-mm", a.spacing_mm, "--coronary-noise", 0)
        self.run("make_demo_cohort", "--out", out / "demo", *size)
        self.run("check_cohort", "--table", out / "demo" / "cases.tsv", "--out", out)
        names = [line.split("\t")[0] for line in (out / "cases.tsv").read_text().splitlines()[1:]]
        bounds = np.cumsum([0, a.train, a.validation, a.test])
        for part, first, last in zip(("train", "val", "test"), bounds, bounds[1:]):
            rows = [f"{n},{n},{out / 'points' / n}.npz" for n in names[first:last]]
            (out / f"{part}.csv").write_text("\n".join(["case_id,patient_id,path", *rows]) + "\n")
        meshes = ("--meshes", out / "meshes")
        self.per_case("extract_meshes", "meshes", *self.flags("meshes"))
        self.per_case("sample_sdf", "points", *meshes, *self.flags("points"))
        self.per_case("resample_labels", "coarse", *self.flags("ldm"))
        edge = load_grid(out / "coarse" / "grid.json").edge_mm
        fine = self.flags("ldm", voxel_size=a.fine, extent_mm=edge, drop_classes=())
        self.per_case("resample_labels", "fine", *fine)
        (out / "hearts.json").write_text("{}")

    def per_case(self, script: str, folder: str, *arguments) -> None:
        place = self.out / folder
        self.run(script, "--cases", self.out / "cases.tsv", "--out", place,
                 "--manifest", place / "manifest.tsv", *arguments)  # fmt: skip

    def train(self, script: str, section: str, folder: str, seconds: float, *arguments, **more):
        """A training of so many CPU seconds; 0: as many steps as its options say."""
        place = self.out / folder
        if (place / "model.pt").exists():
            return
        quiet = {"preview_every": 0, "seed": self.args.seed, **more}
        command = (*self.split[:4], *arguments)
        if seconds:
            taken = []
            for steps in TRIED:
                trial = self.flags(section, **quiet, steps=steps, validate_every=0)
                taken.append(self.run(script, *command, "--out", self.out / "trial", *trial))
                shutil.rmtree(self.out / "trial")
            each = (taken[1] - taken[0]) / (TRIED[1] - TRIED[0])
            steps = max(round(seconds / each), 10)
            rate = max(steps // 4, 1)
            quiet |= {"steps": steps, "validate_every": rate, "checkpoint_every": steps}
            if section == "vecset":
                quiet["eikonal_start"] = steps // 4
        spent = self.run(script, *command, "--out", place, *self.flags(section, **quiet))
        (place / "seconds.json").write_text(json.dumps([spent, quiet.get("steps")]))

    def grid(self, name: str) -> tuple:
        return "--voxels", self.out / name / "manifest.tsv", "--grid", self.out / name / "grid.json"

    def make_voxel_diffusion(self) -> None:
        o, first, second = self.out, *self.args.seconds
        voxels = self.grid("coarse")
        given = ("--manifest", o / "coarse" / "manifest.tsv", *voxels[2:])
        self.train("train_autoencoder", "autoencoder", "voxel/autoencoder", first, *given)
        model = ("--autoencoder", o / "voxel" / "autoencoder" / "model.pt")
        latents = o / "voxel" / "latents"
        self.run("encode_latents", *model, *voxels[:2], *self.split, "--out", latents,
                 "--manifest", latents / "manifest.tsv", *self.flags("latents"))  # fmt: skip
        given = ("--manifest", latents / "manifest.tsv", *model)
        given += ("--statistics", latents / "statistics.json")
        self.train(
            "train_diffusion", "diffusion", "voxel/diffusion", second, *given, known_share=0.0
        )
        samples = o / "voxel" / "samples"
        model = ("--model", o / "voxel" / "diffusion" / "model.pt")
        self.run("sample_diffusion", *model, "--out", samples, *self.flags("sampling"))
        self.evaluate("voxel/samples", "coarse", latents)

    def make_vecset(self) -> None:
        self.train("train_vecset", "vecset", "vecset", self.args.seconds[0])
        latents = self.out / "set_latents"
        self.run("encode_set_latents", "--vecset", self.out / "vecset" / "model.pt", *self.split,
                 *self.grid("fine"), "--out", latents, "--manifest", latents / "manifest.tsv",
                 *self.flags("set_latents", voxel_size=self.args.fine))  # fmt: skip
        self.lay_on_coarse(latents / "reconstructions", self.out / "coarse_latents")

    def make_set_diffusion(self, way: str) -> None:
        o, changes = self.out, WAYS[way]
        latents = o / "set_latents"
        given = ("--manifest", latents / "manifest.tsv", "--slots", latents / "slots.npz")
        given += ("--vecset", o / "vecset" / "model.pt", *self.grid("fine")[2:])
        seconds = 0 if "steps" in changes else self.args.seconds[1]
        self.train(
            "train_set_diffusion", "set_diffusion", f"{way}/model", seconds, *given, **changes
        )
        samples = o / way / "samples"
        model = ("--model", o / way / "model" / "model.pt")
        self.run("sample_set_diffusion", *model, "--out", samples, *self.flags("set_sampling"))
        self.evaluate(f"{way}/samples", "fine", latents)
        shutil.rmtree(o / way / "coarse", ignore_errors=True)
        shutil.copytree(samples, o / way / "coarse")
        self.lay_on_coarse(samples / "nifti", o / way / "coarse" / "nifti", center=np.zeros(3))
        shutil.rmtree(o / way / "coarse" / "latents")
        self.evaluate(f"{way}/coarse", "coarse", o / "coarse_latents")

    def lay_on_coarse(self, source: Path, target: Path, center: np.ndarray | None = None) -> None:
        """Label maps of the fine grid on the coarse one, as resample_labels does it; of cases a
        manifest, too."""
        grid = load_grid(self.out / "coarse" / "grid.json")
        rows = ["case_id\tpath\tbytes\tsha256\tstatus"]
        for path in sorted(source.glob("*.nii.gz")):
            case_id = path.name.removesuffix(".nii.gz")
            fine = load_label_map(path)
            size = np.array(fine.data.shape)
            middle = fine.affine[:3, :3] @ ((size - 1) / 2) + fine.affine[:3, 3]
            cube = grid.cube(middle if center is None else center)
            save_label_map(target / path.name, on_cube(fine, cube, grid.table.values), cube.affine)
            rows.append(f"{case_id}\t{target / path.name}\t0\t0\tok")
        (target / "manifest.tsv").write_text("\n".join(rows) + "\n")

    def evaluate(self, samples: str, grid: str, latents: Path) -> None:
        folder = self.out / samples
        self.run("evaluate_samples", "--samples", folder / "metrics.json", *self.grid(grid),
                 "--latents", latents / "manifest.tsv", *self.split[:2], *self.split[4:],
                 "--out", folder / "figures.json", *self.flags("generation"))  # fmt: skip

    def ask(self, way: str) -> None:
        """Volumes one deviation below and above those of training hearts, one class at a time."""
        for name in ASKED:
            made = json.loads((self.out / way / "samples" / "metrics.json").read_text())[
                "volume_ml"
            ]
            for sign in (-1, 1):
                wanted = made[name]["mean"] + sign * made[name]["std"]
                out = self.out / way / f"asked_{name}_{sign}"
                more = self.flags("set_sampling", num_samples=4, volumes=(f"{name}={wanted:.1f}",))
                model = self.out / way / "model" / "model.pt"
                self.run("sample_set_diffusion", "--model", model, "--out", out, *more)
                print(json.loads((out / "metrics.json").read_text())["asked"])

    def print_table(self) -> None:
        for folder in (
            "voxel/samples",
            *(f"{w}/{g}" for w in self.args.ways for g in ("coarse", "samples")),
        ):
            found = json.loads((self.out / folder / "figures.json").read_text())
            print(f"\n{folder}")
            for row, title in ROWS.items():
                r = found[row]
                cells = [f"{v:.2f}" for v in r["all_classes"].values()]
                cells += [f"{r['volumes']['mean_w1']:.2f}", f"{r['validity']['valid']:.2f}"]
                print(f"| {title} | {' | '.join(cells)} |")
            memory = found["memorisation"]
            print(
                "copies",
                memory["copies"],
                "Z_U",
                memory["z_u"],
                "missing",
                found["generated"]["validity"],
            )
        for path in sorted(self.out.rglob("seconds.json")):
            print(path.parent.relative_to(self.out), json.loads(path.read_text()))


if __name__ == "__main__":
    main()
