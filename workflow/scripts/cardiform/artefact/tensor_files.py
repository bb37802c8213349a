"""Tensors as safetensors, with what else belongs to them as JSON in the header of the file.

Such a file runs no code, whoever reads it, and is the same bytes wherever it is written. It has no
checksum of its own, so the JSON holds one, of the tensors and of the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, first_line, problem
from ..files import sha256_json
from ..formats import VERSION
from .torch_files import tensor_bytes, written_whole

KEY = "cardiform"  # one key alone: the library writes several in any order
SUM = "sha256"
LONGEST_HEADER = 100_000_000  # bytes: the limit of safetensors itself


def is_tensor_file(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON header, and its brace."""
    try:
        with path.open("rb") as stream:
            head = stream.read(9)
    except OSError:
        return False
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER


def save_tensors(path: Path, content: Mapping[str, Any], version: int) -> None:
    """Write ``content`` for :func:`load_tensors`; the old file stays until the new is complete.

    content : ``weights`` (name -> tensor) and what else there is, plain values.
    version : of its layout, stored as ``format_version``.

    Raises
    ------
    InputError
        The disk is full or must not be written on.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # tensors that share memory, or are views, would be refused
    weights = {n: w.detach().cpu().clone().contiguous() for n, w in content["weights"].items()}
    rest = {VERSION: version} | {n: v for n, v in content.items() if n != "weights"}
    text = json.dumps(rest | {SUM: _checksum(weights, rest)}, sort_keys=True)
    with written_whole(path, tensor_bytes(weights) + len(text)) as temporary:
        try:
            save_file(weights, temporary, metadata={KEY: text})
        except SafetensorError as error:  # a full disk, too
            raise OSError(first_line(error)) from error


def load_tensors(path: Path, remedy: str) -> dict[str, Any]:
    """The content of a file of :func:`save_tensors`, tensors on the CPU.

    remedy : what to do with a file that is not sound.

    Raises
    ------
    InputError
        The file is damaged, changed or foreign. The caller checks its format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as stream:
            content = json.loads((stream.metadata() or {})[KEY])
            # copies: the file may change once it is read
            weights = {name: stream.get_tensor(name).clone() for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
        fact = f"is damaged or no file of this project ({first_line(error)})"
        raise InputError(problem(path, fact, remedy)) from error
    if not isinstance(content, dict):
        raise InputError(problem(path, "is no file of this project", remedy))
    found = content.pop(SUM, None)
    if found != _checksum(weights, content):
        fact = "is damaged or was changed (its checksum is another)"
        raise InputError(problem(path, fact, remedy))
    return {**content, "weights": weights}


def _checksum(weights: Mapping[str, Tensor], rest: Mapping[str, Any]) -> str:
    """sha256 of all names, types, shapes and bytes, and of the rest."""
    total = hashlib.sha256(sha256_json(rest).encode())
    for name in sorted(weights):
        value = weights[name]
        total.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
