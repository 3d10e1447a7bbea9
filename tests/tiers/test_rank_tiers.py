"""One rank's copies: through host memory and a real file, and a disk that fails."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch

from headway.core.errors import ConfigError
from headway.worker.plan import PageMoves
from headway.worker.tiers import Progress
from headway.worker.tiers import disk as module
from headway.worker.tiers.counts import PageCounts
from headway.worker.tiers.rank import RankTiers, runs

PAGES, HOST, DISK = 6, 3, 4


class Rank:
    """Random caches over tiers, with the scales of narrow ones; `words` are what the disk reported."""

    def __init__(self, directory: Path, device: str = "cpu") -> None:
        narrow = torch.randint(-128, 128, (PAGES, 4, 2, 8), device=device).to(torch.int8)
        self.caches = [torch.randn(PAGES, 4, 2, 8, device=device), narrow, torch.randn(PAGES, 4, 2, device=device)]
        self.words: list[int] = []
        self.told = threading.Condition()
        self.tiers = RankTiers(self.caches, PageCounts(PAGES, HOST, DISK), str(directory), self.tell)

    def tell(self, word: int) -> None:
        with self.told:
            self.words.append(word)
            self.told.notify_all()

    def wait(self, jobs: int) -> Progress:
        with self.told:
            assert self.told.wait_for(lambda: len(self.words) >= jobs, 10)
        assert self.words[-1] == self.tiers.progress.word
        return self.tiers.progress

    def page(self, number: int) -> list[torch.Tensor]:
        return [cache[number].clone() for cache in self.caches]

    def holds(self, number: int, page: list[torch.Tensor]) -> bool:
        return all(torch.equal(cache[number], part) for cache, part in zip(self.caches, page, strict=True))


NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])])
def test_pages_come_back_as_they_were_from_host_and_disk(tmp_path: Path, device: str) -> None:
    rank = Rank(tmp_path, device)
    first, second, third = (rank.page(number) for number in (1, 4, 5))
    rank.tiers.apply(PageMoves(spills=[(1, 2), (4, 0)], disk=[(True, 2, 3), (True, 0, 0)]))
    assert rank.wait(2) == Progress(2, False)
    # Page 5 goes to the slot of page 4 while that comes back from disk to another one; then all come to other pages.
    rank.tiers.apply(PageMoves(spills=[(5, 0)], disk=[(False, 1, 0)]))
    rank.wait(3)
    for cache in rank.caches:
        cache.zero_()
    rank.tiers.apply(PageMoves(fetches=[(2, 0), (1, 1), (0, 2)]))
    assert rank.holds(0, first) and rank.holds(1, second) and rank.holds(2, third)
    rank.tiers.apply(PageMoves(disk=[(False, 1, 3)]))
    rank.wait(4)
    rank.tiers.apply(PageMoves(spills=[(2, 0)], fetches=[(1, 2), (0, 3)]))
    assert rank.holds(2, first) and rank.holds(3, third), "a page is copied before it is written anew"
    assert not list(tmp_path.iterdir())
    rank.tiers.close()


def test_slots_side_by_side_are_one_copy() -> None:
    assert list(runs([4, 5, 6, 2, 9, 10, 8])) == [(0, 3, 4), (3, 4, 2), (4, 6, 9), (6, 7, 8)]
    assert list(runs([3])) == [(0, 1, 3)] and not list(runs([]))


def test_after_a_failure_jobs_are_counted_and_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rank = Rank(tmp_path)
    rank.tiers.apply(PageMoves(spills=[(0, 0)], disk=[(True, 0, 0)]))
    rank.wait(1)
    before = rank.page(1)

    def full(*_: object) -> int:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(module.os, "pwrite", full)
    rank.tiers.apply(PageMoves(spills=[(1, 1)], disk=[(True, 1, 1), (False, 1, 0)]))
    assert rank.wait(3) == Progress(3, True)
    rank.tiers.apply(PageMoves(fetches=[(1, 5)]))
    assert rank.holds(5, before), "the read after it was left out"
    rank.tiers.close()
    assert Progress.of_all([Progress(5, False).word, Progress(3, True).word]) == Progress(3, True)


def test_a_page_that_is_another_than_was_written_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rank = Rank(tmp_path)
    rank.tiers.apply(PageMoves(spills=[(0, 0), (1, 1)], disk=[(True, 0, 0), (True, 1, 3)]))
    rank.wait(2)
    assert rank.tiers._disk is not None
    file, size = rank.tiers._disk._file, rank.tiers._disk._size
    at = 3 * size + size // 2
    os.pwrite(file, bytes([os.pread(file, 1, at)[0] ^ 1]), at)
    rank.tiers.apply(PageMoves(disk=[(False, 2, 3)]))
    assert rank.wait(3) == Progress(3, False, spoilt=3)
    rank.tiers.apply(PageMoves(disk=[(False, 2, 0), (False, 1, 3), (False, 1, 0)]))
    assert rank.wait(6) == Progress(6, False, spoilt=5)
    assert Progress.of(rank.words[-1]) == rank.tiers.progress
    assert [record.levelname for record in caplog.records] == ["ERROR"], "once"
    rank.tiers.close()


@pytest.mark.parametrize("finished", [0, 7, 1 << 30])
def test_a_word_tells_what_was_spoilt_of_late(finished: int) -> None:
    for progress in (Progress(finished, True), Progress(finished + 1, False, finished + 1)):
        assert Progress.of(progress.word) == progress and progress.word < 1 << 64
    assert Progress.of(Progress(finished + (1 << 21), False, 1).word).spoilt == 0
    words = [Progress(finished + 9, False, finished + 4).word, Progress(finished + 3, False).word]
    assert Progress.of_all(words) == Progress(finished + 3, False, finished + 4)


def test_a_file_system_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "not supported")
        return real(path, flags, *rest)

    monkeypatch.setattr(module.os, "open", refuse)
    rank = Rank(tmp_path)
    assert not list(tmp_path.iterdir())
    page = rank.page(3)
    rank.tiers.apply(PageMoves(spills=[(3, 1)], disk=[(True, 1, 2), (False, 0, 2)]))
    rank.wait(2)
    rank.tiers.apply(PageMoves(fetches=[(0, 4)]))
    assert rank.holds(4, page)
    rank.tiers.close()
    with pytest.raises(ConfigError, match="kv_disk: no file of 4 pages"):
        Rank(tmp_path / "none")
