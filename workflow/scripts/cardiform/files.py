"""Atomic writes, hashes and npz files without pickle."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError, problem


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed onto it when the block ends well.

    The temporary name keeps the suffixes (some writers choose the format by them), the
    bytes reach the disk before the rename, and a failed block leaves ``path`` untouched
    and nothing behind. Missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".tmp-", suffix="-" + path.name, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files private; outputs are shared
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content) -> None:
    """Write ``content`` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: str | Path):
    """Read a JSON file; an :class:`InputError` names a missing or damaged one."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(problem(path, "does not exist", "run the stage that makes it")) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            problem(path, f"is no JSON file ({error})", "delete it and run its stage again")
        ) from None


def sha256_file(path: str | Path) -> str:
    """Hex digest of the file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(content) -> str:
    """Hex digest of ``content`` as canonical JSON: key order does not count."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_sources() -> str:
    """Hex digest of the package's own source, for the figures of a run.

    Snakemake does not rerun a stage for edited code, so the figures say which code made them.
    """
    folder = Path(__file__).parent
    files = {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*.py"))}
    return sha256_json(files)


def save_npz(path: str | Path, *, compressed: bool = False, **arrays) -> None:
    """Write arrays to an npz, atomically."""
    import numpy as np

    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"{name}: object arrays would need pickle")
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        (np.savez_compressed if compressed else np.savez)(stream, **arrays)


def load_npz(path: str | Path) -> dict:
    """Every array of an npz, without pickle; an :class:`InputError` names a damaged file."""
    import numpy as np

    try:
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise InputError(problem(path, "does not exist", "run the stage that makes it")) from None
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            problem(path, f"cannot be read ({error})", "delete it and run its stage again")
        ) from None
