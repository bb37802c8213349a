"""A results folder with everything that the report has something for, small and made at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import trimesh

from cardiform.cohort.splits import write_split
from cardiform.cohort.table import SKIPPED, Case, write_cases
from cardiform.files import write_json
from cardiform.geometry.mesh_files import write_mesh
from cardiform.geometry.surface import Mesh
from cardiform.labels import LabelTable
from cardiform.metrics.record import write_held_out_figures

TABLE = LabelTable()
CLASSES = ("left_ventricle", "aorta", "coronary")
RADII = {"left_ventricle": 30.0, "aorta": 12.0, "coronary": 4.0}
CENTRES = {"left_ventricle": (0, 0, 0), "aorta": (0, 0, 60), "coronary": (45, 0, 0)}
OFF_MM = 2.0  # the model's surfaces lie so far outside
HOSTILE = "<script>alert(1)</script> & co"
DICE = {"c01": 0.9, "c02": 0.7, "c03": 0.8}  # of the test cases; c01 is the best heart


def write_results(folder: Path, cases: int = 6, classes: Sequence[str] = CLASSES) -> Path:
    """Write it below ``folder``: ``cases`` hearts of ``classes``."""
    rng = np.random.default_rng(0)
    names = [f"c{number:02d}" for number in range(cases)]
    rows = [Case(case_id=n, patient_id=n, labels=f"{n}.nii.gz") for n in names]
    bad = Case(case_id="bad", patient_id="bad", labels="x", status=SKIPPED, reason=HOSTILE)
    write_cases(folder / "cases.tsv", [*rows, bad])
    write_cohort(folder, names, rng, classes)
    for part, members in (("train", rows[4:]), ("val", rows[:1]), ("test", rows[1:4])):
        write_split(folder / "split" / f"{part}.csv", members, folder / "points")
    write_training(folder / "vecset", rng)
    write_figures(folder, classes)
    for name in DICE:
        for label in classes:
            write_mesh(folder / "meshes" / name / f"{label}.ply", ball(label))
            made = folder / "vecset" / "reconstructions" / name / f"{label}.ply"
            write_mesh(made, ball(label, OFF_MM))
    return folder


def ball(label: str, more: float = 0.0) -> Mesh:
    """A sphere of many triangles where the structure is."""
    sphere = trimesh.creation.icosphere(5, RADII.get(label, 20.0) + more)
    vertices = (sphere.vertices + CENTRES.get(label, (0, 0, 0))).astype(np.float32)
    return Mesh(vertices, sphere.faces.astype(np.int32))


def write_cohort(folder: Path, names, rng, labels: Sequence[str] = CLASSES) -> None:
    """qc/cohort.json as check_cohort writes it."""
    found = []
    for name in names:
        volumes = {label: float(rng.uniform(5, 150)) for label in labels}
        entry = {"voxels": 10, "components": 1, "touches_border": False}
        found.append(
            {
                "case_id": name,
                "problems": [],
                "warnings": [HOSTILE] if name == names[0] else [],
                "spacing_mm": [0.5, 0.5, float(rng.uniform(0.5, 2))],
                "classes": {k: entry | {"volume_ml": round(v, 4)} for k, v in volumes.items()},
            }
        )
    classes = {}
    for label in labels:
        values = [case["classes"][label]["volume_ml"] for case in found]
        spread = {"mean": np.mean(values), "sd": np.std(values), "min": min(values)}
        classes[label] = {
            "cases": len(values),
            "volume_ml": {k: float(v) for k, v in (spread | {"max": max(values)}).items()},
            "touches_border": 0,
            "other_components": 0,
        }
    write_json(folder / "qc" / "cohort.json", {"classes": classes, "cases": found})


def write_training(folder: Path, rng) -> None:
    """metrics.json and metrics.jsonl of a training of 300 steps."""
    events = [{"event": "start", "step": 0}]
    for step in range(0, 301, 20):
        figures = {"loss": float(np.exp(-step / 100) + rng.uniform(0, 0.1))}
        kind = "validation" if step % 100 == 0 else "log"
        events.append({"event": kind, "step": step, "figures": figures})
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(event) + "\n" for event in events)
    (folder / "metrics.jsonl").write_text(text)
    write_json(
        folder / "metrics.json",
        {
            "validation": {"loss": 0.0512345, "usage": 0.875},
            "before": {"loss": 1.0},
            "best_step": 300,
            "steps": 300,
            "seconds": 754.3,
            "parameters": 261290,
            "cases": {"train": 2, "validation": 1},
        },
    )


def write_figures(folder: Path, labels: Sequence[str]) -> None:
    """Held-out figures of VecSet and of latent diffusion."""

    def row(dice: float) -> dict:
        return {"dice": dice, "assd_mm": 2 - dice, "hd95_mm": None, "volume_error": dice - 1}

    cases = {
        name: {
            "model": {label: row(dice - 0.01 * k) for k, label in enumerate(labels)},
            "mean_shape": {label: row(0.5) for label in labels},
        }
        for name, dice in DICE.items()
    }
    means = {}
    for way in ("model", "mean_shape"):
        classes = {
            label: row(float(np.mean([case[way][label]["dice"] for case in cases.values()])))
            for label in labels
        }
        values = [found["dice"] for found in classes.values()]
        groups = {"chambers_and_great_vessels": row(values[0]), "all_classes": row(np.mean(values))}
        means[way] = {"mean": classes, **groups}
    figures = {"test": {**means, "cases": cases}}
    path = folder / "vecset" / "reconstructions" / "metrics.json"
    write_held_out_figures(path, "reconstruct_vecset", figures, None)
    sets = {
        "all_classes": {"nna": 0.61, "cov": 0.5, "mmd": 4.123},
        "validity": {"valid": 0.95},
        "volumes": {"mean_w1": 0.31},
    }
    samples = folder / "ldm" / "labels" / "samples"
    write_json(samples / "figures.json", {"generated": sets, "autoencoder": sets})
    (samples / "overview.png").write_bytes(PIXEL)


PIXEL = bytes.fromhex(  # a PNG of one pixel
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
