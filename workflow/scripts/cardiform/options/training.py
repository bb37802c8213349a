"""Options that every training shares."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Self

from .field import SEED_MAX, option


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options that every training shares (see docs/training.md)."""

    steps: int = option(100_000, "optimiser steps", minimum=1)
    until: int = option(
        0,
        "last step that is taken of them, on the schedule of all (0: every one)",
        minimum=0,
        resumable=True,
        young=True,
    )
    batch_size: int = option(
        64, "samples per step over all GPUs and accumulation", minimum=1, memory="lower"
    )
    accumulate: int = option(1, "micro-batches per step on each GPU", minimum=1, memory="raise")
    lr: float = option(1e-4, "peak learning rate", minimum=0.0)
    lr_reference_batch: int = option(0, "scale lr by batch_size / this (0: no scaling)", minimum=0)
    final_lr: float = option(1e-6, "learning rate at the last step", minimum=0.0)
    warmup_steps: int = option(1_000, "steps of linear warm-up", minimum=0)
    weight_decay: float = option(0.01, "AdamW decay, on matrices only", minimum=0.0)
    clip_norm: float = option(1.0, "gradient norm limit (0: none)", minimum=0.0)
    ema_decay: float = option(0.999, "decay of the weight average (0: none)", minimum=0, maximum=1)
    precision: str = option(
        "bf16", "autocast type on CUDA; the CPU computes in fp32", choices=("fp32", "bf16", "fp16")
    )
    compress_gradients: bool = option(
        False,
        "average gradients over GPUs in bf16: half of the bytes between nodes",
        young=True,
    )
    seed: int = option(0, "seed of weights, order and draws", minimum=0, maximum=SEED_MAX)
    validate_every: int = option(1_000, "steps between validations (0: only at the end)", minimum=0)
    patience: int = option(
        0,
        "validations in a row without a lower loss that end the training (0: it takes all steps)",
        minimum=0,
        young=True,
    )
    preview_every: int = option(5_000, "steps between preview pictures (0: none)", minimum=0)
    fast_dev_run: int = option(
        0, "run only this many steps and validation batches (0: all)", minimum=0
    )
    checkpoint_every: int = option(500, "steps between checkpoints", minimum=1, resumable=True)
    checkpoint_minutes: float = option(
        0.0,
        "minutes after which a checkpoint is due in any case (0: by steps alone)",
        minimum=0.0,
        resumable=True,
        young=True,
    )
    log_every: int = option(50, "steps between log lines", minimum=1, resumable=True)
    tracker: str = option(
        "",
        "send figures to wandb or mlflow as well, if it is installed; empty: to neither",
        choices=("", "wandb", "mlflow"),
        resumable=True,
        young=True,
    )
    max_minutes: float = option(
        0.0,
        "save and exit 75 this long after the start (0: no limit but that of a SLURM job)",
        minimum=0.0,
        resumable=True,
    )
    workers: int = option(
        4, "loader processes per GPU", minimum=0, resumable=True, alias="num_workers"
    )
    resume_from: str = option(
        "",
        "last.pt of the same training elsewhere, to resume from if this folder has none that fits",
        resumable=True,
    )
    device: str = option(
        "auto", "auto: CUDA if there is one", resumable=True, choices=("auto", "cpu", "cuda")
    )

    @property
    def last_step(self) -> int:
        """The step after which the training is complete."""
        return min(self.until or self.steps, self.steps)

    def rehearsal(self) -> Self:
        """The same training, ``fast_dev_run`` steps long."""
        steps = min(self.steps, self.fast_dev_run)
        return dataclasses.replace(self, steps=steps, until=0)
