"""Atomic writes, hashes and npz files without pickle."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shlex
import tempfile
import time
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import outputs
from .errors import InputError, problem

# What numpy raises on truncated, foreign or damaged npz files, tried on each.
NPZ_ERRORS = (
    ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError,
    SyntaxError, tokenize.TokenError,
)  # fmt: skip
PAIRED = re.compile(r"(.+\.)(hdr|img)((?:\.gz|\.bz2)?)", re.IGNORECASE | re.DOTALL)
TEMPORARY = ".tmp-"  # how the names of what is being written begin
CLOCK_TOLERANCE_S = 60  # clocks of a network differ
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
NO_WRITING = {errno.EROFS, errno.EACCES, errno.EPERM}
# What a user's path may be; a file that is missing here was looked for by mistake
BAD_PLACE = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
# Of declared outputs this is enough: Snakemake makes again what is not there.
ANEW = "delete it and run the same command again"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed onto it when the block ends well.

    The temporary name keeps the suffixes (some writers choose the format by them), the
    bytes reach the disk before the rename, and a failed block leaves ``path`` untouched
    and nothing behind. Missing parent folders are made.

    Raises
    ------
    InputError
        The disk is full or must not be written on, or what is at ``path`` is not ours
        (:mod:`cardiform.outputs`).
    """
    path = Path(path)
    temporary = None
    try:
        outputs.enter(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix="-" + path.name, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files private; outputs are shared
        temporary.replace(path)
    except OSError as error:
        line = write_problem(path, error)
        if not line:
            raise
        raise InputError(line) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_problem(path: str | Path, error: OSError) -> str:
    """Why ``path`` could not be written, as a problem line; empty for any other error."""
    fact = f"could not be written ({os.strerror(error.errno) if error.errno else error})"
    if error.errno in NO_ROOM:
        remedy = "make room on this disk and run the same command again: what is finished is kept"
        return problem(path, fact, remedy)
    if error.errno in NO_WRITING or _is_unmakeable(error):
        return problem(path, fact, "choose a folder that you may write to")
    return ""


def _is_unmakeable(error: OSError) -> bool:
    """Whether a folder of outputs, or a file in it, could not be made: a virtual one (/proc) is a
    writable folder by its rights, and yet takes nothing."""
    if error.errno != errno.ENOENT or not error.filename:
        return False
    return Path(error.filename).name.startswith(TEMPORARY) or outputs.is_above(error.filename)


def unwritable(folders: Iterable[str | Path]) -> list[str]:
    """Problem lines of those of the folders that are there and may not be written to."""
    remedy = "work in a folder of your own (snakemake --directory FOLDER)"
    return [
        problem(Path(folder).resolve(), "may not be written to", remedy)
        for folder in folders
        if os.path.isdir(folder) and not os.access(folder, os.W_OK)
    ]


def check_writable(folders: Iterable[str | Path]) -> None:
    """InputError with the lines of :func:`unwritable`, if there are any."""
    if lines := unwritable(folders):
        raise InputError(lines)


def os_problem(error: BaseException, what: str) -> str:
    """What a user can correct about an OSError, as a problem line; empty for any other error.

    what : what is named where the error names no file.
    """
    if not isinstance(error, OSError):
        return ""
    if error.errno in NO_ROOM or _is_unmakeable(error):
        return write_problem(error.filename or what, error)
    if error.filename and error.errno in BAD_PLACE | NO_WRITING:
        fact = f"cannot be used ({error.strerror})"
        return problem(error.filename, fact, "correct the path, or what lies there")
    return ""


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content) -> None:
    """Write ``content`` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: str | Path, remedy: str = ""):
    """Read a JSON file; an :class:`InputError` names a missing or damaged one.

    remedy : what to do then; by default that of a declared output.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        missing = remedy or "run the stage that makes it"
        raise InputError(problem(path, "does not exist", missing)) from None
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(problem(path, f"is no JSON file ({error})", remedy or ANEW)) from None


def future_problems(paths: Iterable[str | Path]) -> list[str]:
    """Problem lines of the files whose date lies in the future; missing ones have none.

    Snakemake goes by dates: a job with such an input fails when it is done, every time.
    """
    lines, limit = [], time.time() + CLOCK_TOLERANCE_S
    for path in (Path(part) for whole in paths for part in parts_of(whole)):
        if os.path.exists(path) and (changed := path.stat().st_mtime) > limit:
            day = time.strftime("%Y-%m-%d %H:%M", time.localtime(changed))
            fact = f"was changed in the future ({day})"
            lines.append(
                problem(path, fact, f"set the clock right, then: touch {shlex.quote(str(path))}")
            )
    return lines


def parts_of(path: str | Path) -> list[str]:
    """The files that hold what ``path`` names: header and voxels of a .hdr/.img pair, else itself.

    Both are listed, in this order, whichever is named and whether they exist or not. Ends like
    .IMG and .img.gz have partners that end alike.
    """
    found = PAIRED.fullmatch(str(path))
    if not found:
        return [str(path)]
    stem, end, packed = found.groups()
    return [f"{stem}{part.upper() if end.isupper() else part}{packed}" for part in ("hdr", "img")]


def sha256_file(path: str | Path) -> str:
    """Hex digest of the file's bytes; of a whole .hdr/.img pair, of the digests of both."""
    parts = parts_of(path)
    if len(parts) == 1 or not all(map(os.path.isfile, parts)):
        return _digest(path)
    return sha256_text(" ".join(map(_digest, parts)))


def _digest(path: str | Path) -> str:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Of its UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


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
    _write_npz(path, arrays, zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED)


def save_npz_quickly(path: str | Path, **arrays) -> None:
    """Like save_npz, compressed in less time to somewhat more bytes."""
    _write_npz(path, arrays, zipfile.ZIP_DEFLATED, level=1)


def _write_npz(path: str | Path, arrays: dict, how: int, level: int | None = None) -> None:
    import numpy as np

    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"{name}: object arrays would need pickle")
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", how, compresslevel=level) as archive,
    ):
        for name, array in arrays.items():
            # a name alone has the date 1980: the same content is always the same bytes
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)


def load_npz(path: str | Path, remedy: str = ANEW) -> dict:
    """Every array of an npz, without pickle.

    Raises
    ------
    InputError
        It is missing or damaged; the archive's checksums tell of any changed byte.
    """
    with opened_npz(path, remedy) as archive:
        return {name: archive[name] for name in archive.files}


@contextmanager
def opened_npz(path: str | Path, remedy: str = ANEW):
    """An npz whose arrays are read one by one within the block; InputError as of load_npz.

    remedy : what to do where it is missing or damaged.
    """
    import numpy as np

    try:
        with Path(path).open("rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise zipfile.BadZipFile("no npz archive, or not a whole one")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as archive:
                yield archive
    except FileNotFoundError:
        raise InputError(problem(path, "does not exist", remedy)) from None
    except NPZ_ERRORS as error:
        raise InputError(problem(path, f"cannot be read ({error})", remedy)) from None
