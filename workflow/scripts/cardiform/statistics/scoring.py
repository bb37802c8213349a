"""Scores of new hearts by a model that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..cohort.table import Case
from ..errors import InputError, again, problem
from ..files import sha256_file
from ..labels import LabelTable
from . import TEMPLATE
from .case import RegisteredHeart, registered
from .hearts import Outline, extent
from .model import ShapeModel
from .poses import onto_mean
from .template import Template


@dataclass(frozen=True)
class Scorer:
    """A model and the template of the same run."""

    model: ShapeModel
    template: Template

    @classmethod
    def load(
        cls, path: Path, table: LabelTable, remedy: str = "give the label table of the model"
    ) -> Scorer:
        """Of model.npz and the template beside it.

        remedy : where the label table is another one.

        Raises
        ------
        InputError
            They are missing, damaged, not of one run, or of another label table.
        """
        template = Template.load(path.with_name(TEMPLATE))
        model = ShapeModel.load(path, template.remove_size)
        check_one_run(path, model, template, table, remedy)
        return cls(model, template)

    def scores(
        self, case: Case, table: LabelTable, meshes: Path
    ) -> tuple[np.ndarray, float, str] | None:
        """As :func:`scores_of`, and a line where the heart reaches beyond the template's grid, else
        ""; None: the heart has no class of the model whole.

        Raises
        ------
        InputError
            The meshes are missing, damaged, or of another label table.
        """
        channels = [table.values.index(value) for value in self.template.values]
        outline = Outline.of(case, table, meshes)
        if not outline.whole[channels].any():
            return None
        heart = registered(case, self.template, table, meshes)
        text = beyond(outline, channels, self.template)
        return *scores_of(self.model, self.template, heart), text


def beyond(outline: Outline, channels: Sequence[int], template: Template) -> str:
    """How far a heart reaches beyond the grid of the template, as a line; "": it does not.

    channels : of the template's classes in the label table.
    """
    high = template.origin + (np.array(template.distances.shape[:3]) - 1) * template.spacing
    own = [k for k, channel in enumerate(channels) if outline.whole[channel]]
    low_end, high_end = extent([outline], [channels[k] for k in own], template.middles[own])
    reach = max((template.origin - low_end).max(), (high_end - high).max())
    if reach <= 0:
        return ""
    return f"reaches {np.ceil(reach):.0f} mm beyond the grid of the template, and is cut there"


def scores_of(
    model: ShapeModel, template: Template, heart: RegisteredHeart
) -> tuple[np.ndarray, float]:
    """(K,) scores of a heart in standard deviations, and the mm between its vertices and those that
    the modes make of the scores; of the classes that it has whole."""
    known = np.isin(template.vertex_labels, np.array(template.values)[heart.known])
    scores = model.scores(heart.vertices, known)
    rebuilt = model.shape(scores)[known]
    posed = onto_mean(heart.vertices[known], rebuilt, with_scale=model.remove_size)
    return scores, float(np.linalg.norm(posed - rebuilt, axis=1).mean())


def check_one_run(
    path: Path, model: ShapeModel, template: Template, table: LabelTable, remedy: str
) -> None:
    """InputError where model and template are not of one run, or of another label table."""
    beside = path.with_name(TEMPLATE)
    same = np.array_equal(model.faces, template.mesh.faces)
    same = same and len(model.classes) == len(template.values)
    if not same or model.template_sha256 != sha256_file(beside):
        fact = f"is not the model of {beside}"
        keep = f"keep both files of one run together, or {again('shape_statistics')}"
        raise InputError(problem(path, fact, keep))
    names = dict(zip(table.values, table.names))
    strange = [
        f"{value} {name} ({names.get(value, 'none')} there)"
        for value, name in zip(template.values, model.classes)
        if names.get(value) != name
    ]
    if strange:
        fact = f"has classes that the label table does not have: {', '.join(strange)}"
        raise InputError(problem(path, fact, remedy))
