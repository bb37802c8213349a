"""Points of a cohort in the memory of all processes of a machine.

    python benchmarks/training_data.py --work FOLDER --cases 200

Points files of full size (10 classes, 200,000 surface, 500,000 near and 500,000 volume points) with
cheap contents, drawn from as the preset xl of config/full.yaml does. Four ranks with eight loaders
each, the loaders forked as a training does, of which each has read all that can be drawn, as after
many epochs. Memory is proportional (PSS): a page of several processes counts once.
--private: every rank holds the cohort in its own memory, as the version before did.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import measuring
import numpy as np
import torch

from cardiform.errors import InputError
from cardiform.files import load_npz, save_npz
from cardiform.geometry.frame import Frame
from cardiform.geometry.narrowband import NarrowBand
from cardiform.geometry.sampling import POINTS
from cardiform.labels import LabelTable
from cardiform.options.vecset import LATENTS, VecsetOptions
from cardiform.training.distributed import World
from cardiform.training.sampling import training_batches
from cardiform.vecset.data import Draw, PointDataset, load_case_points
from cardiform.vecset.shared import shared_cases
from cardiform.vqvae.data import Instance, VoxelDataset, stored_size

TABLE = LabelTable()
RANKS, WORKERS = 4, 8
TRUNCATION = 0.1 / 0.9
PARTS = ("start", "memory", "speed", "needs", "growth", "voxels")
QUERIES = ("volume_queries", "near_queries", "surface_queries")
FULL = {"input_points": 8192} | dict(zip(QUERIES, (2048, 4096, 4096)))
BASE = {"input_points": 8192} | dict.fromkeys(QUERIES, 1024)
TINY = {"input_points": 64} | dict.fromkeys(QUERIES, 16)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="room for 38 MB a case")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--private", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return rank(*args.child)
    rows = cohort(args.work / "points", args.cases)
    for part in args.parts:
        globals()[f"measure_{part}"](args, rows)


def cohort(folder: Path, cases: int, sizes: tuple[int, ...] = (200_000, 500_000, 500_000)) -> list:
    """(case id, path) of points files of full size; those that are there are kept."""
    rng = np.random.default_rng(0)
    values = np.array(TABLE.values, np.uint8)
    surface, near, volume = (rng.uniform(-1, 1, (n, 3)).astype(np.float32) for n in sizes)
    near_sdf, volume_sdf = (
        (np.linalg.norm(p, axis=1)[:, None] - np.linspace(0.3, 0.9, len(values))).astype(np.float16)
        for p in (near, volume)
    )
    rows = []
    for number in range(cases):
        rows.append((f"case{number:04d}", folder / f"case{number:04d}.npz"))
        if rows[-1][1].exists():
            continue
        labels = [rng.choice(values, len(x)) for x in (surface, near)]
        save_npz(
            rows[-1][1],
            surface_points=np.roll(surface, number, 0),
            surface_normals=surface,
            surface_labels=labels[0],
            near_points=np.roll(near, number, 0),
            near_sdf=np.roll(near_sdf, number, 0),
            near_labels=labels[1],
            volume_points=np.roll(volume, number, 0),
            volume_sdf=np.roll(volume_sdf, number, 0),
            annotated=np.ones(len(values), bool),
            class_values=values,
            center=np.zeros(3),
            scale=np.float64(0.01),
            affine=np.eye(4),
            spacing=np.ones(3, np.float32),
            format_version=np.int64(POINTS.version),
        )
    return rows


def opened(rows, work: Path, private: bool, keep: int = 200_000) -> list:
    if private:
        return [load_case_points(path, name, TABLE, keep, TRUNCATION) for name, path in rows]
    return shared_cases(rows, TABLE, work / "shared", keep, TRUNCATION)


def used_bytes(case) -> int:
    """What of a case is drawn from: points, distances, channels, rows by class."""
    return sum(array.nbytes for array in drawn_from(case))


def drawn_from(case) -> list[np.ndarray]:
    parts = (case.surface, case.near, case.volume)
    arrays = [case.near_sdf, case.volume_sdf]
    return arrays + [x for p in parts for x in (p.points, p.channels, *p.rows)]


class Touched(torch.utils.data.Dataset):
    """The items of a dataset; before the first one a process reads all that can be drawn."""

    def __init__(self, inner: PointDataset, folder: Path):
        self.inner, self.folder, self.done = inner, folder, False

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, key):
        if not self.done:
            for case in self.inner.cases:
                for array in drawn_from(case):
                    np.count_nonzero(array)
            self.done = True
            (self.folder / str(os.getpid())).touch()
        return self.inner[key]


def rank(number: str, work: str, cases: str, private: str, started: str) -> None:
    """One rank: its first batch, then all data by all loaders, then a wait for the end of stdin."""
    folder = Path(work)
    rows = cohort(folder / "points", int(cases))
    os.environ |= {"RANK": number, "WORLD_SIZE": str(RANKS)}
    data = PointDataset(
        opened(rows, folder, private == "True"), Draw(**FULL, balanced=0.5, latents=LATENTS["xl"])
    )
    options = VecsetOptions(steps=10_000, batch_size=RANKS * 16, workers=WORKERS)
    world = World(int(number), RANKS, torch.device("cpu"))
    touched = folder / "touched"
    batches = training_batches(Touched(data, touched), options, world, 0)
    for _ in range(WORKERS):
        next(batches)
    print(json.dumps({"first_batches_s": time.time() - float(started)}), flush=True)
    sys.stdin.read()
    batches.close()


def measure_start(args, rows) -> None:
    """Seconds from the call to the cases being there: first with nothing derived, then with it."""
    for again in (False, True):
        cpu, cases = measuring.timed(opened, rows, args.work, args.private)
        start = time.perf_counter()
        cases = opened(rows, args.work, args.private)
        print(
            f"{'again' if again else 'first'}: {len(rows)} cases, {cpu:.1f} CPU s "
            f"({1000 * cpu / len(rows):.0f} ms a case); then {time.perf_counter() - start:.2f} s; "
            f"drawn from: {sum(map(used_bytes, cases)) / 1e9:.3f} GB; "
            f"open files: {len(os.listdir('/proc/self/fd'))}, maps: "
            f"{Path('/proc/self/maps').read_text().count('.npz')}",
            flush=True,
        )


def measure_memory(args, rows) -> None:
    touched = args.work / "touched"
    touched.mkdir(exist_ok=True)
    for old in touched.iterdir():
        old.unlink()
    opened(rows, args.work, args.private)
    command = [sys.executable, __file__, "--work", args.work, "--child"]
    ranks = [
        subprocess.Popen(
            list(map(str, [*command, n, args.work, len(rows), args.private, time.time()])),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for n in range(RANKS)
    ]
    seconds = [json.loads(r.stdout.readline())["first_batches_s"] for r in ranks]
    while len(list(touched.iterdir())) < RANKS * WORKERS:
        time.sleep(1)
    pids = [*(r.pid for r in ranks), *(int(p.name) for p in touched.iterdir())]
    sums = {
        name: sum(smaps(pid)[name] for pid in pids) / 1e9 for name in ("Pss", "Pss_File", "Rss")
    }
    data = sum(map(used_bytes, opened(rows, args.work, False))) / 1e9
    print(
        f"{len(pids)} processes: data {data:.3f} GB, PSS {sums['Pss']:.3f} GB, of it files "
        f"{sums['Pss_File']:.3f} GB; RSS {sums['Rss']:.1f} GB; batches of all loaders after "
        f"{max(seconds):.1f} s",
        flush=True,
    )
    for r in ranks:
        r.stdin.close()
    for r in ranks:
        r.wait()


def smaps(pid: int) -> dict[str, int]:
    """Bytes by kind of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


