"""Hearts on the coarse grid of latent diffusion, and cached latents, as training samples."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import Tensor

from ..cohort.manifest import MadeFile
from ..errors import InputError, again, problem, together
from ..formats import Format
from ..labels import channel_of_value
from ..options.ldm import AutoencoderOptions, LatentsOptions
from ..options.vessels import VesselOptions
from ..training.shared import Kept
from ..volumes import load_image, load_label_map
from .hearts_on_grid import Grid

PACKING = 1  # the fastest of zlib: hearts shrink to a twentieth by it, or less
LATENTS = Format(
    "latents",
    {
        "mu": "f32 (V, L, s, s, s)",
        "sigma": "f16 (V, L, s, s, s)",
        "target": "u8 or f16 (V, S, S, S)",
        "volumes": "f32 (V, C)",
        "format_version": "i64",
        "cut?": "bool (C)",
        "moves?": "f32 (V, 9)",
    },
    again("encode_latents"),
    version=2,
    earlier=(1,),
)
VARIED = ("mu", "sigma", "volumes", "moves")  # what each variant has
MOVE = 9  # numbers of a move: rotation vector (radians), logarithms of the scales, shifts (edges)
Ranges = AutoencoderOptions | LatentsOptions | VesselOptions  # of random moves


class ShapeBatch(TypedDict):
    """B items of :class:`ShapeDataset`."""

    case_id: list[str]
    target: Tensor  # (B, S, S, S) uint8 channels, or a float32 field


class LatentBatch(TypedDict):
    """B items of :class:`LatentDataset`."""

    case_id: list[str]
    mu: Tensor  # (B, L, s, s, s) float32
    sigma: Tensor  # the same
    target: NotRequired[Tensor]  # (B, S, S, S) uint8 channels, or a float16 field
    volumes: Tensor  # (B, classes) float32, ml
    whole: NotRequired[Tensor]  # (B, classes) bool: the scan does not cut the class
    moves: NotRequired[Tensor]  # (B, 9) float32, see :func:`random_move`


def load_shape(path: str | Path, grid: Grid) -> Tensor:
    """(S, S, S): uint8 channels (0 background, i + 1 class ``grid.table[i]``), or a float field.

    Raises
    ------
    InputError
        The file does not lie on the grid, or has a class beside those of the grid.
    """
    data = load_label_map(path).data if grid.has_classes else load_image(path)[0]
    if data.shape != (grid.size,) * 3:
        fact = f"has the shape {data.shape}, the grid {grid.size} voxels along each edge"
        raise InputError(problem(path, fact, "make it again"))
    if not grid.has_classes:
        return torch.from_numpy(np.ascontiguousarray(data, np.float32))
    return torch.from_numpy(to_channels(data, grid, path))


def load_hearts(paths: Sequence[Path], grid: Grid) -> list[np.ndarray]:
    """Channels of hearts on the grid; of a field what is above 0.5."""
    shapes = together(*(functools.partial(load_shape, path, grid) for path in paths))
    hearts = [shape.numpy() for shape in shapes]
    return hearts if grid.has_classes else [(h > 0.5).astype(np.uint8) for h in hearts]


def to_channels(labels: np.ndarray, grid: Grid, where: str | Path = "") -> np.ndarray:
    """Class values to channels."""
    lookup = np.array(channel_of_value(grid.table.values, first=1, unknown=255), np.uint8)
    channels = lookup[labels]
    if channels.max(initial=0) == 255:
        unknown = sorted(set(np.unique(labels)) - {0, *grid.table.values})
        fact = f"has the labels {', '.join(map(str, unknown))}, which take no part"
        raise InputError(problem(where, fact, "make it again"))
    return channels


def to_values(channels: np.ndarray, grid: Grid) -> np.ndarray:
    """The inverse of :func:`to_channels`."""
    return np.array([0, *grid.table.values], np.uint8)[channels]


class ShapeDataset(torch.utils.data.Dataset):
    """``dataset[index, draw]``: one heart; the draw decides its augmentation.

    ranges : rotation, scaling and shift; None: none.
    cache_rate : share of the files that is kept in memory.
    shared : folder of what all processes share; None: each keeps its own.
    """

    def __init__(
        self,
        files: Sequence[MadeFile],
        grid: Grid,
        *,
        ranges: AutoencoderOptions | None,
        cache_rate: float = 1.0,
        seed: int = 0,
        shared: Path | None = None,
    ):
        self.files, self.grid, self.ranges, self.seed = list(files), grid, ranges, seed
        what = ["shape", grid.as_dict()]
        self.kept = Kept(kept_of(self.files, cache_rate), self._made, shared, what)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        index, draw = key
        if index < len(self.kept):
            target = torch.from_numpy(self.kept[index]["shape"].copy())
        else:
            target = load_shape(self.files[index].path, self.grid)
        if self.ranges is not None:
            target = moved(target, self.ranges, np.random.default_rng((self.seed, draw)))
        return {"case_id": self.files[index].case_id, "target": target}

    def _made(self, file: MadeFile) -> dict[str, np.ndarray]:
        return {"shape": load_shape(file.path, self.grid).numpy()}


class LatentDataset(torch.utils.data.Dataset):
    """``dataset[index, draw]``: latents of one heart; the draw decides which variant.

    varied : False gives the first variant, the heart as it is.
    targets : whether a sample has its target; where nothing is completed nobody looks at it.
    cache_rate : share of the files that is kept in memory, their targets compressed: these are
        most of it at 128^3, and hardly more than air.
    shared : folder of what all processes share; None: each keeps its own.
    """

    def __init__(
        self,
        files: Sequence[MadeFile],
        *,
        varied: bool,
        targets: bool = True,
        cache_rate: float = 1.0,
        seed: int = 0,
        shared: Path | None = None,
    ):
        self.files, self.varied, self.targets, self.seed = list(files), varied, targets, seed
        what = ["latents", varied, targets]
        self.kept = Kept(kept_of(self.files, cache_rate), self._packed, shared, what)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        index, draw = key
        cached = index < len(self.kept)
        stored = self.kept[index] if cached else self._load(self.files[index])
        chosen = 0
        if self.varied:
            rng = np.random.default_rng((self.seed, draw))
            chosen = int(rng.integers(len(stored["mu"])))
        # copies: what is shared cannot be written to
        one = {n: torch.from_numpy(np.copy(stored[n][chosen])) for n in VARIED}
        target = {}
        if self.targets:
            array = unpacked(stored, chosen) if cached else stored["target"][chosen]
            target = {"target": torch.from_numpy(np.copy(array))}
        return {
            "case_id": self.files[index].case_id,
            "mu": one["mu"],
            "sigma": one["sigma"].float(),
            **target,
            "volumes": one["volumes"],
            "whole": torch.from_numpy(~stored["cut"]),
            "moves": one["moves"],
        }

    def volumes(self) -> np.ndarray:
        """(classes,) float64 ml: means of the hearts as they are."""
        rows = [
            (self.kept[i] if i < len(self.kept) else self._load(file))["volumes"][0]
            for i, file in enumerate(self.files)
        ]
        return np.mean(rows, axis=0, dtype=float)

    def _load(self, file: MadeFile) -> dict[str, np.ndarray]:
        stored = {name: array.numpy() for name, array in load_latents(file.path).items()}
        # the variants that are never drawn need no room
        return stored if self.varied else {n: v if n == "cut" else v[:1] for n, v in stored.items()}

    def _packed(self, file: MadeFile) -> dict[str, np.ndarray]:
        stored = self._load(file)
        targets = stored.pop("target")
        # copies: a part of an array would keep all of it
        parts = {name: array.copy() for name, array in stored.items()}
        return parts | (packed(targets) if self.targets else {})


def packed(arrays: np.ndarray) -> dict[str, np.ndarray]:
    """(V, ...) arrays, each compressed by itself."""
    parts = [zlib.compress(np.ascontiguousarray(array).data, PACKING) for array in arrays]
    return {
        "packed": np.frombuffer(b"".join(parts), np.uint8),
        "ends": np.cumsum([len(part) for part in parts]),
        "like": arrays[:0],  # type and shape
    }


def unpacked(stored: Mapping[str, np.ndarray], number: int) -> np.ndarray:
    """One of the arrays of :func:`packed`, read only."""
    ends, like = stored["ends"], stored["like"]
    first = int(ends[number - 1]) if number else 0
    content = zlib.decompress(stored["packed"][first : int(ends[number])].data)
    return np.frombuffer(content, like.dtype).reshape(like.shape[1:])


def load_latents(path: str | Path) -> dict[str, Tensor]:
    """Content of a latents file: V variants, the first of them the heart as it is.

    mu f32 and sigma f16 (V, L, s, s, s); target (V, S, S, S) channels u8 or field f16; volumes f32
    (V, classes) ml; cut bool (classes,), what the scan cuts; moves f32 (V, 9) of the variants, NaN
    in files of version 1, which do not have them.
    """
    arrays = LATENTS.load(path)
    arrays.setdefault("cut", np.zeros(arrays["volumes"].shape[1], bool))
    if "moves" not in arrays:
        arrays["moves"] = np.full((len(arrays["mu"]), MOVE), np.nan, np.float32)
        arrays["moves"][0] = 0
    names = ("mu", "sigma", "target", "volumes", "cut", "moves")
    return {name: torch.from_numpy(arrays[name]) for name in names}


def complete_only(case_ids: Sequence[str], incomplete: Collection[str]) -> list[str]:
    """The cases that lack no class; all of them where each lacks one.

    The others would teach that hearts lack what is not annotated. Whatever is computed of the
    training hearts is computed of these.
    """
    return [name for name in case_ids if name not in incomplete] or list(case_ids)


def kept_of(files: Sequence[MadeFile], rate: float) -> Sequence[MadeFile]:
    """The files that are kept in memory: the first ones, a share of them."""
    return files[: round(rate * len(files))]


def moved(target: Tensor, ranges: Ranges, rng: np.random.Generator) -> Tensor:
    """A heart turned, scaled and shifted by random amounts; no mirrors: situs is anatomy.

    target : (S, S, S) uint8 channels or float field.
    """
    return moved_by(target, random_move(ranges, rng))


def largest_move(ranges: Ranges) -> np.ndarray:
    """(9,) float64: the largest that each number of a random move can be."""
    largest = (
        np.deg2rad(ranges.augment_rotation_deg),
        np.log1p(ranges.augment_scale),
        ranges.augment_shift,
    )
    return np.repeat(largest, 3)


def random_move(ranges: Ranges, rng: np.random.Generator) -> np.ndarray:
    """(9,) float64: rotation vector in radians, logarithms of the three scales, shifts in parts
    of the grid's edge. All zero is the heart as it is."""
    return rng.uniform(-1, 1, MOVE) * largest_move(ranges)


