"""A small cohort of repaired structures: bent tubes with gaps."""

from __future__ import annotations

import numpy as np
from tubes import SPACING, broken_tube

from cardiform.anatomy.repair import repair
from cardiform.cohort.manifest import write_manifest
from cardiform.cohort.table import OK
from cardiform.coronary.data import find_repaired
from cardiform.coronary.thin_structure import ThinStructure
from cardiform.files import sha256_file
from cardiform.options.coronary import CoronaryOptions, CoronaryRepairOptions, NearOptions

REPAIR = CoronaryRepairOptions(spacing_mm=SPACING)
CARDIFORM = CoronaryOptions(
    channels=(8, 8), blocks=(1, 1), patch=24, points=256, batch_size=2, steps=2,
    truncation_mm=1.5, reach_mm=2.0, workers=0, device="cpu",
)  # fmt: skip
NEAR = NearOptions(
    latent_dim=8, points=512, batch_size=2, accumulate=1, steps=6, workers=0, device="cpu"
)


def structure(seed=0, gap=3.0) -> ThinStructure:
    """A tube with a gap and specks, and its repair; its place differs by seed."""
    _, label = broken_tube(gap=gap, radius=1.1 + 0.1 * seed)
    rng = np.random.default_rng(seed)
    label[tuple(rng.integers(0, label.shape, (6, 3)).T)] = True
    affine = np.diag([SPACING] * 3 + [1.0])
    affine[:3, 3] = (seed, -20.0, 5.0)
    repaired, _ = repair(label, SPACING, REPAIR)
    return ThinStructure(label, repaired, np.ones_like(label), affine)


def cohort_of(folder, number=3):
    """Files of some structures and their manifest."""
    rows = []
    for seed in range(number):
        path = folder / f"c{seed}.npz"
        structure(seed).save(path)
        rows.append([f"c{seed}", str(path), path.stat().st_size, sha256_file(path), OK])
    write_manifest(folder / "manifest.tsv", rows)
    return find_repaired([folder / "manifest.tsv"], [f"c{i}" for i in range(number)])
