"""Makes the jobs of a run draw coarsely and measure surfaces at few points, once imported.

Both take most of the time of jobs on tiny hearts, and the run of a workflow shows that they are
made, not how they look or how exact they are: tests/unit/test_pictures.py and
tests/unit/test_surface_metrics.py do. It changes the modules of cardiform as they are imported,
and needs nothing but the standard library itself.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder

COARSER = 5  # edge of a pixel
SAMPLES = 1000


def draw_coarsely(rasteriser) -> None:
    """The same pictures of as many pixels, from fewer and larger ones."""
    draw = rasteriser.render_meshes

    def render_meshes(meshes, view=rasteriser.ANTERIOR, size=600, camera=None):
        picture = draw(meshes, view, -(-size // COARSER), camera)
        return picture.repeat(COARSER, axis=0).repeat(COARSER, axis=1)[:size, :size]

    rasteriser.render_meshes = render_meshes


def measure_at_few_points(surface) -> None:
    assert surface.SAMPLES > SAMPLES
    surface.SAMPLES = SAMPLES


CHANGES = {
    "cardiform.pictures.rasteriser": draw_coarsely,
    "cardiform.metrics.surface": measure_at_few_points,
}


class Changing(MetaPathFinder):
    """Finds the modules of CHANGES where they are, and changes them when they are loaded."""

    def find_spec(self, name, path, target=None):
        spec = PathFinder.find_spec(name, path, target) if name in CHANGES else None
        if spec:
            load = spec.loader.exec_module

            def load_and_change(module) -> None:
                load(module)
                CHANGES[name](module)

            spec.loader.exec_module = load_and_change
        return spec


sys.meta_path.insert(0, Changing())
