"""The best, the median and the worst heart of a model, as surfaces that turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from ..geometry.fields import load_fields
from ..geometry.lookup import Field
from ..geometry.mesh_files import MESH_ENDING, read_mesh
from ..geometry.meshed import FIELDS_FILE, FRAME
from ..geometry.surface import Mesh
from ..labels import LabelTable
from .charts import typed
from .figures import PARTS, dice_of
from .parts import Chart, Results, Section, Viewer, titles_of
from .slices import WAYS, outlines

FACES = 3000  # of a surface: all of a page stay within some megabytes
RANKS = ("best", "median", "worst")
FULL_SCALE = 95  # percentile of the errors at which their colours end


def hearts_section(results: Results, family: str, labels: LabelTable) -> Section | None:
    """Truth and model of three hearts of a family; None where there are none."""
    found = results.json(f"{family}/reconstructions/metrics.json") or {}
    part = next((p for p in PARTS if found.get(p, {}).get("cases")), None)
    if part is None:
        return None
    hearts, charts, errors = {}, [], []
    for rank, (case_id, dice) in ranked(found[part]["cases"]).items():
        made = results.folder / family / "reconstructions" / case_id
        given = results.folder / "meshes" / case_id
        fields = _fields(given)
        pairs = [_pair(label, given, made, fields.get(label.value)) for label in labels]
        meshes = [pair for pair in pairs if pair is not None]
        if not any("model" in mesh for mesh in meshes):
            continue
        hearts[f"{rank}: {case_id}, mean Dice {dice:.3f}"] = [m["shown"] for m in meshes]
        errors += [m["errors"] for m in meshes if "errors" in m]
        if any("truth" in mesh for mesh in meshes):
            cuts = {
                way: {mesh["shown"]["name"]: mesh[way] for mesh in meshes if way in mesh}
                for way in WAYS
            }
            charts.append(Chart(f"{rank}: {case_id}, cut", outlines(cuts, labels), 460))
    if not hearts:
        return None
    there = {mesh["name"] for heart in hearts.values() for mesh in heart}
    titles = titles_of(labels)
    classes = [(c.name, titles[c.name], c.color) for c in labels if c.name in there]
    largest = float(np.percentile(np.concatenate(errors), FULL_SCALE)) if errors else 1.0
    text = (
        "Ranked by mean Dice over the structures. Surfaces have fewer triangles here than in the "
        "files. The error is the distance of the model's surface to that of the label map. In "
        "the cuts the truth has the colours of the structures, the model is a black line; the "
        "patient's left is on the right."
    )
    viewer = Viewer("Truth and model", hearts, classes, largest_mm=max(largest, 1e-3))
    name = f"{family.replace('/', '-')}-hearts"
    title = "Best, median and worst heart"
    return Section(name, title, text, charts=charts, viewers=[viewer])


def ranked(cases: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """best, median, worst -> case id and its mean Dice; fewer of fewer cases."""
    means = {}
    for case_id, case in cases.items():
        known = list(dice_of(case).values())
        if known:
            means[case_id] = sum(known) / len(known)
    return {rank: (case_id, means[case_id]) for rank, case_id in ranks(means).items()}


def ranks(values: Mapping[str, float], names: Sequence[str] = RANKS) -> dict[str, str]:
    """Rank -> name of the largest, the median and the least value; fewer of fewer."""
    order = sorted(values, key=lambda name: (-values[name], name))
    best, median, worst = names
    # of two there is no median, of one no worst
    rank_at = {len(order) // 2: median, len(order) - 1: worst, 0: best}
    return {rank_at[place]: order[place] for place in sorted(rank_at) if order}


def thinner(mesh: Mesh, faces: int = FACES) -> Mesh:
    """A surface with at most about so many triangles.

    Garland and Heckbert, Surface simplification using quadric error metrics, SIGGRAPH 1997, as in
    the package fast-simplification.
    """
    if len(mesh.faces) <= faces:
        return mesh
    import fast_simplification

    vertices, triangles = fast_simplification.simplify(
        mesh.vertices, mesh.faces, target_count=faces
    )
    return Mesh(np.asarray(vertices, np.float32), np.asarray(triangles, np.int32))


def _pair(label, given: Path, made: Path, field: Field | None) -> dict[str, Any] | None:
    """What is shown of one structure; None where neither truth nor model has it."""
    found: dict[str, Any] = {"shown": {"name": label.name}}
    truth, model = (readable(folder / f"{label.name}{MESH_ENDING}") for folder in (given, made))
    if truth is None and model is None:
        return None
    if truth is not None:
        found["truth"] = truth
        found["shown"]["truth"] = arrays(thinner(truth))
    if model is not None:
        found["model"] = model
        thin = thinner(model)
        found["shown"]["model"] = arrays(thin)
        if truth is not None:
            found["errors"] = _errors(thin, truth, field)
            found["shown"]["error"] = typed(found["errors"])
    return found


def _errors(model: Mesh, truth: Mesh, field: Field | None) -> np.ndarray:
    """(V,) float32 mm from the vertices of the model to the true surface.

    field : the signed distance to it; None: that to its vertices and the middles of its triangles.
    """
    if field is not None:
        return np.abs(field.lookup(model.vertices))
    middles = truth.vertices[truth.faces].mean(axis=1)
    away, _ = cKDTree(np.concatenate([truth.vertices, middles])).query(model.vertices)
    return away.astype(np.float32)


def _fields(folder: Path) -> dict[int, Field]:
    """The fields of a case by class value, where its meshes have some."""
    try:
        record = FRAME.load(folder / "frame.json")
        shifts = {c["value"]: c["shift_mm"] for c in record["classes"].values()}
        return dict(load_fields(folder / FIELDS_FILE, np.array(record["affine"]), shifts))
    except InputError:  # of an early version; the meshes are enough
        return {}


def readable(path: Path) -> Mesh | None:
    """A surface; None where it is not there, or not whole."""
    try:
        return read_mesh(path)
    except InputError:
        return None


def arrays(mesh: Mesh) -> dict[str, Any]:
    """Places x, y, z of the vertices and corners i, j, k of the triangles, as Plotly takes them."""
    kind = np.uint16 if len(mesh.vertices) < 1 << 16 else np.uint32
    corners = dict(zip("ijk", (typed(column.astype(kind)) for column in mesh.faces.T)))
    places = dict(zip("xyz", (typed(column.astype(np.float32)) for column in mesh.vertices.T)))
    return places | corners
