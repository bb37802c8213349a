"""CPU time and memory from a label map to meshes and ten distances at a million points.

    pip install -r requirements/bench.txt
    python benchmarks/geometry_case.py

The case: a procedural heart, ten classes, 512 x 512 x 300 voxels of 0.35 x 0.35 x 0.5 mm,
500,000 surface, near and volume points each. Every route runs in a process of its own:

ours      extract_meshes and sample_sdf, files and checks included
EDT       distance transforms (scipy) and marching cubes of the full volume; one class is
          measured and taken ten times (memory: with ten float32 fields)
others    marching cubes on the crops of the binary masks, then exact distances to the meshes
          (KD-tree: to 50,000 samples per class, sign from the normal), measured on fewer points
          and taken linearly to all; preparation of the meshes is counted once

The last columns hold distances at near points, own class, against libigl's on the same meshes.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import tempfile
from pathlib import Path

import numpy as np
from measuring import peak_mib, run_child, timed

SHAPE, SPACING = (512, 512, 300), (0.35, 0.35, 0.5)
SEED = 11
# Points measured, near and volume each, per class.
POINTS = {"warp": 30_000, "open3d": 30_000, "igl": 10_000, "scipy": 50_000, "trimesh": 40}
LABELS = {"igl": "libigl", "scipy": "KD-tree + normal", "trimesh": "trimesh + rtree"}
SAMPLES = 50_000
COMPARED = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=500_000, help="of each kind")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        route, folder, points = args.child
        work = ROUTES.get(route, functools.partial(measure_peer, route))
        print(json.dumps(work(Path(folder), int(points))))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for route in ("draw", "ours", "edt", "meshes", *POINTS):
            if route in POINTS and importlib.util.find_spec(route) is None:
                found[route] = None
                continue
            found[route] = run_child(__file__, route, folder, args.points)
            print(f"{route}: {found[route]}", flush=True)
    print_table(found)


def print_table(found: dict) -> None:
    ours, meshes = found["ours"], found["meshes"]["seconds"]
    print(
        "\n| route | CPU s | of ours | peak MiB | mean mm | max mm | wrong sign |\n"
        "|---|---:|---:|---:|---:|---:|---:|"
    )
    for route in ("ours", "edt", *POINTS):
        name, row = LABELS.get(route, route), found[route]
        if row is None:
            print(f"| {name} | not installed | | | | | |")
            continue
        seconds = row["seconds"] + (meshes if route in POINTS else 0)
        cells = [f"{seconds:,.1f}", f"{seconds / ours['seconds']:,.1f}x", f"{row['peak']:,.0f}"]
        if "difference" in row:
            mean, worst, wrong = row["difference"]
            cells += [f"{mean:.3f}", f"{worst:.3f}", f"{wrong:.2%}"]
        else:
            cells += [""] * 3
        print(f"| {name} | {' | '.join(cells)} |")


def draw(folder: Path, points: int) -> dict:
    """The label map of the case, and its case table."""
    from cardiform import volumes
    from cardiform.cohort.table import Case, write_cases
    from cardiform.phantom import draw_phantom

    heart = draw_phantom(SEED)
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = heart.bounds().mean(axis=0) - (np.array(SHAPE) - 1) / 2 * SPACING
    data = heart.label_map(SHAPE, affine)
    path = folder / "heart.nii.gz"
    volumes.save_label_map(path, data, affine)
    case = Case(case_id="heart", patient_id="heart", labels=str(path), status="ok")
    write_cases(folder / "cases.tsv", [case])
    return {"labelled voxels": int((data > 0).sum()), "classes": len(np.unique(data)) - 1}


def read_case(folder: Path):
    from cardiform.cohort.table import read_checked_cases

    return read_checked_cases(folder / "cases.tsv")[0]


def measure_ours(folder: Path, points: int) -> dict:
    """Both stages as the workflow runs them."""
    from cardiform.files import load_npz
    from cardiform.geometry.cases import mesh_case, sample_case
    from cardiform.labels import LabelTable
    from cardiform.options.geometry import MeshesOptions, PointsOptions

    table, case = LabelTable(), read_case(folder)
    options = PointsOptions(surface_points=points, near_points=points, volume_points=points)
    made = folder / "meshes"
    first, _ = timed(mesh_case, case, table=table, options=MeshesOptions(), out=made)
    second, _ = timed(sample_case, case, table=table, options=options, meshes=made, out=folder)
    figures = {"seconds": first + second, "extract": first, "sample": second, "peak": peak_mib()}
    arrays = load_npz(folder / "heart.npz")
    own = {
        value: arrays["near_sdf"][arrays["near_labels"] == value, channel][:COMPARED]
        / arrays["scale"]
        for channel, value in enumerate(table.values)
    }
    return figures | differences(folder, own)


def measure_edt(folder: Path, points: int) -> dict:
    """Distances and surfaces from the whole image; one class times ten."""
    from scipy import ndimage
    from skimage.measure import marching_cubes

    from cardiform.volumes import load_label_map

    label_map = load_label_map(read_case(folder).labels)
    world = np.concatenate([part[:points] for part in queries(folder)[0].values()])

    def work():
        mask = label_map.data == 3
        field = ndimage.distance_transform_edt(~mask, SPACING).astype(np.float32)
        field -= ndimage.distance_transform_edt(mask, SPACING).astype(np.float32)
        index = (world - label_map.affine[:3, 3]) / SPACING
        ndimage.map_coordinates(field, index.T, order=1)
        marching_cubes(mask, 0.5)

    seconds = 10 * timed(work)[0]
    return {"seconds": seconds, "peak": peak_mib() + 9 * np.prod(SHAPE) * 4 / 2**20}


def measure_meshes(folder: Path, points: int) -> dict:
    """Marching cubes on the crops of the binary masks: what the peers start from."""
    from scipy import ndimage
    from skimage.measure import marching_cubes

    from cardiform.volumes import load_label_map

    def work():
        data = load_label_map(read_case(folder).labels).data
        for value, box in enumerate(ndimage.find_objects(data.T), start=1):
            marching_cubes(np.pad(data.T[box] == value, 1), 0.5)

    return {"seconds": timed(work)[0], "peak": peak_mib()}


def queries(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The points of the case in mm, near and volume, and the class of each near point."""
    from cardiform.files import load_npz
    from cardiform.geometry.frame import Frame

    arrays = load_npz(folder / "heart.npz")
    frame = Frame(arrays["center"], float(arrays["scale"]))
    world = {kind: frame.to_world(arrays[f"{kind}_points"]) for kind in ("near", "volume")}
    return world, arrays["near_labels"]


