"""A ``python`` for PATH that makes the outputs of every script at once.

Snakemake's decisions can be looked at with it, whatever the scripts would compute.
"""

from __future__ import annotations

import sys
from pathlib import Path

STAND_IN = """#!{python}
import sys, os, json, pathlib, hashlib
arguments = sys.argv[1:]
name = next(pathlib.Path(a).stem for a in arguments if a.endswith(".py") and "launch" not in a)
value = lambda flag: pathlib.Path(arguments[arguments.index(flag) + 1])
content = hashlib.sha256(" ".join(arguments).encode()).hexdigest()
def put(path, text=content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
if name in ("propose_trials", "rank_trials", "collect_search"):  # as they are: the plan reads them
    os.execv(sys.executable, [sys.executable, *arguments])
out = value("--out")
if name == "check_cohort":
    put(out / "cases.tsv", value("--table").read_text())
    put(out / "qc" / "cohort.json")
elif name == "check_cases":
    names = arguments[arguments.index("--select") + 1 : arguments.index("--out")]
    rows = [line.split("\\t") for line in value("--cases").read_text().splitlines()]
    files = [path for row in rows if row[0] in names for path in row[2:]]
    put(value("--manifest"), " ".join(names) + "".join(
        pathlib.Path(path).read_text() for path in files if pathlib.Path(path).is_file()))
elif name == "split_cohort":
    for part in ("train", "val", "test"):
        put(out / (part + ".csv"), value("--cases").read_text())
elif name == "collect_fused":
    put(out / "cases.tsv"); put(out / "summary.json")
elif name == "collect_folds":
    put(out / "summary.csv"); put(out / "cases.csv"); put(out / "folds.png")
elif name == "collect_trees":
    put(out / "branches.csv"); put(out / "summary.json")
elif name == "collect_measures":
    for part in ("measures", "norms", "zscores", "groups"):
        put(out / (part + ".csv"))
elif name == "shape_statistics":
    for part in ("model.npz", "template.npz", "scores.csv", "statistics.json"):
        put(out / part)
elif name == "latent_statistics":
    for part in ("model.npz", "scores.csv", "statistics.json"):
        put(out / part)
elif name.startswith(("train_", "pretrain_")):
    put(out / "model.pt"); put(out / "metrics.json")
    if "--until" in arguments:  # a trial: its figure follows from its settings
        setting = lambda flag: float(arguments[arguments.index(flag) + 1])
        loss = abs(setting("--lr") - 1e-3) + 1 / setting("--until")
        counts = dict.fromkeys(("train", "validation"), 1)
        put(out / "metrics.json", json.dumps(dict(
            format_version=1, kind=name, source_sha256="x", train=dict(), before=dict(),
            validation=dict(loss=loss), best_step=1, seconds=1, parameters=1,
            steps=int(setting("--until")), cases=counts, samples=counts)))
elif name in (
    "reconstruct_vqvae", "refine_coronary", "sample_diffusion", "complete_labels",
    "complete_vecset", "sample_set_diffusion",
):
    put(out / "metrics.json")
elif name in ("evaluate_samples", "evaluate_vessels", "collect_applied", "write_report"):
    put(out)
elif name in ("resample_labels", "convert_pointclouds", "encode_latents"):
    put(value("--manifest")); put(out / "grid.json"); put(out / "statistics.json")
    put(out / "cases.tsv")
elif name == "encode_set_latents":
    put(value("--manifest")); put(out / "slots.npz")
elif name == "reconstruct_vecset":
    put(value("--metrics"))
else:
    put(value("--manifest"))
"""


def write_stand_in(folder: Path, more: str = "") -> None:
    """Write ``folder/python``; ``more`` runs after the outputs are made, ``name`` is the script."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python"
    path.write_text(STAND_IN.format(python=sys.executable) + more)
    path.chmod(0o755)
