"""What the trainings of a config need of a GPU: weights, memory and hours, before one is there.

    python tools/plan_trainings.py --config config/full.yaml --card A100-80
    python tools/plan_trainings.py --config config/full.yaml my.yaml --card RTX-4090 --gpus 2

A micro-batch of each training goes forward and backward without numbers being computed (PyTorch's
fake tensors), while the sizes of all tensors that are alive, the multiplications and the bytes
that are read and written are added up. Networks on sparse voxels need numbers: of these a small
sample is computed, and the counts are scaled.

memory   the most that was alive at once, and weights, gradients, Adam's moments and the average.
         What the CUDA context and fragmentation take comes on top: a tenth of the card is kept for
         them.
hours    steps x multiplications / rate, or bytes / bandwidth, whichever is more, at the shares that
         kernels reach (MULTIPLYING, MOVING, GATHERING: from steps on an H200). An estimate, good to
         a factor of two; the processors beside the card must bring the samples in time.

Of several config files the later ones come first, as with Snakemake. Exit code 1, with a line of
what to change, where a training does not fit the card; 2 where a config is not valid.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu_trainings as networks  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from torch._subclasses.fake_tensor import (  # noqa: E402
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402
from torch.utils.flop_counter import (  # noqa: E402
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from cardiform import cli  # noqa: E402
from cardiform.errors import InputError, first_line, problem  # noqa: E402
from cardiform.options.checks import check_sections  # noqa: E402
from cardiform.options.sections import SECTIONS, memory_advice  # noqa: E402
from cardiform.training.sampling import micro_batch_size  # noqa: E402

aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class Card:
    """gib : memory.    tflops : of bf16; fp32, on TF32 cores, has half.    tb_per_s : bandwidth."""

    gib: float
    tflops: float
    tb_per_s: float


# From the data sheets of the maker.
CARDS = {
    "RTX-4090": Card(24, 165, 1.0),
    "A100-40": Card(40, 312, 1.6),
    "A100-80": Card(80, 312, 2.0),
    "H100": Card(80, 989, 3.35),
    "H200": Card(141, 989, 4.8),
}
USABLE = 0.9  # of a card
# Shares of the rates that kernels reach, the last one on sparse voxels, which are gathered.
MULTIPLYING, MOVING, GATHERING = 0.6, 0.7, 0.16
STATE_BYTES = 12  # of a weight: Adam's two moments, the average
SPARSE_VOXELS = 160_000  # of the sample that is computed
SHORT = 64  # numbers in a range that code may look at: dimensions, not data
SPARSE = ("vqvae_pretrain", "vqvae_joint", "coronary")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a training needs on each of the GPUs.

    parameters : weights.    samples : of a micro-batch; 0: as many as fill ``max_voxels``.
    peak_gib : memory.    tflop, moved_tb : of a step: 10^12 multiplications and additions; bytes.
    hours : of all steps.
    """

    name: str
    parameters: int
    samples: int
    steps: int
    peak_gib: float
    tflop: float
    moved_tb: float
    hours: float


def chosen(index: torch.Tensor | None) -> list[torch.Tensor | None]:
    """An index; of a mask as many numbers for each dimension as it has entries."""
    if index is None or index.dtype is not torch.bool:
        return [index]
    return [torch.zeros(index.numel(), dtype=torch.int64) for _ in range(index.ndim)]


class Ones(TorchDispatchMode):
    """Where code asks a fake tensor for its number, it is one; short ranges have theirs. A mask
    chooses everything."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function._overloadpacket is aten.arange and max(args) <= SHORT:
            with unset_fake_temporarily():
                return function(*args, **(kwargs or {}))
        if function is aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return {True: 1.0, False: 1}[args[0].is_floating_point()]
        if function._overloadpacket in (aten.index, aten.index_put, aten.index_put_):
            args = (args[0], [i for given in args[1] for i in chosen(given)], *args[2:])
        return function(*args, **(kwargs or {}))


class Counter(TorchDispatchMode):
    """Bytes of the tensors that are alive, their peak, multiplications, bytes moved."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.bytes = self.peak = self.flop = self.moved = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        for tensor in made:
            self._see(tensor)
        returns = function._schema.returns
        if not any(r.alias_info and not r.alias_info.is_write for r in returns):  # a view
            read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
            self.moved += sum(t.numel() * t.element_size() for t in [*read, *made])
            self.flop += multiplications(function, args, kwargs or {}, result)
        return result

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self.alive:
            return
        self.alive[key] = storage.nbytes()
        self.bytes += self.alive[key]
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.bytes -= self.alive.pop(key)


def multiplications(function, args, kwargs, result) -> int:
    """Multiplications and additions of an operation on matrices; 0 of others."""
    packet = function._overloadpacket
    if packet is aten._scaled_dot_product_flash_attention_for_cpu:
        return sdpa_flop_count(*(t.shape for t in args[:3]))
    if packet is aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return sdpa_backward_flop_count(*(t.shape for t in args[:4]))
    count = flop_registry.get(packet)
    return count(*args, **kwargs, out_val=result) if count else 0