def measure_speed(args, rows) -> None:
    """CPU milliseconds of a sample in one process; the ways take turns."""
    for preset in ("xl", "base"):
        found = {w: opened(rows[:8], args.work, w) for w in (True, False)}
        ways = {w: PointDataset(cases, draw_of(preset)) for w, cases in found.items()}
        spent = dict.fromkeys(ways, 0.0)
        for data in ways.values():
            for i in range(8):
                data[i, 0]
        for number in range(20):
            for way, data in ways.items():
                spent[way] += measuring.timed(lambda: [data[i, number] for i in range(8)])[0]  # noqa: B023
        ms = {w: 1000 * s / 160 for w, s in spent.items()}
        print(f"{preset}: {ms[True]:.2f} ms a sample in memory, {ms[False]:.2f} mapped", flush=True)
    start = time.process_time()
    for case in ways[False].cases:
        case.check()
    print(f"checksums: {(time.process_time() - start) / 8 * 1000:.1f} ms a case, once per loader")


def measure_needs(args, rows) -> None:
    """Samples that an A100 takes per second: by the multiplications of a sample, counted."""
    from torch.utils.flop_counter import FlopCounterMode

    from cardiform.vecset.task import VecsetTask

    task = VecsetTask(VecsetOptions(preset="base", device="cpu"), TABLE)
    data = PointDataset(opened(rows[:1], args.work, False), draw_of("base"))
    batch = torch.utils.data.default_collate([data[0, 0]])
    with FlopCounterMode(display=False) as counter:
        loss, _ = task.loss(batch, "model", 0)  # the eikonal term comes later and costs more
        loss.backward()
    number = counter.get_total_flops()
    shares = ", ".join(f"{312e12 * s / number:,.0f} at {s:.0%}" for s in (0.15, 0.4, 1.0))
    print(f"base: {number / 1e9:.0f} GFLOP a sample; samples/s of 312 TFLOP/s: {shares}")


