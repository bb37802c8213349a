"""Options of label fusion."""

from __future__ import annotations

from dataclasses import dataclass

from .field import option

RULES = (
    "appendage_touches_atrium",
    "veins_touch_atrium",
    "coronary_on_heart",
    "myocardium_holes",
    "largest_components",
    "enclosed_voxels",
)


@dataclass(frozen=True, kw_only=True)
class FusionOptions:
    """Label fusion by priority, and the rules of anatomical consistency."""

    rules: tuple[str, ...] = option(RULES, "rules in the order in which they act", choices=RULES)
    touch_mm: float = option(
        0.5, "structures that are no farther apart touch, mm (and a voxel's diagonal)", minimum=0.0
    )
    coronary_mm: float = option(
        5.0, "coronaries lie within this of any other structure, mm", minimum=0.0
    )
    coronary_min_mm3: float = option(
        50.0, "smaller coronary components apart from the rest are removed, mm^3", minimum=0.0
    )
    hole_mm3: float = option(
        1_000.0, "larger cavities of the myocardium are not filled, mm^3", minimum=0.0
    )
    largest: tuple[str, ...] = option(
        (
            "myocardium",
            "left_atrium",
            "left_ventricle",
            "right_atrium",
            "right_ventricle",
            "aorta",
            "pulmonary_artery",
        ),
        "classes whose separate parts are removed beyond the number that the label table expects",
        classes=True,
    )
