"""A new case made ready as the training data were: each part when it is first asked for."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from ..cohort.table import Case
from ..coronary.repair_case import repair_case
from ..fusion.truth import truth_of
from ..geometry.cases import mesh_case, sample_case, voxelize_case
from ..geometry.field_of_view import Cut, cuts_of
from ..geometry.frame import Frame
from ..geometry.meshed import FRAME
from ..geometry.narrowband import NarrowBand
from ..labels import LabelTable
from ..ldm.hearts_on_grid import Grid, box_case, cut_classes, resample_case
from ..volumes import LabelMap, load_label_map
from .stages import Stages


class Ready:
    """The files of one case, made and read back by the stages of the workflow themselves.

    stages : how the training data were made.    folder : where the files go; none is kept.
    """

    def __init__(self, case: Case, table: LabelTable, stages: Stages, folder: Path):
        self.case, self.table, self.stages, self.folder = case, table, stages, folder

    @cached_property
    def label_map(self) -> LabelMap:
        return load_label_map(self.case.labels)

    @cached_property
    def truth(self) -> np.ndarray | None:
        """(X, Y, Z) uint8, the truth on the grid of the label map; None: the table has none."""
        return truth_of(self.case, self.label_map, self.table)

    @cached_property
    def cuts(self) -> dict[int, Cut]:
        """Class value -> how the scan cuts it."""
        return dict(cuts_of(self.label_map, self.table, self.case))

    @cached_property
    def meshes(self) -> Path:
        """The folder of meshes and frame."""
        out = self.folder / "meshes"
        mesh_case(self.case, table=self.table, options=self.stages["meshes"], out=out)
        return out

    @cached_property
    def frame(self) -> Frame:
        """The unit frame."""
        record = FRAME.load(self.meshes / self.case.case_id / "frame.json")
        return Frame(np.array(record["center_mm"]), record["scale"])

    @cached_property
    def points(self) -> Path:
        """The points file."""
        options, out = self.stages["points"], self.folder / "points"
        sample_case(self.case, table=self.table, options=options, meshes=self.meshes, out=out)
        return out / f"{self.case.case_id}.npz"

    @cached_property
    def bands(self) -> dict[str, NarrowBand]:
        """Class name -> its sparse voxels, of the classes that have some."""
        options, out = self.stages["voxels"], self.folder / "voxels"
        paths = voxelize_case(
            self.case, table=self.table, options=options, meshes=self.meshes, out=out
        )
        # in the order of their paths, as the workflow reads them
        bands = {path.stem: NarrowBand.load(path) for path in sorted(paths)}
        return {name: band for name, band in bands.items() if len(band.coords)}

    @cached_property
    def repaired(self) -> Path | None:
        """The repaired thin structure; None where the case has none."""
        options, out = self.stages["coronary_repair"], self.folder / "repaired"
        paths = repair_case(self.case, table=self.table, options=options, out=out)
        return paths[0] if len(paths) > 1 else None

    def on_grid(self, grid: Grid, fold: int) -> tuple[Path, dict[str, np.ndarray]]:
        """The label map on a grid of latent diffusion, and what the scan cuts of it."""
        out = self.folder / f"ldm_{fold}"
        boxes = out / "boxes"
        box_case(self.case, table=grid.table, out=boxes)
        (path,) = resample_case(self.case, grid=grid, boxes=boxes, out=out)
        return path, cut_classes(out / "manifest.tsv", [self.case.case_id], grid)
