"""What a training brings, and its loss as a module that DDP can wrap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError
from .distributed import World


class TrainingError(InputError):
    """A training that cannot go on as it is set up: numbers not finite, memory exhausted."""


class Diverged(TrainingError):
    """Loss or gradient is not finite: another try with the same options ends there, too."""


class Task(Protocol):
    """What the engine asks of a training. ``step`` counts completed steps, from 0.

    Optional, found by name: ``after_step(step)`` after the weights moved and before they are
    averaged, with the same random numbers on every rank; ``preview(batches, folder, step)``,
    like ``evaluate``; ``memory_options``, classes of options beside those of the training whose
    keys decide how much memory it needs; ``held(update, step)``, the parameters that this step
    leaves as they are. With several ranks every other parameter of an update gets a gradient in
    every micro-batch; a term that is off has to be multiplied by zero.
    """

    @property
    def module(self) -> nn.Module:
        """All weights; the engine moves it, saves it, averages its weights."""

    @property
    def updates(self) -> tuple[str, ...]:
        """One optimiser each, stepped in this order."""

    def parameters(self, update: str) -> Iterable[nn.Parameter]:
        """The parameters that this update trains; no parameter belongs to two updates."""

    # a batch is what the family's collate makes: its data module gives it a type
    def loss(self, batch: Any, update: str, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss, the mean over the batch, and figures to log (detached scalars)."""

    def evaluate(self, batches: Iterable[Any]) -> dict[str, float]:
        """Figures over all batches with the averaged weights; ``loss`` picks the best."""


class LossModule(nn.Module):
    """One update's loss as a forward call, so that DDP reduces that update's gradients."""

    def __init__(self, task: Task, update: str, parameters: list[nn.Parameter]):
        super().__init__()
        self.trained = nn.ParameterList(parameters)  # DDP sees these and nothing else
        self.task, self.update = _Hidden(task), update

    def forward(self, batch: dict, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.task.content.loss(batch, self.update, step)


@dataclass(frozen=True)
class _Hidden:
    content: Any  # a task that is itself an nn.Module must not be registered as a child


def distribute(
    task: Task, update: str, parameters: list[nn.Parameter], world: World, compress: bool = False
) -> nn.Module:
    """The loss of one update as a module; its gradients are averaged over the ranks.

    compress : in bf16.
    """
    loss = LossModule(task, update, parameters)
    if world.size == 1:
        return loss
    devices = [world.device] if world.device.type == "cuda" else None
    # the loop broadcasts the buffers itself: they are the task's, not this wrapper's
    module = DistributedDataParallel(
        loss,
        device_ids=devices,
        forward_sync_buffers=False,
        find_unused_parameters=hasattr(task, "held"),
    )
    if compress:
        module.register_comm_hook(world.size, _averaged_in_bf16)
    return module


def _averaged_in_bf16(ranks, bucket):  # DDP takes no annotations that are texts
    """torch's own hook of this kind (bf16_compress_hook) refuses gloo, which can do it as well."""
    gradients = bucket.buffer()
    short = gradients.to(torch.bfloat16).div_(ranks)
    done = distributed.all_reduce(short, async_op=True).get_future()
    return done.then(lambda summed: gradients.copy_(summed.value()[0]))
