"""Distances near analytic shapes, against the truth.

    python benchmarks/geometry_accuracy.py

Each shape is rasterised at 0.35 x 0.35 x 0.5 mm in three random poses; a route sees the mask
alone. Points: 20,000 per pose about the true surface, sigma 0.3 mm. Cells: mean / 95th
percentile / maximum of the absolute error in mm, and the share of wrong signs.

field            ours: the smooth field, looked up
exact, our mesh  libigl on the surface of that field
exact, binary    libigl on marching cubes of the mask: what every exact library gives
KD-tree          50,000 samples of the binary surface, sign from the normal
EDT              distance transform outside minus inside, looked up
"""

from __future__ import annotations

import argparse

import numpy as np
from measuring import ROOT  # noqa: F401  puts the library on the path
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from cardiform.geometry.sampling import SurfaceSampler
from cardiform.geometry.sdf import class_fields
from cardiform.geometry.surface import Mesh, extract_surface
from cardiform.labels import LabelTable
from cardiform.options.geometry import MeshesOptions
from cardiform.volumes import LabelMap

SPACING = np.array([0.35, 0.35, 0.5])
POSES, POINTS, SIGMA = 3, 20_000, 0.3
MARGIN = 5.0
HALF_TUBE = 12.0


def sphere(radius):
    return (lambda p: np.linalg.norm(p, axis=-1) - radius), radius


def torus(ring, radius):
    def distance(p):
        return np.hypot(np.hypot(p[..., 0], p[..., 1]) - ring, p[..., 2]) - radius

    return distance, ring + radius


def tube(radius):
    def distance(p):
        along = np.clip(p[..., 2], -HALF_TUBE, HALF_TUBE)
        return np.sqrt(p[..., 0] ** 2 + p[..., 1] ** 2 + (p[..., 2] - along) ** 2) - radius

    return distance, HALF_TUBE + radius


def cone(low, high):
    """A round cone: exact by the tangent of its two end balls (I. Quilez, 2018)."""
    slope = (low - high) / (2 * HALF_TUBE)
    cosine = np.sqrt(1 - slope**2)

    def distance(p):
        x, y = np.hypot(p[..., 0], p[..., 1]), p[..., 2] + HALF_TUBE
        k = -slope * x + cosine * y
        side = x * cosine + y * slope - low
        ends = np.hypot(x, y) - low, np.hypot(x, y - 2 * HALF_TUBE) - high
        return np.where(k < 0, ends[0], np.where(k > cosine * 2 * HALF_TUBE, ends[1], side))

    return distance, HALF_TUBE + max(low, high)


SHAPES = {
    "sphere r 20": sphere(20.0),
    "sphere r 6": sphere(6.0),
    "torus 15/4": torus(15.0, 4.0),
    "tube r 1.5": tube(1.5),
    "tube r 1.0": tube(1.0),
    "tube r 0.6": tube(0.6),
    "cone 2.0-0.6": cone(2.0, 0.6),
}
ROUTES = ("field", "exact, our mesh", "exact, binary", "KD-tree", "EDT")


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print("| shape | " + " | ".join(ROUTES) + " |\n" + "|---" * (len(ROUTES) + 1) + "|")
    for name, (distance, reach) in SHAPES.items():
        rng = np.random.default_rng(0)
        errors = [errors_of(distance, reach, rng) for _ in range(POSES)]
        cells = []
        for route in ROUTES:
            error = np.concatenate([e[route][0] for e in errors])
            wrong = np.concatenate([e[route][1] for e in errors]).mean()
            figures = error.mean(), np.percentile(error, 95), error.max()
            cells.append(" / ".join(f"{f:.3f}" for f in figures) + f" ({wrong:.1%})")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def errors_of(distance, reach: float, rng) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Absolute errors and wrong signs of every route, in one pose."""
    turn, shift = Rotation.random(random_state=rng).as_matrix(), rng.uniform(-0.5, 0.5, 3)
    shape = np.ceil(2 * (reach + MARGIN) / SPACING).astype(int)
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = -(shape - 1) / 2 * SPACING

    def truth(points):
        return distance((points - shift) @ turn)

    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    values = truth(index * SPACING + affine[:3, 3])
    mask = values < 0
    exact = extract_surface(values.astype(np.float32), affine)
    points = SurfaceSampler(exact).draw(POINTS, rng)[0] + rng.normal(0, SIGMA, (POINTS, 3))
    wanted = truth(points)
    found = answers(mask, affine, points, rng)
    return {r: (np.abs(f - wanted), (f < 0) != (wanted < 0)) for r, f in found.items()}


def answers(mask, affine, points, rng) -> dict[str, np.ndarray]:
    """(N,) distances in mm by each route."""
    field = class_fields(LabelMap(mask.astype(np.uint8), affine), LabelTable(), MeshesOptions())[1]
    binary = extract_surface(np.where(mask, -1, 1).astype(np.float32), affine)
    samples, normals = SurfaceSampler(binary).draw(50_000, rng)
    nearest, at = cKDTree(samples).query(points)
    transform = ndimage.distance_transform_edt(~mask, SPACING)
    transform -= ndimage.distance_transform_edt(mask, SPACING)
    index = (points - affine[:3, 3]) / SPACING
    return {
        "field": field.lookup(points),
        "exact, our mesh": exact_distance(field.surface(), points),
        "exact, binary": exact_distance(binary, points),
        "KD-tree": np.copysign(nearest, np.einsum("nd,nd->n", points - samples[at], normals[at])),
        "EDT": ndimage.map_coordinates(transform, index.T, order=1),
    }


def exact_distance(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    import igl

    return igl.signed_distance(
        points, mesh.vertices.astype(np.float64), mesh.faces.astype(np.int64)
    )[0]


if __name__ == "__main__":
    main()
