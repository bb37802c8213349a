"""Options <-> flags <-> config sections."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from answers import refused

from cardiform import cli
from cardiform.cohort.table import Case, write_cases
from cardiform.errors import InputError
from cardiform.options.epochs import IN_EPOCHS
from cardiform.options.geometry import PointsOptions
from cardiform.options.sections import (
    SECTIONS,
    AutoencoderOptions,
    CohortOptions,
    DiffusionOptions,
    LatentsOptions,
    LdmOptions,
    SamplingOptions,
    VoxelsOptions,
    VqvaeJointOptions,
    VqvaeOptions,
)
from cardiform.options.training import TrainingOptions
from cardiform.options.vecset import VecsetOptions
from cardiform.training.checkpoint import resume_key

SCRIPTS = Path(cli.__file__).resolve().parents[1]


def parsed(cls, text):
    return cli.parse(cli.build_parser("x", cls), cls, arguments=shlex.split(text))[0]


@pytest.mark.parametrize("cls", SECTIONS.values(), ids=SECTIONS)
def test_flags_round_trip(cls):
    assert parsed(cls, cli.flags(cls())) == cls()


def test_flags_are_sorted_and_quoted():
    text = cli.flags(CohortOptions(table="my cohort; rm.tsv"))
    names = [word for word in shlex.split(text) if word.startswith("--")]
    assert names == sorted(names)
    assert parsed(CohortOptions, text).table == "my cohort; rm.tsv"


def test_section_accepts_yaml_notations():
    section = {"lr": "1e-4", "steps": 10, "augment_scale": 0}
    assert cli.from_section(VecsetOptions, section, "vecset").lr == 1e-4
    assert cli.from_section(PointsOptions, {"near_sigma": [0.1, "2e-2"]}, "points").near_sigma == (
        0.1,
        0.02,
    )
    assert cli.from_section(PointsOptions, None, "points") == PointsOptions()


def test_section_names_every_problem_at_once():
    with pytest.raises(InputError) as caught:
        cli.from_section(
            VecsetOptions, {"lrr": 1, "steps": "x", "batch_size": 0, "preset": "huge"}, "vecset"
        )
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    assert "vecset.lrr is not a known key; did you mean lr?" in text
    assert "vecset.steps is 'x'; expected an integer" in text
    assert "vecset.batch_size is 0; at least 1" in text
    assert "vecset.preset is 'huge'; one of" in text


def test_a_resolution_is_a_multiple_of_eight():
    with pytest.raises(InputError, match=r"voxels\.resolution is 100; a multiple of 8"):
        cli.from_section(VoxelsOptions, {"resolution": 100}, "voxels")
    assert cli.from_section(VoxelsOptions, {"resolution": 104}, "voxels").resolution == 104


def test_flags_of_two_sections_in_one_call():
    classes = (VqvaeOptions, VqvaeJointOptions)
    parser = cli.build_parser("x", *classes)
    arguments = ["--steps", "7", "--latent-dim", "4"]
    network, stage, rest = cli.parse(parser, *classes, arguments=arguments)
    assert (network.latent_dim, stage.steps, vars(rest)) == (4, 7, {})


@pytest.mark.parametrize("value", [True, None, [1], 1.5])
def test_integers_are_integers(value):
    with pytest.raises(InputError):
        cli.from_section(VecsetOptions, {"steps": value}, "vecset")


def test_not_a_number_is_out_of_range():
    with pytest.raises(InputError):
        cli.from_section(VecsetOptions, {"lr": float("nan")}, "vecset")


def test_bad_flag_exits_2(capsys):
    with pytest.raises(SystemExit) as caught:
        parsed(VecsetOptions, "--steps 0")
    assert caught.value.code == 2
    assert "--steps is 0; at least 1" in capsys.readouterr().err


def test_bad_input_prints_lines_without_traceback():
    code = (
        "from cardiform import cli\nfrom cardiform.errors import InputError\n"
        "def main(): raise InputError(['a.nii: broken; mend it', 'b.nii: gone; find it'])\n"
        "cli.run(main)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr == "error: a.nii: broken; mend it\nerror: b.nii: gone; find it\n"


def test_a_config_names_the_problems_of_all_sections_at_once():
    config = {"vecsett": {}, "cohort": {"name": "a b"}, "points": {"near_sigma": 0.1}, "demo": None}
    with pytest.raises(InputError) as caught:
        cli.from_config(SECTIONS, config)
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert "config: vecsett is not a known section; did you mean vecset?" in text
    assert "config: cohort.name is 'a b'; it must match" in text
    assert "config: points.near_sigma is 0.1; expected a list" in text
    assert cli.from_config(SECTIONS, {})["vecset"] == VecsetOptions()


def test_a_key_by_the_name_of_earlier_configs():
    made = cli.from_section(AutoencoderOptions, {"num_channels": [8, 16]}, "autoencoder")
    assert made.channels == (8, 16)
    # the default config names the key itself: what a user wrote counts, in whatever order
    for section in (
        {"channels": [32, 64, 64], "adv_weight": 0.1, "adversarial_weight": 0.0},
        {"adversarial_weight": 0.0, "adv_weight": 0.1, "channels": [32, 64, 64]},
    ):
        made = cli.from_section(AutoencoderOptions, section, "autoencoder")
        assert made.adversarial_weight == 0.1
    schema = cli.json_schema(SECTIONS)["properties"]["autoencoder"]["properties"]
    assert schema["num_channels"] == schema["channels"]
    with pytest.raises(InputError, match=r"autoencoder\.num_chanels is not a known key"):
        cli.from_section(AutoencoderOptions, {"num_chanels": [8]}, "autoencoder")


@pytest.mark.parametrize("key", IN_EPOCHS)
def test_a_key_that_counts_epochs_is_refused_with_the_one_that_counts_steps(key, capsys):
    right = IN_EPOCHS[key]
    formula = "in steps: epochs x training cases / batch_size"
    with pytest.raises(InputError) as caught:
        cli.from_section(DiffusionOptions, {key: 20}, "diffusion")
    assert caught.value.problems == [
        f"config: diffusion.{key} counts epochs; write {right} {formula}"
    ]
    with pytest.raises(SystemExit) as left:
        parsed(DiffusionOptions, f"--{key.replace('_', '-')} 20")
    told = capsys.readouterr().err
    assert left.value.code == 2 and f"write --{right.replace('_', '-')} {formula}" in told
    with pytest.raises(InputError, match=f"sampling.{key} is not a known key"):
        cli.from_section(SamplingOptions, {key: 20}, "sampling")


def test_a_young_key_is_left_out_at_its_default():
    assert "augment" not in cli.flags(LatentsOptions())
    changed = LatentsOptions(augment_scale=0.08)
    assert "--augment-scale 0.08" in cli.flags(changed)
    assert parsed(LatentsOptions, cli.flags(changed)) == changed
    key = resume_key(DiffusionOptions(), {})
    assert "scale_factor" not in key
    assert resume_key(DiffusionOptions(scale_factor=0.5), {})["scale_factor"] == 0.5


def test_a_list_of_texts_may_be_empty():
    assert cli.from_section(LdmOptions, {"drop_classes": []}, "ldm").drop_classes == ()
    assert parsed(LdmOptions, "--drop-classes ''").drop_classes == ()
    with pytest.raises(InputError, match="expected a list of int"):
        cli.from_section(AutoencoderOptions, {"channels": []}, "autoencoder")


def test_trainings_inherit_what_the_section_training_sets():
    """Own key, then training's, then the section's own default, then the shared default."""
    config = {"training": {"lr": 0.5, "num_workers": 0}, "vecset": {"lr": 0.25}}
    options = cli.from_config(SECTIONS, config)
    trainings = [n for n, cls in SECTIONS.items() if issubclass(cls, TrainingOptions)]
    assert len(trainings) > 8
    assert all(options[n].workers == 0 for n in trainings), "an alias is inherited too"
    assert {n: options[n].lr for n in trainings} == dict.fromkeys(trainings, 0.5) | {"vecset": 0.25}
    assert options["coronary_near"].warmup_steps == 750, "a default of the section's own"
    assert options["vqvae_reconstruct"] == SECTIONS["vqvae_reconstruct"](), "no training"


BAD_SHARED = [
    ({"lr": "fast"}, "training.lr is 'fast'"),
    ({"lr": -1.0}, "training.lr is -1.0"),
    ({"learning_rate": 1.0}, "training.learning_rate is not a known key"),
    ({"num_workers": "x"}, "training.num_workers is 'x'"),
    ({"seed": 10**20}, "training.seed is 1000"),
    ([], "training is []"),
    (0, "training is 0"),
]


@pytest.mark.parametrize(("section", "words"), BAD_SHARED, ids=str)
def test_a_bad_shared_value_is_reported_once(section, words):
    with pytest.raises(InputError) as caught:
        cli.from_config(SECTIONS, {"training": section})
    assert len(caught.value.problems) == 1 and words in caught.value.problems[0]


SHORTAGES = {
    "raise OSError(errno.ENOSPC, 'No space left on device')": (
        "an output of x.py: could not be written (No space left on device); make room",
    ),
    "raise OSError(errno.EDQUOT, 'Disk quota exceeded', 'a.png')": ("a.png: could not be written",),
    "np.empty(1 << 50)": (
        "x.py: the memory is exhausted (Unable to allocate",
        "sampling.batch_size",
    ),
    "torch.empty(1 << 50)": (
        "x.py: the memory is exhausted (",
        "can't allocate memory",
        "lower sampling.batch_size, or give the job more memory (mem_mb)",
    ),
    "raise torch.OutOfMemoryError('CUDA out of memory. Tried 2 GiB')": (
        "x.py: the memory of the GPU is exhausted (CUDA out of memory. Tried 2 GiB); lower",
    ),
}


@pytest.mark.parametrize("fault", SHORTAGES)
def test_a_full_disk_and_exhausted_memory_are_one_line_each(tmp_path, fault):
    (tmp_path / "x.py").write_text(
        f"import errno\n{'import torch' if 'torch' in fault else 'import numpy as np'}\n"
        "from cardiform import cli\n"
        "from cardiform.options.ldm import SamplingOptions\n"
        "def main():\n"
        "    cli.parse(cli.build_parser('', SamplingOptions), SamplingOptions)\n"
        f"    {fault}\n"
        "cli.run(main)\n"
    )
    result = subprocess.run(
        [sys.executable, str(tmp_path / "x.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
    )
    refused(result, *SHORTAGES[fault])
    assert len(result.stderr.splitlines()) == 1


def case_arguments(folder, *more):
    parser = cli.build_parser("x")
    cli.add_case_arguments(parser)
    words = (
        "--cases",
        folder / "cases.tsv",
        "--out",
        folder,
        "--manifest",
        folder / "m.tsv",
        *more,
    )
    return cli.parse(parser, arguments=list(map(str, words)))[0]


def test_the_run_that_case_arguments_ask_for(tmp_path):
    write_cases(
        tmp_path / "cases.tsv",
        [Case(case_id=name, patient_id=name, labels=f"{name}.nii") for name in "abc"],
    )
    run = cli.case_run(case_arguments(tmp_path, "--select", "c", "a", "--processes", 3))
    assert [case.case_id for case in run.cases] == ["c", "a"]
    assert (run.out, run.manifest, run.processes) == (tmp_path, tmp_path / "m.tsv", 3)
    assert run.record(run.cases[0]) == tmp_path / "state" / "c.json"
    assert len(cli.case_run(case_arguments(tmp_path)).cases) == 3
    with pytest.raises(InputError, match="has no case d"):
        cli.case_run(case_arguments(tmp_path, "--select", "d"))


def test_a_selection_of_nothing_is_not_all(tmp_path, capsys):
    with pytest.raises(SystemExit):
        case_arguments(tmp_path, "--select")
    assert "argument --select: expected at least one argument" in capsys.readouterr().err


def test_other_errors_keep_their_traceback(tmp_path):
    code = "from cardiform import cli\ncli.run(lambda: open('/nowhere'))"
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 1 and "Traceback" in result.stderr


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("vecset", {"lr": 10**400}, "expected a number"),
        ("fusion", {"rules": ["a,b"]}, "without commas"),
        ("fusion", {"rules": ["coronary_on_heart", ""]}, "without commas"),
        ("diffusion", {"beta_end": -1e-5}, "at least 0"),
    ],
)
def test_values_that_no_flag_could_hand_on(section, values, words):
    with pytest.raises(InputError, match=words):
        cli.from_section(SECTIONS[section], values, section)


PLACES = (
    NotADirectoryError(errno.ENOTDIR, "Not a directory", "a_file/below"),
    PermissionError(errno.EACCES, "Permission denied", "theirs.npz"),
    IsADirectoryError(errno.EISDIR, "Is a directory", "folder"),
    OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300),
    OSError(errno.EROFS, "Read-only file system", "out/x"),
)


@pytest.mark.parametrize("error", PLACES, ids=lambda e: e.strerror)
def test_a_place_that_cannot_be_used_is_one_line(error, capsys, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # later tests write to pipes, too

    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        cli.run(main)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.startswith(f"error: {error.filename}: cannot be used ({error.strerror}); correct")
