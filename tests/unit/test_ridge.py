"""Points of clouds without classes: on the surface, not on the walls of its density."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cardiform import outputs
from cardiform.ldm.clouds import counts_on, fields_of, typical, volume_of
from cardiform.ldm.hearts_on_grid import FIELD, INSIDE, Grid
from cardiform.ldm.ridge import on_ridge
from cardiform.ldm.samples import write_sample
from cardiform.options.ldm import PointcloudsOptions, SamplingOptions

EDGE_MM = 128.0


def shell(number, axes, center=(0.0, 0, 0), seed=0):
    """Points spread over an ellipsoid."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(6 * number, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    density = np.linalg.norm(points / axes, axis=1)
    kept = points[rng.random(len(points)) < density / density.max()][:number]
    return kept * axes + center


def off(points, axes, center=(0.0, 0, 0)):
    """mm to the surface of the ellipsoid, to first order."""
    points = points - np.asarray(center)
    level = np.linalg.norm(points / axes, axis=1)
    return np.abs((level - 1) * level / np.linalg.norm(points / np.square(axes), axis=1))


def sampled(folder, points, size, **keys):
    """The cloud that a perfect network would give back, and the edge of a voxel."""
    grid = Grid(FIELD, size, EDGE_MM, INSIDE)
    options = PointcloudsOptions(**keys)
    cube = grid.cube(np.zeros(3))
    fields = fields_of(counts_on(cube, points, np.zeros(len(points), int), 1), options)
    scale = typical(fields) if options.method != "occupancy" else 1.0
    volume = torch.from_numpy(volume_of(fields, scale)).clamp(1e-4, 1 - 1e-4)
    files = SamplingOptions(num_points=2000, save_format="pointcloud")
    write_sample(0, volume.logit()[None], grid, files, folder)
    rows = np.loadtxt(folder / "pointcloud" / "sample_0000.csv", delimiter=",", skiprows=1)
    assert len(rows) == 2000 and (rows[:, 3] == 1).all()
    return rows[:, :3], grid.spacing


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("number", [1000, 3000, 10_000])
def test_points_lie_within_half_a_voxel_of_the_surface(tmp_path, monkeypatch, size, number):
    axes = (50.0, 40.0, 30.0)
    found, voxel = sampled(tmp_path, shell(number, axes), size)
    assert (off(found, axes) < voxel / 2).mean() >= 0.9
    monkeypatch.setattr("cardiform.ldm.samples.on_ridge", lambda points, **_: points)
    walls, _ = sampled(tmp_path, shell(number, axes), size)
    assert (off(walls, axes) < voxel / 2).mean() < 0.4
    assert np.abs(found.mean(axis=0)).max() < 4, "on all sides"
    assert (found.max(axis=0) > 0.9 * np.array(axes)).all()


@pytest.mark.parametrize(
    "keys", [{"sigma_vox": 0.7}, {"sigma_vox": 1.5}, {"method": "occupancy"}, {"method": "density"}]
)
def test_so_they_do_whatever_the_value_of_a_voxel(tmp_path, keys):
    axes = (45.0, 45.0, 45.0)
    found, voxel = sampled(tmp_path, shell(4000, axes), 48, **keys)
    assert (off(found, axes) < voxel / 2).mean() >= 0.9


def test_two_surfaces_stay_two(tmp_path):
    one, other = (-30.0, 0, 0), (30.0, 0, 0)
    axes = (22.0, 25.0, 30.0)
    points = np.concatenate([shell(3000, axes, one), shell(3000, axes, other, seed=1)])
    found, voxel = sampled(tmp_path, points, 64)
    left = found[:, 0] < 0
    assert 0.4 < left.mean() < 0.6
    for part, center in ((found[left], one), (found[~left], other)):
        assert (off(part, axes, center) < voxel / 2).mean() >= 0.9


def test_the_wall_of_a_solid_is_its_surface():
    index = np.indices((40, 40, 40)) - 19.5
    solid = 1 / (1 + np.exp(2 * (np.linalg.norm(index, axis=0) - 12)))
    directions = shell(500, (1.0, 1.0, 1.0))
    walls = 12 * directions
    affine = np.eye(4)
    affine[:3, 3] = -19.5
    assert np.abs(np.linalg.norm(on_ridge(walls, solid, affine), axis=1) - 12).max() < 0.5
    nothing = np.zeros((40, 40, 40))
    assert np.allclose(on_ridge(walls, nothing, affine), walls)


def test_no_file_of_a_sample_is_of_another_heart_than_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr("cardiform.ldm.samples.case_picture", lambda *_, **__: None)
    outputs.register(outputs.Places([outputs.absolute(tmp_path)], maker="sample_diffusion"))
    try:
        grid, logits = Grid(FIELD, 16, EDGE_MM, INSIDE), torch.full((1, 16, 16, 16), -1.0)
        for kind, there in (("both", {"csv", "gz"}), ("nifti", {"gz"}), ("pointcloud", {"csv"})):
            write_sample(0, logits, grid, SamplingOptions(save_format=kind), tmp_path)
            folders = (tmp_path / "nifti", tmp_path / "pointcloud")
            assert {p.name.split(".")[-1] for f in folders for p in f.glob("sample*")} == there
    finally:
        outputs.register(outputs.Places())
