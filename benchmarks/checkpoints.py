"""What a checkpoint costs a training: written before the next step, and while it goes on.

    python benchmarks/checkpoints.py --work FOLDER --parameters 212_000_000

The state is that of AdamW with averaged weights, 16 bytes a parameter. Needs twice the state in
memory, and as much on the disk.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import measuring
import torch

from cardiform.artefact.torch_files import tensor_bytes
from cardiform.training.checkpoint import Checkpoints
from cardiform.training.saves import Saves

WIDTH = 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--parameters", type=int, default=425_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    state = state_of(args.parameters, args.device)
    print(f"state {tensor_bytes(state) / 1e9:.2f} GB on {args.device}")
    before, beside = [], []
    files = Checkpoints(args.work)
    saves = Saves(files)
    start = time.perf_counter()
    saves.copy.of(state)
    print(f"memory for the copy, once: {time.perf_counter() - start:.2f} s")
    for number in range(args.repeats):  # the ways take turns
        start = time.perf_counter()
        cpu, _ = measuring.timed(files.save_last, {}, number, state)
        before.append(time.perf_counter() - start)
        start = time.perf_counter()
        saves.last({}, number, state)
        beside.append(time.perf_counter() - start)
        saves.wait()
        print(
            f"before the next step {before[-1]:.2f} s ({cpu:.2f} CPU s), beside it "
            f"{beside[-1]:.2f} s, on disk after {time.perf_counter() - start:.2f} s",
            flush=True,
        )
    old, new = statistics.median(before), statistics.median(beside)
    print(f"median {old:.2f} s and {new:.2f} s: {100 * new / old:.1f} %")
    stored = files.load_last()
    assert all(torch.equal(stored["module"][n].to(w), w) for n, w in state["module"].items())


def state_of(parameters: int, device: str) -> dict:
    """What engine.Loop hands to a checkpoint, of matrices of WIDTH x 4 WIDTH."""
    count = max(parameters // (4 * WIDTH * WIDTH), 1)

    def weights() -> list[torch.Tensor]:
        return [torch.rand(4 * WIDTH, WIDTH, device=device) for _ in range(count)]

    moments = {
        i: {"step": torch.tensor(1.0), "exp_avg": a, "exp_avg_sq": b}
        for i, (a, b) in enumerate(zip(weights(), weights()))
    }
    return {
        "module": {f"w{i}": w for i, w in enumerate(weights())},
        "average": {f"w{i}": w for i, w in enumerate(weights())},
        "optimizers": {"model": {"state": moments, "param_groups": []}},
        **{name: {} for name in ("scaler", "window", "best", "last", "baseline")},
        "best_step": 0,
        "seconds": 0.0,
    }


if __name__ == "__main__":
    main()