def moved_by(target: Tensor, move: np.ndarray) -> Tensor:
    """A heart under the move of :func:`random_move`."""
    return resampled(target, torch.from_numpy(move_matrix(move)[None]).float())


def move_matrix(move: np.ndarray) -> np.ndarray:
    """(3, 4) float64 of torch's affine_grid: from places in the moved heart to where they were."""
    turn, scale, shift = move[:3], np.exp(move[3:6]), 2 * move[6:]
    return np.column_stack([Rotation.from_rotvec(turn).as_matrix() / scale, shift])


def resampled(target: Tensor, matrix: Tensor | None = None, grid: Tensor | None = None) -> Tensor:
    """``target`` at moved places.

    matrix : (1, 3, 4), of torch's affine_grid.    grid : (1, S, S, S, 3), of grid_sample.
    """
    if grid is None:
        assert matrix is not None, "where to?"
        grid = F.affine_grid(matrix, [1, 1, *target.shape], align_corners=False)
    if target.dtype.is_floating_point:
        return F.grid_sample(target[None, None], grid, align_corners=False)[0, 0]
    number = int(target.max()) + 1
    shares = F.one_hot(target.long(), number).movedim(-1, 0).float()[None, 1:]
    if number == 1:
        return target.clone()
    return labelled(F.grid_sample(shares, grid, align_corners=False)[0])


