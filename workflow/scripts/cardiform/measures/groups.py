"""Differences between groups of hearts: their size, their chance, and how many were looked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ..cohort.free_columns import read_groups
from ..tables import number_of
from .norms import wide
from .table import KEYS

COLUMNS = (
    "column", "group_a", "group_b", *KEYS, "cases_a", "cases_b", "mean_a", "mean_b", "difference",
    "effect", "effect_size", "p", "p_corrected",
)  # fmt: skip
HEDGES, SPEARMAN = "hedges_g", "spearman_rho"
LEAST = 3  # hearts of a group
MOST_GROUPS = 6
ROUNDING = 1e-12  # two orders of the same hearts give the same figure but for this


def read_columns(
    path: str | Path, columns: Iterable[str], cases: Iterable[str]
) -> dict[str, pd.Series]:
    """Free columns of a case table: column -> text by case id; missing ones are left out.

    Raises
    ------
    InputError
        The table lacks one of the columns, or has words in a column of numbers.
    """
    found = read_groups(path, list(columns), cases)
    return {name: pd.Series(texts, dtype=object) for name, texts in found.items()}


def compare(
    measures: pd.DataFrame,
    columns: Mapping[str, pd.Series],
    *,
    permutations: int,
    correction: str,
    seed: int,
) -> tuple[pd.DataFrame, list[str]]:
    """A row of :data:`COLUMNS` for every column, pair of groups and measure; notes on columns.

    A column of numbers with more than two values is held against each measure by rank (Spearman);
    any other divides the hearts into groups, of which each pair is compared: difference of means,
    Hedges' g. p is the share of random orders of the hearts with an effect as large, the given one
    counted (Phipson and Smyth 2010); ``p_corrected`` holds for all rows of a column together.
    """
    hearts = wide(measures)
    tables: list[pd.DataFrame] = []
    notes: list[str] = []
    for name, texts in columns.items():
        rng = np.random.default_rng(seed)
        own = texts[texts.index.isin(hearts.index)]
        rows = []
        for test, values, labels in _tests(name, own, notes):
            rows += list(_rows(hearts, test, values, labels, permutations, rng))
        if rows:
            table = pd.DataFrame(rows)
            tables.append(table.assign(column=name, p_corrected=corrected(table["p"], correction)))
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS)), notes
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)], notes


def _tests(
    name: str, texts: pd.Series, notes: list[str]
) -> Iterator[tuple[str, pd.Series, tuple[str, str]]]:
    """Kind of test, a number per case, and the names of both groups, for each test of a column."""
    numbers = texts.map(number_of)
    if len(texts) and numbers.notna().all() and numbers.nunique() > 2:
        yield SPEARMAN, numbers.astype(np.float64), ("", "")
        return
    sizes = texts.value_counts()
    usable = sorted(sizes.index[sizes >= LEAST])
    if small := sorted(sizes.index[sizes < LEAST]):
        notes.append(f"{name}: left out, fewer than {LEAST} hearts: {', '.join(small)}")
    if not 2 <= len(usable) <= MOST_GROUPS:
        notes.append(
            f"{name}: {len(usable)} groups of {LEAST} hearts or more; from 2 to {MOST_GROUPS} of "
            "them are compared"
        )
        return
    for a, b in combinations(usable, 2):
        own = texts[texts.isin([a, b])]
        yield HEDGES, (own == b).astype(np.float64), (a, b)


def _rows(
    hearts: pd.DataFrame,
    test: str,
    values: pd.Series,
    labels: tuple[str, str],
    permutations: int,
    rng: np.random.Generator,
) -> Iterator[dict]:
    """The rows of one test, one for each measure that enough of the hearts have."""
    order = np.argsort(rng.random((permutations, len(values))), axis=1)
    both = hearts.reindex(values.index)
    for key in both.columns:
        known = both[key].notna().to_numpy()
        measured = both[key].to_numpy()[known]
        group = values.to_numpy()[known]
        if test == HEDGES and min((group == 0).sum(), (group == 1).sum()) < LEAST:
            continue
        if len(measured) < LEAST or np.ptp(measured) == 0 or np.ptp(group) == 0:
            continue
        # an order of all hearts is one of those that have the measure
        places = np.cumsum(known) - 1
        shuffled = order[known[order]].reshape(permutations, -1)
        effect, p = _permuted(test, measured, group, places[shuffled])
        row = dict(zip(KEYS, key)) | {"effect": test, "effect_size": effect, "p": p}
        row |= {"group_a": labels[0], "group_b": labels[1]}
        yield row | _means(test, measured, group)


def _means(test: str, measured: np.ndarray, group: np.ndarray) -> dict:
    if test == SPEARMAN:
        empty = {"cases_b": "", "mean_b": np.nan, "difference": np.nan}
        return {"cases_a": len(measured), "mean_a": measured.mean()} | empty
    a, b = measured[group == 0], measured[group == 1]
    return {
        "cases_a": len(a), "cases_b": len(b), "mean_a": a.mean(), "mean_b": b.mean(),
        "difference": b.mean() - a.mean(),
    }  # fmt: skip


def _permuted(
    test: str, measured: np.ndarray, group: np.ndarray, orders: np.ndarray
) -> tuple[float, float]:
    """The effect, and the share of orders of the hearts with one as large.

    orders : (P, N) int, each a permutation of the hearts.
    """
    if test == SPEARMAN:
        measured, group = rankdata(measured), rankdata(group)
    centred, about = measured - measured.mean(), group - group.mean()
    scale = np.sqrt((centred**2).sum() * (about**2).sum())
    # of two groups the difference of means rises with this correlation, whatever the order
    correlation = float(centred @ about) / scale
    others = centred[orders] @ about / scale
    as_large = np.abs(others) >= abs(correlation) - ROUNDING
    p = (1 + int(as_large.sum())) / (1 + len(orders))
    return (correlation if test == SPEARMAN else hedges(measured, group)), p


def hedges(measured: np.ndarray, group: np.ndarray) -> float:
    """Hedges' g (1981): difference of means, 1 less 0, over the pooled sd, for small samples."""
    a, b = measured[group == 0], measured[group == 1]
    freedom = len(a) + len(b) - 2
    spread = np.sqrt(((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()) / np.sqrt(freedom)
    if spread == 0:
        return float(np.copysign(np.inf, b.mean() - a.mean()))
    return float((b.mean() - a.mean()) / spread * (1 - 3 / (4 * freedom - 1)))


def corrected(p: Iterable[float], correction: str) -> np.ndarray:
    """(N,) p values for N tests at once.

    correction : holm (Holm 1979, family-wise error) or bh (Benjamini and Hochberg 1995, rate of
        false discoveries).
    """
    p = np.asarray(list(p), np.float64)
    order = np.argsort(p, kind="stable")
    rank = np.arange(len(p))
    if correction == "holm":
        sorted_p = np.maximum.accumulate(p[order] * (len(p) - rank))
    else:
        scaled = p[order] * len(p) / (rank + 1)
        sorted_p = np.minimum.accumulate(scaled[::-1])[::-1]
    result = np.empty_like(p)
    result[order] = np.minimum(sorted_p, 1.0)
    return result
