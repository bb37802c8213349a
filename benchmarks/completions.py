"""Completions of the same test hearts compared, as in docs/vecset.md.

    python benchmarks/completions.py --made results/generation/vecset/completion/metrics.json \\
        --beside results/generation/ldm/labels/completion/metrics.json \\
        --whole results/generation/vecset/reconstructions/metrics.json

--made takes several files, of trainings with other seeds: a heart then counts with the mean over
them (if all have it), and the least and the most of the seeds' means are shown. Intervals are
bootstrap intervals over the hearts (95 %), differences those of pairs. --whole: Dice of
reconstructions from all classes, in the order of --made; --plain: of networks that hid none.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import measuring  # noqa: F401  puts the library on the path
import numpy as np

from cardiform.labels import LabelTable

SAMPLES = 2000
Dice = dict[str, np.ndarray]  # class -> (seeds, hearts), NaN where a heart lacks it


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--made", nargs="+", required=True, type=Path, help="metrics.json, by seed")
    parser.add_argument("--beside", nargs="*", default=[], type=Path, help="of the other way")
    parser.add_argument("--whole", nargs="*", default=[], type=Path, help="from all classes")
    parser.add_argument("--plain", nargs="*", default=[], type=Path, help="the same, none hidden")
    args = parser.parse_args()
    hearts = sorted(json.loads(args.made[0].read_text())["cases"])
    made, beside = completions(args.made, hearts), completions(args.beside, hearts)
    whole, plain = reconstructions(args.whole, hearts), reconstructions(args.plain, hearts)
    print(f"{len(hearts)} hearts, {len(args.made)} seeds")
    print("| class | Dice | seeds | beside | difference | whole | plain | difference |")
    for name in LabelTable().names:
        if name not in made:
            continue
        by_seed = made[name][:, np.isfinite(made[name]).all(axis=0)].mean(axis=1)
        cells = [
            interval(made[name]),
            f"{by_seed.min():.3f} to {by_seed.max():.3f}",
            *compared(made, beside, name),
            interval(whole[name]) if name in whole else "",
            *compared(whole, plain, name),
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def compared(made: Dice, beside: Dice, name: str) -> tuple[str, str]:
    """What stands beside it, and what is better than that by how much."""
    if name not in beside or name not in made:
        return "", ""
    return interval(beside[name]), interval(
        made[name].mean(axis=0, keepdims=True) - beside[name].mean(axis=0, keepdims=True), "+.3f"
    )


def interval(values: np.ndarray, form: str = ".3f") -> str:
    """Mean over the hearts, and where it lies in 95 % of the draws of hearts.

    values : (seeds, hearts).
    """
    known = values.mean(axis=0)
    known = known[np.isfinite(known)]
    if not len(known):
        return "-"
    rows = np.random.default_rng(0).integers(len(known), size=(SAMPLES, len(known)))
    low, high = np.percentile(known[rows].mean(axis=1), (2.5, 97.5))
    return f"{known.mean():{form}} ({low:{form}} to {high:{form}})"


def completions(paths: Sequence[Path], hearts: Sequence[str]) -> Dice:
    """Of metrics.json of complete_vecset or complete_labels."""
    found = [json.loads(path.read_text())["cases"] for path in paths]
    return gathered([{h: of_classes(cases.get(h, {}), "model") for h in hearts} for cases in found])


def reconstructions(paths: Sequence[Path], hearts: Sequence[str]) -> Dice:
    """Of metrics.json of reconstruct_vecset."""
    found = [json.loads(path.read_text())["test"]["cases"] for path in paths]
    return gathered(
        [{h: {n: v["dice"] for n, v in of_heart(cases, h).items()} for h in hearts}
         for cases in found]
    )  # fmt: skip


def of_heart(cases: dict, heart: str) -> dict:
    figures = cases.get(heart, {}).get("model") or {}
    return {name: value for name, value in figures.items() if value}


def of_classes(figures: dict, way: str) -> dict[str, float]:
    return {name: found[way]["dice"] for name, found in figures.items() if found and found.get(way)}


def gathered(seeds: Sequence[dict[str, dict[str, float]]]) -> Dice:
    names = {name for hearts in seeds for found in hearts.values() for name in found}
    return {
        name: np.array([[_number(found, name) for found in hearts.values()] for hearts in seeds])
        for name in names
    }


def _number(found: dict[str, float], name: str) -> float:
    value = found.get(name)
    return np.nan if value is None else value


if __name__ == "__main__":
    main()
