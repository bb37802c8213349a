"""Which files of an output folder are ours, and what happens to the others."""

from __future__ import annotations

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from cardiform import outputs
from cardiform.errors import InputError
from cardiform.files import write_json, write_text


@pytest.fixture
def out(tmp_path):
    """A registered folder that is not there yet."""
    folder = tmp_path / "out"
    outputs.register(outputs.Places([folder]))
    yield folder
    outputs.register(outputs.Places())


def listed(out) -> list[str]:
    """The lines of all files of a folder's list that are no remarks."""
    lines = [
        line for path in (out / ".cardiform").iterdir() for line in path.read_text().split("\n")
    ]
    return sorted(line for line in lines if line and not line.startswith("#"))


def command(out, *, out_is_file=False, **given):
    outputs.register_command([{"out": out, **given}], out_is_file)


def write_ours(path) -> None:
    write_text(path, "ours")


def test_what_is_made_is_listed_and_may_be_written_again(out):
    for text in ("first", "second"):
        write_text(out / "case" / "a.txt", text)
    assert (out / "case" / "a.txt").read_text() == "second"
    assert listed(out) == ["case/a.txt"]


def test_somebody_elses_file_is_refused_and_untouched(out):
    out.mkdir()
    (out / "a.txt").write_text("mine")
    with pytest.raises(InputError, match=r"a\.txt: is there already .*; choose another output"):
        write_text(out / "a.txt", "ours")
    (out / "link.txt").symlink_to(out / "gone")
    with pytest.raises(InputError, match="link"):
        write_text(out / "link.txt", "ours")
    assert (out / "a.txt").read_text() == "mine" and (out / "link.txt").is_symlink()


def test_an_input_is_never_written_even_if_we_made_it(out):
    write_text(out / "a.txt", "read")
    (out / "again.txt").symlink_to(out / "a.txt")
    with outputs.reading():
        outputs.protect([out / "again.txt", out / "none.txt"])
        with pytest.raises(InputError, match=r"a\.txt: is an input of this call"):
            write_text(out / "a.txt", "written")
    write_text(out / "a.txt", "written")


def test_places_that_are_taken(out):
    (out / "folder.txt").mkdir(parents=True)
    (out / "file").write_text("mine")
    with pytest.raises(InputError, match="/dev/full: is no regular file"):
        outputs.register_command([{"out": "/dev/full"}], out_is_file=True)
    with pytest.raises(InputError, match=r"folder\.txt: is a folder, not a file"):
        write_text(out / "folder.txt", "ours")
    with pytest.raises(InputError, match="file: is a file where a folder is needed"):
        write_text(out / "file" / "below.txt", "ours")


def test_a_list_of_somebody_elses_is_not_written_to(out):
    out.mkdir()
    (out / ".cardiform").write_text("mine\n")
    with pytest.raises(InputError, match="is no list of Cardiform"):
        write_text(out / "a.txt", "ours")
    with pytest.raises(InputError, match="is no list of Cardiform"):
        command(out)
    assert (out / ".cardiform").read_text() == "mine\n"


def test_ours_alone_is_deleted(out):
    for name in ("x/a.txt", "x/b.txt", "y/c.txt"):
        write_text(out / name, "ours")
    (out / "x" / "mine.txt").write_text("mine")
    (out / "z").mkdir()
    for name in ("x", "y", "z", "none"):
        outputs.remove(out / name)
    left = [p.name for p in out.rglob("*") if p.parent.name != ".cardiform"]
    assert sorted(left) == [".cardiform", "mine.txt", "x", "z"]
    (out / "x" / "a.txt").write_text("mine now")
    with pytest.raises(InputError, match=r"a\.txt: is there already"):
        write_text(out / "x" / "a.txt", "ours")


def test_ours_alone_is_moved(out):
    write_text(out / "x" / "a.txt", "ours")
    outputs.move(out / "x", out / "x.1")
    assert not (out / "x").exists() and outputs.is_listed(out / "x.1" / "a.txt")
    write_text(out / "x" / "a.txt", "ours")
    (out / "x" / "mine.txt").write_text("mine")
    outputs.move(out / "x", out / "x.2")
    assert [p.name for p in (out / "x").iterdir()] == ["mine.txt"]
    assert [p.name for p in (out / "x.2").iterdir()] == ["a.txt"]


