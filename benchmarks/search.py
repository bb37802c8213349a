"""A search for VecSet's settings on the demo's hearts; its best against the config on test cases.

    snakemake points --configfile config/demo.yaml --config 'cohort={use_refined: false}'
    python benchmarks/search.py --results results/demo --out build/search

The workflow's own scripts, called in its order in one process: a trial of seconds would spend
most of its time on imports. The search ranks by validation cases; then the settings of best.yaml
and those of the config are trained with three seeds each, and measured on the test cases, which
neither the search nor the trainings have seen (the last weights are shipped).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow" / "scripts"), str(ROOT / "tests" / "support")]

from inside import run_inside  # noqa: E402

from cardiform import cli  # noqa: E402
from cardiform.options.search import SearchOptions  # noqa: E402
from cardiform.options.sections import SECTIONS  # noqa: E402
from cardiform.search import rungs  # noqa: E402
from cardiform.search.space import parse_space, text_of, values_of  # noqa: E402

# A cut of the demo: few points and steps, so that a trial takes seconds on a CPU.
CUT = {
    "steps": 120, "warmup_steps": 10, "validate_every": 60, "checkpoint_every": 60,
    "input_points": 512, "volume_queries": 128, "near_queries": 128, "surface_queries": 64,
    "eikonal_queries": 16, "batch_size": 2, "ema_decay": 0.95, "hidden_share": 0.0, "device": "cpu",
}  # fmt: skip
SEARCH = SearchOptions(
    training="vecset",
    space=(
        "lr=5e-4..3e-2/log", "balanced=0.2..0.8", "weight_near=2..40/log", "clip_norm=0.3..3/log"
    ),
    trials=20,
    rungs=(15, 45, 120),
    figure="dice",  # a loss would be of other weights in every trial
    goal="highest",
)  # fmt: skip
SEEDS = (0, 1, 2)


def call(script: str, *arguments) -> None:
    result = run_inside(script, *arguments)
    assert result.returncode == 0, result.stderr


def train(options, split: Path, part: str, out: Path) -> Path:
    flags = [word for word in cli.flags(options).split() if word]
    files = ("--train", split / "train.csv", "--validation", split / f"{part}.csv", "--out", out)
    flags = [flag.strip("'") for flag in flags]
    call("train_vecset.py", *files, *flags)
    return out / "metrics.json"


def search(options, split: Path, out: Path) -> Path:
    """The whole search; its best.yaml."""
    flags = [flag.strip("'") for flag in cli.flags(SEARCH).split()]
    given = values_of(parse_space(SEARCH), {"vecset": options})
    table = out / "round_0" / "trials.json"
    texts = [f"{name}={text_of(value)}" for name, value in given.items()]
    call("propose_trials.py", "--given", *texts, "--out", table, *flags)
    rankings = []
    for rung, (places, until) in enumerate(zip(rungs.places(SEARCH), SEARCH.rungs)):
        metrics = []
        for place, trial in enumerate(rungs.trials_in([table])[:places]):
            changes = {name.split(".")[1]: value for name, value in trial["options"].items()}
            if rung and "diverged" not in trial:
                last = out / f"rung_{rung - 1}" / f"place_{trial['place']:02d}"
                changes["resume_from"] = str(last / "checkpoints" / "last.pt")
            changes |= {"steps": SEARCH.rungs[-1], "until": until}
            folder = out / f"rung_{rung}" / f"place_{place:02d}"
            metrics.append(train(replace(options, **changes), split, "val", folder))
            print(f"rung {rung}, place {place}: trial {trial['trial']}", flush=True)
        ranking = out / f"rung_{rung}" / "ranking.json"
        call("rank_trials.py", "--tables", table, "--metrics", *metrics, "--out", ranking, *flags)
        rankings.append(table := ranking)
    call("collect_search.py", "--rankings", *rankings, "--out", out, *flags)
    return out / "best.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    config["vecset"] |= CUT
    options = cli.from_config(SECTIONS, config)["vecset"]
    split, started = args.results / "split", time.process_time()
    best = yaml.safe_load(search(options, split, args.out).read_text())["vecset"]
    print((args.out / "trials.tsv").read_text())
    print(f"the search: {time.process_time() - started:.0f} CPU s", flush=True)
    # validated once, after the last step: the test cases choose no weights
    for name, changes in (("config", {}), ("best", best)):
        figures = []
        for seed in SEEDS:
            trained = replace(options, **changes, seed=seed, validate_every=0)
            metrics = train(trained, split, "test", args.out / "test" / f"{name}_{seed}")
            figures.append(json.loads(metrics.read_text())["validation"]["dice"])
            print(f"{name}, seed {seed}: Dice of the test cases {figures[-1]:.4f}", flush=True)
        spread = statistics.stdev(figures)
        print(f"{name}: mean {statistics.mean(figures):.4f}, sd of three seeds {spread:.4f}")
    print(f"all: {time.process_time() - started:.0f} CPU s")


if __name__ == "__main__":
    main()
