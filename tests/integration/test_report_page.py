"""The report in a browser with the network off: hearts are drawn, turn and lose structures."""

from __future__ import annotations

import pytest
from browser import browser, opened
from report_more import GROWS_MM, SHARES, write_everything
from report_results import CLASSES, OFF_MM, RADII, TABLE

from cardiform.report.page import write_report

pytestmark = pytest.mark.slow

START = """
const figureOf = (name) => document.querySelector(`#${name} figure:has(.scene)`);
const shownIn = async (name) => {
  const scene = figureOf(name).querySelector(".scene");
  scene.scrollIntoView();
  await until(() => scene.data && scene.querySelector("canvas"));
  return scene;
};
const set = (input, value) => {
  input.value = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
};
"""
HEARTS = """
const scene = await shownIn("vecset-hearts");
const names = () => scene.data.map((trace) => trace.name);
found.drawn = names();
found.eye = { ...scene.layout.scene.camera.eye };
scene.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
await until(() => scene.layout.scene.camera.eye.x !== found.eye.x);
found.turned = { ...scene.layout.scene.camera.eye };
document.querySelector('#vecset-hearts .classes input[value="aorta"]').click();
await until(() => scene.data.length < found.drawn.length);
found.without = names();
found.kept = scene.layout.scene.camera.eye.x === found.turned.x;
document.querySelector('#vecset-hearts .ways input[value="error"]').click();
await until(() => scene.data[0].intensity);
found.intensity = Array.from(scene.data[0].intensity).slice(0, 50);
found.bars = scene.data.filter((trace) => trace.showscale).length;
const heart = document.querySelector("#vecset-hearts .heart");
heart.selectedIndex = 2;
heart.dispatchEvent(new Event("change", { bubbles: true }));
await pause(300);
found.heart = heart.value;
const chart = document.querySelector(".chart");
chart.scrollIntoView();
await until(() => chart.data);
found.boxes = chart.data.length;
"""
MODES = """
const mean = await shownIn("modes");
const radius = () => Math.max(...Array.from(mean.data[0].x, Math.abs));
const [first, second] = document.querySelectorAll("#modes input[type=range]");
found.radius = [radius()];
set(first, 2);
await until(() => radius() !== found.radius[0]);
found.radius.push(radius());
found.range = mean.layout.scene.xaxis.range;
found.said = [first.getAttribute("aria-valuetext"), first.parentElement.innerText.trim()];
const top = () => Math.max(...mean.data[1].z);
found.top = [top()];
set(second, -3);
await until(() => top() !== found.top[0]);
found.top.push(top());
document.querySelector('#modes .ways input[value="moved"]').click();
await until(() => mean.data[0].intensity);
found.moved = [mean.data[0].intensity, mean.data[1].intensity].map((way) => Math.max(...way));
document.querySelector("#modes button").click();
await until(() => radius() < found.radius[1]);
found.radius.push(radius());
found.values = [first.value, first.getAttribute("aria-valuetext")];
"""
PAIRS = """
const pair = await shownIn("generated");
const least = (x) => Math.min(...(x.bdata ? numbers(x) : x));
found.pair = pair.data.map((trace) => [trace.name, least(trace.x)]);
const vessel = await shownIn("refined-coronary");
found.ways = [];
for (const input of document.querySelectorAll("#refined-coronary .ways input")) {
  input.click();
  await pause(200);
  found.ways.push([input.value, vessel.data.length]);
}
"""
ACCESS = """
const controls = [...document.querySelectorAll("input, select")];
found.unnamed = controls.filter((control) => !control.closest("label")).length;
const reached = [...document.querySelectorAll("a, input, select, button, summary, [tabindex]")];
found.forced = reached.filter((element) => element.tabIndex > 0).length;
found.silent = [...document.querySelectorAll(".scene, .chart")].filter(
  (element) => !element.getAttribute("aria-label"),
).length;
found.groups = [...document.querySelectorAll("fieldset")].filter(
  (group) => !group.querySelector("legend"),
).length;
const ids = new Set(Array.from(document.querySelectorAll("[name]"), (input) => input.name));
found.checked = [...ids].filter((name) => name.endsWith("way") || name.endsWith("paint")).map(
  (name) => document.querySelectorAll(`[name="${name}"]:checked`).length,
);
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    if not browser():
        pytest.skip("no Chromium or Chrome on this machine")
    folder = write_everything(tmp_path_factory.mktemp("acme"))
    write_report(folder, folder / "report.html", TABLE)
    return folder / "report.html"


def test_hearts_are_drawn_turn_change_and_lose_a_structure_without_an_error(page, tmp_path):
    with opened(page, tmp_path) as tab:
        found = tab.see(START + HEARTS + MODES + PAIRS + ACCESS)
    assert tab.errors == []
    titles = [label.title for label in TABLE if label.name in CLASSES]
    assert found["drawn"] == titles
    assert found["without"] == [title for title in titles if title != "Aorta"]
    assert found["turned"]["z"] == pytest.approx(found["eye"]["z"])
    assert found["kept"], "what is shown changes, the view does not"
    assert found["intensity"] == pytest.approx([OFF_MM] * len(found["intensity"]), abs=0.4)
    assert found["bars"] == 1 and found["heart"].startswith("worst")
    assert found["boxes"] == len(CLASSES)
    # modes of variation
    radius = RADII["left_ventricle"]
    assert found["radius"] == pytest.approx([radius, radius + 2 * GROWS_MM, radius], abs=0.3)
    assert found["range"][1] >= radius + 3 * GROWS_MM
    assert found["top"] == pytest.approx([72, 72 - 3 * 3], abs=0.3)
    assert found["moved"] == pytest.approx([2 * GROWS_MM, 3 * 3], abs=0.05)
    assert found["said"][0] == "2.0 standard deviations"
    assert f"{SHARES[0]:.0%}"[:2] in found["said"][1] and "2.0" in found["said"][1]
    assert found["values"] == ["0", "0.0 standard deviations"]
    # generated beside training hearts, masks before and after
    assert sorted(name for name, _ in found["pair"]) == ["Aorta"] * 2 + ["Left ventricle"] * 2
    lows = sorted(low for _, low in found["pair"])
    assert lows[0] < -90 and lows[-1] > -35, "the training heart is on the patient's left"
    assert [count for _, count in found["ways"]] == [1, 1, 1, 1, 2]
    # for keyboards and readers of screens
    assert found["unnamed"] == found["forced"] == found["silent"] == found["groups"] == 0
    assert set(found["checked"]) == {1}


def test_it_is_read_on_a_phone(page, tmp_path):
    """Nothing is wider than the screen but what scrolls by itself."""
    actions = """
    const width = document.documentElement.clientWidth;
    found.width = width;
    found.wide = [...document.querySelectorAll("main *, header *")].filter((element) => {
      const box = element.getBoundingClientRect();
      return box.right > width + 1 && !element.closest(".wide, .scene, .chart, svg");
    }).map((element) => element.outerHTML.slice(0, 80));
    found.small = [...document.querySelectorAll("input[type=range]")].filter(
      (input) => input.getBoundingClientRect().width < 90,
    ).length;
    """
    with opened(page, tmp_path, size=(390, 844)) as tab:
        found = tab.see(actions)
    assert tab.errors == []
    assert found == {"width": 390, "wide": [], "small": 0}
