"""The card of a bundle, README.md: what the models are, how good they are, what is left to fill in.

In the form that model hubs read: YAML front matter, then text. No case is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..artefact.model import Model
from ..errors import InputError
from ..files import read_json, sha256_file
from ..labels import LabelTable

FRONT = """---
library_name: cardiform
pipeline_tag: other
license: other
license_name: FILL IN
tags:
- medical
- cardiac
- 3d-shape
- label-maps
"""
FILL_IN = """## To fill in

- **Licence** of the weights: FILL IN (and `license_name` in the first lines of this file)
- **Authors and contact**: FILL IN
- **Citation**: FILL IN
- **Data**: where the scans come from, scanner and protocol, who drew the label maps: FILL IN
- **Ethics and consent**: FILL IN

This file may be changed: it is the one file of the bundle without a checksum.
"""
LIMITS = """## Limits

- The models know hearts like those of their training. Of other ages, diseases, scanners, fields of
  view and label conventions nothing was measured.
- Label maps need the classes and values of the table above and voxels of a similar size.
- The figures below are means over held-out cases of the same cohort; they are no figures of other
  hospitals.
- This is research software, no medical device.
"""
USE = """## Use

```
python workflow/scripts/import_models.py --bundle BUNDLE --out models/{name} --try-example
python workflow/scripts/apply_models.py --models models/{name} --labels new/*.nii.gz --out out
```

`bundle.json` has the sha256 of every file, the label table and the frame convention. Nothing is
downloaded, and no file can run code. `example/phantom.nii.gz` is a procedural heart, no scan;
beside it lies what each model makes of it.
"""


@dataclass(frozen=True)
class Measured:
    """Figures of held-out cases: a table for people, and figure -> value for machines.

    cases : of what, in words.    figures : of the model alone, no baseline.
    """

    cases: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    figures: Mapping[str, float]


def card(about: Mapping[str, Any], models: Mapping[str, Model], sources: Mapping[str, Path]) -> str:
    """The text of README.md.

    about : content of bundle.json.    models : place -> content.
    sources : place -> model file in the results folder, where figures of held-out cases lie
        beside it; those of other weights are left out.
    """
    classes = LabelTable.from_dicts(about["labels"])
    measured = dict(_measured(models, sources))
    sections = [
        "\n".join([FRONT.strip("\n"), *_model_index(about["name"], measured), "---"]),
        f"# {about['name']}",
        "3-D shape models of the heart, trained on label maps with Cardiform.",
        "## Models",
        _table(
            ("folder", "kind", "training cases", "validation cases", "parameters", "steps"),
            [_model_row(place, model) for place, model in models.items()],
        ),
        USE.format(name=about["name"]),
        "## Label table",
        _table(("value", "class", "title"), [(c.value, c.name, c.title) for c in classes]),
        "## Frame",
        "\n".join(f"- {name}: {text}" for name, text in about["frame"].items()),
        LIMITS,
        "## Figures on held-out cases",
        *(list(_figures(measured)) or ["None: the results folder had none."]),
        FILL_IN,
        "## Versions",
        "\n".join(_versions(about, models)),
    ]
    return "\n\n".join(section.strip("\n") for section in sections) + "\n"


def _model_index(name: str, measured: Mapping[str, Sequence[Measured]]) -> list[str]:
    """Figures of held-out cases as hubs read them, lines of YAML; none where there are none."""
    listed = [(place, one) for place, found in measured.items() for one in found if one.figures]
    lines = ["model-index:", f"- name: {json.dumps(name)}", "  results:"] if listed else []
    for place, one in listed:
        lines += ["  - task:", "      type: other", f"      name: {json.dumps(place)}"]
        lines += ["    dataset:", "      type: other", f"      name: {json.dumps(one.cases)}"]
        lines.append("    metrics:")
        for title, value in one.figures.items():
            kind = re.sub(r"\W+", "_", title.partition(",")[0].lower())
            lines += [f"    - type: {kind}", f"      name: {json.dumps(title)}"]
            lines.append(f"      value: {json.dumps(value)}")
    return lines


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _model_row(place: str, model: Model) -> tuple:
    figures = model.figures
    cases = figures.get("cases") or {}
    return (
        place,
        model.kind,
        len(model.training_cases) or cases.get("train"),
        cases.get("validation"),
        figures.get("parameters"),
        figures.get("steps"),
    )


def _versions(about: Mapping[str, Any], models: Mapping[str, Model]) -> list[str]:
    """Of the export, and of each training."""
    lines = [f"- exported by Cardiform {about['versions']['cardiform']}"]
    for place, model in models.items():
        said = ", ".join(f"{name} {version}" for name, version in sorted(model.versions.items()))
        lines.append(f"- {place}: trained with {said or 'unknown versions'}")
    return lines


def _measured(
    models: Mapping[str, Model], sources: Mapping[str, Path]
) -> Iterator[tuple[str, list[Measured]]]:
    """The figures of each model that has some."""
    for place, model in models.items():
        if model.kind in FIGURES and (found := list(FIGURES[model.kind](sources[place]))):
            yield place, found


def _figures(measured: Mapping[str, Sequence[Measured]]) -> Iterator[str]:
    """A section for each model."""
    for place, found in measured.items():
        yield f"### {place}"
        for one in found:
            yield from (f"{one.cases}.", _table(one.header, one.rows))


def _read(path: Path, model: Path) -> dict[str, Any]:
    """Held-out figures of a model; empty where there are none, or they are of other weights."""
    try:
        content = read_json(path)
    except InputError:
        return {}
    same = isinstance(content, dict) and content.get("model_sha256") == sha256_file(model)
    return content if same else {}


def _part(content: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The test cases, or those of the validation where nothing was tested."""
    for name in ("test", "validation"):
        part = content.get(name)
        if isinstance(part, dict) and part.get("cases"):
            return name, part
    return "", {}