def meshes(folder: Path) -> dict:
    """(vertices float32, faces int32) of our surfaces, by class value."""
    from cardiform.geometry.mesh_files import read_mesh
    from cardiform.labels import LabelTable

    table = LabelTable()
    paths = {v: folder / "meshes/heart" / f"{n}.ply" for v, n in zip(table.values, table.names)}
    read = {value: read_mesh(path) for value, path in paths.items()}
    return {value: (mesh.vertices, mesh.faces) for value, mesh in read.items()}


def measure_peer(route: str, folder: Path, points: int) -> dict:
    """Ten distances at some points, taken linearly to all."""
    world, labels = queries(folder)
    prepare, some = PEERS[route], min(POINTS[route], points)
    surfaces = meshes(folder)
    prepare(*surfaces[9])(world["near"][:8])  # compiles and loads what it needs
    seconds, own = 0.0, {}
    for value, (vertices, faces) in surfaces.items():
        spent, ask = timed(prepare, vertices, faces)
        seconds += spent
        for kind in ("near", "volume"):
            spent, _ = timed(ask, world[kind][:some])
            seconds += spent * points / some
        mine = world["near"][labels == value]
        own[value] = ask(mine[: min(COMPARED, some)])
    return {"seconds": seconds, "peak": peak_mib()} | differences(folder, own)


def differences(folder: Path, own: dict) -> dict:
    """Mean and largest difference from libigl's distances, and the share of other signs.

    own : by class value, distances at the first near points of the class, mm.
    """
    world, labels = queries(folder)
    exact = {
        value: prepare_igl(vertices, faces)(world["near"][labels == value][: len(own[value])])
        for value, (vertices, faces) in meshes(folder).items()
    }
    truth, found = (np.concatenate([d[v] for v in exact]) for d in (exact, own))
    error = np.abs(found - truth)
    wrong = float(((found < 0) != (truth < 0)).mean())
    return {"difference": [float(error.mean()), float(error.max()), wrong]}


def prepare_igl(vertices, faces):
    import igl

    vertices, faces = vertices.astype(np.float64), faces.astype(np.int64)
    return lambda points: igl.signed_distance(points, vertices, faces)[0]


def prepare_open3d(vertices, faces):
    import open3d

    scene = open3d.t.geometry.RaycastingScene(nthreads=1)
    scene.add_triangles(np.ascontiguousarray(vertices), faces.astype(np.uint32))
    return lambda points: scene.compute_signed_distance(
        np.ascontiguousarray(points, np.float32), nthreads=1
    ).numpy()


def prepare_warp(vertices, faces):
    import warp
    from warp_kernel import signed_distance

    warp.config.quiet = True
    mesh = warp.Mesh(
        warp.array(vertices, dtype=warp.vec3, device="cpu"),
        warp.array(faces.ravel(), dtype=warp.int32, device="cpu"),
    )

    def ask(points):
        result = warp.zeros(len(points), dtype=warp.float32, device="cpu")
        at = warp.array(points.astype(np.float32), dtype=warp.vec3, device="cpu")
        warp.launch(signed_distance, len(points), [mesh.id, at, result], device="cpu")
        return result.numpy()

    return ask


def prepare_scipy(vertices, faces):
    from scipy.spatial import cKDTree

    from cardiform.geometry.sampling import SurfaceSampler
    from cardiform.geometry.surface import Mesh

    samples, normals = SurfaceSampler(Mesh(vertices, faces)).draw(SAMPLES, np.random.default_rng(0))
    tree = cKDTree(samples)

    def ask(points):
        distance, nearest = tree.query(points)
        side = np.einsum("nd,nd->n", points - samples[nearest], normals[nearest])
        return np.copysign(distance, side)

    return ask


def prepare_trimesh(vertices, faces):
    import trimesh

    mesh = trimesh.Trimesh(vertices, faces, process=False)
    return lambda points: -trimesh.proximity.signed_distance(mesh, points)


ROUTES = {"draw": draw, "ours": measure_ours, "edt": measure_edt, "meshes": measure_meshes}
PEERS = {
    "igl": prepare_igl,
    "open3d": prepare_open3d,
    "warp": prepare_warp,
    "scipy": prepare_scipy,
    "trimesh": prepare_trimesh,
}

if __name__ == "__main__":
    main()
