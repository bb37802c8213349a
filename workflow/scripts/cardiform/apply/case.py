"""One new case through the trained networks."""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path

from ..cohort.table import Case
from ..geometry.cases import mesh_case, sample_case
from ..volumes import LabelMap, load_label_map
from ..vecset.reconstruct import Made
from .networks import Networks


class Ready:
    """A case made ready as the training data were: each part when it is first asked for.

    folder : of the files that are read back, as the stages of the workflow do.
    """

    def __init__(self, case: Case, networks: Networks, folder: Path):
        self.case, self.networks, self.folder = case, networks, folder
        self.table, self.stages = networks.table, networks.stages

    @cached_property
    def label_map(self) -> LabelMap:
        return load_label_map(self.case.labels)

    @cached_property
    def meshes(self) -> Path:
        """The folder of meshes and frame."""
        out = self.folder / "meshes"
        mesh_case(self.case, table=self.table, options=self.stages["meshes"], out=out)
        return out

    @cached_property
    def points(self) -> Path:
        """The points file."""
        (path,) = sample_case(
            self.case,
            table=self.table,
            options=self.stages["points"],
            meshes=self.meshes,
            out=self.folder / "points",
        )
        return path


def apply_case(case: Case, *, networks: Networks, tasks, out: Path) -> list[Path]:
    """Write the outputs of every task; the written paths."""
    with tempfile.TemporaryDirectory(prefix="cardiform-") as folder:
        ready = Ready(case, networks, Path(folder))
        written = []
        if "reconstruct" in tasks:
            made = Made.of(networks.vecset, ready.points, case.case_id, ready.label_map)
            written += made.write(out / "vecset" / case.case_id, ready.label_map.affine)
    return written
