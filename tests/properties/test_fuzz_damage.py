"""Files that changed on the disk or on their way: refused in a line, or still what they were."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
import torch
import trimesh
from damage import damaged
from drawn_clouds import DrawnCloud
from drawn_label_maps import Drawn, plain
from drawn_meshes import DrawnMesh
from hypothesis import given
from hypothesis import strategies as st
from inside import apart
from profiles import examples
from stages import FEW_POINTS, Cohort, errors_of, tree

from cardiform.artefact import torch_files
from cardiform.cohort.manifest import read_manifest
from cardiform.cohort.per_case import STATE
from cardiform.cohort.table import Case, read_case_table, read_checked_cases
from cardiform.errors import InputError
from cardiform.files import load_npz
from cardiform.geometry.mesh_files import read_mesh
from cardiform.geometry.mesh_to_band import voxelize_meshes
from cardiform.geometry.meshed import FRAME
from cardiform.geometry.narrowband import NarrowBand
from cardiform.labels import LabelTable, load_label_table
from cardiform.options.geometry import VoxelsOptions
from cardiform.options.ldm import PointcloudsOptions
from cardiform.volumes import load_image, load_label_map
from cardiform.volumes.clouds import CloudFile

MESHES = ("binary.ply", "binary.stl", "text.obj", "ascii.ply", "ascii.stl")
NATIVE = (".h5", ".stl", ".obj", ".ply")  # read by code that may crash
MADE = "meshes/c0/frame.json", "meshes/c0/myocardium.ply", "meshes/state/c0.json", "cases.tsv"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A cohort of one case with meshes, points and sparse voxels, and other files beside it."""
    folder = tmp_path_factory.mktemp("damage")
    plain().write(folder, "heart")
    drawn = plain()
    Drawn(drawn.data, drawn.affine, kind="i2", ending=".nii").write(folder, "heart")
    (folder / "table.tsv").write_text("case_id\tlabels\nc0\theart.nii.gz\n")
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 11, 30).astype(np.uint8)
    DrawnCloud(rng.normal(size=(30, 3)) * 30, labels).write(folder / "cloud.h5")
    ball = trimesh.creation.icosphere(subdivisions=1, radius=20)
    for form in MESHES:
        DrawnMesh(ball.vertices, ball.faces, ball.volume, form).write(folder, form.split(".")[0])
    with h5py.File(folder / "packed.h5", "w") as archive:
        rows = archive.create_dataset("points", (2,), dtype=h5py.vlen_dtype(np.dtype("f4")))
        rows[0], rows[1] = rng.random(30), rng.random(60)
        more = {"chunks": (1, 8), "compression": "gzip", "fletcher32": True}
        archive.create_dataset("labels", data=rng.integers(1, 9, (2, 20)), **more)
    table = "\n".join("\t".join(map(str, row.values())) for row in LabelTable().as_dicts())
    (folder / "labels.tsv").write_text("value\tname\ttitle\tcolor\tcomponents\tpriority\n" + table)
    torch_files.save(folder / "model.pt", {"weights": torch.arange(9.0), "name": "a"}, 1)
    made = Cohort(folder / "table.tsv", folder / "out")
    made.check()
    made.geometry(32)
    return made


def read_volume(path):
    found = load_label_map(path)
    assert found.data.dtype == np.uint8 and found.data.ndim == 3
    assert np.isfinite(found.affine).all()
    return found.data.tobytes(), found.affine.round(4).tobytes()


def read_any_image(path):
    values, affine = load_image(path)
    assert values.ndim == 3 and np.isfinite(affine).all()


def read_whole_mesh(path):
    mesh = read_mesh(path)
    assert np.isfinite(mesh.vertices).all()
    assert len(mesh.faces) and mesh.faces.min() >= 0 and mesh.faces.max() < len(mesh.vertices)


def read_arrays(path):
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in load_npz(path).items()}


def read_weights(path):
    content = torch_files.load(path, "train it again")
    return {k: v.tolist() if torch.is_tensor(v) else v for k, v in content.items()}


def read_cloud(path):
    for cloud in CloudFile(path, PointcloudsOptions()):
        assert cloud.points.shape[1] == 3 and np.isfinite(cloud.points).all()
        assert cloud.labels is None or len(cloud.labels) == len(cloud.points)


def read_own_mesh(path):
    """As voxelize_meshes does: damage must not reach native code."""
    case = Case(case_id="a", patient_id="a", meshes=str(path))
    made, *_ = voxelize_meshes(case, options=VoxelsOptions(resolution=16), out=path.parent / "out")
    band = NarrowBand.load(made)
    assert np.isfinite(band.sdf).all() and np.isfinite(band.frame.scale) and len(band.coords)


# file -> what reads it, whether checksums or formats tell of every change
READERS = {
    "heart.nii.gz": (read_volume, True),
    "heart.nii": (read_volume, False),
    "heart.nii as image": (read_any_image, False),
    "out/points/c0.npz": (read_arrays, True),
    "out/sparse/c0/myocardium.npz": (read_arrays, True),
    "out/meshes/c0/myocardium.ply": (read_whole_mesh, False),
    "out/meshes/c0/frame.json": (FRAME.load, False),
    "out/meshes/state/c0.json": (STATE.load, False),
    "out/meshes/manifest/all.tsv": (read_manifest, False),
    "out/cases.tsv": (read_checked_cases, False),
    "table.tsv": (read_case_table, False),
    "labels.tsv": (load_label_table, False),
    "model.pt": (read_weights, True),
    "cloud.h5": (read_cloud, False),
    "packed.h5": (read_cloud, False),
    **dict.fromkeys(MESHES, (read_own_mesh, False)),
}


@pytest.mark.parametrize("name", READERS)
@examples(15)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_as_it_was(cohort, tmp_path, name, data):
    read, exact = READERS[name]
    sound = cohort.table.parent / name.split(" ", maxsplit=1)[0]
    path = tmp_path / sound.name
    path.write_bytes(data.draw(damaged(sound.read_bytes())))
    found = apart(outcome, read, path) if sound.suffix in NATIVE else outcome(read, path)
    if isinstance(found, InputError):
        assert found.problems and not any("\n" in line for line in found.problems)
        assert all(sound.name in line for line in found.problems)
    elif exact:
        assert found == read(sound)


def outcome(read, path):
    """What is read, or the InputError."""
    try:
        return read(path)
    except InputError as error:
        return error


@examples(10)
@given(data=st.data(), name=st.sampled_from(MADE))
def test_a_stage_names_the_damaged_file_and_its_remedy_mends_it(cohort, data, name):
    sound, out = cohort.out.with_name("sound"), cohort.out
    if not sound.exists():
        shutil.copytree(out, sound)
    shutil.rmtree(out)
    shutil.copytree(sound, out)
    shutil.rmtree(out / "points")
    (out / name).write_bytes(data.draw(damaged((out / name).read_bytes())))
    result = cohort.stage("sample_sdf.py", "points", *FEW_POINTS)
    # a case table that is still one may name any other file
    named = "; " if name == "cases.tsv" else str(out)
    assert all(named in line for line in errors_of(result)), result.stderr
    cohort.check()
    again = cohort.geometry(32)
    assert [r.returncode for r in again] == [0, 0, 0], [r.stderr for r in again]
    kept = ("meshes/c0", "sparse/c0", "points/c0")
    found, wanted = ({k: v for k, v in tree(f).items() if k.startswith(kept)} for f in (out, sound))
    assert found == wanted
