"""Lines that people read: the remedy fits the file, and the limit of the machine is named."""

from __future__ import annotations

import errno
import multiprocessing.synchronize
import resource

import pytest

from cardiform.errors import InputError, limit_fact, name_options, problem, together


@pytest.fixture
def named():
    name_options([{"model": "my.pt", "label_maps": ["a.nii.gz"], "empty": ""}, {"pretrained": "p"}])
    yield
    name_options(())


def test_a_file_of_the_command_line_is_corrected_and_not_deleted(named):
    anew = "delete it and run the same command again"
    assert problem("own.json", "is damaged", anew).endswith(anew)
    assert problem("my.pt", "is damaged", anew).startswith("my.pt: is damaged; correct --model;")
    assert "delete" not in problem("my.pt:7", "is cut", anew)
    assert problem("p", "is gone", "correct the path") == "p: is gone; correct --pretrained"
    assert problem("p", "is b", "give the b").endswith("; correct --pretrained: give the b")
    line = problem("a.nii.gz", "is gone", "correct the path in the case table")
    assert line == "a.nii.gz: is gone; correct --label-maps"
    assert problem("b", "is gone", "correct the path") == "b: is gone; correct the path"
    assert problem("b", "is empty", "fill it") == "b: is empty; fill it"


def test_problems_of_all_steps_are_reported():
    def bad(number):
        raise InputError(f"{number}: bad")

    assert together(lambda: 1, lambda: 2) == [1, 2]
    with pytest.raises(InputError) as caught:
        together(lambda: bad(1), lambda: 2, lambda: bad(3))
    assert caught.value.problems == ["1: bad", "3: bad"]


BUS = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's"
SHARED = (
    RuntimeError(BUS),
    RuntimeError("unable to open shared memory object </torch_7_1> in read-write mode: (30)"),
    RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nunable to write to file "
                 "</torch_7_1>: No space left on device (28)"),
    OSError(errno.ENOSPC, "No space left on device", "/dev/shm/x"),
)  # fmt: skip
OPEN = (
    OSError(errno.EMFILE, "Too many open files"),
    ImportError("x.so: cannot open shared object file: Too many open files"),
    RuntimeError("received 0 items of ancdata"),
)


@pytest.mark.parametrize("error", SHARED, ids=str)
def test_shared_memory_is_named(error):
    fact, remedy = limit_fact(error)
    assert "/dev/shm" in fact and "workers: 0" in remedy and "more memory" not in remedy


@pytest.mark.parametrize("error", OPEN, ids=str)
def test_the_limit_of_open_files_is_named(error):
    fact, remedy = limit_fact(error)
    assert str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]) in fact and "ulimit -n" in remedy


def test_other_errors_are_no_limits():
    killed = "DataLoader worker (pid 7) is killed by signal: Killed."
    for error in (RuntimeError(killed), ValueError("shared memory"), OSError(errno.EIO, "x")):
        assert limit_fact(error) is None


def test_a_pool_without_semaphores_lacks_shared_memory(monkeypatch):
    """The error names no file: the place that raised it says what it is about."""
    lock = multiprocessing.synchronize.Lock
    monkeypatch.setattr(lock, "_make_name", staticmethod(lambda: "/no/such/folder"))
    with pytest.raises(OSError) as caught:
        lock(ctx=multiprocessing.get_context())
    fact, remedy = limit_fact(caught.value)
    assert "/dev/shm" in fact and "--processes 1" in remedy


@pytest.mark.parametrize("name", ["~/cohort.tsv", "~me/cohort.tsv", "/data/~/labels/a.nii.gz"])
def test_a_home_folder_that_no_shell_has_written_out_is_told(name):
    """In a config, and in a case table, whose paths begin at its folder."""
    line = problem(name, "cannot be read", "correct the path in the case table")
    assert line.endswith("; write your home folder in full: ~ stands for it in a shell alone")
    assert problem("a~/b.tsv", "is bad", "correct the path") == "a~/b.tsv: is bad; correct the path"


@pytest.mark.parametrize("name", ["~old/cohort.tsv", "data/~old/a.nii.gz", "data/~$cohort.tsv"])
def test_a_name_that_begins_with_a_tilde_is_no_home_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for folder in ("~old", "data/~old"):
        (tmp_path / folder).mkdir(parents=True)
    line = problem(name, "is not there", "correct the path")
    assert line == f"{name}: is not there; correct the path"
