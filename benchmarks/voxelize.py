"""Sparse voxels of a case of full size: time, memory, file size and what of it survives.

    python benchmarks/voxelize.py

A procedural heart of ten classes on 512 x 512 x 300 voxels. Routes, each in a process of its own
with one thread:

ours R    voxelize_labels at resolution R, all ten classes, files included
dense 512 the left ventricle and the coronaries by the dense route: the label map resampled to
          512^3, two distance transforms, the band cut out of the dense grid; their mean ten times

Prints CPU seconds, peak memory, voxels and file size of the case. Then, for each resolution, the
Dice of bands that were closed to solids again, on the label map's own grid: what the voxels alone
lose, before any network.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from geometry_case import draw, read_case
from measuring import peak_mib, run_child, timed

RESOLUTIONS = (64, 96, 128, 256, 512, 1024)
DENSE = 512
BAND = 3.0
DENSE_CLASSES = (3, 9)  # left ventricle, coronaries


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resolutions", type=int, nargs="+", default=RESOLUTIONS)
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--resolution", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(globals()[f"measure_{args.child}"](args.folder, args.resolution)))
        return
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), 0)
        run_child(__file__, "meshes", "--folder", folder)
        print("| route | CPU s | peak MiB | voxels | MB |\n|---|---:|---:|---:|---:|")
        for resolution in args.resolutions:
            place = ("--folder", folder, "--resolution", resolution)
            show(f"ours {resolution}", run_child(__file__, "ours", *place))
        show(f"dense {DENSE}", run_child(__file__, "dense", "--folder", folder))
        print("\n| resolution | voxel mm | " + " | ".join(table().names) + " |")
        print("|---:|---:|" + "---:|" * len(table()))
        for resolution in args.resolutions:
            place = ("--folder", folder, "--resolution", resolution)
            voxel, dice = run_child(__file__, "survival", *place)
            cells = " | ".join(f"{dice[name]:.3f}" for name in table().names)
            print(f"| {resolution} | {voxel:.2f} | {cells} |", flush=True)


def show(name: str, figures: dict) -> None:
    cells = (f"{figures[k]:,.{n}f}" for k, n in (("seconds", 1), ("peak", 0), ("voxels", 0)))
    print(f"| {name} | {' | '.join(cells)} | {figures['bytes'] / 1e6:,.1f} |", flush=True)


def table():
    from cardiform.labels import LabelTable

    return LabelTable()


def measure_meshes(folder: Path, resolution: None) -> None:
    from cardiform.geometry.cases import mesh_case
    from cardiform.options.geometry import MeshesOptions

    mesh_case(read_case(folder), table=table(), options=MeshesOptions(), out=folder / "meshes")


def measure_ours(folder: Path, resolution: int) -> dict:
    from cardiform.geometry.cases import voxelize_case
    from cardiform.geometry.narrowband import NarrowBand
    from cardiform.options.geometry import VoxelsOptions

    options = VoxelsOptions(resolution=resolution, band_voxels=BAND)
    places = {"meshes": folder / "meshes", "out": folder / str(resolution)}
    seconds, paths = timed(
        voxelize_case, read_case(folder), table=table(), options=options, **places
    )
    peak = peak_mib()
    return {
        "seconds": seconds,
        "peak": peak,
        "voxels": sum(len(NarrowBand.load(path).sdf) for path in paths),
        "bytes": sum(path.stat().st_size for path in paths),
    }


def measure_dense(folder: Path, resolution: None) -> dict:
    from cardiform import volumes
    from cardiform.files import read_json, save_npz
    from cardiform.geometry.closed_band import voxel_affine
    from cardiform.geometry.frame import Frame

    label_map = volumes.load_label_map(read_case(folder).labels)
    record = read_json(folder / "meshes" / "heart" / "frame.json")
    grid = voxel_affine(DENSE, Frame(np.array(record["center_mm"]), record["scale"]))
    into = np.linalg.inv(label_map.affine) @ grid

    def route(value: int) -> tuple[int, int]:
        from scipy import ndimage

        mask = ndimage.affine_transform(
            (label_map.data == value).astype(np.uint8),
            into[:3, :3],
            into[:3, 3],
            (DENSE,) * 3,
            order=0,
        )
        sdf = ndimage.distance_transform_edt(mask == 0) - ndimage.distance_transform_edt(mask)
        kept = np.abs(sdf) < BAND
        path = folder / f"dense_{value}.npz"
        coords, values = np.argwhere(kept).astype(np.uint16), (sdf[kept] / BAND).astype(np.float16)
        save_npz(path, compressed=True, coords=coords, sdf=values)
        return len(coords), path.stat().st_size

    found = [timed(route, value) for value in DENSE_CLASSES]
    times = 10 / len(DENSE_CLASSES)
    return {
        "seconds": times * sum(seconds for seconds, _ in found),
        "peak": peak_mib(),
        "voxels": times * sum(voxels for _, (voxels, _) in found),
        "bytes": times * sum(size for _, (_, size) in found),
    }


def measure_survival(folder: Path, resolution: int) -> tuple[float, dict[str, float]]:
    """Voxel edge in mm and Dice per class."""
    from cardiform import volumes
    from cardiform.geometry.closed_band import Solid
    from cardiform.geometry.narrowband import NarrowBand

    truth = volumes.load_label_map(read_case(folder).labels)
    dice = {}
    for label in table():
        band = NarrowBand.load(folder / str(resolution) / "heart" / f"{label.name}.npz")
        solid = Solid.of_band(band.coords, band.sdf.astype(np.float32), resolution, band.frame)
        where, values = solid.on_grid(truth.data.shape, truth.affine)
        there, made = truth.data == label.value, values < 0
        both = (there[where] & made).sum()
        dice[label.name] = float(2 * both / (there.sum() + made.sum()))
    return band.voxel_mm, dice


if __name__ == "__main__":
    main()
