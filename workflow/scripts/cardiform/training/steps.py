"""One optimiser step: gradients over micro-batches, checks, the moving weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import InputError, problem
from ..options.training import TrainingOptions
from ..training import sampling
from .distributed import World
from .optimisation import WeightAverage, build_optimizer, learning_rate
from .runlog import Window
from .sampling import seed_everything
from .task import Diverged, Task, distribute

# With fp16 the scaler halves its scale, 65,536 at first, at every infinite gradient.
LEAST_SCALE = 2.0**-10
AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Stepper:
    """The weights of a task and everything that moves them.

    Raises
    ------
    InputError
        An update trains nothing, or two updates train the same parameter.
    """

    def __init__(self, task: Task, options: TrainingOptions, world: World):
        self.task, self.options, self.world = task, options, world
        self.module = task.module.to(world.device)
        self.trained = {u: [p for p in task.parameters(u) if p.requires_grad] for u in task.updates}
        _check_updates(self.trained)
        self.optimizers = {
            u: build_optimizer(p, options, world.device) for u, p in self.trained.items()
        }
        compress = options.compress_gradients
        self.losses = {u: distribute(task, u, p, world, compress) for u, p in self.trained.items()}
        half = world.device.type == "cuda" and options.precision != "fp32"
        self.autocast = torch.autocast(
            world.device.type, dtype=AUTOCAST[options.precision], enabled=half
        )
        self.scaler = torch.amp.GradScaler(
            world.device.type, enabled=half and options.precision == "fp16"
        )
        self.average = self._fresh_average()

    def synchronise(self) -> None:
        """Give every rank the weights of rank 0, and start the average there."""
        self.world.broadcast([*self.module.parameters(), *self.module.buffers()])
        self.average = self._fresh_average()

    def step(self, step: int, micro_batches: list[dict], window: Window) -> None:
        """Move the weights by the gradient of this rank's micro-batches of step ``step``."""
        self.module.train()
        self.world.broadcast(self.module.buffers())
        for update in self.task.updates:
            self._update(update, step, micro_batches, window)
        after_step = getattr(self.task, "after_step", None)
        if after_step is not None:
            seed_everything(self.options.seed, sampling.AFTER_STEP, step)
            with torch.no_grad():
                after_step(step)
        self.average.update(step)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Averaged weights, eval mode, no gradients, the same random numbers every time."""
        seed_everything(self.options.seed, sampling.VALIDATION)
        self.module.eval()
        with self.average.applied(), torch.no_grad(), self.autocast:
            yield

    def weights(self) -> dict[str, Tensor]:
        """A copy of the module's state on the CPU."""
        return {n: v.detach().cpu().clone() for n, v in self.module.state_dict().items()}

    def averaged_weights(self) -> dict[str, Tensor]:
        """The same with the averaged parameters."""
        with self.average.applied():
            return self.weights()

    def state_dict(self) -> dict:
        """Everything that decides the next steps."""
        return {
            "module": self.module.state_dict(),
            "optimizers": {u: o.state_dict() for u, o in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from :meth:`state_dict`."""
        self.module.load_state_dict(state["module"])
        for update, optimizer in self.optimizers.items():
            optimizer.load_state_dict(_as_here(state["optimizers"][update], optimizer))
        if state["scaler"]:  # empty where it was saved by the CPU, which scales nothing
            self.scaler.load_state_dict(state["scaler"])
        self.average.load_state_dict(state["average"])

    def figure(self, update: str, name: str) -> str:
        """Name of a figure: with several updates it says whose it is."""
        return name if len(self.task.updates) == 1 else f"{update}_{name}"

    def _fresh_average(self) -> WeightAverage:
        trained = {id(p) for parameters in self.trained.values() for p in parameters}
        named = {n: p for n, p in self.module.named_parameters() if id(p) in trained}
        return WeightAverage(named, self.options.ema_decay)

    def _update(self, update: str, step: int, micro_batches: list[dict], window: Window) -> None:
        """Gradient over the micro-batches, finite check, clip, optimiser step."""
        held = getattr(self.task, "held", None)
        frozen = set() if held is None else {id(p) for p in held(update, step)}
        for name, parameters in self.trained.items():
            for parameter in parameters:  # the others get no gradient and need no graph
                parameter.requires_grad_(name == update and id(parameter) not in frozen)
        optimizer = self.optimizers[update]
        optimizer.zero_grad(set_to_none=True)
        last = len(micro_batches) - 1
        losses = [
            self._backward(update, step, i, batch, window, final=i == last)
            for i, batch in enumerate(micro_batches)
        ]
        self.scaler.unscale_(optimizer)
        limit = self.options.clip_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self.trained[update], limit)
        finite = bool(torch.isfinite(norm))
        self._check_finite(update, step, losses, finite, micro_batches)
        if finite:
            window.add(self.figure(update, "grad_norm"), norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, self.options)
        self.scaler.step(optimizer)
        self.scaler.update()
        if self.scaler.is_enabled() and self.scaler.get_scale() < LEAST_SCALE:
            fact = f"no scale gives the {update} update a finite gradient in fp16"
            remedy = "set --precision bf16 or fp32, or lower --lr or --clip-norm"
            raise Diverged(problem(f"step {step}", fact, remedy))

    def _backward(
        self, update: str, step: int, micro: int, batch: dict, window: Window, final: bool
    ) -> Tensor:
        # by the place of the micro-batch in the step: so the random numbers are the same
        # whichever rank has it, and those of one process that accumulates
        place = micro * self.world.size + self.world.rank
        number = self.task.updates.index(update)
        seed_everything(self.options.seed, sampling.STEP, step, number, place)
        batch = sampling.to_device(batch, self.world.device)
        loss_of = self.losses[update]
        # DDP reduces the gradients in the backward pass of the last micro-batch only
        if isinstance(loss_of, DistributedDataParallel):
            loss_of.require_backward_grad_sync = final
        with self.autocast:
            loss, figures = loss_of(batch, step)
        self.scaler.scale(loss / self.options.accumulate).backward()
        for name, value in {"loss": loss, **figures}.items():
            window.add(self.figure(update, name), value)
        return loss.detach()

    def _check_finite(
        self, update: str, step: int, losses: list[Tensor], finite: bool, batches: list[dict]
    ) -> None:
        """Raise on every rank, before the weights move, naming the step and the cases."""
        bad = [i for i, loss in enumerate(losses) if not torch.isfinite(loss)]
        # with fp16 an infinite gradient is handled by the scaler, which skips the step
        overflow = not self.scaler.is_enabled() and not finite
        if not self.world.any(bool(bad) or overflow):
            return
        cases = self._cases_everywhere([batches[i] for i in bad])
        what = "loss is not finite"
        if not cases:
            what = "loss is finite, its gradient is not"
            cases = self._cases_everywhere(batches)
        fact = f"the {update} {what}; cases of the batch: {', '.join(cases) or 'not named'}"
        remedy = "look at these cases, or lower --lr or --clip-norm, or set --precision fp32"
        raise Diverged(problem(f"step {step}", fact, remedy))

    def _cases_everywhere(self, batches: list[dict]) -> list[str]:
        here = [case for batch in batches for case in batch.get("case_id", [])]
        return [case for rank in self.world.gather(here) for case in rank]


def _as_here(state: dict, optimizer: torch.optim.Optimizer) -> dict:
    """An optimizer's state with the kernels of this device, not of the one that saved it."""
    fused = optimizer.defaults["fused"]
    return {**state, "param_groups": [{**g, "fused": fused} for g in state["param_groups"]]}


def _check_updates(trained: dict[str, list[nn.Parameter]]) -> None:
    seen: set[int] = set()
    for update, parameters in trained.items():
        if not parameters:
            raise InputError(f"the {update} update trains nothing: every parameter is frozen")
        ids = {id(p) for p in parameters}
        if ids & seen:
            raise InputError(f"the {update} update trains parameters of another update")
        seen |= ids
