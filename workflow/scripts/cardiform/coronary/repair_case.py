"""Repair and fusion of one case."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..anatomy.repair import repair
from ..cohort.table import Case
from ..files import write_json
from ..geometry.field_of_view import cuts_of
from ..geometry.isotropic import distance_on_grid, isotropic_mask
from ..geometry.resample import resample_mask
from ..labels import LabelTable
from ..options.coronary import CoronaryRepairOptions
from ..volumes import LabelMap, load_label_map, save_like
from .thin_structure import ThinStructure

# Room around the structure: bridges and cells stay within it.
MARGIN_MM = 6.0


def repair_case(
    case: Case, *, table: LabelTable, options: CoronaryRepairOptions, out: Path
) -> list[Path]:
    """Write ``out/<case>.npz`` (see ThinStructure), ``.nii.gz`` on the own grid and ``.json``.

    A case that lacks the structure has the JSON alone.
    """
    label_map = load_label_map(case.labels)
    report = out / f"{case.case_id}.json"
    thin = thin_structure(label_map, table, options)
    if thin is None:
        write_json(report, {"absent": options.structure})
        return [report]
    repaired, changed = repair(thin.label, thin.spacing, options, thin.supported)
    value = table[table.channel(options.structure)].value
    cut = cuts_of(label_map, table, case).get(value)
    thin = ThinStructure(thin.label, repaired, thin.supported, thin.affine, cut)
    paths = [out / f"{case.case_id}.npz", out / f"{case.case_id}.nii.gz", report]
    thin.save(paths[0])
    mask = resample_mask(LabelMap(repaired, thin.affine), label_map.data.shape, label_map.affine)
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
    carriers = [table[table.channel(n)].value for n in options.evidence if n in table.names]
    distance = distance_on_grid(label_map, carriers, inside.shape, affine)
    supported = np.ones_like(inside) if distance is None else distance <= options.evidence_mm
    return ThinStructure(inside, inside, supported, affine)
