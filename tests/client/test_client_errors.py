"""Errors keep their class, field and delay over the wire; retries happen only where nothing can be done twice."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest

from headway.client import AsyncHeadway, DeadlineExceeded, Headway, NotFound, Retry, Unavailable
from headway.client.errors import BY_REASON
from headway.core import errors
from headway.core.errors import HeadwayError
from headway.tests.client.support.scripted_inference import ScriptedInference, ServerThread, fail_after, refuse

ONCE = Retry(attempts=1)


def leaves(kind: type[HeadwayError] = HeadwayError) -> list[type[HeadwayError]]:
    return [found for sub in kind.__subclasses__() for found in (sub, *leaves(sub))]


@pytest.mark.parametrize("kind", leaves(), ids=lambda kind: kind.__name__)
async def test_every_error_of_the_tree_arrives_as_itself(
    server: ServerThread, servicer: ScriptedInference, kind: type[HeadwayError]
) -> None:
    raised = kind("mend this", field="sampling.top_p", retry_after_s=0.25)
    servicer.script = [refuse(raised), refuse(raised)]
    async with AsyncHeadway(server.address, retry=ONCE) as client:
        with pytest.raises(HeadwayError) as caught:
            await client.generate("p")
    with Headway(server.address, retry=ONCE) as sync_client, pytest.raises(HeadwayError) as sync_caught:
        await asyncio.to_thread(sync_client.generate, "p")
    for error in (caught.value, sync_caught.value):
        assert type(error) is kind
        assert (error.message, error.field, error.retry_after_s) == ("mend this", "sampling.top_p", 0.25)


def test_reasons_are_unique() -> None:
    assert len(BY_REASON) == len({kind.reason for kind in leaves()}) == len(leaves())


async def test_a_bug_in_the_server_shows_no_more_than_its_id(server: ServerThread, servicer: ScriptedInference) -> None:
    async def buggy(*_: object) -> object:
        raise KeyError("secret")
        yield

    servicer.script = [buggy]  # type: ignore[list-item]
    async with AsyncHeadway(server.address) as client:
        with pytest.raises(errors.Internal, match=r"internal error [0-9a-f]{12}") as caught:
            await client.generate("p")
    assert "secret" not in str(caught.value)


def test_unavailable_before_the_first_token_is_retried(server: ServerThread, servicer: ScriptedInference) -> None:
    servicer.script = [refuse(Unavailable("starting")), refuse(Unavailable("starting", retry_after_s=0.05))]
    with Headway(server.address) as client:
        assert client.generate("p", max_new_tokens=1).text == "w0 "
    assert len(servicer.requests) == 3


async def test_the_async_client_retries_alike(server: ServerThread, servicer: ScriptedInference) -> None:
    servicer.script = [refuse(Unavailable("starting")), refuse(Unavailable("starting", retry_after_s=0.05))]
    servicer.unary_errors = [Unavailable("starting"), Unavailable("starting")]
    async with AsyncHeadway(server.address) as client:
        assert (await client.generate("p", max_new_tokens=1)).text == "w0 "
        assert await client.detokenize([104]) == "h"
    assert len(servicer.requests) == 3


def test_retries_end_and_the_last_error_is_raised(server: ServerThread, servicer: ScriptedInference) -> None:
    servicer.script = [refuse(Unavailable(f"no {attempt}", retry_after_s=0.01)) for attempt in range(5)]
    servicer.unary_errors = [Unavailable(f"no {attempt}", retry_after_s=0.01) for attempt in range(5)]
    with Headway(server.address, retry=Retry(attempts=4)) as client:
        with pytest.raises(Unavailable, match="no 3"):
            client.generate("p")
        with pytest.raises(Unavailable, match="no 3"):
            client.models()


@pytest.mark.parametrize("messages", [1, 2])
async def test_after_the_first_message_nothing_is_retried(
    server: ServerThread, servicer: ScriptedInference, messages: int
) -> None:
    servicer.script = [fail_after(messages, Unavailable("gone")), fail_after(messages, Unavailable("gone"))]
    with Headway(server.address) as client, pytest.raises(Unavailable, match="gone"):
        await asyncio.to_thread(client.generate, "p")
    async with AsyncHeadway(server.address) as async_client:
        with pytest.raises(Unavailable, match="gone"):
            await async_client.generate("p")
    assert len(servicer.requests) == 2


@pytest.mark.parametrize("error", [errors.Overloaded("full", retry_after_s=0.01), errors.Internal("ours")])
def test_other_errors_are_not_retried(server: ServerThread, servicer: ScriptedInference, error: HeadwayError) -> None:
    servicer.script = [refuse(error)]
    with Headway(server.address) as client, pytest.raises(type(error)):
        client.generate("p")
    assert len(servicer.requests) == 1


def test_a_delay_too_long_to_wait_is_raised_at_once(server: ServerThread, servicer: ScriptedInference) -> None:
    servicer.script = [refuse(Unavailable("later", retry_after_s=3600)), refuse(Unavailable("later", retry_after_s=4))]
    with Headway(server.address) as client:
        with pytest.raises(Unavailable) as caught:
            client.generate("p")
        assert caught.value.retry_after_s == 3600
        with pytest.raises(Unavailable):
            client.generate("p", timeout=3)
    assert len(servicer.requests) == 2


def test_the_deadline_travels_and_ends_the_call(server: ServerThread, servicer: ScriptedInference) -> None:
    servicer.script = [servicer.hang]
    with Headway(server.address) as client, pytest.raises(DeadlineExceeded):
        client.generate("p", timeout=0.5)
    # gRPC rounds a deadline up when it sends it.
    assert servicer.seconds_left[0] is not None and servicer.seconds_left[0] < 0.6
    assert servicer.cancelled.wait(10)
    with Headway(server.address, timeout=math.inf) as client:
        client.generate("p")
    assert servicer.seconds_left[1] is None or servicer.seconds_left[1] > 1e9


async def test_one_deadline_covers_all_attempts(server: ServerThread, servicer: ScriptedInference) -> None:
    servicer.script = [refuse(Unavailable("wait", retry_after_s=0.4))]
    async with AsyncHeadway(server.address, timeout=5) as client:
        await client.generate("p")
    first, second = servicer.seconds_left
    # A deadline of its own would leave the second attempt as much as the first; gRPC rounds what it sends.
    assert first is not None and second is not None and second < first - 0.2


def test_a_server_that_comes_back_is_found_by_the_retries(server: ServerThread) -> None:
    with Headway(server.address, retry=Retry(attempts=40, max_delay_s=0.5)) as client:
        client.generate("p")
        server.stop()
        restart = threading.Timer(0.5, server.start)
        restart.start()
        assert client.generate("p", max_new_tokens=1).text == "w0 "
        restart.join()


async def test_nobody_there_says_where(server: ServerThread) -> None:
    address = "127.0.0.1:1"
    with Headway(address, retry=ONCE) as client, pytest.raises(Unavailable, match=f"no answer from {address}"):
        client.models()
    async with AsyncHeadway(address, retry=ONCE) as async_client:
        with pytest.raises(Unavailable, match=f"no answer from {address}"):
            await async_client.generate("p")


async def test_unknown_models_are_not_found(server: ServerThread) -> None:
    async with AsyncHeadway(server.address) as client:
        with pytest.raises(NotFound) as caught:
            await client.generate("p", model="other")
        assert caught.value.field == "model"
        with pytest.raises(NotFound):
            await client.model("other")
