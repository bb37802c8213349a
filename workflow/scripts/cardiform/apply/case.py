"""One new case through the trained networks."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .. import outputs
from ..cohort.table import Case
from ..completion.files import complete_file
from ..coronary.cases import refine_case, remove_refined
from ..coronary.figures import OWN_GRID
from ..coronary.own_label import OwnLabel
from ..coronary.refine import MeanRefiner
from ..coronary.thin_structure import ThinStructure
from ..files import read_json
from ..fusion.cases import MaskFolder, fuse_case
from ..geometry.field_of_view import seen_only, unplaced
from ..geometry.surface import Mesh
from ..held_out import truth_mesh, without_figures
from ..labels import LabelTable
from ..ldm.together import MeanCompleter
from ..metrics.overlap import overlap
from ..metrics.surface import surface_figures
from ..statistics.scoring import Scorer
from ..vecset.reconstruct import Made
from ..volumes import LabelMap, load_label_map
from ..vqvae.reconstruct import Decoded
from .confidence import add_confidence, least_sure
from .latents import write_latents
from .networks import Networks
from .picture import draw_case
from .ready import Ready
from .record import COHORT, LABEL, TRUTH, Origin, Record, figures_path

log = logging.getLogger(__name__)


def apply_case(
    case: Case,
    *,
    networks: Networks,
    tasks: Sequence[str],
    out: Path,
    notes: Mapping[str, Sequence[str]],
    use_refined: bool = False,
    models: str = "",
    keep: bool = False,
) -> list[Path]:
    """Write what the tasks make of one case, ``figures/<case>.json`` and ``pictures/<case>.png``.

    notes : case id -> remarks of the look at its files.
    use_refined : the fused label map takes the place of the given one where shapes are made.
    models : see :class:`cardiform.apply.record.Origin`.
    keep : figures of other tasks stay, where they are of the same models and files.

    Returns
    -------
    The written paths.

    Raises
    ------
    InputError
        The label map cannot be used.
    """
    record = Record(notes=list(notes.get(case.case_id, ())))
    with tempfile.TemporaryDirectory(prefix="cardiform-") as folder:
        how = networks.table, networks.stages
        work = _Work(Ready(case, *how, Path(folder)), networks, out, record)
        for name, do in STEPS.items():
            if name in tasks or (name == "refine" and "fuse" in tasks):
                began = time.monotonic()
                do(work)
                log.debug("%s: %s took %.1f s", case.case_id, name, time.monotonic() - began)
            if name == "fuse" and name in tasks and use_refined:
                fused = replace(case, labels=str(out / "fused" / f"{case.case_id}.nii.gz"))
                work.ready = Ready(fused, *how, Path(folder) / "fused")
        if said := least_sure(work.sure):
            log.info("%s: %s", case.case_id, said)
        picture = out / "pictures" / f"{case.case_id}.png"
        draw_case(picture, work.given, work.shown, said)
    path = figures_path(out, case.case_id)
    origin = Origin.of(case, models)
    done = record.add_earlier(path, tasks, origin) if keep else tasks
    record.write(path, case.case_id, done, networks.content.trained_on(case.case_id), origin)
    return [*work.written, picture, path]


class _Work:
    """A case and what has been made of it.

    given : as it was; ``ready`` is what shapes are made of, the fused label map say.
    shown : what made the surfaces, by class, or the label map for the picture; the first counts.
    sure : class name -> confidence in the label map.
    """

    def __init__(self, ready: Ready, networks: Networks, out: Path, record: Record):
        self.given = self.ready = ready
        self.networks, self.out, self.record = networks, out, record
        self.written: list[Path] = []
        self.shown: dict[str, Mapping[str, Mesh] | LabelMap] = {}
        self.sure: dict[str, float] = {}

    @property
    def case_id(self) -> str:
        return self.ready.case.case_id


def _refine(work: _Work) -> None:
    """The thin structure, with the refiner."""
    ready, networks, refiner = work.ready, work.networks, work.networks.refiner
    assert refiner is not None, "it is loaded for this task"
    structure = refiner.repair_options.structure
    folder = work.out / structure
    if ready.repaired is None:
        work.record.notes.append(f"nothing is refined: {structure} is missing")
        remove_refined(work.case_id, folder)
        return
    files = {work.case_id: ready.repaired}
    table = networks.table
    work.written += refine_case(ready.case, files=files, refiner=refiner, table=table, out=folder)
    found = read_json(folder / f"{work.case_id}.json")
    add = work.record.add
    add("refine", structure, LABEL, {structure: found["against_label"]})
    add("refine", structure, TRUTH, {structure: found[OWN_GRID]["against_truth"] or {}})
    if isinstance(refiner, MeanRefiner):
        thin = ThinStructure.load(ready.repaired)
        label = table[table.channel(structure)]
        given = ready.label_map.data == label.value
        own = OwnLabel(given, ready.label_map.affine, thin, refiner.repair_options)
        parts = (part.refined(work.case_id, thin) for part in refiner.parts)
        single = [own.mask(field) * label.value for field in parts]
        made = (load_label_map(folder / f"{work.case_id}.nii.gz").data > 0) * label.value
        work.record.agreement("refine", structure, single, made, LabelTable((label,)))


def _fuse(work: _Work) -> None:
    """The label map with its refined structure, held to the rules."""
    refiner = work.networks.refiner
    assert refiner is not None, "it is loaded for this task"
    structure, folder = refiner.repair_options.structure, work.out / "fused"
    work.written += fuse_case(
        work.ready.case,
        table=work.networks.table,
        options=work.ready.stages["fusion"],
        masks={structure: MaskFolder(work.out / structure)},
        out=folder,
    )
    for name, found in read_json(folder / f"{work.case_id}.json")["classes"].items():
        against = {
            LABEL: {"dice": found.get("dice_before_after")},
            TRUTH: {"dice": found.get("dice_fused"), "cl_dice": found.get("cl_dice_fused")},
        }
        for reference, row in against.items():
            work.record.add("fuse", "rules", reference, {name: row})
    work.shown["Fused"] = load_label_map(folder / f"{work.case_id}.nii.gz")


def _reconstruct(work: _Work) -> None:
    """Every class as the autoencoders make it from their latents and codes."""
    ready, networks = work.ready, work.networks
    grid, table = ready.label_map, networks.table
    # of several reconstructions the last one is pictured
    if networks.vqvae:
        bands = [network.reconstruct(ready.bands) for network in networks.vqvae]
        decoded = Decoded.of(bands, ready.bands, table, grid)
        work.written += decoded.write(work.out / "vqvae" / work.case_id, grid.affine)
        _measure(work, "vqvae", decoded)
    if networks.vecset:
        made = Made.of(networks.vecset, ready.points, work.case_id, grid)
        work.written += made.write(work.out / "vecset" / work.case_id, grid.affine)
        _measure(work, "vecset", made)
        folder = ready.folder / "cleaned"
        work.sure = add_confidence(work.record, ready, networks, made, folder)
    if networks.content.scorer:
        add_scores(work, networks.content.scorer)


def add_scores(work: _Work, scorer: Scorer) -> None:
    """Scores in the modes of variation of the cohort."""
    found = scorer.scores(work.ready.case, work.networks.table, work.ready.meshes)
    if found is None:
        names = ", ".join(scorer.model.classes)
        work.record.notes.append(f"no scores: none of {names} is whole")
        return
    scores, rest, beyond = found
    if beyond:
        work.record.notes.append(f"scores: {beyond}")
    figures = {f"mode_{k + 1}": float(value) for k, value in enumerate(scores)}
    row = {"heart": figures | {"residual_mm": rest}}
    work.record.add("reconstruct", "shape_statistics", COHORT, row)


def _measure(work: _Work, family: str, made: Made | Decoded) -> None:
    """Against the given label map, as the workflow measures held-out cases, and the truth."""
    ready, table, grid = work.ready, work.networks.table, work.ready.label_map
    figures: dict = overlap(grid.data, seen_only(made.labels, grid.affine, ready.cuts), table)
    for label in table:
        if label.name in made.meshes:
            true = truth_mesh(ready.meshes / work.case_id, label.name)
            cut = ready.cuts.get(label.value)
            figures[label.name] |= surface_figures(true, made.meshes[label.name], cut=cut)
    without_figures(figures, unplaced(ready.cuts, table))
    record = work.record
    record.add("reconstruct", family, LABEL, figures)
    record.against_truth("reconstruct", family, ready.truth, made.labels, grid.affine, table)
    record.agreement("reconstruct", family, made.single, made.labels, table)
    work.shown = {f"Reconstruction ({family})": made.meshes, **work.shown}


def _encode(work: _Work) -> None:
    """The latents of every family, in one file."""
    path = work.out / "latents" / f"{work.case_id}.npz"
    write_latents(path, work.ready, work.networks)
    work.written.append(path)


def _complete(work: _Work) -> None:
    """The classes that the label map lacks."""
    ready, completer = work.ready, work.networks.completer
    assert completer is not None, "it is loaded for this task"
    path, table = work.out / "completed" / f"{work.case_id}.nii.gz", completer.table
    present = {c.name for c in table if (ready.label_map.data == c.value).any()}
    absent = [name for name in table.names if name not in present]
    if not absent or not present:
        what = "has every class that the model makes" if present else "has none that it knows"
        work.record.notes.append(f"nothing is completed: the label map {what}")
        outputs.remove(path)
        return
    given = Path(ready.case.labels)
    complete_file(given, path, missing=(), completer=completer, case=ready.case)
    work.written.append(path)
    made = load_label_map(path)
    voxel_ml = float(made.spacing.prod()) / 1000
    new = LabelTable(tuple(c for c in table if c.name in absent))
    volumes = {c.name: {"volume_ml": float((made.data == c.value).sum()) * voxel_ml} for c in new}
    record = work.record
    record.add("complete", "ldm", LABEL, volumes)
    record.against_truth("complete", "ldm", ready.truth, made.data, made.affine, new)
    if isinstance(completer, MeanCompleter):
        record.agreement("complete", "ldm", completer.single, made.data, new)
    work.shown.setdefault("Completed", made)


# In the order in which they are done: what is fused may be reconstructed.
STEPS: dict[str, Callable[[_Work], None]] = {
    "refine": _refine,
    "fuse": _fuse,
    "reconstruct": _reconstruct,
    "encode": _encode,
    "complete": _complete,
}
