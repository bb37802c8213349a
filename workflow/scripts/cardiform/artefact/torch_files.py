"""Torch files that are whole or not there, and that run no code when they are read."""

from __future__ import annotations

import pickle
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, first_line, limit_fact, memory_fact, problem
from ..files import atomic_path

SPACE_MARGIN_BYTES = 1 << 20  # archive overhead of a file, and air for the log lines
# What torch.load raises on truncated, foreign or damaged files, tried on each.
LOAD_ERRORS = (
    RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, IndexError,
    TypeError, AttributeError, zipfile.BadZipFile, zlib.error, NotImplementedError,
)  # fmt: skip


def save(path: Path, content: Mapping[str, Any], version: int) -> None:
    """Write ``content`` for :func:`load`; the old file stays until the new one is complete.

    version : of the layout of ``content``, stored as ``format_version``.

    Raises
    ------
    InputError
        The disk is full or must not be written on.
    """
    with written_whole(path, tensor_bytes(content)) as temporary, temporary.open("wb") as stream:
        torch.save({"format_version": version, **content}, stream)


@contextmanager
def written_whole(path: Path, size: int) -> Iterator[Path]:
    """A temporary file that becomes ``path`` once it is complete; the old one stays until then.

    size : bytes that will be written, about.

    Raises
    ------
    InputError
        The disk is full or must not be written on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    needed = size + SPACE_MARGIN_BYTES
    free = shutil.disk_usage(path.parent).free
    kept = "the old one is untouched" if path.exists() else "nothing was written"
    remedy = f"make room and run the same command again ({kept})"
    if free < needed:
        fact = f"needs {needed:,} bytes, the disk has {free:,}"
        raise InputError(problem(path, fact, remedy))
    with atomic_path(path) as temporary:
        try:
            yield temporary
        except (OSError, RuntimeError) as error:
            # torch reports killed loaders wherever it is
            if memory_fact(error) or limit_fact(error):
                raise
            fact = f"could not be written, {needed:,} bytes ({first_line(error)})"
            raise InputError(problem(path, fact, remedy)) from error


def load(path: Path, remedy: str) -> dict[str, Any]:
    """Read a file of :func:`save` onto the CPU, without running code from it.

    remedy : what to do with a file that is not sound.

    Raises
    ------
    InputError
        The file is missing, damaged or foreign. The caller checks its format.
    """
    if not path.exists():
        raise InputError(problem(path, "does not exist", remedy))
    try:
        _check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        fact = f"is damaged or no file of this project ({first_line(error)})"
        raise InputError(problem(path, fact, remedy)) from error
    if not isinstance(content, dict):
        raise InputError(problem(path, "is no file of this project", remedy))
    return content


def _check_sums(path: Path) -> None:
    """Compare the checksums of the archive, which torch.load does not: a changed weight would
    pass."""
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"bytes of {damaged} have changed")


def plain(value: Any) -> Any:
    """``value`` with mappings as dicts, sequences as lists and numpy scalars as numbers."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # numpy or torch scalar
        return plain(value.item())
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be stored")


def tensor_bytes(content: Any) -> int:
    """Bytes of all tensors in nested mappings and lists."""
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, Mapping):
        return sum(tensor_bytes(value) for value in content.values())
    if isinstance(content, (list, tuple)):
        return sum(tensor_bytes(value) for value in content)
    return 0
