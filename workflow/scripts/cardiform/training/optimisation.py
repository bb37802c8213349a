"""Learning-rate schedule, optimisers and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..options.training import TrainingOptions

BETAS = (0.9, 0.99)


def learning_rate(step: int, options: TrainingOptions) -> float:
    """Learning rate of step ``step`` (counted from 0).

    Linear warm-up to the peak over ``warmup_steps``, then half a cosine that reaches
    ``final_lr`` at the last step. The peak is ``lr``, times batch_size / lr_reference_batch
    where the latter is given.
    """
    peak = options.lr
    if options.lr_reference_batch > 0:
        peak *= options.batch_size / options.lr_reference_batch
    if step < options.warmup_steps:
        return peak * (step + 1) / options.warmup_steps
    span = max(options.steps - 1 - options.warmup_steps, 1)
    progress = min((step - options.warmup_steps) / span, 1.0)
    return options.final_lr + (peak - options.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def build_optimizer(
    parameters: Iterable[nn.Parameter], options: TrainingOptions, device: torch.device
) -> torch.optim.AdamW:
    """AdamW that decays matrices (ndim >= 2) and leaves biases, gains and the like alone."""
    parameters = list(parameters)
    groups = [
        {
            "params": [p for p in parameters if p.ndim >= 2],
            "weight_decay": options.weight_decay,
        },
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=options.lr,
        betas=BETAS,
        fused=device.type == "cuda",
    )


def parameter_counts(module) -> dict[str, int]:
    """Parameters of a module: ``total``, ``trainable`` and ``frozen``."""
    total = sum(p.numel() for p in module.parameters())
    trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return {"total": total, "trainable": trainable, "frozen": total - trainable}


class WeightAverage:
    """Exponential moving average of the trainable parameters.

    After step t (counted from 0) the average moves by 1 - d with
    d = min(decay, (1 + t) / (10 + t)): short runs are not stuck at the initial weights.
    Buffers and frozen parameters are not averaged. With a decay of 0 the average is the
    parameters themselves and costs nothing.

    parameters : dict of str to nn.Parameter
        Trainable parameters by their name in the module.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float):
        self.decay = decay
        self.parameters = parameters if decay > 0 else {}
        self.values = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the parameters as they are after step ``step`` (from 0)."""
        if not self.parameters:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        # one fused call instead of a kernel per parameter
        torch._foreach_lerp_(
            list(self.values.values()),
            [p.detach() for p in self.parameters.values()],
            1 - decay,
        )

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the module's parameters are the average."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            value = self.values[name]
            parameter.data, value.data = value.data, parameter.data

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The average by parameter name."""
        return self.values

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take the average from :meth:`state_dict`; KeyError where a name is missing."""
        for name, value in self.values.items():
            value.copy_(state[name])
