"""Modes of variation of a cohort's hearts: a mean heart that sliders change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from ..files import load_npz
from ..geometry.surface import Mesh
from ..labels import LabelTable
from .charts import shares, typed
from .hearts import thinner
from .parts import Chart, Modes, Results, Section, Table, structures, words

FOLDER = "shape_statistics"
MODEL = f"{FOLDER}/model.npz"
FIGURES = f"{FOLDER}/statistics.json"
WAYS = {"correspondences": "modes of the page", "signed_distances": "plain PCA of distances"}
QUALITY = (
    ("modes", "modes", ".0f"), ("compactness", "variance", ".1%"),
    ("generalisation_mm", "held-out hearts, mm", ".2f"),
    ("training_mm", "training hearts, mm", ".2f"), ("specificity_mm", "drawn hearts, mm", ".2f"),
)  # fmt: skip
FACES = 3000  # of a structure
SLIDERS = 5
BARS = 20
LARGEST = 32767  # of the whole numbers that places are stored as
FAR_SD = 3.0  # where the sliders end
FULL_SCALE = 95  # percentile of the distances that the first mode goes: where the colours end


def modes_section(results: Results, labels: LabelTable) -> Section | None:
    """The mean heart and its modes; None where target statistics was not asked for."""
    results.last = path = results.folder / MODEL
    if not path.is_file():
        return None
    model = _checked(load_npz(path))
    explained = [float(share) for share in model["explained"]]
    chart = Chart("Variance of the modes", shares(explained[:BARS]), 300)
    if not len(model["components"]):
        return None
    text = (
        "A mode moves every point of the mean heart along a line of its own; a slider says how "
        "many standard deviations. Several modes add up. Surfaces have fewer triangles here than "
        "in the files."
    )
    views = [_modes(model, labels)]
    tables = _quality(results)
    return Section("modes", "Modes of variation", text, tables, [chart], modes=views)


def _quality(results: Results) -> list[Table]:
    """How much of hearts that the model has not seen some modes show, and how real what it draws
    looks; beside a plain model."""
    found = results.json(FIGURES) or {}
    rows = [
        [
            *words(WAYS.get(way, way)),
            *(
                results.number(FIGURES, ("by_modes", way, str(place), key), form)
                for key, _, form in QUALITY
            ),
        ]
        for way, known in found.get("by_modes", {}).items()
        for place in range(len(known))
    ]
    between = [
        [*words(WAYS.get(way, way)), results.number(FIGURES, ("interpolated", way, "valid"), ".0%")]
        for way in found.get("interpolated", {})
    ]
    note = (
        "Distances of surfaces: from held-out hearts to what the modes make of them, the same of "
        "training hearts, and from hearts drawn at random to the most similar training heart."
    )
    columns = ("model", *(heading for _, heading, _ in QUALITY))
    tables = [Table("Compactness, generalisation, specificity", columns, rows, note)]
    tables.append(Table("Hearts between two hearts", ("model", "with valid anatomy"), between))
    return [table for table in tables if table.rows]


def _checked(model: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a model; ValueError where their shapes do not go together."""
    number, count = len(model["vertices"]), len(model["components"])
    shapes = {
        "vertices": (number, 3), "faces": (len(model["faces"]), 3),
        "labels": (len(model["faces"]),), "components": (count, number, 3), "explained": (count,),
    }  # fmt: skip
    for name in ("faces", "labels"):
        if model[name].dtype.kind not in "iu":
            raise ValueError(f"{name} are no whole numbers")
    for name, shape in shapes.items():
        if model[name].shape != shape:
            raise ValueError(f"{name} has the shape {model[name].shape}, not {shape}")
        if not np.isfinite(model[name]).all():
            raise ValueError(f"{name} has values that are no numbers")
    if number and not 0 <= model["faces"].min() <= model["faces"].max() < number:
        raise ValueError("faces has corners that are no vertices")
    return dict(model)


def _modes(model: Mapping[str, np.ndarray], labels: LabelTable) -> Modes:
    """What the page draws: fewer vertices, each with its own places in mean and components."""
    means = model["vertices"].astype(np.float32)
    components = model["components"][:SLIDERS].astype(np.float32)
    steps = {
        "mean": max(float(np.abs(means).max()), 1e-6) / LARGEST,
        "components": max(float(np.abs(components).max()), 1e-6) / LARGEST,
    }
    names = {label.value: label.name for label in labels}
    parts: list[dict[str, Any]] = []
    for value in np.unique(model["labels"]).tolist():
        rows, faces = fewer(Mesh(means, model["faces"][model["labels"] == value]))
        corners = faces.astype(np.uint16 if len(rows) < 1 << 16 else np.uint32)
        part: dict[str, Any] = {"name": names.get(value, f"class {value}")}
        part |= dict(zip("ijk", (typed(column) for column in corners.T)))
        part["mean"] = typed(_whole(means[rows], steps["mean"]))
        part["components"] = typed(_whole(components[:, rows], steps["components"]))
        parts.append(part)
    away = np.linalg.norm(components[0], axis=-1) * FAR_SD
    most = FAR_SD * np.abs(components).sum(axis=0)  # all sliders at their ends
    low, high = (means - most).min(axis=0), (means + most).max(axis=0)
    return Modes(
        title="The mean heart, moved along its modes",
        parts=parts,
        steps=steps,
        shares=[float(share) for share in model["explained"][:SLIDERS]],
        classes=structures([part["name"] for part in parts], labels),
        largest_mm=max(float(np.percentile(away, FULL_SCALE)), 1e-3),
        reach={axis: [float(low[k]), float(high[k])] for k, axis in enumerate("xyz")},
        nearer=min(1.0, 1.1 * float(np.ptp(means, axis=0).max() / (high - low).max())),
    )


def fewer(mesh: Mesh, faces: int = FACES) -> tuple[np.ndarray, np.ndarray]:
    """Some vertices of a surface and the triangles between them: what belongs to a vertex stays.

    Returns
    -------
    (N,) int64 rows of the mesh's vertices, and (F, 3) int64 numbers of these.
    """
    used, corners = np.unique(mesh.faces, return_inverse=True)
    own = Mesh(mesh.vertices[used], corners.reshape(-1, 3).astype(np.int32))
    thin = thinner(own, faces)
    _, nearest = cKDTree(own.vertices).query(thin.vertices)
    triangles = np.asarray(nearest)[thin.faces]
    a, b, c = triangles.T
    triangles = triangles[(a != b) & (b != c) & (a != c)]
    rows, numbers = np.unique(triangles, return_inverse=True)
    return used[rows], numbers.reshape(-1, 3)


def _whole(places: np.ndarray, step: float) -> np.ndarray:
    return np.round(places / step).astype(np.int16)