def _reconstruction(model: Path, folder: Path, baseline: str) -> Iterator[Measured]:
    """Dice and surface distance of each class, beside a baseline."""
    name, part = _part(_read(folder / "reconstructions" / "metrics.json", model))
    means = (part.get("model") or {}).get("mean") or {}
    other = (part.get(baseline) or {}).get("mean") or {}
    if not means:
        return
    columns, titles = ("dice", "assd_mm", "hd95_mm"), ("Dice", "ASSD mm", "HD95 mm")
    own = [(c, *(row.get(column) for column in columns)) for c, row in means.items()]
    yield Measured(
        f"{len(part['cases'])} {name} cases, own grids",
        ("class", *titles, f"Dice, {baseline.replace('_', ' ')}"),
        [(*row, other.get(row[0], {}).get("dice")) for row in own],
        _of_classes(titles, own),
    )


def _of_classes(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> dict[str, float]:
    """Figure and class -> value.    rows : class, then a value for each title."""
    return {
        f"{title}, {name}": value
        for name, *values in rows
        for title, value in zip(titles, values)
        if value is not None
    }


def _vecset(model: Path) -> Iterator[Measured]:
    return _reconstruction(model, model.parent, "mean_shape")


def _vqvae(model: Path) -> Iterator[Measured]:
    return _reconstruction(model, model.parents[1], "continuous")


def _refinement(model: Path) -> Iterator[Measured]:
    """Of refined masks against the truth, beside the label as it was."""
    name, part = _part(_read(model.parents[1] / "refined" / "metrics.json", model))
    if not part.get("against_truth"):
        return
    columns = ("dice", "cl_dice", "component_error", "hd95_mm")
    titles = ("Dice", "clDice", "component error", "HD95 mm")
    rows = (("label", "label_against_truth"), ("refined", "against_truth"))
    found = [(t, *(part[k].get(c) for c in columns)) for t, k in rows if part.get(k)]
    cases = f"{part['cases_with_truth']} {name} cases with a truth"
    yield Measured(cases, ("", *titles), found, _of_classes(titles, found[-1:]))


def _diffusion(model: Path) -> Iterator[Measured]:
    """What is completed and generated."""
    completed = _read(model.parents[1] / "completion" / "metrics.json", model)
    if completed.get("mean"):
        rows = [
            (c, *((row.get(m) or {}).get("dice") for m in ("model", "mean_shape")))
            for c, row in completed["mean"].items()
        ]
        cases = f"Classes completed in {len(completed['cases'])} test cases"
        yield Measured(
            cases, ("class", "Dice", "Dice, mean shape"), rows, _of_classes(("Dice",), rows)
        )
    drawn = _read(model.parents[1] / "samples" / "metrics.json", model)
    try:
        compared = read_json(model.parents[1] / "samples" / "figures.json") if drawn else {}
        hearts, figures = compared["hearts"], compared["generated"]["all_classes"]
    except (InputError, KeyError, TypeError):
        return
    titles, row = ("MMD", "COV", "1-NNA"), tuple(figures.get(k) for k in ("mmd", "cov", "nna"))
    cases = f"{hearts['generated']} generated hearts against {hearts['test']} test cases"
    known = {title: value for title, value in zip(titles, row) if value is not None}
    yield Measured(cases, titles, [row], known)


FIGURES: dict[str, Callable[[Path], Iterator[Measured]]] = {  # by kind of the model
    "vecset": _vecset,
    "vqvae": _vqvae,
    "coronary_denoiser": _refinement,
    "coronary_near": _refinement,
    "ldm_diffusion": _diffusion,
}
