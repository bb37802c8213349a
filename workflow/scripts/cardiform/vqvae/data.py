"""Narrow bands of single structures as training samples, and batches of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

from ..cohort.manifest import MadeFile, made_files
from ..errors import InputError, problem
from ..files import opened_npz
from ..geometry.narrowband import SPARSE, NarrowBand, voxel_keys
from ..sparse.tensor import Structure
from .augmentation import GROWTH, deformed
from .windows import NO_WINDOWS, WindowSet


@dataclass(frozen=True)
class Instance(MadeFile):
    """One structure of one case: a sparse npz.

    voxels : how many it stores.
    kind : resolution and half-band in voxels.
    """

    voxels: int
    kind: tuple[int, float]

    @property
    def name(self) -> str:
        """What it is: a class of the label table, or a window."""
        return self.path.stem


class VoxelBatch(TypedDict):
    """Narrow bands of several structures, N voxels in all (:func:`collate`)."""

    case_id: list[str]  # case/name of each sample
    coords: Tensor  # (N, 4) int32, the sample first
    sdf: Tensor  # (N, 1) float32, in half-bands
    samples: int
    resolution: int
    band_voxels: float
    known: NotRequired[Tensor]  # (N,) bool, where the scan cuts one of them
    window: NotRequired[Tensor]  # (samples,) int64, where several windows are trained together
    scan: NotRequired[Tensor]  # (samples,) int64, equal for windows that are linked
    structure: NotRequired[Structure]  # of the coords, kept by the task when it is first made


def find_instances(manifests: Iterable[str | Path], case_ids: Sequence[str]) -> list[Instance]:
    """The sparse voxels of some cases, in their order, then of the paths.

    A structure without a voxel is left out, as are cases that the manifests skip or filter.

    Raises
    ------
    InputError
        As of :func:`cardiform.cohort.manifest.made_files`, or files are no sparse npz.
    """
    found, problems = [], []
    for file in made_files(manifests, case_ids, ".npz", SPARSE.remedy):
        try:
            voxels, kind = stored_size(file.path)
        except InputError as error:
            problems += error.problems
            continue
        if voxels:
            found.append(Instance(file.case_id, file.path, file.sha256, voxels, kind))
    if problems:
        raise InputError(problems)
    return found


def stored_size(path: Path) -> tuple[int, tuple[int, float]]:
    """How many voxels a sparse npz stores, and its resolution and half-band: its headers alone."""
    with opened_npz(path, SPARSE.remedy) as archive:
        SPARSE.check_names(path, archive)
        found = {name: archive[name] for name in ("resolution", "band_voxels")}
        with archive.zip.open("sdf.npy") as stream:
            np.lib.format.read_magic(stream)
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        found["sdf"] = np.broadcast_to(np.zeros((), dtype), shape)
    SPARSE.check_values(path, found, found)
    return shape[0], (int(found["resolution"]), float(found["band_voxels"]))


class VoxelDataset(torch.utils.data.Dataset):
    """``dataset[index, draw]``: one structure; the draw decides its augmentation.

    budget : most voxels of a micro-batch.    costs : (size,) int64 most voxels of each sample.
    deformations : kinds of :mod:`cardiform.vqvae.augmentation`.
    windows : the CT windows that are trained together, of which each structure is one. Linked
        ones are a sample together: all that are there of a scan, augmented alike.

    Raises
    ------
    InputError
        A structure alone has more voxels than a micro-batch may have, the resolutions differ, or
        one is of no window.
    """

    def __init__(
        self,
        instances: Sequence[Instance],
        budget: int,
        *,
        augment: bool,
        deformations: Collection[str] = (),
        seed: int = 0,
        windows: WindowSet = NO_WINDOWS,
    ):
        self.instances, self.budget, self.windows = list(instances), budget, windows
        self.augment, self.deformations, self.seed = augment, deformations, seed
        whole = [i.case_id if windows.linked else i.path for i in self.instances]
        groups: dict[str | Path, list[Instance]] = {}
        for key, instance in zip(whole, self.instances):
            groups.setdefault(key, []).append(instance)
        self.samples = list(groups.values())
        growth = GROWTH if deformations else 1
        self.costs = np.array([growth * sum(i.voxels for i in g) for g in self.samples], np.int64)
        problems = [
            problem(
                path,
                f"has {cost:,} voxels{' when deformed' if deformations else ''}, more than "
                f"vqvae.max_voxels ({budget:,})",
                "raise it, or lower the resolution",
            )
            for path, cost in zip(groups, self.costs.tolist())
            if cost > budget
        ]
        kinds = {i.kind: i.path for i in self.instances}
        if len(kinds) > 1:
            listed = ", ".join(f"{r}^3 and {b:g} in {path}" for (r, b), path in kinds.items())
            problems.append(
                f"sparse voxels of different resolutions or half-bands: {listed}; name the "
                "manifests of one setting"
            )
        problems += foreign_to(windows, self.instances)
        if deformations and windows.linked:
            problems.append(
                "vqvae.deformations are drawn for each window by itself, and linked windows would "
                "no longer lie on each other; leave out one of the two"
            )
        if problems:
            raise InputError(problems)

    def __len__(self) -> int:
        return len(self.samples)

    def plain(self) -> VoxelDataset:
        """The same samples as they are, without augmentation."""
        return VoxelDataset(self.instances, self.budget, augment=False, windows=self.windows)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        index, draw = key
        sample = self.samples[index]
        bands = [NarrowBand.load(instance.path) for instance in sample]
        coords = np.concatenate([band.coords for band in bands]).astype(np.int32)
        sdf = np.concatenate([band.sdf for band in bands]).astype(np.float32)
        known = np.concatenate([_known(band) for band in bands])
        part = np.repeat(np.arange(len(bands)), [len(band.sdf) for band in bands])
        values = np.stack([sdf, known], axis=1).astype(np.float32)
        rng = np.random.default_rng((self.seed, draw))
        if self.deformations:  # of one structure: linked windows are refused
            # the draws of the symmetries stay those of a training without
            apart, kind = rng.spawn(1)[0], sample[0].kind
            coords, values = deformed(coords, values, *kind, self.deformations, apart)
            part = np.zeros(len(coords), int)
        values = np.column_stack([values, part.astype(np.float32)])
        if self.augment:
            coords, values = augmented(coords, values, bands[0].resolution, rng)
        parts = []
        for number, (instance, band) in enumerate(zip(sample, bands)):
            own = values[:, 2] == number
            parts.append(self._item(instance, band, coords[own], values[own]))
        return {"parts": parts} if self.windows.linked else parts[0]

    def _item(
        self, instance: Instance, band: NarrowBand, coords: np.ndarray, values: np.ndarray
    ) -> dict:
        sdf, known = np.ascontiguousarray(values[:, 0]), values[:, 1] > 0
        more: dict = {} if band.known is None else {"known": torch.from_numpy(known)}
        if self.windows:
            more["window"] = self.windows.names.index(instance.name)
        return {
            "case_id": instance.case_id,
            "name": instance.name,
            "coords": torch.from_numpy(coords),
            "sdf": torch.from_numpy(sdf)[:, None],
            "resolution": band.resolution,
            "band_voxels": band.band_voxels,
            **more,
        }


def _known(band: NarrowBand) -> np.ndarray:
    return np.ones(len(band.sdf), bool) if band.known is None else band.known


def foreign_to(windows: WindowSet, instances: Iterable[Instance]) -> list[str]:
    """Problems of samples that are of none of the windows of a network."""
    fact = f"is of none of the windows that are trained together ({', '.join(windows.names)})"
    remedy = "give the manifests of window_ct of these"
    known = windows.names or None
    return [problem(i.path, fact, remedy) for i in instances if known and i.name not in known]


def augmented(
    coords: np.ndarray, sdf: np.ndarray, resolution: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One of the 48 symmetries of the cube, and a shift within it; no value is interpolated.

    coords : (V, 3).    sdf : (V,), or (V, K) several values of each.

    The shift, up to the seven voxels after which latents repeat, moves the structure against
    the grid of the latents.
    """
    coords = coords[:, rng.permutation(3)]
    mirrored = rng.random(3) < 0.5
    coords = np.where(mirrored, resolution - 1 - coords, coords)
    low, high = coords.min(axis=0), coords.max(axis=0)
    shift = rng.integers(np.maximum(-low, -7), np.minimum(resolution - 1 - high, 7) + 1)
    coords = coords + shift
    order = np.argsort(voxel_keys(coords, resolution))
    return coords[order].astype(np.int32), sdf[order]


def collate(samples: Sequence[dict]) -> VoxelBatch:
    """The batch of some items of :class:`VoxelDataset`."""
    parts = [sample.get("parts", [sample]) for sample in samples]
    scans = [number for number, own in enumerate(parts) for _ in own]
    samples = [part for own in parts for part in own]
    rows = [torch.nn.functional.pad(s["coords"], (1, 0), value=i) for i, s in enumerate(samples)]
    batch: VoxelBatch = {
        "case_id": [f"{s['case_id']}/{s['name']}" for s in samples],
        "coords": torch.cat(rows),
        "sdf": torch.cat([s["sdf"] for s in samples]),
        "samples": len(samples),
        "resolution": samples[0]["resolution"],
        "band_voxels": samples[0]["band_voxels"],
    }
    if "window" in samples[0]:
        batch["window"] = torch.tensor([s["window"] for s in samples])
        batch["scan"] = torch.tensor(scans)
    if any("known" in s for s in samples):
        every = [s.get("known", torch.ones(len(s["sdf"]), dtype=torch.bool)) for s in samples]
        batch["known"] = torch.cat(every)
    return batch
