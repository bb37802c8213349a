"""Checkpoints that are written while the training goes on."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import OrderedDict

import pytest
import torch
from toy_training import KilledAt, run

from cardiform.errors import InputError
from cardiform.training.checkpoint import Checkpoints
from cardiform.training.saves import HostCopy, Saves

STATE = {
    **{key: {} for key in ("module", "optimizers", "scaler", "average", "window")},
    **{key: {} for key in ("best", "last", "baseline")},
    "best_step": 0,
    "seconds": 0.0,
}


def state(value: float) -> dict:
    return {**STATE, "module": {"w": torch.full((50, 3), value)}}


class Held(Checkpoints):
    """Writes a file only when it is allowed to."""

    def __init__(self, out):
        super().__init__(out)
        self.begun, self.allowed = threading.Semaphore(0), threading.Semaphore(0)
        self.log: list[str] = []

    def save_last(self, key, step, content):
        self.log.append(f"begin {step}")
        self.begun.release()
        self.allowed.acquire()
        super().save_last(key, step, content)
        self.log.append(f"end {step}")


def test_a_step_may_change_the_weights_while_they_are_written(tmp_path):
    files = Held(tmp_path)
    saves = Saves(files)
    changing = state(1.0)
    saves.last({}, 1, changing)
    files.begun.acquire()
    assert not files.last.exists()
    changing["module"]["w"].fill_(7.0)
    changing["best"]["loss"] = 0.0
    files.allowed.release()
    saves.close()
    stored = files.load_last()
    assert torch.equal(stored["module"]["w"], torch.full((50, 3), 1.0)) and stored["best"] == {}


def test_one_checkpoint_at_a_time_is_written_and_the_old_one_lives_until_then(tmp_path):
    files = Held(tmp_path)
    saves = Saves(files)
    files.allowed.release()
    saves.last({}, 1, state(1.0))
    saves.wait()
    saves.last({}, 2, state(2.0))
    third = threading.Thread(target=saves.last, args=({}, 3, state(3.0)))
    third.start()
    third.join(0.2)
    assert third.is_alive(), "the third waits for the second"
    assert files.load_last()["step"] == 1
    files.allowed.release(2)
    third.join()
    saves.close()
    assert files.log == [f"{word} {step}" for step in (1, 2, 3) for word in ("begin", "end")]
    assert files.load_last()["step"] == 3
    assert [p.name for p in files.folder.iterdir()] == ["last.pt"]


def test_last_never_speaks_of_a_best_that_is_not_there(tmp_path):
    files = Held(tmp_path)
    saves = Saves(files)
    saves.last({}, 1, state(1.0))
    files.begun.acquire()
    saves.best(2, {"loss": 1.0}, {"w": torch.ones(3)})
    assert not files.best.exists(), "in the order of the calls"
    files.allowed.release(2)
    saves.last({}, 2, state(2.0))
    files.begun.acquire()
    assert files.load_best()["step"] == 2
    saves.close()


@pytest.mark.parametrize("call", ["look", "wait", "last", "close"])
def test_an_error_of_the_writer_comes_with_the_next_call(tmp_path, call, monkeypatch, caplog):
    saves = Saves(Checkpoints(tmp_path))
    saves.last({}, 1, state(1.0))
    saves.wait()

    def full(content, stream):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    saves.last({}, 2, state(2.0))
    saves._thread.submit(lambda: None).result()  # the thread has come so far
    arguments = ({}, 3, state(3.0)) if call == "last" else ()
    text = r"last\.pt: .*No space left.*the old one is untouched"
    if call == "close":  # there is another error by then, or nobody who waits
        saves.close()
        assert "No space left" in caplog.text
    else:
        with pytest.raises(InputError, match=text):
            getattr(saves, call)(*arguments)
    assert saves.files.load_last()["step"] == 1


def test_a_full_disk_ends_the_training_at_the_next_step(tmp_path, monkeypatch):
    """Not at the next checkpoint, hours later."""
    seen, write = [], torch.save

    def full(content, stream):
        seen.append(content)
        if "step" in content and content["step"] == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(content, stream)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"last\.pt: .*No space left"):
        run(tmp_path, steps=60, checkpoint_every=6, validate_every=0)
    assert len(seen) <= 2


def test_a_crash_amid_a_write_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    files = Checkpoints(tmp_path)
    saves = Saves(files)
    saves.last({}, 1, state(1.0))
    saves.wait()

    def half(content, stream):
        stream.write(b"half a file")
        stream.flush()
        os._exit(9)

    monkeypatch.setattr(torch, "save", half)
    child = os.fork()
    if not child:
        try:
            Saves(files).last({}, 2, state(2.0))
            threading.Event().wait(60)  # until the writer ends the process
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    monkeypatch.undo()
    assert len(list(files.folder.iterdir())) == 2, "the half one lies beside it"
    assert files.prepare({}).startswith("resuming from step 1")
    assert torch.equal(files.load_last()["module"]["w"], torch.full((50, 3), 1.0))
    assert [p.name for p in files.folder.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("ending", ["a stop", "an error"])
def test_no_end_leaves_a_checkpoint_half_written(tmp_path, monkeypatch, ending, caplog):
    """What is under way when a training ends is finished first."""
    ended, write = threading.Event(), Checkpoints.save_last

    def slow(self, key, step, content):
        ended.wait(0.3)
        write(self, key, step, content)

    monkeypatch.setattr(Checkpoints, "save_last", slow)
    changes = {"steps": 12, "checkpoint_every": 3, "validate_every": 0}
    if ending == "a stop":
        with pytest.raises(SystemExit), caplog.at_level(logging.INFO):
            run(tmp_path, KilledAt(4, 15), **changes)
        expected = 5
        assert "checkpoint saved" in caplog.text
    else:
        task = KilledAt(4, 0)

        def failing(*arguments):
            raise ZeroDivisionError

        task.loss = lambda b, u, step: failing() if step == 4 else KilledAt.loss(task, b, u, step)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path, task, **changes)
        expected = 3
    monkeypatch.undo()
    assert Checkpoints(tmp_path).load_last()["step"] == expected
    assert run(tmp_path, **changes).steps == 12


# --- copies --------------------------------------------------------------------------------


def test_copies_are_equal_and_their_memory_is_used_again():
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    content = {
        "module": network.state_dict(),
        "list": [torch.arange(4)[::2], torch.tensor(2.5), "text", None],
        "columns": torch.arange(6.0).view(2, 3).t(),
        "half": torch.ones(3, dtype=torch.bfloat16),
    }
    copy = HostCopy()
    first = copy.of(content)
    assert isinstance(first["module"], OrderedDict)
    assert first["module"]._metadata == network.state_dict()._metadata
    assert first["list"][2:] == ["text", None]
    places = {id(t) for t in copy.held.values()}
    assert len(places) == len(copy.held) == 11
    with torch.no_grad():
        network[0].weight.add_(1)
    second = copy.of(content)
    assert {id(t) for t in copy.held.values()} == places
    for name, value in network.state_dict().items():
        assert torch.equal(second["module"][name], value)
        assert second["module"][name].data_ptr() != value.data_ptr()
    for name in ("columns", "half"):
        assert torch.equal(second[name], content[name])
        assert second[name].dtype == content[name].dtype
    assert torch.equal(second["list"][0], torch.tensor([0, 2]))
    third = copy.of({"half": torch.ones(4, dtype=torch.bfloat16)})
    assert third["half"].shape == (4,) and list(copy.held) == [("half",)]
