"""The example of a bundle: a procedural heart, and what each model makes of it.

It is no case of the cohort. Whoever gets the bundle runs it again and compares.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from ..apply.ready import Ready
from ..apply.stages import Stages
from ..artefact.model import load_model
from ..cohort.table import Case
from ..coronary.model import DENOISER, NEAR
from ..coronary.refine import load_refiner, misfit
from ..coronary.thin_structure import ThinStructure
from ..errors import InputError, problem
from ..files import load_npz, save_npz
from ..labels import LabelTable
from ..ldm.autoencoder_model import AUTOENCODER
from ..ldm.coder import ShapeCoder
from ..ldm.data import load_shape
from ..ldm.diffusion_model import DIFFUSION
from ..options.coronary import CoronaryRefineOptions
from ..options.vecset import VecsetReconstructOptions
from ..phantom.heart import LABELS
from ..phantom.scans import draw_scan
from ..vecset.model import VECSET
from ..vecset.reconstruct import Reconstructor, load_frame
from ..volumes import LabelMap, save_label_map
from ..vqvae.model import QUANTISED
from ..vqvae.reconstruct import BandNetwork, fused, solid_of
from ..vqvae.trained import load_network

NAME = "phantom"
FOLDER = "example"
SEED = 20_251_126  # of no demo cohort, whose seeds are small
SPACING_MM = 3.0
CPU = torch.device("cpu")
# Of an example that is computed again on another machine, the share of voxels and of the range
# of values by which it may differ: rounding alone moves a surface a little.
LABELS_MAY_DIFFER = 0.002
VALUES_MAY_DIFFER = 0.01
# Config sections whose options decide how the example is made ready.
EXAMPLE_STAGES = ("meshes", "points", "voxels", "coronary_repair")


def draw_example(table: LabelTable) -> LabelMap | None:
    """The phantom with the class values of a label table; None where it shares no class."""
    labels, affine = draw_scan(0, SPACING_MM, SEED)
    values = dict(zip(LABELS.names, LABELS.values))
    turned = np.zeros(256, np.uint8)
    for label in table:
        if label.name in values:
            turned[values[label.name]] = label.value
    found = turned[labels]
    return LabelMap(found, affine) if found.any() else None


def expected(path: Path, prepared: Ready) -> dict[str, np.ndarray] | None:
    """What a model makes of the example: arrays by name; None where it has no use for it."""
    kind = load_model(path).kind
    return MAKERS[kind](path, prepared) if kind in MAKERS else None


def _by_vecset(path: Path, prepared: Ready) -> dict[str, np.ndarray]:
    network = Reconstructor.load(path, VecsetReconstructOptions(device="cpu"), CPU)
    points = prepared.points
    latents = network.encode(points, NAME)
    sampled = network.sample(latents, load_frame(points), prepared.label_map)
    return {"latents": latents[0].numpy(), "labels": sampled.labels(prepared.table.values)}


def _by_vqvae(path: Path, prepared: Ready) -> dict[str, np.ndarray]:
    if "vqvae_windows" in path.parts:
        return {}  # it reads a CT, which the example has none of
    network = BandNetwork(load_network(path, quantised=True), CPU)
    made = network.reconstruct(prepared.bands)
    solids = {n: solid_of(made[n].coords, made[n].sdf, b) for n, b in prepared.bands.items()}
    return {"labels": fused(solids, prepared.table, prepared.label_map)}


def _by_refiner(path: Path, prepared: Ready) -> dict[str, np.ndarray]:
    stored, repair = load_model(path), prepared.stages["coronary_repair"]
    if prepared.repaired is None or misfit(stored, repair):
        return {}  # the example has none, or an early bundle does not say how it was repaired
    preset = "near" if stored.kind == NEAR.name else "cardiform"
    options = CoronaryRefineOptions(preset=preset, device="cpu")
    refiner = load_refiner(path, options, repair, CPU)
    return {"mask": refiner.refined(NAME, ThinStructure.load(prepared.repaired)).mask}


def _by_coder(path: Path, prepared: Ready) -> dict[str, np.ndarray]:
    coder = ShapeCoder.load(path)
    if not coder.grid.has_classes:
        return {}  # it was trained on distance fields of point clouds
    voxels, _ = prepared.on_grid(coder.grid, 0)
    mu, _ = coder.encode(load_shape(voxels, coder.grid)[None])
    return {"latents": mu[0].numpy()}


MAKERS: dict[str, Callable[[Path, Ready], dict[str, np.ndarray]]] = {
    VECSET.name: _by_vecset,
    QUANTISED.name: _by_vqvae,
    DENOISER.name: _by_refiner,
    NEAR.name: _by_refiner,
    AUTOENCODER.name: _by_coder,
    DIFFUSION.name: _by_coder,  # which holds the autoencoder, too
}


def write_example(folder: Path, models: Mapping[str, Path], table: LabelTable, stages: Stages):
    """Write the phantom and what each model makes of it; the names of the files.

    folder : of the bundle.    models : place -> model file.

    Returns
    -------
    list of str
        Names below ``folder``: the label map first. Empty where the phantom has no class of the
        label table.
    """
    label_map = draw_example(table)
    if label_map is None:
        return []
    names = [f"{FOLDER}/{NAME}.nii.gz"]
    save_label_map(folder / names[0], label_map.data, label_map.affine)
    for place, arrays in _all_expected(folder / names[0], models, table, stages):
        names.append(f"{FOLDER}/{place}.npz")
        save_npz(folder / names[-1], compressed=True, **arrays)
    return names


def check_example(folder: Path, models: Mapping[str, Path], table: LabelTable, stages: Stages):
    """Compute a bundle's example again, as :func:`write_example` made it.

    Raises
    ------
    InputError
        A line for each model that makes something else of it here.
    """
    source = folder / FOLDER / f"{NAME}.nii.gz"
    problems = []
    for place, arrays in _all_expected(source, models, table, stages):
        path = folder / FOLDER / f"{place}.npz"
        stored = load_npz(path)
        for name, array in arrays.items():
            if fact := _difference(stored.get(name), array):
                remedy = "update Cardiform and its libraries to the versions of the bundle"
                problems.append(problem(path, f"{name} is different here ({fact})", remedy))
    if problems:
        raise InputError(problems)


def _all_expected(source: Path, models: Mapping[str, Path], table: LabelTable, stages: Stages):
    """(place, arrays) of each model that has a use for the example."""
    case = Case(case_id=NAME, patient_id=NAME, labels=str(source))
    with tempfile.TemporaryDirectory(prefix="cardiform-") as name:
        prepared = Ready(case, table, stages, Path(name))
        for place, path in models.items():
            if arrays := expected(path, prepared):
                yield place, arrays


def _difference(stored: np.ndarray | None, found: np.ndarray) -> str:
    """How far two arrays differ, if by more than rounding explains; empty: they do not."""
    if stored is None or stored.shape != found.shape or stored.dtype != found.dtype:
        return "another shape or type"
    if found.dtype.kind in "bu":
        share = float((stored != found).mean())
        return f"{share:.1%} of the voxels" if share > LABELS_MAY_DIFFER else ""
    spread = max(float(np.ptp(stored)), 1e-6)
    most = float(np.abs(stored - found).max()) / spread
    return f"by {most:.1%} of its range" if not most <= VALUES_MAY_DIFFER else ""
