"""The page itself: every section, the library that draws, one file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import InputError, first_line, problem
from ..files import sha256_sources, write_text
from ..labels import LabelTable
from ..outputs.earlier import PAGE_MARK
from .cohort import cohort_section, split_section
from .coronary import refined_sections
from .figures import family_sections
from .generated import generated_section
from .hearts import hearts_section
from .measures import measures_section
from .modes import modes_section
from .parts import Results, Section, Table, words
from .trainings import trainings_section

HERE = Path(__file__).parent
PACKAGES = ("numpy", "scipy", "scikit-image", "trimesh", "plotly", "torch", "monai", "snakemake")
CITATION = (
    "The Cardiform developers: Cardiform, from cardiac segmentations to trained 3-D shape models "
    "(CITATION.cff); and the sources of each method, which the pages of docs/ name."
)


def write_report(folder: Path, page: Path, labels: LabelTable, name: str = "") -> list[Section]:
    """Write one HTML file about a results folder, which opens without a network.

    name : of the cohort, for the heading; by default the folder's.

    Returns
    -------
    What it says.

    Raises
    ------
    InputError
        No checked cohort is there, or a file is damaged.
    """
    sections = sections_of(Results(folder), labels)
    write_text(page, _html(name or folder.resolve().name, sections))
    return sections


def sections_of(results: Results, labels: LabelTable) -> list[Section]:
    """All sections that the files of a results folder have something for.

    Raises
    ------
    InputError
        No checked cohort is there, or a file is damaged.
    """
    with _naming(results):
        found: list[Section | None] = [cohort_section(results, labels), split_section(results)]
        for section in family_sections(results, labels):
            family = section.name if section.name in ("vecset", "vqvae") else ""
            found += [section, hearts_section(results, family, labels) if family else None]
        found += [*refined_sections(results, labels), generated_section(results, labels)]
        found += [modes_section(results, labels), measures_section(results, labels)]
        found += [trainings_section(results), _versions()]
        return [section for section in found if section is not None]


@contextlib.contextmanager
def _naming(results: Results) -> Iterator[None]:
    """A file with another content than the workflow writes is one line that names it."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        fact = f"is not what the workflow writes ({first_line(error)})"
        remedy = "run the rule that makes it again, or move it away"
        raise InputError(problem(results.last or results.folder, fact, remedy)) from error


def _versions() -> Section:
    rows = [words("Cardiform, hash of its code", sha256_sources()[:16])]
    rows.append(words("Python", platform.python_version()))
    for package in PACKAGES:
        try:
            rows.append(words(package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            continue
    note = "Of the program that made this page; model.pt and metrics.json name the trainings'."
    table = Table("Versions", ("what", "version"), rows, note)
    return Section("versions", "Versions and how to cite", CITATION, [table])


def _html(name: str, sections: list[Section]) -> str:
    from jinja2 import Environment, FileSystemLoader
    from plotly.offline import get_plotlyjs

    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True)
    drawn = {section.name: _drawn(section) for section in sections}
    return environment.get_template("page.html").render(
        mark=PAGE_MARK,
        name=name,
        sections=sections,
        drawn=_script_json(drawn),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
    )


def _drawn(section: Section) -> Mapping[str, Any]:
    return {
        "charts": [dataclasses.asdict(chart) for chart in section.charts],
        "viewers": [dataclasses.asdict(viewer) for viewer in section.viewers],
        "modes": [dataclasses.asdict(modes) for modes in section.modes],
    }


def _script_json(content: object) -> str:
    """JSON that cannot end the script element around it."""
    text = json.dumps(_finite(content), allow_nan=False, separators=(",", ":"), sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(content: Any) -> Any:
    """The same with null for what is no number: a chart leaves it out."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return content
