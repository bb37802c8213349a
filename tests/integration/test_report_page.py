"""The report in a browser with the network off: hearts are drawn, turn and lose structures."""

from __future__ import annotations

import pytest
from browser import BROWSER, look
from report_results import CLASSES, OFF_MM, TABLE, write_results

from cardiform.report.page import write_report

pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome on this machine")

ACTIONS = """
const scene = document.querySelector(".scene");
const until = async (fits) => { for (let k = 0; k < 200 && !fits(); k++) await pause(50); };
const names = () => scene.data.map((trace) => trace.name);
scene.scrollIntoView();
await until(() => scene.data && scene.querySelector("canvas"));
found.drawn = names();
found.eye = { ...scene.layout.scene.camera.eye };
scene.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
await until(() => scene.layout.scene.camera.eye.x !== found.eye.x);
found.turned = { ...scene.layout.scene.camera.eye };
document.querySelector('.classes input[value="aorta"]').click();
await until(() => scene.data.length < found.drawn.length);
found.without = names();
found.kept = scene.layout.scene.camera.eye.x === found.turned.x;
document.querySelector('.ways input[value="error"]').click();
await until(() => scene.data[0].intensity);
found.intensity = Array.from(scene.data[0].intensity).slice(0, 50);
found.bars = scene.data.filter((trace) => trace.showscale).length;
document.querySelector(".heart").selectedIndex = 2;
document.querySelector(".heart").dispatchEvent(new Event("change", { bubbles: true }));
await pause(300);
found.heart = document.querySelector(".heart").value;
const chart = document.querySelector(".chart");
chart.scrollIntoView();
await until(() => chart.data);
found.boxes = chart.data.length;
const controls = [...document.querySelectorAll("input, select")];
found.unnamed = controls.filter((control) => !control.closest("label")).length;
"""


@pytest.mark.slow
def test_a_heart_is_drawn_turns_and_loses_a_structure_without_an_error(tmp_path):
    folder = write_results(tmp_path / "acme")
    write_report(folder, folder / "report.html", TABLE)
    seen = look(folder / "report.html", ACTIONS, tmp_path)
    assert seen["errors"] == []
    found = seen["found"]
    titles = [label.title for label in TABLE if label.name in CLASSES]
    assert found["drawn"] == titles
    assert found["without"] == [title for title in titles if title != "Aorta"]
    assert found["turned"]["z"] == pytest.approx(found["eye"]["z"])
    assert found["kept"], "what is shown changes, the view does not"
    assert found["intensity"] == pytest.approx([OFF_MM] * len(found["intensity"]), abs=0.4)
    assert found["bars"] == 1 and found["heart"].startswith("worst")
    assert found["boxes"] == len(CLASSES) and found["unnamed"] == 0
