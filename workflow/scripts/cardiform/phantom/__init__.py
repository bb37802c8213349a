"""Procedural hearts: the demo cohort, and the ground truth of tests and benchmarks.

>>> heart = draw_phantom(0)
>>> heart.bounds().shape  # lowest and highest corner, RAS mm
(2, 3)
"""

from .heart import Phantom, draw_phantom

__all__ = ["Phantom", "draw_phantom"]
