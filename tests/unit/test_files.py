"""Atomic writes, hashes, npz without pickle."""

from __future__ import annotations

import numpy as np
import pytest

from cardiform import files
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
    arrays = files.load_npz(path)
    assert arrays["coords"].dtype == np.uint16 and (arrays["coords"] == coords).all()
    assert arrays["coords"].flags.f_contiguous and arrays["scale"] == 2
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"p\.npz: cannot be read .*; delete it"):
        files.load_npz(path)
    with pytest.raises(InputError, match="does not exist"):
        files.load_npz(tmp_path / "none.npz")


def test_npz_refuses_objects_both_ways(tmp_path):
    with pytest.raises(TypeError):
        files.save_npz(tmp_path / "o.npz", x=np.array([{}], dtype=object))
    np.savez(tmp_path / "o.npz", x=np.array([{}], dtype=object))
    with pytest.raises(InputError):
        files.load_npz(tmp_path / "o.npz")


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
