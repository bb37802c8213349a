"""A thin structure before and after its refinement: figures, surfaces, pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..cohort.splits import read_split
from ..coronary.thin_structure import ThinStructure
from ..errors import InputError
from ..geometry.grids import cropped_affine
from ..geometry.mask_surface import surface_of_mask
from ..geometry.sdf import smooth_distance
from ..geometry.surface import Mesh
from ..labels import LabelTable
from ..volumes import class_boxes, load_label_map
from .figures import PARTS
from .hearts import arrays, ranks, thinner
from .parts import NONE, Picture, Results, Section, Table, Viewer, structures, words
from .trainings import SKIPPED, title_of

WAYS = {
    "label_against_truth": "given label",
    "repair_against_truth": "repaired",
    "against_truth": "refined",
}
MASKS = (
    ("dice", "Dice", ".3f"), ("cl_dice", "clDice", ".3f"), ("component_error", "parts off", ".1f"),
    ("assd_mm", "ASSD mm", ".2f"), ("hd95_mm", "HD95 mm", ".2f"),
)  # fmt: skip
SHOWN = (
    ("given", "Given"),
    ("repaired", "Repaired"),
    ("model", "Refined"),
    ("fused", "Fused"),
    ("both", "Refined, and the given in pale blue"),
)
FUSED = "fused/summary.json"
FUSED_FIGURES = (
    ("dice_given", "Dice: given"), ("dice_fused", "fused"),
    ("cl_dice_given", "clDice: given"), ("cl_dice_fused", "fused"),
)  # fmt: skip
FACES = 8000  # of a tree: with fewer its thin branches break
MOST_PICTURES = 3
SMOOTH_VOX = 0.7


def refined_sections(results: Results, labels: LabelTable) -> list[Section]:
    """A section per structure that was refined: the coronaries, or what the config names."""
    files = sorted(results.folder.glob("*/refined/metrics.json"))
    names = [path.relative_to(results.folder).parts[0] for path in files]
    names = [name for name in names if name not in SKIPPED]
    sections = [
        _section(results, name, labels)
        for name in names
        if results.json(f"{name}/refined/metrics.json") is not None
    ]
    return [*sections, *_fused(results, labels)]


def _section(results: Results, name: str, labels: LabelTable) -> Section:
    file = f"{name}/refined/metrics.json"
    results.json(file)
    tables = [
        table
        for part in PARTS
        for grid in ((), ("own_grid",))
        if (table := _table(results, file, part, grid)) is not None
    ]
    text = "" if tables else "No truth is known: there are no figures of how right the masks are. "
    test = results.folder / "split" / "test.csv"
    cases = [case_id for case_id, _ in read_split(test)] if test.is_file() else []
    shown = _shown(results, name, cases)
    viewer = _viewer(results, name, shown, labels)
    if viewer is not None:
        text += (
            "In the view, the given label is what the label map had; voxels of a fused one that "
            "touch at their corners alone look apart."
        )
        tables += _of_cases(results, name, shown)
    refined = results.folder / name / "refined"
    pictures = [
        Picture.of(f"{case}: given and refined", path)
        for case in cases
        if (path := refined / f"{case}.png").is_file()
    ]
    title = title_of(f"{name}/cardiform") if name == "coronary" else f"Refinement: {name}"
    viewers = [viewer] if viewer else []
    kept = pictures[:MOST_PICTURES]
    return Section(f"refined-{name}", title, text.strip(), tables, (), viewers, pictures=kept)


def _table(results: Results, file: str, part: str, grid: tuple[str, ...]) -> Table | None:
    """Given, repaired and refined masks against the truth; None where it is not known."""
    place: Any = results.json(file)
    for key in (part, *grid):
        place = place.get(key) if isinstance(place, dict) else None
    rows = [
        [
            *words(name),
            *(results.number(file, (part, *grid, key, f), form) for f, _, form in MASKS),
        ]
        for key, name in WAYS.items()
        if isinstance(place, dict) and place.get(key)
    ]
    if not rows:
        return None
    where = "the label maps' own grid" if grid else "a finer grid"
    columns = ("against the truth", *(heading for _, heading, _ in MASKS))
    return Table(f"{PARTS[part].capitalize()}, on {where}", columns, rows)


def _shown(results: Results, name: str, cases: Sequence[str]) -> dict[str, str]:
    """Case -> its rank; of the test cases the best, the median and the worst by clDice, or the
    first of them where no truth is known."""
    known = {}
    for case in cases:
        found = results.json(f"{name}/refined/{case}.json") or {}
        if (value := (found.get("against_truth") or {}).get("cl_dice")) is not None:
            known[case] = float(value)
    if known:
        return {case: rank for rank, case in ranks(known).items()}
    there = [c for c in cases if results.json(f"{name}/refined/{c}.json") is not None]
    return dict.fromkeys(there[:MOST_PICTURES], "test case")


def _of_cases(results: Results, name: str, shown: Mapping[str, str]) -> Iterator[Table]:
    """The figures of the cases in the view."""
    rows = []
    for case, rank in shown.items():
        file = f"{name}/refined/{case}.json"
        for key, way in WAYS.items():
            cells = [results.number(file, (key, figure), form) for figure, _, form in MASKS]
            if any(cell.text != NONE for cell in cells):
                rows.append([*words(f"{rank}: {case}", way), *cells])
    if rows:
        columns = ("case", "against the truth", *(heading for _, heading, _ in MASKS))
        yield Table("Cases in the view, on a finer grid", columns, rows)


def _viewer(
    results: Results, name: str, shown: Mapping[str, str], labels: LabelTable
) -> Viewer | None:
    """Given, repaired, refined and fused surfaces; None where no file is there."""
    hearts, there, reach = {}, set(), {}
    for case, rank in shown.items():
        meshes = dict(_surfaces(results, name, case, labels))
        if "model" not in meshes:
            continue
        heart: dict[str, Any] = {"name": name}
        for way, mesh in meshes.items():
            heart[way] = arrays(thinner(mesh, FACES))
        there |= {*meshes, *(["both"] if "given" in meshes else [])}
        places = np.concatenate([mesh.vertices for mesh in meshes.values()])
        ends = zip("xyz", places.min(axis=0).tolist(), places.max(axis=0).tolist())
        reach[f"{rank}: {case}"] = {axis: [low, high] for axis, low, high in ends}
        hearts[f"{rank}: {case}"] = [heart]
    if not hearts:
        return None
    ways = [(way, title) for way, title in SHOWN if way in there]
    named = structures([name], labels)
    return Viewer("Before and after", hearts, named, ways, reach=reach)


def _surfaces(
    results: Results, name: str, case: str, labels: LabelTable
) -> Iterator[tuple[str, Mesh]]:
    """Way -> surface, of those that are there."""
    folder = results.folder
    results.last = path = folder / name / "repaired" / f"{case}.npz"
    if path.is_file():
        thin = ThinStructure.load(path)
        yield "given", surface(thin.label, thin.affine)
        yield "repaired", surface(thin.repaired, thin.affine)
    fine, own = (folder / name / "refined" / sub / f"{case}.nii.gz" for sub in ("fine", ""))
    value = next((label.value for label in labels if label.name == name), None)
    for way, path, of in (
        ("model", fine if fine.is_file() else own, 1),
        ("fused", folder / "fused" / f"{case}.nii.gz", value),
    ):
        mesh = _of_label_map(path, of) if path.is_file() and of is not None else None
        if mesh is not None:
            yield way, mesh


def _of_label_map(path: Path, value: int) -> Mesh | None:
    """The surface of one value; None where the file has no such voxel, or is damaged."""
    try:
        label_map = load_label_map(path)
    except InputError:
        return None
    box = class_boxes(label_map.data).get(value)
    if box is None:
        return None
    start = [part.start for part in box]
    return surface(label_map.data[box] == value, cropped_affine(label_map.affine, start))


def surface(mask: np.ndarray, affine: np.ndarray) -> Mesh:
    """The smooth surface of an (X, Y, Z) bool mask, RAS mm."""

    def field(padded: np.ndarray, spacing: np.ndarray) -> np.ndarray:
        return smooth_distance(padded, spacing, SMOOTH_VOX)

    return surface_of_mask(mask, affine, field, pad=2)


def _fused(results: Results, labels: LabelTable) -> Iterator[Section]:
    """What fusion changed, and how right it is where a truth is known."""
    found = results.json(FUSED)
    if found is None:
        return
    named = structures(found["classes"], labels)
    tables = []
    judged = [s for s in named if "against_truth" in found["classes"][s[0]]]
    if judged:
        rows = [
            [
                *words(title),
                *(
                    results.number(FUSED, ("classes", name, "against_truth", key), ".3f")
                    for key, _ in FUSED_FIGURES
                ),
            ]
            for name, title, _ in judged
        ]
        columns = ("structure", *(heading for _, heading in FUSED_FIGURES))
        tables.append(Table("Against the truth", columns, rows))
    keys = ("cases", "changed_cases", "unexpected_before", "unexpected_after")
    rows = [
        [*words(title), *(results.number(FUSED, ("classes", name, key), ".0f") for key in keys)]
        for name, title, _ in named
    ]
    columns = (
        "structure", "cases", "changed", "unusual number of parts, before", "after",
    )  # fmt: skip
    tables.append(Table("What fusion changed", columns, rows))
    yield Section("fused", "Fused label maps", "", tables)
