"""The benchmark of the trainings runs without a GPU too, so it is whole when there is one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_trainings.py"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu_trainings

    return gpu_trainings


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.slow
def test_one_table_with_a_line_for_each_training_and_precision(benchmark, monkeypatch, capsys):
    """The benchmark starts its script anew for each line."""
    words = [str(SCRIPT), "--tiny", "--trainings", "coronary", "diffusion"]
    monkeypatch.setattr(sys, "argv", words)
    benchmark.main()
    said = capsys.readouterr().out
    header, _, *rows = [line for line in said.splitlines() if line.startswith("|")]
    found = [dict(zip(cells(header), cells(row))) for row in rows]
    assert {row["training"] for row in found} == {"coronary", "diffusion"}
    for row in found:
        assert row["samples a step"] in ("8", "16") and row["micro-batches"] == "1"
        for name in ("ms a step", "samples/s", "peak GiB"):
            assert float(row[name].replace(",", "")) > 0


def test_every_training_has_a_line(benchmark):
    options = benchmark.SECTIONS.items()
    base = benchmark.TrainingOptions  # the section `training` is none itself
    trainings = {n for n, o in options if issubclass(o, base) and o is not base}
    assert trainings < set(benchmark.MAKERS)


def test_a_step_that_does_not_fit_is_cut_in_two(benchmark, monkeypatch):
    tried = []

    def scarce(training, options, device, steps):
        batch = training.batch(options.accumulate)
        tried.append((options.accumulate, batch["samples"]))
        if batch["samples"] > 2:
            raise benchmark.TrainingError("step 0: the memory of the GPU is exhausted; x")
        return {"seconds": 0.5, "peak": 1.0}

    monkeypatch.setattr(benchmark, "timed_steps", scarce)
    args = argparse.Namespace(config=ROOT / "config" / "demo.yaml", tiny=True, steps=1)
    found = benchmark.measure("coronary", "fp32", args)
    assert tried == [(1, 8), (2, 4), (4, 2)] and found["parts"] == 4
    assert "| 16.0 | 1.00 |" in benchmark.row("coronary", "fp32", found)


def test_a_step_that_never_fits_is_said_to(benchmark, monkeypatch):
    def full(*_):
        raise benchmark.TrainingError("step 0: the memory of the GPU is exhausted; x")

    monkeypatch.setattr(benchmark, "timed_steps", full)
    args = argparse.Namespace(config=ROOT / "config" / "demo.yaml", tiny=True, steps=1)
    assert "does not fit" in benchmark.row(
        "coronary", "fp32", benchmark.measure("coronary", "fp32", args)
    )
