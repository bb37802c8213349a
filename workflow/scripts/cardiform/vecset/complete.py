"""Missing classes of label maps, made by a VecSet that was trained on hearts with parts hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from ..cohort.table import Case
from ..completion.figures import MadeAgain
from ..errors import InputError, problem
from ..geometry.coarse_to_fine import sample_field
from ..geometry.field_of_view import cuts_of
from ..geometry.frame import Frame
from ..geometry.grids import lattice
from ..geometry.sampling import case_points
from ..geometry.sdf import each_class_field
from ..geometry.slices import Slices, continued
from ..labels import LabelTable, channel_of_value
from ..options.geometry import MeshesOptions, PointsOptions
from ..volumes import LabelMap, load_label_map
from .data import Draw, load_case_points, surface_of
from .inputs import Labelled
from .parts import FIRST, Usual, drawn_part, placed, without
from .reconstruct import (
    MEAN_SHAPE_CASES,
    MEAN_SHAPE_GRID,
    MajorityLabels,
    Reconstructor,
    load_frame,
    lookup,
)
from .slices import sliced

DISTANCES = 20_000  # points that say how thick the classes of a label map are
SLICED = 300_000  # surface points, of which those of the slices are taken


@dataclass(frozen=True)
class PartCompleter:
    """Makes missing classes of label maps.

    network : with ``usual``.
    meshes, points : how the training data were made.
    """

    network: Reconstructor
    usual: Usual
    meshes: MeshesOptions = field(default_factory=MeshesOptions)
    points: PointsOptions = field(default_factory=PointsOptions)

    @classmethod
    def of(
        cls,
        network: Reconstructor,
        path: Path,
        meshes: MeshesOptions,
        points: PointsOptions,
        shares: Sequence[str] = ("hidden_share",),
    ) -> PartCompleter:
        """InputError where the model ``path`` was not trained to complete.

        shares : the keys of its training that must be above 0 for what is asked of it.
        """
        lacking = [key for key in shares if not getattr(network.training, key)]
        if lacking or network.usual is None:
            key = lacking[0] if lacking else "hidden_share"
            fact = f"was not trained to complete{' slices' if key == 'slices_share' else ''}"
            raise InputError(problem(path, fact, f"train it with vecset.{key} above 0"))
        return cls(network, network.usual, meshes, points)

    @property
    def table(self) -> LabelTable:
        return self.network.table

    def complete(
        self, label_map: LabelMap, requests: Sequence[Sequence[str]], case: Case | None = None
    ) -> list[np.ndarray]:
        """For each request, a list of class names: the label map with those classes made again.

        They are made from all others and fill background alone.

        Raises
        ------
        InputError
            A label that the table lacks, or nothing that the rest could be made from.
        """
        surface, frame = self._surface(label_map, case=case)
        return [self.made(surface, frame, label_map, missing)[0] for missing in requests]

    def made(
        self, surface: Labelled, frame: Frame, label_map: LabelMap, missing: Sequence[str]
    ) -> tuple[np.ndarray, Frame]:
        """The label map with the classes ``missing``, and the frame that it was made in.

        surface, frame : of the heart; what is seen of ``missing`` is not looked at.
        """
        wanted = [self.table.channel(name) for name in missing]
        made, at = self._made(without(surface, wanted), frame, label_map, wanted)
        return filled(label_map, [self.table[channel].value for channel in wanted], made), at

    def between(
        self, label_map: LabelMap, slices: Slices, missing: Sequence[str] = ()
    ) -> np.ndarray:
        """(X, Y, Z) uint8: the classes that slices show, and ``missing``, made from these.

        label_map, slices : of :func:`cardiform.geometry.slices.annotated_slices`.

        Raises
        ------
        InputError
            The slices show next to nothing.
        """
        contours, their = continued(label_map, slices)
        surface, frame = self._surface(contours, SLICED)
        direction, offsets = their.planes(contours.affine, frame)
        rng = np.random.default_rng(self.network.options.seed)
        seen = sliced(surface, direction, offsets, rng)
        if seen is None:
            raise InputError("its slices show next to nothing; annotate more of them")
        known = np.unique(seen.channels)
        wanted = sorted({*known.tolist(), *(self.table.channel(name) for name in missing)})
        return self._made(seen, frame, label_map, wanted, known)[0]

    def _made(
        self,
        seen: Labelled,
        frame: Frame,
        grid: LabelMap,
        wanted: Sequence[int],
        known: Sequence[int] | np.ndarray = (),
    ) -> tuple[np.ndarray, Frame]:
        """The channels ``wanted`` on a grid, (X, Y, Z) uint8, made from what is seen, and the frame
        that they were made in.

        known : channels that are seen themselves; they are cut at 0.
        """
        network = self.network
        draw = Draw.from_options(network.training, network.model.starts, augment=False)
        draw = replace(draw, input_points=network.options.input_points or draw.input_points)
        rng = np.random.default_rng(network.options.seed)
        points, fps, move = drawn_part(seen, self.usual, draw, rng)
        given = (torch.from_numpy(a)[None].to(network.device) for a in (points, fps))
        at = placed(frame, move)
        with torch.no_grad():
            asked = network.field(network.model.encode(*given), corners=True)
        levels = np.where(np.isin(wanted, known), 0, self.usual.levels[wanted])
        sampled = sample_field(
            lambda unit: asked(unit)[:, wanted] - levels, grid.data.shape, grid.affine, at.to_unit
        )
        return sampled.labels(tuple(self.table[channel].value for channel in wanted)), at

    def _surface(
        self, label_map: LabelMap, number: int = 0, case: Case | None = None
    ) -> tuple[Labelled, Frame]:
        """The surfaces of a label map, drawn from as the training data were.

        number : of points (0: as many as in the training data).
        """
        fields = dict(each_class_field(label_map, self.table, self.meshes))
        surfaces = {value: found.surface() for value, found in fields.items()}
        frame = Frame.around(np.concatenate([mesh.vertices for mesh in surfaces.values()]))
        options = replace(
            self.points,
            surface_points=number or self.points.surface_points,
            near_points=DISTANCES,
            volume_points=DISTANCES,
        )
        cuts = cuts_of(label_map, self.table, case)
        rng = np.random.default_rng(options.seed)
        arrays, _ = case_points(fields, surfaces, frame, self.table, options, rng, cuts)
        channel = np.array(channel_of_value(self.table.values), np.uint8)
        return surface_of(arrays, channel, self.network.training.normals), frame


@dataclass(frozen=True)
class UsualShapes:
    """The mean shape, a baseline: where most training hearts have a class in the unit frame, each
    heart where its classes usually lie.

    masks : (C, G, G, G) bool over the cube [-1, 1]^3, of the mean volume each.
    """

    masks: np.ndarray

    @classmethod
    def of(cls, cases: Sequence[tuple[Case, Path]], table: LabelTable, usual: Usual) -> UsualShapes:
        """From training cases and their points files; a class is averaged over the cases that
        have it whole."""
        ticks = np.linspace(-1, 1, MEAN_SHAPE_GRID)
        grid = lattice(ticks, ticks, ticks)
        votes = np.zeros((len(table), len(grid)), np.uint16)
        hearts = np.zeros(len(table))
        for case, points in cases[:MEAN_SHAPE_CASES]:
            truth = load_label_map(case.labels)
            cuts = cuts_of(truth, table, case)
            surface = load_case_points(points, case.case_id, table, keep=1).surface
            move = usual.placing(surface.points[:FIRST], surface.channels[:FIRST])
            found = lookup(truth, placed(load_frame(points), move).to_world(grid))
            for channel, value in enumerate(table.values):
                if value not in cuts and (truth.data == value).any():
                    votes[channel] += found == value
                    hearts[channel] += 1
        masks = [_largest(row, count) for row, count in zip(votes, hearts)]
        return cls(np.stack(masks).reshape(-1, *(MEAN_SHAPE_GRID,) * 3))

    def complete(
        self, table: LabelTable, label_map: LabelMap, frame: Frame, name: str
    ) -> np.ndarray:
        """The label map with the class ``name`` of the mean shape."""
        channel = table.channel(name)
        value = table[channel].value
        shape = MajorityLabels(np.where(self.masks[channel], np.uint8(value), np.uint8(0)))
        return filled(label_map, (value,), shape.place(frame, label_map))


def filled(label_map: LabelMap, values: Sequence[int], made: np.ndarray) -> np.ndarray:
    """The label map with the classes ``values`` of ``made`` (X, Y, Z), in the place of
    background."""
    emptied = np.where(np.isin(label_map.data, values), np.uint8(0), label_map.data)
    return np.where(emptied == 0, made, emptied)


def evaluate_case(
    case: Case,
    *,
    points: Mapping[str, Path],
    completer: PartCompleter,
    mean_shape: UsualShapes,
    out: Path,
) -> list[Path]:
    """Drop every class of a case in turn, make it from the others, and measure.

    Writes the files of :meth:`cardiform.completion.figures.MadeAgain.write`.

    points : case id -> points file.
    """
    table, path = completer.table, points[case.case_id]
    again = MadeAgain(case, table)
    normals = completer.network.training.normals
    surface = load_case_points(path, case.case_id, table, keep=1, normals=normals).surface
    frame = load_frame(path)
    for [name] in again.requests:
        made, at = completer.made(surface, frame, again.label_map, [name])
        again.add(name, made, mean_shape.complete(table, again.label_map, at, name))
    return again.write(out)


def _largest(votes: np.ndarray, hearts: float) -> np.ndarray:
    """(G^3,) bool: the places with most votes, as many as a heart has on average."""
    number = round(votes.sum(dtype=np.int64) / max(hearts, 1))
    if not number:
        return np.zeros(len(votes), bool)
    level = np.partition(votes, -number)[-number]
    return votes >= max(level, 1)
