"""What models make of cases that they were not trained on, beside baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..labels import CHAMBERS_AND_GREAT_VESSELS, LabelTable
from .charts import boxes
from .parts import Cell, Chart, Results, Section, Table, structures, words

FAMILIES = ("vecset", "vqvae")
WINDOWS = {"together": "all windows together"}  # folder of a route that is of no single one
PARTS = {"test": "test cases", "validation": "validation cases, which chose the weights"}
METHODS = {
    "model": "model",
    "mean_shape": "mean shape",
    "untrained": "untrained",
    "stage1": "stage 1",
    "continuous": "continuous",
}
ALL = "all_classes"
GROUPS = {"chambers_and_great_vessels": "Chambers and great vessels", ALL: "All classes"}
# of the model, behind the Dice: figure, heading, how it is shown
DISTANCES = (
    ("assd_mm", "ASSD mm", ".2f"),
    ("hd95_mm", "HD95 mm", ".2f"),
    ("volume_error", "volume", "+.1%"),
)
DRAWS, SEED = 2000, 0


def family_sections(results: Results, labels: LabelTable) -> list[Section]:
    """A section per family whose held-out figures are there, windows included."""
    sections = []
    windows = sorted(results.folder.glob("vqvae_windows/*"))
    for name in (*FAMILIES, *(p.relative_to(results.folder).as_posix() for p in windows)):
        file = f"{name}/reconstructions/metrics.json"
        found = results.json(file)
        parts = [part for part in PARTS if (found or {}).get(part, {}).get("cases")]
        if not parts:
            continue
        tables = [_table(results, file, part, labels) for part in parts]
        chart = _chart(found[parts[0]]["cases"], labels)
        title = f"{_family(name)}: hearts it was not trained on"
        sections.append(Section(name.replace("/", "-"), title, "", tables, [chart]))
    return sections


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of a mean, percentiles of bootstrap draws of the cases, always the same.

    values : (N, C) of N cases, NaN where a class is not known: the mean is that over the classes
        of their means over the cases, as in the figures.

    Efron, Bootstrap methods: another look at the jackknife, Annals of Statistics 7 (1979).
    """
    values = values[np.isfinite(values).any(axis=1)][:, np.isfinite(values).any(axis=0)]
    cases = len(values)
    if cases < 2:
        return None
    rng = np.random.default_rng(SEED)
    times = rng.multinomial(cases, np.full(cases, 1 / cases), size=DRAWS).astype(float)
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):  # a class that no drawn case has
        means = (times @ np.where(known, values, 0)) / (times @ known)
    drawn = means[np.isfinite(means).any(axis=1)]
    low, high = np.percentile(np.nanmean(drawn, axis=1), (2.5, 97.5))
    return float(low), float(high)


def dice_of(case: Mapping[str, Any]) -> dict[str, float]:
    """Class -> Dice of the model, of the classes that are known and whole."""
    cut = case.get("cut", ())
    found = {name: row.get("dice") for name, row in case["model"].items() if name not in cut}
    return {name: value for name, value in found.items() if value is not None}


def _family(name: str) -> str:
    family, _, window = name.partition("/")
    title = {"vecset": "VecSet"}.get(family, "Sparse VQ-VAE")
    return f"{title} of {WINDOWS.get(window, f'the window {window}')}" if window else title


def _table(results: Results, file: str, part: str, labels: LabelTable) -> Table:
    found = results.json(file)[part]
    methods = [m for m in found if isinstance(found[m], dict) and "mean" in found[m]]
    cases = [dice_of(case) for case in found["cases"].values()]
    mean = found["model"]["mean"]
    rows = []
    for name, title, _ in structures(mean, labels):
        known = _known(cases, [name])
        rows.append([*words(title), *_cells(results, file, part, methods, ("mean", name), known)])
    for group, title in GROUPS.items():
        if found["model"].get(group, {}).get("dice") is not None:
            names = [n for n in mean if group == ALL or n in CHAMBERS_AND_GREAT_VESSELS]
            known = _known(cases, names)
            cells = _cells(results, file, part, methods, (group,), known)
            rows.append([*words(title), *cells])
    columns = ["structure", "Dice", "95 % interval"]
    columns += [f"Dice: {METHODS.get(m, m)}" for m in methods if m != "model"]
    columns += [heading for _, heading, _ in DISTANCES]
    title = f"{len(found['cases'])} {PARTS[part]}"
    note = (
        "Means over cases on the label maps' own grids; the interval is a bootstrap over the "
        "cases, and of one training. ASSD and HD95 are distances between the surfaces, volume is "
        "the signed error."
    )
    return Table(title, columns, rows, note)


def _cells(results, file, part, methods, keys, known: np.ndarray) -> list[Cell]:
    def cell(method: str, figure: str, form: str) -> Cell:
        return results.number(file, (part, method, *keys, figure), form)

    ends = interval(known)
    between = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "–"
    return [
        cell("model", "dice", ".3f"),
        *words(between),
        *(cell(method, "dice", ".3f") for method in methods if method != "model"),
        *(cell("model", figure, form) for figure, _, form in DISTANCES),
    ]


def _known(cases: Sequence[Mapping[str, float]], names: Sequence[str]) -> np.ndarray:
    """(N, C) of some classes; NaN where a case does not have one."""
    return np.array([[case.get(name, np.nan) for name in names] for case in cases], float)


def _chart(cases: Mapping[str, Any], labels: LabelTable) -> Chart:
    series = {}
    names = dict.fromkeys(name for case in cases.values() for name in dice_of(case))
    for name, title, color in structures(names, labels):
        found = {case: dice_of(row).get(name) for case, row in cases.items()}
        known = {case: value for case, value in found.items() if value is not None}
        series[title] = (list(known.values()), list(known), color)
    return Chart("Dice of every case", boxes(series, "Dice"), 420)
