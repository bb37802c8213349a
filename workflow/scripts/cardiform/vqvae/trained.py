"""Networks from the model.pt of any stage of the sparse VQ-VAE."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ..artefact.model import NAMED, check_weights, load_model
from ..errors import InputError, problem
from ..labels import LabelTable
from ..options.vqvae import VqvaeCodebookOptions, VqvaeOptions
from .model import CONTINUOUS, QUANTISED, SparseVQVAE
from .windows import NO_WINDOWS, WindowSet

STAGES = (CONTINUOUS, QUANTISED)


def load_weights(model: SparseVQVAE, path: Path) -> None:
    """Give encoder and decoder the weights of a model.pt; its quantiser stays out of it.

    Raises
    ------
    InputError
        A weight is missing, superfluous or of another shape; all differences are named. Or it was
        trained on other CT windows.
    """
    stored = load_model(path, *STAGES)
    there = WindowSet.of_model(stored)
    if there.stored() != model.windows.stored():
        fact = f"was trained on {there}, not on {model.windows}"
        raise InputError(problem(path, fact, "give a model.pt of the windows that are trained"))
    given = {n: w for n, w in stored.weights.items() if not n.startswith("quantizer.")}
    wanted = {n: w for n, w in model.state_dict().items() if not n.startswith("quantizer.")}
    check_weights(given, wanted, path, "set vqvae.channels, .blocks and .latent_dim as there")
    model.load_state_dict(given, strict=False)


def load_quantized(
    path: Path, options: VqvaeOptions, windows: WindowSet = NO_WINDOWS
) -> tuple[SparseVQVAE, VqvaeCodebookOptions]:
    """The model of stage 1 or 2 and how its quantiser was made.

    Raises
    ------
    InputError
        The file holds no quantiser, or does not fit ``options`` and ``windows``.
    """
    stored = load_model(path, QUANTISED)
    codebook = stored.section("vqvae_codebook", VqvaeCodebookOptions)
    model = SparseVQVAE.from_options(options, codebook, windows)
    load_weights(model, path)
    stored.fill(model)
    return model, codebook


def check_start(
    weights: Path,
    options: VqvaeOptions,
    windows: WindowSet,
    codebook: VqvaeCodebookOptions | None = None,
) -> None:
    """InputError where a stage cannot start from a model.pt: known before samples are read.

    codebook : options of the quantiser that the stage adds; None: the file has one.
    """
    with torch.random.fork_rng(devices=[]):  # what comes after draws what it would have drawn
        if codebook is None:
            load_quantized(weights, options, windows)
        else:
            load_weights(SparseVQVAE.from_options(options, codebook, windows), weights)


def check_continuous(weights: Path, options: VqvaeOptions, windows: WindowSet) -> None:
    """The same of stage 0, which has no quantiser."""
    with torch.random.fork_rng(devices=[]):
        load_weights(SparseVQVAE.from_options(options, windows=windows), weights)


def load_for_label_maps(path: Path, table: LabelTable) -> SparseVQVAE:
    """The quantised network of a model.pt as :func:`load_network` reads it, for label maps.

    Raises
    ------
    InputError
        As of :func:`load_network`, or the model is of CT windows.
    """
    network = load_network(path, True, table)
    if network.windows:
        fact = f"was trained on CT windows ({network.windows}), not on label maps"
        raise InputError(problem(path, fact, "give the vqvae/stage2/model.pt of label maps"))
    return network


def load_network(path: Path, quantised: bool, table: LabelTable | None = None) -> SparseVQVAE:
    """The network of a stage's model.pt, for use: eval mode, the torch backend.

    quantised : with its quantiser, which stage 1 or 2 has; without, the continuous autoencoder
        of any stage's weights.
    table : the label table in use.

    Raises
    ------
    InputError
        The file is no such model, or was trained with another label table.
    """
    stored = load_model(path, *([QUANTISED] if quantised else STAGES))
    if table is not None and stored.labels:
        differing = {(c.value, c.name) for c in table} ^ {(c.value, c.name) for c in stored.table}
        if differing:
            names = ", ".join(f"{name} {value}" for value, name in sorted(differing)[:NAMED])
            fact = f"was trained with another label table ({names} differ)"
            raise InputError(problem(path, fact, "give --labels of its training"))
    options = replace(stored.section("vqvae", VqvaeOptions), backend="torch")
    windows = WindowSet.of_model(stored)
    if quantised:
        return load_quantized(path, options, windows)[0].eval()
    model = SparseVQVAE.from_options(options, windows=windows)
    load_weights(model, path)
    return model.eval()
