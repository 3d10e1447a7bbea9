"""Real groups whose prompts far exceed the device's pages: what comes back from host memory and disk gives the tokens
that computing it gives, on every shape of a group, and a router hears where every page lies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
from engine_client import GREEDY, EngineSession, channel_to
from worker_process import WorkerProcess, wait_gone

from headway.core.blocks import split_keys
from headway.core.sampling import SamplingParams
from headway.proto.headway.v1 import engine_pb2

SHAPES = ((), ("--tp", "2", "--kv-dtype", "int8"), ("--pp", "2", "--kv-dtype", "fp8"))
PAGES, HOST, DISK, NEW = 20, 24, 64, 8
POOL = ("--pages", str(PAGES), "--host-pages", str(HOST), "--disk-pages", str(DISK), "--token-budget", "64")
PROMPTS = [[(31 * at * at + 101 * which) % 3000 + 300 for at in range(66 + which)] for which in range(10)]
WAYS = [GREEDY, SamplingParams(temperature=1.0, top_p=0.95, seed=42)]
DEVICE, IN_HOST, ON_DISK = engine_pb2.MEDIUM_DEVICE, engine_pb2.MEDIUM_HOST, engine_pb2.MEDIUM_DISK


def mirror(reports: list[engine_pb2.SessionResponse]) -> dict[int, set[bytes]]:
    """What a router knows after these reports."""
    held: dict[int, set[bytes]] = {DEVICE: set(), IN_HOST: set(), ON_DISK: set()}
    for report in reports:
        for event in report.kv_events:
            stored, removed = set(split_keys(event.stored.keys)), set(split_keys(event.removed.keys))
            assert not stored & held.get(event.stored.medium, set())
            assert not removed or removed <= held[event.removed.medium]
            if stored:
                held[event.stored.medium] |= stored
            if removed:
                held[event.removed.medium] -= removed
    return held


async def settled(session: EngineSession) -> engine_pb2.Load:
    """The load once the disk has caught up with everything."""
    before = await session.idle()
    while (load := await session.idle()).totals.disk_written_pages != before.totals.disk_written_pages:
        before = load
    return load


def totals(session: EngineSession) -> engine_pb2.LoadTotals:
    return session.reports[-1].load.totals


async def run(session: EngineSession) -> list[list[int]]:
    """Alone and computed is what all are compared with; then in turn, so that each finds what the others pushed out;
    then all at once, with preemptions."""
    pairs = [(prompt, WAYS[which % 2]) for which, prompt in enumerate(PROMPTS)]
    expected = [(await session.generate(prompt, NEW, way, cache_bypass=True)).token_ids for prompt, way in pairs]
    before = totals(session)
    in_turn = [await session.generate(prompt, NEW, way) for prompt, way in pairs]
    between = totals(session)
    streams = [await session.submit(prompt, NEW, way) for prompt, way in reversed(pairs)]
    await asyncio.gather(*(asyncio.wait_for(stream.done.wait(), 60) for stream in streams))
    assert [stream.token_ids for stream in in_turn] == expected
    assert [stream.token_ids for stream in reversed(streams)] == expected
    assert between.disk_cached_tokens > before.disk_cached_tokens
    assert sum(stream.cached_tokens for stream in in_turn) > 16 * PAGES, "more than the device holds"
    assert totals(session).host_cached_tokens > before.host_cached_tokens
    return [list(tokens) for tokens in expected]


def spoil(pid: int, directory: Path) -> None:
    """Flips a bit in every byte of the file behind a rank's tier."""
    (link,) = (link for link in Path(f"/proc/{pid}/fd").iterdir() if link.readlink().is_relative_to(directory))
    with link.open("r+b") as file:
        flipped = np.frombuffer(file.read(), np.uint8) ^ 1
        file.seek(0)
        file.write(flipped.tobytes())


async def outlive_a_spoilt_disk(session: EngineSession, worker: WorkerProcess, expected: list[list[int]]) -> None:
    """What its pages say is not believed, and computed again; the log says so once."""
    for which, prompt in enumerate(PROMPTS):
        assert (await session.generate(prompt, NEW, WAYS[which % 2])).token_ids == expected[which]
    assert worker.log.read_text().count("the KV tier's file gives back another page") == 1


def empty(directory: Path) -> bool:
    return not list(directory.iterdir())


async def check(worker: WorkerProcess, directory: Path) -> None:
    """One group, from its first request to its end by SIGKILL."""
    async with channel_to(worker.endpoint) as channel:
        session = await EngineSession(channel, "router").open()
        expected = await run(session)
        load = await settled(session)
        known = mirror(session.reports)
        late = await EngineSession(channel, "late").open()
        await late.report(lambda report: report.snapshot and not report.snapshot_continues)
        assert mirror(late.reports) == known == mirror(session.reports), "a snapshot names the media, too"
        spoil(worker.pids[1], directory)
        await outlive_a_spoilt_disk(session, worker, expected)
        await session.close()
        await late.close()
    assert (len(known[IN_HOST]), len(known[ON_DISK])) == (load.host_used_pages, load.disk_used_pages)
    assert len(known[DEVICE]) == load.cached_pages and load.used_pages == 0
    assert 0 < load.host_used_pages <= load.host_total_pages == HOST
    assert HOST < load.disk_used_pages <= load.disk_total_pages == DISK
    assert load.totals.fetched_pages * 16 == load.totals.host_cached_tokens + load.totals.disk_cached_tokens
    assert empty(directory), "the file has no name"
    worker.process.kill()
    assert not wait_gone(worker.pids, 10) and empty(directory)


async def test_tokens_come_out_alike_and_routers_know_every_page_on_every_shape(tmp_path: Path) -> None:
    workers = [WorkerProcess(*shape, *POOL, "--kv-disk", str(tmp_path)) for shape in SHAPES]
    try:
        await asyncio.gather(*(check(worker.wait_ready(), tmp_path) for worker in workers))
    finally:
        for worker in workers:
            worker.close()
