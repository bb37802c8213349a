"""Every option of every section refuses what no value of it can be, in one line with its key."""

from __future__ import annotations

import dataclasses
import math

import pytest

from cardiform import cli
from cardiform.anatomy import corruption
from cardiform.cohort.free_columns import check_free_columns
from cardiform.errors import InputError
from cardiform.fusion import rules
from cardiform.labels import BUILT_IN
from cardiform.ldm.option_checks import check_sources
from cardiform.options import coronary, fusion
from cardiform.options.checks import check_classes
from cardiform.options.config_files import typed
from cardiform.options.ldm import LdmOptions
from cardiform.options.search import SearchOptions
from cardiform.options.sections import SECTIONS, base_of
from cardiform.options.set_diffusion import SetSamplingOptions
from cardiform.search.space import parse_space
from cardiform.set_diffusion.option_checks import wanted_columns
from cardiform.statistics.cohort import check_path

FIELDS = {
    f"{section}.{field.name}": (section, field, cli._types(cls)[field.name])
    for section, cls in SECTIONS.items()
    for field in dataclasses.fields(cls)
}
BASES = {base_of(cls) for cls in SECTIONS.values()}
NUMBERS = (math.inf, -math.inf, math.nan, "inf", "-inf", "nan", "NaN", ".inf", "1e999", 10**400)
WRONG = {
    float: (*NUMBERS, "much", True, None, [1.0]),
    int: (*NUMBERS, 10**30, -(10**30), 1e30, 1e23, 1.5, "1e30", "five", True, None, [1]),
    bool: (1, 0, "maybe", "", None, 0.0),
    str: (5, True, ["a"], "-x", "a\nb"),
}
# Lists of texts that are neither of choices nor of classes, and what reads them.
PARSED = {
    "windows.windows": "write name=level/width", "ldm.sources": "name labels or pointclouds",
    "apply.models": "name a results folder", "search.space": "write key=low",
    "norms.groups": "columns of your own begin with x_",
    "set_latents.columns": "columns of your own begin with x_",
    "set_sampling.columns": "write column=number",
    "shape_statistics.columns": "columns of your own begin with x_",
    "shape_statistics.path": "name two different cases",
}  # fmt: skip


def of(kind):
    return [
        (key, kind_ is not kind)
        for key, (_, _, kind_) in FIELDS.items()
        if kind in (kind_, cli._element_type(kind_))
    ]


CASES = [
    (key, listed, value) for kind in WRONG for key, listed in of(kind) for value in WRONG[kind]
]


def refusal(key, value) -> list[str]:
    section, name = key.split(".")
    sections = {n: SECTIONS[n] for n in (section, base_of(SECTIONS[section])) if n}
    if section in BASES:  # what is wrong there is reported once, not by each heir
        sections = SECTIONS
    with pytest.raises(InputError) as caught:
        cli.from_config(sections, typed({section: {name: value}}, sections))
    return caught.value.problems


@pytest.mark.parametrize("key", FIELDS)
def test_values_that_no_option_of_its_type_takes(key):
    listed = {listed for k, listed, _ in CASES if k == key}
    assert listed, f"{key}: of a type that this test does not know"
    for k, listed, value in CASES:
        if k == key and not (listed and isinstance(value, list)):
            lines = refusal(key, [value] if listed else value)
            assert all(line.startswith(f"config: {key} ") for line in lines), (value, lines)
            assert all(len(line) < 400 and "\n" not in line for line in lines)


@pytest.mark.parametrize("key", [k for k, (_, f, _) in FIELDS.items() if f.name.endswith("seed")])
def test_seeds(key):
    for value in (-1, 2**32, 10**23, 1e23):
        assert len(refusal(key, value)) == 1


@pytest.mark.parametrize("key", [k for k, (_, f, _) in FIELDS.items() if f.metadata["choices"]])
def test_choices(key):
    kind = FIELDS[key][2]
    [line] = refusal(key, ["no_such"] if cli._element_type(kind) else "no_such")
    assert line.startswith(f"config: {key} is 'no_such'; one of ")


def test_lists_that_are_never_empty():
    keys = {k for k, (_, f, _) in FIELDS.items() if f.metadata["filled"]}
    assert keys == {"exports.formats", "coronary.kinds", "windows.windows"}
    for key in keys:
        [line] = refusal(key, [])
        assert line.startswith(f"config: {key} is empty; give one or more")


CLASSES = [k for k, (_, f, _) in FIELDS.items() if f.metadata["classes"]]


def test_every_option_that_names_classes_says_so():
    for key, (_, field, kind) in FIELDS.items():
        if str in (kind, cli._element_type(kind)):
            items = field.default if isinstance(field.default, tuple) else (field.default,)
            assert not set(items) & set(BUILT_IN) or field.metadata["classes"], key
        if cli._element_type(kind) is str and key not in PARSED:
            assert field.metadata["choices"] or field.metadata["classes"], key
    assert {"ldm.drop_classes", "sampling.volumes"} < set(CLASSES)


@pytest.mark.parametrize("key", CLASSES)
def test_classes_that_the_label_table_lacks(key):
    section, field, kind = FIELDS[key]
    text = "veins=3" if field.name == "volumes" else "veins"
    value = (text,) if cli._element_type(kind) else text
    options = {section: dataclasses.replace(SECTIONS[section](), **{field.name: value})}
    with pytest.raises(InputError) as caught:
        check_classes(options, ("lv", "rv"), "own.tsv", BUILT_IN)
    [line] = caught.value.problems
    assert line == f"config: {key} names veins; the label table own.tsv has lv, rv"
    check_classes(options, ("lv", "veins"), "own.tsv", BUILT_IN)


def test_the_lists_of_texts_that_are_read_otherwise():
    from cardiform.geometry.window_names import parse_windows

    with pytest.raises(InputError, match=PARSED["windows.windows"]):
        parse_windows(["no_such"])
    with pytest.raises(InputError, match=PARSED["ldm.sources"]):
        check_sources(LdmOptions(sources=("no_such",)))
    with pytest.raises(InputError, match=PARSED["search.space"]):
        parse_space(SearchOptions(training="vecset", space=("no_such",)))
    with pytest.raises(InputError, match=PARSED["norms.groups"]):
        check_free_columns("", ("x_no_such",), "norms.groups")
    with pytest.raises(InputError, match=PARSED["shape_statistics.columns"]):
        check_free_columns("", ("x_no_such",), "shape_statistics.columns")
    with pytest.raises(InputError, match=PARSED["shape_statistics.path"]):
        check_path(("no_such",), ())
    with pytest.raises(InputError, match=PARSED["set_latents.columns"]):
        check_free_columns("", ("x_no_such",), "set_latents.columns")
    with pytest.raises(InputError, match=PARSED["set_sampling.columns"]):
        wanted_columns(SetSamplingOptions(columns=("no_such",)))


def test_choices_are_what_there_is():
    assert tuple(rules.RULES) == fusion.RULES
    assert tuple(corruption.KINDS) == coronary.KINDS


def test_flags_are_refused_alike(capsys):
    from cardiform.options.vecset import VecsetOptions

    parser = cli.build_parser("test", VecsetOptions)
    for flag, value in (("--lr", "inf"), ("--truncation", "nan"), ("--steps", "9" * 30)):
        with pytest.raises(SystemExit) as caught:
            cli.parse(parser, VecsetOptions, arguments=[flag, value])
        assert caught.value.code == 2 and flag in capsys.readouterr().err
