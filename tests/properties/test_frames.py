"""The unit frame, narrow bands and what is drawn from surfaces."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from strategies import rotations

from cardiform.geometry.frame import Frame
from cardiform.geometry.narrowband import NarrowBand, narrow_band
from cardiform.geometry.sampling import SurfaceSampler, area_quotas
from cardiform.geometry.surface import Mesh
from cardiform.metrics.surface import distance_to_mesh

clouds = arrays.arrays(
    np.float64, st.tuples(st.integers(2, 20), st.just(3)), elements=st.floats(-300, 300, width=32)
).filter(lambda points: np.ptp(points, axis=0).max() > 0.1)
shifts = st.tuples(*[st.floats(-1000, 1000)] * 3).map(np.array)
frames = st.builds(Frame, shifts, st.floats(1e-3, 10))


@given(clouds)
def test_the_anatomy_fills_the_ball_of_radius_095(points):
    frame = Frame.around(points)
    radius = np.linalg.norm(frame.to_unit(points), axis=1)
    assert radius.max() <= 0.95 + 1e-9
    np.testing.assert_allclose(radius.max(), 0.95)


@given(frames, clouds)
def test_to_the_unit_frame_and_back_is_the_same_place(frame, points):
    np.testing.assert_allclose(frame.to_world(frame.to_unit(points)), points, atol=1e-6)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    unit = np.linalg.norm(np.diff(frame.to_unit(points), axis=0), axis=1)
    np.testing.assert_allclose(unit, steps * frame.scale, rtol=1e-6, atol=1e-9)


@given(clouds, st.floats(0.1, 10), shifts)
def test_anatomy_that_is_moved_and_grown_has_the_same_unit_coordinates(points, factor, shift):
    here = Frame.around(points).to_unit(points)
    there = Frame.around(points * factor + shift).to_unit(points * factor + shift)
    np.testing.assert_allclose(there, here, atol=1e-6)


@settings(max_examples=15)
@given(
    st.sampled_from([16, 24, 32]),
    st.floats(1, 4),
    st.tuples(*[st.floats(-0.6, 0.6)] * 3),
    st.floats(0.05, 0.5),
    frames,
)
def test_a_band_holds_every_voxel_near_the_surface_with_its_sign_and_survives_its_file(
    tmp_path, resolution, band_voxels, center, radius, frame
):
    middle = np.array(center)

    def distance(points):
        return np.linalg.norm(points - middle, axis=1) - radius

    band = narrow_band(distance, middle - radius, middle + radius, frame, resolution, band_voxels)
    voxels = np.indices((resolution,) * 3).reshape(3, -1).T
    truth = distance((voxels + 0.5) * 2 / resolution - 1) / (band_voxels * 2 / resolution)
    near = np.abs(truth) < 1
    np.testing.assert_array_equal(band.coords, voxels[near])
    np.testing.assert_allclose(band.sdf.astype(float), truth[near], atol=1e-3)
    assert (np.sign(band.sdf) * np.sign(truth[near]) >= 0).all()
    # a block that stores nothing has the sign of its middle throughout
    block = band.coarse_sign.repeat(8, 0).repeat(8, 1).repeat(8, 2).reshape(-1)
    empty = np.ones_like(band.coarse_sign, bool)
    empty[tuple((band.coords // 8).T)] = False
    silent = empty.repeat(8, 0).repeat(8, 1).repeat(8, 2).reshape(-1)
    assert (np.where(truth < 0, -1, 1) == block)[silent].all()
    band.save(tmp_path / "band.npz")
    again = NarrowBand.load(tmp_path / "band.npz")
    for name in ("coords", "sdf", "coarse_sign"):
        one, other = getattr(again, name), getattr(band, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert (again.resolution, again.band_voxels) == (resolution, band_voxels)
    np.testing.assert_array_equal(again.frame.center, frame.center)
    assert again.frame.scale == frame.scale


@st.composite
def stacks(draw):
    """Triangles of any form, one above the other: which one a point is of shows in its height."""
    corners = draw(
        arrays.arrays(
            np.float64,
            st.tuples(st.integers(1, 6), st.just(3), st.just(2)),
            elements=st.floats(-20, 20, width=16),
        )
    )
    height = np.broadcast_to(10 * np.arange(len(corners))[:, None, None], (*corners.shape[:2], 1))
    vertices = np.concatenate([corners, height], axis=2).reshape(-1, 3)
    mesh = Mesh(vertices.astype(np.float32), np.arange(len(vertices)).reshape(-1, 3))
    assume(SurfaceSampler(mesh).area > 0.1)
    return mesh


@given(stacks(), rotations(), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_points_of_a_surface_lie_on_it_in_shares_of_its_area(mesh, rotation, number, seed):
    sampler = SurfaceSampler(mesh)
    points, normals = sampler.draw(number, np.random.default_rng(seed))
    assert points.shape == normals.shape == (number, 3)
    assert distance_to_mesh(points, mesh).max() < 1e-4
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    found = np.bincount(np.rint(points[:, 2] / 10).astype(int), minlength=len(mesh.faces))
    areas = np.diff(sampler.summed, prepend=0)
    np.testing.assert_allclose(found, number * areas / areas.sum(), atol=1.001)
    # a surface that is turned has the same points, turned
    moved = Mesh((mesh.vertices @ rotation.T).astype(np.float32), mesh.faces)
    other, _ = SurfaceSampler(moved).draw(number, np.random.default_rng(seed))
    assert distance_to_mesh(other, moved).max() < 1e-4


@given(
    st.lists(st.floats(0, 1e5, allow_subnormal=False), min_size=1, max_size=10).filter(any),
    st.integers(10, 5000),
    st.integers(0, 500),
)
def test_quotas_add_up_and_give_every_class_its_least(areas, total, least):
    counts = area_quotas(areas, total, least)
    assert counts.sum() == total
    # shares are rounded one after the other: a point less is rounding
    assert (counts >= min(least, total // len(areas)) - 1).all()
    larger = np.argsort(areas, kind="stable")
    assert (np.diff(counts[larger]) >= -1).all(), "a larger class has no fewer points"
