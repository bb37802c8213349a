"""The training loop: refusal of what cannot go well, one line for what goes wrong."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import threading

import pytest
import torch
from torch.multiprocessing import reductions
from toy_training import (
    QUICK,
    Lines,
    ToyTask,
    assert_equal,
    options,
    run,
)

from cardiform import cli
from cardiform.errors import InputError
from cardiform.options.vecset import VecsetOptions
from cardiform.options.vqvae import VqvaeOptions
from cardiform.training.checkpoint import load
from cardiform.training.engine import train
from cardiform.training.runlog import RunLog
from cardiform.training.task import TrainingError


@contextlib.contextmanager
def full_stream(mode):
    """A file on a disk that is always full."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full, which is always full")
    stream = open("/dev/full", mode)  # noqa: SIM115 - closing it fails
    try:
        yield stream
    finally:
        with contextlib.suppress(OSError):
            stream.close()


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    with (
        full_stream("w") as text,
        full_stream("wb") as binary,
        RunLog(tmp_path, options=options(steps=1), resumed_at=None, enabled=True) as runlog,
    ):
        runlog._stream.close()
        runlog._stream = text
        with pytest.raises(InputError, match=r"could not be written \(No space left"):
            runlog.event("log", 1)
        record = runlog._board._writer._py_recordio_writer
        record._writer.close()
        record._writer = binary
        with pytest.raises(InputError, match=r"tensorboard: could not be written"):
            runlog.scalars("train", 1, {"loss": 1.0})


def test_updates_that_share_or_lack_parameters_are_refused(tmp_path):
    task = ToyTask(("model", "other"))
    task.parameters = lambda update: task.module["head"].parameters()
    with pytest.raises(InputError, match="parameters of another update"):
        run(tmp_path, task)
    task.parameters = lambda update: task.module["frozen"].parameters()
    with pytest.raises(InputError, match="every parameter is frozen"):
        run(tmp_path, task)


def test_a_loss_that_is_not_finite_names_step_and_cases_and_moves_nothing(tmp_path):
    task = ToyTask()
    before = {k: v.clone() for k, v in task.module.state_dict().items()}
    with pytest.raises(InputError, match=r"step 0: .*not finite.*case2.*--lr"):
        run(tmp_path, task, Lines(4, bad=2))
    assert_equal(task.module.state_dict(), before)


def test_a_gradient_that_is_not_finite_is_told_apart(tmp_path):
    class Steep(ToyTask):
        def loss(self, batch, update, step):
            loss, figures = super().loss(batch, update, step)
            zero = self.module["head"].bias.sum() * 0
            return loss + torch.sqrt(zero), figures  # the slope of a root at zero is infinite

    with pytest.raises(InputError, match="loss is finite, its gradient is not"):
        run(tmp_path, Steep())


def test_an_empty_training_set_and_odd_batches_are_refused(tmp_path):
    with pytest.raises(InputError, match="training split is empty"):
        run(tmp_path, train_set=EmptyLines())
    with pytest.raises(
        InputError, match=r"--batch-size is 5: not a multiple.*or start fewer ranks"
    ):
        run(tmp_path, batch_size=5, accumulate=2)


class EmptyLines(Lines):
    def __bool__(self):
        return True

    def __len__(self):
        return 0


class Short(ToyTask):
    """Runs out of memory in a step of the training, or in a validation."""

    def __init__(self, error, place="loss"):
        super().__init__()
        self.error, self.place = error, place

    def loss(self, batch, update, step):
        if self.place == "loss" and step == 4:
            raise self.error
        return super().loss(batch, update, step)

    def evaluate(self, batches):
        if self.place == "evaluate" and self.seen:
            raise self.error
        return super().evaluate(batches)


ALLOCATOR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize("place", ["loss", "evaluate"])
@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), ALLOCATOR, MemoryError()],
)
def test_exhausted_memory_names_the_keys_to_lower(tmp_path, error, place):
    with pytest.raises(TrainingError, match=r"step 4: the memory .*is exhausted") as caught:
        run(tmp_path, Short(error, place))
    (line,) = caught.value.problems
    assert "raise training.accumulate, or lower training.batch_size, or give" in line
    assert load(tmp_path / "checkpoints" / "last.pt", "")["step"] == 3, "the last one is kept"


def test_the_keys_to_lower_are_those_of_the_training(tmp_path):
    task = Short(MemoryError())
    task.memory_options = (VqvaeOptions,)
    vecset = cli.checked(VecsetOptions, QUICK)
    with pytest.raises(TrainingError) as caught:
        train(task, Lines(), None, options=vecset, out=tmp_path, identity={})
    for key in ("vecset.accumulate", "vecset.input_points", "vqvae.max_voxels"):
        assert key in str(caught.value)
    assert "or set vecset.checkpointing, vqvae.checkpointing to true" in str(caught.value)


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(tmp_path, Short(RuntimeError("shapes do not fit")))


class Damaged(Lines):
    """A sample whose file is damaged, or whose reader is killed, from some draw on."""

    def __init__(self, kill=False):
        super().__init__()
        self.kill = kill

    def __getitem__(self, key):
        if key[1] >= 20 and self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if key[1] == 22:
            raise InputError("points/case.npz: cannot be read; run sample_sdf again")
        return super().__getitem__(key)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_gets_damaged_is_named_without_a_traceback(tmp_path, workers):
    with pytest.raises(InputError) as caught:
        run(tmp_path, train_set=Damaged(), workers=workers)
    assert caught.value.problems == ["points/case.npz: cannot be read; run sample_sdf again"]
    assert not multiprocessing.active_children(), "at exit Python would wait for them"
    assert load(tmp_path / "checkpoints" / "last.pt", "")["step"] == 3


def test_a_killed_loader_process_is_told_in_one_line(tmp_path):
    with pytest.raises(TrainingError, match="a loader process was killed, most likely") as caught:
        run(tmp_path, train_set=Damaged(kill=True), workers=2)
    assert len(caught.value.problems[0].splitlines()) == 1
    assert not multiprocessing.active_children()


def test_a_connection_that_breaks_shortly_before_a_loader_process_has_ended(tmp_path, monkeypatch):
    taken = reductions.rebuild_storage_fd

    def kill():
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGKILL)

    @functools.wraps(taken)  # pickled by its name
    def cut_off(*handle):
        threading.Timer(0.1, kill).start()
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(reductions, "rebuild_storage_fd", cut_off)
    with pytest.raises(TrainingError, match="a loader process was killed, most likely") as caught:
        run(tmp_path, workers=2)
    assert len(caught.value.problems[0].splitlines()) == 1
    assert not multiprocessing.active_children()
