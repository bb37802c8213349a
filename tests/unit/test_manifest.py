"""Manifests: the files of some cases in order, each once; what is gone or damaged is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from cardiform.cohort.manifest import listed_in, made_files, read_manifest, write_manifest
from cardiform.cohort.table import OK
from cardiform.errors import InputError

DELETE = r"manifest\.tsv.*; delete it and run the same command"


def listed(folder: Path, *names: str, case_id="", status="ok", manifest="manifest.tsv") -> Path:
    """Files ``<case>/<name>`` and a manifest of them; their hashes are their names."""
    rows = []
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        rows.append([case_id or path.parent.name, path, 0, f"sha of {name}", status])
    write_manifest(folder / manifest, rows)
    return folder / manifest


def test_files_come_in_the_order_of_cases_then_of_paths(tmp_path):
    first = listed(tmp_path / "x", "b/z.npz", "b/a.npz", "b/a.json", "c/a.npz")
    second = listed(tmp_path / "y", "a/m.npz")
    found = made_files([first, second], iter(["a", "b"]), ".npz")
    assert [(f.case_id, f.path.name) for f in found] == [
        ("a", "m.npz"), ("b", "a.npz"), ("b", "z.npz")
    ]  # fmt: skip
    assert found[1].sha256 == "sha of b/a.npz"


def test_what_is_skipped_or_filtered_has_no_file(tmp_path, caplog):
    write_manifest(
        tmp_path / "manifest.tsv",
        [["a", "", 0, "", "skipped: bad"], ["b", "b.npz", 1, "x", "filtered: 3 voxels"]],
    )
    assert made_files([tmp_path / "manifest.tsv"], ["a", "b", "c"], ".npz") == []
    (record,) = caplog.records
    assert record.getMessage() == "left out, because no manifest lists them: c"


def test_a_file_that_two_manifests_list_is_there_once(tmp_path):
    """As with manifests of other chunks in the same folder."""
    first, second = (listed(tmp_path, "a/x.npz", manifest=f"{n}.tsv") for n in "12")
    second.write_text(second.read_text().replace("sha of", "later"))
    (file,) = made_files([first, second], ["a"], ".npz")
    assert file.sha256 == "later a/x.npz"


def test_every_file_that_is_gone_is_named(tmp_path):
    manifest = listed(tmp_path, "a/x.npz", "b/x.npz", "c/x.npz", "d/x.npz")
    for name in "abd":
        (tmp_path / name / "x.npz").unlink()
    with pytest.raises(InputError) as caught:
        made_files([manifest], ["a", "b", "c"], ".npz", "make it again")
    assert caught.value.problems == [
        f"{tmp_path}/{name}/x.npz: does not exist; make it again" for name in "ab"
    ]


def test_two_files_of_a_case_and_name_are_refused(tmp_path):
    manifests = [listed(tmp_path / name, "a/x.npz", "b/x.npz") for name in ("fine", "coarse")]
    with pytest.raises(InputError) as caught:
        made_files(manifests, ["a"], ".npz")
    (line,) = caught.value.problems
    assert line.startswith(f"{tmp_path}/fine/a/x.npz: is listed as a file of a beside {tmp_path}")


@pytest.mark.parametrize("damage", ["", "case_id\tpath\n", "cut", "half a row", "a column less"])
def test_a_damaged_manifest_is_named(tmp_path, damage):
    path = listed(tmp_path, "a/x.npz", "b/x.npz")
    text = path.read_text()
    pieces = {
        "cut": text[:-1],
        "half a row": text[:-20],
        "a column less": text.replace("\tok", "", 1),
    }
    path.write_text(pieces.get(damage, damage))
    with pytest.raises(InputError, match=DELETE):
        read_manifest(path)
    with pytest.raises(InputError, match=DELETE):
        made_files([path], ["a"], ".npz")


def test_what_a_folder_lists_is_what_its_stage_made_last(tmp_path):
    assert listed_in(tmp_path, ".nii.gz") is None
    rows = [["a", "elsewhere/a.nii.gz", 1, "x", OK], ["a", "elsewhere/a.json", 1, "x", OK]]
    rows += [["b", "elsewhere/b.json", 1, "x", OK], ["c", "", 0, "", "skipped: no"]]
    write_manifest(tmp_path / "manifest.tsv", rows)
    assert listed_in(tmp_path, ".nii.gz") == {"a"} and listed_in(tmp_path, ".json") == {"a", "b"}
    (tmp_path / "manifest").mkdir()
    write_manifest(tmp_path / "manifest" / "0.tsv", [["d", "d.nii.gz", 1, "x", OK]])
    assert listed_in(tmp_path, ".nii.gz") == {"a", "d"}
