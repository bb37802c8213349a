"""A config as it is written: keys that stand twice in a file, values from the command line
(standard library only; PyYAML where a file is read)."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, problem

WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
MOST_DOTS = 2  # a module's config may lie in that of another workflow, below a key
NOTHING = ("", "null", "~")


def check_repeats(paths: Iterable[str | Path], sections: Mapping[str, type]) -> None:
    """Refuse a section or key that is twice in a file: YAML takes the last without a word.

    paths : YAML or JSON; what cannot be read is left to whoever loads it.
    sections : name -> options class; a key and its alias are the same.

    Raises
    ------
    InputError
        Both lines of each.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # at every call of Snakemake
    problems: list[str] = []
    for path in dict.fromkeys(map(str, paths)):
        with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
            root = yaml.compose(Path(path).read_text(encoding="utf-8"), loader)
            problems += _repeats(path, root, "", sections)
    if problems:
        raise InputError(problems)


def _repeats(path: str | Path, node: Any, above: str, sections: Mapping[str, type]) -> list[str]:
    """Problem lines of a node of YAML, and of what is below it. ``above``: its name and a dot."""
    import yaml

    if not isinstance(node, yaml.MappingNode) or above.count(".") > MOST_DOTS:
        return []
    names = _aliases(sections.get(above.removesuffix(".")))
    lines: dict[str, int] = {}
    problems = []
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        name, line = names.get(key.value) or key.value, key.start_mark.line + 1
        if name in lines:
            alias = "" if key.value == name else f" (another name of {name})"
            fact = f"{above}{key.value}{alias} is in line {lines[name]} already"
            remedy = "keep one of them (of two, YAML takes the last)"
            problems.append(problem(f"{path}:{line}", fact, remedy))
        lines.setdefault(name, line)
        problems += _repeats(path, value, f"{above}{name}.", sections)
    return problems


def _aliases(options: type | None) -> dict[str, str]:
    found = dataclasses.fields(options) if options else ()
    return {field.metadata["alias"]: field.name for field in found if field.metadata["alias"]}


def typed(config: Mapping[str, Any], sections: Mapping[str, type]) -> dict[str, Any]:
    """The config with texts that are written as its options' types taken as such.

    Snakemake reads ``--config 'vecset={steps: 5}'`` as nothing but texts. What is no value of
    the type stays as it is, to be refused with its key.
    """
    return {name: _section(section, sections.get(name)) for name, section in config.items()}


def _section(section: Any, options: type | None) -> Any:
    if section in NOTHING:
        return None
    if options is None or not isinstance(section, Mapping):
        return section
    kinds = typing.get_type_hints(options)
    kinds |= {alias: kinds[name] for alias, name in _aliases(options).items()}
    return {k: _value(value, kinds[k]) if k in kinds else value for k, value in section.items()}


def _value(value: Any, kind: Any) -> Any:
    """A text as ``kind``; the items of a list one by one."""
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        return [_value(v, element) for v in value] if isinstance(value, list) else value
    if not isinstance(value, str):
        return value
    if value in NOTHING:
        return None if value or kind is not str else value
    if kind is bool:
        return WORDS.get(value.lower(), value)
    if kind is int and re.fullmatch(r"[+-]?[0-9]{1,99}", value):
        return int(value)
    return value
