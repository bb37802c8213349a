"""Label maps and images, whatever file format they come in: the one door to volume files."""

from .affines import axes_like, corners_apart_mm, place_tolerance_mm, spacing_of
from .files import (
    LabelMap,
    image_grid,
    load_image,
    load_label_map,
    save_image,
    save_label_map,
    save_like,
)

__all__ = [
    "LabelMap",
    "axes_like",
    "corners_apart_mm",
    "image_grid",
    "load_image",
    "load_label_map",
    "place_tolerance_mm",
    "save_image",
    "save_label_map",
    "save_like",
    "spacing_of",
]
