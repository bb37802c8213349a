"""Options dataclass <-> command-line flags <-> config section (standard library only)."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import logging
import os
import shlex
import signal
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import outputs
from .errors import InputError, limit_fact, memory_fact, name_options, problem
from .files import os_problem
from .options.epochs import epochs_fact, refuse_epochs
from .options.field import checked, said
from .options.sections import memory_advice

if typing.TYPE_CHECKING:
    from .cohort.per_case import CaseRun

EXIT_BAD_INPUT = 2
# The options of this process's command line, which run has to name where the memory is exhausted.
# They are known within main alone, and that error can come from anywhere in it, from libraries
# too: there is nothing else that both parse and run can see.
_SECTIONS_IN_USE: list[type] = []


def build_parser(description: str | None, *options: type) -> argparse.ArgumentParser:
    """A parser with one ``--key value`` flag per field of all ``options``.

    description : the script's docstring; its first line heads the help.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    group = parser.add_argument_group("options")
    for cls in options:
        for field in dataclasses.fields(cls):
            kind, default = _types(cls)[field.name], to_text(field.default) or "empty"
            names = filter(None, (field.name, field.metadata["alias"]))
            group.add_argument(
                *("--" + name.replace("_", "-") for name in names),
                dest="option_" + field.name,
                default=field.default,
                type=functools.partial(_parse_text, field.name, kind),
                metavar=_metavar(field, kind),
                help=f"{field.metadata['help']} (default: {default})".replace("%", "%%"),
            )
    refuse_epochs(group, options)
    return parser


def parse(
    parser: argparse.ArgumentParser,
    *options: type,
    arguments: Sequence[str] | None = None,
    out_is_file: bool = False,
) -> tuple[Any, ...]:
    """Parse the command line into checked options of each class and the remaining arguments.

    Its outputs are registered (:mod:`cardiform.outputs`): --out, and --manifest and --metrics
    where they are written.

    out_is_file : --out names a file, not a folder.

    Raises
    ------
    InputError
        An output cannot be written, or would be written over a file that is not ours.
    """
    namespace = parser.parse_args(arguments)
    _SECTIONS_IN_USE[:] = options
    result, problems = [], []
    for cls in options:
        names = [field.name for field in dataclasses.fields(cls)]
        values = {name: namespace.__dict__.pop("option_" + name) for name in names}
        try:
            result.append(checked(cls, values))
        except InputError as error:
            problems += error.problems
    if problems:
        parser.error("\n".join(problems))
    groups = [vars(namespace), *(vars(values) for values in result)]
    name_options(groups)
    maker = " ".join([Path(sys.argv[0]).stem, *map(flags, result)])
    outputs.register_command(groups, out_is_file, maker)
    return *result, namespace


def flags(options) -> str:
    """``options`` as sorted, quoted flags: the same values always give the same text."""
    pairs = sorted(said(options))
    return " ".join(
        f"--{name.replace('_', '-')} {shlex.quote(to_text(value))}" for name, value in pairs
    )


def from_config(sections: Mapping[str, type], config: Mapping[str, Any]) -> dict[str, Any]:
    """Options of all sections; the problems of all of them are named at once.

    A section whose class derives from another section's class inherits what that section sets:
    ``training.workers`` holds for every training that sets none of its own.

    sections : name -> options class.

    Raises
    ------
    InputError
        Unknown sections and keys, values of the wrong type or out of range.
    """
    problems, result = [], {}
    for name in config:
        if name not in sections:
            problems.append(f"config: {name} is not a known section; {_nearest(name, sections)}")
    for name, options in sections.items():
        shared: dict[str, Any] = {}
        for base, cls in sections.items():
            # what is wrong with a base is reported once, as the base's
            if cls is not options and issubclass(options, cls) and base in result:
                shared |= _values(cls, config.get(base), base)[0]
        try:
            result[name] = from_section(options, config.get(name), name, shared)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return result


