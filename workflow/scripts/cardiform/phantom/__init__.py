"""Procedural hearts: the demo cohort, and the ground truth of tests and benchmarks.

>>> heart = draw_phantom(0)
>>> low, high = heart.bounds()
>>> heart.signed_distances(low[None]).shape
(1, 10)
"""

from .heart import Phantom, draw_phantom

__all__ = ["Phantom", "draw_phantom"]
