"""Values between the nodes of a lattice."""

from __future__ import annotations

import numpy as np
import pytest

from cardiform.geometry.interpolation import trilinear


@pytest.mark.parametrize(
    "shape", [(4, 3, 5), (2, 3, 4), (3, 2, 4), (3, 4, 2), (2, 2, 2), (1, 3, 2)]
)
def test_a_linear_field_comes_back_and_the_border_holds_outside(shape):
    slopes = np.array([1.0, -2.0, 0.5])
    values = (np.indices(shape).T @ slopes).T.astype(np.float32)
    index = np.random.default_rng(0).uniform(-2, 6, (500, 3)).astype(np.float32)
    nearest = np.clip(index, 0, np.array(shape) - 1)
    np.testing.assert_allclose(trilinear(values, index), nearest @ slopes, atol=1e-5)


def test_a_product_between_eight_nodes():
    values = np.zeros((2, 2, 2), np.float32)
    values[1, 1, 1] = 1
    index = np.array([[0.25, 0.5, 0.75], [1, 1, 1], [0, 1, 1]], np.float32)
    np.testing.assert_allclose(trilinear(values, index), index.prod(axis=1))
