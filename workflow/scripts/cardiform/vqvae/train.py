"""The three trainings of the sparse VQ-VAE, from files to model.pt."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..artefact.model import Kind
from ..cohort import splits
from ..cohort.manifest import cases_of
from ..errors import InputError, problem
from ..files import sha256_file, sha256_json, sha256_sources
from ..labels import LabelTable
from ..options.field import said
from ..options.vqvae import (
    VqvaeCodebookOptions,
    VqvaeJointOptions,
    VqvaeOptions,
    VqvaePretrainOptions,
    VqvaeStageOptions,
)
from ..training import job
from ..training.distributed import choose_device, is_main
from ..training.engine import Outcome
from .codebook import CachedLatents, cached_latents, check_usage, fit_codebook, training_usage
from .data import Instance, VoxelDataset, collate, find_instances
from .model import CONTINUOUS, QUANTISED, SparseVQVAE
from .task import VqvaeTask
from .trained import load_quantized, load_weights
from .windows import NO_WINDOWS, WindowSet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sets:
    """The training and validation samples of a route, and the label table of its cohort."""

    train: VoxelDataset
    validation: VoxelDataset
    labels: LabelTable

    @property
    def windows(self) -> WindowSet:
        """The CT windows that are trained together; none in every other route."""
        return self.train.windows

    @classmethod
    def load(
        cls,
        manifests: Sequence[str | Path],
        train: Path,
        validation: Path,
        labels: LabelTable,
        options: VqvaeOptions,
        seed: int,
        windows: WindowSet = NO_WINDOWS,
    ) -> Sets:
        """From manifests and two split CSVs; InputError where nothing can be trained on."""
        rows = splits.read_splits({"train": train, "validation": validation})
        found = {p: find_instances(manifests, [c for c, _ in part]) for p, part in rows.items()}
        if not found["train"]:
            fact = "has no case with sparse voxels"
            remedy = "look at the manifests for the reasons, or lower the split's shares"
            raise InputError(problem(train, fact, remedy))
        log.info("training samples: %s", described(found["train"]))
        log.info("validation samples: %s", described(found["validation"]))
        validated = VoxelDataset(
            found["validation"], options.max_voxels, augment=False, windows=windows
        )
        trained = VoxelDataset(
            found["train"],
            options.max_voxels,
            augment=options.augment,
            deformations=options.deformations,
            seed=seed,
            windows=windows,
        )
        return cls(trained, validated, labels)

    def identity(self) -> dict[str, str]:
        """Hashes of both: a change starts a training from scratch."""
        return {
            name: sha256_json([[i.case_id, i.name, i.sha256] for i in part.instances])
            for name, part in (("training data", self.train), ("validation data", self.validation))
        }


def described(samples: Sequence[Instance]) -> str:
    """Samples in words: how many there are of each structure or window, and their voxels."""
    if not samples:
        return "none"
    names = Counter(sample.name for sample in samples)
    sizes = [sample.voxels for sample in samples]
    grid = ", ".join(f"{r}^3" for r in sorted({sample.kind[0] for sample in samples}))
    each = ", ".join(f"{name} {count}" for name, count in names.items())
    return (
        f"{len(samples)} at {grid} with {sum(sizes):,} voxels, {min(sizes):,} to {max(sizes):,} "
        f"each ({each})"
    )


def pretrain(
    options: VqvaeOptions,
    stage: VqvaePretrainOptions,
    sets: Sets,
    out: Path,
    weights: Path | None = None,
) -> None:
    """Stage 0: encoder and decoder as a continuous autoencoder.

    weights : model.pt of any resolution to start from; None: random weights.
    """
    torch.manual_seed(stage.seed)
    model = SparseVQVAE.from_options(options, windows=sets.windows)
    if weights is not None:
        load_weights(model, weights)
    task = VqvaeTask(model, options, stage)
    job.run(_job(CONTINUOUS, task, sets, stage, {"vqvae_pretrain": stage}, weights), out)


def train_codebook(
    options: VqvaeOptions, stage: VqvaeCodebookOptions, sets: Sets, weights: Path, out: Path
) -> None:
    """Stage 1: the quantiser alone, by k-means or by gradient.

    weights : model.pt of stage 0.

    Raises
    ------
    InputError
        Fewer of the codes are used than ``stage.min_usage``: model.pt is not written.
    """
    torch.manual_seed(stage.seed)
    model = SparseVQVAE.from_options(options, stage, sets.windows)
    load_weights(model, weights)
    task = VqvaeTask(model, options, stage, stage, trained="quantizer")
    made = _job(QUANTISED, task, sets, stage, {"vqvae_codebook": stage}, weights)
    device = choose_device(stage.device)

    def usage(outcome: Outcome) -> dict[str, float]:
        model.load_state_dict(outcome.weights)
        return checked_usage(outcome, cached_latents(model, sets.train, stage, device))

    def checked_usage(outcome: Outcome, latents: CachedLatents) -> dict[str, float]:
        figures = training_usage(model, latents, outcome.out)
        if not stage.fast_dev_run:  # few samples, or steps, use few codes
            check_usage(figures["usage"], stage.min_usage, outcome.out)
        return figures

    if stage.quantizer == "fsq" or stage.method == "gradient":
        job.run(made, out, on_training_set=usage)
    elif is_main():
        job.refuse_foreign(out, stage)
        latents = cached_latents(model, sets.train, stage, device)
        outcome = _fitted(task, latents.values, sets.validation, stage, device, out)
        job.write_results(made, outcome, checked_usage(outcome, latents))


def train_jointly(
    options: VqvaeOptions, stage: VqvaeJointOptions, sets: Sets, weights: Path, out: Path
) -> None:
    """Stage 2: encoder, decoder and codebook together.

    weights : model.pt of stage 1.
    """
    model, codebook = load_quantized(weights, options, sets.windows)
    task = VqvaeTask.joint(model, options, stage, codebook)

    def usage(outcome: Outcome) -> dict[str, float]:
        model.load_state_dict(outcome.weights)
        latents = cached_latents(model, sets.train, stage, choose_device(stage.device))
        figures = training_usage(model, latents, outcome.out)
        if figures["usage"] < codebook.min_usage and not stage.fast_dev_run:
            line = "the training latents use %.1f %% of the codes: the codebook has collapsed"
            log.warning(line, 100 * figures["usage"])
        return figures

    sections = {"vqvae_codebook": codebook, "vqvae_joint": stage}
    job.run(_job(QUANTISED, task, sets, stage, sections, weights), out, on_training_set=usage)


def _job(
    kind: Kind,
    task: VqvaeTask,
    sets: Sets,
    stage: VqvaeStageOptions,
    sections: Mapping[str, Any],
    weights: Path | None = None,
) -> job.Job:
    """weights : the model.pt that the stage starts from."""
    start = {} if weights is None else {"weights": sha256_file(weights)}
    of_windows = sets.windows.stored()
    return job.Job(
        kind=kind,
        task=task,
        network=task.model,
        train_set=sets.train,
        validation_set=sets.validation,
        options=stage,
        sections={"vqvae": task.options, **sections},
        labels=sets.labels,
        train_cases=cases_of(sets.train.instances),
        validation_cases=cases_of(sets.validation.instances),
        identity={"vqvae": _shaping(task.options), **sets.identity(), **start, **of_windows},
        collate=collate,
        extra=of_windows,
    )


def _fitted(
    task: VqvaeTask,
    latents: Tensor,
    validation: VoxelDataset,
    stage: VqvaeCodebookOptions,
    device: torch.device,
    out: Path,
) -> Outcome:
    """What the fit of a codebook to (N, D) latents leaves; it takes no steps and is not timed."""
    if stage.fast_dev_run:
        out = out / "fast_dev_run"  # a rehearsal leaves the real training's files alone
    out.mkdir(parents=True, exist_ok=True)
    before, figures = fit_codebook(task, latents, validation, stage, device)
    return Outcome(
        best={},
        best_step=0,
        last=figures,
        baseline=before,
        weights=task.model.state_dict(),
        steps=0,
        seconds=0.0,
        source=sha256_sources(),
        out=out,
    )


def _shaping(options: VqvaeOptions) -> dict:
    """The options that decide the result; the weights that ``pretrained`` names are hashed."""
    return {n: v for n, v in said(options) if n not in ("pretrained", "checkpointing")}
