"""What meshes, fields, points and sparse voxels of a label map must keep to, whatever the map."""

from __future__ import annotations

import json
from pathlib import Path

import igl
import numpy as np
import trimesh
from drawn_structures import has_core

from cardiform.files import load_npz
from cardiform.geometry.closed_band import Solid
from cardiform.geometry.frame import apply_affine
from cardiform.geometry.grids import lattice
from cardiform.geometry.lookup import distances
from cardiform.geometry.mesh_files import read_mesh
from cardiform.geometry.narrowband import NarrowBand
from cardiform.geometry.sdf import class_fields
from cardiform.labels import LabelTable
from cardiform.options.geometry import MeshesOptions
from cardiform.volumes import LabelMap, load_label_map

TABLE = LabelTable()
NAMES = dict(zip(TABLE.values, TABLE.names))
VOLUME = 0.02
GRADIENT = 0.85, 1.12  # median over the voxels about the surface of a thick structure
DICE = 0.97


def centres(label_map: LabelMap) -> np.ndarray:
    """(X * Y * Z, 3) RAS mm of all voxels."""
    return apply_affine(label_map.affine, lattice(*map(np.arange, label_map.data.shape)))


def check_case(case_id: str, labels: Path, out: Path, log: str) -> None:
    """All laws of one case.    log : what extract_meshes wrote to stderr."""
    label_map = load_label_map(labels)
    frame = json.loads((out / "meshes" / case_id / "frame.json").read_text())
    values = [v for v in TABLE.values if (label_map.data == v).any()]
    assert set(frame["classes"]) == {NAMES[v] for v in values}
    shifts = {c["value"]: c["shift_mm"] for c in frame["classes"].values()}
    fields = class_fields(label_map, TABLE, MeshesOptions(), shifts)
    places = centres(label_map)
    for value in values:
        mask = label_map.data == value
        where = f"{case_id} {NAMES[value]}, {mask.sum()} voxels"
        mesh = read_mesh(out / "meshes" / case_id / f"{NAMES[value]}.ply")
        _check_mesh(mesh, fields[value].voxel_volume, f"{case_id}: the {NAMES[value]} mesh", log)
        inside = _inside(mesh, places).reshape(mask.shape)
        assert (inside == mask).all(), f"{where}: the mesh has other voxels within"
        found = distances([fields[value]], places)[:, 0].reshape(mask.shape)
        assert ((found < 0) == mask).all(), f"{where}: the field has another sign"
        band = NarrowBand.load(out / "sparse" / case_id / f"{NAMES[value]}.npz")
        if has_core(mask):
            _check_slope(fields[value], where)
            _check_round_trip(band, label_map, mask, where)
    points = out / "points" / f"{case_id}.npz"
    if points.exists():
        _check_points(load_npz(points), values)


def _check_mesh(mesh, volume: float, name: str, log: str) -> None:
    found = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert found.is_watertight and found.is_winding_consistent, f"{name} is not closed"
    assert np.isfinite(mesh.vertices).all()
    middle = mesh.vertices.mean(axis=0, dtype=np.float64)
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces] - middle, 1, 0)
    held = np.einsum("ij,ij->", a, np.cross(b, c)) / 6
    assert held > 0, f"{name} faces inward"
    if abs(held / volume - 1) > VOLUME + 1e-3:
        assert name in log, f"{name} holds {held:.4g} of {volume:.4g} mm^3, without a word"


def _inside(mesh, places: np.ndarray) -> np.ndarray:
    """(N,) bool by winding number; the exact one where the fast one is in doubt."""
    middle = mesh.vertices.mean(axis=0, dtype=np.float64)
    vertices, places = mesh.vertices - middle, np.ascontiguousarray(places - middle)
    faces = mesh.faces.astype(np.int64)
    found = igl.fast_winding_number(vertices, faces, places)
    doubt = (found > 0.1) & (found < 0.9)
    if doubt.any():
        found[doubt] = igl.winding_number(vertices, faces, places[doubt])
    return found > 0.5


def _check_slope(field, where: str) -> None:
    rise = np.gradient(field.values, *field.spacing)
    near = np.abs(field.values) < 1.5 * field.spacing.max()
    slope = float(np.median(np.linalg.norm(rise, axis=0)[near]))
    assert GRADIENT[0] <= slope <= GRADIENT[1], f"{where}: the slope is {slope:.3g}"


def _check_round_trip(band: NarrowBand, label_map: LabelMap, mask, where: str) -> None:
    """The structure comes back from its sparse voxels, where these are small enough to hold it."""
    if band.voxel_mm > 0.6 * label_map.spacing.min():
        return
    solid = Solid.of_band(band.coords, band.sdf, band.resolution, band.frame)
    box, found = solid.on_grid(mask.shape, label_map.affine)
    back = np.zeros_like(mask)
    back[box] = found < 0
    dice = 2 * (back & mask).sum() / (back.sum() + mask.sum())
    assert dice >= DICE, f"{where}: Dice {dice:.3f} after the round trip"


def _check_points(arrays: dict, values: list[int]) -> None:
    annotated = arrays["class_values"][arrays["annotated"]].tolist()
    whole = "cut" not in arrays
    assert annotated == values if whole else set(annotated) <= set(values)
    for name in ("surface", "near"):
        assert set(arrays[f"{name}_labels"].tolist()) <= set(values)
    for name in ("near", "volume"):
        known = arrays[f"{name}_sdf"][:, arrays["annotated"]]
        assert np.isfinite(known).all() if whole else not np.isinf(known).any()
