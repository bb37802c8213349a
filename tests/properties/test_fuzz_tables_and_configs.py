"""Tables, window lists, flags and configs as hands leave them: read right, or named in a line."""

from __future__ import annotations

import dataclasses
import math

import pytest
import yaml
from dag import make_project, snakemake
from drawn_label_maps import plain
from hostile_text import CELLS, ENCODINGS, edited_tables, seldom
from hypothesis import example, given
from hypothesis import strategies as st
from profiles import examples
from stages import FEW_POINTS, Cohort, errors_of

from cardiform import cli
from cardiform.errors import InputError
from cardiform.geometry.window_names import parse_windows
from cardiform.labels import LabelTable, load_label_table
from cardiform.options.geometry import MeshesOptions, PointsOptions, VoxelsOptions
from cardiform.options.sections import SECTIONS

CASES = edited_tables(
    ("case_id", "patient_id", "labels"),
    (("c0", "p0", "heart.nii.gz"), ("c1", "p1", "other.nii.gz")),
)
LABELS = edited_tables(
    ("value", "name", "title", "color", "components", "priority"),
    (("1", "muscle", "Muscle", "#b5654a", "1", "2"), ("3", "blood", "Blood", "#c41e2a", "1", "1")),
)


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    """Two label maps, of classes 1 and 3, and a table of them."""
    folder = tmp_path_factory.mktemp("hearts")
    plain().write(folder, "heart")
    drawn = plain()
    drawn.data[9, 9, 9] = 1
    drawn.write(folder, "other")
    (folder / "sound.tsv").write_text("case_id\tlabels\nc0\theart.nii.gz\nc1\tother.nii.gz\n")
    return folder


@examples(20)
@given(CASES)
def test_a_case_table_is_checked_or_its_lines_are_named(hearts, tmp_path, content):
    (hearts / "edited.tsv").write_bytes(content)
    cohort = Cohort(hearts / "edited.tsv", tmp_path / "out")
    result = cohort.check()
    if result.returncode:
        named = ("edited.tsv", "cohort: ", "case ")
        assert all(any(word in line for word in named) for line in errors_of(result))
        return
    cases = cohort.cases()
    assert len({case.case_id for case in cases}) == len(cases)
    files = {str(hearts / name) for name in ("heart.nii.gz", "other.nii.gz")}
    assert all(case.labels in files for case in cases if case.status == "ok")


@examples(200)
@given(LABELS)
def test_a_label_table_is_read_or_its_lines_are_named(tmp_path, content):
    path = tmp_path / "labels.tsv"
    path.write_bytes(content)
    try:
        table = load_label_table(path)
    except InputError as error:
        assert error.problems and all("labels.tsv" in line for line in error.problems)
        assert not any("invalid literal" in line or "\n" in line for line in error.problems)
        return
    assert table and len(set(table.values)) == len(table) == len(set(table.names))
    assert all(1 <= value <= 255 for value in table.values)
    assert LabelTable.from_dicts(table.as_dicts()) == table


@examples(8)
@given(LABELS)
def test_a_cohort_with_any_label_table_is_checked_and_meshed(hearts, tmp_path, content):
    path = tmp_path / "labels.tsv"
    path.write_bytes(content)
    cohort = Cohort(hearts / "sound.tsv", tmp_path / "out")
    result = cohort.run("check_cohort.py", "--table", cohort.table, "--out", cohort.out,
                        "--labels", path)  # fmt: skip
    if result.returncode:
        named = ("labels.tsv", "heart.nii.gz", "other.nii.gz", "cohort: ")
        assert all(any(name in line for name in named) for line in errors_of(result))
        return
    result = cohort.stage("extract_meshes.py", "meshes", "--labels", path, meshes=False)
    assert result.returncode == 0, result.stderr


pieces = st.sampled_from([*CELLS, "bone", "=", "/", "300", "1500", "-", "0.5", "1e9", ","])
windows = st.lists(st.lists(pieces, max_size=6).map("".join) | st.just("bone=300/1500"), max_size=3)