def from_section(
    options: type,
    section: object,
    where: str,
    shared: Mapping[str, Any] | None = None,
):
    """Options from a config section; unknown and unfit keys are all named at once.

    where : the section's name in messages.
    shared : values that hold where the section sets none; they come before the defaults.
    """
    values, problems = _values(options, section, where)
    try:
        result = checked(options, {**(shared or {}), **values}, where=f"config: {where}.")
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
    return result


def _values(options: type, section: object, where: str) -> tuple[dict[str, Any], list[str]]:
    """What a config section sets, by the names of the options, and what is wrong with it.

    section : as YAML gave it: keys and values, None where it is empty, or anything by mistake.
    """
    section = {} if section is None else section
    if not isinstance(section, Mapping):
        return {}, [f"config: {where} is {section!r}; write keys and values below it"]
    types = _types(options)
    aliases = {f.metadata["alias"]: f.name for f in dataclasses.fields(options)}
    problems, values = [], {}
    # an alias comes last: config.yaml may hold the default of the key that it stands for
    for written, value in sorted(section.items(), key=lambda item: item[0] in aliases):
        key = aliases.get(written, written)
        if key not in types:
            fact = epochs_fact(options, key) or f"is not a known key; {_nearest(key, types)}"
            problems.append(f"config: {where}.{key} {fact}")
            continue
        try:
            values[key] = _coerce(value, types[key], getattr(options, key) == ())
        except (TypeError, ValueError, OverflowError):
            text = repr(value)[:60]
            problems.append(f"config: {where}.{written} is {text}; {_expected(types[key])}")
    return values, problems


def check_plannable(texts: Iterable[str]) -> None:
    """Refuse paths and values that Snakemake would take for a pattern, as an InputError."""
    problems = [
        problem(
            text, "Snakemake takes { and } in a name for a wildcard", "rename the file or folder"
        )
        for text in dict.fromkeys(texts)
        if "{" in text or "}" in text
    ]
    if problems:
        raise InputError(problems)


def json_schema(sections: Mapping[str, type]) -> dict:
    """The JSON schema of a config file: every key typed, no key beside them."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _section_schema(cls) for name, cls in sections.items()},
    }


def to_text(value) -> str:
    """A value as a flag's text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(to_text(v) for v in value)
    return str(value)


