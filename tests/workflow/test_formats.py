"""docs/formats.md against real files, and what each reader says about files that do not fit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from stored_files import NAME, STORED, TABLES, read, write_all

from cardiform import formats
from cardiform.artefact.model import load_model
from cardiform.cohort import checks, manifest, per_case, splits, table
from cardiform.coronary import tree_files
from cardiform.coronary.thin_structure import PackedMask, ThinStructure
from cardiform.errors import InputError
from cardiform.files import save_npz
from cardiform.formats import Format
from cardiform.geometry.narrowband import NarrowBand
from cardiform.labels import LabelTable
from cardiform.ldm.data import load_latents
from cardiform.ldm.diffusion_model import LatentStatistics
from cardiform.ldm.hearts_on_grid import load_grid, read_box
from cardiform.measures.norms import read_norms
from cardiform.measures.table import read_measures
from cardiform.training.checkpoint import Checkpoints
from cardiform.vecset.data import load_case_points
from cardiform.vecset.reconstruct import load_frame
from cardiform.vqvae.data import stored_size

PAGE = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
DTYPES = {
    "bool": "bool", "u8": "uint8", "u16": "uint16", "i8": "int8", "i16": "int16", "i32": "int32",
    "i64": "int64", "f16": "float16", "f32": "float32", "f64": "float64",
}  # fmt: skip
JSON_TYPES = {
    "text": (str,), "bool": (bool,), "integer": (int,), "number": (int, float),
    "object": (dict,),
}  # fmt: skip
AGAIN = "run {} again (snakemake --forcerun"
UPDATE = "made by a newer version of Cardiform; update it"
# What reads each example, and what brings a damaged one back.
READERS = {
    "Points": (
        (load_frame, lambda p: load_case_points(p, NAME, LabelTable())), AGAIN.format("sample_sdf")
    ),
    "Sparse voxels": ((NarrowBand.load, stored_size), AGAIN.format("voxelize_labels or window_ct")),
    "Repaired structure": (
        (ThinStructure.load, lambda p: PackedMask.load(p, "label")), AGAIN.format("repair_coronary")
    ),
    "Check report": (
        (lambda p: checks.judge([case()], {NAME: p}, on_bad_case="stop", max_bad_cases=0),),
        AGAIN.format("check_cases"),
    ),
    "Box": ((read_box,), AGAIN.format("resample_labels")),
    "Grid": ((load_grid,), "delete it and run the same command again"),
    "Latents": ((load_latents,), AGAIN.format("encode_latents")),
    "Latent statistics": ((LatentStatistics.load,), "delete it and run the same command again"),
    "last.pt": (
        (
            lambda p: Checkpoints(p.parents[1]).load_last(),
            lambda p: Checkpoints(p.parents[1]).prepare({}),
        ),
        "delete it to start from scratch",
    ),
    "best.pt": (
        (lambda p: Checkpoints(p.parents[1]).load_best(),), "delete it: the best validation"
    ),
    "model.pt": ((load_model,), "give the model.pt of a training"),
}  # fmt: skip
# The other formats are read by Format.load itself.
REMEDIES = {
    "Frame": AGAIN.format("extract_meshes"),
    "Fields": AGAIN.format("extract_meshes"),
    "Fusion report": AGAIN.format("fuse_labels"),
    "Tree summary": AGAIN.format("trace_coronary"),
    "Shape model": AGAIN.format("shape_statistics"),
    "Template": AGAIN.format("shape_statistics"),
    "Registered heart": AGAIN.format("shape_statistics"),
    "Latent model": AGAIN.format("latent_statistics"),
    "VecSet latents": AGAIN.format("reconstruct_vecset"),
    "Slots": AGAIN.format("encode_set_latents"),
    "Set latents": AGAIN.format("encode_set_latents"),
    "Confidence": AGAIN.format("reconstruct_vecset"),
    "Codes": AGAIN.format("reconstruct_vqvae"),
    "Stages": "export the models again",
    "Applied figures": AGAIN.format("apply_models"),
    "Applied latents": AGAIN.format("apply_models"),
    "Bundle": "get the bundle again from where it came",
    "Vessel tree": AGAIN.format("encode_vessels or encode_set_vessels"),
    "Vessel votes": AGAIN.format("draw_vessels or draw_set_vessels"),
    "Drawn vessels": AGAIN.format("draw_vessels or draw_set_vessels"),
}
every = pytest.mark.parametrize("stored", STORED, ids=lambda s: s.heading)
every_table = pytest.mark.parametrize("stored", TABLES, ids=lambda s: s.heading)


def case() -> table.Case:
    return table.Case(case_id=NAME, patient_id=NAME, labels="a.nii.gz")


def readers(stored) -> tuple[tuple, str]:
    """What reads a format, and the remedy."""
    own = "delete it and run the same command again"
    return READERS.get(stored.heading, ((stored.form.load,), REMEDIES.get(stored.heading, own)))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with a file of each format; not to be changed."""
    folder = tmp_path_factory.mktemp("formats")
    write_all(folder)
    return folder


