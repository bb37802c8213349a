"""Keys of earlier code that count epochs, where ours count steps (standard library only)."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable

from .training import TrainingOptions

IN_EPOCHS = {
    "n_epochs": "steps",
    "epochs": "steps",
    "max_epochs": "steps",
    "warmup_epochs": "warmup_steps",
    "val_interval": "validate_every",
    "save_interval": "checkpoint_every",
    "visualize_interval": "preview_every",
    "generate_samples_interval": "preview_every",
}
FORMULA = "in steps: epochs x training cases / batch_size"


def epochs_fact(options: type, key: str | None) -> str:
    """What is wrong with a key of a training's section that counts epochs; empty: it does not."""
    if key is None or key not in IN_EPOCHS or not issubclass(options, TrainingOptions):
        return ""
    return f"counts epochs; write {IN_EPOCHS[key]} {FORMULA}"


def refuse_epochs(group, options: Iterable[type]) -> None:
    """Let a command line with such a flag end with what to write in its place."""
    if any(issubclass(cls, TrainingOptions) for cls in options):
        for name in IN_EPOCHS:
            refusal = functools.partial(_refuse, IN_EPOCHS[name])
            hidden = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
            group.add_argument("--" + name.replace("_", "-"), type=refusal, **hidden)


def _refuse(name: str, text: str) -> None:
    flag = "--" + name.replace("_", "-")
    raise argparse.ArgumentTypeError(f"counts epochs; write {flag} {FORMULA}")
