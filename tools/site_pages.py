"""Pages of the site that are made from code: the rules, the library, the notebook, single files."""

from __future__ import annotations

import ast
import base64
import functools
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LIBRARY = Path("workflow") / "scripts" / "cardiform"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".smk": "python", ".json": "json"}


@dataclass(frozen=True)
class Page:
    """A page of the site: its place, its name in the nav, its Markdown."""

    path: str
    title: str
    text: str


def source_page(path: Path, name: str) -> str:
    """A file of the repository as it is."""
    language = LANGUAGES.get(path.suffix, "text")
    text = path.read_bytes().decode("utf-8", errors="replace")
    return f"# {name}\n\n````{language}\n{text.rstrip()}\n````\n"


# --- the library


@functools.cache
def pages_of_library(root: Path) -> list[Page]:
    """A page per room of the library, of its public functions and classes."""
    library = root / LIBRARY
    loose = sorted(path for path in library.glob("*.py") if path.stem != "__init__")
    intro = "Files outside a room." + _modules(library, loose)
    pages = [Page("api/index.md", "Ground floor", f"# cardiform\n\n{intro}")]
    for room in sorted(path for path in library.iterdir() if (path / "__init__.py").is_file()):
        head = ast.get_docstring(ast.parse((room / "__init__.py").read_text("utf-8"))) or ""
        files = sorted(path for path in room.rglob("*.py") if path.stem != "__init__")
        text = f"# cardiform.{room.name}\n\n{markdown(head)}\n{_modules(library, files)}"
        pages.append(Page(f"api/{room.name}.md", room.name, text))
    return pages


def _modules(library: Path, files: list[Path]) -> str:
    return "".join(_module(library, path) for path in files)


def _module(library: Path, path: Path) -> str:
    """A file of the library; empty where nothing of it is public."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = ".".join(("cardiform", *path.relative_to(library).with_suffix("").parts))
    parts = [text for node in tree.body for text in _definition(node, "###")]
    if not parts:
        return ""
    head = markdown(ast.get_docstring(tree) or "")
    return "\n".join(["", f"## {name}", "", head, *parts])


def _definition(node: ast.stmt, level: str) -> Iterator[str]:
    """A public function or class, and the public methods of a class that say something."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    if not isinstance(node, kinds) or node.name.startswith("_"):
        return
    text = ast.get_docstring(node) or ""
    if level != "###" and not text:
        return
    yield f"\n{level} {node.name}\n\n```python\n{signature(node)}\n```\n\n{markdown(text)}"
    for child in node.body if isinstance(node, ast.ClassDef) else []:
        yield from _definition(child, level + "#")


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    """The head of a definition; an argument per line where it is long."""
    decorators = "".join(f"@{ast.unparse(d)}\n" for d in node.decorator_list)
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"{decorators}class {node.name}" + (f"({bases})" if bases else "")
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    arguments = _arguments(node.args)
    line = f"def {node.name}({', '.join(arguments)}){returns}"
    if len(line) > 88:
        listed = "".join(f"    {text},\n" for text in arguments)
        line = f"def {node.name}(\n{listed}){returns}"
    return decorators + line


