"""How many examples a property-based test draws."""

from __future__ import annotations

from hypothesis import settings

SUITE = 30  # examples of the profile "suite"


def examples(few: int) -> settings:
    """``few`` examples within the suite; by hand, as many as the profile asks for."""
    most = settings.default.max_examples
    return settings(max_examples=few if most <= SUITE else most)
