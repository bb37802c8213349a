"""Every training by itself, on three coarse hearts, at the size of tiny_config."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch
from inside import run_inside
from tiny_config import TINY

from cardiform import cli
from cardiform.options.sections import SECTIONS

TRAIN, HELD_OUT = ("phantom_000", "phantom_001"), "phantom_002"


class Trainings:
    """Three coarse hearts, all that the trainings read, and the command line of each training.

    A training is named by its config section; ``codebook_by_gradient`` is stage 1 of the VQ-VAE
    through the training loop.
    """

    NAMES = (
        "vecset", "vqvae_pretrain", "vqvae_codebook", "codebook_by_gradient", "vqvae_joint",
        "coronary", "coronary_near", "autoencoder", "diffusion", "set_diffusion",
    )  # fmt: skip
    SPACING_MM = 4.0  # of the hearts

    def __init__(self, folder: Path, **changes):
        """changes : keys of every training."""
        self.folder = folder
        trainings = {n for n in self.NAMES if n in SECTIONS}
        sections = {n: TINY.get(n, {}) | (changes if n in trainings else {}) for n in SECTIONS}
        sections["vqvae_codebook"]["revive_below"] = 0.95  # so codes die within a few steps
        self.options = cli.from_config(SECTIONS, sections)
        self.cases = ("--cases", folder / "cases.tsv")
        demo = folder / "demo"
        size = ("--cases", 3, "--spacing-mm", self.SPACING_MM)
        self.must("make_demo_cohort.py", "--out", demo, *size)
        self.must("check_cohort.py", "--table", demo / "cases.tsv", "--out", folder)
        for part, names in (("train", TRAIN), ("val", (HELD_OUT,)), ("test", ())):
            rows = [f"{n},{n},{folder / 'points' / n}.npz" for n in names]
            (folder / f"{part}.csv").write_text(
                "\n".join(["case_id,patient_id,path", *rows]) + "\n"
            )
        self.split = ("--train", folder / "train.csv", "--validation", folder / "val.csv")
        meshes = ("--meshes", folder / "meshes")
        self.make("extract_meshes.py", "meshes")
        self.make("sample_sdf.py", "points", *meshes)
        self.make("voxelize_labels.py", "voxels", *meshes)
        self.make("repair_coronary.py", "coronary_repair")
        self.make("resample_labels.py", "ldm")

    def must(self, script: str, *arguments) -> None:
        result = run_inside(script, *arguments)
        assert result.returncode == 0, result.stderr

    def make(self, script: str, section: str, *arguments) -> None:
        """Run a per-case stage into the folder of its section."""
        places = ("--out", self.folder / section, "--manifest", self.manifest(section))
        self.must(script, *self.cases, *places, *arguments, *self.flags(section))

    def manifest(self, section: str) -> Path:
        return self.folder / section / "manifest.tsv"

    def flags(self, *sections: str) -> list[str]:
        return [w for name in sections for w in shlex.split(cli.flags(self.options[name]))]

    def command(self, name: str, out: Path, *more) -> list[str]:
        """Script and arguments of a training into ``out``; ``more`` is said last and holds.

        Inputs that other trainings make lie in the folder of this object: run
        :meth:`make_models` once.
        """
        script, arguments = {
            "vecset": ("train_vecset", self.flags("vecset")),
            "vqvae_pretrain": ("pretrain_vqvae", self._vqvae("vqvae_pretrain")),
            "vqvae_codebook": ("train_codebook", self._vqvae("vqvae_codebook", "vqvae_pretrain")),
            "codebook_by_gradient": (
                "train_codebook",
                [
                    *self._vqvae("vqvae_codebook", "vqvae_pretrain"),
                    *("--method", "gradient", "--min-usage", 0),
                ],
            ),
            "vqvae_joint": ("train_vqvae", self._vqvae("vqvae_joint", "vqvae_codebook")),
            "coronary": ("train_coronary", self._coronary("coronary", "coronary_repair")),
            "coronary_near": (
                "train_coronary",
                ["--preset", "near", *self._coronary("coronary_near")],
            ),
            "autoencoder": (
                "train_autoencoder",
                ["--manifest", self.manifest("ldm"), "--grid", self.folder / "ldm" / "grid.json"]
                + self.flags("autoencoder"),
            ),
            "diffusion": (
                "train_diffusion",
                ["--manifest", self.manifest("latents"), "--autoencoder", self.model("autoencoder")]
                + ["--statistics", self.folder / "latents" / "statistics.json"]
                + self.flags("diffusion"),
            ),
            "set_diffusion": (
                "train_set_diffusion",
                ["--manifest", self.manifest("set_latents"), "--vecset", self.model("vecset")]
                + ["--slots", self.folder / "set_latents" / "slots.npz"]
                + ["--grid", self.folder / "ldm" / "grid.json", *self.flags("set_diffusion")],
            ),
        }[name]
        return [f"{script}.py", *map(str, (*self.split, "--out", out, *arguments, *more))]

    def model(self, name: str) -> Path:
        return self.folder / name / "model.pt"

    def make_models(self, *more) -> None:
        """Every training in this process, and the latents before the diffusions."""
        for name in self.NAMES:
            if name == "set_diffusion":
                self.must(*self.encode_sets(self.folder / "set_latents"))
            if name == "diffusion":
                files = ("--voxels", self.manifest("ldm"), "--test", self.folder / "test.csv")
                files += ("--autoencoder", self.model("autoencoder"), *self.split)
                files += ("--out", self.folder / "latents", "--manifest", self.manifest("latents"))
                self.must("encode_latents.py", *files, *self.flags("latents"))
            self.must(*self.command(name, self.folder / name, *more))

    def encode_sets(self, out: Path, vecset: Path | None = None) -> list:
        """Script and arguments that encode the hearts by a VecSet; None: by the trained one."""
        files = ("--voxels", self.manifest("ldm"), "--grid", self.folder / "ldm" / "grid.json")
        files += ("--vecset", vecset or self.model("vecset"))
        files += (*self.split, "--test", self.folder / "test.csv")
        files += ("--out", out, "--manifest", out / "manifest.tsv")
        return ["encode_set_latents.py", *files, *self.flags("set_latents")]

    def make_balls(self) -> None:
        """``balls/model.pt``, a VecSet that makes a ball of every class, as large as its heart: one
        of two steps makes no surface. With latents, and a split that learns from all hearts."""
        place = self.folder / "balls"
        place.mkdir()
        content = torch.load(self.model("vecset"), weights_only=True)
        content["weights"]["head.bias"].fill_(-0.05)
        torch.save(content, place / "model.pt")
        self.must(*self.encode_sets(place / "latents", place / "model.pt"))
        names = {"train": (*TRAIN, HELD_OUT), "validation": (), "test": ()}
        for part, own in names.items():
            rows = [f"{n},{n},{self.folder / 'points' / n}.npz" for n in own]
            lines = ["case_id,patient_id,path", *rows]
            (place / f"{part}.csv").write_text("\n".join(lines) + "\n")

    def latent_statistics(self, out: Path, *more) -> list:
        """Script and arguments, of the hearts of :meth:`make_balls`."""
        place = self.folder / "balls"
        split = [w for p in ("train", "validation", "test") for w in (f"--{p}", place / f"{p}.csv")]
        return [
            *("latent_statistics.py", "--vecset", place / "model.pt", *split, "--out", out),
            *("--latents", place / "latents" / "manifest.tsv", "--device", "cpu"),
            *("--slots", place / "latents" / "slots.npz", "--mesh-mm", 20, "--most-modes", 1),
            *("--classes", "left_ventricle,right_ventricle", "--pairs", 0, "--samples", 1, *more),
        ]

    def _vqvae(self, stage: str, weights: str = "") -> list:
        start = ["--weights", self.model(weights)] if weights else []
        return ["--manifest", self.manifest("voxels"), *start, *self.flags("vqvae", stage)]

    def _coronary(self, *sections: str) -> list:
        return ["--manifest", self.manifest("coronary_repair"), *self.flags(*sections)]