def _arguments(args: ast.arguments) -> list[str]:
    """Every argument with its annotation and default."""
    plain = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(plain) - len(args.defaults)) + args.defaults
    found = [_argument(arg, default) for arg, default in zip(plain, defaults, strict=True)]
    if args.posonlyargs:
        found.insert(len(args.posonlyargs), "/")
    if args.vararg or args.kwonlyargs:
        found.append(f"*{_argument(args.vararg) if args.vararg else ''}")
    found += [_argument(a, d) for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    return [*found, f"**{_argument(args.kwarg)}"] if args.kwarg else found


def _argument(arg: ast.arg, default: ast.expr | None = None) -> str:
    name = f"{arg.arg}: {ast.unparse(arg.annotation)}" if arg.annotation else arg.arg
    equals = " = " if arg.annotation else "="
    return f"{name}{equals}{ast.unparse(default)}" if default else name


ROLE = re.compile(r":\w+:`~?([^`]+)`")
ENTRY = re.compile(r"^(\w[\w.*, ]*?) : (.*)$")


def markdown(docstring: str) -> str:
    """A docstring of this project as Markdown: its sections, lists of names, and examples."""
    text = ROLE.sub(r"`\1`", docstring).replace("``", "`")
    lines = re.sub(r"(?<=\S) {4}(?=\w+ : )", "\n", text).splitlines()  # entries side by side
    result: list[str] = []
    section, inside, in_code = "", False, False
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if re.fullmatch(r"-{3,}", line):
            continue
        if re.fullmatch(r"-{3,}", following):
            section = line.strip()
            result += ["", f"**{section}**", ""]
        elif line.startswith(">>> ") and not in_code:
            in_code = True
            result += ["", "```python", line]
        elif in_code:
            if not line.strip():
                in_code = False
                result += ["```", ""]
            else:
                result.append(line)
        elif line.startswith("    ") and not inside:
            result.append(line)  # a block of code, as the writer indented it
        elif match := ENTRY.match(line):
            inside = True
            result += ["", f"- `{match[1]}`: {match[2]}"]
        elif section in ("Raises", "Returns", "Parameters") and line and line[0] != " ":
            inside = following.startswith("    ")
            result += ["", f"- `{line}`:" if inside else line]
        elif line.strip():
            if inside and line[0] != " ":
                inside = False
                result.append("")
            result.append("  " + line.strip() if inside else line)
        else:
            inside = inside and following.startswith(" ")
            result.append("")
    return "\n".join([*_escaped(result), "```" if in_code else "", ""])


def _escaped(lines: list[str]) -> Iterator[str]:
    """``<case>`` as it is written, outside of code; a browser would take it for a tag."""
    in_code = False
    for line in lines:
        in_code ^= line.startswith("```")
        if not in_code and not line.startswith("    "):
            parts = line.split("`")
            parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
            line = "`".join(parts)
        yield line


# --- the rules


def rules_page(root: Path) -> str:
    """Every rule and its script, by the files of workflow/rules."""
    sys.path.insert(0, str(root / "tools"))
    import write_config_files

    sections: dict[str, list[str]] = {}
    for section, rules in write_config_files.reruns().items():
        for rule in rules:
            sections.setdefault(rule, []).append(section)
    lines = [
        "# Rules and scripts",
        "",
        "Each rule calls one script of `workflow/scripts/`, which also runs alone and lists its",
        "options with `--help`. Rules without a script are targets: names to ask Snakemake for.",
    ]
    used: set[str] = set()
    places = _places(root / "workflow" / "rules")
    for path in sorted((root / "workflow" / "rules").glob("*.smk")):
        blocks = list(_rule_blocks(path.read_text(encoding="utf-8")))
        if blocks:
            lines += ["", f"## {path.stem}"]
        for name, text, comment in blocks:
            scripts = re.findall(r'script=script\("(.+?)"\)', text)
            used.update(scripts)
            lines += ["", f"### {name}", "", *_escaped([comment]), ""]
            lines += _rule_list(text, scripts, sections.get(name, []), places)
            for script in scripts:
                lines += ["", _script_text(root, script)]
    others = sorted((root / "workflow" / "scripts").glob("*.py"))
    lines += ["", "## Scripts without a rule"]
    for script in [path.name for path in others if path.name not in used]:
        lines += ["", f"### {script}", "", _script_text(root, script)]
    return "\n".join(lines) + "\n"


def _rule_blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """(name, text, comment above) of the rules of a file."""
    start = r"((?:^[ ]*#.*\n)*)^[ ]*(?:use rule \w+ as (\w+) with|(?:rule|checkpoint) (\w+)):"
    heads = list(re.finditer(start, text, re.M))
    for head, end in zip(heads, [h.start() for h in heads[1:]] + [len(text)]):
        comment = " ".join(line.strip(" #") for line in head[1].splitlines())
        yield head[2] or head[3], text[head.end() : end], comment


def _rule_list(text: str, scripts: list[str], sections: list[str], places: dict) -> list[str]:
    """What a rule makes, what decides it and where it runs; of a target what it asks for."""
    if not scripts:
        asked = _paths(text, "input", places) or ["the last files of its stages"]
        return [f"A target; it asks for {', '.join(asked)}."]
    found = []
    if made := _paths(text, "output", places):
        found.append(f"makes {', '.join(made)}")
    if sections:
        found.append("config: " + ", ".join(_key_link(name) for name in sections))
    if conda := re.search(r'conda:\s+"\.\./envs/(\w+)\.yaml"', text):
        found.append(f"environment `{conda[1]}`")
    if re.search(r"\bgpu=", text):
        found.append("on a GPU if there is one")
    return [f"- {line}" for line in found]


def _paths(text: str, part: str, places: dict[str, str]) -> list[str]:
    """The paths of the inputs or outputs of a rule, as far as they are written there."""
    block = re.search(rf"^( +){part}:\n((?:\1 .*\n)+)", text, re.M)
    found = []
    for path in re.findall(r'f?"([^"./][^"]*/[^"]*)"', block[2]) if block else []:
        for name, place in places.items():
            path = path.replace(f"{{{name}}}", place)
        path = re.sub(r"\{(\w+)[^}]*\}", r"<\1>", path.replace("{{", "{").replace("}}", "}"))
        found.append(f"`{path}`")
    return found


def _places(rules: Path) -> dict[str, str]:
    """Folders that the rules give a name; what a config decides is in angle brackets."""
    found = {
        "RESULTS": "results/<cohort>",
        "OF_SPLIT": "results/<cohort>/",
        "LOGS": "logs/<cohort>",
    }
    for path in sorted(rules.glob("*.smk")):
        for name, value in re.findall(r'^([A-Z_]+) = f"([^"]*)"$', path.read_text("utf-8"), re.M):
            value = re.sub(r"\{OPTIONS\['\w+'\]\.(\w+)\}", r"<\1>", value.replace("{{", "{"))
            for known, place in found.items():
                value = value.replace(f"{{{known}}}", place)
            found.setdefault(name, value.replace("}}", "}"))
    return found


def _key_link(name: str) -> str:
    """A link to a section, or to the section of ``section.key``."""
    return f"[{name}](config.md#{name.partition('.')[0]})"


def _script_text(root: Path, script: str) -> str:
    path = root / "workflow" / "scripts" / script
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return f"`{script}`: {markdown(text)}"


# --- notebooks


def notebook_page(path: Path) -> tuple[str, list[bytes]]:
    """The Markdown of a notebook with its stored outputs, and its pictures in their order."""
    lines, pictures = [], []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [source, ""]
            continue
        lines += ["```python", source, "```", ""]
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                lines += [f"![Picture of the cell above]({path.stem}_{len(pictures)}.png)", ""]
                pictures.append(base64.b64decode(data["image/png"]))
            else:
                text = "".join(output.get("text", data.get("text/plain", "")))
                lines += ["```text", text.rstrip(), "```", ""]
    return "\n".join(lines), pictures
