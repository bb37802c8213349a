"""Label maps and images, whatever file format they come in: the one door to volume files."""

from .affines import axes_like, corners_apart_mm, place_tolerance_mm, spacing_of
from .agreement import check_mask, check_truth
from .extent import beyond, check_extent, check_in_view, class_boxes, labelled_box
from .files import (
    LabelMap,
    image_grid,
    load_image,
    load_label_map,
    load_renamed,
    save_image,
    save_label_map,
    save_like,
)
from .hounsfield import check_hounsfield, labels_on

__all__ = [
    "LabelMap",
    "axes_like",
    "beyond",
    "check_extent",
    "check_hounsfield",
    "check_in_view",
    "check_mask",
    "check_truth",
    "class_boxes",
    "corners_apart_mm",
    "image_grid",
    "labelled_box",
    "labels_on",
    "load_image",
    "load_label_map",
    "load_renamed",
    "place_tolerance_mm",
    "save_image",
    "save_label_map",
    "save_like",
    "spacing_of",
]
