"""Data that all processes of a machine share: the same arrays, mapped from files."""

from __future__ import annotations

import errno
import gc
import logging
import mmap
import multiprocessing
import os
import re
from pathlib import Path

import numpy as np
import pytest
from damage import flip
from points_files import write_points_file

from cardiform import files
from cardiform.errors import InputError
from cardiform.files import load_npz, save_npz
from cardiform.geometry.sampling import POINTS
from cardiform.labels import STACOM_2025, LabelTable
from cardiform.training import mapped, shared
from cardiform.training.mapped import MappedNpz
from cardiform.training.shared import each_of_all, shared_npz
from cardiform.vecset.data import Draw, PointDataset, load_case_points
from cardiform.vecset.shared import shared_cases

TABLE = LabelTable(STACOM_2025[:3])
TRUNCATION = 0.1
DRAW = Draw(
    input_points=64, volume_queries=40, near_queries=30, surface_queries=20, balanced=0.5,
    latents=16, augment_rotation_deg=20.0,
)  # fmt: skip


def write_points(path: Path, seed: int = 0, cut: bool = False, count: int = 2000) -> Path:
    """A points file of random content, large enough that its arrays are mapped."""
    rng = np.random.default_rng(seed)
    values = np.array(TABLE.values, np.uint8)
    places = rng.uniform(-1, 1, (count, 3)).astype(np.float32)
    sdf = rng.normal(scale=0.2, size=(count, 3)).astype(np.float16)
    more = {}
    if cut:
        least = np.where(rng.random(sdf.shape) < 0.3, 2 * sdf, np.nan).astype(np.float16)
        sdf[~np.isnan(least)] = np.nan
        planes = np.array([[0, 0, 1, 0.5]])
        more = {"near_least": least, "volume_least": least, "cut_planes": planes}
        more["cut"] = np.ones(3, bool)
    return write_points_file(
        path,
        surface_points=places,
        surface_labels=rng.choice(values, count),
        near_points=places[::-1].copy(),
        near_sdf=sdf,
        near_labels=rng.choice(values, count),
        volume_points=places,
        volume_sdf=sdf[::-1].copy(),
        annotated=np.ones(3, bool),
        class_values=values,
        **more,
    )


def opened(path: Path, folder: Path, keep: int = 0):
    return shared_cases([("a", path)], TABLE, folder, keep, TRUNCATION)[0]


def same_items(one: PointDataset, other: PointDataset) -> bool:
    pairs = [(one[0, n], other[0, n]) for n in range(5)]
    return all(
        np.array_equal(a[k], b[k], equal_nan=a[k].dtype.kind == "f")
        for a, b in pairs
        for k in a
        if k != "case_id"
    )


# --- mapped files --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f2", "u1", "i8", "?", "U3"])
def test_mapped_arrays_are_the_stored_ones(tmp_path, dtype):
    many = np.random.default_rng(0).integers(0, 2, (3000, 3)).astype(dtype)
    arrays = {"many": many, "by_columns": np.asfortranarray(many), "one": many[0, 0]}
    save_npz(tmp_path / "a.npz", **arrays, none=many[:0])
    found = MappedNpz.open(tmp_path / "a.npz")
    stored = load_npz(tmp_path / "a.npz")
    assert found.arrays.keys() == stored.keys() and set(found.sections) == {"many", "by_columns"}
    for name, array in stored.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype
        assert found.outlines[name].shape == array.shape
    with pytest.raises(ValueError, match="read-only"):
        found.arrays["many"][0] = many[1]
    found.check()


def test_of_a_head_no_page_beside_it_is_mapped(tmp_path):
    save_npz(tmp_path / "a.npz", x=np.arange(1 << 20), y=np.arange(1 << 20))
    found = MappedNpz.open(tmp_path / "a.npz", heads={"x": 1000})
    np.testing.assert_array_equal(found.arrays["x"], np.arange(1000))
    assert "y" not in found.arrays and found.outlines["y"].shape == (1 << 20,)
    sizes = [int(e, 16) - int(b, 16) for b, e in maps_of(tmp_path / "a.npz")]
    assert len(sizes) == 1 and sizes[0] <= 8 * 1000 + 3 * mmap.PAGESIZE


def maps_of(path: Path) -> list[tuple[str, str]]:
    lines = Path("/proc/self/maps").read_text()
    return re.findall(rf"^(\w+)-(\w+) .*{re.escape(str(path))}$", lines, re.MULTILINE)


