"""The report: its numbers are those of the files; hearts and errors; hostile and missing input."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest
from report_more import write_everything, write_measures
from report_pages import Cells, numbers
from report_results import CLASSES, DICE, OFF_MM, TABLE, ball, write_results

from cardiform.errors import InputError
from cardiform.files import read_json, sha256_file, write_json
from cardiform.labels import LabelTable
from cardiform.report import figures, hearts, slices, trainings
from cardiform.report.page import _script_json, sections_of, write_report
from cardiform.report.parts import Results, titles_of


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = write_everything(tmp_path_factory.mktemp("results"))
    write_report(folder, folder / "report.html", TABLE, "acme")
    return folder / "report.html"


def test_a_coarser_level_stands_before_its_training():
    names = ["vqvae/stage2", "vqvae/stage0", "mine", "vqvae/stage0_128", "vqvae/stage0_64"]
    ordered = ["vqvae/stage0_64", "vqvae/stage0_128", "vqvae/stage0", "vqvae/stage2", "mine"]
    assert sorted(names, key=trainings._rank) == ordered
    title = trainings.title_of("vqvae/stage0_64")
    assert title == f"{trainings.title_of('vqvae/stage0')}, first at 64³"


def test_every_number_is_that_of_its_file(page):
    cells = Cells(page.read_text()).found
    assert len(cells) > 50
    for source, factor, text in cells:
        name, _, keys = source.partition("#")
        value = read_json(page.parent / name)
        for key in keys.split("/"):
            value = value[int(key)] if isinstance(value, list) else value[key]
        value *= factor
        digits = text.replace(",", "").rstrip("%")
        shown = float(digits) / (100 if text.endswith("%") else 1)
        places = len(digits.partition(".")[2]) + (2 if text.endswith("%") else 0)
        least = 10.0**-places if "e" not in digits and places < 5 else abs(value) * 1e-3
        assert shown == pytest.approx(value, abs=0.5001 * least, rel=6e-4), (source, text)


def test_a_wrong_number_would_be_noticed(page):
    """The test above fails where a page shows another number than its file holds."""
    path = page.parent / "vecset" / "metrics.json"
    found = read_json(path)
    try:
        write_json(path, found | {"best_step": 299})
        with pytest.raises(AssertionError, match="best_step"):
            test_every_number_is_that_of_its_file(page)
    finally:
        write_json(path, found)


def test_the_page_needs_nothing_from_elsewhere_and_shows_what_files_say_as_text(page):
    text = page.read_text()
    cells = Cells(text)
    assert all(where.startswith(("#", "data:image/png;base64,")) for where in cells.loaded)
    assert "default-src 'none'" in text
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in text
    held = _script_json({"name": "</script><!-- & -->"})
    assert json.loads(held) == {"name": "</script><!-- & -->"} and not set("<>&") & set(held)
    assert not set("<>&") & set(cells.drawn)
    assert page.stat().st_size < 10e6


def test_the_interval_is_that_of_a_bootstrap_over_the_cases(page):
    many = np.random.default_rng(1).normal(0.8, 0.05, 40)
    half = 1.96 * many.std() / np.sqrt(len(many))
    ends = many.mean() - half, many.mean() + half
    np.testing.assert_allclose(figures.interval(many[:, None]), ends, atol=0.1 * half)
    values = np.array([[0.9], [0.7], [0.8]])
    low, high = figures.interval(values)
    assert figures.interval(values) == (low, high), "always the same"
    assert figures.interval(np.array([[0.5], [np.nan]])) is None
    section = next(s for s in sections_of(Results(page.parent), TABLE) if s.name == "vecset")
    assert section.tables[0].rows[0][2].text == f"{low:.3f} to {high:.3f}"


def test_the_interval_of_a_group_holds_its_mean_where_classes_are_missing_in_most_cases():
    """The mean over classes of their means over cases, not the mean of the cases' means."""
    values = np.full((10, 2), np.nan)
    values[:, 0] = 0.9 + np.linspace(-0.01, 0.01, 10)
    values[0, 1] = 0.3
    low, high = figures.interval(values)
    middle = np.nanmean(np.nanmean(values, axis=0))
    assert middle == pytest.approx(0.6) and low < middle < high


