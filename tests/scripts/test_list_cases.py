"""list_cases: folders as people have them to a case table."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest
from answers import refused
from inside import run_inside
from planner import planner

from cardiform.cohort.table import read_case_table

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "stacom2025.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*paths: str) -> None:
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def listed(*arguments) -> dict[str, dict[str, str]]:
    """Case id -> its row, paths from the folder of the table."""
    result = run_inside("list_cases.py", *arguments, "--out", "cohort.tsv", "--force")
    assert result.returncode == 0, result.stderr
    read_case_table("cohort.tsv")
    with open("cohort.tsv", newline="") as file:
        return {row["case_id"]: row for row in csv.DictReader(file, delimiter="\t")}


def test_folders_are_joined_by_the_names_of_their_files(folder):
    make("labels/a_seg.nii.gz", "labels/b_seg.nii", "images/a.nii.gz", "images/c_ct.nii.gz")
    make("clouds/b.h5", "truth/a-truth.nii.gz", "labels/readme.txt", "labels/._a_seg.nii.gz")
    sources = ("--labels", "labels", "--images", "images", "--pointclouds", "clouds")
    rows = listed(*sources, "--truth", "truth", "--left-over", "left.tsv")
    assert rows == {
        "a": {"case_id": "a", "patient_id": "a", "labels": "labels/a_seg.nii.gz",
              "image": "images/a.nii.gz", "pointcloud": "", "truth": "truth/a-truth.nii.gz"},
        "b": {"case_id": "b", "patient_id": "b", "labels": "labels/b_seg.nii",
              "image": "", "pointcloud": "clouds/b.h5", "truth": ""},
    }  # fmt: skip
    assert "images/c_ct.nii.gz\tno label map of this case" in Path("left.tsv").read_text()


def test_a_cohort_may_lack_label_maps(folder):
    make("scans/a_ct.nii.gz", "scans/b_ct.nii.gz", "clouds/b.h5", "clouds/c.h5")
    rows = listed("--images", "scans", "--pointclouds", "clouds", "--left-over", "left.tsv")
    assert list(rows["a"]) == ["case_id", "patient_id", "image", "pointcloud"]
    assert rows["b"]["pointcloud"] == "clouds/b.h5" and rows["a"]["pointcloud"] == ""
    assert "clouds/c.h5\tno CT of this case" in Path("left.tsv").read_text()
    assert listed("--pointclouds", "clouds")["c"]["pointcloud"] == "clouds/c.h5"


def test_meshes_are_files_or_folders_of_cases(folder):
    make("hearts/p1/meshes/lv.stl", "hearts/p1/meshes/rv.stl", "hearts/p2/meshes/lv.ply")
    make("hearts/p2/notes.txt", "hearts/p3.obj", "labels/p1.nii.gz")
    rows = listed("--meshes", "hearts")
    assert {name: row["meshes"] for name, row in rows.items()} == {
        "p1": "hearts/p1/meshes",
        "p2": "hearts/p2/meshes",
        "p3": "hearts/p3.obj",
    }
    assert list(listed("--meshes", "hearts/{case}/meshes")) == ["p1", "p2"]
    rows = listed("--meshes", "hearts/{case}/meshes/lv.stl")
    assert {name: row["meshes"] for name, row in rows.items()} == {"p1": "hearts/p1/meshes/lv.stl"}
    rows = listed("--meshes", "hearts", "--labels", "labels")
    assert rows["p1"]["meshes"] == "hearts/p1/meshes" and list(rows) == ["p1"]


def test_labels_and_images_in_one_folder_are_told_apart_by_their_names(folder):
    make("scans/p1_img.nii.gz", "scans/p1_label.nii.gz", "scans/p2_img.nii.gz")
    rows = listed("--labels", "scans", "--images", "scans")
    assert list(rows) == ["p1"] and rows["p1"]["image"] == "scans/p1_img.nii.gz"
    make("scans/p3.nii.gz")  # neither
    result = run_inside("list_cases.py", "--labels", "scans", "--images", "scans", "--out", "t.tsv")
    refused(result, "scans/p3.nii.gz: is labels and image of case p3; tell them apart")
    assert not Path("t.tsv").exists()


def test_patterns_name_patients_and_whatever_joins_files(folder):
    for patient in ("x", "y"):
        for phase in ("ed", "es"):
            make(f"in/{patient}/{phase}/{patient}_heart.nii.gz", f"ct/{patient}-{phase}.nii.gz")
    rows = listed(
        *("--labels", "in/{patient}/{phase}/{patient}_heart.nii.gz"),
        *("--images", "./ct/{patient}-{phase}.nii.gz"),
    )
    assert list(rows) == ["x_ed", "x_es", "y_ed", "y_es"]
    assert rows["y_es"]["patient_id"] == "y" and rows["y_es"]["image"] == "ct/y-es.nii.gz"
    # a name that is repeated has to be the same
    make("in/x/ed/z_heart.nii.gz")
    assert len(listed("--labels", "in/{patient}/{phase}/{patient}_heart.nii.gz")) == 4
    assert list(listed("--labels", "in/**/ed/{case}_heart.nii.gz", "--only", only("z"))) == ["z"]
    assert list(listed("--labels", str(folder / "ct" / "{case}-?d.nii.gz"))) == ["x", "y"]


def only(*names: str) -> str:
    Path("only.txt").write_text("\n".join(names))
    return "only.txt"


def test_one_image_of_a_patient_is_that_of_all_its_label_maps(folder):
    make("p/1/first.nii.gz", "p/1/second.nii.gz", "p/1/ct/volume.nii.gz")
    rows = listed("--labels", "p/{patient}/{case}.nii.gz", "--images", "p/{patient}/ct/*.nii.gz")
    assert {row["image"] for row in rows.values()} == {"p/1/ct/volume.nii.gz"}
    assert list(rows) == ["first", "second"]


def test_names_as_in_bids(folder):
    for sub in ("01", "02"):
        top = f"bids/sub-{sub}/ses-a/anat/sub-{sub}_ses-a"
        make(f"{top}_ct.nii.gz", f"bids/derivatives/sub-{sub}_ses-a_desc-manual_dseg.nii.gz")
    rows = listed("--labels", "bids/derivatives", "--images", "bids")
    assert list(rows) == ["sub-01_ses-a", "sub-02_ses-a"]
    assert rows["sub-02_ses-a"]["patient_id"] == "sub-02"
    assert rows["sub-02_ses-a"]["image"].endswith("sub-02_ses-a_ct.nii.gz")


def test_every_ending_that_is_read(folder):
    make("l/a.nii.gz", "l/b.NII", "l/c.hdr", "l/c.img", "l/d.hdr.gz", "l/d.img.gz", "l/e.mgz")
    assert list(listed("--labels", "l")) == list("abcde")


def test_a_folder_for_each_case(folder):
    make("d/patient 1/seg.nii.gz", "d/patient 1/ct.nii.gz", "d/patient2/labels/mask.nii.gz")
    rows = listed("--labels", "d", "--images", "d")
    assert list(rows) == ["patient2", "patient_1"]
    assert rows["patient_1"]["image"] == "d/patient 1/ct.nii.gz" and not rows["patient2"]["image"]


def test_0000_is_a_channel_behind_images_and_else_a_number(folder):
    make("l/heart_0000.nii.gz", "l/heart_0001.nii.gz", "one/a.nii.gz", "one/a_0000.nii.gz")
    make("i/heart_0000_0000.nii.gz", "i/heart_0001_0000.nii.gz", "n/0000.nii.gz", "n/0001.nii.gz")
    rows = listed("--labels", "l", "--images", "i")
    assert {name: row["image"] for name, row in rows.items()} == {
        "heart_0000": "i/heart_0000_0000.nii.gz", "heart_0001": "i/heart_0001_0000.nii.gz"
    }  # fmt: skip
    assert list(listed("--labels", "n")) == ["0000", "0001"]
    assert list(listed("--labels", "one")) == ["a"]
    assert list(listed("--labels", "l", "--only", only("heart_0000.nii.gz"))) == ["heart_0000"]


def test_lists_may_lack_the_zeros_of_ids(folder):
    make("l/001.nii.gz", "l/010.nii.gz", "l/p02.nii.gz", "l/p2.nii.gz", "l/p03_1.nii.gz")
    assert list(listed("--labels", "l", "--only", only("1", "10.nii.gz"))) == ["001", "010"]
    assert list(listed("--labels", "l", "--only", only("p2", "p3_01"))) == ["p2", "p03_1"]
    # two cases might be meant
    refused(run_inside("list_cases.py", "--labels", "l", "--only", only("p002"), "--out", "t.tsv"),
            "lists no case; it has p002")  # fmt: skip


def test_lists_and_tables_may_name_cases_as_their_files_are_called(folder):
    """A name with a space or an umlaut makes another id, which nobody writes into a list."""
    make("l/M\u00fcller 1.nii.gz", "l/patient 2_seg.nii.gz", "l/3.nii.gz")
    lines = "M\u00fcller 1.nii.gz\npatient 2, 3\n"
    assert list(listed("--labels", "l", "--only", only(lines))) == ["3", "M_ller_1"]
    lines = "M\u00fcller 1\npatient 2\n"
    rows = listed("--labels", "l", "--whole", f"aorta={only(lines)}")
    assert {name: row["cut"] for name, row in rows.items()} == {
        "3": "aorta", "M_ller_1": "", "patient_2": ""
    }  # fmt: skip
    table = "case_id,patient_id\nM\u00fcller 1,a\npatient 2,b\n3,c\n"
    Path("who.csv").write_text(table, encoding="utf-8")
    rows = listed("--labels", "l", "--patients", "who.csv")
    assert [row["patient_id"] for row in rows.values()] == ["c", "a", "b"]


def test_a_table_of_patients_may_hold_other_cases_whose_names_make_the_same_id(folder):
    make("l/a_1.nii.gz", "l/b 2.nii.gz")
    rows = "a 1,other\na_1,a\nM\u00fcller,m\nM\u00f6ller,n\n\u5f35,o\n\u674e,p\nb 2,b\n"
    Path("who.csv").write_text(f"case_id,patient_id\n{rows}", encoding="utf-8")
    rows = listed("--labels", "l", "--patients", "who.csv")
    assert [row["patient_id"] for row in rows.values()] == ["a", "b"]


def test_entries_that_a_list_comments_out_are_no_cases(folder):
    make("l/1.nii.gz", "l/2.nii.gz", "l/p 3.nii.gz")
    assert list(listed("--labels", "l", "--only", only("1\n#2\n#p 3\n"))) == ["1"]


def test_the_same_name_in_the_folders_of_patients(folder):
    make("scans/p1/ct.1.nii.gz", "scans/p2/ct.1.nii.gz")
    result = run_inside("list_cases.py", "--labels", "scans", "--out", "t.tsv")
    advice = re.search(r"such as '(.*)'", result.stderr)[1]
    assert list(listed("--labels", advice)) == ["p1_ct.1", "p2_ct.1"]


def test_a_pattern_in_quotes_may_begin_at_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    make("l/a.nii.gz")
    assert list(listed("--labels", "~/l/{case}.nii.gz")) == ["a"]


def test_a_path_that_begins_with_a_quote_can_be_read_back(folder):
    make('"l"/a.nii.gz')
    assert listed("--labels", '"l"')["a"]["labels"] == '"l"/a.nii.gz'


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch):
    make("l/open/a.nii.gz", "l/shut/b.nii.gz")
    scan = os.scandir

    def denied(path):
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    result = run_inside("list_cases.py", "--labels", "l", "--out", "t.tsv")
    assert "l/shut: cannot be read (Permission denied)" in result.stderr
    assert [case.case_id for case in read_case_table("t.tsv")] == ["a"]


def test_cases_are_sorted_by_their_numbers(folder):
    make(*(f"l/{n}.nii.gz" for n in (10, 9, 100, 1)))
    assert list(listed("--labels", "l")) == ["1", "9", "10", "100"]


def test_patients_of_a_pattern_and_of_a_table(folder):
    make("l/p1_a.nii.gz", "l/p1_b.nii.gz", "l/p2_a.nii.gz")
    rows = listed("--labels", "l", "--patient", "{patient}_*")
    assert [row["patient_id"] for row in rows.values()] == ["p1", "p1", "p2"]
    Path("who.csv").write_text("case_id,patient_id\np1_a,anna\np1_b,anna\np2_a,bert\n")
    rows = listed("--labels", "l", "--patients", "who.csv")
    assert [row["patient_id"] for row in rows.values()] == ["anna", "anna", "bert"]
    make("l/q.nii.gz")
    both = ("--patient", "{patient}_*"), ("--patients", "who.csv")
    for more, words in zip(both, ("does not fit 1 cases (q)", "has no patient of 1 cases (q)")):
        refused(run_inside("list_cases.py", "--labels", "l", *more, "--out", "t.tsv"), words)
    refused(run_inside("list_cases.py", "--labels", "l", *both[0], *both[1], "--out", "t.tsv"),
            "both name the patients")  # fmt: skip


def test_names_of_patients_become_ids_or_are_refused(folder):
    make("p/anna b/1.nii.gz", "p/anna b/2.nii.gz")
    pattern = ("--labels", "p/{patient}/{case}.nii.gz")
    assert {row["patient_id"] for row in listed(*pattern).values()} == {"anna_b"}
    make("q/\u5f20/1.nii.gz", "q/\u5f20/2.nii.gz")
    call = ("list_cases.py", "--labels", "q/{patient}/{case}.nii.gz", "--out", "t.tsv")
    refused(run_inside(*call), "case 1: its patient '\u5f20' makes no patient id")
    Path("who.csv").write_text("case_id,patient_id\n1,\u5f20\n2,\u5f20\n")
    more = ("--patients", "who.csv")
    refused(run_inside("list_cases.py", *pattern, *more, "--out", "t.tsv"), "makes no patient id")
    Path("who.csv").write_text("case_id,patient_id\n1,a\n2,b\n1,b\n")
    refused(run_inside("list_cases.py", *pattern, *more, "--out", "t.tsv"),
            "who.csv:4: case 1 is of b, and of a above")  # fmt: skip


def test_patients_whose_names_make_one_id_are_told_apart(folder):
    """They were one patient without a word; one patient of several cases is."""
    make("p/M\u00fcller/1.nii", "p/M\u00fcller/2.nii", "p/M\u00f6ller/3.nii", "l/1.nii", "l/2.nii")
    words = "patients 'M\u00f6ller', 'M\u00fcller': are one patient id, M_ller"
    pattern = ("--labels", "p/{patient}/{case}.nii")
    refused(run_inside("list_cases.py", *pattern, "--out", "t.tsv"), words)
    Path("who.csv").write_text("case_id,patient_id\n1,a b\n2,a.b\n")
    rows = listed("--labels", "l", "--patients", "who.csv")
    assert [row["patient_id"] for row in rows.values()] == ["a_b", "a.b"]
    Path("who.csv").write_text("case_id,patient_id\n1,a b\n2,a_b\n")
    call = ("list_cases.py", "--labels", "l", "--patients", "who.csv", "--out", "t.tsv")
    refused(run_inside(*call), "are one patient id, a_b")


def test_a_table_that_is_there_is_kept_unless_one_says_so(folder):
    make("l/a.nii.gz")
    Path("mine.tsv").write_text("mine")
    call = ("list_cases.py", "--labels", "l", "--out", "mine.tsv")
    refused(run_inside(*call), "mine.tsv: is there already; name another, or add --force")
    assert Path("mine.tsv").read_text() == "mine"
    more = ("--out", "new.tsv", "--left-over", "mine.tsv")
    refused(run_inside(*call[:3], *more), "mine.tsv: is there already")
    assert run_inside(*call, "--force").returncode == 0
    assert "a.nii.gz" in Path("mine.tsv").read_text()
    refused(run_inside(*call[:4], "l"), "is a folder")
    for name in ("l/a.nii.gz", "x.H5"):
        refused(run_inside(*call[:4], name, "--force"), "is called like a file of a cohort")
    assert Path("l/a.nii.gz").read_bytes() == b""


def test_files_elsewhere_are_named_by_their_whole_path(folder):
    make("data/l/a.nii.gz", "work/x")
    assert run_inside("list_cases.py", "--labels", "data/l", "--out", "work/t.tsv").returncode == 0
    assert str(folder / "data" / "l" / "a.nii.gz") in Path("work/t.tsv").read_text()
    assert read_case_table("work/t.tsv")[0].labels == str(folder / "data/l/a.nii.gz")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--labels", "nowhere"), "nowhere: is not there"),
        (("--labels", "empty"), "has not a file that ends in .nii.gz"),
        (("--labels", "l/a.nii.gz"), "l/a.nii.gz: is a file; name a folder"),
        (("--labels", "l/{case}.mha"), "has not a file that fits"),
        (("--labels", "l/*.nii.gz"), "has no named part"),
        (("--labels", "l/{a b}.nii.gz"), "has a part in braces that is no name"),
        (("--labels", "l/{case.nii.gz"), "has a part in braces that is no name"),
        (("--labels", "twice"), "twice/2/a.nii.gz: is case a, as is twice/1/a.nii.gz"),
        (("--labels", "l", "--images", "twice"), "is the image of case a, as is twice/1/a.nii.gz"),
        (("--labels", "odd"), "its name makes no case id ('summary')"),
        (("--meshes", "nowhere"), "nowhere: is not there"),
        (("--meshes", "empty"), "has not a folder with files that end in .ply, .stl, .obj"),
        (("--labels", "l", "--images", "nowhere", "--truth", "empty"), "nowhere: is not there"),
        (("--labels", "l", "--only", "nowhere"), "nowhere: cannot be read"),
        (("--labels", "l", "--only", "others.txt"), "lists no case; it has x y"),
        (("--labels", "l", "--whole", "heart=others.txt"), "is no CLASS=FILE"),
        (("--labels", "l", "--whole", "aorta"), "is no CLASS=FILE"),
        (("--labels", "l", "--patient", "p"), "has no {patient}"),
        (("--labels", "l", "--patient", "{patient}{patient}"), "has {patient} twice"),
        (("--labels", ""), "no files are named; give --labels a folder or a pattern"),
        (("--labels", "l", "--left-over", "./t.tsv"), "t.tsv: is --out and --left-over"),
        (("--labels", "l", "--images", "odd"), "odd: is the image of no case; cases are called a"),
        (("--labels", "tab"), "'tab/a\\tb.nii.gz': has a name that no table can hold"),
        (("--labels", "tab/a\udcff"), "'tab/a\\udcff/b.nii.gz': has a name that no table can hold"),
        (("--labels", "l", "--patients", "others.txt"), "no column case_id, patient_id"),
    ],
)
def test_what_cannot_be_listed_is_one_line(folder, arguments, words):
    make("l/a.nii.gz", "twice/1/a.nii.gz", "twice/2/a.nii.gz", "odd/summary.nii.gz")
    Path("empty").mkdir()
    make("tab/a\tb.nii.gz", "tab/a\udcff/b.nii.gz")
    Path("others.txt").write_text("x y\n")
    result = run_inside("list_cases.py", *arguments, "--out", "t.tsv")
    refused(result, words)
    assert not Path("t.tsv").exists()


def test_all_sources_that_cannot_be_read_are_named(folder):
    result = run_inside(
        "list_cases.py", "--labels", "x", "--images", "y", "--truth", "z", "--out", "t.tsv"
    )
    refused(result, "x: is not there", "y: is not there", "z: is not there")


def test_links_are_followed_and_never_round_in_circles(folder):
    make("real/a.nii.gz")
    Path("l").mkdir()
    Path("l/there").symlink_to(folder / "real")
    Path("real/back").symlink_to(folder / "l")
    assert list(listed("--labels", "l")) == ["a"]


def stacom(folder: Path) -> None:
    """The two downloads side by side, with fewer scans."""
    scans = [*range(1, 30), 90, 141, 1000]
    make(*(f"data/imagecas/1-200/{n}.{kind}.nii.gz" for n in scans for kind in ("img", "label")))
    labelled = [n for n in scans if n not in (90, 141)]
    make(*(f"data/stacom2025/labels/{n}.nii.gz" for n in labelled))
    lists = {"all_segmentations_id.txt": labelled, "all_full_laa_segmentations_id.txt": [1, 1000]}
    for name, numbers in lists.items():
        (folder / "data/stacom2025" / name).write_text("".join(f"{n}\n" for n in numbers))
    for name in ("workflow", "config", "profiles"):
        (folder / name).symlink_to(ROOT / name)


def blocks(language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```\n", PAGE.read_text(), re.M | re.S)
    return [text for kind, text in fences if kind == language]


def test_every_command_of_the_page_on_stacom_2025(folder):
    stacom(folder)
    (folder / "stacom.yaml").write_text(blocks("yaml")[0])
    lines = "".join(blocks("")).replace("\\\n", " ").splitlines()
    assert len(lines) == 6
    for words in map(str.split, lines):
        if words[1] == "run.py":
            if words[2] == "setup":
                continue
            # nothing is submitted here: the plan shows that targets and files exist
            result = planner()(["--dry-run", *words[3:]], folder, dict(os.environ))
        else:
            result = run_inside(Path(words[1]).name, *words[2:])
        assert result.returncode == 0, (words, vars(result))
    rows = {row.case_id: row for row in read_case_table("data/stacom2025.tsv")}
    assert list(rows) == [*map(str, range(1, 30)), "1000"]
    assert all(Path(row.image).name == f"{name}.img.nii.gz" for name, row in rows.items())
    whole = {name for name, row in rows.items() if not row.cut}
    assert whole == {"1", "1000"} and rows["2"].cut == "left_atrial_appendage"
    left = Path("data/left_over.tsv").read_text()
    for n in (90, 141):
        assert f"data/imagecas/1-200/{n}.img.nii.gz\tno label map of this case" in left
    assert "1.label.nii.gz\tis called like a label map" in left