@examples(100)
@given(windows)
@example(["bone=" + "9" * 400 + "/1"])
@example(["bone=3/0." + "0" * 400 + "1"])
def test_a_list_of_windows_is_read_or_refused(texts):
    try:
        found = parse_windows(texts)
    except InputError as error:
        assert error.problems and not any("\n" in line for line in error.problems)
        return
    assert len(found) == len(texts)
    for window in found.values():
        assert math.isfinite(window.level) and math.isfinite(window.width)
        assert window.low < window.high


values = st.sampled_from([*filter(str.isprintable, CELLS), "true", "0.5", "1e-4", "8", "64", "2.0"])


@examples(15)
@given(st.data())
def test_flags_of_any_value_are_obeyed_or_refused(hearts, data):
    cohort = Cohort(hearts / "sound.tsv", hearts / "flags")
    if not (cohort.out / "cases.tsv").exists():
        cohort.check()
        cohort.geometry(32)
    stage, options, few = data.draw(st.sampled_from([
        (("extract_meshes.py", "meshes_flags"), MeshesOptions, ()),
        (("sample_sdf.py", "points_flags"), PointsOptions, FEW_POINTS),
        (("voxelize_labels.py", "voxels_flags"), VoxelsOptions, ("--resolution", 32)),
    ]))  # fmt: skip
    names = [field.name.replace("_", "-") for field in dataclasses.fields(options)]
    drawn = data.draw(st.dictionaries(st.sampled_from(names), values, max_size=2))
    large = {"resolution", "band-voxels", "surface-points", "near-points", "volume-points"}
    flags = [f"--{name}={value}" for name, value in drawn.items() if name not in large]
    cohort.stage(*stage, *few, *flags, meshes=options is not MeshesOptions)


ANYTHING = (
    "[1, 2]", "[a, [b]]", "{}", "yes", "2026-01-01", "~", "&a 1", "*a", "!!python/tuple [1]", "|",
    "'{x}'", "'-x'", '"\\0"', "é", "12:30:00", "'5'", "5",
)  # fmt: skip
NUMBERS = (".inf", "-.inf", "'inf'", ".nan", "1e400", "1e23", "9" * 30, "0x10", "1_000", "-0.0")


@st.composite
def configs(draw) -> bytes:
    """A config file with some sections, keys and values, and slips of the hand."""
    rng, sections = draw(st.randoms(use_true_random=True)), draw(st.integers(1, 3))
    lines = []
    for name in rng.choices(list(SECTIONS), k=sections):
        fields = dataclasses.fields(SECTIONS[name])
        name = seldom(rng, name, ["vecsets", "Cohort"], 0.05)
        lines.append(f"{name}:" + seldom(rng, "", [" 5", " []", " {a: 5}"], 0.05))
        for field in rng.choices(fields, k=rng.randint(1, 3)):
            usual = (cli.to_text(field.default),)
            value = rng.choice(rng.choice([NUMBERS, ANYTHING, usual]))
            indent = seldom(rng, "  ", ["\t", ""], 0.02)
            lines.append(f"{indent}{field.name}: {value}")
    text = "\n".join(lines) + seldom(rng, "\n", ["", "\n---\n", "\n}"], 0.05)
    return text.encode(seldom(rng, "utf-8", ENCODINGS), errors="replace")


@examples(100)
@given(configs())
def test_a_config_file_gives_options_or_names_its_keys(content):
    try:
        config = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError):
        return  # said by Snakemake
    if not isinstance(config, dict):
        return
    try:
        options = cli.from_config(SECTIONS, config)
    except InputError as error:
        assert error.problems and all(p.startswith("config: ") for p in error.problems)
        return
    for found in options.values():
        for value in dataclasses.astuple(found):
            for item in value if isinstance(value, tuple) else (value,):
                assert not isinstance(item, float) or math.isfinite(item)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


def is_text(content: bytes) -> bool:
    try:
        return bool(content.decode())
    except UnicodeDecodeError:
        return False


@examples(4)
@given(configs())
def test_a_config_file_is_planned_or_refused_without_a_traceback(project, content):
    if not is_text(content):
        return  # Snakemake reads the file first, and fails
    (project / "mine.yaml").write_bytes(content)
    result = snakemake(project, "-n")
    said = result.stdout + result.stderr
    assert "Traceback" not in said, said
    assert result.returncode == 0 or said.strip()
