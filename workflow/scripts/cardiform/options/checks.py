"""What options must hold to together, and with the label table: checked when a run is planned.

What concerns one option alone stands in its declaration (cardiform.options.field).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import InputError
from .coronary import refinement_faults
from .sections import base_of
from .training import TrainingOptions
from .vecset import ANCHORED, LATENTS, VecsetOptions
from .vqvae import VqvaeJointOptions, VqvaePretrainOptions

VQVAE_WIDTHS = 4  # at full, half, quarter and eighth resolution
BUILT_IN = "STACOM-2025"
STRUCTURE = "coronary_repair.structure"
TRACED = "coronary_trace.structure"
ASKED_FOR = ("vessels", "set_diffusion")  # trainings of targets that `all` need not have
STAGES = ("vqvae_pretrain", "vqvae_codebook", "vqvae_joint")


def check_sections(options: Mapping[str, Any]) -> None:
    """InputError with all that a job would refuse, or fail at: a line for each.

    options : section -> its options, of all sections.
    """
    checks = (_vecset, _volume, _vqvae, _coronary, _windows, _batches, _rehearsals)
    if problems := [line for check in checks for line in check(options)]:
        raise InputError(problems)


def slices_problem(vecset: VecsetOptions) -> str:
    """What speaks against a training on slices; empty: nothing."""
    if not vecset.slices_share or vecset.normals:
        return ""
    return (
        f"vecset.slices_share is {vecset.slices_share}: which points of a surface a contour has "
        "follows from their normals; set vecset.normals to true"
    )


def _vecset(options: Mapping[str, Any]) -> Iterator[str]:
    vecset, asked = options["vecset"], options["vecset_reconstruct"]
    trained = vecset.latents or LATENTS[vecset.preset]
    pairs = {
        "vecset": (vecset.input_points, trained),
        "vecset_reconstruct": (asked.input_points or vecset.input_points, asked.latents or trained),
    }
    for section, (points, latents) in pairs.items() if vecset.queries == "fps" else ():
        if points < latents and (section == "vecset" or asked.input_points or asked.latents):
            yield (
                f"{section}.input_points is {points}: too few for the {latents} latents of "
                f"vecset.preset {vecset.preset}; take {latents} or more"
            )
    if problem := slices_problem(vecset):
        yield problem
    if asked.latents and vecset.queries != "fps":
        yield (
            f"vecset_reconstruct.latents is {asked.latents}: with learned queries there are as "
            "many as in the training; set it to 0"
        )
    if vecset.preset in ANCHORED and vecset.queries != "fps":
        yield (
            f"vecset.queries is {vecset.queries}: preset {vecset.preset} keeps its latents at "
            "surface points; set it to fps, or take small, base or xl"
        )


def _volume(options: Mapping[str, Any]) -> Iterator[str]:
    radius = options["points"].volume_radius
    if 0 < radius < 1:
        yield (
            f"points.volume_radius is {radius}: reconstructions ask the network as far as 1; "
            "take 1 or more, or 0 for the whole cube"
        )
    for key in ("behind_cuts", "hidden_share", "slices_share"):
        if radius and getattr(options["vecset"], key):
            yield (
                f"points.volume_radius is {radius}: vecset.{key} asks in the whole cube; "
                "set it to 0"
            )


def _vqvae(options: Mapping[str, Any]) -> Iterator[str]:
    vqvae = options["vqvae"]
    for key in ("channels", "blocks"):
        if (number := len(getattr(vqvae, key))) != VQVAE_WIDTHS:
            yield f"vqvae.{key} has {number} entries; give {VQVAE_WIDTHS}"
    codes = options["vqvae_codebook"]
    by_kmeans = codes.quantizer == "codebook" and codes.method != "gradient"
    if by_kmeans and codes.codebook_size > codes.kmeans_latents:
        yield (
            f"vqvae_codebook.codebook_size is {codes.codebook_size}: more codes than k-means sees "
            f"latents (kmeans_latents: {codes.kmeans_latents}); lower it"
        )
    yield from _levels(options)
    if vqvae.backend == "spconv":
        for section in (*STAGES, "vqvae_reconstruct"):
            if options[section].device == "cpu":
                yield f"{section}.device is cpu: vqvae.backend spconv needs CUDA; set it to torch"


def _levels(options: Mapping[str, Any]) -> Iterator[str]:
    """Coarser resolutions of stage 0, and levels that stage 2 unfreezes."""
    coarser = options["vqvae_pretrain"].coarser
    if list(coarser) != sorted(set(coarser)):
        listed = ", ".join(map(str, coarser))
        yield f"vqvae_pretrain.coarser is {listed}; list each once, the coarsest first"
    pretrain = options["vqvae_pretrain"]
    if not coarser and (pretrain.coarser_steps or pretrain.coarser_voxels):
        yield (
            "vqvae_pretrain.coarser is empty, so coarser_steps and coarser_voxels do nothing; list "
            "coarser resolutions, or take both keys out"
        )
    if coarser and options["vqvae"].pretrained:
        yield (
            "vqvae_pretrain.coarser is set, but vqvae.pretrained takes the place of stage 0; "
            "empty one of them"
        )
    yield from unfreezing_faults(options["vqvae_joint"])


def unfreezing_faults(joint: VqvaeJointOptions) -> Iterator[str]:
    """A level of stage 2 that would never be trained, as a line."""
    last = (VQVAE_WIDTHS - 1) * joint.unfreeze_steps
    if last >= joint.steps:
        yield (
            f"vqvae_joint.unfreeze_steps is {joint.unfreeze_steps}: the finest level would be "
            f"trained after step {last:,} alone, of {joint.steps:,}; lower it"
        )


def check_coarser(options: VqvaePretrainOptions, section: str, resolution: int) -> None:
    """InputError where stage 0 would come to its own resolution, that of ``section``, from one
    that is as fine."""
    if fine := [r for r in options.coarser if r >= resolution]:
        listed = ", ".join(map(str, fine))
        raise InputError(
            f"config: vqvae_pretrain.coarser has {listed}, not below {section}.resolution "
            f"({resolution}); list coarser ones alone"
        )


def _coronary(options: Mapping[str, Any]) -> Iterator[str]:
    coronary = options["coronary"]
    widths, blocks = len(coronary.channels), len(coronary.blocks)
    if widths != blocks:
        yield f"coronary.blocks has {blocks} entries for {widths} channels; give one each"
    halvings = (coronary.patch - 1).bit_length()
    if widths - 1 > halvings:
        yield (
            f"coronary.channels has {widths} entries: a patch of {coronary.patch} voxels can be "
            f"halved {halvings} times; give fewer, or raise coronary.patch"
        )
    yield from refinement_faults(options["coronary_refine"])


def _windows(options: Mapping[str, Any]) -> Iterator[str]:
    windows = options["windows"]
    if 0 < windows.max_points < windows.min_points:
        yield (
            f"windows.max_points is {windows.max_points}, below windows.min_points "
            f"({windows.min_points}): no band would be left; raise it"
        )
    if any(text.partition("=")[0].strip() == "together" for text in windows.windows):
        yield "windows.windows names a window together, like the training on all of them; rename it"
    if windows.linked and not windows.together:
        yield (
            "windows.linked is true, but each window has a training of its own; set "
            "windows.together, or linked to false"
        )
    if windows.linked and options["vqvae"].deformations:
        yield (
            "vqvae.deformations are drawn for each window by itself, and linked windows would no "
            "longer lie on each other; set windows.linked to false, or deformations to []"
        )


def _batches(options: Mapping[str, Any]) -> Iterator[str]:
    """Whatever the number of GPUs, every micro-batch has the same size."""
    for section, training in options.items():
        heir = isinstance(training, TrainingOptions) and base_of(type(training))
        unused = section == "coronary_near" and options["coronary_refine"].preset != "near"
        if heir and not unused and section not in ASKED_FOR:
            yield from _batch(section, training)


def _rehearsals(options: Mapping[str, Any]) -> Iterator[str]:
    """They make no model.pt: a rule would delete the one that is there, run, and fail."""
    trainings = {name: o for name, o in options.items() if isinstance(o, TrainingOptions)}
    if asked := [name for name, values in trainings.items() if values.fast_dev_run]:
        key = "training" if set(asked) >= {n for n in trainings if n != "training"} else asked[0]
        yield (
            f"{key}.fast_dev_run is {trainings[asked[0]].fast_dev_run}: a rehearsal makes no "
            "model.pt, which the workflow waits for; set it to 0, and give --fast-dev-run to the "
            "script of the training"
        )


def check_batch(section: str, training: TrainingOptions) -> None:
    """InputError where the batches of a training of :data:`ASKED_FOR` cannot be dealt out."""
    if problems := list(_batch(section, training)):
        raise InputError(problems)


def _batch(section: str, training: TrainingOptions) -> Iterator[str]:
    if training.batch_size % training.accumulate:
        yield (
            f"{section}.batch_size is {training.batch_size}, no multiple of its accumulate "
            f"({training.accumulate}); change one of them"
        )


def check_classes(
    options: Mapping[str, Any], known: Sequence[str], table: str, built_in: Sequence[str]
) -> list[str]:
    """Whether the classes that options name are in the label table.

    options : section -> its options.    known : the classes of the table.
    table : its file, in messages; empty: the built-in table.
    built_in : the classes of that one. Defaults name them, and ``ldm.drop_classes`` may: a table
        of other structures needs no config of its own.

    Returns
    -------
    Notes on such classes that the table lacks.

    Raises
    ------
    InputError
        Every other class that the table lacks: key, class, what the table has.
    """
    table = table or BUILT_IN
    problems, notes = [], []
    repair = options.get("coronary_repair")
    nothing_refined = repair is not None and repair.structure not in known
    trace = options.get("coronary_trace")
    nothing_traced = trace is not None and trace.structure not in known
    silent: tuple[str, ...] = ("coronary_repair", "fusion") if nothing_refined else ()
    silent += ("coronary_trace",) if nothing_traced else ()  # its target says so
    silent += ("measures", "shape_statistics.leave_out")  # what a heart has is looked at
    for key, field, names in _class_names(options):
        absent = [name for name in names if name not in known]
        usual = names == _names(field.default) or key == "ldm.drop_classes"
        if unknown := [name for name in absent if not (usual and name in built_in)]:
            fact = f"names {', '.join(unknown)}; the label table {table} has {', '.join(known)}"
            problems.append(f"config: {key} {fact}")
        elif absent and key == STRUCTURE:
            notes.append(
                f"targets coronary and fused are left out: {key} is {absent[0]}, which {table} "
                f"does not have; set it to one of {', '.join(known)}"
            )
        elif absent and not key.startswith(silent):
            notes.append(f"{key}: without {', '.join(absent)}, which {table} does not have")
    problems += _dropped(options, known)
    if problems:
        raise InputError(problems)
    if "cohort" in options and options["cohort"].use_refined:
        check_structure(options, known, table)
    return notes


def _dropped(options: Mapping[str, Any], known: Sequence[str]) -> Iterator[str]:
    """Problems of classes that latent diffusion leaves out."""
    if "ldm" not in options:
        return
    drop = options["ldm"].drop_classes
    if set(known) <= set(drop):
        yield "config: ldm.drop_classes leaves no class; keep at least one"
    if "sampling" in options and (lost := set(_names(options["sampling"].volumes)) & set(drop)):
        yield (
            f"config: sampling.volumes names {', '.join(sorted(lost))}, which ldm.drop_classes "
            "leaves out; take it out of one of them"
        )


def check_structure(
    options: Mapping[str, Any], known: Sequence[str], table: str, key: str = STRUCTURE
) -> None:
    """InputError where the label table lacks the class that is refined, or traced: a default that
    is needed by nothing but its own targets."""
    section, _, field = key.partition(".")
    name = getattr(options[section], field)
    if name not in known:
        raise InputError(
            f"{key} is {name}, which the label table {table or BUILT_IN} does not have; "
            f"set it to one of {', '.join(known)}"
        )


def _class_names(options: Mapping[str, Any]) -> Iterator[tuple[str, dataclasses.Field, list[str]]]:
    """(section.key, field, classes) of every option that names classes."""
    for section, values in options.items():
        for field in dataclasses.fields(values):
            if field.metadata["classes"]:
                yield f"{section}.{field.name}", field, _names(getattr(values, field.name))


def _names(value: Any) -> list[str]:
    items = [value] if isinstance(value, str) else value
    return [item.partition("=")[0] for item in items]
