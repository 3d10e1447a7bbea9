"""LoRA adapters over EngineService: two slots, eight adapters of the demo model, and what peft says of them."""

import asyncio
import shutil
import sys
from pathlib import Path

import grpc
import pytest
from engine_client import GREEDY, channel_to

from headway.core.blocks import root_key
from headway.proto.headway.v1 import engine_pb2
from headway.proto.headway.v1.engine_pb2_grpc import EngineServiceStub

sys.path.insert(0, str(Path(__file__).parents[1] / "model" / "support"))

from tiny_adapters import KINDS, PeftOracle, edit_adapter, write_adapter

DEMO = Path(__file__).parents[2] / "demo" / "headway-demo"
SHAPES = {"tp2": ("--tp", "2"), "pp2": ("--pp", "2")}
SLOTS = ("--max-adapters", "2", "--pages", "200", "--token-budget", "64")
NEW = 6
Load, Unload = engine_pb2.EngineServiceLoadAdapterRequest, engine_pb2.EngineServiceUnloadAdapterRequest


def prompt_of(row: int) -> list[int]:
    return [(7 * at * at + 13 * at + 101 * row) % 3000 + 300 for at in range(12 + 5 * row)]


@pytest.fixture(scope="module")
def family(tmp_path_factory) -> list[Path]:
    directory = tmp_path_factory.mktemp("adapters")
    return [write_adapter(directory / f"a{n}", DEMO, seed=n, **kind) for n, kind in enumerate(KINDS)]


@pytest.fixture(scope="module")
def expected(family) -> list[list[int]]:
    """What row n gives with adapter n in peft; the last one with none."""
    oracle, found = PeftOracle(DEMO, family), []
    for row in range(len(family) + 1):
        with oracle.using(row if row < len(family) else -1):
            found.append(oracle.greedy(prompt_of(row), NEW))
    return found


def use(adapter: engine_pb2.Adapter) -> dict[str, object]:
    """What a router puts into Submit for this adapter."""
    chosen = engine_pb2.AdapterUse(name=adapter.name, revision=adapter.revision)
    return {"adapter": chosen, "cache_root": root_key("demo", adapter=adapter.revision)}


async def loaded(stub: EngineServiceStub, family: list[Path]) -> list[engine_pb2.Adapter]:
    return [(await stub.LoadAdapter(Load(name=path.name, path=str(path)))).adapter for path in family]


@pytest.fixture(params=SHAPES)
def worker(request, worker_of):
    return worker_of(*SHAPES[request.param], *SLOTS, "--dtype", "float32")


async def test_nine_kinds_of_requests_share_two_slots(worker, session_to, family, expected):
    async with channel_to(worker.endpoint) as channel, session_to(worker) as session:
        stub = EngineServiceStub(channel)
        adapters = await loaded(stub, family)
        assert [adapter.rank for adapter in adapters] == [4, 1, 8, 3, 16, 7, 2, 5]
        assert list((await stub.ListAdapters(engine_pb2.ListAdaptersRequest())).adapters) == adapters
        await session.report(lambda report: len(report.adapters.adapters) == 8)
        for turn in range(2):  # the second time their pages are warm
            streams = [
                await session.submit(prompt_of(row), NEW, **use(adapters[row])) for row in (0, 1, 2, 3, 4, 5, 6, 7)
            ]
            base = await session.submit(prompt_of(8), NEW)
            await asyncio.gather(*(asyncio.wait_for(stream.done.wait(), 60) for stream in (*streams, base)))
            assert [stream.token_ids for stream in streams] == expected[:8]
            assert base.token_ids == expected[8]
            assert all(stream.cached_tokens > 0 for stream in streams[1:]) is bool(turn)
        # The same prompt with another adapter, or none, has no pages yet.
        for other in (use(adapters[6]), {}):
            assert (await session.generate(prompt_of(7), 1, **other)).cached_tokens == 0
        assert (await session.idle()).used_pages == 0


async def test_loading_and_unloading_under_traffic(worker, session_to, family, expected):
    async with channel_to(worker.endpoint) as channel, session_to(worker) as session:
        stub = EngineServiceStub(channel)
        long = await session.submit(prompt_of(8), 150)
        adapter, other = await loaded(stub, family[:2])
        held = await session.submit(prompt_of(0), 100, **use(adapter))
        await held.started.wait()
        await stub.UnloadAdapter(Unload(name="a0"))
        refused = await session.generate(prompt_of(0), NEW, **use(adapter))
        assert refused.refusal.code == grpc.StatusCode.NOT_FOUND.value[0]
        assert refused.refusal.field == "adapter.name" and "'a0'" in refused.refusal.message
        # Others come and go in its place; the one that runs keeps its own to the end.
        for path in (*family[2:5], *family[2:5]):
            found = (await stub.LoadAdapter(Load(name="x", path=str(path)))).adapter
            row = family.index(path)
            assert (await session.generate(prompt_of(row), NEW, **use(found))).token_ids == expected[row]
        await asyncio.wait_for(asyncio.gather(held.done.wait(), long.done.wait()), 60)
        assert held.token_ids[:NEW] == expected[0] and len(held.token_ids) == 100
        assert long.token_ids[:NEW] == expected[8]
        again = (await stub.LoadAdapter(Load(name="a0", path=str(family[0])))).adapter
        assert again == adapter
        stale = use(engine_pb2.Adapter(name="a1", revision="older"))
        refused = await session.generate(prompt_of(1), NEW, **stale)
        assert (
            refused.refusal.code == grpc.StatusCode.UNAVAILABLE.value[0] and other.revision in refused.refusal.message
        )
        alone = await session.generate(prompt_of(0), 100, **use(adapter), cache_bypass=True)
        assert alone.token_ids == held.token_ids
        await stub.UnloadAdapter(Unload(name="x"))


async def test_what_a_rank_cannot_use_is_refused_and_the_group_lives(worker, session_to, family, expected, tmp_path):
    from safetensors.torch import load_file, save_file

    dora = Path(shutil.copytree(family[0], tmp_path / "dora"))
    edit_adapter(dora, use_dora=True)
    # Only the rank that has the last layer can see this.
    crooked = Path(shutil.copytree(family[0], tmp_path / "crooked"))
    tensors = load_file(crooked / "adapter_model.safetensors")
    name = max(name for name in tensors if "q_proj.lora_B" in name)
    save_file(tensors | {name: tensors[name][:-1].contiguous()}, crooked / "adapter_model.safetensors")
    async with channel_to(worker.endpoint) as channel, session_to(worker) as session:
        stub = EngineServiceStub(channel)
        for path, words in (
            (str(dora), "use_dora = True is not supported"),
            (str(crooked), f"tensor {name} has shape"),
            (str(tmp_path / "nothing"), "there is no such directory"),
            ("a0", "path must be an absolute path"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.LoadAdapter(Load(name="bad", path=path))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert words in caught.value.details()
        names = [adapter.name for adapter in (await stub.ListAdapters(engine_pb2.ListAdaptersRequest())).adapters]
        assert "bad" not in names
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.UnloadAdapter(Unload(name="bad"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        (adapter,) = await loaded(stub, family[:1])
        assert (await session.generate(prompt_of(0), NEW, GREEDY, **use(adapter))).token_ids == expected[0]
