"""Sums and gathers between real ranks: right, the same bits everywhere, never stuck, nothing left behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from collectives import (
    Gathers,
    Sums,
    die_or_wait,
    listening_addresses,
    many_sums_with_uneven_speed,
    memory_names,
    own_numbers,
    settled_timeouts,
    sums_in_one_shot,
    transport,
    with_symmetric_memory_on_one_rank,
    without_symmetric_memory,
)
from rank_group import RankGroup, free_port, rank_context

from headway.core.errors import ConfigError
from headway.kernels.native import AVAILABLE
from headway.worker.parallel import nccl, shared_memory
from headway.worker.parallel.communicator import Communicator, join
from headway.worker.parallel.errors import RankLost
from headway.worker.parallel.topology import Topology

# One element, a decode step's, one past a buffer, and several buffers.
COUNTS = (1, 4096, shared_memory.CAPACITY // 4 + 1, shared_memory.CAPACITY)


@pytest.mark.parametrize("shape", [(2, 1), (2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_are_the_same_bits_on_each_rank(
    shape: tuple[int, int], dtype: torch.dtype, group_of: Callable[[int, int], RankGroup]
) -> None:
    answers = group_of(*shape).run(Sums(COUNTS, dtype))
    assert all(answer == answers[0] for answer in answers)
    for count, data in zip(COUNTS, answers[0], strict=True):
        expected = own_numbers(0, count, dtype).float() + own_numbers(1, count, dtype).float()
        assert torch.equal(torch.frombuffer(bytearray(data), dtype=dtype), expected.to(dtype))


def test_gather_puts_slices_side_by_side(group_of: Callable[[int, int], RankGroup]) -> None:
    widths = (1, 64, shared_memory.CAPACITY // 8)
    first, second = group_of(2, 1).run(Gathers(widths))
    assert second == [None] * len(widths)
    for width, found in zip(widths, first, strict=True):
        parts = [own_numbers(rank, 3 * width, torch.float32).view(3, width) for rank in range(2)]
        assert torch.equal(found, torch.cat(parts, -1))


def test_ranks_of_uneven_speed(group_of: Callable[[int, int], RankGroup]) -> None:
    answers = group_of(2, 2).run(many_sums_with_uneven_speed)
    assert answers == [[turn * 3.0 for turn in range(400)]] * 4


def test_shared_memory_is_used_and_has_no_name(group_of: Callable[[int, int], RankGroup]) -> None:
    group = group_of(2, 1)
    if shared_memory.supported():
        assert group.run(transport) == ["NativeGroup" if AVAILABLE else "PlainGroup"] * 2
    assert group.run(memory_names) == [[], []]
    assert not list(Path("/dev/shm").glob("headway*"))


def test_symmetric_memory_is_used_by_all_ranks_or_none(group_of: Callable[[int, int], RankGroup]) -> None:
    group = group_of(2, 1)
    assert group.run(without_symmetric_memory) == [("DistributedGroup", [3.0])] * 2
    assert group.run(with_symmetric_memory_on_one_rank) == ["DistributedGroup"] * 2
    for kind, shots, checks in group.run(sums_in_one_shot):
        assert kind == "SymmetricGroup" and checks == [(True, True)] * 7
        assert shots == 3, "small ones of its types, of whole vectors"


def test_the_second_line_waits_longer_than_the_leader(group_of: Callable[[int, int], RankGroup]) -> None:
    assert {seconds for found in group_of(2, 1).run(settled_timeouts) for seconds in found} == {90.0}
    assert nccl.TIMES > 1 and nccl.LEAST_S < nccl.LOADING_S


def test_nccl_is_told_by_the_environment_what_it_is_not_told_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*nccl.DEFAULTS, "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    nccl.prepare_environment(on_loopback=False)
    assert os.environ["NCCL_DEBUG"] == "INFO" and os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "3"
    assert "NCCL_SOCKET_IFNAME" not in os.environ
    nccl.prepare_environment(on_loopback=True)
    assert os.environ["NCCL_SOCKET_IFNAME"] == "lo"
    for name in (*nccl.DEFAULTS, "NCCL_SOCKET_IFNAME"):
        monkeypatch.setenv(name, os.environ[name])  # so that it is gone afterwards


def test_ranks_listen_on_the_loopback_only(group_of: Callable[[int, int], RankGroup]) -> None:
    answers = group_of(2, 2).run(listening_addresses)
    assert answers[0], "rank 0 serves the rendezvous"
    assert {address for answer in answers for address in answer} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_a_dead_rank_ends_the_wait() -> None:
    context = rank_context()
    rendezvous = f"tcp://127.0.0.1:{free_port()}"
    pipes, processes = [], []
    for rank in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=die_or_wait, args=(rank, rendezvous, theirs), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    assert pipes[0].poll(60)
    said = pipes[0].recv()
    assert said.startswith("RankLost after 1.") and "rank 1 did not reach" in said
    for process, code in zip(processes, (0, 9), strict=True):
        process.join(20)
        assert process.exitcode == code


def test_nobody_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    # join() sets it where there is none, and processes that later tests start would inherit it.
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    with pytest.raises(RankLost, match="rank 0 could not join"):
        join(0, 2, 1, "cpu", f"tcp://127.0.0.1:{free_port()}", 0.5)


@pytest.mark.parametrize("rendezvous", ["", "127.0.0.1:80", "tcp://127.0.0.1", "file:///tmp/x"])
def test_rendezvous_that_cannot_be(rendezvous: str) -> None:
    with pytest.raises(ConfigError, match="rendezvous"):
        join(0, 2, 1, "cpu", rendezvous, 0.5)


def test_topology() -> None:
    places = [Topology(rank, tp=2, pp=3) for rank in range(6)]
    assert [(place.pp_rank, place.tp_rank) for place in places] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert [place.rank for place in places if place.is_sampler] == [4]
    assert [place.tp_group() for place in places[::2]] == [[0, 1], [2, 3], [4, 5]]


def test_alone_needs_no_rendezvous() -> None:
    comm: Communicator = join(0, 1, 1, "cpu", "", 1.0)
    x = torch.ones(3)
    assert comm.all_reduce(x) is x and comm.gather(x) is x
    comm.close()
