"""Point clouds and meshes of one's own as files: read right, or refused with the file's name."""

from __future__ import annotations

import shutil
from dataclasses import replace

import drawn_clouds
import drawn_meshes
import numpy as np
from drawn_clouds import clouds, write_samples
from drawn_label_maps import plain
from drawn_meshes import meshes
from hypothesis import given
from hypothesis import strategies as st
from inside import apart, run_inside
from profiles import examples
from stages import Cohort, answered, errors_of, tree

from cardiform.geometry.closed_band import Solid
from cardiform.geometry.frame import apply_affine
from cardiform.geometry.narrowband import NarrowBand
from cardiform.volumes import load_image, load_label_map

SIZE = 16
WITHIN = ("nan", "inf", "empty", "transposed", "four columns", "text", "one place")
VOLUME = 0.04  # of a mesh on voxels of a thirtieth of its width


@st.composite
def cohorts(draw):
    """Some sound clouds, all with classes or all without, and some faulty ones."""
    labelled = draw(st.booleans())
    good = draw(st.lists(clouds(labelled), min_size=1, max_size=3))
    faults = draw(st.lists(st.sampled_from(drawn_clouds.FAULTS), max_size=3))
    return good + [draw(clouds(labelled, fault)) for fault in faults]


@examples(10)
@given(cohorts())
def test_clouds_of_a_cohort_are_converted_or_skipped_at_the_check(tmp_path, drawn):
    folder = emptied(tmp_path / "x")
    plain().write(folder, "heart")
    rows = [f"c{k}\theart.nii.gz\t{cloud.write(folder / f'c{k}.h5').name}"
            for k, cloud in enumerate(drawn)]  # fmt: skip
    (folder / "table.tsv").write_text("\n".join(["case_id\tlabels\tpointcloud", *rows]) + "\n")
    before = tree(folder)
    cohort = Cohort(folder / "table.tsv", tmp_path / "out")
    shutil.rmtree(cohort.out, ignore_errors=True)
    assert cohort.check().returncode == 0
    status = [case.status for case in sorted(cohort.cases(), key=lambda c: int(c.case_id[1:]))]
    assert [found == "ok" for found in status] == [not cloud.fault for cloud in drawn], [
        (cloud.fault, found) for cloud, found in zip(drawn, status)
    ]
    result = cohort.stage("convert_pointclouds.py", "voxels", "--voxel-size", SIZE, meshes=False)
    assert result.returncode == 0, result.stderr
    good = {n: cloud for n, cloud in enumerate(drawn) if not cloud.fault}
    filled = [check_volume(c, cohort.out / "voxels" / f"c{n}.nii.gz") for n, c in good.items()]
    assert any(filled), "one scale for all may leave a thin cloud without voxels, not each"
    assert tree(folder) == before


def emptied(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def check_volume(cloud, path) -> bool:
    """Whether any voxel is filled; all points lie on the grid."""
    if cloud.labels is None:
        values, affine = load_image(path)
        assert values.min() >= 0 and values.max() <= 1
    else:
        found = load_label_map(path)
        values, affine = found.data, found.affine
        assert set(np.unique(values)) <= {0, *cloud.labels.tolist()}
    assert values.shape == (SIZE,) * 3
    index = np.rint(apply_affine(np.linalg.inv(affine), cloud.points.astype(cloud.kind)))
    assert ((index >= 0) & (index < SIZE)).all()
    return bool(values.any())


@st.composite
def samples(draw):
    """Clouds of one file; faulty ones where the layout can hold any."""
    layout = draw(st.sampled_from(drawn_clouds.LAYOUTS))
    labelled = draw(st.booleans())
    found = draw(st.lists(clouds(labelled), min_size=1, max_size=1 if layout == "single" else 4))
    if layout in ("groups", "datasets"):
        for fault in draw(st.lists(st.sampled_from(WITHIN), max_size=2)):
            found.append(draw(clouds(labelled, fault)))
    return [replace(cloud, layout=layout) for cloud in found]


@examples(8)
@given(samples())
def test_the_samples_of_one_file_are_all_converted_or_the_bad_ones_named(tmp_path, drawn):
    folder, out = emptied(tmp_path / "x"), emptied(tmp_path / "out")
    write_samples(folder / "clouds.h5", drawn)
    before = tree(folder)
    result = answered(run_inside(
        "convert_pointclouds.py", "--file", folder / "clouds.h5", "--out", out,
        "--manifest", out / "m.tsv", "--voxel-size", SIZE,
    ))  # fmt: skip
    bad = [f"s{number}" for number, cloud in enumerate(drawn) if cloud.fault]
    assert (result.returncode == 2) == bool(bad), result.stderr
    for name in bad:
        assert any(f"clouds.h5:{name}" in line for line in errors_of(result)), result.stderr
    assert len(errors_of(result)) == len(bad)
    assert tree(folder) == before


@st.composite
def mesh_files(draw):
    faults = draw(st.lists(st.sampled_from(drawn_meshes.FAULTS), max_size=2))
    good = draw(st.lists(meshes(), min_size=1, max_size=3))
    return [*good, *[draw(meshes(fault)) for fault in faults]]


@examples(12)
@given(mesh_files())
def test_meshes_are_voxelised_with_their_volume_or_refused(tmp_path, drawn):
    folder = emptied(tmp_path / "x")
    paths = [mesh.write(folder, f"m{k}") for k, mesh in enumerate(drawn)]
    before = tree(folder)
    out = emptied(tmp_path / "out")
    result = answered(apart(
        run_inside, "voxelize_meshes.py", "--meshes", *paths, "--out", out,
        "--manifest", out / "m.tsv", "--resolution", 32,
    ))  # fmt: skip
    lines = errors_of(result)
    for path, mesh in zip(paths, drawn):
        named = any(str(path) in line for line in lines)
        assert named == bool(mesh.fault), (mesh.change, mesh.fault, path.name, result.stderr)
        if not mesh.fault:
            band = NarrowBand.load(out / path.stem / "mesh.npz")
            solid = Solid.of_band(band.coords, band.sdf, band.resolution, band.frame)
            share = np.clip(0.5 - solid.values * band.band_voxels, 0, 1)  # of a voxel
            held = float(share.sum()) * band.voxel_mm**3
            assert abs(held / mesh.volume - 1) < VOLUME, (mesh.change, held / mesh.volume)
    assert tree(folder) == before