@pytest.fixture
def changed(written, tmp_path):
    """Write the example of a format anew, with other content."""

    def write(stored, **changes):
        path = tmp_path / stored.path
        content = {**read(written / stored.path), **changes}
        content = {n: v for n, v in content.items() if v is not None}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            path.write_text(json.dumps(content))
        elif path.suffix == ".pt":
            torch.save(content, path)
        else:
            save_npz(path, **content)
        return path

    return write


def section(heading: str) -> str:
    """The text of docs/formats.md under a heading."""
    found = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.S | re.M)
    assert found, f"docs/formats.md has no section {heading}"
    return found[1]


def rows(heading: str) -> dict[str, str]:
    """key -> type and shape, as the page has them."""
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", section(heading), re.M))


def test_the_page_has_every_format():
    headings = set(re.findall(r"^##+ (.*)$", PAGE.read_text(), re.M))
    known = {s.heading for s in (*STORED, *TABLES)}
    assert headings - known == {"Tables", "Inputs", "metrics.json"}
    library = Path(formats.__file__).parent
    declared = sum(
        len(re.findall(r"^\w+ = (?:Format|dataclasses\.replace)\(", p.read_text(), re.M))
        for p in library.rglob("*.py")
    )
    assert declared == len(known) + 2, "two are what all checkpoints and all metrics.json share"


def test_the_page_has_every_kind_of_model():
    library = PAGE.parents[1] / "workflow" / "scripts" / "cardiform"
    code = "".join(path.read_text(encoding="utf-8") for path in library.rglob("*.py"))
    kinds = set(re.findall(r'\bKind\("(\w+)"', code))
    (row,) = re.findall(r"^\| `kind` \| text \| \| what it is: (.*) \|$", PAGE.read_text(), re.M)
    assert len(kinds) > 5 and set(re.findall(r"`(\w+)`", row)) == kinds


def test_no_key_is_twice_in_a_table():
    for part in re.split(r"^#+ ", PAGE.read_text(encoding="utf-8"), flags=re.M):
        keys = re.findall(r"^\| `([^`]+)` \|", part, re.M)
        assert len(keys) == len(set(keys)), part.splitlines()[0]


@pytest.mark.parametrize("stored", (*STORED, *TABLES), ids=lambda s: s.heading)
def test_the_page_says_what_the_readers_check(stored):
    assert rows(stored.heading) == dict(stored.form.keys)
    assert f"Version {stored.form.version}" in section(stored.heading)
    assert (formats.VERSION in stored.form.keys) == stored.form.marked


@every
def test_real_files_have_the_keys_of_the_page(stored, written):
    content = read(written / stored.path)
    stored.form.check(stored.path, content)
    told = rows(stored.heading)
    if stored.form.marked:
        assert content[formats.VERSION] == stored.form.version
    for key, value in content.items():
        wanted = [t for k, t in told.items() if fits(key, k)]
        assert wanted, f"{key} is not on the page"
        agrees(key, value, wanted[0])
    for key, wanted in told.items():
        first, *rest = key.removesuffix("?").split(".")
        if not rest:
            assert key.endswith("?") or any(fits(name, key) for name in content), key
        elif rest[0] == "*":
            entries = (
                content[first].values() if isinstance(content[first], dict) else content[first]
            )
            names = {k.split(".")[2].removesuffix("?") for k in told if k.startswith(f"{first}.*.")}
            for entry in entries:
                if len(rest) == 1:
                    agrees(key, entry, wanted)
                else:
                    assert set(entry) <= names, f"{first} has keys that are not on the page"
                    optional = key.endswith("?")
                    name = rest[1].removesuffix("?")
                    assert optional or name in entry, key
                    if name in entry:
                        agrees(key, entry[name], wanted)


