"""Pages of the site that have their source elsewhere, and links that hold there (mkdocs.yml).

    python3 run.py docs

README.md, the key reference, the changelog, the rules, the library's docstrings and the notebook
become pages; so does a file of the repository that a page links to, such as a config or a test.
Links are written as a reader of the repository needs them, and work in both places.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

import site_drawing
import site_pages
from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
# page of the site -> its source in the repository
ELSEWHERE = {
    "index.md": "README.md",
    "config.md": "config/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
API = "api/"  # the place of the library in the nav
SOURCES = "source/"  # folder of the site for files of the repository that pages link to
CODE = re.compile(r"^ *```.*?^ *```|(?<!`)(`+)(?!`)(?:[^`\n]|\n(?!\n))+\1", re.M | re.S)
MERMAID = re.compile(r"^```mermaid\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"(?<=\])\(([^()\s]+)\)")


def on_config(config):
    """The pages of the library take the place of ``api/`` in the nav."""
    pages = [{page.title: page.path} for page in site_pages.pages_of_library(ROOT)]
    for section in filter(lambda entry: isinstance(entry, dict), config.nav):  # others are pages
        for entries in section.values():
            for entry in entries:
                if isinstance(entry, dict) and list(entry.values()) == [API]:
                    entry[next(iter(entry))] = pages
    return config


def on_files(files, config):
    """Add the pages that are not in docs/."""
    pages = {
        page: (ROOT / source).read_text(encoding="utf-8") for page, source in ELSEWHERE.items()
    }
    pages |= {page.path: page.text for page in site_pages.pages_of_library(ROOT)}
    pages["rules.md"] = site_pages.rules_page(ROOT)
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        name = f"notebooks/{notebook.stem}"
        pages[f"{name}.md"], pictures = site_pages.notebook_page(notebook)
        for number, content in enumerate(pictures):
            files.append(File.generated(config, f"{name}_{number}.png", content=content))
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    written = {f.src_uri: f.content_string for f in files.documentation_pages()}
    linked = {target for page, text in written.items() for target in _targets(page, text)}
    for target in sorted(linked):
        if not _on_site(target) and (ROOT / target).is_file():
            text = site_pages.source_page(ROOT / target, target)
            file = File.generated(config, f"{SOURCES}{target}.md", content=text)
            file.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(file)
    return files


def on_page_markdown(markdown, page, config, files):
    """Links of the repository become links of the site."""
    own = page.file.src_uri

    def moved(match):
        target, anchor = _split(match[1])
        if not target or _is_url(target):
            return match[0]
        place = _on_site(_resolved(own, target))
        if place is None:
            place = f"{SOURCES}{_resolved(own, target)}.md"
        return f"({os.path.relpath(place, posixpath.dirname(own) or '.')}{anchor})"

    markdown = _outside_code(markdown, lambda text: LINK.sub(moved, text))
    return MERMAID.sub(lambda match: _drawing(match[1]), markdown)


def _drawing(mermaid: str) -> str:
    """A flowchart as a picture: Mermaid itself would be fetched when the page is read."""
    svg = site_drawing.drawn(site_drawing.read_chart(mermaid))
    return f'<div style="overflow-x:auto">{svg}</div>'


def _targets(page: str, text: str) -> set[str]:
    """Files of the repository that a page links to."""
    found: set[str] = set()

    def look(part):
        targets = [_split(m[1])[0] for m in LINK.finditer(part)]
        found.update(_resolved(page, t) for t in targets if t and not _is_url(t))
        return part

    _outside_code(text, look)
    return found


def _resolved(page: str, target: str) -> str:
    """A link of a page of the site as a path in the repository."""
    source = ELSEWHERE.get(page, f"docs/{page}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _on_site(path: str) -> str | None:
    """The page of the site that shows a file of the repository; None: there is none."""
    for page, source in ELSEWHERE.items():
        if path == source:
            return page
    if path.endswith(".ipynb"):
        path = path.removesuffix(".ipynb") + ".md"
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def _split(link: str) -> tuple[str, str]:
    target, hash_, anchor = link.partition("#")
    return target, hash_ + anchor


def _is_url(target: str) -> bool:
    return bool(re.match(r"[a-z]+:", target))


def _outside_code(text: str, change) -> str:
    """The text with ``change`` applied to what is no code."""
    parts, end = [], 0
    for code in CODE.finditer(text):
        parts += [change(text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, change(text[end:])])
