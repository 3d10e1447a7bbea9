"""What every store of the desired state promises."""

import asyncio
import json
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from redis import asyncio as redis

from headway.controller.state import (
    Answer,
    ChangeLine,
    DesiredState,
    MemoryStore,
    ModelRevision,
    ModelSpec,
    RedisStore,
    ReplicaRecord,
    StateStore,
    record_revisions,
)
from headway.controller.state.values import KEPT_ANSWERS, KEPT_REVISIONS
from headway.core.errors import ConfigError, Stale, Unavailable
from headway.core.specs import EngineSpec

DEMO = ModelSpec(name="demo", path="/m", replicas=2, tp=2, engine=EngineSpec(page_size=32))
FULL = DesiredState(
    revision=1,
    changed_at=7,
    lives=2,
    next_ordinal=3,
    models={"demo": DEMO},
    revisions={
        "demo": (
            ModelRevision(number=4, time=0.5, model=msgspec.structs.replace(DEMO, path="/l", tp=1), what="start"),
            ModelRevision(number=5, time=1.5, model=DEMO, what="scale", reason="warum — ü"),
        )
    },
    replicas={"demo-2": ReplicaRecord(id="demo-2", model="demo", ordinal=2, drain_until=12.5)},
    answers={"key": Answer(digest="d", version=7, steps=("start 1",))},
    log=(ChangeLine(time=1.5, version=7, what="scale", reason="warum — ü"),),
)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of our own on a free port of the loopback interface."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        until = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < until and server.poll() is None
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}"
        server.terminate()


@pytest.fixture(params=["memory", "file", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StateStore]:
    made: StateStore
    if request.param == "redis":
        made = RedisStore(request.getfixturevalue("redis_url"), key=f"test:{tmp_path.name}")
    else:
        made = MemoryStore(tmp_path / "state.json" if request.param == "file" else None)
    yield made
    await made.close()


async def test_an_empty_store_has_revision_0(store: StateStore) -> None:
    assert await store.load() == DesiredState()


async def test_what_is_committed_is_loaded_whole(store: StateStore) -> None:
    await store.commit(FULL)
    assert await store.load() == FULL


async def test_a_commit_that_follows_another_revision_is_stale_and_changes_nothing(store: StateStore) -> None:
    await store.commit(FULL)
    for revision in (0, 1, 3):
        with pytest.raises(Stale):
            await store.commit(DesiredState(revision=revision))
    assert await store.load() == FULL


async def test_of_commits_at_once_exactly_one_wins(store: StateStore) -> None:
    states = [DesiredState(revision=1, changed_at=number) for number in range(8)]
    results = await asyncio.gather(*(store.commit(state) for state in states), return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, Stale) for result in results) == 7
    assert await store.load() == states[results.index(None)]


async def test_closing_twice_is_fine(store: StateStore) -> None:
    await store.close()
    await store.close()


def test_a_file_outlives_its_store(tmp_path: Path) -> None:
    asyncio.run(MemoryStore(tmp_path / "state").commit(FULL))
    assert asyncio.run(MemoryStore(tmp_path / "state").load()) == FULL
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


async def test_redis_keeps_the_state_for_the_next_controller(redis_url: str) -> None:
    first, second = RedisStore(redis_url, "test:next"), RedisStore(redis_url, "test:next")
    await first.commit(FULL)
    assert await second.load() == FULL
    await second.commit(FULL.following(changed_at=9))
    with pytest.raises(Stale):
        await first.commit(FULL.following(changed_at=8))
    await first.close()
    await second.close()


async def test_a_state_from_before_revisions_is_loaded_without_any(redis_url: str, tmp_path: Path) -> None:
    document = json.loads(msgspec.json.encode(FULL))
    del document["revisions"]
    (tmp_path / "state").write_text(json.dumps(document))
    client = redis.from_url(redis_url)
    await client.hset("test:old", mapping={"revision": 1, "state": json.dumps(document)})
    await client.aclose()
    for store in (MemoryStore(tmp_path / "state"), RedisStore(redis_url, "test:old")):
        assert await store.load() == msgspec.structs.replace(FULL, revisions={})
        await store.close()


def test_a_file_that_is_something_else_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("milk")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        MemoryStore(tmp_path / "notes.txt")


async def test_a_redis_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        store = RedisStore(f"redis://127.0.0.1:{holder.getsockname()[1]}")
        with pytest.raises(Unavailable):
            await store.load()
        await store.close()


def test_a_revision_drops_the_oldest_answers() -> None:
    answers = {str(n): Answer(digest="", version=n, steps=()) for n in range(KEPT_ANSWERS + 5)}
    kept = DesiredState().following(answers=answers).answers
    assert list(kept) == [str(n) for n in range(5, KEPT_ANSWERS + 5)]


def test_each_change_of_a_models_settings_is_a_revision_and_nothing_else_is() -> None:
    first = record_revisions(DesiredState(models={"demo": DEMO}), time=1.0, what="start")
    assert [(r.number, r.model, r.what) for r in first.revisions["demo"]] == [(1, DEMO, "start")]
    unchanged = record_revisions(first.following(next_ordinal=9), time=2.0, what="drain")
    assert unchanged.revisions == first.revisions
    other = ModelSpec(name="other", path="/o", replicas=1)
    wider = msgspec.structs.replace(DEMO, tp=4)
    after = record_revisions(first.following(models={"demo": wider, "other": other}), time=3.0, what="w", reason="r")
    assert after.revisions["demo"][1] == ModelRevision(number=2, time=3.0, model=wider, what="w", reason="r")
    assert [r.number for r in after.revisions["other"]] == [1]


def test_the_oldest_revisions_are_dropped_and_numbers_go_on() -> None:
    state = DesiredState()
    for replicas in range(KEPT_REVISIONS + 5):
        model = msgspec.structs.replace(DEMO, replicas=replicas)
        state = record_revisions(state.following(models={"demo": model}), time=0.0, what="scale")
    kept = state.revisions["demo"]
    assert [r.number for r in kept] == list(range(6, KEPT_REVISIONS + 6))
    assert kept[-1].model.replicas == KEPT_REVISIONS + 4