def fits(name: str, key: str) -> bool:
    """Whether a key of the page stands for a name of a file."""
    return re.fullmatch(re.escape(key.removesuffix("?")).replace(r"\*", r"\w+"), name) is not None


def agrees(name: str, value, wanted: str) -> None:
    """The type of a value and its number of axes, exactly."""
    types, _, shape = wanted.partition(" (")
    axes = len(shape.split(",")) if shape else 0
    if isinstance(value, np.ndarray):
        known = [DTYPES.get(t, "<U") for t in types.split(" or ")]
        assert any(value.dtype.name == k or value.dtype.str.startswith(k) for k in known), name
        assert value.ndim == axes, name
        return
    for _ in range(axes):
        assert isinstance(value, list), name
        value = next(iter(value), None)
    known = JSON_TYPES[types]
    assert value is None or type(value) in known or isinstance(value, known[0]), name


@every
def test_a_newer_version_asks_for_an_update(stored, changed):
    version = np.int64(7) if stored.path.endswith(".npz") else 7
    path = changed(stored, format_version=version, **{first_key(stored): None})
    known = ", ".join(map(str, sorted({*stored.form.earlier, stored.form.version})))
    fact = f"has {stored.form.name} format 7, this version reads {known}"
    for reader in readers(stored)[0]:
        assert refusal(reader, path) == f"{path}: {fact}: {UPDATE}"


@pytest.mark.parametrize("stored", [s for s in STORED if s.form.marked], ids=lambda s: s.heading)
def test_an_unknown_version_is_made_again(stored, changed):
    for version, text in ((0, "format 0"), ("x", "format x"), (None, "no format_version")):
        stored_as = np.array(version) if stored.path.endswith(".npz") else version
        path = changed(stored, format_version=None if version is None else stored_as)
        functions, remedy = readers(stored)
        for reader in functions:
            line = refusal(reader, path)
            assert text in line and remedy in line


# codes.npz has no key of its own: a case may have none of the structures.
@pytest.mark.parametrize(
    "stored", [s for s in STORED if s.heading != "Codes"], ids=lambda s: s.heading
)
def test_a_missing_key_is_named(stored, changed):
    key = first_key(stored)
    path = changed(stored, **{key: None})
    functions, remedy = readers(stored)
    for reader in functions:
        line = refusal(reader, path)
        assert line.startswith(f"{path}: is no {stored.form.name} file (no {key}"), line
        assert remedy in line


@every
def test_another_type_is_named(stored, changed):
    key = first_key(stored)
    wrong = np.full((2, 2, 2), 1j) if stored.path.endswith(".npz") else [[[[None]]]]
    path = changed(stored, **{key: wrong})
    functions, remedy = readers(stored)
    for reader in functions:
        if reader is stored_size:
            continue  # it reads no coordinates
        line = refusal(reader, path)
        assert line.startswith(f"{path}: is no {stored.form.name} file ({key} is "), line
        assert remedy in line


def first_key(stored) -> str:
    """A key that every file of the format has."""
    names = [k for k in stored.form.keys if k != formats.VERSION and k[-1] != "?"]
    return {"*_coords": "ball0_coords"}.get(names[0], names[0])


def refusal(reader, path) -> str:
    """The one line that a reader says."""
    with pytest.raises(InputError) as caught:
        reader(path)
    [line] = caught.value.problems
    assert "\n" not in line
    return line


