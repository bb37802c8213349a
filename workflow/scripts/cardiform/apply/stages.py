"""How the stages were run that made the training data: a new case is made ready in the same way.

Every stage leaves its options in the list of its folder (``.cardiform/about.txt``). A bundle has
none of these folders: there, ``stages.json`` beside the models says the same.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import shlex
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..artefact.layout import FOLDS
from ..artefact.model import Model
from ..cohort.checks import REPORT
from ..errors import InputError
from ..files import write_json
from ..formats import Format
from ..geometry.meshed import FRAME
from ..geometry.narrowband import SPARSE
from ..options.coronary import CoronaryRepairOptions
from ..options.field import checked
from ..options.sections import SECTIONS
from ..outputs import maker_of

log = logging.getLogger(__name__)

STAGES = Format(
    "stages",
    {
        "format_version": "integer",
        "stages": "object",
        "stages.*?": "object",
        "spacing_mm": "number (S)",
        "refined": "bool",
    },
    "export the models again",
)
FILE = "stages.json"
# Config section -> the script that has its options, and the folder whose list says how it was run;
# ``*`` is the resolution, and of several the newest counts.
FOLDERS = {
    "meshes": ("extract_meshes", "meshes"),
    "points": ("sample_sdf", "points"),
    "voxels": ("voxelize_labels", "sparse/*"),
    "vecset_reconstruct": ("reconstruct_vecset", "vecset/reconstructions"),
    "coronary_repair": ("repair_coronary", "{structure}/repaired"),
    "coronary_refine": ("refine_coronary", "{structure}/refined"),
    "fusion": ("fuse_labels", "fused"),
    "latents": ("encode_latents", "ldm/labels/latents"),
    "completion": ("complete_labels", "ldm/labels/completion"),
}
CASES = 20  # of which the spacing is looked up


@dataclass(frozen=True)
class Stages:
    """The options of the stages, and how fine the label maps of the training were.

    options : config section -> its options, of the sections of ``FOLDERS``.
    known : the sections whose options are recorded; the others are at their defaults.
    spacing_mm : of some training cases, the geometric mean of the voxel's edges; empty: unknown.
    refined : the training data were made of fused label maps (cohort.use_refined).
    """

    options: dict[str, Any]
    known: frozenset[str]
    spacing_mm: tuple[float, ...] = ()
    refined: bool = False

    def __getitem__(self, section: str) -> Any:
        return self.options[section]

    def write(self, folder: Path) -> Path:
        """``stages.json`` beside exported models; its path."""
        known = {n: dataclasses.asdict(self.options[n]) for n in sorted(self.known)}
        content = {"format_version": STAGES.version, "stages": known}
        path = folder / FILE
        more = {"spacing_mm": list(self.spacing_mm), "refined": self.refined}
        write_json(path, content | more)
        return path


def find_stages(folder: Path, structure: str = "coronary") -> Stages:
    """What a results folder, or the ``stages.json`` of a bundle, says of the stages.

    structure : the refined class, whose folder has its name.

    Raises
    ------
    InputError
        ``stages.json`` is damaged or of a newer version.
    """
    folder = Path(os.path.abspath(folder))  # of ``.`` the parent is ``.``
    shared = folder.parent.parent if folder.parent.name == FOLDS else folder  # by all folds
    file = next((top / FILE for top in (folder, shared) if (top / FILE).is_file()), None)
    if file is not None:
        content = STAGES.load(file)
        found, spacing = content["stages"], content["spacing_mm"]
        refined = content["refined"]
    else:
        found = dict(_recorded(shared, structure)) | dict(_recorded(folder, structure))
        spacing, refined = _training_data(shared)
    options: dict[str, Any] = {}
    for name in FOLDERS:
        cls = SECTIONS[name]
        names = {field.name for field in dataclasses.fields(cls)}
        given = {k: v for k, v in found.get(name, {}).items() if k in names}
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        options[name] = checked(cls, values, where=f"{folder}: {name}.")
    repair = dataclasses.replace(options["coronary_repair"], structure=structure)
    options["coronary_repair"] = repair
    return Stages(options, frozenset(found) & frozenset(FOLDERS), tuple(spacing), refined)


def repaired_as(stages: Stages, model: Model) -> Stages:
    """The stages, with the repair that a refinement was trained with where they do not know it."""
    section = "coronary_repair"
    if section in stages.known or section not in model.options:
        return stages
    repair = model.section(section, CoronaryRepairOptions)
    options = {**stages.options, section: repair}
    return dataclasses.replace(stages, options=options, known=stages.known | {section})


def _recorded(folder: Path, structure: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Section -> its options as they were given, and what the newest data say themselves."""
    for name, (script, pattern) in FOLDERS.items():
        places = _newest(folder, pattern.format(structure=structure))
        given = next((f for p in places if (f := _given(p, script, SECTIONS[name]))), {})
        if found := given | _of_data(folder, name):
            yield name, found


def _newest(folder: Path, pattern: str) -> list[Path]:
    found = [p for p in folder.glob(pattern) if p.is_dir()]
    return sorted(found, key=lambda p: p.stat().st_mtime, reverse=True)


def _given(folder: Path, script: str, options: type) -> dict[str, Any]:
    """The options of a section that a script was given when it wrote to a folder last."""
    words = shlex.split(maker_of(folder, script))
    kinds = typing.get_type_hints(options)
    found: dict[str, Any] = {}
    for flag, text in itertools.pairwise(words):
        name = flag.removeprefix("--").replace("-", "_")
        if flag.startswith("--") and name in kinds:
            try:
                found[name] = _value(text, kinds[name])
            except ValueError:
                log.warning("%s: %s %s is not understood: the default", folder, flag, text)
    return found


def _value(text: str, kind: Any) -> Any:
    """The text of a flag as the type of its option."""
    if element := typing.get_args(kind):
        return tuple(_value(part, element[0]) for part in text.split(",") if part)
    return text == "true" if kind is bool else kind(text)


def _of_data(folder: Path, section: str) -> dict[str, Any]:
    """What files of a stage say of it, whichever run wrote them last."""
    try:
        if section == "meshes":
            path = next(folder.glob("meshes/*/frame.json"), None)
            return {} if path is None else {"smoothing_vox": FRAME.load(path)["smoothing_vox"]}
        if section == "voxels":
            places = _newest(folder, FOLDERS["voxels"][1])
            path = next((f for p in places for f in p.glob("*/*.npz")), None)
            if path is not None:
                arrays = SPARSE.load(path)
                return {
                    "resolution": int(arrays["resolution"]),
                    "band_voxels": float(arrays["band_voxels"]),
                }
    except InputError as error:
        log.debug("%s", error)
    return {}


def _training_data(folder: Path) -> tuple[list[float], bool]:
    """Of some cases the geometric means of the voxel edges, mm; and whether what was meshed is
    not what was given, but a fused label map."""
    spacings, refined = [], False
    for path in itertools.islice(sorted(folder.glob("meshes/*/frame.json")), CASES):
        try:
            frame = FRAME.load(path)
            spacings.append(float(np.prod(frame["spacing_mm"]) ** (1 / 3)))
            given = REPORT.load(folder / "qc" / "cases" / f"{path.parent.name}.json")["classes"]
        except InputError as error:
            log.debug("%s", error)
            continue
        meshed = {name: found["voxels"] for name, found in frame["classes"].items()}
        refined |= meshed != {name: found["voxels"] for name, found in given.items()}
    return spacings, refined
