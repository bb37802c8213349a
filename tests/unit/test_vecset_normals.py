"""Outward normals as further channels of what a VecSet encodes: drawn, turned, hidden, stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from points_files import write_points_file

from cardiform.artefact.model import save_model
from cardiform.errors import InputError
from cardiform.files import load_npz, save_npz
from cardiform.labels import STACOM_2025, LabelTable
from cardiform.options.vecset import VecsetOptions, VecsetReconstructOptions
from cardiform.vecset.data import Draw, PointDataset, load_case_points
from cardiform.vecset.model import VECSET, VecSet
from cardiform.vecset.parts import GUESS, PartDataset, Usual
from cardiform.vecset.reconstruct import Reconstructor
from cardiform.vecset.shared import shared_cases
from cardiform.vecset.train import vecset_job

TABLE = LabelTable(STACOM_2025[:3])
RADII = np.array([0.3, 0.6, 0.9])
DRAW = {
    "input_points": 300, "volume_queries": 40, "near_queries": 30, "surface_queries": 20,
    "balanced": 0.5, "latents": 16, "augment_rotation_deg": 90.0, "augment_scale": 0.2,
    "augment_shift": 0.05,
}  # fmt: skip


def write_shells(path: Path, count: int = 2000) -> Path:
    """Spheres about the origin, one class each: the normal of a point is its direction."""
    rng = np.random.default_rng(0)
    ways = rng.normal(size=(count, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    kinds = rng.integers(3, size=count)
    surface = (ways * RADII[kinds, None]).astype(np.float32)
    values = np.array(TABLE.values, np.uint8)
    sdf = (np.linalg.norm(surface, axis=1)[:, None] - RADII).astype(np.float16)
    return write_points_file(
        path,
        surface_points=surface, surface_normals=ways.astype(np.float32),
        surface_labels=values[kinds], near_points=surface, near_labels=values[kinds],
        near_sdf=sdf, volume_points=surface, volume_sdf=sdf, annotated=np.ones(3, bool),
        class_values=values,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return write_shells(tmp_path / "a.npz")


def opened(path: Path, normals: bool = True):
    return load_case_points(path, "a", TABLE, normals=normals)


def test_normals_turn_with_the_heart_and_are_not_scaled_or_shifted(path):
    with_normals = PointDataset([opened(path)], Draw(**DRAW))
    without = PointDataset([opened(path, normals=False)], Draw(**DRAW))
    for number in range(5):
        item, plain = with_normals[0, number], without[0, number]
        assert item["points"].shape == (300, 9) and item["points"].dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(item["points"][:, 6:], axis=1), 1, atol=1e-5)
        # points of a sphere, less their normals times its radius, are its middle
        outer = item["points"][:, 5] == 1
        places, normals = item["points"][outer, :3], item["points"][outer, 6:]
        least = [np.ptp(places - r * normals, axis=0).max() for r in np.linspace(0.7, 1.1, 81)]
        assert min(least) < 0.02 < 0.9 < np.ptp(places, axis=0).max()
        # nothing else changes with them
        np.testing.assert_array_equal(item["points"][:, :6], plain["points"])
        assert all(np.array_equal(item[k], plain[k]) for k in plain if k != "points")


def test_guesses_have_no_normal_and_normals_are_no_classes(path):
    case = opened(path)
    data = PartDataset([case], Draw(**DRAW), usual=Usual.of([case]), share=1.0, most=1)
    for number in range(8):
        item = data[0, number]
        guessed = (item["points"][:, 3:6] == GUESS).any(axis=1)
        assert guessed.any() and not item["points"][guessed, 6:].any()
        np.testing.assert_allclose(
            np.linalg.norm(item["points"][~guessed, 6:], axis=1), 1, atol=1e-5
        )
        seen = (item["points"][:, 3:6] == 1).any(axis=0)
        assert seen.sum() == 2
        np.testing.assert_array_equal(item["hidden"], ~seen)
    straight = np.tile(np.float32([0, 0, 1]), (2000, 1))  # components that are exactly 1
    save_npz(path, **(load_npz(path) | {"surface_normals": straight}))
    still = Draw(**DRAW | {"augment_rotation_deg": 0.0})
    data = PartDataset([opened(path)], still, usual=Usual.of([case]), share=1.0, most=1)
    assert all(data[0, number]["hidden"].sum() == 1 for number in range(8))


@pytest.mark.parametrize("compressed", [False, True])
def test_mapped_normals_are_those_of_the_file(path, tmp_path, compressed):
    if compressed:
        save_npz(path, compressed=True, **load_npz(path))
    plain = PointDataset([opened(path)], Draw(**DRAW))
    for _ in range(2):  # made, and found
        [case] = shared_cases([("a", path)], TABLE, tmp_path / "shared", normals=True)
        assert case.digest() == opened(path).digest() != opened(path, normals=False).digest()
        mapped = PointDataset([case], Draw(**DRAW))
        for number in range(3):
            np.testing.assert_array_equal(mapped[0, number]["points"], plain[0, number]["points"])


def test_damaged_normals_are_named_where_they_are_encoded(path, tmp_path):
    [case] = shared_cases([("a", path)], TABLE, tmp_path / "shared", normals=True)
    del case
    content = bytearray(path.read_bytes())
    content[content.index(b"surface_normals.npy") + 800] ^= 1
    path.write_bytes(content)
    [case] = shared_cases([("a", path)], TABLE, tmp_path / "shared", normals=True)
    with pytest.raises(InputError, match=r"a\.npz: is damaged \(bytes of surface_normals"):
        PointDataset([case], Draw(**DRAW))[0, 0]


def options(**changes) -> VecsetOptions:
    sizes = dict(DRAW)
    return VecsetOptions(**{"preset": "demo", "normals": True, "device": "cpu"} | sizes | changes)


def saved(folder: Path, how: VecsetOptions) -> Path:
    """model.pt of a network that was never trained."""
    save_model(
        folder / "model.pt",
        VECSET,
        VecSet.from_options(how, 3).state_dict(),
        options={"vecset": how},
        labels=TABLE,
        figures={},
        training_cases=[],
        source_sha256="",
    )
    return folder / "model.pt"


def test_a_model_knows_whether_it_reads_normals(path, tmp_path):
    how = VecsetReconstructOptions(device="cpu")
    stored = Reconstructor.load(saved(tmp_path, options()), how, torch.device("cpu"))
    drawn, _ = stored.inputs(path, "a")
    assert drawn.shape == (1, 300, 9)
    np.testing.assert_allclose(drawn[0, :, 6:].norm(dim=1), 1, atol=1e-5)
    one = stored.encode(path, "a")
    flipped = load_npz(path)
    save_npz(tmp_path / "b.npz", **(flipped | {"surface_normals": -flipped["surface_normals"]}))
    assert not torch.allclose(one, stored.encode(tmp_path / "b.npz", "a"))


def test_weights_without_normals_are_refused_as_a_start(path, tmp_path):
    start = saved(tmp_path, options(normals=False))
    for part in ("train", "val"):
        (tmp_path / f"{part}.csv").write_text(f"case_id,patient_id,path\na,a,{path}\n")
    files = (tmp_path / "train.csv", tmp_path / "val.csv", tmp_path / "shared")
    with pytest.raises(InputError, match=r"model\.pt: was trained without the normals"):
        vecset_job(options(pretrained=str(start)), TABLE, *files)


@pytest.mark.parametrize("rows", [slice(None), slice(3, 4)])
@pytest.mark.parametrize("value", [0.0, np.nan, 10.0])
def test_normals_that_are_not_unit_vectors_are_refused(path, rows, value):
    arrays = load_npz(path)
    arrays["surface_normals"][rows] = value
    save_npz(path, **arrays)
    with pytest.raises(InputError, match=r"a\.npz: \d+ of its 2000 surface_normals are not unit"):
        opened(path)
    opened(path, normals=False)
