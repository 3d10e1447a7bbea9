"""The session's promises, against a real worker over real gRPC."""

import asyncio
from itertools import pairwise

import grpc
import pytest
from engine_client import ROOT, EngineSession, channel_to
from google.protobuf.duration_pb2 import Duration

from headway.core.blocks import chain_keys, split_keys
from headway.core.sampling import SamplingParams
from headway.proto.headway.v1 import engine_pb2
from headway.proto.headway.v1.engine_pb2_grpc import EngineServiceStub
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_ABORTED, FINISH_REASON_EOS, FINISH_REASON_STOP

POOL = ("--pages", "20", "--token-budget", "64", "--no-admission-forecast")
LONG = 200
SMALL_WINDOW = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]


@pytest.fixture
def worker(worker_of):
    return worker_of(*POOL)


def prompt(seed: int, length: int = 40) -> list[int]:
    return [(seed * 7919 + 17 * at) % 3000 + 300 for at in range(length)]


def replay(reports: list[engine_pb2.SessionResponse]) -> set[bytes]:
    """The keys that a router would hold after these reports; checks that none contradicts what went before."""
    keys: set[bytes] = set()
    for report in reports:
        for event in report.kv_events:
            if event.HasField("stored"):
                keys.update(split_keys(event.stored.keys))
            elif event.HasField("removed"):
                gone = set(split_keys(event.removed.keys))
                assert gone <= keys
                keys -= gone
            else:
                keys.clear()
    return keys


def assert_no_gap(reports: list[engine_pb2.SessionResponse]) -> None:
    for before, after in pairwise(reports):
        assert after.first_sequence == (before.sequence if after.snapshot else before.sequence + 1)
        assert after.sequence >= after.first_sequence and after.incarnation == before.incarnation


async def test_opens_with_a_snapshot_and_goes_on_without_gap(worker, session_to):
    async with session_to(worker) as session:
        opening = await session.report(lambda report: True)
        await session.generate(prompt(1), 30)
        await session.idle()
        assert opening.snapshot and not opening.snapshot_continues and opening.load.total_pages == 20
        assert_no_gap(session.reports)
        async with session_to(worker, "another") as other:
            snapshot = await other.report(lambda report: report.snapshot)
        known = [report for report in session.reports if report.sequence <= snapshot.sequence]
        assert replay(known) == replay([snapshot]) >= set(chain_keys(ROOT, prompt(1), 16))


async def test_resumes_where_it_left(worker, session_to):
    async with session_to(worker) as session:
        await session.generate(prompt(2), 4)
        seen = list(session.reports)
    async with session_to(worker, "another") as other:
        await other.generate(prompt(3), 40)
    last = seen[-1]
    async with session_to(worker, incarnation=last.incarnation, after_sequence=last.sequence) as session:
        resumed = await session.report(lambda report: True)
        async with session_to(worker, "third") as third:
            snapshot = await third.report(lambda report: report.snapshot)
        assert not resumed.snapshot and resumed.first_sequence == last.sequence + 1
        known = [report for report in session.reports if report.sequence <= snapshot.sequence]
        assert replay(seen + known) == replay([snapshot])


@pytest.mark.parametrize("hello", [{"incarnation": "older", "after_sequence": 1}, {"after_sequence": 10**9}])
async def test_what_cannot_be_resumed_starts_with_a_snapshot(worker, session_to, hello):
    async with session_to(worker, **hello) as session:
        assert (await session.report(lambda report: True)).snapshot


async def test_reports_when_idle(worker, session_to):
    async with session_to(worker) as session:
        await session.report(lambda report: len(session.reports) >= 3, seconds=10)
        assert session.reports[-1].load.accepting and session.reports[-1].load.engine_silence_ms == 0


async def test_abort_ends_once_and_frees(worker, session_to):
    async with session_to(worker) as session:
        running = await session.submit(prompt(4), LONG)
        waiting = [await session.submit(prompt(at), LONG) for at in (5, 6, 7)]
        await running.started.wait()
        for id in (1, 2, 3, 4, 1, 99):
            await session.abort(id)
        for stream in (running, *waiting):
            await asyncio.wait_for(stream.done.wait(), 10)
            assert stream.last.finish_reason == FINISH_REASON_ABORTED
        load = await session.idle()
        assert load.used_pages == 0 and load.waiting_uncached_tokens == 0


async def test_disconnect_frees_pages(worker, session_to):
    async with session_to(worker, "stays") as watcher:
        before = (await watcher.idle()).totals
        async with session_to(worker, "leaves") as session:
            stream = await session.submit(prompt(8), LONG)
            await stream.started.wait()
            assert session.reports[-1].load.used_pages > 0
        load = await watcher.idle()
        assert load.used_pages == 0 and load.totals.aborts == before.aborts + 1


async def test_a_router_that_comes_back_takes_its_own_place(worker, session_to):
    async with session_to(worker, "same") as first:
        stream = await first.submit(prompt(9), LONG)
        await stream.started.wait()
        async with session_to(worker, "same") as second:
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await asyncio.wait_for(first._pump, 10)
            assert ended.value.code() == grpc.StatusCode.ABORTED
            first._pump = None
            assert (await second.idle()).used_pages == 0