def test_hearts_are_ranked_and_their_errors_are_the_distances(page):
    cases = read_json(page.parent / "vecset/reconstructions/metrics.json")["test"]["cases"]
    ranked = hearts.ranked(cases)
    assert [case_id for case_id, _ in ranked.values()] == ["c01", "c03", "c02"]
    assert ranked["best"][1] == pytest.approx(DICE["c01"] - 0.01)
    drawn = json.loads(Cells(page.read_text()).drawn)["vecset-hearts"]["viewers"][0]
    assert next(iter(drawn["hearts"])).startswith("best: c01, mean Dice 0.890")
    heart = {mesh["name"]: mesh for mesh in next(iter(drawn["hearts"].values()))}
    assert set(heart) == set(CLASSES)
    for mesh in heart.values():
        error = numbers(mesh["error"])
        assert len(error) == len(numbers(mesh["model"]["x"]))
        np.testing.assert_allclose(error, OFF_MM, atol=0.35)
        corners = np.stack([numbers(mesh["model"][axis]) for axis in "ijk"])
        assert corners.max() < len(error) and len(corners.T) <= hearts.FACES
    assert drawn["largest_mm"] == pytest.approx(OFF_MM, abs=0.35)


def test_outlines_lie_on_the_surfaces_and_left_is_on_the_right(page):
    drawn = json.loads(Cells(page.read_text()).drawn)["vecset-hearts"]["charts"][0]["figure"]
    whole = {"truth": ball("left_ventricle"), "model": ball("left_ventricle", OFF_MM)}
    for way, mesh in whole.items():
        pieces = slices.cut(mesh, 2, np.zeros(3))
        assert len(pieces) > 50 and np.abs(pieces[..., 2]).max() < 1e-4
        radius = np.linalg.norm(pieces[..., :2], axis=-1)
        np.testing.assert_allclose(radius, 30.0 + (OFF_MM if way == "model" else 0), atol=0.1)
    names = {trace["name"] for trace in drawn["data"]}
    assert {"Left ventricle, truth", "Left ventricle, model"} <= names
    layout = drawn["layout"]
    assert layout["xaxis"]["autorange"] == layout["xaxis2"]["autorange"] == "reversed"
    assert "autorange" not in layout["xaxis3"]


def test_fewer_triangles_are_the_same_surface():
    thick = ball("left_ventricle")
    thin = hearts.thinner(thick)
    assert len(thin.faces) <= hearts.FACES < len(thick.faces)
    away = np.abs(np.linalg.norm(thin.vertices, axis=1) - 30.0)
    assert away.max() < 0.1
    assert hearts.thinner(thin) is thin


@pytest.mark.parametrize("cases", [{}, {"a": {"model": {"aorta": {"dice": None}}}}])
def test_without_figures_no_heart_is_ranked(cases):
    assert hearts.ranked(cases) == {}


def test_of_two_hearts_one_is_the_best_and_one_the_worst():
    assert hearts.ranks({"a": 0.1, "b": 0.2}) == {"best": "b", "worst": "a"}
    assert hearts.ranks({"a": 0.1}) == {"best": "a"} and hearts.ranks({}) == {}
    many = {name: place for place, name in enumerate("edcba")}
    assert hearts.ranks(many) == {"best": "a", "median": "c", "worst": "e"}


def test_a_cut_structure_counts_for_no_rank():
    cases = {"a": {"model": {"aorta": {"dice": 0.2}, "coronary": {"dice": 0.6}}, "cut": ["aorta"]}}
    assert hearts.ranked(cases) == {"best": ("a", 0.6)}


def test_what_is_not_there_has_no_section(tmp_path):
    folder = write_results(tmp_path)
    names = [s.name for s in sections_of(Results(folder), TABLE)]
    assert names == [
        "cohort", "split", "vecset", "vecset-hearts", "generated", "trainings", "versions",
    ]  # fmt: skip
    (folder / "vecset" / "reconstructions" / "metrics.json").unlink()
    (folder / "vecset" / "metrics.json").unlink()
    (folder / "vecset" / "metrics.jsonl").write_text("{half a line")
    (folder / "ldm" / "labels" / "samples" / "figures.json").unlink()
    (folder / "ldm" / "labels" / "samples" / "overview.png").unlink()
    names = [s.name for s in sections_of(Results(folder), TABLE)]
    assert names == ["cohort", "split", "versions"]


def test_figures_of_a_model_before_are_left_out(tmp_path, caplog):
    """Of a training that ran again without what they come from: hidden_share set to 0, say."""
    folder = write_everything(tmp_path)
    completion = {"mean": {CLASSES[0]: {way: {"dice": 0.5} for way in ("model", "mean_shape")}}}
    write_json(folder / "vecset" / "completion" / "metrics.json", completion)
    models = ("vecset/model.pt", "coronary/cardiform/model.pt")
    files = [*folder.glob("vecset/*/metrics.json"), *folder.glob("coronary/*/metrics.json")]
    for place in models:
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_bytes(b"first")
    for path in files:
        write_json(path, read_json(path) | {"model_sha256": sha256_file(folder / models[0])})

    def shown() -> set[str]:
        sections = sections_of(Results(folder), TABLE)
        return {s.name for s in sections} | {t.title for s in sections for t in s.tables}

    before = shown()
    title = "Test hearts completed from their other structures by VecSet"
    kept = {"vecset", "vecset-hearts", "refined-coronary", title}
    assert len(files) == 3 and kept <= before and not caplog.records
    for place in models:
        (folder / place).write_bytes(b"second")
    assert not kept & shown()
    assert caplog.text.count("of another model than there is now") == 3
    for place in models:
        (folder / place).unlink()
    assert shown() == before, "what cannot be told is shown"


