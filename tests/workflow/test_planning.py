"""Mistakes of a config are found when the workflow is planned; it plans as a module, too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import stand_in_conda
from dag import ROOT, make_project, planned, planner, run, snakemake, write_config
from mounts import run_with_disk

HEADER = "value\tname\ttitle\tcolor\tcomponents\tpriority\n"
OWN_LABELS = HEADER + "7\tlv\tLeft\t#ff0000\t1\t1\n13\trv\tRight\t#00ff00\t1\t2\n"
FEW = ROOT / "config" / "few_cases.yaml"


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


def own_table(project, text="", labels=OWN_LABELS):
    """The project with a label table of its own."""
    (project / "labels.tsv").write_text(labels)
    write_config(project, text)
    config = (project / "mine.yaml").read_text()
    (project / "mine.yaml").write_text(
        config.replace("cohort:\n", "cohort:\n  labels: labels.tsv\n")
    )


def refusal(project, *arguments) -> str:
    """What a plan that is refused says; no job, no traceback."""
    result = snakemake(project, "-n", *arguments)
    text = result.stdout + result.stderr
    assert result.returncode == 1 and "Traceback" not in text, text
    return text


OF_ONE_KEY = {
    "fusion: {rules: [foo]}": "config: fusion.rules is 'foo'; one of",
    "vecset: {lr: .inf, seed: 99999999999999999999999}": "config: vecset.lr is inf; a finite",
    "points: {seed: -1}": "config: points.seed is -1; at least 0",
    "split: {test: .1}\nsplit: {test: .1}": "mine.yaml:9: split is in line 8 already; keep one",
}
TOGETHER = {
    "ldm: {drop_classes: [foo], voxel_size: 60}": "config: ldm.drop_classes names foo; the label",
    "coronary_repair: {structure: veins, evidence: [bar]}":
        "config: coronary_repair.structure names veins",
    "fusion: {largest: [foo]}": "config: fusion.largest names foo",
    "sampling: {volumes: [foo=3]}": "config: sampling.volumes names foo",
    "completion: {num_inference_steps: 2000}": "completion.num_inference_steps is 2000",
    "training: {accumulate: 3}": "diffusion.batch_size is 32, no multiple",
    "vecset: {input_points: 256}": "vecset.input_points is 256: too few",
    "windows: {windows: [bone]}": "windows.windows: 'bone'",
    "split: {test: 0.9}": "split: validation + test",
}  # fmt: skip


@pytest.mark.parametrize("faults", [OF_ONE_KEY, TOGETHER], ids=["one key", "several"])
def test_mistakes_are_told_before_any_job_and_all_at_once(project, faults):
    write_config(project, "".join(f"{text}\n" for text in faults))
    (project / "cohort.tsv").write_text("case_id\tlabels\na;b\tx\n")
    text = refusal(project)
    more = [] if faults is OF_ONE_KEY else ["case_id 'a;b'", "ldm.voxel_size is 60", "names bar"]
    for part in (*faults.values(), *more):
        assert part in text


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (HEADER.encode() + "7\tlv\tÄ\t#ff0000\t1\t1\n".encode("latin-1"), ":2: column title"),
        (HEADER.encode() + b"7\tlv\tL\n", ":2: has no color, components, priority"),
    ],
)
def test_a_label_table_that_cannot_be_used(project, content, line):
    own_table(project)
    (project / "labels.tsv").write_bytes(content)
    assert f"labels.tsv{line}" in refusal(project)


def test_the_config_of_few_cases_serves_other_classes(project):
    own_table(project)
    (project / "mine.yaml").rename(project / "own.yaml")
    (project / "mine.yaml").write_text("")
    plan = planned(project, "all", "--configfile", FEW, "own.yaml")
    assert {"train_vecset", "reconstruct_vqvae", "complete_labels"} <= plan.keys()
    assert "repair_coronary" not in plan


def test_targets_of_a_structure_that_is_no_class_are_left_out_with_a_note(project):
    own_table(project)
    line = "coronary_repair.structure is coronary, which {} does not have; set it to one of lv, rv"
    note = f"targets coronary and fused are left out: {line.format('labels.tsv')}"
    result = snakemake(project, "-n", "all", "coronary", "fused", "ldm")
    text = result.stdout + result.stderr
    assert result.returncode == 0 and note in text and "repair_coronary" not in text
    fact = line.format("the label table labels.tsv")
    assert fact in refusal(project, "results/acme/coronary/near/model.pt")
    own_table(project, "  use_refined: true\n")
    assert fact in refusal(project)
    own_table(project, "  use_refined: true\ncoronary_repair: {structure: lv}\n")
    assert "refine_coronary" in planned(project)


def test_trees_of_a_structure_that_is_no_class_are_refused(project):
    own_table(project)
    line = "coronary_trace.structure is coronary, which the label table labels.tsv does not have"
    assert line in refusal(project, "trees")


def test_one_class_alone_is_not_completed(project):
    own_table(project, labels=HEADER + "7\tlv\tLeft\t#ff0000\t1\t1\n")
    plan = planned(project)
    assert "train_diffusion" in plan and "complete_labels" not in plan


def test_a_split_that_no_seed_helps_is_told_where_it_is_needed(project):
    lines = (project / "cohort.tsv").read_text().splitlines()
    rows = [line.replace(line.split("\t")[1], "one") for line in lines[1:]]
    (project / "cohort.tsv").write_text("\n".join([lines[0], *rows]) + "\n")
    assert "a part is empty" in refusal(project)
    assert planned(project, "meshes")["extract_meshes"] == 4


def test_values_of_the_command_line_have_the_types_of_their_options(project):
    run(project)
    for text in ("vecset={steps: 100000, lr: 1e-4}", '{"steps": 100000, "eikonal": "autograd"}'):
        value = text if text.startswith("vecset") else f"vecset={text}"
        more = ["vqvae={augment: true, channels: [32, 64, 128, 256], pretrained: null}"]
        assert planned(project, "--config", value, *more) == {}, "they are the defaults"
    plan = planned(project, "--config", "vecset={steps: 5}")
    assert plan == {"train_vecset": 1, "reconstruct_vecset": 1, "write_report": 1, "all": 1}
    text = refusal(project, "--config", "vecset={steps: five}", "vqvae={augment: perhaps}")
    assert "config: vecset.steps is 'five'; expected an integer" in text
    assert "config: vqvae.augment is 'perhaps'; expected true or false" in text


# --- as a module of another workflow


def write_module(folder: Path, text: str) -> Path:
    path = folder / "Snakefile"
    path.write_text(text.replace("CHECKOUT", str(ROOT)))
    return path


MODULE = 'module cardiform:\n    snakefile: "CHECKOUT/workflow/Snakefile"\n    config: {config}\n'


def as_module(project, *arguments):
    environment = {**os.environ, "PATH": f"{project / 'bin'}:{os.environ['PATH']}"}
    return planner()(["--cores", "2", "--quiet", *arguments], project, environment)


@pytest.mark.parametrize("name", ["", " as heart_*"])
def test_another_workflow_takes_this_one_as_a_module(project, name):
    """With its own config beside, with and without other names; its jobs find their scripts."""
    prefix = name.removeprefix(" as ").removesuffix("*")
    text = MODULE.format(config='config["heart"]') + f"use rule * from cardiform{name}\n"
    text += f"rule mine:\n    default_target: True\n    input: rules.{prefix}meshes.input\n"
    write_module(project, text)
    (project / "all.yaml").write_text(
        "own: 1\nheart:\n  cohort: {name: acme, table: cohort.tsv, chunks: 4}\n"
    )
    result = as_module(project, "--configfile", "all.yaml")
    text = result.stdout + result.stderr
    assert result.returncode == 0, text
    assert "localrules directive" not in text
    made = sorted((project / "results" / "acme" / "meshes" / "manifest").glob("*.tsv"))
    assert len(made) == 4


def test_a_module_finds_its_environments(project):
    write_module(project, MODULE.format(config="config") + "use rule * from cardiform\n")
    programs = stand_in_conda.install(project / "conda")
    (programs / "conda").rename(project / "bin" / "conda")
    result = as_module(project, "--containerize", "--configfile", "mine.yaml")
    text = result.stdout + result.stderr
    for name in ("geometry", "torch", "ldm"):
        assert f"workflow/envs/{name}.yaml" in text


def test_a_mistake_in_the_config_of_a_module_is_told(project):
    write_module(project, MODULE.format(config="config") + "use rule * from cardiform\n")
    result = as_module(project, "-n", "--configfile", "mine.yaml", "--config", "vecset={lr: fast}")
    assert "config: vecset.lr is 'fast'; expected a number" in result.stdout + result.stderr


# --- disks


def plan_on_a_read_only(folder, project) -> str:
    """What a dry-run in the project says while ``folder`` cannot be written."""
    command = [Path(sys.executable).parent / "snakemake", "-n", "--configfile", "mine.yaml"]
    command += ["-s", ROOT / "workflow" / "Snakefile", "meshes"]
    enter = ["sh", "-c", 'cd "$0" && exec "$@"', project]  # once it is mounted
    result = run_with_disk("read_only", folder, [*enter, *command])
    text = result.stdout + result.stderr
    assert "Traceback" not in text, text
    return text


def test_a_folder_that_cannot_be_written_is_told(project):
    text = plan_on_a_read_only(project, project)
    assert f"\n{project}: may not be written to; work in a folder of your own" in text
    results = project / "results" / "acme"
    results.mkdir(parents=True)
    text = plan_on_a_read_only(results, project)
    assert f"note: {results}: may not be written to" in text and "extract_meshes" in text


def test_a_path_that_no_disk_takes_is_left_to_the_check(project):
    table = (project / "cohort.tsv").read_text()
    (project / "cohort.tsv").write_text(table + f"long\tlong\t{'x' * 300}\n")
    assert planned(project)["check_cases"] == 4
