"""What runs when the case table or a file of it changes, and what a user then finds.

The first tests look at Snakemake's decisions, with a stand-in for every script; the others run
the scripts on very small label maps.
"""

from __future__ import annotations

import os
import re
import shutil
import time

import load
import pytest
from dag import make_project, planned, run, snakemake, write_config, write_table

from cardiform.cohort.manifest import read_manifest
from cardiform.cohort.splits import read_split

GEOMETRY = ("extract_meshes", "sample_sdf", "voxelize_labels")
TRAININGS = dict.fromkeys(
    (
        "train_vecset", "reconstruct_vecset", "pretrain_vqvae", "train_codebook", "train_vqvae",
        "reconstruct_vqvae", "resample_labels", "train_autoencoder", "encode_latents",
        "train_diffusion", "sample_diffusion", "evaluate_samples", "complete_labels",
        "write_report", "all",
    ),
    1,
)  # fmt: skip
LABELS = "value\tname\ttitle\tcolor\tcomponents\tpriority\n3\tleft_ventricle\tLeft\t#c41e2a\t1\t1\n"
COHORT = {"check_cohort": 1, "split_cohort": 1}


def chunk(number: int) -> dict[str, int]:
    """The jobs of so many chunks."""
    return dict.fromkeys(("check_cases", *GEOMETRY), number)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Twelve cases in four chunks, all done."""
    project = make_project(tmp_path_factory.mktemp("done"))
    run(project)
    assert planned(project) == {}
    return project


@pytest.fixture
def project(done, tmp_path):
    return shutil.copytree(done, tmp_path / "project", symlinks=True)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_new_case_runs_its_chunk_and_the_trainings(project):
    write_table(project, 13)
    assert planned(project) == {**chunk(1), **COHORT, **TRAININGS}
    selected = re.findall(r"--select (.*?) --", snakemake(project, "-n", "-p").stdout)
    assert len(selected) == 4 and all("case12" in names.split() for names in selected)
    assert run(project) == {**chunk(1), **COHORT, **TRAININGS}
    assert planned(project) == {}


def test_a_removed_case_runs_its_chunk_and_the_trainings(project):
    edit(project / "cohort.tsv", "case5\tp5\tdata/5.nii.gz\n", "")
    assert run(project) == {**chunk(1), **COHORT, **TRAININGS}
    assert "case5" not in (project / "results/acme/split/train.csv").read_text()
    assert planned(project) == {}


def test_a_removed_case_that_was_a_chunk_of_its_own(tmp_path):
    project = make_project(tmp_path)
    write_config(project, chunks=20)
    run(project)
    edit(project / "cohort.tsv", "case5\tp5\tdata/5.nii.gz\n", "")
    assert run(project) == {**COHORT, **TRAININGS}
    assert planned(project) == {}


def test_a_renamed_case_runs_the_chunks_of_both_names(project):
    edit(project / "cohort.tsv", "case5\t", "other\t")
    plan = run(project)
    assert plan in ({**chunk(n), **COHORT, **TRAININGS} for n in (1, 2))
    assert planned(project) == {}


def test_a_changed_label_map_runs_its_chunk_and_the_trainings(project):
    (project / "data" / "3.nii.gz").write_text("another segmentation")
    assert planned(project) == {**chunk(1), **COHORT, **TRAININGS}
    # the split turns out to be the same
    assert run(project) == {**chunk(1), "check_cohort": 1, **TRAININGS}
    assert planned(project) == {}


def test_changed_voxels_of_a_pair_run_its_chunk(project):
    """The case table has the header alone."""
    for part in ("hdr", "img"):
        (project / "data" / f"3.{part}").write_text(part)
    edit(project / "cohort.tsv", "data/3.nii.gz", "data/3.hdr")
    run(project, "points")
    (project / "data" / "3.img").write_text("another segmentation")
    plan = {**chunk(1), "check_cohort": 1, "points": 1}
    del plan["voxelize_labels"]
    assert planned(project, "points") == plan
    assert run(project, "points")["check_cases"] == 1
    assert planned(project, "points") == {}


def test_another_patient_changes_the_split_and_no_geometry(project):
    edit(project / "cohort.tsv", "case5\tp5", "case5\tp6")
    plan = run(project)
    assert not {"check_cases", *GEOMETRY} & set(plan)
    assert {"check_cohort", "split_cohort", "train_vecset", "train_vqvae"} <= set(plan)
    assert planned(project) == {}


def test_moved_files_are_checked_again_and_nothing_else_of_a_case(project):
    (project / "data").rename(project / "elsewhere")
    edit(project / "cohort.tsv", "data/", "elsewhere/")
    done = run(project)
    assert done["check_cases"] == 4 and not set(GEOMETRY) & set(done)
    assert planned(project) == {}


def test_an_entry_in_the_column_cut_looks_at_the_chunk_of_its_case_again(project):
    table = project / "cohort.tsv"
    header, *rows = table.read_text().splitlines()
    rows = [f"{row}\t{'aorta' if row.startswith('case5') else ''}" for row in rows]
    table.write_text("\n".join([f"{header}\tcut", *rows]) + "\n")
    assert run(project)["check_cases"] == 1
    assert planned(project) == {}


def test_a_changed_label_table_runs_all_chunks(project):
    (project / "labels.tsv").write_text(LABELS)
    write_config(project, "  labels: labels.tsv\n")
    assert run(project, "points")["sample_sdf"] == 4
    (project / "labels.tsv").write_text(LABELS.replace("Left", "Linker"))
    assert run(project, "points") == {
        "check_cases": 4, "check_cohort": 1, "extract_meshes": 4, "sample_sdf": 4, "points": 1
    }  # fmt: skip


def test_no_chunk_is_passed_over_when_something_else_changes_at_once(project):
    """Snakemake looks at no job behind one that runs: the checkpoint makes it look."""
    write_table(project, 13)
    write_config(project, "points:\n  seed: 5\n")
    plan = run(project)
    assert plan["extract_meshes"] == 1 and plan["sample_sdf"] == 4
    assert planned(project) == {}
    edit(project / "cohort.tsv", "case5\tp5", "case5\tp6")
    (project / "results/acme/meshes/manifest/chunk_002.tsv").unlink()
    assert run(project, "meshes") == {"check_cohort": 1, "extract_meshes": 1, "meshes": 1}


def test_refinement_runs_for_all_cases_when_one_is_new(tmp_path):
    """Its model changes, and with it every refined and fused label map."""
    project = make_project(tmp_path)
    with (project / "mine.yaml").open("a") as stream:
        stream.write("  use_refined: true\n")
    run(project, "points")
    write_table(project, 13)
    plan = run(project, "points")
    assert plan["check_cases"] == plan["repair_coronary"] == 1
    assert plan["fuse_labels"] == plan["extract_meshes"] == plan["sample_sdf"] == 4
    assert planned(project, "points") == {}


class Real:
    """Six very small cases in two chunks, taken as far as the meshes and the split."""

    def __init__(self, folder, **changes):
        self.folder = load.make_cohort(folder, 6, 2, **changes)
        self.table = self.folder / "cohort.tsv"
        self.results = self.folder / "results" / "load"

    def call(self):
        """Exit code and output."""
        return load.call(self.folder, "--", "meshes", "results/load/split/train.csv")[:2]

    def computed(self):
        """stage/case of what a call computes."""
        before = load.stamps(self.folder)
        code, text = self.call()
        assert code == 0, text
        changed = set(load.stamps(self.folder).items()) - set(before.items())
        return {f"{path.parents[1].name}/{path.stem[-1]}" for path, _ in changed}

    def meshed(self):
        """case -> status of the meshes, over all chunks."""
        paths = (self.results / "meshes" / "manifest").glob("*.tsv")
        return {row["case_id"][-1]: row["status"] for p in paths for row in read_manifest(p)}

    def split(self):
        parts = [self.results / "split" / f"{part}.csv" for part in ("train", "val", "test")]
        return {name[-1] for part in parts for name, _ in read_split(part)}


@pytest.mark.slow
def test_only_what_changed_is_computed(tmp_path):
    cohort = Real(tmp_path / "a")
    assert cohort.computed() == {f"{stage}/{n}" for stage in ("qc", "meshes") for n in range(6)}
    load.add_case(cohort.folder, 6)
    assert cohort.computed() == {"qc/6", "meshes/6"}, "a new case"
    edit(cohort.table, "case00002\tp00002\tdata/2.nii.gz\n", "")
    shutil.copy(cohort.folder / "data" / "2.nii.gz", cohort.folder / "data" / "4.nii.gz")
    assert cohort.computed() == {"qc/4", "meshes/4"}, "one removed, one changed"
    assert (cohort.results / "meshes" / "case00002").is_dir(), "what was computed stays"
    assert set(cohort.meshed()) == cohort.split() == set("013456"), "and is not used"
    (cohort.folder / "data").rename(cohort.folder / "moved")
    edit(cohort.table, "data/", "moved/")
    edit(cohort.table, "p00003", "p00004")
    assert cohort.computed() == set(), "files moved, another patient"
    assert "case00003,p00004" in (cohort.results / "split" / "train.csv").read_text()
    edit(cohort.table, "case00003", "case00009")
    assert cohort.computed() == {"qc/9", "meshes/9"}, "a renamed case is a new one"
    assert set(cohort.meshed()) == cohort.split() == set("014569")


@pytest.mark.slow
def test_a_case_that_goes_bad_and_is_repaired(tmp_path):
    cohort = Real(tmp_path / "a", on_bad_case="skip")
    cohort.computed()
    good = (cohort.folder / "data" / "3.nii.gz").read_bytes()
    (cohort.folder / "data" / "3.nii.gz").write_bytes(b"nothing")
    assert cohort.computed() == {"qc/3"}
    status = cohort.meshed()
    assert status.pop("3").startswith("skipped: data/3.nii.gz") and set(status.values()) == {"ok"}
    assert cohort.split() == set("01245")
    (cohort.folder / "data" / "3.nii.gz").write_bytes(good)
    assert cohort.computed() == {"qc/3"}, "the meshes of the same label map are there still"
    assert set(cohort.meshed().values()) == {"ok"} and cohort.split() == set("012345")


@pytest.mark.slow
def test_nothing_is_computed_while_a_case_is_bad(tmp_path):
    """Neither at first nor, later, for a new case; the message is about the file of today."""
    cohort = Real(tmp_path / "a")
    edit(cohort.table, "data/3.nii.gz", "data/wrong.nii.gz")
    code, text = cohort.call()
    assert code != 0 and "data/wrong.nii.gz: does not exist" in text
    assert set(load.executed(text)) == {"check_cases", "check_cohort"}
    edit(cohort.table, "data/wrong.nii.gz", "data/other.nii.gz")
    code, text = cohort.call()
    assert code != 0 and "data/other.nii.gz: does not exist" in text
    assert "data/wrong.nii.gz: does not exist" not in text
    edit(cohort.table, "data/other.nii.gz", "data/3.nii.gz")
    cohort.computed()
    load.add_case(cohort.folder, 6)
    (cohort.folder / "data" / "6.nii.gz").write_bytes(b"nothing")
    code, text = cohort.call()
    assert code != 0 and "data/6.nii.gz" in text
    assert load.executed(text) == {"check_cases": 1, "check_cohort": 1}


@pytest.mark.slow
def test_a_date_in_the_future_is_told_with_its_remedy(tmp_path):
    """By the job that has the file as an input, before Snakemake looks at the dates."""
    cohort = Real(tmp_path / "a")
    later = time.time() + 11 * 365 * 86400
    os.utime(cohort.folder / "data" / "2.nii.gz", (later, later))
    code, text = cohort.call()
    assert code != 0 and "data/2.nii.gz: was changed in the future" in text
    assert set(load.executed(text)) == {"check_cases"}
    (cohort.folder / "data" / "2.nii.gz").touch()
    assert "meshes/2" in cohort.computed()


@pytest.mark.slow
def test_a_case_that_is_skipped_by_hand_and_taken_back(tmp_path):
    """Its chunk is told, though no file changed; what was computed before is not lost."""
    cohort = Real(tmp_path / "a")
    cohort.computed()
    plain = cohort.table.read_text()
    header, *rows = plain.splitlines()
    rows = [row + ("\tskipped" if "case00003" in row else "\t") for row in rows]
    cohort.table.write_text("\n".join([f"{header}\tstatus", *rows]) + "\n")
    assert cohort.computed() == set()
    status = cohort.meshed()
    assert status.pop("3") == "skipped: by the case table" and set(status.values()) == {"ok"}
    assert cohort.split() == set("01245")
    cohort.table.write_text(plain)
    assert cohort.computed() == set()
    assert set(cohort.meshed().values()) == {"ok"} and cohort.split() == set("012345")
