"""Cores that ranks claim: one each, while there are enough, and free again with their processes."""

from __future__ import annotations

import os
import threading

import pytest

from headway.worker.group import cores
from headway.worker.group.cores import Core, take_core


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose groups all see each other; other names, so that nobody else here is in the way."""
    monkeypatch.setattr(cores, "_sees_its_neighbours", lambda: True)
    monkeypatch.setattr(cores, "NAME", f"test-{os.getpid()}-core")
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.delenv("HEADWAY_PIN_CORES", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def in_threads(count: int, ranks: int) -> list[tuple[Core | None, set[int]]]:
    """What each of so many threads gets, one after the other, and the cores that it may then run on."""
    found: list[tuple[Core | None, set[int]]] = []

    def claim() -> None:
        core = take_core(ranks)
        found.append((core, os.sched_getaffinity(0)))

    for _ in range(count):
        thread = threading.Thread(target=claim)
        thread.start()
        thread.join()
    return found


def test_each_has_its_own_until_there_are_no_more() -> None:
    available = os.sched_getaffinity(0)
    found = in_threads(len(available) + 2, 1)
    taken = [core.number for core, mask in found if core is not None and mask == {core.number}]
    assert sorted(taken) == sorted(available)
    assert [(core, mask) for core, mask in found[len(available) :]] == [(None, available)] * 2
    found.clear()
    assert len([core for core, _ in in_threads(1, 1) if core is not None]) == 1, "claims end with who made them"


def test_no_cores_for_more_ranks_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_threads(1, len(os.sched_getaffinity(0)) + 1)[0][0] is None


def test_no_cores_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: ((os.cpu_count() or 1) + 0.1, 0.0, 0.0))
    assert in_threads(1, 1)[0][0] is None


@pytest.mark.parametrize(("name", "value"), [("HEADWAY_PIN_CORES", "0"), ("OMP_NUM_THREADS", "2")])
def test_turned_off(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert in_threads(1, 1) == [(None, os.sched_getaffinity(0))]
