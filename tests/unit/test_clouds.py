"""HDF5 point clouds: every layout, axis order, one scale for the whole set, bad samples named."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from cardiform.errors import InputError
from cardiform.labels import LabelTable
from cardiform.ldm.clouds import counts_on, fields_of, label_map_of, typical
from cardiform.ldm.clouds_on_grid import CloudBounds, cloud_grid
from cardiform.ldm.cube import Cube
from cardiform.options.ldm import LdmOptions, PointcloudsOptions
from cardiform.volumes.clouds import CloudFile, cloud_of_case

POINTS = np.random.default_rng(0).normal(size=(4, 50, 3)) * (10, 20, 30)
CLASSES = np.random.default_rng(1).integers(1, 4, (4, 50)).astype(np.uint8)


def options(**keys):
    return PointcloudsOptions(**keys)


@pytest.fixture
def write(tmp_path):
    def make(fill):
        path = tmp_path / "clouds.h5"
        with h5py.File(path, "w") as archive:
            fill(archive)
        return path

    return make


def fill_stack(archive):
    archive["points"], archive["labels"] = POINTS, CLASSES


def fill_groups(archive):
    for k, name in enumerate("abcd"):
        archive[f"{name}/points"], archive[f"{name}/labels"] = POINTS[k], CLASSES[k]


def fill_datasets(archive):
    for k, name in enumerate("abcd"):
        archive[f"points/{name}"], archive[f"labels/{name}"] = POINTS[k], CLASSES[k]


def fill_ragged(archive):
    kind = h5py.vlen_dtype(np.float32)
    rows = archive.create_dataset("points", (4,), dtype=kind)
    numbers = archive.create_dataset("labels", (4,), dtype=h5py.vlen_dtype(np.uint8))
    for k in range(4):
        rows[k], numbers[k] = POINTS[k, : 50 - k].ravel(), CLASSES[k, : 50 - k]


@pytest.mark.parametrize("fill", [fill_stack, fill_groups, fill_datasets, fill_ragged])
def test_layouts(write, fill):
    file = CloudFile(write(fill), options())
    assert len(file) == 4
    for k, cloud in enumerate(file):
        assert np.allclose(cloud.points, POINTS[k, : len(cloud.points)], atol=1e-5)
        assert (cloud.labels == CLASSES[k, : len(cloud.points)]).all()
        assert len(cloud.points) == (50 - k if fill is fill_ragged else 50)


def test_one_sample_another_key_axes_and_unit(write):
    path = write(lambda archive: archive.create_dataset("xyz", data=POINTS[0][:, ::-1] / 10))
    file = CloudFile(path, options(key="xyz", axes="zyx", unit_mm=10.0))
    cloud = file.read(file.names[0])
    assert file.names == ["clouds"] and cloud.labels is None
    assert np.allclose(cloud.points, POINTS[0])
    # a cyclic order is no inverse of itself
    turned = CloudFile(path, options(key="xyz", axes="yzx", unit_mm=10.0)).read("clouds")
    assert np.allclose(turned.points, POINTS[0][:, ::-1][:, [2, 0, 1]])


def test_bad_files_and_samples_are_named(write, tmp_path):
    with pytest.raises(InputError, match=r"none\.h5: does not exist"):
        CloudFile(tmp_path / "none.h5", options())
    with pytest.raises(InputError, match=r"no dataset cloud \(it has labels, points\)"):
        CloudFile(write(fill_stack), options(key="cloud"))

    def broken(archive):
        fill_groups(archive)
        archive["b/points"][3, 1] = np.nan
        del archive["c/labels"]
        archive["c/labels"] = CLASSES[2][:7]
        del archive["d/points"]
        archive["d/points"] = np.zeros((5, 2))

    file = CloudFile(write(broken), options())
    with pytest.raises(InputError) as caught:
        CloudBounds.of([(name, file) for name in file.names], LabelTable())
    text = "\n".join(caught.value.problems)
    for words in (
        "h5:b: has points that are not finite",
        "h5:c: has 7 classes",
        "h5:d: has the shape (5, 2)",
    ):
        assert words in text
    assert "h5:a" not in text


def test_datasets_that_hold_no_numbers_are_refused(write):
    texts = np.array([["1", "2", "3"]], dtype=object)
    path = write(lambda archive: archive.create_dataset("a/points", data=texts))
    file = CloudFile(path, options())
    with pytest.raises(InputError, match="not numbers"):
        file.read("a")


def test_points_fall_into_their_voxels():
    cube = Cube(np.zeros(3), 2.0, 4)
    points = np.array([[-3.0, -3, -3], [-3.9, -2.1, -3], [3, 3, 3], [9, 0, 0]])
    counts = counts_on(cube, points, np.array([0, 0, 1, 1]), 2)
    assert counts.shape == (2, 4, 4, 4) and counts.sum() == 3
    assert counts[0, 0, 0, 0] == 2 and counts[1, 3, 3, 3] == 1


def test_methods():
    counts = np.zeros((1, 9, 9, 9), np.float32)
    counts[0, 4, 4, 4] = 5
    assert fields_of(counts, options(method="occupancy")).max() == 1
    assert fields_of(counts, options(method="density")).max() == 5
    smooth = fields_of(counts, options(method="gaussian", sigma_vox=1.0))
    assert smooth.sum() == pytest.approx(5, rel=1e-2)
    assert smooth[0, 4, 4, 4] / smooth[0, 4, 4, 5] == pytest.approx(np.exp(0.5), rel=1e-3)


def test_labels_of_the_densest_class_where_there_is_enough():
    fields = np.zeros((2, 3, 1, 1), np.float32)
    fields[:, 0, 0, 0], fields[:, 1, 0, 0], fields[:, 2, 0, 0] = (3, 1), (1, 2), (0.2, 0)
    assert label_map_of(fields, 4.0, [5, 7], 0.3).ravel().tolist() == [5, 7, 0]


def test_one_scale_for_the_whole_set_whatever_the_order(write):
    path = write(fill_stack)
    table, ldm = LabelTable(), LdmOptions(voxel_size=16)
    file = CloudFile(path, options(labels_key=""))
    clouds = [(name, file) for name in file.names]
    grids = []
    for ordered in (clouds, clouds[::-1]):
        bounds = CloudBounds.of(ordered, table)
        grids.append(cloud_grid(ordered, bounds, ldm, options(labels_key=""), table))
    assert grids[0] == grids[1] and grids[0].kind == "field"
    assert grids[0].table.names == ("inside",)
    assert typical(np.zeros((1, 2, 2, 2))) == 0.0
    extent = np.ptp(POINTS, axis=1).max()
    assert grids[0].edge_mm >= extent


def test_without_centring_the_bounds_are_those_of_all_clouds(write):
    moved = POINTS + np.arange(4)[:, None, None] * 100
    path = write(lambda archive: archive.create_dataset("points", data=moved))
    fixed = options(center=False)
    file = CloudFile(path, fixed)
    bounds = CloudBounds.of([(name, file) for name in file.names], LabelTable())
    assert (bounds.center(0, fixed) == bounds.center(3, fixed)).all()
    assert np.allclose(bounds.whole, [moved.min((0, 1)), moved.max((0, 1))])
    assert not np.allclose(bounds.center(0, options()), bounds.center(3, options()))


def test_damaged_bytes_and_groups_in_place_of_datasets_fail_one_sample(tmp_path):
    path = tmp_path / "clouds.h5"
    points = np.random.default_rng(0).normal(size=(400, 3))
    with h5py.File(path, "w") as archive:
        archive.create_group("points/a")
        archive.create_dataset("points/b", data=points, chunks=(400, 3), fletcher32=True)
    content = bytearray(path.read_bytes())
    content[content.index(points.tobytes()) + 1000] ^= 1
    path.write_bytes(content)
    file = CloudFile(path, options(key="points"))
    for name in ("a", "b"):
        with pytest.raises(InputError, match=rf"clouds\.h5:{name}: cannot be read .*export it"):
            file.read(name)


def test_a_group_beside_the_samples_is_named(tmp_path):
    """Of what it describes it has no points: it was said to have some of another shape."""
    with h5py.File(tmp_path / "clouds.h5", "w") as archive:
        archive["a/points"] = POINTS[0]
        archive["about/version"] = 1
    file = CloudFile(tmp_path / "clouds.h5", options())
    with pytest.raises(InputError, match=r"clouds\.h5:about: has no dataset points; add it, or"):
        file.read("about")


def sample(path, **keys):
    file = CloudFile(path, options(**keys))
    return file.read(file.only())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.int64])
def test_labels_that_are_whole_numbers_are_read_whatever_their_type(write, dtype):
    def fill(archive):
        archive["points"], archive["labels"] = POINTS[0], CLASSES[0].astype(dtype)

    cloud = sample(write(fill))
    assert cloud.labels.dtype == np.uint8 and (cloud.labels == CLASSES[0]).all()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (CLASSES[0] + 0.5, r"has 50 classes \(float64\)"),
        (np.where(CLASSES[0] == 1, np.nan, 1.0), r"has 50 classes \(float64\)"),
        (np.full(50, 300), "has classes outside of 0-255"),
        (np.full(50, 300.0), "has classes outside of 0-255"),
        (np.full(50, -1), "has classes outside of 0-255"),
        (np.full(50, 1e300), "has classes outside of 0-255"),
        (np.eye(4)[CLASSES[0]], r"classes of the shape \(50, 4\)"),
        (CLASSES[0].astype(complex), "complex128"),
        (np.array([b"left"] * 50), r"has 50 classes \(\|S4\)"),
        (CLASSES[0][:, None][:0], "has 0 classes"),
    ],
)
def test_labels_that_are_no_classes_are_refused(write, labels, words):
    def fill(archive):
        archive["points"], archive["labels"] = POINTS[0], labels

    with pytest.raises(InputError, match=rf"clouds\.h5:clouds: .*{words}.*; store an integer"):
        sample(write(fill))


def compound():
    return np.zeros(50, [("x", "f4"), ("y", "f4"), ("z", "f4")])


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (POINTS[0].T, r"shape \(3, 50\), not \(N, 3\); transpose it"),
        (POINTS[0][:0], r"shape \(0, 3\)"),
        (POINTS[0][:, :2], r"shape \(50, 2\)"),
        (np.hstack([POINTS[0], POINTS[0]]), r"shape \(50, 6\)"),
        (POINTS[0].ravel(), r"points has the shape \(150,\)"),
        (POINTS[0] > 0, "holds bool, not numbers"),
        (POINTS[0] * 1j, "holds complex128, not numbers"),
        (np.array([[b"1", b"2", b"3"]]), r"holds \|S1, not numbers"),
        (compound(), r"points has the shape \(50,\) "),
        (np.array(["1 2 3"] * 3, dtype=h5py.string_dtype()), r"points has the shape \(3,\)"),
        (h5py.Empty("f8"), "points has the shape None"),
        (np.full((9, 3), np.inf), r"not finite \(9 of 9\)"),
        (np.full((9, 3), 7.0), "has no extent: its 9 points are all equal"),
        (POINTS[0][:1], "has no extent: its 1 points"),
        (POINTS[0] * 1e20, "has coordinates up to"),
        (np.full((9, 3), 1e300) * np.arange(9)[:, None], "has coordinates up to"),
    ],
)
def test_points_that_are_no_cloud_are_refused_in_one_line(write, points, words):
    path = write(lambda archive: archive.create_dataset("points", data=points))
    for judge in (sample, cloud_of_case):
        with pytest.raises(InputError, match=rf"clouds\.h5.*{words}") as caught:
            judge(path)
        assert len(caught.value.problems) == 1 and "\n" not in caught.value.problems[0]


def far_cloud(distance, count=1, padding=0):
    points = POINTS[0].copy()
    points[:count] = (distance, 0, 0)
    return np.concatenate([points, np.repeat(points[-1:], padding, axis=0)])


@pytest.mark.parametrize("padding", [0, 200])
def test_points_far_from_the_others_are_noted_or_refused(write, padding):
    def judged(*how):
        return sample(write(lambda a: a.create_dataset("points", data=far_cloud(*how, padding))))

    assert judged(100.0, 1).note == ""
    note = judged(600.0, 2).note
    assert note.startswith(f"2 of {50 + padding} points lie up to 6") and " mm from the mid" in note
    with pytest.raises(InputError, match=r"1 of \d+ points lie up to 1e\+05 mm .*; remove them"):
        judged(1e5, 1)


def test_padding_is_not_odd(write):
    points = np.concatenate([POINTS[0], np.zeros((500, 3))])
    assert sample(write(lambda a: a.create_dataset("points", data=points))).note == ""


def test_an_array_that_its_file_cannot_hold_is_refused(write):
    """It would be filled with zeros: 24 TB of them."""
    path = write(lambda a: a.create_dataset("points", (10**12, 3), "f8", chunks=(10**5, 3)))
    with pytest.raises(InputError, match=r"more than its file can hold\); export it again"):
        sample(path)


def test_broken_links_and_links_to_other_files(write, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as archive:
        archive["a"] = POINTS[0]

    def fill(archive):
        archive["nowhere"] = h5py.SoftLink("/nothing")
        archive["points"] = h5py.ExternalLink("other.h5", "/a")

    path = write(fill)
    assert np.allclose(sample(path).points, POINTS[0])
    (tmp_path / "other.h5").unlink()
    for judge in (sample, cloud_of_case):
        with pytest.raises(InputError, match=r"clouds\.h5"):
            judge(path)


@pytest.mark.parametrize("key", ["xyz", "heart/points_mm", "clouds/a"])
def test_a_check_that_does_not_know_the_key_accepts_what_some_key_reads(write, key):
    def fill(archive):
        archive[key], archive["about"], archive["labels"] = POINTS[0], "text", np.eye(50)

    assert np.allclose(cloud_of_case(write(fill)).points, POINTS[0])


def test_a_check_that_does_not_know_the_key_refuses_what_no_key_reads(write):
    nan = np.full((5, 3), np.nan)
    with pytest.raises(InputError, match="not finite"):
        cloud_of_case(write(lambda archive: archive.create_dataset("xyz", data=nan)))
    with pytest.raises(InputError, match="holds no dataset; export it again"):
        cloud_of_case(write(lambda archive: archive.create_group("xyz")))


def test_a_dataset_of_the_default_name_is_the_one_that_counts(write):
    def fill(archive):
        archive["points"], archive["normals"] = np.full((50, 3), np.nan), POINTS[0]

    with pytest.raises(InputError, match="not finite"):
        cloud_of_case(write(fill))


def test_classes_that_leave_no_extent_are_refused(write):
    def fill(archive):
        archive["points"], archive["labels"] = POINTS[0], np.r_[1, np.full(49, 99)]

    file = CloudFile(write(fill), options())
    with pytest.raises(InputError, match="have no extent"):
        CloudBounds.of([("clouds", file)], LabelTable())
    with pytest.raises(InputError) as caught:
        CloudBounds.of([("clouds", file)], LabelTable(), ["b.h5: one"])
    assert caught.value.problems == ["b.h5: one"]


@pytest.mark.parametrize(("points", "classes"), [(">f4", ">u2"), ("<f4", "<i8"), (">f8", ">i4")])
def test_rows_of_variable_length_are_read_in_any_byte_order(write, points, classes):
    def fill(archive):
        rows = archive.create_dataset("points", (2,), dtype=h5py.vlen_dtype(np.dtype(points)))
        labels = archive.create_dataset("labels", (2,), dtype=h5py.vlen_dtype(np.dtype(classes)))
        for k in range(2):
            rows[k] = POINTS[k, : 20 + k].ravel().astype(points)
            labels[k] = CLASSES[k, : 20 + k].astype(classes)

    first, second = CloudFile(write(fill), options())
    np.testing.assert_allclose(first.points, POINTS[0, :20], rtol=1e-6)
    np.testing.assert_allclose(second.points, POINTS[1, :21], rtol=1e-6)
    assert second.labels.tolist() == CLASSES[1, :21].tolist()


def test_zeroed_rows_of_variable_length_are_refused_before_hdf5_looks_for_them(write):
    path = write(fill_ragged)
    content = bytearray(path.read_bytes())
    start = content.index(b"GCOL") + 16
    content[start : start + 1000] = bytes(1000)
    path.write_bytes(content)
    for judge in (lambda path: CloudFile(path, options()), cloud_of_case):
        with pytest.raises(InputError, match=r"clouds\.h5: .*rows of variable length are lost"):
            judge(path)


@pytest.mark.parametrize("chunks", [(1, 10**5, 3), (100, 1000, 3)])
def test_samples_that_the_file_cannot_hold_are_refused_at_once(write, chunks):
    """Ten million samples of nothing would be looked at one by one."""
    path = write(lambda a: a.create_dataset("points", (10**7, 10**5, 3), "f8", chunks=chunks))
    for judge in (lambda p: CloudFile(p, options()), cloud_of_case):
        with pytest.raises(InputError, match=r"more than its file can hold\); export it again"):
            judge(path)


@pytest.mark.parametrize(("factor", "words"), [(1e-3, "less than 5 mm"), (1e3, "more than 1000")])
def test_another_unit_is_noted(write, factor, words):
    path = write(lambda a: a.create_dataset("points", data=POINTS[0] * factor))
    assert words in sample(path).note and words in cloud_of_case(path).note
    file = CloudFile(path, options(unit_mm=1 / factor))
    assert file.read(file.only()).note == ""
