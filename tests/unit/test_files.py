"""Atomic writes, hashes, npz without pickle."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from answers import refused
from mounts import run_with_disk

from cardiform import files, outputs
from cardiform.errors import InputError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert files.read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_atomic_path_keeps_suffixes_makes_folders_and_shares(tmp_path):
    path = tmp_path / "deep" / "labels.nii.gz"
    with files.atomic_path(path) as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("x")
    assert path.read_text() == "x"
    files.write_text(path, "y")
    assert path.read_text() == "y"
    assert path.stat().st_mode & 0o044


def test_npz_round_trip_and_damage(tmp_path):
    path = tmp_path / "p.npz"
    coords = np.asfortranarray(np.arange(12, dtype=np.uint16).reshape(4, 3))
    files.save_npz(path, coords=coords, scale=np.float64(2))
    arrays = files.load_npz(path, "mend it")
    assert arrays["coords"].dtype == np.uint16 and (arrays["coords"] == coords).all()
    assert arrays["coords"].flags.f_contiguous and arrays["scale"] == 2
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"p\.npz: cannot be read .*; mend it"):
        files.load_npz(path, "mend it")
    with pytest.raises(InputError, match="does not exist"):
        files.load_npz(tmp_path / "none.npz", "mend it")


def test_npz_refuses_objects_both_ways(tmp_path):
    with pytest.raises(TypeError):
        files.save_npz(tmp_path / "o.npz", x=np.array([{}], dtype=object))
    np.savez(tmp_path / "o.npz", x=np.array([{}], dtype=object))
    with pytest.raises(InputError):
        files.load_npz(tmp_path / "o.npz", "mend it")


def test_npz_bytes_do_not_depend_on_the_time(tmp_path, monkeypatch):
    import time

    files.save_npz(tmp_path / "a.npz", x=np.arange(3))
    later = time.time() + 1e6
    monkeypatch.setattr(time, "time", lambda: later)
    files.save_npz(tmp_path / "b.npz", x=np.arange(3))
    assert files.sha256_file(tmp_path / "a.npz") == files.sha256_file(tmp_path / "b.npz")


def test_canonical_hash():
    assert files.sha256_json({"a": 1, "b": 2}) == files.sha256_json({"b": 2, "a": 1})
    assert files.sha256_json({"a": 1}) != files.sha256_json({"a": 2})


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match=r"x\.json: is no JSON file"):
        files.read_json(tmp_path / "x.json")


def test_a_changed_byte_of_an_npz_is_noticed(tmp_path):
    path = tmp_path / "p.npz"
    files.save_npz(path, x=np.arange(1000))
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"p\.npz: cannot be read .*CRC"):
        files.load_npz(path)


@pytest.mark.parametrize("name", ["x", "x/y", ""])
def test_a_folder_that_cannot_be_made_is_named_without_a_traceback(name):
    """/proc may be written to by its rights, and takes nothing."""
    if not os.access("/proc", os.W_OK):
        pytest.skip("for root alone")
    code = (
        "import sys; from pathlib import Path; from cardiform import cli, files, outputs\n"
        "def main():\n"
        "    outputs.register(outputs.Places([Path(sys.argv[1])], []))\n"
        "    files.write_text(Path(sys.argv[1]) / 'a' / 'b.txt', 'text')\n"
        "cli.run(main)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, f"/proc/{name}"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    words = "could not be written (No such file or directory); choose"
    refused(result, f"error: /proc{'/x' if name else ''}", words)
    assert len(result.stderr.splitlines()) == 1


def test_a_missing_file_that_is_read_is_no_folder_that_cannot_be_made(tmp_path):
    outputs.register(outputs.Places([tmp_path / "out"], [tmp_path / "b" / "a.html"]))
    try:
        for name, made in {"out": True, "b": True, "c": False, "out/a": False}.items():
            where = str(tmp_path / name)
            error = FileNotFoundError(errno.ENOENT, "No such file or directory", where)
            assert bool(files.os_problem(error, "x")) == made
        assert not files.os_problem(FileNotFoundError(errno.ENOENT, "nothing"), "x")
    finally:
        outputs.register(outputs.Places())


@pytest.mark.parametrize("kind", ["full", "read_only"])
def test_a_disk_that_takes_nothing_is_named_without_a_traceback(tmp_path, kind):
    """The old file stays; on a full disk too."""
    code = (
        "import pathlib, sys; from cardiform import cli, files\n"
        "path = pathlib.Path(sys.argv[1]); old = 'old'\n"
        "path.parent.stat().st_dev == path.parents[1].stat().st_dev or path.write_text(old)\n"
        "def main():\n"
        "    try: files.write_text(path, 'new' * 100_000)\n"
        "    finally: assert [p.read_text() for p in path.parent.iterdir()] == [old]\n"
        "cli.run(main)\n"
    )
    path = tmp_path / "disk" / "a.txt"
    path.parent.mkdir()
    path.write_text("old")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, path]
    result = run_with_disk(kind, path.parent, command, size="100k", env=environment)
    words = {
        "full": "could not be written (No space left on device); make room",
        "read_only": "could not be written (Read-only file system); choose a folder",
    }
    refused(result, f"error: {path}: {words[kind]}")
    assert len(result.stderr.splitlines()) == 1
