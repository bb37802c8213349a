"""Values of a lattice between its nodes."""

from __future__ import annotations

import numpy as np


def trilinear(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Trilinear interpolation.

    Parameters
    ----------
    values : (X, Y, Z) float32, C order
    index : (N, 3) float32
        Positions in node units; outside of the lattice the nearest border value holds.

    Returns
    -------
    (N,) float32
    """
    shape = np.array(values.shape)
    index = np.clip(index, 0, (shape - 1).astype(np.float32))
    # An axis of one node has no second one: its weight is 0.
    low = np.minimum(index.astype(np.int32), np.maximum(shape - 2, 0).astype(np.int32))
    wx, wy, wz = (index - low).T
    step_x, step_y, step_z = (
        stride * (n > 1) for stride, n in zip((shape[1] * shape[2], shape[2], 1), shape)
    )
    at = (low[:, 0].astype(np.int64) * shape[1] + low[:, 1]) * shape[2] + low[:, 2]
    flat = values.ravel()

    def along_z(offset: int) -> np.ndarray:
        near = flat[at + offset]
        return near + wz * (flat[at + (offset + step_z)] - near)

    def along_y(offset: int) -> np.ndarray:
        near = along_z(offset)
        return near + wy * (along_z(offset + step_y) - near)

    near = along_y(0)
    return near + wx * (along_y(step_x) - near)


def halved(values: np.ndarray) -> np.ndarray:
    """Trilinear interpolation on a lattice with twice the nodes.

    values : (X, Y, Z) float32

    Returns
    -------
    (2 X - 1, 2 Y - 1, 2 Z - 1) float32: every other node is one of ``values``.
    """
    for axis in range(3):
        given = np.moveaxis(values, axis, 0)
        finer = np.empty((2 * len(given) - 1, *given.shape[1:]), np.float32)
        finer[::2] = given
        finer[1::2] = (given[:-1] + given[1:]) / 2
        values = np.moveaxis(finer, 0, axis)
    return np.ascontiguousarray(values)
