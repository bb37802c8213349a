"""Generated hearts beside the training hearts that are most like them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..geometry.mesh_files import MESH_ENDING
from ..geometry.surface import Mesh
from ..labels import LabelTable
from .hearts import arrays, ranks, readable, thinner
from .parts import Results, Table, Viewer, structures, words

FACES = 1500  # of a surface
NEAREST = ("memorisation", "nearest")
RANKS = ("least like any training heart", "in between", "most like a training heart")
WAYS = (
    ("beside", "Generated, and the training heart on its right"),
    ("model", "Generated"),
    ("truth", "Training heart"),
    ("both", "Generated within the training heart"),
)
NOTE = (
    "The training heart is the nearest one of all: 1 - Dice after it was turned, moved and scaled "
    "onto the generated heart. In the view each lies as it is, about its own middle."
)


def nearest_hearts(
    results: Results, folder: str, labels: LabelTable, whence: str = ""
) -> tuple[Table | None, Viewer | None]:
    """Some generated hearts of ``folder`` (ldm/labels) and the training hearts nearest to them.

    whence : end of the titles.

    Figures of an earlier version do not say which these are: then there is nothing to show.
    """
    file = f"{folder}/samples/figures.json"
    found: Any = results.json(file)
    for key in NEAREST:
        found = found.get(key) if isinstance(found, Mapping) else None
    if not found:
        return None, None
    chosen = ranks({name: near["distance"] for name, near in found.items()}, RANKS)
    rows, hearts, apart = [], {}, 0.0
    for rank, name in chosen.items():
        case_id = found[name]["case_id"]
        cell = results.number(file, (*NEAREST, name, "distance"), ".3f")
        rows.append([*words(f"{name}: {rank}", case_id), cell])
        meshes = results.folder / folder / "samples" / "meshes" / name
        files = sorted(meshes.glob(f"*{MESH_ENDING}"))
        made = _centred(files)
        if not made:
            continue
        real = _centred([results.folder / "meshes" / case_id / path.name for path in files])
        hearts[f"{name} and {case_id}: {rank}"] = _pair(made, real)
        apart = max(apart, _width(made), _width(real))
    columns = ("generated heart", "nearest training heart", "1 - Dice, aligned")
    title = f"Generated hearts and their nearest training hearts{whence}"
    table = Table(title, columns, rows, NOTE)
    if not hearts:
        return table, None
    there = {mesh["name"] for heart in hearts.values() for mesh in heart}
    named = structures(there, labels)
    return table, Viewer(title, hearts, named, WAYS, "beside", apart_mm=1.1 * apart)


def _centred(files: Sequence[Path]) -> dict[str, Mesh]:
    """Class -> surface, about the middle of all of them."""
    meshes = {path.stem: readable(path) for path in files}
    found = {name: thinner(mesh, FACES) for name, mesh in meshes.items() if mesh is not None}
    if not found:
        return {}
    places = np.concatenate([mesh.vertices for mesh in found.values()])
    middle = ((places.min(axis=0) + places.max(axis=0)) / 2).astype(np.float32)
    return {name: Mesh(mesh.vertices - middle, mesh.faces) for name, mesh in found.items()}


def _pair(made: Mapping[str, Mesh], real: Mapping[str, Mesh]) -> list[dict[str, Any]]:
    return [
        {"name": name, "model": arrays(mesh)}
        | ({"truth": arrays(real[name])} if name in real else {})
        for name, mesh in made.items()
    ]


def _width(hearts: Mapping[str, Mesh]) -> float:
    """Of all surfaces together, mm from the patient's left to the right."""
    if not hearts:
        return 0.0
    places = np.concatenate([mesh.vertices[:, 0] for mesh in hearts.values()])
    return float(np.ptp(places))
