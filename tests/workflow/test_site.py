"""The documentation site: it builds without a warning and needs no network."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from browser import browser, opened
from env_files import read_rules
from mkdocs.commands.build import build
from mkdocs.config import load_config

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
# Rules that the drawing of README.md leaves out: steps within a stage, and the targets vessels and
# set_diffusion.
NOT_DRAWN = {
    "split_pointclouds", "collect_fused", "encode_vessels", "train_vessels", "draw_vessels",
    "evaluate_vessels", "resample_set_labels", "evaluate_set_samples", "encode_set_vessels",
    "draw_set_vessels", "evaluate_set_vessels",
}  # fmt: skip

TAGS = {
    "a", "article", "b", "blockquote", "br", "button", "code", "dd", "div", "dl", "dt", "em",
    "form", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "img", "input", "label", "li", "nav",
    "ol", "p", "path", "pre", "rect", "small", "span", "strong", "sub", "sup", "svg", "table",
    "tbody", "td", "text", "th", "thead", "tr", "ul",
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, and what its build warned of."""
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("mkdocs").addHandler(handler)
    out = tmp_path_factory.mktemp("site")
    before = sys.path[:], set(sys.modules)
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(out))
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    logging.getLogger("mkdocs").removeHandler(handler)
    sys.path[:] = before[0]
    for name in {"site_drawing", "site_pages", "write_config_files"} - before[1]:
        sys.modules.pop(name, None)
    return out, warnings


def test_every_page_has_a_place_and_every_link_a_target(site):
    what_to_do = "give a new page a place in the nav of mkdocs.yml; correct the links:"
    assert not site[1], "\n".join([what_to_do, *site[1]])


def test_every_page_is_there(site):
    pages = {path.relative_to(site[0]).as_posix() for path in site[0].rglob("*.html")}
    wanted = {f"{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    wanted |= {f"notebooks/{path.stem}.html" for path in NOTEBOOKS}
    assert wanted <= pages
    assert {"index.html", "config.html", "rules.html", "api/vecset.html"} <= pages


def test_pages_need_no_network(site):
    for page in site[0].rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", text):
            loaded = re.search(r"\b(?:src|href)=[\"']?(?:https?:)?//", tag)
            assert not loaded or 'rel="canonical"' in tag, f"{page.name}: {tag}"


def test_no_placeholder_is_taken_for_a_tag(site):
    """``<case>`` outside of code would not be seen, here and on a forge."""
    for page in site[0].rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        body = re.search(r"<article.*?</article>", text, re.S)
        found = set(re.findall(r"<([a-z]\w*)", body[0])) if body else set()
        assert found <= TAGS, f"{page.name}: {found - TAGS}"


def test_the_search_works_from_a_folder_without_a_network(site, tmp_path):
    if not browser():
        pytest.skip("no Chromium or Chrome on this machine")
    actions = """
        await pause(500);
        const field = document.querySelector("input.md-search__input");
        document.querySelector("[data-md-toggle=search]").click();
        field.value = "z-scores";
        for (const name of ["focus", "keyup"]) field.dispatchEvent(new Event(name));
        const item = () => document.querySelector(".md-search-result__item a");
        for (let n = 0; n < 100 && !item(); n++) await pause(100);
        found.first = item() && item().href;
    """
    with opened(site[0] / "index.html", tmp_path) as tab:
        found = tab.see(actions)
    assert "measures.html" in found["first"] and tab.errors == []


def test_the_reference_has_every_rule_and_every_script(site):
    text = (site[0] / "rules.html").read_text(encoding="utf-8")
    scripts = [path.name for path in (ROOT / "workflow" / "scripts").glob("*.py")]
    for name in [*read_rules()[1], *scripts]:
        assert name in text, name


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_stored(path, tmp_path):
    copy = tmp_path / path.relative_to(ROOT)
    copy.parent.mkdir(parents=True)
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    shutil.copy(path, copy)
    command = [sys.executable, ROOT / "tools" / "run_notebook.py", copy]
    result = subprocess.run(
        command, env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    stored, made = (json.loads(p.read_text(encoding="utf-8"))["cells"] for p in (path, copy))
    for cell, again in zip(stored, made, strict=True):
        for output, other in zip(cell.get("outputs", []), again.get("outputs", []), strict=True):
            if "image/png" in output.get("data", {}):
                assert other["data"]["image/png"]
            else:
                assert output == other, "run tools/run_notebook.py again"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_drawing_of_the_readme_has_the_rules(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    site_drawing = __import__("site_drawing")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    chart = site_drawing.read_chart(re.search(r"```mermaid\n(.*?)```", text, re.S)[1])
    drawn = {*chart.nodes, *chart.nodes.values()} & {*read_rules()[1]}
    assert drawn == {rule.name for rule in read_rules()[0]} - NOT_DRAWN
    assert len(chart.nodes) == len(drawn) + 2, "the case table and the new label maps are no rules"
