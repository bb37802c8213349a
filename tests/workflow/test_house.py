"""The picture of the house and the imports in docs/architecture.md are those of the code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
AGAIN = "run python tools/draw_house.py"


@pytest.fixture
def house(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    yield __import__("draw_house")
    sys.modules.pop("draw_house")


def test_every_room_has_a_place_in_the_picture_and_a_row_on_the_page(house):
    rooms = house.imports_of_rooms().keys()
    assert rooms == {*house.CELLAR, *house.PLAN}, f"give it a place in PLAN, then {AGAIN}"
    page = house.PAGE.read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert all(any(f"`{room}`" in row for row in rows) for room in rooms)


def test_page_and_picture_show_the_imports_of_the_code(house):
    text = house.block(house.imports_of_rooms())
    page = house.PAGE.read_text(encoding="utf-8")
    assert house.with_block(page, text) == page, AGAIN
    with Image.open(house.PICTURE) as picture:
        assert picture.info["Description"] == text, AGAIN


def test_no_arrow_leads_upward(house):
    for room, used in house.reduced(house.imports_of_rooms()).items():
        assert all(house.PLAN[x][1] <= house.PLAN[room][1] for x in used), (room, used)


def test_arrows_that_follow_from_others_are_left_out(house):
    edges = {room: set() for room in house.PLAN}
    edges |= {"vecset": {"training", "metrics"}, "training": {"metrics"}, "metrics": {"errors"}}
    drawn = house.reduced(edges)
    assert (drawn["vecset"], drawn["training"], drawn["metrics"]) == (
        {"training"},
        {"metrics"},
        set(),
    )