async def test_a_session_whose_place_was_taken_submits_no_more(worker, session_to):
    """Its stream is stuck, so it does not end at once; what still comes up on it would run for nobody."""
    async with channel_to(worker.endpoint, SMALL_WINDOW) as channel, session_to(worker, "watcher") as watcher:
        await watcher.report(lambda report: True)
        stuck = await EngineSession(channel, "same").open(reading=False)
        for at in (40, 41, 42, 43):
            await stuck.submit(prompt(at), LONG)
        sent = watcher.reports[0].load.totals.requests + 4
        await watcher.report(lambda report: report.load.totals.requests == sent)
        before = (await watcher.idle()).totals
        async with session_to(worker, "same") as second:
            await second.report(lambda report: report.snapshot)
            await stuck.submit(prompt(44), LONG)
            for at in (45, 46, 47):
                await second.generate(prompt(at), 20)
            after = (await watcher.idle()).totals
        assert after.requests - before.requests == 3
        stuck.call.cancel()


async def test_slow_reader_gets_merged_reports_and_holds_up_nobody(worker, session_to):
    """With a small window the transport holds little: the rest waits merged in the outbox, and comes out whole."""
    async with channel_to(worker.endpoint, SMALL_WINDOW) as channel, session_to(worker, "fast") as fast:
        slow = await EngineSession(channel, "slow").open(reading=False)
        stream = await slow.submit(prompt(10), LONG)
        for _ in range(20):
            await fast.generate(prompt(11), 20)
        await fast.idle()
        slow.read()
        await asyncio.wait_for(stream.done.wait(), 20)
        assert len(stream.token_ids) == LONG
        assert_no_gap(slow.reports)
        assert max(report.sequence - report.first_sequence for report in slow.reports) > 50
        await slow.close()


async def test_commands_in_one_message_are_taken_in_order(worker, session_to):
    async with session_to(worker) as session, channel_to(worker.endpoint) as channel:
        described = await EngineServiceStub(channel).Describe(engine_pb2.DescribeRequest())
        assert described.max_commands >= 4
        alone = await session.generate(prompt(21), 6)
        stopped, first = session.command(prompt(20), LONG)
        refused, second = session.command([], 6)
        goes_on, third = session.command(prompt(21), 6)
        abort = engine_pb2.SessionRequest(abort=engine_pb2.AbortSequence(id=first.submit.id))
        batch = engine_pb2.CommandBatch(commands=[first, second, abort, third])
        await session.call.write(engine_pb2.SessionRequest(batch=batch))
        for stream in (stopped, refused, goes_on):
            await asyncio.wait_for(stream.done.wait(), 20)
        assert stopped.last.finish_reason == FINISH_REASON_ABORTED
        assert refused.refusal.field == "token_ids"
        assert goes_on.token_ids == alone.token_ids


@pytest.mark.parametrize("command", [{"hello": engine_pb2.Hello(router_id="r")}, {"batch": {}}, {}])
async def test_a_batch_holds_submits_and_aborts_only(worker, session_to, command):
    async with session_to(worker) as session:
        batch = engine_pb2.CommandBatch(commands=[engine_pb2.SessionRequest(**command)])
        await session.call.write(engine_pb2.SessionRequest(batch=batch))
        assert await session.call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "batch.commands" in await session.call.details()


async def test_a_batch_is_no_longer_than_was_said(worker, session_to):
    async with session_to(worker) as session:
        commands = [engine_pb2.SessionRequest(abort=engine_pb2.AbortSequence(id=id)) for id in range(257)]
        await session.call.write(engine_pb2.SessionRequest(batch=engine_pb2.CommandBatch(commands=commands[1:])))
        await session.report(lambda report: True)
        await session.call.write(engine_pb2.SessionRequest(batch=engine_pb2.CommandBatch(commands=commands)))
        assert await session.call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "batch.commands: at most 256 at once, got 257" in await session.call.details()


