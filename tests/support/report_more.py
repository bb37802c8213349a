"""What targets of their own make for the report: masks, generated hearts, modes, measures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from report_results import CLASSES, DICE, RADII, TABLE, ball, write_results

from cardiform.coronary.thin_structure import ThinStructure
from cardiform.files import save_npz, write_json
from cardiform.geometry.mesh_files import write_mesh
from cardiform.volumes import save_image, save_label_map

GAP = slice(9, 12)  # of the given vessel, which its repair bridges
NEAREST = {"sample_0000": ("c04", 0.31), "sample_0001": ("c05", 0.12)}
SHARES = (0.7, 0.2, 0.1)
GROWS_MM = 5.0  # of the ventricle's radius, per standard deviation of the first mode


def write_everything(folder: Path, cases: int = 6, classes: Sequence[str] = CLASSES) -> Path:
    """:func:`write_results`, and refined and fused masks, generated hearts that turn, modes of
    variation and measures."""
    write_results(folder, cases, classes)
    write_masks(folder)
    write_nearest(folder, classes)
    write_modes(folder / "shape_statistics", classes[:-1])
    write_measures(folder / "measures")
    return folder


def write_masks(folder: Path) -> None:
    """A vessel along x, given with a gap, of the test cases."""
    value = next(label.value for label in TABLE if label.name == "coronary")
    whole = np.zeros((20, 9, 9), bool)
    whole[2:18, 3:6, 3:6] = True
    given = whole.copy()
    given[GAP] = False
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    refined = folder / "coronary" / "refined"
    rows = {"label_against_truth": 0.6, "repair_against_truth": 0.8, "against_truth": 0.9}
    for case, dice in DICE.items():
        thin = ThinStructure(given, whole, np.ones_like(whole), affine)
        thin.save(folder / "coronary" / "repaired" / f"{case}.npz")
        save_image(refined / "fine" / f"{case}.nii.gz", whole.astype(np.uint8), affine)
        save_label_map(folder / "fused" / f"{case}.nii.gz", whole * np.uint8(value), affine)
        write_json(
            refined / f"{case}.json",
            {key: {"dice": d * dice, "cl_dice": dice * d + 0.01} for key, d in rows.items()},
        )
    means = {key: {"dice": d, "cl_dice": d + 0.05, "assd_mm": 1 - d} for key, d in rows.items()}
    own = {"own_grid": {key: {"dice": d - 0.1} for key, d in rows.items()}}
    write_json(refined / "metrics.json", {"test": {**means, **own}, "validation": {}})
    known = {"cases": 3, "dice_given": 0.61, "dice_fused": 0.87, "cl_dice_given": 0.7}
    found = {"cases": 3, "unexpected_before": 3, "unexpected_after": 1, "changed_cases": 2}
    classes = {"coronary": found | {"against_truth": known}, "aorta": found, "flow": found}
    write_json(folder / "fused" / "summary.json", {"cases": 3, "rules": {}, "classes": classes})


def write_nearest(folder: Path, classes: Sequence[str]) -> None:
    """Two generated hearts, and the training hearts that are nearest to them."""
    samples = folder / "ldm" / "labels" / "samples"
    figures = json.loads((samples / "figures.json").read_text())
    near = {name: {"case_id": c, "distance": d} for name, (c, d) in NEAREST.items()}
    write_json(samples / "figures.json", figures | {"memorisation": {"nearest": near}})
    for name, (case, _) in NEAREST.items():
        for label in classes[:-1]:
            write_mesh(samples / "meshes" / name / f"{label}.ply", ball(label, 1.0))
        for label in classes:
            write_mesh(folder / "meshes" / case / f"{label}.ply", ball(label))
    completed = {"aorta": {"model": {"dice": 0.8}}, "flow": {"model": {"dice": 0.4}}}
    path = folder / "ldm" / "labels" / "completion" / "metrics.json"
    write_json(path, {"mean": completed, "cases": {}})


def write_modes(folder: Path, classes: Sequence[str]) -> None:
    """A mean heart: the first mode makes the first structure larger, the second one lifts the
    others."""
    meshes = [ball(label) for label in classes]
    values = [label.value for n in classes for label in TABLE if label.name == n]
    ends = np.cumsum([len(mesh.vertices) for mesh in meshes])
    first = ends[0]
    vertices = np.concatenate([mesh.vertices for mesh in meshes])
    faces = np.concatenate([m.faces + end - len(m.vertices) for m, end in zip(meshes, ends)])
    components = np.zeros((len(SHARES), *vertices.shape), np.float32)
    components[0, :first] = vertices[:first] / RADII["left_ventricle"] * GROWS_MM
    components[1, first:, 2] = 3.0
    save_npz(
        folder / "model.npz",
        vertices=vertices,
        faces=faces.astype(np.int32),
        labels=np.repeat(np.array(values, np.uint8), [len(mesh.faces) for mesh in meshes]),
        components=components,
        explained=np.array(SHARES, np.float32),
    )
    rows = [
        {"modes": k, "compactness": sum(SHARES[:k]), "generalisation_mm": 2.0 - 0.3 * k}
        | {"training_mm": 1.5 - 0.3 * k, "specificity_mm": 1.0 + 0.1 * k}
        for k in (1, 2)
    ]
    rows[1]["generalisation_mm"] = None
    record = {"by_modes": {"correspondences": rows, "signed_distances": rows[:1]}}
    record |= {"interpolated": {"correspondences": {"hearts": 8, "valid": 0.975}}}
    write_json(folder / "statistics.json", record)


def write_measures(folder: Path) -> None:
    """Norms of a volume, and a heart far from them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "norms.csv").write_text(
        "class,part,measure,unit,cases,mean,sd,min,p05,p25,median,p75,p95,max\n"
        "aorta,whole,volume,ml,40,100,10,80,85,90,99,110,115,120\n"
    )
    (folder / "zscores.csv").write_text(
        "case_id,class,part,measure,value,unit,cut,cases,mean,sd,z\n"
        "c01,aorta,whole,volume,141,ml,False,40,100,10,4.1\n"
        "c02,aorta,whole,volume,90,ml,False,40,100,10,-1\n"
        "c03,aorta,whole,volume,10,ml,True,40,100,10,\n"
        "c02,aorta,whole,area,9,cm2,False,40,10,1,-1\n"
    )
