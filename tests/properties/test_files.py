"""Atomic files: whatever happens, the old file or the new one is there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from strategies import names, texts

from cardiform.errors import InputError
from cardiform.files import (
    atomic_path,
    load_npz,
    read_json,
    save_npz,
    sha256_json,
    write_json,
    write_text,
)

MOMENTS = {
    "before": None,
    "in the middle": None,
    "fsync": (os, "fsync"),
    "chmod": (Path, "chmod"),
    "rename": (Path, "replace"),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, InputError])
@given(name=names, old=st.none() | texts)
def test_an_exception_at_any_moment_leaves_the_old_file_alone(tmp_path, moment, error, name, old):
    path = tmp_path / "folder" / name
    if old is not None:
        write_text(path, old)

    def raises(*args, **kwargs):
        raise error("stopped")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(error):
        if MOMENTS[moment]:
            patch.setattr(*MOMENTS[moment], raises)
        with atomic_path(path) as temporary:
            if moment == "before":
                raises()
            temporary.write_text("half a fi", encoding="utf-8")
            if moment == "in the middle":
                raises()
    found = [p.name for p in path.parent.iterdir()]
    assert found == ([] if old is None else [name])
    if old is not None:
        assert path.read_bytes().decode() == old
        path.unlink()


@given(names, texts, texts)
def test_a_file_of_any_name_holds_what_was_written_last(tmp_path, name, old, new):
    path = tmp_path / "folder" / name
    for text in (old, new):
        write_text(path, text)
        assert path.read_bytes().decode() == text
    assert [p.name for p in path.parent.iterdir()] == [name]
    path.unlink()


@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.float16, np.float32, np.float64, bool, np.int64]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    st.booleans(),
)
def test_an_array_is_kept_in_its_dtype_and_shape(tmp_path, array, compressed):
    save_npz(tmp_path / "a.npz", compressed=compressed, array=array, other=array.T)
    found = load_npz(tmp_path / "a.npz")
    assert found["array"].dtype == array.dtype and found["array"].shape == array.shape
    np.testing.assert_array_equal(found["array"], array)
    np.testing.assert_array_equal(found["other"], array.T)


@given(st.integers(0), st.integers(1, 255))
def test_a_changed_byte_of_a_file_is_refused_or_changes_nothing(tmp_path, place, step):
    array = np.arange(40, dtype=np.float32)
    save_npz(tmp_path / "a.npz", array=array)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    place %= len(content)
    content[place] = (content[place] + step) % 256
    (tmp_path / "b.npz").write_bytes(content)
    try:
        found = load_npz(tmp_path / "b.npz")
    except InputError:
        return
    for value in found.values():
        np.testing.assert_array_equal(value, array)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)


@given(plain)
def test_json_is_kept_and_hashed_by_its_content(tmp_path, content):
    write_json(tmp_path / "a.json", content)
    found = read_json(tmp_path / "a.json")
    assert found == content and sha256_json(found) == sha256_json(content)
    if isinstance(content, dict):
        assert sha256_json(dict(reversed(content.items()))) == sha256_json(content)
    assert sha256_json([content]) != sha256_json(content)


@given(st.binary(max_size=30))
def test_what_is_no_json_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    try:
        json.loads(content.decode("utf-8"))
    except ValueError:
        with pytest.raises(InputError):
            read_json(tmp_path / "a.json")
    else:
        read_json(tmp_path / "a.json")