@pytest.mark.parametrize(
    ("change", "code", "names"),
    [
        ({"token_ids": []}, grpc.StatusCode.INVALID_ARGUMENT, "token_ids"),
        ({"token_ids": [4, 10**6]}, grpc.StatusCode.INVALID_ARGUMENT, "1000000"),
        ({"max_new_tokens": 0}, grpc.StatusCode.INVALID_ARGUMENT, "max_new_tokens"),
        ({"max_new_tokens": 312}, grpc.StatusCode.INVALID_ARGUMENT, "320"),
        ({"token_ids": [4] * 320}, grpc.StatusCode.INVALID_ARGUMENT, "320"),
        ({"delivered": 9}, grpc.StatusCode.INVALID_ARGUMENT, "token_ids"),
        ({"cache_root": b"short"}, grpc.StatusCode.INVALID_ARGUMENT, "cache_root"),
        ({"sampling": SamplingParams(temperature=float("nan"))}, grpc.StatusCode.INVALID_ARGUMENT, "temperature"),
        ({"sampling": SamplingParams(top_p=0.0)}, grpc.StatusCode.INVALID_ARGUMENT, "top_p"),
        *(
            ({name: value}, grpc.StatusCode.INVALID_ARGUMENT, name)
            for name, value in [
                ("stop_token_ids", [10**6]),
                ("eos_token_ids", [10**6]),
                ("sequence", 64),
                ("min_new_tokens", 6),
                ("logit_bias", {5: float("nan")}),
                ("logit_bias", {5: float("-inf")}),
                ("logit_bias", {5: 100.5}),
                ("logit_bias", {10**6: 1.0}),
                ("allowed_token_ids", [4, 10**6]),
                ("bad_words", [engine_pb2.TokenSequence()]),
                ("bad_words", [engine_pb2.TokenSequence(ids=[4, 10**6])]),
                ("logprobs", 21),
                ("prompt_logprobs", 21),
                ("priority", -1001),
                ("time_left", Duration(seconds=-1)),
            ]
        ),
        ({"prompt_logprobs": 0, "delivered": 2}, grpc.StatusCode.INVALID_ARGUMENT, "prompt_logprobs"),
    ],
)
async def test_refuses_what_it_cannot_hold(worker, session_to, change, code, names):
    async with session_to(worker) as session:
        stream = await session.generate(**{"token_ids": prompt(12)[:9], "max_new_tokens": 5, **change})
        assert stream.refusal.code == code.value[0] and names in stream.refusal.message
        assert stream.refusal.field
        assert (await session.generate(prompt(12), 3)).refusal is None


async def test_refuses_a_live_id_and_a_full_queue(worker_of, session_to):
    worker = worker_of("--pages", "200", "--max-sequences", "1", "--max-waiting", "2")
    async with session_to(worker) as session:
        first = await session.submit(prompt(13), 900)  # outlasts all others' submission
        await first.started.wait()
        same = await session.submit(prompt(13), 5, id=1)
        await session.report(lambda report: report.refusals)
        assert same.refusal.reason == "ALREADY_EXISTS"
        streams = [await session.submit(prompt(at), 5, id=at) for at in (20, 21, 22, 23)]
        await asyncio.gather(*(asyncio.wait_for(stream.done.wait(), 60) for stream in streams))
        codes = [stream.refusal and stream.refusal.code for stream in streams]
        assert codes == [None, None, *[grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]] * 2]


async def test_a_burst_that_fits_batch_and_queue_is_taken_whole(worker_of, session_to):
    """Requests that came since the last step are no queue yet, as far as rows are free for them."""
    worker = worker_of("--pages", "20", "--max-sequences", "1", "--max-waiting", "2")
    async with session_to(worker) as session:
        for _ in range(5):
            streams = [await session.submit(prompt(at, 20), 2) for at in (50, 51, 52)]
            await asyncio.gather(*(asyncio.wait_for(stream.done.wait(), 60) for stream in streams))
            assert [stream.refusal for stream in streams] == [None] * 3


async def test_stop_and_end_tokens(worker, session_to):
    async with session_to(worker) as session:
        free = await session.generate(prompt(14), 12)
        token = free.token_ids[5]
        at = free.token_ids.index(token) + 1
        stopped = await session.generate(prompt(14), 12, stop_token_ids=[token])
        ended = await session.generate(prompt(14), 12, eos_token_ids=[token], stop_token_ids=[token])
        assert stopped.token_ids == ended.token_ids == free.token_ids[:at]
        assert (stopped.last.finish_reason, stopped.last.stop_token_id) == (FINISH_REASON_STOP, token)
        assert (ended.last.finish_reason, ended.last.stop_token_id) == (FINISH_REASON_EOS, token)


async def test_load_counts_what_was_submitted(worker, session_to):
    async with session_to(worker) as session:
        streams = [await session.submit(prompt(at), 30) for at in (30, 31)]
        report = await session.report(lambda report: report.last_submit_id == 2)
        assert report.load.running + report.load.waiting >= 1
        await asyncio.gather(*(stream.done.wait() for stream in streams))


async def test_first_message_must_be_hello(worker):
    async with channel_to(worker.endpoint) as channel:
        session = EngineSession(channel, "")
        await session.open(reading=False)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await asyncio.wait_for(session.call.read(), 10)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_describe_assets_and_drain(worker, session_to):
    async with channel_to(worker.endpoint) as channel, session_to(worker) as session:
        stub = EngineServiceStub(channel)
        description = await stub.Describe(engine_pb2.DescribeRequest())
        assert description.max_context_tokens == 320 and description.page_size == 16
        assets = await stub.GetTextAssets(engine_pb2.GetTextAssetsRequest())
        assert assets.files["tokenizer.json"] and assets.revision == description.revision
        running = await session.submit(prompt(15), 60)
        await running.started.wait()
        await stub.Drain(engine_pb2.DrainRequest())
        refused = await session.generate(prompt(16), 5)
        assert refused.refusal.code == grpc.StatusCode.UNAVAILABLE.value[0]
        await asyncio.wait_for(running.done.wait(), 30)
        assert len(running.token_ids) == 60 and not (await session.idle()).accepting
        await stub.Drain(engine_pb2.DrainRequest(cancel=True))
        assert (await session.generate(prompt(16), 5)).refusal is None