def run(main: Callable[[], int | None]) -> typing.NoReturn:
    """Run a script's ``main``: log to stderr, print bad input without a traceback.

    The same of a full disk and of exhausted memory, which can strike anywhere. Of several ranks
    the first tells how things go; the others speak of what is wrong alone.
    """
    level = logging.INFO if int(os.environ.get("RANK", "0")) == 0 else logging.WARNING
    logging.basicConfig(
        stream=sys.stderr, level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        sys.exit(main() or 0)
    except InputError as error:
        for line in error.problems:
            print(f"error: {line}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        line = _shortage(error)
        if not line:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    finally:
        name_options(())
        outputs.register(outputs.Places())


def _shortage(error: Exception) -> str:
    """What the machine ran out of, as a problem line; empty for any other error."""
    script = Path(sys.argv[0]).name
    if limit := limit_fact(error):
        return problem(script, *limit)
    if line := os_problem(error, f"an output of {script}"):
        return line
    if fact := memory_fact(error):
        return problem(script, fact, memory_advice(*_SECTIONS_IN_USE))
    return ""


@functools.cache
def _types(options: type) -> dict[str, Any]:
    return typing.get_type_hints(options)


def _element_type(kind):
    return typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else None


def _coerce(value, kind, empty: bool = False):
    """As ``kind``, or an ``empty`` list; TypeError, ValueError, OverflowError if neither."""
    element = _element_type(kind)
    if element is not None:
        if not isinstance(value, (list, tuple)) or not (value or empty or element is str):
            raise TypeError(value)
        return tuple(_coerce(item, element) for item in value)
    if kind is float and isinstance(value, str):
        return float(value)  # YAML reads 1e-4 as text
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and value is None:
        return ""
    if type(value) is not kind:
        raise TypeError(value)
    return value


def _parse_text(name: str, kind, text: str):
    element = _element_type(kind)
    try:
        if element is not None:
            parts = text.split(",") if text or element is not str else []
            return tuple(_parse_text(name, element, part) for part in parts)
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r}: {_expected(kind)}") from None


def _expected(kind) -> str:
    element = _element_type(kind)
    if element is not None:
        return f"expected a list of {element.__name__}"
    names = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
    return f"expected {names[kind]}"


def _nearest(name, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def _metavar(field, kind) -> str:
    element = _element_type(kind)
    one = "|".join(filter(None, field.metadata["choices"] or ())) or (element or kind).__name__
    return f"{one},..." if element is not None else one


def _section_schema(options: type) -> dict:
    return {
        "type": ["object", "null"],
        "description": (options.__doc__ or "").strip(),
        "additionalProperties": False,
        "properties": {
            name: _field_schema(f, _types(options)[f.name])
            for f in dataclasses.fields(options)
            for name in filter(None, (f.name, f.metadata["alias"]))
        },
    }


def _field_schema(field, kind) -> dict:
    meta, element = field.metadata, _element_type(kind)
    # numbers may be written as 1e-4, which YAML 1.1 reads as text
    names = {bool: "boolean", int: "integer", float: ["number", "string"], str: ["string", "null"]}
    value: dict[str, Any] = {"type": names[element or kind]}
    if meta["choices"]:
        value["enum"] = list(meta["choices"])
    for key in ("minimum", "maximum", "pattern"):
        if meta[key] is not None:
            value[key] = meta[key]
    if meta["multiple"] is not None:
        value["multipleOf"] = meta["multiple"]
    if element is not None:
        value = {"type": "array", "items": value, **({"minItems": 1} if meta["filled"] else {})}
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return {**value, "description": meta["help"], "default": default}


def add_case_arguments(
    parser, cases_required: bool = True, cases: str = "cases.tsv of check_cohort"
) -> None:
    """The arguments of a per-case script: which cases, where to, how parallel."""
    group = parser.add_argument_group("cases and files")
    group.add_argument("--cases", required=cases_required, help=cases)
    group.add_argument("--select", nargs="+", default=[], metavar="CASE", help="default: all")
    group.add_argument("--labels", default="", help="label table, TSV; empty: STACOM-2025")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    group.add_argument("--manifest", required=True, type=Path, help="manifest to write, TSV")
    group.add_argument("--processes", type=int, default=1, help="cases at a time (default: 1)")


def case_run(args: argparse.Namespace, needs: str = "labels") -> CaseRun:
    """What the arguments of :func:`add_case_arguments` ask for; InputError for unknown cases, and
    where none has an entry in the column that the step ``needs``."""
    # not at the head: pools of processes take a third of the time of --help
    from .cohort.per_case import CaseRun
    from .cohort.table import read_checked_cases

    cases = read_checked_cases(args.cases, args.select, needs)
    return CaseRun(cases, args.out, args.manifest, args.processes)


def add_split_arguments(group, *parts: str, required: bool = True) -> None:
    """The split files that a script reads; ``parts`` of train, validation and test."""
    for part in parts:
        name = {"train": "training"}.get(part, part)
        help_text = f"split CSV of the {name} cases"
        group.add_argument(f"--{part}", required=required, type=Path, help=help_text)


def add_training_arguments(parser, *, manifest: str = "*", weights: str = "", labels: bool = True):
    """The arguments of a training on per-case files; returns their group.

    manifest : number of manifests of the samples: "*" one or more, "1" one, "" none.
    weights : what the model that it starts from is; empty: it starts from none.
    labels : whether it takes a label table; otherwise the samples bring theirs.
    """
    group = parser.add_argument_group("files")
    add_split_arguments(group, "train", "validation")
    if manifest:
        many = {"nargs": "+"} if manifest == "*" else {}
        group.add_argument("--manifest", required=True, help="manifest of the samples", **many)
    if weights:
        group.add_argument("--weights", required=True, type=Path, help=weights)
    if labels:
        group.add_argument("--labels", default="", help="label table, TSV; empty: STACOM-2025")
    group.add_argument("--out", required=True, type=Path, help="output folder")
    return group
