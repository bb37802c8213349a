"""Ranks, devices and farewells, without a second process."""

from __future__ import annotations

import types

import pytest
import torch

from cardiform.errors import InputError
from cardiform.training import distributed


@pytest.fixture
def group(monkeypatch):
    """Rank 3 of 4, the second of its node of two CUDA devices; what is called on the library."""
    calls = []
    for name, value in {"RANK": 3, "WORLD_SIZE": 4, "LOCAL_RANK": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("device", device)))
    library = types.SimpleNamespace(
        init_process_group=lambda *names, **keys: calls.append(("init", *names, keys)),
        destroy_process_group=lambda: calls.append(("destroy",)),
        group=types.SimpleNamespace(WORLD="the group"),
    )
    monkeypatch.setattr(distributed, "dist", library)
    monkeypatch.setattr(distributed, "_CLOSED", [])
    return calls


def test_the_device_follows_the_rank_within_the_node_and_files_the_rank_of_all(group):
    with distributed.connect("auto") as world:
        assert world.device == torch.device("cuda", 1)
        assert (world.rank, world.size, world.is_main) == (3, 4, False)
        assert not distributed.is_main()
    assert group[0] == ("device", torch.device("cuda", 1))
    kind, backend, keys = group[1]
    assert (kind, backend, keys["device_id"]) == ("init", "nccl", torch.device("cuda", 1))
    assert keys["timeout"].total_seconds() >= 3600, "a validation may take long"


def test_ranks_on_the_cpu_talk_over_gloo(group):
    with distributed.connect("cpu") as world:
        assert world.device == torch.device("cpu")
    assert group[0][1] == "gloo" and group[0][2]["device_id"] is None


def test_more_ranks_than_devices_of_the_node(group, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    told = "rank 2 of this node has no device, 2 are visible"
    with pytest.raises(InputError, match=told), distributed.connect("auto"):
        pass


def test_an_error_says_no_farewell_that_others_would_be_waited_for_in(group):
    with pytest.raises(InputError), distributed.connect("cpu"):
        raise InputError("a file is missing on this node alone")
    assert ("destroy",) not in group


def test_a_stop_and_an_end_close_the_group_and_keep_it(group):
    """Kept, because its last owner takes it apart: see _CLOSED."""
    with pytest.raises(SystemExit), distributed.connect("cpu"):
        raise SystemExit(75)
    with distributed.connect("cpu"):
        pass
    assert group.count(("destroy",)) == 2
    assert distributed._CLOSED == ["the group", "the group"]


def test_alone_the_work_of_the_first_rank_is_just_done():
    world = distributed.World(0, 1, torch.device("cpu"))
    content = {"a": [torch.ones(2), 3]}
    assert world.from_main(lambda: content) is content
