"""What lies between annotated slices, held to what these show."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .distances import signed_distance
from .slices import Slices

RIM = 3  # voxels about the box of a class that are looked at, too
BELIEVED_VOX = 0.5  # contours that are nearer than this are the same
FAR_OFF = 6  # times as far apart, and farther, they are as far apart as they are
LEAST_VOX = 4  # distances are followed as far as from slice to slice, or as so many voxels
ROOM_VOX = 2  # and no farther than a class is deep, and so much


def held_to_slices(
    made: np.ndarray,
    given: np.ndarray,
    slices: Slices,
    spacing: np.ndarray,
    believed_vox: float = BELIEVED_VOX,
) -> np.ndarray:
    """(X, Y, Z) uint8: ``made``, moved so that its contours in annotated layers are those given.

    In each annotated layer the signed distances to the contours of a class are those given and
    those made. Their difference, as far as it is above half a voxel, is interpolated linearly from
    layer to layer and added to the distances to what was made; past the first and the last
    annotated layer it fades within the distance of the slices. Of all classes, and the background,
    the one that a voxel then lies deepest in is taken. Where nothing was made this is shape-based
    interpolation (Raya and Udupa, IEEE Transactions on Medical Imaging 9, 1990).

    made : (X, Y, Z) uint8 class values.
    given : the same; only its annotated layers are looked at.
    spacing : (3,) voxel edges, mm.
    believed_vox : so much, in voxels, what was made is believed where it differs.
    """
    axis = slices.axis
    first, last = (np.moveaxis(data, axis, 0) for data in (made, given))
    edges = (float(spacing[axis]), *map(float, np.delete(spacing, axis)))
    best = np.full(first.shape, np.inf, np.float32)
    result = np.zeros_like(first)
    for value in sorted({0, *np.unique(first).tolist(), *np.unique(last[slices.layers]).tolist()}):
        box = _box(first, last, slices, value)
        layers = slices.layers - box[0].start
        masks = first[box] == value, last[box] == value
        limit = max(slices.widest * edges[0], LEAST_VOX * min(edges))
        distance = _held(*masks, layers, slices.step, edges, believed_vox, limit, whole=not value)
        nearer = distance < best[box]
        best[box][nearer], result[box][nearer] = distance[nearer], value
    return np.moveaxis(result, 0, axis)


def _box(first: np.ndarray, last: np.ndarray, slices: Slices, value: int) -> tuple:
    """Where a class is, or may come to be; of the background everything."""
    if not value:
        return tuple(slice(0, n) for n in first.shape)
    there = first == value
    there[slices.layers] |= last[slices.layers] == value
    [found] = ndimage.find_objects(there.astype(np.uint8))
    rims = (max(slices.widest, RIM), RIM, RIM)  # it may end anywhere up to the next slice
    return tuple(
        slice(max(part.start - rim, 0), min(part.stop + rim, n))
        for part, rim, n in zip(found, rims, first.shape)
    )


def _held(
    made: np.ndarray,
    given: np.ndarray,
    layers: np.ndarray,
    step: float,
    edges: tuple[float, ...],
    believed_vox: float,
    limit: float,
    whole: bool,
) -> np.ndarray:
    """float32 mm to one class, changed by what its annotated layers show.

    made, given : (X, Y, Z) bool, slices across the first axis, whose voxel edge is the first.
    layers : annotated ones, some of them perhaps beside: nothing of the class is there.
    """
    small = min(edges)
    distance = signed_distance(made, edges, limit)
    shown = {
        layer: _in_layer(given[layer], edges, limit)
        for layer in layers.tolist() if 0 <= layer < len(given)
    }  # fmt: skip
    if not whole:  # a thin class that is missing in one layer would be asked for far and wide
        deepest = -min(float(part.min()) for part in (distance, *shown.values()))
        limit = min(limit, max(deepest, 0.0) + ROOM_VOX * small)
        np.clip(distance, -limit, limit, out=distance)
    differences = [np.zeros(made.shape[1:], np.float32)] * len(layers)
    for number, layer in enumerate(layers.tolist()):
        if layer in shown:
            wanted = np.clip(shown[layer], -limit, limit)
            apart = wanted - _in_layer(made[layer], edges, limit)
            differences[number] = _beyond(apart, believed_vox * small)
    for index, part in enumerate(distance):
        part += _between(differences, layers, index, step)
    return distance


def _beyond(apart: np.ndarray, believed: float) -> np.ndarray:
    """What is above ``believed`` of differences, and more and more of them the larger they are."""
    size = np.abs(apart)
    less = believed * np.clip(
        (FAR_OFF * believed - size) / max((FAR_OFF - 2) * believed, 1e-9), 0, 1
    )
    return np.sign(apart) * np.maximum(size - less, 0)


def _in_layer(mask: np.ndarray, edges: tuple[float, ...], limit: float) -> np.ndarray:
    """(Y, Z) signed distances within a layer, of which the last two edges are those."""
    return signed_distance(mask[None], (min(edges[1:]), *edges[1:]), limit)[0]


def _between(
    differences: list[np.ndarray], layers: np.ndarray, index: int, step: float
) -> np.ndarray:
    """What is added at a layer: the differences of the annotated ones beside it."""
    above = int(np.searchsorted(layers, index))
    if above in (0, len(layers)):
        end = 0 if above == 0 else -1
        return differences[end] * max(0.0, 1 - abs(index - layers[end]) / step)
    share = (index - layers[above - 1]) / (layers[above] - layers[above - 1])
    return (1 - share) * differences[above - 1] + share * differences[above]
