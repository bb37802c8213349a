"""What the tests of scripts share."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from cardiform.metrics import surface
from cardiform.pictures import figures


def white(meshes, size, camera) -> np.ndarray:
    """A picture that shows nothing of its meshes, which must be such as can be drawn."""
    assert np.isfinite(camera.center).all() and camera.half_width > 0
    for vertices, faces, color, alpha in meshes:
        vertices, faces = np.asarray(vertices), np.asarray(faces)
        assert vertices.shape[1:] == faces.shape[1:] == (3,) and np.isfinite(vertices).all()
        assert not faces.size or (faces.min() >= 0 and faces.max() < len(vertices))
        assert color[0] == "#" and int(color[1:], 16) < 1 << 24 and 0 < alpha <= 1
    return np.full((size, size, 3), 255, np.uint8)


def undrawn(figure, path, **_) -> None:
    """The head of a PNG in the place of a finished figure: its axes are made, and not drawn."""
    assert figure.axes, "nothing to draw"
    width, height = (figure.get_size_inches() * figure.dpi).round().astype(int)
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height))


@pytest.fixture(scope="module", autouse=True)
def plain_pictures():
    """Drawing takes most of the time of some scripts, and no test here looks at what is drawn.

    tests/unit/test_pictures.py does, and tests/integration/test_workflow.py draws for real. So it
    is with distances between surfaces, and with tests/unit/test_surface_metrics.py.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surface, "SAMPLES", 1000)
        patch.setattr(figures, "render_meshes", white)
        patch.setattr("matplotlib.figure.Figure.savefig", undrawn)
        yield
