"""Regions with shared walls and their tetrahedra: volumes, angles, closed walls, time.

    python benchmarks/complex.py --phantoms 20
    python benchmarks/complex.py --phantoms 0 --label-maps mine/*.nii.gz
    python benchmarks/complex.py --phantoms 1 --spacing-mm 0.4 --edge-mm 1.2

A row per heart of what formats walls and tets of the rule export_shapes hold, then the worst error
of the volume of each class over all of them.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

COLUMNS = (
    "heart", "voxels", "mm", "edge mm", "tetrahedra", "triangles", "smallest angle", "inverted",
    "open regions", "wall mm, 95 %", "worst volume", "CPU s", "peak MiB",
)  # fmt: skip


def main() -> None:
    from cardiform.labels import LabelTable

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phantoms", type=int, default=20, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="of the phantoms")
    parser.add_argument("--spacing-mm", type=float, default=1.5, help="of the phantoms")
    parser.add_argument("--label-maps", nargs="*", type=Path, default=[])
    parser.add_argument("--edge-mm", type=float, default=0.0, help="0: by the spacing")
    args = parser.parse_args()
    worst: dict[int, float] = {}
    print("| " + " | ".join(COLUMNS) + " |\n|---" + "|---:" * (len(COLUMNS) - 1) + "|")
    for name, label_map in hearts(args):
        row, errors = measured(label_map, args.edge_mm)
        print(f"| {name} | " + " | ".join(row) + " |", flush=True)
        for value, error in errors.items():
            worst[value] = max(worst.get(value, 0.0), error, key=abs)
    names = dict(zip(LabelTable().values, LabelTable().names))
    print("\n| class | worst error of its volume |\n|---|---:|")
    for value, error in sorted(worst.items()):
        print(f"| {names.get(value, value)} | {error:+.2%} |")


def hearts(args: argparse.Namespace) -> Iterator[tuple[str, object]]:
    from cardiform.phantom.scans import draw_scan
    from cardiform.volumes import LabelMap, load_label_map

    for number in range(args.first, args.first + args.phantoms):
        yield f"phantom {number}", LabelMap(*draw_scan(number, args.spacing_mm, 0))
    for path in args.label_maps:
        yield path.name.partition(".")[0], load_label_map(path)


def measured(label_map, edge_mm: float) -> tuple[list[str], dict[int, float]]:
    """The cells of a row, and the error of the volume of each class."""
    from cardiform.export.regions import edge_mm as usual_edge
    from cardiform.geometry.surface import Mesh, is_watertight, signed_volume
    from cardiform.geometry.tets.mesh import tet_mesh
    from cardiform.geometry.tets.partition import Partition
    from cardiform.geometry.tets.quality import smallest_angles, volumes
    from cardiform.options.geometry import MeshesOptions

    smoothing = MeshesOptions().smoothing_vox
    edge = edge_mm or usual_edge(label_map.spacing)
    start = time.process_time()
    mesh = tet_mesh(label_map, smoothing, edge, {})
    seconds = time.process_time() - start
    points, tets, _ = mesh.solid()
    corners, faces, sides = mesh.walls()
    voxel = abs(np.linalg.det(label_map.affine[:3, :3]))
    errors, open_regions = {}, 0
    for value in label_map.boxes:
        own = np.concatenate([faces[sides[:, 0] == value], faces[sides[:, 1] == value][:, ::-1]])
        surface = Mesh(corners.astype(np.float32), own)
        open_regions += not is_watertight(surface)
        wanted = np.count_nonzero(label_map.data == value) * voxel
        errors[value] = signed_volume(surface) / wanted - 1
    into = np.linalg.inv(label_map.affine)
    places = (corners @ into[:3, :3].T + into[:3, 3]) * label_map.spacing
    off = from_walls(Partition.of(label_map, smoothing), places, faces, sides)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row = [
        " × ".join(map(str, label_map.data.shape)),
        " × ".join(f"{s:.3g}" for s in label_map.spacing),
        f"{edge:.2f}",
        f"{len(tets):,}",
        f"{len(faces):,}",
        f"{smallest_angles(points.astype(np.float32), tets).min():.2f}°",
        str(int((volumes(points.astype(np.float32), tets) <= 0).sum())),
        str(open_regions),
        f"{np.percentile(off, 95):.2f}",
        f"{max(errors.values(), key=abs):+.2%}",
        f"{seconds:.0f}",
        f"{peak:.0f}",
    ]
    return row, errors


def from_walls(partition, places: np.ndarray, faces: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """(F,) mm from the middles of the triangles to the smooth wall between their two labels."""
    channel = {value: k for k, value in enumerate(partition.labels)}
    middles = places[faces].mean(axis=1)
    gap = np.zeros(len(faces))
    for column, sign in ((0, 1), (1, -1)):
        for value in np.unique(sides[:, column]):
            at = np.flatnonzero(sides[:, column] == value)
            gap[at] += sign * partition.distance(channel[int(value)], middles[at])
    return np.abs(gap) / 2


if __name__ == "__main__":
    main()
