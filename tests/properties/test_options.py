"""Options: config, flags and schema say the same of any value."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import texts

from cardiform import cli
from cardiform.errors import InputError
from cardiform.options.field import INTEGER_MAX
from cardiform.options.sections import SECTIONS

VALIDATOR = jsonschema.Draft202012Validator(cli.json_schema(SECTIONS))
PRINTABLE = {"exclude_categories": ("C", "Z"), "include_characters": " "}
free_texts = st.text(st.characters(**PRINTABLE), max_size=20)
# a flag lists them with commas
items = st.text(st.characters(**PRINTABLE, exclude_characters=","), min_size=1, max_size=20)
DEEP = settings(max_examples=8)  # for each of the sections


def values_of(field, kind):
    """Values that a field takes."""
    meta, element = field.metadata, cli._element_type(kind)
    if element is not None:
        is_text = element is str and not meta["choices"]
        one = items.filter(no_dash) if is_text else values_of_one(meta, element)
        return st.lists(one, min_size=int(element is not str or meta["filled"]), max_size=4).map(
            tuple
        )
    return values_of_one(meta, kind)


def values_of_one(meta, kind):
    if meta["choices"]:
        return st.sampled_from(meta["choices"])
    if meta["pattern"]:
        return st.from_regex(meta["pattern"], fullmatch=True).filter(str.isascii)
    low, high, step = meta["minimum"], meta["maximum"], meta["multiple"] or 1
    if kind is bool:
        return st.booleans()
    if kind is int:
        first = -(-low // step) if low is not None else None
        last = (INTEGER_MAX if high is None else high) // step
        return st.integers(first, last).map(step.__mul__)
    if kind is float:
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    return free_texts.filter(no_dash)


def no_dash(text: str) -> bool:
    return not text.startswith("-")


@st.composite
def options_of(draw, cls):
    types = cli._types(cls)
    fields = dataclasses.fields(cls)
    return cls(**{field.name: draw(values_of(field, types[field.name])) for field in fields})


def plain(options) -> dict:
    """As a config file would hold it."""
    values = dataclasses.asdict(options)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


@pytest.mark.parametrize("name", SECTIONS)
@DEEP
@given(data=st.data())
def test_flags_a_config_and_the_schema_take_what_options_may_be(name, data):
    cls = SECTIONS[name]
    options = data.draw(options_of(cls))
    words = shlex.split(cli.flags(options))
    found, rest = cli.parse(cli.build_parser("test", cls), cls, arguments=words)
    assert found == options and rest == argparse.Namespace()
    section = yaml.safe_load(yaml.safe_dump(plain(options), allow_unicode=True))
    assert cli.from_section(cls, section, name) == options
    VALIDATOR.validate({name: section})


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), texts, st.just(10**400),
    st.sampled_from(["1e-4", "-1e5", "nan", "inf", "true", "", "-", "a,b", "{x}"]), st.dates(),
)  # fmt: skip
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(scalars, inner, max_size=2)
)


@pytest.mark.parametrize("name", SECTIONS)
@DEEP
@given(data=st.data())
def test_a_config_of_any_values_gives_options_or_names_its_problems(name, data):
    cls = SECTIONS[name]
    keys = st.sampled_from([field.name for field in dataclasses.fields(cls)])
    section = data.draw(st.dictionaries(keys, anything, max_size=4) | anything)
    config = {name: section, **data.draw(st.dictionaries(scalars, st.none(), max_size=1))}
    try:
        options = cli.from_config(SECTIONS, config)[name]
    except InputError as error:
        assert error.problems and all(p.startswith("config: ") for p in error.problems)
        return
    # what is taken can be handed to the script, and the schema takes it
    words = shlex.split(cli.flags(options))
    found, _ = cli.parse(cli.build_parser("test", cls), cls, arguments=words)
    assert found == options
    VALIDATOR.validate(json.loads(json.dumps({name: section or {}})))
