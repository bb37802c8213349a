"""The traced trees of a cohort: which vessels there are, how long and how wide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

SPREAD = ("mean", "sd", "min", "max")


def summarise(reports: Mapping[str, Mapping], rows: Sequence[Mapping[str, str]]) -> dict:
    """From summary.json and branches.csv of every case.

    Returns
    -------
    cases : their number.    with_trees : of those that have a branch.
    trees : number of trees -> cases.    vessels : name -> cases that have it, and mean, sd, min
    and max of its length (all its branches), of the length of its main course, and of its radius,
    mm.    notes : case -> its notes, where there are any.
    """
    vessels: dict[str, dict] = {}
    per_case: dict[str, dict[str, list[float]]] = {}
    main: dict[tuple[str, str], float] = {}
    for row in rows:
        key = row["name"], row["case_id"]
        if row["course"] == "main":
            main[key] = main.get(key, 0.0) + float(row["length_mm"])
    for report in reports.values():
        for name, found in report["names"].items():
            own = per_case.setdefault(name, {"length_mm": [], "main_mm": [], "radius_mm": []})
            own["length_mm"].append(found["length_mm"])
            own["main_mm"].append(main.get((name, report["case_id"]), 0.0))
            own["radius_mm"].append(found["radius_mean_mm"])
    for name, own in per_case.items():
        figures = {key: _spread(values) for key, values in own.items()}
        vessels[name] = {"cases": len(own["length_mm"]), **figures}
    numbers = [len(report["trees"]) for report in reports.values()]
    return {
        "cases": len(reports),
        "with_trees": sum(n > 0 for n in numbers),
        "trees": {str(n): numbers.count(n) for n in sorted(set(numbers))},
        "vessels": vessels,
        "notes": {case: r["notes"] for case, r in sorted(reports.items()) if r["notes"]},
    }


def lines(summary: Mapping) -> Iterator[str]:
    """The summary as lines of text."""
    yield f"{summary['with_trees']} of {summary['cases']} cases have a tree"
    yield f"{'':14}{'cases':>7}{'length mm':>16}{'of it main':>16}{'radius mm':>14}"
    for name, found in summary["vessels"].items():
        text = [f"{found[k]['mean']:.1f} +- {found[k]['sd']:.1f}" for k in ("length_mm", "main_mm")]
        radius = f"{found['radius_mm']['mean']:.2f} +- {found['radius_mm']['sd']:.2f}"
        yield f"{name:14}{found['cases']:>7}{text[0]:>16}{text[1]:>16}{radius:>14}"
    for case, notes in summary["notes"].items():
        yield f"{case}: {'; '.join(notes)}"


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = np.asarray(values, np.float64)
    figures = (found.mean(), found.std(), found.min(), found.max())
    return {name: round(float(value), 3) for name, value in zip(SPREAD, figures)}
