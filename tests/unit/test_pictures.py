"""Pictures: the rasteriser, the comparison of a case, the curves of a training."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from matplotlib import image as mpl_image

from cardiform.errors import InputError
from cardiform.pictures.curves import panels, plot_curves, read_events
from cardiform.pictures.figures import compare_picture
from cardiform.pictures.rasteriser import ANTERIOR, BACKGROUND, render_meshes
from cardiform.pictures.slices import section_picture

RED, BLUE = "#ff0000", "#0000ff"


def square(y, x0, x1, z0=-10.0, z1=10.0):
    """Two triangles in the coronal plane ``y`` mm, facing anterior."""
    vertices = np.array([[x0, y, z0], [x1, y, z0], [x1, y, z1], [x0, y, z1]], np.float32)
    return vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32)


def colors(picture, color):
    """Pixels whose strongest channel is that of a pure colour."""
    channel = {RED: 0, BLUE: 2}[color]
    others = [c for c in range(3) if c != channel]
    return (picture[..., channel] > picture[..., others].max(axis=-1) + 50.0).mean()


def test_what_is_nearer_hides_what_is_behind():
    front, back = square(20, -10, 10), square(-20, -10, 10)
    view = (0.0, ANTERIOR[1])
    seen = render_meshes([(*back, BLUE, 1.0), (*front, RED, 1.0)], view=view, size=60)
    assert colors(seen, RED) > 0.1 and colors(seen, BLUE) == 0
    behind = render_meshes([(*back, BLUE, 1.0), (*front, RED, 1.0)], view=(0.0, 270.0), size=60)
    assert colors(behind, BLUE) > 0.1 and colors(behind, RED) == 0


def test_the_right_of_the_body_is_on_the_left_of_an_anterior_view():
    right, left = square(0, 20, 40), square(0, -40, -20)  # RAS: x grows to the body's right
    seen = render_meshes([(*right, RED, 1.0), (*left, BLUE, 1.0)], view=(0.0, ANTERIOR[1]), size=60)
    half = seen.shape[1] // 2
    assert colors(seen[:, :half], RED) > 0 and colors(seen[:, half:], RED) == 0
    assert colors(seen[:, half:], BLUE) > 0 and colors(seen[:, :half], BLUE) == 0


@pytest.mark.filterwarnings("error")
def test_triangles_without_an_area_cover_nothing():
    """Lines, points and what is seen edge on, as the surfaces of specks have."""
    vertices, faces = square(0, -10, 10)
    lines = [[0, 0, 1], [2, 2, 2], [0, 3, 3]]
    both = [(vertices, np.concatenate([faces, lines]), RED, 1.0)]
    assert (
        render_meshes(both, size=60) == render_meshes([(vertices, faces, RED, 1.0)], size=60)
    ).all()
    assert (render_meshes([(vertices, np.array(lines), RED, 1.0)], size=60) == 255).all()


def test_a_glassy_surface_lets_others_through():
    front, back = square(20, -10, 10), square(-20, -5, 5, -5, 5)
    view = (0.0, ANTERIOR[1])
    solid = render_meshes([(*back, BLUE, 1.0), (*front, RED, 1.0)], view=view, size=60)
    glassy = render_meshes([(*back, BLUE, 1.0), (*front, RED, 0.2)], view=view, size=60)
    middle = (slice(28, 32), slice(28, 32), 2)
    assert glassy[middle].mean() > solid[middle].mean() + 50
    alone = render_meshes([(*back, BLUE, 1.0)], view=view, size=60)
    tinted = (*middle[:2], 0)
    assert glassy[tinted].mean() > alone[tinted].mean() + 10, "it lies before the other"
    empty = render_meshes([], view=view, size=10)
    assert (empty == 255 * BACKGROUND).all()


def test_a_surface_is_darker_where_another_stands_before_it():
    front, back = square(20, -3, 3, -3, 3), square(-20, -20, 20, -20, 20)
    view = (0.0, ANTERIOR[1])
    seen = render_meshes([(*back, BLUE, 1.0), (*front, RED, 1.0)], view=view, size=200)[..., 2]
    assert seen[100, 82] < 0.9 * seen[100, 40], "beside the front, and far from it"


def test_the_comparison_shows_both_sides(tmp_path):
    truth, made = [(*square(0, -10, 10), RED, 1.0)], [(*square(0, -10, 10), BLUE, 1.0)]
    path = tmp_path / "compare.png"
    compare_picture(path, truth, made, legend={"Aorta": RED}, caption="case", size=200)
    picture = 255 * mpl_image.imread(path)[..., :3]
    assert colors(picture, RED) > 0.01 and colors(picture, BLUE) > 0.01
    first = path.read_bytes()
    compare_picture(path, truth, made, legend={"Aorta": RED}, caption="case", size=200)
    assert path.read_bytes() == first, "the same picture is the same file"
    compare_picture(path, truth, [], legend={"Aorta": RED}, caption="nothing came out", size=200)


EVENTS = [
    {"event": "start", "step": 0},
    {"event": "log", "step": 10, "lr": 0.1, "figures": {"loss": 2.0}},
    {"event": "log", "step": 20, "lr": 0.05, "figures": {"loss": 1.0}},
    {"event": "validation", "step": 20, "figures": {"loss": 1.5, "dice_aorta": None}},
]


def test_events_become_series(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(e) + "\n" for e in EVENTS))
    training, validation = read_events(path)
    assert training == {"loss": [(10, 2.0), (20, 1.0)], "lr": [(10, 0.1), (20, 0.05)]}
    assert validation == {"loss": [(20, 1.5)]}
    plot_curves(path, tmp_path / "curves.png")
    picture = mpl_image.imread(tmp_path / "curves.png")
    assert picture.ndim == 3 and picture[..., :3].std() > 0.01


def test_figures_of_one_kind_share_a_panel():
    found = panels(["loss", "dice", "dice_a", "dice_b", "dice_c", "kl_x"])
    together = next(names for names in found.values() if len(names) > 1)
    assert {"dice_a", "dice_b", "dice_c"} <= set(together)
    names = sorted(itertools.chain(*found.values()))
    assert names == ["dice", "dice_a", "dice_b", "dice_c", "kl_x", "loss"]


@pytest.mark.parametrize("content", [None, "no json\n", '{"event": "log"}\n'])
def test_unusable_logs_are_named(tmp_path, content):
    path = tmp_path / "metrics.jsonl"
    if content:
        path.write_text(content)
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        plot_curves(path, tmp_path / "curves.png")


def test_sections_are_filled_where_the_field_is_negative(tmp_path):
    colors_of = ["#ff0000", "#0000ff"]
    points = np.array([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]], np.float32)

    def half(positions):  # channel 0 to the right of the body, nothing else
        return np.stack([-positions[:, 0], np.ones(len(positions))], axis=1)

    section_picture(tmp_path / "s.png", half, points, np.array([1, 1]), colors_of, "step 3")
    picture = 255 * mpl_image.imread(tmp_path / "s.png")[..., :3]
    axial = picture[60:-10, : picture.shape[1] // 3]
    left, right = np.array_split(axial, 2, axis=1)
    assert colors(right, RED) > 0.5 and colors(left, RED) < 0.05
    assert colors(picture, BLUE) > 0, "the points are shown"
