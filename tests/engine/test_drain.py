"""A worker that is told to stop finishes what it has taken."""

import asyncio
import signal

from engine_client import EngineSession, channel_to
from worker_process import WorkerProcess

from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_LENGTH


def prompt(seed: int) -> list[int]:
    """As many tokens as a step takes, so that a step lasts."""
    return [(seed * 7919 + 7 * at) % 3000 + 300 for at in range(1900)]


async def test_a_request_in_its_first_step_is_not_forgotten(monkeypatch):
    """No report has counted it yet when the engine learns that it is to stop: both came during the step before."""
    monkeypatch.setenv("HEADWAY_NATIVE_KERNELS", "0")  # a step that takes long enough for both on any machine
    worker = WorkerProcess("--token-budget", "1900", "--max-sequences", "1")
    try:
        worker.wait_ready()
        async with channel_to(worker.endpoint) as channel:
            session = await EngineSession(channel, "router").open()
            await session.report(lambda report: True)
            first = await session.submit(prompt(1), 1)
            await asyncio.sleep(0.1)
            second = await session.submit(prompt(2), 3)
            await asyncio.sleep(0.1)
            worker.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(second.done.wait(), 60)
            assert first.last.finish_reason == FINISH_REASON_LENGTH and second.refusal is None
            assert (second.last.finish_reason, len(second.token_ids)) == (FINISH_REASON_LENGTH, 3)
            await session.close()
        assert await asyncio.to_thread(worker.process.wait, 30) == 0
    finally:
        worker.close()
