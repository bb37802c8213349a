"""One real file of every stored format, written by the library at its smallest size."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bands import write_cohort
from toy_training import QUICK, Lines, ToyTask

from cardiform import volumes
from cardiform.apply import latents as apply_latents
from cardiform.apply import record as apply_record
from cardiform.apply import stages as apply_stages
from cardiform.apply.models import Models
from cardiform.apply.networks import Content, Networks
from cardiform.apply.ready import Ready
from cardiform.artefact import bundle, model
from cardiform.artefact.model import Kind
from cardiform.cohort import checks, manifest, per_case, splits, table
from cardiform.coronary import thin_structure, trace_case, tree_files
from cardiform.coronary.repair_case import repair_case
from cardiform.files import load_npz, read_json, write_json
from cardiform.formats import Format
from cardiform.fusion import summary
from cardiform.fusion.cases import fuse_case
from cardiform.geometry import cases, fields, meshed, narrowband, sampling
from cardiform.labels import LabelTable
from cardiform.latent_statistics import hearts as latent_hearts
from cardiform.latent_statistics import model as latent_model
from cardiform.ldm import data, diffusion_model, encode, hearts_on_grid, samples
from cardiform.ldm.autoencoder_model import ShapeAutoencoder
from cardiform.ldm.coder import ShapeCoder
from cardiform.ldm.vessels import draw_case
from cardiform.ldm.vessels import field as vessel_field
from cardiform.ldm.vessels import tree as vessel_tree
from cardiform.ldm.vessels.growth import Limits
from cardiform.measures import norms
from cardiform.measures import table as measure_table
from cardiform.measures.case import measure_case
from cardiform.metrics import record
from cardiform.metrics.record import write_held_out_figures
from cardiform.options.cohort import SplitOptions
from cardiform.options.coronary import CoronaryRepairOptions, CoronaryTraceOptions
from cardiform.options.fusion import FusionOptions
from cardiform.options.geometry import MeshesOptions, PointsOptions, VoxelsOptions
from cardiform.options.ldm import AutoencoderOptions, LatentsOptions, LdmOptions, SamplingOptions
from cardiform.options.measures import MeasuresOptions
from cardiform.options.statistics import LatentStatisticsOptions
from cardiform.options.training import TrainingOptions
from cardiform.options.vecset import VecsetOptions, VecsetReconstructOptions
from cardiform.options.vqvae import VqvaeCodebookOptions, VqvaeOptions
from cardiform.search import rungs
from cardiform.set_diffusion import encode as set_encode
from cardiform.set_diffusion import latents as set_latents
from cardiform.set_diffusion import samples as set_samples
from cardiform.set_diffusion import slots as set_slots
from cardiform.statistics import case as shape_case
from cardiform.statistics import hearts as shape_hearts
from cardiform.statistics import model as shape_model
from cardiform.statistics import template as shape_template
from cardiform.training import checkpoint, job
from cardiform.vecset import confidence as vecset_confidence
from cardiform.vecset import reconstruct as vecset_reconstruct
from cardiform.vecset.model import VecSet
from cardiform.vqvae import reconstruct as vqvae_reconstruct
from cardiform.vqvae.data import find_instances
from cardiform.vqvae.model import SparseVQVAE

NAME = "a"
TABLE = LabelTable(tuple(c for c in LabelTable() if c.value in (1, 3, 9)))
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Stored:
    """A format, its heading in docs/formats.md, and where the example lies."""

    form: Format
    heading: str
    path: str


STORED = (
    Stored(sampling.POINTS, "Points", "points/a.npz"),
    Stored(narrowband.SPARSE, "Sparse voxels", "sparse/a/myocardium.npz"),
    Stored(meshed.FRAME, "Frame", "meshes/a/frame.json"),
    Stored(fields.FIELDS, "Fields", "meshes/a/fields.npz"),
    Stored(thin_structure.THIN, "Repaired structure", "repaired/a.npz"),
    Stored(checks.REPORT, "Check report", "qc/cases/a.json"),
    Stored(summary.REPORT, "Fusion report", "fused/a.json"),
    Stored(trace_case.SUMMARY, "Tree summary", "trees/a/summary.json"),
    Stored(hearts_on_grid.BOX, "Box", "boxes/a.json"),
    Stored(hearts_on_grid.GRID, "Grid", "grid.json"),
    Stored(data.LATENTS, "Latents", "latents/a.npz"),
    Stored(diffusion_model.STATISTICS, "Latent statistics", "statistics.json"),
    Stored(samples.SAMPLE, "Sample latents", "samples/sample_0000.npz"),
    Stored(vessel_tree.TREE, "Vessel tree", "vessels/a.npz"),
    Stored(vessel_field.VOTES, "Vessel votes", "vessels/votes/a.npz"),
    Stored(draw_case.DRAWN, "Drawn vessels", "vessels/figures/a.json"),
    Stored(shape_model.MODEL, "Shape model", "statistics/model.npz"),
    Stored(shape_template.TEMPLATE, "Template", "statistics/template.npz"),
    Stored(shape_case.REGISTERED, "Registered heart", "statistics/a.npz"),
    Stored(latent_model.LATENT_MODEL, "Latent model", "latent_statistics/model.npz"),
    Stored(set_slots.SLOTS, "Slots", "sets/slots.npz"),
    Stored(set_latents.SET_LATENTS, "Set latents", "sets/a.npz"),
    Stored(set_samples.SET_SAMPLE, "Set sample", "sets/samples/sample_0000.npz"),
    Stored(vecset_reconstruct.LATENTS, "VecSet latents", "vecset/a/latents.npz"),
    Stored(vecset_confidence.CONFIDENCE, "Confidence", "vecset/confidence.json"),
    Stored(vqvae_reconstruct.CODES, "Codes", "vqvae/x/codes.npz"),
    Stored(apply_stages.STAGES, "Stages", "applied/stages.json"),
    Stored(apply_record.FIGURES, "Applied figures", "applied/figures/a.json"),
    Stored(apply_latents.LATENTS, "Applied latents", "applied/latents/a.npz"),
    Stored(rungs.TRIALS, "Trials", "search/trials.json"),
    Stored(per_case.STATE, "State of a case", "qc/state/a.json"),
    Stored(checkpoint.LAST, "last.pt", "training/checkpoints/last.pt"),
    Stored(checkpoint.BEST, "best.pt", "training/checkpoints/best.pt"),
    Stored(model.MODEL, "model.pt", "training/model.pt"),
    Stored(bundle.BUNDLE, "Bundle", "bundle/bundle.json"),
    Stored(record.TRAINING_RECORD, "Training figures", "training/metrics.json"),
    Stored(record.HELD_OUT_RECORD, "Held-out figures", "training/held_out.json"),
)
TABLES = (
    Stored(manifest.MANIFEST, "Manifest", "qc/manifest.tsv"),
    Stored(table.CASES, "Checked case table", "cases.tsv"),
    Stored(splits.SPLIT, "Split", "split/train.csv"),
    Stored(tree_files.BRANCHES, "Branch table", "trees/a/branches.csv"),
    Stored(measure_table.MEASURES, "Measure table", "measures/a/measures.csv"),
    Stored(norms.NORMS, "Norms", "measures/norms.csv"),
)


def read(path: Path) -> dict:
    """The content of an npz, JSON or checkpoint, unchecked."""
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True)
    return read_json(path) if path.suffix == ".json" else load_npz(path)


def write_all(folder: Path) -> None:
    """The files of STORED and TABLES below ``folder``."""
    case = _case(folder)
    common = {"table": TABLE}
    cases.mesh_case(case, **common, options=MeshesOptions(), out=folder / "meshes")
    meshes = {**common, "meshes": folder / "meshes"}
    options = PointsOptions(
        surface_points=900, min_class_points=20, near_points=800, volume_points=400
    )
    cases.sample_case(case, **meshes, options=options, out=folder / "points")
    voxels = VoxelsOptions(resolution=32)
    cases.voxelize_case(case, **meshes, options=voxels, out=folder / "sparse")
    repair = CoronaryRepairOptions(spacing_mm=2.0)
    repair_case(case, **common, options=repair, out=folder / "repaired")
    trace = CoronaryTraceOptions(spacing_mm=1.0)
    coder = _write_latent_diffusion(folder, case)
    with pytest.MonkeyPatch.context() as patch:  # pictures take most of the time
        patch.setattr("cardiform.fusion.cases.compare_picture", lambda *_, **__: None)
        patch.setattr("cardiform.held_out.compare_picture", lambda *_, **__: None)
        patch.setattr("cardiform.coronary.trace_case.case_picture", lambda *_, **__: None)
        trace_case.trace_case(case, **common, options=trace, out=folder / "trees")
        fuse_case(case, **common, options=FusionOptions(), masks={}, out=folder / "fused")
        vecset, vqvae = _write_vecset(folder, case), _write_vqvae(folder)
    _write_sets(folder, case, vecset)
    _write_measures(folder, case)
    _write_statistics(folder, case)
    networks = {"vecset": [vecset], "vqvae": [vqvae], "coders": [coder]}
    _write_applied(folder, case, networks, {"points": options, "voxels": voxels})
    _write_training(folder / "training")
    _write_bundle(folder / "bundle")
    row = {"trial": 1, "options": {"vecset.lr": 1e-3}, "place": 1, "steps": 10}
    rows = [{**row, "figure": 0.5}, {**row, "trial": 2, "place": 0, "diverged": True}]
    rungs.write_trials(folder / "search" / "trials.json", "vecset", rows)


def _case(folder: Path) -> table.Case:
    """A ball in a shell with a rod beside them, checked and split."""
    index = np.indices((30, 30, 30)) * 2.0
    radius = np.linalg.norm(index - np.array([28.0, 29.0, 30.0])[:, None, None, None], axis=0)
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[radius < 22] = 1
    labels[radius < 14] = 3
    labels[26:28, 8:22, 14:16] = 9
    volumes.save_label_map(folder / "a.nii.gz", labels, np.diag([2.0, 2.0, 2.0, 1.0]))
    case = table.Case(case_id=NAME, patient_id=NAME, labels=str(folder / "a.nii.gz"))
    manifest = folder / "qc" / "manifest.tsv"
    checks.check_cases([case], TABLE, out=folder / "qc", manifest=manifest, processes=1)
    table.write_cases(folder / "cases.tsv", [case])
    parts = splits.split_cases([case], SplitOptions(validation=0.0, test=0.0))
    splits.write_split(folder / "split" / "train.csv", parts["train"], folder / "points")
    return case


def _write_measures(folder: Path, case: table.Case) -> None:
    places = {"meshes": folder / "meshes", "trees": folder / "trees", "out": folder / "measures"}
    path = measure_case(case, table=TABLE, options=MeasuresOptions(), **places)[0]
    frame = measure_table.read_measures(path)
    hearts = pd.concat([frame.assign(case_id=name) for name in "abc"], ignore_index=True)
    measure_table.write_frame(folder / "measures" / "norms.csv", norms.norms_of(hearts, 3))


def _write_statistics(folder: Path, case: table.Case) -> None:
    meshes, out = folder / "meshes", folder / "statistics"
    outline = shape_hearts.Outline.of(case, TABLE, meshes)
    template = shape_template.make_template(
        outline, (0, 1), TABLE, meshes, grid_mm=8.0, mesh_mm=8.0, smoothing_mm=8.0,
        remove_size=False,
    )  # fmt: skip
    template.save(out / "template.npz")
    places = {"template": template, "table": TABLE, "meshes": meshes, "out": out}
    shape_case.register_case(case, **places)
    scales = np.array([0.9, 1.0, 1.2])[:, None, None]
    shape_model.ShapeModel.fit(
        scales * template.mesh.vertices, template.mesh.faces, template.labels,
        variance=0.95, most_modes=2, remove_size=False,
    ).save(out / "model.npz")  # fmt: skip


def _write_latent_diffusion(folder: Path, case: table.Case) -> ShapeCoder:
    boxes = hearts_on_grid.box_case(case, table=TABLE, out=folder / "boxes")
    grid = hearts_on_grid.label_grid(boxes, LdmOptions(voxel_size=16), TABLE)
    write_json(folder / "grid.json", grid.as_dict())
    [voxels] = hearts_on_grid.resample_case(
        case, grid=grid, boxes=folder / "boxes", out=folder / "voxels"
    )
    options = AutoencoderOptions(channels=(8, 8), norm_num_groups=4)
    weights = ShapeAutoencoder(options, len(grid.table)).state_dict()
    coder = ShapeCoder(options, grid, weights)
    encode.encode_case(
        case,
        voxels={NAME: voxels},
        training={NAME},
        coder=coder,
        options=LatentsOptions(variants=1),
        out=folder / "latents",
    )
    files = {NAME: folder / "latents" / "a.npz"}
    found = encode.statistics_of(files, [NAME], coder, "0" * 64)
    write_json(folder / "statistics.json", found.as_dict())
    nothing = diffusion_model.Condition.nothing(1, len(grid.table), grid.size)
    options = SamplingOptions(num_samples=1)
    samples.sampled_latents(_Drawing(), nothing, options, "flow", "key", folder / "samples")
    _write_vessels(folder, case, grid, voxels)
    return coder


def _write_bundle(folder: Path) -> None:
    stored = model.Model(
        kind="vecset", weights={}, options={}, labels=TABLE.as_dicts(), figures={},
        training_cases=[],
    )  # fmt: skip
    model.save_portable(folder / "vecset" / bundle.MODEL, stored)
    about = {"name": NAME, "models": {"vecset": {"kind": "vecset", "cases": 0}}}
    about |= {"labels": TABLE.as_dicts(), "frame": {"world": "RAS mm"}, "example": ["x"]}
    bundle.finish_bundle(folder, about | {"versions": {"cardiform": "0"}})


def _write_vessels(folder: Path, case: table.Case, grid, voxels: Path) -> None:
    out = folder / "vessels"
    options = CoronaryTraceOptions(spacing_mm=1.0)
    [path] = vessel_tree.encode_case(
        case,
        trace=functools.partial(trace_case.traced_with_cut, table=TABLE, options=options),
        structure="coronary",
        voxels={NAME: voxels},
        out=out,
    )
    tree = vessel_tree.load_tree(path).tree
    field = vessel_field.encode(tree, grid.size, grid.spacing)
    votes = out / "votes" / "a.npz"
    vessel_field.save_votes(votes, vessel_field.decode(field, grid.size, grid.spacing))
    label = TABLE[TABLE.channel("coronary")]
    draw_case.draw_case(
        dataclasses.replace(case, labels=str(voxels)),
        votes={NAME: votes},
        canvas=functools.partial(draw_case.on_grid, grid=grid, label=label, spacing=2.0),
        spacing=grid.spacing,
        label=label,
        limits=Limits(gap_mm=15.0, branch_mm=5.0, smooth_mm=2.0),
        write_trees=functools.partial(trace_case.write_trees, structure="coronary", names=True),
        out=out,
    )


class _Drawing:
    """In place of a trained diffusion."""

    def latents(self, numbers, condition, **_) -> torch.Tensor:
        return torch.zeros(len(numbers), 4, 8, 8, 8)


def _write_vecset(folder: Path, case: table.Case) -> vecset_reconstruct.Reconstructor:
    training = VecsetOptions(preset="demo", input_points=512)
    network = vecset_reconstruct.Reconstructor(
        VecSet.from_options(training, len(TABLE)).eval(),
        TABLE,
        training,
        VecsetReconstructOptions(),
        CPU,
    )
    points = {NAME: folder / "points" / "a.npz"}
    vecset_reconstruct.reconstruct_case(
        case,
        points=points,
        meshes=folder / "meshes",
        out=folder / "vecset",
        network=network,
        mean_shape=vecset_reconstruct.MajorityLabels.of([], TABLE),
    )
    usual = {"myocardium": np.full(1 + len(TABLE), 0.25)}
    typical = {"myocardium": {"reconstruction": 0.9, "contact": 0.9}}
    sound = vecset_confidence.Sound(TABLE, usual, typical, {"myocardium": 1}, 1, 1, "0" * 64)
    sound.write(folder / "vecset" / "confidence.json")
    return network


def _write_sets(folder: Path, case: table.Case, network) -> None:
    """Latents of a VecSet in slots, and a sample of them."""
    out, points = folder / "sets", {NAME: folder / "points" / "a.npz"}
    slots = set_encode.slots_of(network, points)
    slots.save(out / "slots.npz", ["x_age"], "0" * 64)
    set_encode.encode_case(
        case,
        points=points,
        voxels={NAME: folder / "voxels" / "a.nii.gz"},
        columns={NAME: np.ones(1)},
        cut={},
        encoder=set_encode.Encoder(network, slots, hearts_on_grid.load_grid(folder / "grid.json")),
        out=out,
    )
    heart = set_latents.SetLatents.load(out / "a.npz")
    made = set_samples.Made(heart.latents, heart.frame)
    set_samples.save_made(out / "samples" / "sample_0000.npz", made, "key")
    places = np.random.default_rng(0).normal(size=(3, len(slots.places), 3))
    frame = set_latents.frame_of(heart.frame)
    hearts = [latent_hearts.PosedHeart(heart.latents, frame, p, np.ones_like(p)) for p in places]
    model = latent_model.LatentModel.fit(hearts, LatentStatisticsOptions())
    out, names = folder / "latent_statistics" / "model.npz", network.table.names
    model.save(out, slots.channels, names, False, "0" * 64)


def _write_vqvae(folder: Path) -> vqvae_reconstruct.BandNetwork:
    manifest = write_cohort(folder / "balls", {"x": [0.5, 0.3]})
    options = VqvaeOptions(channels=(8, 8, 8, 8), blocks=(1, 0, 0, 0), latent_dim=4)
    model = SparseVQVAE.from_options(options, VqvaeCodebookOptions(codebook_size=8))
    network = vqvae_reconstruct.BandNetwork(model.eval(), CPU)
    vqvae_reconstruct.reconstruct_case(
        table.Case(case_id="x", patient_id="x", labels=""),
        instances={"x": find_instances([manifest], ["x"])},
        networks={"model": network},
        table=TABLE,
        meshes=None,
        out=folder / "vqvae",
    )
    return network


def _write_applied(folder: Path, case: table.Case, networks: dict, options: dict) -> None:
    """What apply_models leaves of a case, and what a bundle says of the stages."""
    out = folder / "applied"
    stages = apply_stages.find_stages(folder)
    stages = replace(stages, options=stages.options | options, spacing_mm=(2.0,))
    out.mkdir()
    stages.write(out)
    content = Content([Models(folder)], [{}], TABLE, stages, "", "")
    made = Networks(content, **networks, sha256={"fold0/vecset/model.pt": "0" * 64})
    apply_latents.write_latents(
        out / "latents" / "a.npz", Ready(case, TABLE, stages, out / "work"), made
    )
    record = apply_record.Record(notes=["coarse"])
    record.add("reconstruct", "vecset", apply_record.LABEL, {"myocardium": {"dice": 0.5}})
    origin = apply_record.Origin("0" * 64, ["0" * 64, "", ""])
    record.write(out / "figures" / "a.json", NAME, ["encode"], ["acme: vecset"], origin)


def _write_training(out: Path) -> None:
    options = TrainingOptions(**QUICK | {"steps": 4})
    task = ToyTask()
    toy = job.Job(
        kind=Kind("toy", "a toy", "train_toy"),
        task=task,
        network=task.module,
        train_set=Lines(),
        validation_set=Lines(2),
        options=options,
        sections={"toy": options},
        labels=TABLE,
        train_cases=[NAME],
        validation_cases=[],
        identity={},
    )
    job.run(toy, out)
    # each family has figures of its own below these keys
    write_held_out_figures(out / "held_out.json", "toy", {}, out / "model.pt")
