"""metrics.json: what every such file says of itself, and the figures of a training.

Figures of held-out cases (reconstructions, refinement, completion, samples) come below the keys
that all files share, by part of the split where there is one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, problem
from ..files import sha256_file, sha256_sources, write_json
from ..formats import Format

RECORD = Format("figures", {"format_version": "integer", "kind": "text", "source_sha256": "text"})
TRAINING_RECORD = dataclasses.replace(
    RECORD,
    keys={
        **RECORD.keys,
        "train": "object",
        "train.*": "number",
        "validation": "object",
        "validation.*": "number",
        "before": "object",
        "before.*": "number",
        "best_step": "integer",
        "steps": "integer",
        "seconds": "number",
        "parameters": "integer",
        "cases": "object",
        "cases.train": "integer",
        "cases.validation": "integer",
        "samples": "object",
        "samples.train": "integer",
        "samples.validation": "integer",
        "diverged?": "bool",  # a trial of a search, which ended for that
    },
)
HELD_OUT_RECORD = dataclasses.replace(RECORD, keys={**RECORD.keys, "model_sha256": "text"})


def refuse_other_figures(path: str | Path, kind: str) -> None:
    """InputError where ``path`` holds figures of another rule or of a training.

    kind : rule that would write it; empty: a training.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        other, held_out = found["kind"], "model_sha256" in found
    except (OSError, ValueError, KeyError, TypeError):
        return
    if held_out if not kind else other != kind:
        fact = f"holds the figures of {other}"
        raise InputError(problem(path, fact, "choose another output folder"))


def write_held_out_figures(
    path: str | Path, kind: str, figures: Mapping[str, Any], model: str | Path | None
) -> None:
    """metrics.json of what a model makes of cases that it was not trained on.

    kind : rule that made them.    model : the model.pt; None: none was used.

    Raises
    ------
    InputError
        The file holds other figures.
    """
    refuse_other_figures(path, kind)
    write_json(
        path,
        {
            "format_version": RECORD.version,
            "kind": kind,
            **figures,
            "model_sha256": "" if model is None else sha256_file(model),
            "source_sha256": sha256_sources(),
        },
    )