def test_maps_keep_no_file_open_and_go_with_their_arrays(tmp_path):
    save_npz(tmp_path / "a.npz", x=np.arange(10_000))
    before = len(os.listdir("/proc/self/fd"))
    held = [MappedNpz.open(tmp_path / "a.npz").arrays["x"] for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) == before and len(maps_of(tmp_path / "a.npz")) == 20
    part = held.pop()[5:9]
    del held
    gc.collect()
    assert len(maps_of(tmp_path / "a.npz")) == 1 and part.tolist() == [5, 6, 7, 8]


def test_a_replaced_file_is_still_the_old_one_where_it_is_mapped(tmp_path):
    save_npz(tmp_path / "a.npz", x=np.arange(10_000))
    found = MappedNpz.open(tmp_path / "a.npz")
    save_npz(tmp_path / "a.npz", x=np.zeros(10_000, int))
    found.check()
    assert found.arrays["x"][-1] == 9_999


def touched(path: Path, pipe) -> None:
    """Map the file, read all of it, and say which share of it is this process's own (PSS)."""
    found = MappedNpz.open(path)
    found.check()
    pipe.send("read")
    pipe.recv()
    lines = Path("/proc/self/smaps").read_text()
    own = re.findall(rf"{re.escape(str(path))}\n(?:.*\n)*?Pss: +(\d+) kB", lines)
    pipe.send(sum(map(int, own)) * 1024)
    pipe.recv()


def test_processes_hold_a_file_once_together(tmp_path):
    """Each has opened it by itself."""
    path = tmp_path / "a.npz"
    save_npz(path, x=np.ones(1 << 23, np.uint8))
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe() for _ in range(3)]
    processes = [fork.Process(target=touched, args=(path, far)) for _, far in pipes]
    for process in processes:
        process.start()
    ends = [near for near, _ in pipes]
    assert [end.recv() for end in ends] == ["read"] * 3
    for end in ends:
        end.send("all have")
    shares = [end.recv() for end in ends]
    for end in ends:
        end.send("over")
    for process in processes:
        process.join()
    assert 0.99 * (1 << 23) < sum(shares) < 1.05 * (1 << 23)


def test_too_many_maps_are_named(tmp_path, monkeypatch):
    save_npz(tmp_path / "a.npz", x=np.arange(10_000))

    class Full:
        def mmap(self, *arguments):
            mapped.ctypes.set_errno(errno.ENOMEM)
            return mapped.MAP_FAILED

    monkeypatch.setattr(mapped, "LIBC", Full())
    with pytest.raises(InputError, match=r"a\.npz: cannot be mapped.*raise vm\.max_map_count"):
        MappedNpz.open(tmp_path / "a.npz")


@pytest.mark.parametrize("place", [0.3, 0.999])
def test_changed_bytes_are_found(tmp_path, place):
    save_npz(tmp_path / "a.npz", x=np.arange(10_000))
    flip(tmp_path / "a.npz", place)
    with pytest.raises(InputError, match=r"a\.npz: (is damaged \(bytes of x|cannot be read)"):
        MappedNpz.open(tmp_path / "a.npz").check()


def test_a_short_file_is_refused(tmp_path):
    save_npz(tmp_path / "a.npz", x=np.arange(10_000))
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[:200] + content[-150:])
    with pytest.raises(InputError, match=r"a\.npz: cannot be read"):
        MappedNpz.open(tmp_path / "a.npz")


# --- what is made once for all -------------------------------------------------------------


def test_what_is_shared_is_made_once(tmp_path):
    made = []

    def make(value=1):
        made.append(value)
        return {"x": np.full(10_000, value)}

    for _ in range(2):
        assert shared_npz(tmp_path / "s" / "a.npz", "k", make).arrays["x"][-1] == 1
    assert made == [1]
    other = shared_npz(tmp_path / "s" / "a.npz", "other", lambda: make(2))
    assert other.arrays["x"][-1] == 2 and made == [1, 2]


def test_what_another_node_made_meanwhile_is_taken(tmp_path):
    path = tmp_path / "a.npz"

    def make(value):
        shared_npz(path, "k", lambda: {"x": np.full(10_000, 1)})
        if value == 2:
            raise InputError("a.npz: is there already; move it away")
        raise InputError("no.npz: is missing; make it")

    assert shared_npz(path, "k", lambda: make(2)).arrays["x"][-1] == 1
    with pytest.raises(InputError, match=r"no\.npz"):
        shared_npz(path, "other", lambda: make(3))


@pytest.mark.parametrize("harm", ["cut", "foreign", "empty"])
def test_a_damaged_shared_file_is_named_and_made_again(tmp_path, harm, caplog):
    path = tmp_path / "a.npz"
    shared_npz(path, "k", lambda: {"x": np.arange(10_000)})
    content = {"cut": path.read_bytes()[:-9], "foreign": b"a letter", "empty": b""}[harm]
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        found = shared_npz(path, "k", lambda: {"x": np.arange(10_000)})
    assert found.arrays["x"][-1] == 9_999
    assert "a.npz: cannot be read" in caplog.text and "it is made again" in caplog.text


