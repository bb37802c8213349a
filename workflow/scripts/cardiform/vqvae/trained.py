"""Networks from the model.pt of any stage of the sparse VQ-VAE."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..artefact.model import check_weights, load_model
from ..options.vqvae import VqvaeCodebookOptions, VqvaeOptions
from .model import CONTINUOUS, QUANTISED, SparseVQVAE

STAGES = (CONTINUOUS, QUANTISED)


def load_weights(model: SparseVQVAE, path: Path) -> None:
    """Give encoder and decoder the weights of a model.pt; its quantiser stays out of it.

    Raises
    ------
    InputError
        A weight is missing, superfluous or of another shape; all differences are named.
    """
    weights = load_model(path, *STAGES).weights
    given = {n: w for n, w in weights.items() if not n.startswith("quantizer.")}
    wanted = {n: w for n, w in model.state_dict().items() if not n.startswith("quantizer.")}
    check_weights(given, wanted, path, "set vqvae.channels, .blocks and .latent_dim as there")
    model.load_state_dict(given, strict=False)


def load_quantized(path: Path, options: VqvaeOptions) -> tuple[SparseVQVAE, VqvaeCodebookOptions]:
    """The model of stage 1 or 2 and how its quantiser was made.

    Raises
    ------
    InputError
        The file holds no quantiser, or does not fit ``options``.
    """
    stored = load_model(path, QUANTISED)
    codebook = stored.section("vqvae_codebook", VqvaeCodebookOptions)
    model = SparseVQVAE.from_options(options, codebook)
    load_weights(model, path)
    stored.fill(model)
    return model, codebook


def load_network(path: Path, quantised: bool) -> SparseVQVAE:
    """The network of a stage's model.pt, for use: eval mode, the torch backend.

    quantised : with its quantiser, which stage 1 or 2 has; without, the continuous autoencoder
        of any stage's weights.
    """
    stored = load_model(path, *([QUANTISED] if quantised else STAGES))
    options = replace(stored.section("vqvae", VqvaeOptions), backend="torch")
    if quantised:
        return load_quantized(path, options)[0].eval()
    model = SparseVQVAE.from_options(options)
    load_weights(model, path)
    return model.eval()
