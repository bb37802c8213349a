"""Write the files that follow from the options: defaults, schema and the key reference.

    python tools/write_config_files.py

A test holds the files against this output.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from cardiform import cli  # noqa: E402
from cardiform.options.sections import SECTIONS, base_of  # noqa: E402

RULES = ROOT / "workflow" / "rules"


def main() -> None:
    for path, text in generated_files().items():
        (ROOT / path).write_text(text, encoding="utf-8")
        print(path)


def generated_files() -> dict[str, str]:
    """Path in the repository -> content."""
    return {
        "config/config.yaml": config_yaml(),
        "config/README.md": readme(),
        "workflow/schemas/config.schema.json": schema(),
    }


def config_yaml() -> str:
    """The full default config; what a key does stands above it."""
    lines = [
        "# Cardiform: every key with its default. Copy the sections you change into a file of",
        "# your own and name it with --configfile; keys left out keep these values.",
        "# Written by tools/write_config_files.py from workflow/scripts/cardiform/options/.",
    ]
    for name, cls in SECTIONS.items():
        lines += ["", f"# {summary(cls)}"]
        if base := base_of(cls):
            lines.append(f"# Every key of {base} too; set here, it holds for this training alone.")
        heirs = heirs_of(name)
        if heirs:
            lines.append("# What is set here holds for every training that does not set it itself:")
            lines += [f"# {line}" for line in textwrap.wrap(", ".join(heirs) + ".", 96)]
        # unset keys are comments: what is set can be told from what is at its default
        lines.append(f"{name}: {{}}" if heirs else f"{name}:")
        for field in own_fields(cls):
            lines.append(f"  # {field.metadata['help']}{limits(field)}")
            unset = "# " if heirs or (base and is_shared(field, base)) else ""
            lines.append(f"  {unset}{field.name}: {yaml_text(field.default)}")
    return "\n".join(lines) + "\n"


def own_fields(cls: type) -> list[dataclasses.Field]:
    """The fields that a section does not simply inherit: its own, and those of another default."""
    base = base_of(cls)
    inherited = SECTIONS[base].__dataclass_fields__ if base else {}
    return [f for f in dataclasses.fields(cls) if inherited.get(f.name) is not f]


def is_shared(field: dataclasses.Field, base: str) -> bool:
    return field.name in SECTIONS[base].__dataclass_fields__


LABEL_TABLE = "cohort.labels"  # the one key that other rules than its section's take


def reruns() -> dict[str, list[str]]:
    """Section -> the rules that a changed key runs again, in the order of the rules.

    Read from the rules: a rule takes a section by ``flags("section")``, some keys of several by
    ``shared_flags``, or sections by the name of something at the head of a file that is made of
    such calls.
    """
    blocks = [
        block
        for path in sorted(RULES.glob("*.smk"))
        for block in re.split(r"^(?=\S)|^(?= *rule )", path.read_text(encoding="utf-8"), flags=re.M)
    ]
    named = {
        "labels_flag": {LABEL_TABLE},
        "LABEL_TABLE": {LABEL_TABLE},
    }
    for block in blocks:
        if match := re.match(r"(\w+) = ", block):
            named.setdefault(match[1], _sections_in(block, {}))
    found: dict[str, list[str]] = {}
    for block in blocks:
        if match := re.match(r" *(?:use rule \w+ as|rule|checkpoint) (\w+)\b", block):
            for section in _sections_in(block, named):
                found.setdefault(section, []).append(match[1])
    for name in SECTIONS:
        if rules := [rule for heir in heirs_of(name) for rule in found.get(heir, [])]:
            found[name] = list(dict.fromkeys(rules))
    return found


def _sections_in(text: str, named: dict[str, set[str]]) -> set[str]:
    sections = set(re.findall(r"""\bflags\(\s*['"](\w+)""", text))
    for several in re.findall(r"""\bshared_flags\(\s*\w+,([^)]*)\)""", text):
        sections |= set(re.findall(r"\w+", several))
    return sections.union(*(named[word] for word in set(re.findall(r"\w+", text)) & named.keys()))


def heirs_of(base: str) -> list[str]:
    """The sections that inherit from a section."""
    return [name for name, cls in SECTIONS.items() if base_of(cls) == base]


def readme() -> str:
    """The key reference: one table per section."""
    lines = [
        "# Config keys",
        "",
        "`config.yaml` holds every key with its default; lay a file of your own on top with",
        "`--configfile`. An unknown key stops the run. `demo.yaml` holds the small",
        "settings of the demo, `full.yaml` those of a full-size run on GPUs.",
        "",
        "A changed key makes the rule of its section run again, and what depends on it; comments",
        "and the order of keys change nothing. A training that only gets another *resumable*",
        "key resumes from its checkpoint.",
    ]
    rules = reruns()
    for name, cls in SECTIONS.items():
        lines += ["", f"## {name}", "", summary(cls), ""]
        lines += [f"Runs again: {_listed(rules[name])}.", ""]
        if name == "cohort":
            others = [rule for rule in rules[LABEL_TABLE] if rule not in rules[name]]
            lines += [f"Another label table runs again also: {_listed(others)}.", ""]
        if base := base_of(cls):
            lines += [
                f"Every key of [{base}](#{base}) can be set here too, for this training alone.",
                "",
            ]
        if not own_fields(cls):
            continue
        lines += ["| key | default | effect |", "|---|---|---|"]
        for field in own_fields(cls):
            effect = field.metadata["help"] + limits(field)
            effect += "; *resumable*" if field.metadata["resumable"] else ""
            effect = effect.replace("|", "\\|").replace("<", "&lt;")
            lines.append(f"| `{field.name}` | `{yaml_text(field.default)}` | {effect} |")
    return "\n".join(lines) + "\n"


def _listed(rules: list[str]) -> str:
    return ", ".join(f"`{rule}`" for rule in rules)


def schema() -> str:
    return json.dumps(cli.json_schema(SECTIONS), indent=2) + "\n"


def summary(cls: type) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def limits(field: dataclasses.Field) -> str:
    meta = field.metadata
    choices = [choice for choice in meta["choices"] or () if choice]  # the help explains empty
    parts = [f"one of {', '.join(choices)}"] if choices else []
    if meta["minimum"] is not None and meta["maximum"] is not None:
        parts.append(f"{meta['minimum']} to {meta['maximum']}")
    elif meta["minimum"] is not None:
        parts.append(f"at least {meta['minimum']}")
    if meta["multiple"] is not None:
        parts.append(f"a multiple of {meta['multiple']}")
    return f" ({'; '.join(parts)})" if parts else ""


def yaml_text(value) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(yaml_text(v) for v in value) + "]"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, float):
        # YAML 1.1 reads 1e-06 as text and 1.0e-06 as a number
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    return json.dumps(value)


if __name__ == "__main__":
    main()
