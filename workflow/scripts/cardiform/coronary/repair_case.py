"""Repair of one case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import outputs
from ..anatomy.repair import repair
from ..cohort.table import Case
from ..files import write_json
from ..geometry.field_of_view import cuts_of
from ..geometry.isotropic import distance_on_grid, isotropic_mask
from ..labels import LabelTable
from ..options.coronary import CoronaryRepairOptions
from ..volumes import LabelMap, load_label_map, save_like
from .field import repaired_field
from .own_label import OwnLabel
from .thin_structure import ThinStructure

ROOT = "aorta"  # what the structure springs from, where the label table has it
ROOT_MM = 1.0  # and a voxel: what is so near to it reaches it
# Room around the structure: bridges and cells stay within it.
MARGIN_MM = 6.0


def repair_case(
    case: Case, *, table: LabelTable, options: CoronaryRepairOptions, out: Path
) -> list[Path]:
    """Write ``out/<case>.npz`` (see ThinStructure), ``.nii.gz`` on the own grid and ``.json``.

    A case that lacks the structure has the JSON alone; what it had before is removed.
    """
    label_map = load_label_map(case.labels)
    paths = [out / f"{case.case_id}{ending}" for ending in (".npz", ".nii.gz", ".json")]
    report = paths[-1]
    thin = thin_structure(label_map, table, options)
    if thin is None:
        for stale in paths[:-1]:
            outputs.remove(stale)
        write_json(report, {"absent": options.structure})
        return [report]
    repaired, changed = repair(thin.label, thin.spacing, options, thin.supported, thin.roots)
    value = table[table.channel(options.structure)].value
    cut = cuts_of(label_map, table, case).get(value)
    thin = replace(thin, repaired=repaired, cut=cut)
    thin.save(paths[0])
    given = label_map.data == value
    mask = OwnLabel(given, label_map.affine, thin, options).mask(repaired_field(thin))
    save_like(paths[1], mask, case.labels)
    write_json(report, {"spacing_mm": thin.spacing, "grid": list(repaired.shape), **changed})
    return paths


def thin_structure(
    label_map: LabelMap, table: LabelTable, options: CoronaryRepairOptions
) -> ThinStructure | None:
    """The structure on its own isotropic grid, not repaired yet; None where the case has none."""
    value = table[table.channel(options.structure)].value
    found = isotropic_mask(label_map, value, options.spacing_mm, MARGIN_MM)
    if found is None:
        return None
    inside, affine = found
    others = [name for name in table.names if name != options.structure]

    def near(names, reach_mm: float) -> np.ndarray | None:
        """What lies within reach of some classes, on the grid or past its border."""
        values = [table[table.channel(name)].value for name in names if name in table.names]
        beyond = max(reach_mm - MARGIN_MM, 0.0)  # pieces lie within the structure's own box
        distance = distance_on_grid(label_map, values, inside.shape, affine, beyond)
        return None if distance is None else distance <= reach_mm

    supported = near(options.evidence or others, options.evidence_mm)
    supported = np.ones_like(inside) if supported is None else supported
    roots = near([ROOT] if ROOT in others else [], ROOT_MM + options.spacing_mm)
    name = options.structure
    return ThinStructure(inside, inside, supported, affine, roots=roots, structure=name)
