"""The geometry stages of one case: label map -> meshes and frame -> points, sparse voxels."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np

from .. import outputs
from ..cohort.table import Case
from ..files import save_npz, sha256_file, write_json
from ..labels import LabelTable
from ..options.geometry import MeshesOptions, PointsOptions, VoxelsOptions
from ..volumes import check_extent, labelled_box, load_label_map, spacing_of
from .field_of_view import Cut, cuts_of
from .fields import Kept, save_fields
from .frame import Frame
from .mesh_files import MESH_ENDING, write_mesh
from .meshed import FIELDS_FILE, FRAME, MeshedCase, named_fields, naming
from .narrowband import field_band
from .points_check import check_points
from .sampling import case_points
from .surface import Mesh, is_watertight, signed_volume, surface_area

log = logging.getLogger(__name__)

MAX_VOLUME_ERROR = 0.02  # of a mesh against its voxels, without a word


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
    for value, field in named_fields(case, label_map, table, options):
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
    low, high = labelled_box(label_map)
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
            "labels_sha256": sha256_file(case.labels),
            "extent": (high - low + 1).tolist(),
            **({"cut_listed": case.cut} if case.cut else {}),
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
    meshed = MeshedCase.load(case, table, meshes)
    check_extent(case.labels, meshed.extent, spacing_of(meshed.affine))
    if case.may_be_cut:
        meshed.check_in_view()
    fields, surfaces = dict(meshed.fields()), meshed.surfaces()
    cuts, frame = meshed.cuts, meshed.frame
    del meshed  # the fields hold all that is needed, and a label map much memory
    rng = np.random.default_rng([options.seed, _seed_of(case.case_id)])
    with naming(case):
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
    meshed = MeshedCase.load(case, table, meshes)
    names = dict(zip(table.values, table.names))
    paths = []
    for value, field in meshed.fields():
        paths.append(out / case.case_id / f"{names[value]}.npz")
        width, cut = options.band_voxels, meshed.cuts.get(value)
        band = field_band(field, meshed.frame, options.resolution, width, cut)
        band.save(paths[-1])
    for stale in set((out / case.case_id).glob("*.npz")) - set(paths):
        outputs.remove(stale)
    return paths


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
