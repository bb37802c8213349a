"""The geometry stages of one case: label map -> meshes and frame -> points, sparse voxels."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import outputs
from ..cohort.table import Case
from ..errors import InputError, again, problem
from ..files import save_npz, write_json
from ..formats import Format
from ..labels import LabelTable
from ..options.geometry import MeshesOptions, PointsOptions, VoxelsOptions
from ..volumes import LabelMap, check_extent, check_in_view, labelled_box, load_label_map
from .field_of_view import Cut, cuts_of
from .fields import Kept, load_fields, save_fields
from .frame import Frame
from .lookup import Field
from .mesh_files import MESH_ENDING, read_mesh, write_mesh
from .narrowband import field_band
from .points_check import check_points
from .sampling import case_points
from .sdf import each_class_field
from .surface import Mesh, is_watertight, signed_volume, surface_area

log = logging.getLogger(__name__)

MAX_VOLUME_ERROR = 0.02  # of a mesh against its voxels, without a word
REMEDY = again("extract_meshes")  # of missing and damaged files of a case
FRAME = Format(
    "frame",
    {
        "format_version": "integer",
        "center_mm": "number (3)",
        "scale": "number",
        "affine": "number (4, 4)",
        "spacing_mm": "number (3)",
        "shape": "integer (3)",
        "smoothing_vox": "number",
        "classes": "object",
        "classes.*.value": "integer",
        "classes.*.voxels": "integer",
        "classes.*.volume_voxels_mm3": "number",
        "classes.*.volume_mesh_mm3": "number",
        "classes.*.area_mm2": "number",
        "classes.*.shift_mm": "number",
        "classes.*.touches_border": "bool",
        "classes.*.cut?": "bool",
        "classes.*.cut_planes?": "number (P, 3)",
        "classes.*.cap_area_mm2?": "number",
        "classes.*.watertight": "bool",
    },
    REMEDY,
    version=2,
    earlier=(1,),  # no fields lie beside it
)
WITH_FIELDS = 2
FIELDS_FILE = "fields.npz"


def mesh_case(case: Case, *, table: LabelTable, options: MeshesOptions, out: Path) -> list[Path]:
    """Write ``out/<case>/<class name>.ply`` of every class, ``frame.json`` and ``fields.npz``.

    Returns
    -------
    The written paths. Meshes of an earlier run whose class is gone are deleted.

    Raises
    ------
    InputError
        Unusable label map, a label that the table lacks, nothing labelled.
    """
    label_map = load_label_map(case.labels)
    folder = out / case.case_id
    names = dict(zip(table.values, table.names))
    cuts = cuts_of(label_map, table, case)
    vertices, classes, paths, kept = [], {}, [], []
    for value, field in _fields(case, label_map, table, options):
        kept.append((value, Kept.of(field)))
        mesh = field.surface()
        paths.append(folder / f"{names[value]}{MESH_ENDING}")
        write_mesh(paths[-1], mesh)
        vertices.append(mesh.vertices)
        watertight, volume = is_watertight(mesh), signed_volume(mesh)
        if not watertight:
            log.warning("%s: the %s mesh is not watertight", case.case_id, names[value])
        gain = volume / field.voxel_volume - 1
        if abs(gain) > MAX_VOLUME_ERROR:
            text = "%s: the %s mesh holds %.0f %% %s volume than its voxels"
            more = "more" if gain > 0 else "less"
            log.warning(text, case.case_id, names[value], 100 * abs(gain), more)
        classes[names[value]] = {
            "value": value,
            "voxels": field.voxels,
            "volume_voxels_mm3": field.voxel_volume,
            "volume_mesh_mm3": volume,
            "area_mm2": surface_area(mesh),
            "shift_mm": field.shift,
            "touches_border": field.touches_border,
            "watertight": watertight,
            **(_cut_record(cuts[value], mesh) if value in cuts else {}),
        }
    paths.append(folder / FIELDS_FILE)
    save_fields(paths[-1], kept)
    frame = Frame.around(np.concatenate(vertices))
    paths.append(folder / "frame.json")
    write_json(
        paths[-1],
        {
            "format_version": FRAME.version,
            "center_mm": frame.center.tolist(),
            "scale": frame.scale,
            "affine": label_map.affine.tolist(),
            "spacing_mm": label_map.spacing.tolist(),
            "shape": list(label_map.data.shape),
            "smoothing_vox": options.smoothing_vox,
            "classes": classes,
        },
    )
    for stale in set(folder.glob(f"*{MESH_ENDING}")) - set(paths):
        outputs.remove(stale)
    return paths


def sample_case(
    case: Case, *, table: LabelTable, options: PointsOptions, meshes: Path, out: Path
) -> list[Path]:
    """Write ``out/<case>.npz`` from the label map and the meshes of :func:`mesh_case`.

    Raises
    ------
    InputError
        Missing or unfit meshes, a label map of a few voxels, or points that fail
        :func:`cardiform.geometry.points_check.check_points`.
    """
    label_map, frame, made = _load_meshed(case, meshes)
    low, high = labelled_box(label_map)
    check_extent(case.labels, high - low + 1, label_map.spacing)
    if case.may_be_cut:
        check_in_view(case.labels, label_map)
    fields = dict(_made_fields(case, label_map, table, made))
    cuts = cuts_of(label_map, table, case)
    del label_map  # the fields hold all that is needed, and much memory
    names = dict(zip(table.values, table.names))
    folder = meshes / case.case_id
    surfaces = {v: read_mesh(folder / f"{names[v]}{MESH_ENDING}", REMEDY) for v in fields}
    rng = np.random.default_rng([options.seed, _seed_of(case.case_id)])
    with _naming(case):
        arrays, evidence = case_points(fields, surfaces, frame, table, options, rng, cuts)
    check_points(arrays, evidence, options.near_sigma, where=case.labels)
    path = out / f"{case.case_id}.npz"
    save_npz(path, compressed=False, **arrays)
    return [path]


def voxelize_case(
    case: Case, *, table: LabelTable, options: VoxelsOptions, meshes: Path, out: Path
) -> list[Path]:
    """Write ``out/<case>/<class name>.npz`` of every class, in the frame of the meshes.

    Raises
    ------
    InputError
        Missing or unfit meshes.
    """
    label_map, frame, made = _load_meshed(case, meshes)
    names = dict(zip(table.values, table.names))
    cuts = cuts_of(label_map, table, case)
    paths = []
    for value, field in _made_fields(case, label_map, table, made):
        paths.append(out / case.case_id / f"{names[value]}.npz")
        band = field_band(field, frame, options.resolution, options.band_voxels, cuts.get(value))
        band.save(paths[-1])
    for stale in set((out / case.case_id).glob("*.npz")) - set(paths):
        outputs.remove(stale)
    return paths


@dataclass(frozen=True)
class MeshedCase:
    """A label map with what :func:`mesh_case` made of it: all by class value.

    cuts : how the scan cuts the classes that it cuts.
    """

    label_map: LabelMap
    fields: dict[int, Field]
    surfaces: dict[int, Mesh]
    cuts: dict[int, Cut]


def load_meshed_case(case: Case, *, table: LabelTable, meshes: Path) -> MeshedCase:
    """A case and its files of :func:`mesh_case`.

    Raises
    ------
    InputError
        Missing or unfit meshes.
    """
    label_map, _, made = _load_meshed(case, meshes)
    fields = dict(_made_fields(case, label_map, table, made))
    names = dict(zip(table.values, table.names))
    folder = meshes / case.case_id
    surfaces = {v: read_mesh(folder / f"{names[v]}{MESH_ENDING}", REMEDY) for v in fields}
    return MeshedCase(label_map, fields, surfaces, cuts_of(label_map, table, case))


def mesh_files(case: Case, meshes: Path) -> list[Path]:
    """The files of :func:`mesh_case` that belong to ``case``, frame.json first."""
    frame, *fields = frame_files(case, meshes)
    return [frame, *sorted(frame.parent.glob(f"*{MESH_ENDING}")), *fields]


def frame_files(case: Case, meshes: Path) -> list[Path]:
    """Those that say where the surfaces of a case are: frame.json and the fields that it has."""
    path = meshes / case.case_id / "frame.json"
    try:
        has_fields = FRAME.load(path)["format_version"] >= WITH_FIELDS
    except InputError:
        has_fields = False  # what is wrong with it is said when it is read
    return [path, path.with_name(FIELDS_FILE)] if has_fields else [path]


@dataclass(frozen=True)
class _Made:
    """How :func:`mesh_case` made the fields of a case, and where they are; None: nowhere."""

    smoothing: MeshesOptions
    shifts: dict[int, float]
    fields: Path | None


def _load_meshed(case: Case, meshes: Path) -> tuple[LabelMap, Frame, _Made]:
    """The label map of a case and what its frame.json says; InputError where they differ."""
    path = meshes / case.case_id / "frame.json"
    record = FRAME.load(path)
    label_map = load_label_map(case.labels)
    shifts = {c["value"]: c["shift_mm"] for c in record["classes"].values()}
    if set(label_map.boxes) != set(shifts) or not np.array_equal(
        label_map.affine, record["affine"]
    ):
        raise InputError(problem(path, f"was not made from {case.labels}", REMEDY))
    frame = Frame(np.array(record["center_mm"]), record["scale"])
    fields = path.with_name(FIELDS_FILE) if record["format_version"] >= WITH_FIELDS else None
    smoothing = MeshesOptions(smoothing_vox=record["smoothing_vox"])
    return label_map, frame, _Made(smoothing, shifts, fields)


def _made_fields(
    case: Case, label_map: LabelMap, table: LabelTable, made: _Made
) -> Iterable[tuple[int, Field]]:
    """The fields that :func:`mesh_case` has stored; made again where an earlier version did not."""
    if made.fields is not None:
        return load_fields(made.fields, label_map.affine, made.shifts)
    return _fields(case, label_map, table, made.smoothing, made.shifts)


def _fields(case, label_map, table, options, shifts=None):
    with _naming(case):
        yield from each_class_field(label_map, table, options, shifts)


@contextlib.contextmanager
def _naming(case: Case):
    """Let what is wrong with a label map name its file."""
    try:
        yield
    except InputError as error:
        raise InputError([f"{case.labels}: {line}" for line in error.problems]) from None


def _cut_record(cut: Cut, mesh: Mesh) -> dict:
    """What frame.json says of a class that the scan cuts."""
    record: dict = {"cut": True}
    if cut.planes:
        cap = Mesh(mesh.vertices, mesh.faces[cut.is_cap(mesh)])
        record["cut_planes"] = [[p.axis, p.side, p.at] for p in cut.planes]
        record["cap_area_mm2"] = surface_area(cap)
    return record


def _seed_of(case_id: str) -> int:
    return int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:8], "little")
