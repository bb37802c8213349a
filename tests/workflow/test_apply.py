"""The target apply: chunks of new cases, whatever the cohort does; no training is started."""

from __future__ import annotations

import pytest
from dag import make_project, planned, run, snakemake, write_config, write_table

MODEL = "results/acme/vecset/model.pt"


@pytest.fixture
def project(tmp_path):
    folder = make_project(tmp_path)
    (folder / MODEL).parent.mkdir(parents=True)
    (folder / MODEL).write_text("a model")
    write_new(folder, 3)
    write_config(folder, "apply:\n  table: new.csv\n")
    return folder


def write_new(folder, cases):
    lines = ["case_id,labels"]
    (folder / "new").mkdir(exist_ok=True)
    for i in range(cases):
        (folder / "new" / f"{i}.nii.gz").write_text(f"new {i}")
        lines.append(f"new{i},new/{i}.nii.gz")
    (folder / "new.csv").write_text("\n".join(lines) + "\n")


def refusal(project) -> str:
    result = snakemake(project, "-n", "apply")
    text = result.stdout + result.stderr
    assert result.returncode == 1 and "Traceback" not in text, text
    return text


def test_500_new_cases_start_no_training_and_no_stage_of_the_cohort(project):
    assert planned(project, "apply") == {"apply_models": 3, "collect_applied": 1, "apply": 1}
    write_new(project, 500)
    assert planned(project, "apply") == {"apply_models": 4, "collect_applied": 1, "apply": 1}
    assert "apply_models" not in planned(project, "vecset"), "apply is a target of its own"


def test_cases_that_the_cohort_gains_start_nothing_either(project):
    write_table(project, 40)
    assert set(planned(project, "apply")) == {"apply_models", "collect_applied", "apply"}


def test_what_is_finished_runs_again_for_new_files_models_and_tasks_alone(project):
    run(project, "apply")
    assert planned(project, "apply") == {}
    write_config(project, "apply:\n  table: new.csv\nvecset:\n  lr: 0.1\n")
    assert planned(project, "apply") == {}, "a key of a training"
    write_config(project, "apply:\n  table: new.csv\n  tasks: [encode]\n")
    assert planned(project, "apply")["apply_models"] == 3
    write_config(project, "apply:\n  table: new.csv\n")
    (project / MODEL).write_text("a model that was trained again")
    assert planned(project, "apply")["apply_models"] == 3


def test_other_figures_for_the_confidence_and_another_zip_run_again(project):
    run(project, "apply")
    confidence = (project / MODEL).parent / "reconstructions" / "confidence.json"
    confidence.parent.mkdir()
    confidence.write_text("{}")
    assert planned(project, "apply")["apply_models"] == 3
    write_config(project, "apply:\n  table: new.csv\n  models: [acme.zip]\n")
    (project / "acme.zip").write_text("a bundle")
    run(project, "apply")
    assert planned(project, "apply") == {}
    (project / "acme.zip").write_text("another bundle")
    assert planned(project, "apply")["apply_models"] == 3


def test_a_bundle_and_folds_are_named_on_the_command_line(project):
    for k in range(2):
        bundle = project / f"fold {k}" / "vecset"
        bundle.mkdir(parents=True)
        (bundle / "model.safetensors").write_text("weights")
    write_config(project, 'apply:\n  table: new.csv\n  models: ["fold 0", "fold 1"]\n')
    result = snakemake(project, "-n", "-p", "apply")
    assert "--models 'fold 0' 'fold 1' --table new.csv --select new" in result.stdout


def test_what_is_missing_is_said_in_a_line(project):
    write_config(project)
    assert "config: apply.table is empty; name the case table of the new" in refusal(project)
    write_config(project, "apply:\n  table: new.csv\n  models: [nowhere]\n")
    assert "nowhere: does not exist; name a results folder" in refusal(project)
    write_config(project, "apply:\n  table: new.csv\n")
    (project / MODEL).unlink()
    assert "results/acme: has no trained model" in refusal(project)
    (project / "new.csv").write_text("case_id,labels\n")
    assert "new.csv: has no cases; list at least one" in refusal(project)