def draw_of(preset: str) -> Draw:
    sizes = FULL if preset == "xl" else BASE
    return Draw(**sizes, balanced=0.5, latents=LATENTS[preset])


def measure_voxels(args, rows) -> None:
    """Sparse voxels of a class at 512^3: bytes of a file and milliseconds of a sample."""
    grid = np.indices((176,) * 3, np.float32).reshape(3, -1).T
    away = (np.linalg.norm(grid - 87.3, axis=1) - 76) / 3
    coords = grid[np.abs(away) < 1].astype(np.uint16)
    noise = np.random.default_rng(0).normal(scale=0.05, size=len(coords))
    sdf = np.clip(away[np.abs(away) < 1] + noise, -0.99, 0.99).astype(np.float16)
    frame = Frame(np.zeros(3), 0.01)
    coarse = np.ones((64,) * 3, np.int8)
    paths = {"compressed": args.work / "band.npz", "stored": args.work / "stored.npz"}
    NarrowBand(coords, sdf, 512, 3.0, coarse, frame).save(paths["compressed"])
    save_npz(paths["stored"], **load_npz(paths["compressed"]))
    spent = dict.fromkeys([*paths, "headers"], 0.0)
    sets = {}
    for way, path in paths.items():
        instance = Instance("a", path, "", len(coords), (512, 3.0))
        sets[way] = VoxelDataset([instance], 1_500_000, augment=True)
    for draw in range(20):
        for way, data in sets.items():
            spent[way] += measuring.timed(data.__getitem__, (0, draw))[0] / 20
        spent["headers"] += measuring.timed(stored_size, paths["compressed"])[0] / 20
    sizes = {way: path.stat().st_size / 1e6 for way, path in paths.items()}
    print(f"{len(coords):,} voxels, MB of a file: {sizes}")
    print(", ".join(f"{way} {1000 * seconds:.1f} ms" for way, seconds in spent.items()))


def measure_growth(args, rows) -> None:
    """Memory of a loader over 10,000 steps of tiny items."""
    small = cohort(args.work / "small", 50, (2000, 2000, 2000))
    data = PointDataset(
        shared_cases(small, TABLE, args.work / "shared_small", 0, TRUNCATION),
        Draw(**TINY, balanced=0.5, latents=16),
    )
    options = VecsetOptions(steps=11_000, batch_size=4, workers=2)
    batches = training_batches(data, options, World(0, 1, torch.device("cpu")), 0)
    held = []
    for step, _ in enumerate(batches):
        if step in (1000, 11_000 - 50):
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            held.append(sum(smaps(int(p))["Pss"] for p in [os.getpid(), *children]) / 2**20)
    print(f"PSS after 1,000 steps {held[0]:.1f} MiB, after 10,950 {held[1]:.1f} MiB", flush=True)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit("\n".join(error.problems))
