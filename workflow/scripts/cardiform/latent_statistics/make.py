"""The whole of latent_statistics: hearts in one pose, model, figures, files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError, problem, together
from ..files import sha256_file, write_json
from ..labels import LabelTable
from ..options.statistics import LatentStatisticsOptions
from ..options.vecset import VecsetReconstructOptions
from ..set_diffusion.encode import refuse_unplaced
from ..set_diffusion.slots import Slots, check_made_by, load_slots
from ..statistics.cohort import MOST_HEARTS, PARTS, remove_stale, share_text, write_scores
from ..statistics.drawing import write_modes
from ..statistics.hearts import check_enough, chosen_classes
from ..statistics.poses import Pose, aligned, best_pose
from ..statistics.quality import MOST_TRAINING, between, quality
from ..statistics.voxels import Judge
from ..training.distributed import choose_device
from ..vecset.reconstruct import Reconstructor
from .figures import Decoder, LatentModes, ceiling
from .hearts import PosedHeart, StoredHeart, Surface, SurfaceTruth, encoded, reasons, stored_hearts
from .model import LatentModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """What is read, and where to.

    latents : manifest of encode_set_latents.    slots : slots.npz beside it.
    vecset : model.pt of the VecSet that made them.
    """

    latents: Path
    slots: Path
    vecset: Path
    out: Path


@dataclass(frozen=True)
class Posed:
    """The hearts of the model, of each part of the split, stored and in the pose of the mean.

    poses : from the cube of each heart to the mean.
    """

    stored: Mapping[str, Sequence[StoredHeart]]
    poses: Mapping[str, Sequence[Pose]]
    hearts: Mapping[str, Sequence[PosedHeart]]

    @classmethod
    def of(
        cls,
        stored: Mapping[str, Sequence[StoredHeart]],
        slots: Slots,
        network: Reconstructor,
        with_scale: bool,
    ) -> Posed:
        """slots : of the classes of the model, and no others."""
        values = network.table.values
        surfaces = {p: [Surface.of(h, slots, values) for h in own] for p, own in stored.items()}
        train = np.stack([surface.places for surface in surfaces["train"]])
        mean, _ = aligned(train, with_scale=with_scale)
        poses: dict[str, list[Pose]] = {}
        hearts: dict[str, list[PosedHeart]] = {}
        for part, found in stored.items():
            poses[part], hearts[part] = [], []
            for heart, surface in zip(found, surfaces[part]):
                onto = best_pose(surface.places, mean, with_scale=with_scale)
                poses[part].append(surface.pose(heart, onto))
                hearts[part].append(encoded(heart, surface, onto, slots, network))
        return cls(stored, poses, hearts)

    def compared(self, rng: np.random.Generator) -> Posed:
        """The hearts by which the model is measured: of a large cohort some."""
        rows = {
            part: sorted(rng.permutation(len(found))[:MOST_HEARTS])
            for part, found in self.stored.items()
        }
        chosen = (
            {part: [found[part][k] for k in own] for part, own in rows.items()}
            for found in (self.stored, self.poses, self.hearts)
        )
        return Posed(*chosen)

    def truths(self, values: Sequence[int]) -> dict[str, list[SurfaceTruth]]:
        """values : of the classes that count."""
        return {
            part: [SurfaceTruth.of(h, p, values) for h, p in zip(found, self.poses[part])]
            for part, found in self.stored.items()
        }


def make_model(
    files: Files, rows: Mapping[str, Sequence[tuple[str, Path]]], options: LatentStatisticsOptions
) -> None:
    """Write model.npz, scores.csv, statistics.json and modes/.

    rows : train, val and test -> case ids and points files.

    Raises
    ------
    InputError
        The latents are another VecSet's, or this one has no places; bad files; too few whole hearts
        or all the same; a class that there is none of.
    """
    network, slots, columns = load_network(files, options)
    stored = stored_hearts(files.latents, rows, slots, columns, len(network.table))
    channels = chosen_classes(stored["train"], network.table, options)
    names = [network.table.names[c] for c in channels]
    table = LabelTable(tuple(network.table[c] for c in channels))
    left_out = reasons([h for found in stored.values() for h in found], channels, network.table)
    for case_id, reason in left_out.items():
        log.info("%s: no part of the model (%s)", case_id, reason)
    kept = np.isin(slots.channels, channels)
    whole = {
        part: [
            replace(heart, latents=heart.latents[kept])
            for heart in found
            if heart.case_id not in left_out
        ]
        for part, found in stored.items()
    }
    check_enough(whole["train"], len(stored["train"]), names)
    log.info("classes of the model: %s", ", ".join(names))
    own = Slots(slots.places[kept], slots.channels[kept])
    posed = Posed.of(whole, own, network, options.remove_size)
    model = LatentModel.fit(posed.hearts["train"], options)
    log.info("%d hearts encoded in one pose", sum(map(len, whole.values())))
    decoder = Decoder(network, table, options.mesh_mm)
    check_mean(decoder, model, files.vecset)
    modes, figures = compared(posed, model, decoder, options)
    record = {
        "classes": names,
        "hearts": {part: len(whole[part]) for part in PARTS},
        "left_out": left_out,
        "options": asdict(options),
        "slots": len(own.places),
        "explained": [float(share) for share in model.explained],
        **figures,
    }
    remove_stale(files.out, write_modes(files.out / "modes", modes, table))
    write_scores(
        files.out / "scores.csv",
        scores_of(posed, model),
        {heart.case_id: part for part, found in whole.items() for heart in found},
    )
    made_by = sha256_file(files.vecset)
    model.save(
        files.out / "model.npz", own.channels, network.table.names, options.remove_size, made_by
    )
    write_json(files.out / "statistics.json", record)
    for line in summary_lines(record):
        log.info("%s", line)


def load_network(
    files: Files, options: LatentStatisticsOptions
) -> tuple[Reconstructor, Slots, int]:
    """The VecSet, the slots, and how many columns the latents have.

    Raises
    ------
    InputError
        They do not belong together, or the VecSet's latents have no places.
    """
    how = VecsetReconstructOptions(
        input_points=options.input_points, query_batch=options.query_batch
    )
    device = choose_device(options.device)
    network, (slots, columns, made_by) = together(
        lambda: Reconstructor.load(files.vecset, how, device), lambda: load_slots(files.slots)
    )
    together(
        lambda: refuse_unplaced(network, files.vecset),
        lambda: check_made_by(files.slots, made_by, files.vecset),
    )
    return network, slots, len(columns)


def check_mean(decoder: Decoder, model: LatentModel, vecset: Path) -> None:
    """InputError where a VecSet makes no surface of some class of the mean heart."""
    parts = decoder.surfaces(*model.heart(np.zeros(0)))
    if lost := [decoder.table.names[k] for k, m in enumerate(parts.values()) if not len(m.faces)]:
        fact = f"makes no {', '.join(lost)} of the mean heart"
        remedy = "train it for longer, or name other classes in shape_statistics.classes"
        raise InputError(problem(vecset, fact, remedy))


def scores_of(posed: Posed, model: LatentModel) -> dict[str, tuple[np.ndarray, float]]:
    """Case id -> scores, and mm between its slots and those that the modes make."""
    result = {}
    for part, found in posed.stored.items():
        for stored, heart in zip(found, posed.hearts[part]):
            scores = model.scores(heart)
            result[stored.case_id] = scores, model.residual_mm(heart, scores)
    return result


def compared(
    posed: Posed, model: LatentModel, decoder: Decoder, options: LatentStatisticsOptions
) -> tuple[LatentModes, dict]:
    """The model as it is drawn, and its figures."""
    rng = np.random.default_rng(options.seed)
    some = posed.compared(rng)
    truths = some.truths(decoder.table.values)
    modes = LatentModes(model, decoder, some.hearts)
    pairs = [rng.choice(len(modes.train), 2, replace=False) for _ in range(options.pairs)]
    figures = {
        "compared_hearts": {part: len(found) for part, found in some.hearts.items()},
        "ceiling": ceiling(decoder, some.hearts, truths, MOST_TRAINING),
        "by_modes": {"latents": quality(modes, truths, options.samples, options.seed)},
        **interpolated(modes, some.hearts["train"], [(int(a), int(b)) for a, b in pairs]),
    }
    return modes, figures


def interpolated(
    modes: LatentModes, train: Sequence[PosedHeart], pairs: Sequence[tuple[int, int]]
) -> dict:
    """Which hearts between pairs of training hearts are valid, and which training hearts."""
    if not pairs:
        return {"interpolated": {"latents": {"hearts": 0, "valid": None}}, "valid_training": None}
    decoder, table = modes.decoder, modes.decoder.table
    # as of correspondences: judged by training hearts whose label maps were drawn the same way
    maps = [decoder.labels(decoder.surfaces(h.latents, h.frame)) for h in train]
    judge = Judge(maps, table.values, table)
    return {
        "interpolated": {"latents": between(modes, pairs, judge, table)},
        "valid_training": float(np.mean([judge.valid(found) for found in maps])),
    }


def summary_lines(record: Mapping) -> list[str]:
    """The record as lines of text."""
    last, limit = record["by_modes"]["latents"][-1], record["ceiling"]
    lines = [
        f"{record['hearts']['train']} training hearts, {len(record['explained'])} modes with "
        f"{sum(record['explained']):.1%} of the variance"
    ]
    if last["generalisation_mm"] is not None:
        lines.append(
            f"held-out hearts {last['generalisation_mm']:.2f} mm, without modes "
            f"{limit['held_out_mm']:.2f} mm"
        )
    valid = share_text(record["interpolated"]["latents"]["valid"])
    lines.append(f"specificity {last['specificity_mm']:.2f} mm, valid between two hearts {valid}")
    return lines