def labelled(shares: Tensor) -> Tensor:
    """(C, S, S, S) interpolated shares of classes to (S, S, S) uint8 channels.

    Each class keeps its volume, the sum of its shares: it is cut at the share that as many
    voxels reach. At one half thin vessels would lose a tenth of theirs. Voxels that the
    classes fill together by half are labelled too, so that no gap opens between them.
    """
    levels = shares.new_full((len(shares), 1, 1, 1), torch.inf)
    for level, share in zip(levels, shares):
        found = share[share > 0]
        voxels = min(round(float(share.sum())), len(found))
        if voxels:
            level[...] = found.kthvalue(len(found) - voxels + 1).values
    best, chosen = (shares / levels).max(dim=0)
    inside = (best >= 1) | (shares.sum(dim=0) >= 0.5)
    return torch.where(inside, chosen + 1, 0).to(torch.uint8)


def warped(target: Tensor, amplitude: float, rng: np.random.Generator) -> Tensor:
    """A heart under a smooth random displacement of up to ``amplitude`` voxels on each axis."""
    size = len(target)
    control = rng.uniform(-1, 1, (1, 3, 5, 5, 5)) * amplitude * 2 / size
    field = F.interpolate(
        torch.from_numpy(control).float(), (size,) * 3, mode="trilinear", align_corners=True
    )
    still = F.affine_grid(torch.eye(3, 4)[None], [1, 1, size, size, size], align_corners=False)
    return resampled(target, grid=still + field.movedim(1, -1))