def test_several_jobs_share_a_list(out):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: write_text(out / f"{i}.txt", "ours"), range(200)))
    assert listed(out) == sorted(f"{i}.txt" for i in range(200))


def test_each_process_has_a_list_of_its_own(out):
    """On a shared file system, lines that two machines add to one file are lost."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        list(pool.map(write_ours, [out / f"{i}.txt" for i in range(20)]))
    files = [path for path in (out / ".cardiform").iterdir() if path.name != "about.txt"]
    assert 1 <= len(files) <= 2 and os.getpid() not in {int(p.stem.split("-")[-1]) for p in files}
    write_text(out / "7.txt", "by this process, in turn")
    outputs.remove(out / "7.txt")
    assert not outputs.is_listed(out / "7.txt") and outputs.is_listed(out / "8.txt")
    write_text(out / "7.txt", "again")
    assert outputs.is_listed(out / "7.txt")


RECORDS = {
    "state/a.json": json.dumps({"key": "", "outputs": []}),
    "boxes/state/a.json": json.dumps({"key": "", "outputs": []}),
    "manifest/chunk_000.tsv": "case_id\tpath\tbytes\tsha256\tstatus\n",
    "metrics.json": json.dumps({"format_version": 1, "kind": "x", "source_sha256": ""}),
    "metrics.jsonl": json.dumps({"event": "start", "step": 0}) + "\n",
    "train.csv": "case_id,patient_id,path\n",
    ".lock": "process 7 on node3",
}


@pytest.mark.parametrize("name", RECORDS)
def test_an_earlier_version_is_known_by_its_records(out, name):
    (out / name).parent.mkdir(parents=True)
    (out / "a.txt").write_text("made by the version before")
    (out / name).write_text("{}")
    with pytest.raises(InputError):
        write_text(out / "a.txt", "ours")
    (out / name).write_text(RECORDS[name])
    write_text(out / "a.txt", "ours")
    write_text(out / "b.txt", "ours")
    assert (out / "a.txt").read_text() == "ours"


def test_of_an_earlier_version_the_recorded_files_alone_are_deleted(out):
    (out / "a").mkdir(parents=True)
    for name in ("made.ply", "mine.ply"):
        (out / "a" / name).write_text("")
    made = [{"path": "results/old/out/a/made.ply"}]
    write_json(out.parent / "elsewhere.json", {"key": "", "outputs": made})
    (out / "state").mkdir()
    (out.parent / "elsewhere.json").rename(out / "state" / "a.json")
    outputs.remove(out / "a")
    assert [p.name for p in (out / "a").iterdir()] == ["mine.ply"]


def test_the_command_line_is_refused_before_anything_is_computed(tmp_path):
    table = tmp_path / "cases.tsv"
    table.write_text("mine")
    for out in (table, table / "below"):
        with pytest.raises(InputError, match=r"cases\.tsv: is a file, not a folder; correct --out"):
            command(out)
    with pytest.raises(InputError, match="is an input of this call"):
        command(tmp_path / "out", manifest=table, cases=table)
    with pytest.raises(InputError, match="is there already"):
        command(tmp_path / "out", manifest=table)
    command(tmp_path / "out", manifest=str(table), resume_from=table)  # both are read
    with pytest.raises(InputError, match="is there already"):
        command(table, out_is_file=True)
    assert not (tmp_path / "out").exists() and table.read_text() == "mine"


def test_a_manifest_beside_the_folder_is_ours_if_it_lists_files_of_it(tmp_path):
    manifest = tmp_path / "m.tsv"
    head = "case_id\tpath\tbytes\tsha256\tstatus\n"
    manifest.write_text(f"{head}a\t{tmp_path}/out/a.npz\t1\tx\tok\nb\t\t0\t\tskipped: no image\n")
    command(tmp_path / "out", manifest=manifest)
    with pytest.raises(InputError, match=r"m\.tsv: is there already"):
        command(tmp_path / "other", manifest=manifest)
    outputs.register(outputs.Places())


def test_without_a_command_line_nothing_is_checked(tmp_path):
    (tmp_path / "a.txt").write_text("mine")
    write_text(tmp_path / "a.txt", "ours")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
