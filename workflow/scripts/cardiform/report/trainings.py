"""Every training of a results folder: its course and its last figures."""

from __future__ import annotations

import math
import re
from pathlib import Path

from ..errors import InputError
from ..pictures.curves import read_events
from .charts import curves
from .parts import Chart, Results, Section, Table, words

COLUMNS = (
    "training", "weights", "steps", "best step", "minutes", "cases", "loss before", "loss",
    "codes used",
)  # fmt: skip
TITLES = {
    "vecset": "VecSet",
    "vqvae/stage0": "Sparse VQ-VAE, stage 0: continuous",
    "vqvae/stage1": "Sparse VQ-VAE, stage 1: codebook",
    "vqvae/stage2": "Sparse VQ-VAE, stage 2: all of it",
    "coronary/cardiform": "Coronary refinement",
    "coronary/near": "NeAR auto-decoder",
    "ldm/labels/autoencoder": "Latent diffusion: autoencoder",
    "ldm/labels/diffusion": "Latent diffusion",
    "ldm/labels/vessels/model": "Vessels of generated hearts",
    "set_diffusion/model": "Diffusion of the VecSet's latents",
}
LEVEL = re.compile(r"(?P<training>.*/stage0)_(?P<resolution>\d+)")
SKIPPED = ("folds", "applied", "search")  # folders with pages and tables of their own


def trainings_section(results: Results) -> Section | None:
    """A row and a chart per training; None where there is none."""
    names = [
        path.parent.relative_to(results.folder).as_posix()
        for path in sorted(results.folder.glob("**/metrics.jsonl"))
    ]
    names = [name for name in names if name.split("/")[0] not in SKIPPED]
    names.sort(key=_rank)
    rows, charts, options = [], [], []
    for name in names:
        options += _options(results, name)
        file = f"{name}/metrics.json"
        if results.json(file) is not None:
            rows.append(
                [
                    *words(title_of(name)),
                    results.number(file, ("parameters",), ",.0f"),
                    results.number(file, ("steps",), ".0f"),
                    results.number(file, ("best_step",), ".0f"),
                    results.number(file, ("seconds",), ".1f", 1 / 60),
                    results.number(file, ("cases", "train"), ".0f"),
                    results.number(file, ("before", "loss"), ".4g"),
                    results.number(file, ("validation", "loss"), ".4g"),
                    results.number(file, ("validation", "usage"), ".0%"),
                ]
            )
        chart = _course(title_of(name), results.folder / name / "metrics.jsonl")
        charts += [chart] if chart else []
    if not rows and not charts:
        return None
    text = "Losses are of the validation cases, which chose the weights that were kept."
    return Section("trainings", "Trainings", text, [Table("", COLUMNS, rows), *options], charts)


def title_of(name: str) -> str:
    """What people call a training."""
    whole, resolution = _level(name)
    title = TITLES.get(whole, whole)
    return f"{title}, first at {resolution}³" if resolution else title


def _level(name: str) -> tuple[str, int]:
    """A training without its coarser resolution, and that resolution; 0: it has its own."""
    found = LEVEL.fullmatch(name)
    return (found["training"], int(found["resolution"])) if found else (name, 0)


def _rank(name: str) -> tuple[int, str, float]:
    """Coarser levels stand before the training that they lead to."""
    order = list(TITLES)
    whole, resolution = _level(name)
    place = order.index(whole) if whole in order else len(order)
    return place, whole, resolution or math.inf


def _options(results: Results, name: str) -> list[Table]:
    """Every option of a training, where they are written down."""
    sections = results.json(f"{name}/options.json") or {}
    rows = [
        words(f"{section}.{key}", value)
        for section, values in sections.items()
        if isinstance(values, dict)
        for key, value in values.items()
    ]
    title = f"Options: {title_of(name)}"
    return [Table(title, ("option", "value"), rows, folded=True)] if rows else []


def _course(title: str, path: Path) -> Chart | None:
    try:
        training, validation = read_events(path)
    except InputError:
        return None
    series = {}
    if "loss" in training:
        series["training"] = training["loss"]
    if "loss" in validation:
        series["validation"] = validation["loss"]
    return Chart(title, curves(series, "loss"), 300) if series else None
