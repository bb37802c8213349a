"""Products of matrices that must not be rounded to TF32, as those of trainings on CUDA are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def in_full_precision() -> Iterator[None]:
    """Within the block fp32 products keep all of their bits.

    Distances between near points are small differences of large products: of ten bits of each
    factor, which is all that TF32 reads, little is left in them. What backward computes is not
    within the block.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