def test_measures_are_shown_with_the_hearts_that_are_far_from_the_rest(tmp_path):
    folder = write_results(tmp_path)
    write_measures(folder / "measures")
    section = next(s for s in sections_of(Results(folder), TABLE) if s.name == "measures")
    far, usual = section.tables
    shown = [[cell.text for cell in row] for row in far.rows]
    assert shown == [["c01", "aorta", "whole", "volume", "ml", "141", "+4.1"]]
    assert [cell.text for cell in usual.rows[0]][4:] == ["40", "100", "10", "85", "99", "115"]
    [volumes] = section.charts
    [trace] = volumes.figure["data"]
    assert (trace["name"], trace["y"], trace["text"]) == ("Aorta", [4.1, -1.0], ["c01", "c02"])


def test_bad_folders_are_one_line(tmp_path, run_script):
    result = run_script("write_report.py", "--results", tmp_path, "--out", tmp_path / "r.html")
    assert result.returncode == 2
    assert re.search(r"qc/cohort.json: does not exist; run the workflow first", result.stderr)
    assert len(result.stderr.strip().splitlines()) == 1 and not (tmp_path / "r.html").exists()
    folder = write_results(tmp_path / "acme")
    (folder / "qc" / "cohort.json").write_text("{")
    with pytest.raises(InputError, match=r"cohort\.json"):
        write_report(folder, folder / "report.html", TABLE)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("qc/cohort.json", '{"classes": 3, "cases": []}'),
        ("qc/cohort.json", "null"),
        ("vecset/reconstructions/metrics.json", '{"test": {"cases": {"c01": {"model": 1}}}}'),
        ("vecset/metrics.json", '{"steps": "many"}'),
        ("measures/norms.csv", "class;part\n"),
        ("measures/zscores.csv", "case_id,class,part,measure,value,unit,z\na,b,c,d,1,ml,abc\n"),
        ("measures/zscores.csv", b"case_id,\xff\n"),
    ],
)
def test_files_of_another_shape_are_one_line(tmp_path, name, content):
    folder = write_results(tmp_path)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=re.escape(name)) as caught:
        write_report(folder, folder / "report.html", TABLE)
    assert len(caught.value.problems) == 1 and ";" in caught.value.problems[0]
    assert not (folder / "report.html").exists()


def test_what_is_no_number_is_left_out_of_charts(tmp_path):
    folder = write_results(tmp_path)
    with (folder / "vecset" / "metrics.jsonl").open("a") as file:
        file.write('{"event": "log", "step": 301, "figures": {"loss": NaN}}\n')
    write_report(folder, folder / "report.html", TABLE)
    drawn = json.loads(Cells((folder / "report.html").read_text()).drawn)
    assert drawn["trainings"]["charts"][0]["figure"]["data"][0]["y"][-1] is None


def test_classes_with_equal_titles_or_none_are_told_apart():
    table = LabelTable(
        tuple(dataclasses.replace(c, title=t) for c, t in zip(TABLE, ("Wall", "Wall", "")))
    )
    assert list(titles_of(table).values()) == [
        "Wall (myocardium)", "Wall (left_atrium)", "left_ventricle",
    ]  # fmt: skip


def test_the_script_writes_the_page_again_over_its_own(tmp_path, run_script):
    folder = write_results(tmp_path / "acme")
    for heading in ("first", "second"):
        call = ("--results", folder, "--out", folder / "report.html", "--name", heading)
        result = run_script("write_report.py", *call)
        assert result.returncode == 0, result.stderr
        assert f"<h1>{heading}</h1>" in (folder / "report.html").read_text()
    assert "MB: Cohort, Split, VecSet" in result.stderr
    mine = folder / "mine.html"
    mine.write_text("<html>my notes</html>")
    result = run_script("write_report.py", "--results", folder, "--out", mine)
    assert result.returncode == 2 and "was not made by this script" in result.stderr
    assert mine.read_text() == "<html>my notes</html>"


def test_a_thousand_cases_stay_small(tmp_path):
    folder = write_results(tmp_path, cases=1000)
    write_report(folder, folder / "report.html", TABLE)
    assert (folder / "report.html").stat().st_size < 30e6
