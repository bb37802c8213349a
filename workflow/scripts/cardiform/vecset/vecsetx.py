"""Weights in the layout of VecSetX, as a VecSet that computes the same.

Read from its code, <https://github.com/1zb/VecSetX>: names and order of the weights, no line of it.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.serialization import safe_globals

from ..artefact import torch_files
from ..artefact.model import check_weights, save_model
from ..errors import InputError, problem
from ..files import sha256_sources
from ..labels import LabelTable
from ..options.vecset import VecsetOptions
from .model import PRESETS, VECSET, VecSet

PRESET = "vecsetx"
REMEDY = "give a checkpoint of VecSetX, point_vec1024x32_dim1024_depth24_sdf_nb.pth, say"
EMBEDDING, HEAD, BASIS = "point_embed.mlp", "to_outputs.1", "point_embed.basis"
# Beginnings of names there -> here; the first that fits holds.
NAMES = {
    r"latents\.": "learned.",
    r"cross_attend_blocks\.0\.norm": "encoder.norm",
    r"cross_attend_blocks\.0\.fn": "encoder.attention",
    r"cross_attend_blocks\.1\.norm": "encoder_norm",
    r"cross_attend_blocks\.1\.fn\.net\.0": "encoder_forward.widen",
    r"cross_attend_blocks\.1\.fn\.net\.2": "encoder_forward.narrow",
    r"layers\.(\d+)\.0\.norm": r"trunk.\1.attention_norm",
    r"layers\.(\d+)\.0\.fn": r"trunk.\1.attention",
    r"layers\.(\d+)\.1\.norm": r"trunk.\1.forward_norm",
    r"layers\.(\d+)\.1\.fn\.net\.0": r"trunk.\1.feed_forward.widen",
    r"layers\.(\d+)\.1\.fn\.net\.2": r"trunk.\1.feed_forward.narrow",
    r"decoder_cross_attn\.norm": "decoder.norm",
    r"decoder_cross_attn\.fn": "decoder.attention",
    r"to_outputs\.0": "head_norm",
    r"bottleneck\.pre_bottleneck_proj": "bottleneck.codes",
    r"bottleneck\.post_bottleneck_proj": "bottleneck.out",
    r"bottleneck\.gamma$": "bottleneck.gain",
    r"bottleneck\.beta$": "bottleneck.shift",
    r"bottleneck\.mean_fc": "bottleneck.mean",
    r"bottleneck\.logvar_fc": "bottleneck.log_variance",
    r"bottleneck\.proj": "bottleneck.out",
}
# A weight that tells the bottleneck, and has a row for each channel of a latent -> its name here.
BOTTLENECKS = {
    "bottleneck.pre_bottleneck_proj.weight": "normalized",
    "bottleneck.mean_fc.weight": "kl",
}


def convert_vecsetx(path: Path, out: Path, table: LabelTable) -> VecsetOptions:
    """Write the weights of a checkpoint as the model.pt of a VecSet of preset vecsetx.

    Every class of ``table`` gets the one distance that VecSetX knows, that to the union; the class
    of an input point changes nothing until it is trained.

    Returns
    -------
    The options that the network has.

    Raises
    ------
    InputError
        The file is damaged, no checkpoint of VecSetX, or of other sizes than its released ones.
    """
    given = read_checkpoint(path)
    options = options_of(given)
    weights = converted(given, len(table))
    with torch.device("meta"):
        network = VecSet.from_options(options, len(table))
    check_weights(weights, network.state_dict(), path, REMEDY)
    save_model(
        out,
        VECSET,
        weights,
        options={"vecset": options},
        labels=table,
        figures={},
        training_cases=(),
        source_sha256=sha256_sources(),
        extra={"converted_from": "VecSetX"},
    )
    return options


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint, under VecSetX's names; no code of the file is run."""
    with safe_globals([argparse.Namespace]):  # its training saves the command line beside them
        content = torch_files.load(path, REMEDY)
    weights = content.get("model", content)
    if not isinstance(weights, Mapping) or f"{EMBEDDING}.weight" not in weights:
        raise InputError(problem(path, "has no weights of VecSetX", REMEDY))
    if strange := [n for n, w in weights.items() if not (isinstance(w, Tensor) and w.ndim)]:
        raise InputError(problem(path, f"has weights that are no tensors ({strange[0]})", REMEDY))
    wanted = _basis(PRESETS[PRESET].octaves)
    basis, embedding = weights.get(BASIS, wanted).float(), weights[f"{EMBEDDING}.weight"]
    same = basis.shape == wanted.shape and torch.allclose(basis, wanted, rtol=1e-5)
    if not same or embedding.ndim != 2:
        raise InputError(problem(path, "has another point embedding", REMEDY))
    return dict(weights)


def options_of(weights: Mapping[str, Tensor]) -> VecsetOptions:
    """The options of the network whose weights these are, under VecSetX's names."""
    found = [(kind, weights[name]) for name, kind in BOTTLENECKS.items() if name in weights]
    kind, narrowing = found[0] if found else ("identity", None)
    preset = PRESETS[PRESET].latent_dim
    width = preset if narrowing is None else len(narrowing)
    return VecsetOptions(
        preset=PRESET,
        queries="learned" if "latents.weight" in weights else "fps",
        bottleneck=kind,
        latent_dim=0 if width == preset else width,
        balanced=0.0,  # its points are drawn by area alone
    )


def converted(weights: Mapping[str, Tensor], classes: int) -> dict[str, Tensor]:
    """State dict of a :class:`VecSet` with so many classes; names that are not known stay."""
    result = {}
    for name, value in weights.items():
        if name.startswith((EMBEDDING, HEAD)) or name == BASIS:
            continue
        for there, here in NAMES.items():
            renamed, count = re.subn(f"^{there}", here, name)
            if count:
                break
        result[renamed if count else name] = value.float()
    embedding = weights[f"{EMBEDDING}.weight"].float()
    columns = _columns(embedding.shape[1])
    query = embedding[:, columns]
    result["query_embedding.linear.weight"] = query
    no_class = query.new_zeros(len(query), classes)
    result["point_embedding.linear.weight"] = torch.cat([query, no_class], dim=1)
    for name in ("query_embedding", "point_embedding"):
        if f"{EMBEDDING}.bias" in weights:
            result[f"{name}.linear.bias"] = weights[f"{EMBEDDING}.bias"].float()
    for part in ("weight", "bias"):
        if f"{HEAD}.{part}" in weights:
            value = weights[f"{HEAD}.{part}"].float()
            result[f"head.{part}"] = value.repeat(classes, *[1] * (value.ndim - 1))
    return result


def _columns(width: int) -> list[int]:
    """Of the columns here: which ones they are there.

    There: the sines of x, y, z (octaves within), the cosines, xyz. Here: sines and cosines of x,
    those of y and z, xyz.
    """
    octaves = (width - 3) // 6
    waves = [
        kind * 3 * octaves + axis * octaves + octave
        for axis in range(3)
        for kind in range(2)
        for octave in range(octaves)
    ]
    return [*waves, *range(6 * octaves, width)]


def _basis(octaves: int) -> Tensor:
    """(3, 3 octaves): frequencies of each axis."""
    return torch.block_diag(*[math.pi * 2.0 ** torch.arange(octaves)[None]] * 3)
