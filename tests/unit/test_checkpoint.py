"""Files of a training: whole or not at all, readable without running code."""

from __future__ import annotations

import errno
import json
import shutil
from collections import namedtuple

import pytest
import torch
from damage import flip
from toy_training import options

from cardiform.errors import InputError
from cardiform.options.ldm import AutoencoderOptions
from cardiform.options.vecset import VecsetOptions
from cardiform.training.checkpoint import Checkpoints, differences, resume_key

# All that a training leaves beside its key and step.
STATE = {
    **{key: {} for key in ("module", "optimizers", "scaler", "average", "window")},
    **{key: {} for key in ("best", "last", "baseline")},
    "best_step": 0,
    "seconds": 0.0,
}


def weights(value=1.0):
    return {"a": torch.full((3, 3), value), "b": torch.arange(4)}


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_last({}, 1, {**STATE, "w": weights(1.0)})

    def full(content, stream):
        stream.write(b"half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"last\.pt: .*No space left.*the old one is untouched"):
        checkpoints.save_last({}, 2, {**STATE, "w": weights(2.0)})
    monkeypatch.undo()
    state = checkpoints.load_last()
    assert state["step"] == 1 and torch.equal(state["w"]["a"], weights(1.0)["a"])
    assert [p.name for p in checkpoints.folder.iterdir()] == ["last.pt"]


def test_too_little_space_is_known_before_writing(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="the disk has 1,000"):
        checkpoints.save_last({}, 1, {**STATE, "w": weights()})
    assert not list(checkpoints.folder.iterdir())


def test_a_damaged_checkpoint_is_refused_with_a_remedy(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_last({}, 1, STATE)
    checkpoints.last.write_bytes(checkpoints.last.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"last\.pt: is damaged.*delete it to start from scratch"):
        checkpoints.prepare({})


def test_leftovers_of_a_killed_save_are_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_last({}, 1, STATE)
    (checkpoints.folder / ".tmp-x-last.pt").write_bytes(b"half")
    checkpoints.prepare({})
    assert [p.name for p in checkpoints.folder.iterdir()] == ["last.pt"]


def test_old_runs_are_never_overwritten(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for number in range(3):
        checkpoints.save_last({"lr": number}, number, STATE)
        (tmp_path / "metrics.jsonl").write_text(json.dumps(number))
        checkpoints.prepare({"lr": number + 1})
    assert checkpoints.load_last() is None
    assert [(tmp_path / f"checkpoints.{k}" / "metrics.jsonl").read_text() for k in (1, 2, 3)] == [
        "0",
        "1",
        "2",
    ]


def test_the_key_leaves_out_what_does_not_matter():
    one = resume_key(options(), {"data": "x"})
    assert one == resume_key(options(log_every=7, workers=3, device="auto"), {"data": "x"})
    assert differences(one, resume_key(options(lr=0.5, steps=13), {"data": "y"})) == [
        "data x -> y",
        "lr 0.02 -> 0.5",
        "steps 12 -> 13",
    ]
    assert differences({"a": 1}, {"b": 2}) == ["a 1 -> absent", "b absent -> 2"]


def test_another_file_of_the_same_name_is_another_training(tmp_path):
    """The weights that a training starts from, say."""
    file, checkpoints = tmp_path / "start.pt", Checkpoints(tmp_path)

    def key(**given):
        return resume_key(VecsetOptions(pretrained=str(file)), {"data": "x", **given})

    file.write_bytes(b"first")
    first = key()
    checkpoints.save_last(first, 5, STATE)
    assert "resuming from step 5" in checkpoints.prepare(key())
    file.write_bytes(b"second")
    said = checkpoints.prepare(key())
    assert "starting from scratch" in said and "pretrained (content) " in said
    # a training of before, whose key does not have it, goes on
    earlier = {name: value for name, value in first.items() if "content" not in name}
    assert earlier["pretrained"] == str(file)
    checkpoints.save_last(earlier, 5, STATE)
    assert "resuming from step 5" in checkpoints.prepare(key())
    with pytest.raises(ValueError, match="pretrained"):
        key(pretrained="y")


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_a_file_that_is_named_but_not_read_is_no_other_training(tmp_path, weight):
    """Weights of deep features whose loss has the weight 0: changed, or cleared away since."""
    file, checkpoints = tmp_path / "features.pt", Checkpoints(tmp_path)

    def key():
        options = AutoencoderOptions(perceptual_file=str(file), perceptual_weight=weight)
        return resume_key(options, {"data": "x"})

    file.write_bytes(b"first")
    checkpoints.save_last(key(), 5, STATE)
    file.write_bytes(b"second")
    assert ("resuming from step 5" in checkpoints.prepare(key())) == (weight == 0)
    checkpoints.save_last(key(), 5, STATE)
    file.unlink()
    assert ("resuming from step 5" in checkpoints.prepare(key())) == (weight == 0)


def test_a_training_goes_on_from_another_folder(tmp_path):
    there = Checkpoints(tmp_path / "there")
    there.save_last({"lr": 1}, 5, {**STATE, "module": weights()})
    there.save_best(4, {"loss": 0.5}, weights())
    here = Checkpoints(tmp_path / "here")
    assert "resuming from step 5" in here.prepare({"lr": 1}, there.last)
    assert here.load_best()["step"] == 4
    here.save_last({"lr": 1}, 9, {**STATE, "module": weights()})
    assert "resuming from step 9" in here.prepare({"lr": 1}, there.last), "its own goes first"
    other = Checkpoints(tmp_path / "other")
    with pytest.raises(InputError, match=r"of another training \(lr 1 -> 2\)"):
        other.prepare({"lr": 2}, there.last)
    with pytest.raises(InputError, match="does not exist; correct --resume-from"):
        other.prepare({"lr": 1}, tmp_path / "none.pt")
    assert not other.last.exists()


def test_a_best_checkpoint_of_nobody_is_not_shipped_with_another_folders_training(tmp_path):
    there, here = Checkpoints(tmp_path / "there"), Checkpoints(tmp_path / "here")
    there.save_last({"lr": 1}, 5, STATE)
    here.save_best(4, {"loss": 0.5}, weights())  # its last.pt was deleted
    assert "resuming from step 5" in here.prepare({"lr": 1}, there.last)
    assert not here.best.exists()


def test_another_folder_is_taken_after_the_own_run_is_moved_aside(tmp_path):
    there, here = Checkpoints(tmp_path / "there"), Checkpoints(tmp_path / "here")
    there.save_last({"lr": 1}, 5, STATE)
    here.save_last({"lr": 2}, 9, STATE)
    with pytest.raises(InputError, match=r"of another training \(lr 1 -> 3\)"):
        here.prepare({"lr": 3}, there.last)
    assert here.load_last()["step"] == 9, "what is refused moves nothing"
    said = here.prepare({"lr": 1}, there.last)
    assert "resuming from step 5" in said and "checkpoints.1: lr 2 -> 1" in said
    assert (tmp_path / "here" / "checkpoints.1" / "last.pt").exists()
    assert here.load_last()["step"] == 5


def test_a_checkpoint_past_the_last_step_is_not_resumed_from(tmp_path):
    here = Checkpoints(tmp_path / "here")
    here.save_last({}, 9, STATE)
    assert "resuming from step 9" in here.prepare({}, last_step=9)
    said = here.prepare({}, last_step=8)
    assert "starting from scratch" in said and "its step 9 is past the last one, 8" in said
    other = tmp_path / "here" / "checkpoints.1" / "last.pt"
    with pytest.raises(InputError, match="is past the last one, 8"):
        here.prepare({}, other, last_step=8)
    assert here.load_last() is None


def test_a_damaged_best_checkpoint_is_told_before_the_training_goes_on(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_last({}, 1, {**STATE, "best": {"loss": 1.0}})
    checkpoints.save_best(1, {"loss": 1.0}, {"a": torch.randn(20_000)})
    flip(checkpoints.best)
    with pytest.raises(InputError, match=r"best\.pt: is damaged .*; delete it: the best"):
        checkpoints.prepare({})
    checkpoints.best.unlink()
    assert "resuming from step 1" in checkpoints.prepare({})
