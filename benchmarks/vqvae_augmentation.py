"""Augmentation of the sparse VQ-VAE beyond the cube's symmetries: which of it helps.

    python benchmarks/vqvae_augmentation.py --folder /tmp/augmentation

Procedural hearts with their true coronaries at 64^3, the demo's network and settings, few hearts
to train on (--trained): stage 0, then the codebook of stage 1. Every way but ``twice`` sees the
same structures in the same steps. All have the symmetries; on top come the kinds of
vqvae.deformations or, here alone,

cutout : the structure is cut by a random plane and closed there: max(d, plane).
union  : another structure is put across it: min(d, other), a mixup of which distances are left.
twice  : symmetries alone, twice the voxels in a step: about as many as union has.

Prints the CPU seconds of stage 0 and, free-running on the held-out hearts: L1 (voxels) of all
classes, L1 and Dice of chambers and vessels, and of the coronaries; from the codes L1 of all
classes; codes that the training uses and their perplexity; L1 of all classes on hearts of the
training. --cost times a sample instead, at 64^3 and 128^3; --shell a sphere of that radius (voxels)
at 512^3 under all three kinds, and prints how much memory the process took at most.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from measuring import timed
from vqvae_chain import COARSE, FINE, TRAINED, VALIDATED, Bench, make_hearts

from cardiform.geometry.closed_band import fill_sign
from cardiform.geometry.narrowband import NarrowBand
from cardiform.vqvae.augmentation import deformed
from cardiform.vqvae.data import VoxelDataset, find_instances
from cardiform.vqvae.reconstruct import BandNetwork, Truth, band_figures, put_through, solid_of
from cardiform.vqvae.train import Sets, pretrain, train_codebook
from cardiform.vqvae.trained import load_network

KINDS = ("rotation", "scaling", "elastic")
WAYS = ("symmetries", *KINDS, "all three", "cutout", "union", "twice")
VOXELS = {COARSE: 14_000, FINE: 45_000}  # of a micro-batch: about two structures
SEEN = 3  # hearts of the training that are reconstructed too
THIN = "coronary"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="hearts and models; kept")
    parser.add_argument("--trained", type=int, default=8, help="hearts to train on, at most 16")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--shell", type=float, help="voxels; needs no --folder")
    args = parser.parse_args()

    torch.set_num_threads(1)
    if args.shell:
        print_shell(args.shell)
        return
    if not args.folder:
        parser.error("--folder is needed")
    if not (args.folder / "cases.tsv").exists():
        make_hearts(args.folder, 24)
    bench = Ways(args.folder, args.trained, args.steps)
    if args.cost:
        bench.print_cost()
        return
    print(
        "| way | seed | CPU s | L1 | chambers and vessels: L1 | Dice | coronaries: L1 | Dice "
        "| codes: L1 | used | perplexity | L1 trained |\n|---" + 11 * "|---:" + "|"
    )
    for seed in args.seeds:
        for way in args.ways:
            cells = " | ".join(f"{value:.3f}" for value in bench.row(way, seed))
            print(f"| {way} | {seed} | {cells} |", flush=True)


class Ways(Bench):
    """Trainings at 64^3 that differ in the augmentation alone."""

    def __init__(self, folder: Path, trained: int, steps: int):
        super().__init__(folder)
        self.trained, self.steps = trained, steps

    def instances(self, cases, resolution: int = COARSE):
        manifest = self.folder / str(resolution) / "manifest.tsv"
        return find_instances([manifest], [case.case_id for case in cases])

    def dataset(self, way: str, seed: int, resolution: int = COARSE):
        kinds = KINDS if way == "all three" else (way,) if way in KINDS else ()
        instances = self.instances(self.cases[: self.trained], resolution)
        data = VoxelDataset(instances, 10**9, augment=True, deformations=kinds, seed=seed)
        # every way is dealt the same structures
        data.costs = np.array([i.voxels for i in instances], np.int64)
        data.budget = VOXELS[resolution] * (2 if way == "twice" else 1)
        return Combined(data, way) if way in ("cutout", "union") else data

    def row(self, way: str, seed: int) -> list[float]:
        validated = self.instances(self.cases[TRAINED : TRAINED + 1])
        validation = VoxelDataset(validated, VOXELS[COARSE], augment=False)
        sets = Sets(self.dataset(way, seed), validation, self.table)
        network = dataclasses.replace(self.network, max_voxels=VOXELS[COARSE])
        common = {"seed": seed, "device": "cpu", "checkpoint_every": 10**6, "log_every": 10**6}
        stage = dataclasses.replace(
            self.options["vqvae_pretrain"], steps=self.steps, validate_every=0, **common
        )
        codebook = dataclasses.replace(self.options["vqvae_codebook"], min_usage=0.0, **common)
        out = self.folder / f"{self.trained}_hearts" / way.replace(" ", "_") / str(seed)
        shutil.rmtree(out, ignore_errors=True)
        seconds = timed(pretrain, network, stage, sets, out / "continuous")[0]
        first = out / "continuous" / "model.pt"
        train_codebook(network, codebook, sets, first, out / "codes")
        train = json.loads((out / "codes" / "metrics.json").read_text())["train"]
        used = train["usage"], train["perplexity"]
        held, seen = self.cases[TRAINED + VALIDATED :], self.cases[:SEEN]
        by_code = self.l1(out / "codes" / "model.pt", held, quantised=True)
        trained = self.l1(first, seen, quantised=False)
        return [seconds, *self.classes(first, held), by_code, *used, trained]

    def classes(self, model: Path, cases) -> np.ndarray:
        """L1 of all classes, L1 and Dice of all but the coronaries, and of these."""
        network, rows = self.loaded(model, quantised=False), []
        for case in cases:
            bands = {i.name: NarrowBand.load(i.path) for i in self.instances([case])}
            truth = Truth.of_labels(case, self.table, self.folder / "meshes")
            found = put_through(network, bands, truth, surfaces=False)[1]
            pairs = {n: (found[n]["l1_voxels"], found[n]["dice"]) for n in bands}
            thin = pairs.pop(THIN)
            wide = np.mean(list(pairs.values()), axis=0)
            l1 = (len(pairs) * wide[0] + thin[0]) / (len(pairs) + 1)
            rows.append([l1, *wide, *thin])
        return np.mean(rows, axis=0)

    def l1(self, model: Path, cases, *, quantised: bool) -> float:
        """L1 of all classes, without their label maps."""
        network, found = self.loaded(model, quantised), []
        for instance in self.instances(cases):
            band = NarrowBand.load(instance.path)
            coords, sdf, _ = network.reconstruct(band)
            figures = band_figures(band, coords, solid_of(coords, sdf, band))
            found.append(figures["l1_voxels"])
        return float(np.mean(found))

    def loaded(self, model: Path, quantised: bool):
        return BandNetwork(load_network(model, quantised), torch.device("cpu"))

    def print_cost(self) -> None:
        """CPU milliseconds of a sample of each way, the file read included."""
        for resolution in (COARSE, FINE):
            for way in WAYS[: len(KINDS) + 2]:
                data = self.dataset(way, 0, resolution)
                keys = [(i, i) for i in range(0, len(data), 4)]
                spent = timed(lambda data, keys: [data[key] for key in keys], data, keys)[0]
                size, each = data.costs[::4].mean(), 1000 * spent / len(keys)
                print(f"{resolution}^3, {size:,.0f} voxels, {way}: {each:.1f} ms", flush=True)


class Combined:
    """Samples that are cut by a plane, or united with another structure."""

    def __init__(self, data, way: str):
        self.data, self.way = data, way
        self.instances, self.costs, self.budget = data.instances, data.costs, data.budget

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        sample, rng = self.data[key], np.random.default_rng((self.data.seed, 1, key[1]))
        edge, band = sample["resolution"], sample["band_voxels"]
        here = solid(sample["coords"].numpy(), sample["sdf"].numpy()[:, 0], edge)
        place = sample["coords"].numpy()[rng.integers(len(sample["coords"]))]
        if self.way == "cutout":
            normal = rng.normal(size=3)
            plane = ((np.indices((edge,) * 3).T - place) @ normal).T / np.linalg.norm(normal) / band
            both = np.maximum(here, plane)
            if (both < 0).sum() < (here < 0).sum() / 2:  # the larger part stays
                both = np.maximum(here, -plane)
        else:
            other = self.data[int(rng.integers(len(self.data))), key[1]]
            coords = other["coords"].numpy()
            coords = coords + place - coords[rng.integers(len(coords))]
            within = ((coords >= 0) & (coords < edge)).all(axis=1)
            both = np.minimum(here, solid(coords[within], other["sdf"].numpy()[within, 0], edge))
        coords = np.argwhere(np.abs(both) < 1)
        values = both[tuple(coords.T)].astype(np.float32)[:, None]
        made = {
            "coords": torch.from_numpy(coords.astype(np.int32)),
            "sdf": torch.from_numpy(values),
        }
        return sample | made


def solid(coords: np.ndarray, sdf: np.ndarray, edge: int) -> np.ndarray:
    """Distances on the whole cube, -1 or 1 off the band."""
    values = np.where(fill_sign(coords, sdf < 0, (edge,) * 3), -1, 1).astype(np.float32)
    values[tuple(coords.T)] = sdf
    return values


def print_shell(radius: float, resolution: int = 512, band: float = 3.0) -> None:
    """Time and memory of one deformation of a sphere."""
    far = range(int(resolution / 2 - radius - band) - 1, int(resolution / 2 + radius + band) + 2)
    plane = np.stack(np.meshgrid(far, far, indexing="ij"), axis=-1) - resolution / 2
    coords, values = [], []
    for x in far:
        away = np.sqrt((plane**2).sum(axis=-1) + (x - resolution / 2) ** 2) - radius
        y, z = np.nonzero(np.abs(away) < band)
        coords.append(np.stack([np.full(len(y), x), y + far[0], z + far[0]], axis=1))
        values.append(away[y, z] / band)
    places = np.concatenate(coords).astype(np.int32)
    stored = np.column_stack([np.concatenate(values), np.ones(len(places))]).astype(np.float32)
    before = peak_gb()
    started = time.process_time()
    made, _ = deformed(places, stored, resolution, band, KINDS, np.random.default_rng(0))
    print(
        f"{len(places):,} voxels, {len(made):,} after: {time.process_time() - started:.1f} CPU s, "
        f"peak {peak_gb():.2f} GB, {before:.2f} GB before"
    )


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
