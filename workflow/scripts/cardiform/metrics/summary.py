"""Means of per-case figures, over cases and over groups of classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

# class name -> figure name -> value
CaseFigures = Mapping[str, Mapping[str, float | None]]


def mean_over_cases(cases: Sequence[CaseFigures]) -> dict[str, dict[str, float | None]]:
    """Class -> figure -> mean of the cases that have it (None where none has).

    A case may lack a class altogether: a scan that has one CT window less than the others, say.
    """
    classes = list(dict.fromkeys(name for case in cases for name in case))
    return {
        name: {
            figure: mean(case.get(name, {}).get(figure) for case in cases)
            for figure in dict.fromkeys(f for case in cases for f in case.get(name, {}))
        }
        for name in classes
    }


def mean_over_classes(means: CaseFigures, names: Iterable[str]) -> dict[str, float | None]:
    """Figure -> mean of the per-class means of ``names``; each class counts the same."""
    rows = [means[name] for name in names if name in means]
    return {f: mean(row.get(f) for row in rows) for f in dict.fromkeys(f for r in rows for f in r)}


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is not None."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