def plan(name: str, options: dict[str, Any], card: Card, gpus: int = 1) -> Plan:
    """A training of a config's options, on each of ``gpus`` cards."""
    sparse = name in SPARSE
    wanted = options["vqvae"].max_voxels if name.startswith("vqvae") else 0
    if wanted:
        fewer = dataclasses.replace(options["vqvae"], max_voxels=min(wanted, SPARSE_VOXELS))
        options = {**options, "vqvae": fewer}
    with ExitStack() as stack:
        if not sparse:
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            stack.enter_context(Ones())
        training = networks.MAKERS[name](options)
        parts = training.options.accumulate * gpus
        samples = 0 if wanted else micro_batch_size(training.options, gpus)
        scale = 1.0
        if wanted:  # micro-batches are filled up to max_voxels, whatever the number of GPUs
            parts = networks.BALLS
            scale = networks.BALLS * wanted / fewer.max_voxels
        elif sparse:
            scale, parts = samples, training.samples
        weights, counted = counted_step(training, parts)
    parameters = [p for p in training.task.module.parameters() if p.requires_grad]
    trained = sum(p.numel() for p in parameters)
    buckets = 4 * trained if gpus > 1 else 0  # of the gradients' exchange
    peak = weights + scale * (counted.peak - weights) + STATE_BYTES * trained + buckets
    micro_batches = training.options.accumulate
    flop, moved = (scale * micro_batches * n for n in (counted.flop, counted.moved))
    rate = card.tflops * (0.5 if training.options.precision == "fp32" else 1) * 1e12
    bandwidth = (GATHERING if sparse else MOVING) * card.tb_per_s * 1e12
    seconds = max(flop / (MULTIPLYING * rate), moved / bandwidth)
    return Plan(
        name,
        sum(p.numel() for p in training.task.module.parameters()),
        samples,
        training.options.steps,
        peak / 2**30,
        flop / 1e12,
        moved / 1e12,
        training.options.steps * seconds / 3600,
    )


def counted_step(training, parts: int) -> tuple[int, Counter]:
    """Bytes of weights and gradients, and the counts of one of ``parts`` micro-batches."""
    task, options = training.task, training.options
    task.module.train()
    parameters = [p for p in task.module.parameters() if p.requires_grad]
    weights = 2 * sum(p.numel() * p.element_size() for p in parameters)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(options.precision)
    with Counter() as counter:
        for p in task.module.parameters():
            counter._see(p.view_as(p))
        for p in parameters:  # they are there from the first micro-batch on
            p.grad = torch.zeros_like(p)
        batch = training.batch(parts)
        counter.moved = 0
        for update in task.updates:
            with torch.autocast("cpu", dtype=half or torch.bfloat16, enabled=half is not None):
                loss, _ = task.loss(batch, update, options.steps // 2)
            loss.backward()
            del loss
    return weights, counter


def trainings_of(options: dict[str, Any]) -> Iterator[str]:
    """The trainings that a run of the whole workflow has with these options."""
    yield from ("vecset", "vqvae_pretrain", "vqvae_joint", "coronary")
    if options["coronary_refine"].preset == "near":
        yield "coronary_near"
    yield from ("autoencoder", "diffusion")


def too_large(found: Plan, options: dict[str, Any], card: Card) -> str:
    """What to change where a training does not fit a card; empty: nothing."""
    if found.peak_gib <= USABLE * card.gib:
        return ""
    sections = [type(options[found.name])]
    if found.name.startswith("vqvae"):
        sections.append(type(options["vqvae"]))
    most = USABLE * card.gib
    return (
        f"{found.name}: needs {found.peak_gib:.1f} GiB of a GPU, of which {most:.1f} can be used; "
        f"{memory_advice(*sections).rpartition(', or give')[0]}, or take more or larger GPUs"
    )


def read_options(paths: Iterable[Path]) -> dict[str, Any]:
    """The options of config files together, by section; InputError where they are not valid."""
    config: dict[str, Any] = {}
    for path in paths:
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            fact = f"cannot be read ({first_line(error)})"
            raise InputError(problem(path, fact, "give a config file")) from None
        if not isinstance(found, dict):
            raise InputError(problem(path, "has no sections", "give a config file"))
        for name, values in found.items():
            both = isinstance(values, dict) and isinstance(config.get(name), dict)
            config[name] = {**config[name], **values} if both else values
    options = cli.from_config(SECTIONS, config)
    check_sections(options)
    return options


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, nargs="+", default=[ROOT / "config" / "full.yaml"])
    parser.add_argument("--card", choices=tuple(CARDS), default="A100-80")
    parser.add_argument("--gpus", type=int, default=1, help="of a training")
    parser.add_argument("--trainings", nargs="+", choices=tuple(networks.MAKERS))
    args = parser.parse_args()
    if args.gpus < 1:
        raise InputError(f"--gpus is {args.gpus}; at least 1")
    card, options = CARDS[args.card], read_options(args.config)
    names = ", ".join(path.name for path in args.config)
    print(f"{names} on {args.gpus} x {args.card} ({card.gib:.0f} GiB)\n")
    print("| training | weights | samples at a time | steps | GiB | TFLOP a step | hours |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    lines = []
    for name in args.trainings or trainings_of(options):
        found = plan(name, options, card, args.gpus)
        print(
            f"| {name} | {found.parameters / 1e6:.1f} M | {found.samples or 'filled'} | "
            f"{found.steps:,} | {found.peak_gib:.1f} | {found.tflop:.2f} | {found.hours:.1f} |"
        )
        lines.append(too_large(found, options, card))
    for line in filter(None, lines):
        print(line, file=sys.stderr)
    return int(any(lines))


if __name__ == "__main__":
    cli.run(main)