def test_a_full_disk_leaves_what_was_shared_before(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    shared_npz(path, "k", lambda: {"x": np.arange(10_000)})

    def full(stream, *_, **__):
        stream.write(b"half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(InputError, match=r"a\.npz: could not be written \(No space left"):
        shared_npz(path, "other", lambda: {"x": np.zeros(3)})
    monkeypatch.undo()
    assert shared_npz(path, "k", dict).arrays["x"][-1] == 9_999
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_ranks_begin_elsewhere_and_end_with_the_same(monkeypatch):
    monkeypatch.setattr(shared, "LOADERS", 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    orders = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        order: list[int] = []
        assert each_of_all(lambda x: order.append(x) or -x, range(6)) == [0, -1, -2, -3, -4, -5]  # noqa: B023
        orders.append(order)
    assert orders == [[0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2]]

    def bad(item):
        raise InputError(f"{item}: bad; mend it")

    with pytest.raises(InputError) as caught:
        each_of_all(bad, range(3))
    assert [line[0] for line in caught.value.problems] == ["0", "1", "2"]


# --- points --------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 1500, 5000])
@pytest.mark.parametrize("kind", ["whole", "cut", "compressed"])
def test_mapped_points_give_the_samples_of_those_in_memory(tmp_path, kind, keep):
    path = write_points(tmp_path / "a.npz", cut=kind == "cut")
    if kind == "compressed":
        save_npz(path, compressed=True, **load_npz(path))
    plain = load_case_points(path, "a", TABLE, keep, TRUNCATION)
    for _ in range(2):  # made, and found
        case = opened(path, tmp_path / "shared", keep)
        assert case.digest() == plain.digest()
        assert same_items(PointDataset([plain], DRAW, True), PointDataset([case], DRAW, True))
        assert case.near_sdf.base is not None and not case.near_sdf.flags.writeable


def test_other_points_or_options_make_other_shared_files(tmp_path):
    path = write_points(tmp_path / "a.npz")
    first = opened(path, tmp_path / "shared").digest()
    assert opened(path, tmp_path / "shared", keep=500).digest() != first
    write_points(path, seed=1)
    assert opened(path, tmp_path / "shared").digest() not in ("", first)
    for old in (tmp_path / "shared").iterdir():
        assert old.name == "a.npz"


@pytest.mark.parametrize("which", ["points", "shared"])
def test_points_that_were_damaged_since_are_named_at_their_first_draw(tmp_path, which):
    path = write_points(tmp_path / "a.npz")
    opened(path, tmp_path / "shared")
    harmed = path if which == "points" else tmp_path / "shared" / "a.npz"
    content = bytearray(harmed.read_bytes())
    place = content.index(b"near_sdf.npy" if which == "points" else b"near_rows.npy") + 500
    content[place] ^= 1
    harmed.write_bytes(content)
    data = PointDataset([opened(path, tmp_path / "shared")], DRAW)
    with pytest.raises(InputError, match=rf"{re.escape(str(harmed))}: is damaged \(bytes of near_"):
        data[0, 0]


def test_all_bad_points_files_are_reported(tmp_path):
    rows = [(n, write_points(tmp_path / f"{n}.npz", seed=i)) for i, n in enumerate("abc")]
    flip(rows[0][1])
    rows[2][1].unlink()
    with pytest.raises(InputError) as caught:
        shared_cases(rows, TABLE, tmp_path / "shared")
    lines = caught.value.problems
    assert len(lines) == 2 and "a.npz: cannot be read" in lines[0]
    assert "c.npz: does not exist" in lines[1] and all("sample_sdf" in line for line in lines)
    assert POINTS.remedy in lines[0] and files.ANEW not in lines[0]


def test_an_item_that_the_interpreter_failed_at_is_worked_on_again():
    """Several threads that parse headers at once: CPython 3.11 raises SystemError at times."""
    tried: list[int] = []

    def fails_once(item):
        tried.append(item)
        if tried.count(item) == 1 and item in (1, 3):
            raise SystemError("AST constructor recursion depth mismatch (before=42, after=37)")
        if item == 3:
            raise InputError("item 3 is bad")
        return -item

    assert each_of_all(fails_once, range(3)) == [0, -1, -2]
    tried.clear()
    with pytest.raises(InputError, match="item 3 is bad"):
        each_of_all(fails_once, range(4))
    with pytest.raises(SystemError):
        each_of_all(lambda _: (_ for _ in ()).throw(SystemError("another")), range(2))