def test_a_state_that_does_not_fit_is_made_again(changed, written):
    [stored] = [s for s in STORED if s.heading == "State of a case"]
    path = changed(stored)
    out, there = path.parent.parent, (written / stored.path).parent.parent
    shutil.copytree(there, out, dirs_exist_ok=True)
    run, case = (
        per_case.CaseRun([], out, out / "manifest.tsv"),
        table.Case(case_id=path.stem, patient_id=path.stem),
    )
    assert per_case._is_finished(run, case, read(path)["key"])
    for damage in ({"format_version": 7}, {"outputs": None}, {"outputs": [{"path": "x"}]}):
        assert changed(stored, **damage) == path
        assert not per_case._is_finished(run, case, read(path)["key"])


def test_a_sample_that_does_not_fit_is_made_again(changed):
    from cardiform.ldm.samples import _stored

    [stored] = [s for s in STORED if s.heading == "Sample latents"]
    assert _stored(changed(stored), "key") is not None
    for damage in ({"format_version": np.int64(7)}, {"latents": None}):
        assert _stored(changed(stored, **damage), "key") is None


def test_a_report_that_cannot_be_read_is_made_again(written, tmp_path):
    shutil.copytree(written / "qc", tmp_path / "qc")
    report = tmp_path / "qc" / "cases" / "a.json"
    good = report.read_text()
    [found] = table.read_checked_cases(written / "cases.tsv")
    places = {"out": tmp_path / "qc", "manifest": tmp_path / "qc" / "manifest.tsv", "processes": 1}
    labels = LabelTable()
    for damage in ("{", "{}"):
        report.write_text(damage)
        checks.check_cases([found], labels, **places)
        assert json.loads(report.read_text())["problems"] == json.loads(good)["problems"]


def test_entries_within_json_are_checked(changed):
    """frame.json and the like: a class without its value, a list in place of a number."""
    [frame] = [s for s in STORED if s.heading == "Frame"]
    classes = read(changed(frame))["classes"]
    classes["myocardium"].pop("value")
    classes["left_ventricle"]["shift_mm"] = ["x"]
    line = refusal(frame.form.load, changed(frame, classes=classes))
    assert "(no classes.myocardium.value)" in line
    classes["myocardium"]["value"] = 1
    line = refusal(frame.form.load, changed(frame, classes=classes))
    assert "(classes.left_ventricle.shift_mm is \"['x']\", not number)" in line
    assert "no classes" not in line
    line = refusal(frame.form.load, changed(frame, classes=3))
    assert "classes" in line and "extract_meshes" in line


def test_sizes_of_one_name_agree(changed):
    [points] = [s for s in STORED if s.heading == "Points"]
    short = read(changed(points))["near_sdf"][1:]
    line = refusal(points.form.load, changed(points, near_sdf=short))
    assert "near_labels" in line or "near_sdf is float16" in line


@every_table
def test_tables_have_the_header_of_the_page(stored, written):
    header, _ = table.read_table(written / stored.path)
    assert header == list(rows(stored.heading))


@every_table
def test_tables_with_other_columns_are_refused(stored, written, tmp_path):
    reader = {
        "Manifest": manifest.read_manifest,
        "Checked case table": table.read_checked_cases,
        "Split": splits.read_split,
        "Branch table": tree_files.read_branches,
        "Measure table": read_measures,
        "Norms": read_norms,
    }[stored.heading]
    text = (written / stored.path).read_text()
    reader(written / stored.path)
    mark = "\t" if stored.path.endswith(".tsv") else ","
    wide = "\n".join(f"{line}{mark}new" for line in text.splitlines()) + "\n"
    path = tmp_path / Path(stored.path).name
    path.write_text(wide)
    line = refusal(reader, path)
    assert line.startswith(f"{path}: is a {stored.form.name} with more columns")
    assert line.endswith(UPDATE)
    path.write_text("\n".join(line.split(mark, 1)[1] for line in text.splitlines()) + "\n")
    line = refusal(reader, path)
    assert line.startswith(f"{path}: is no {stored.form.name} (columns ")
    assert line.endswith("delete it and run the same command again")


def test_earlier_versions_are_read():
    form = Format("x", {"a": "integer", "format_version": "integer"}, version=3, earlier=(2,))
    for version in (2, 3):
        form.check("f", {"a": 1, "format_version": version})
    for version, text in ((1, "this version reads 2, 3; delete"), (4, "reads 2, 3: made by")):
        with pytest.raises(InputError, match=text):
            form.check("f", {"a": 1, "format_version": version})
