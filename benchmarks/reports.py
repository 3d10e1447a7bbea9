"""A step's report from the leader's outbox to the router's requests, as outputs and as columns, without a transport.

python -m benchmarks.reports [--requests 16 64] [--reports 1000] [--rounds 9]

Each request has one new token. The leader's part is the outbox and the message's bytes, the router's is reading them
and handing out the tokens. Processor time a report; both forms take turns, the fastest round counts.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import NamedTuple

import numpy as np

from headway.core.sampling import SamplingParams
from headway.proto.headway.v1 import engine_pb2
from headway.proto.headway.v1.sampling_pb2 import FINISH_REASON_UNSPECIFIED
from headway.router.dispatch.live import LiveRequest
from headway.router.index import PrefixIndex
from headway.router.policy import Ledger
from headway.router.replicas.intake import Intake
from headway.router.replicas.replica import Replica, describe
from headway.router.types import EngineRequest
from headway.worker.engine import Decoded, Output
from headway.worker.service.outbox import Outbox

INCARNATION = "i"
FIRST_ID = 100_000
LOAD = engine_pb2.Load()


class Spent(NamedTuple):
    """Processor microseconds a report."""

    leader: float
    router: float


def outputs_of(requests: int) -> list[Output]:
    return [Output(FIRST_ID + at, [300 + at], FINISH_REASON_UNSPECIFIED, None, None, 0) for at in range(requests)]


def columns_of(requests: int) -> Decoded:
    return Decoded(np.arange(FIRST_ID, FIRST_ID + requests), np.arange(300, 300 + requests))


async def write(outputs: list[Output], decoded: Decoded | None, reports: int) -> list[bytes]:
    """As a leader does for a router that keeps up."""
    box, messages = Outbox(), []
    for number in range(1, reports + 1):
        box.add(number, outputs, decoded, [], [], LOAD, 0)
        message = await box.take()
        assert message is not None
        message.incarnation = INCARNATION
        messages.append(message.SerializeToString())
    return messages


def new_intake(requests: int) -> tuple[Intake, list[LiveRequest]]:
    """A router's, in step with the leader, and its requests."""
    replica = Replica("r0", "")
    replica.description = describe(engine_pb2.DescribeResponse(incarnation=INCARNATION), {})
    intake = Intake(replica, PrefixIndex(), Ledger(), lambda: None)
    intake.take(engine_pb2.SessionResponse(incarnation=INCARNATION, snapshot=True))
    asked = EngineRequest(
        request_id="q", model="m", token_ids=[1], sampling=SamplingParams(), max_new_tokens=1 << 20, eos_token_ids=()
    )
    live = [LiveRequest(asked) for _ in range(requests)]
    intake.sinks.update(enumerate(live, start=FIRST_ID))
    return intake, live


async def measure(outputs: list[Output], decoded: Decoded | None, requests: int, reports: int) -> Spent:
    begun = time.process_time()
    messages = await write(outputs, decoded, reports)
    written = time.process_time()
    intake, live = new_intake(requests)
    reading = time.process_time()
    for message in messages:
        intake.take(engine_pb2.SessionResponse.FromString(message))
    read = time.process_time()
    assert all(len(one.received) == reports for one in live)
    return Spent((written - begun) / reports * 1e6, (read - reading) / reports * 1e6)


async def compare(requests: int, reports: int, rounds: int) -> None:
    """Prints the rows of so many requests."""
    forms: dict[str, tuple[list[Output], Decoded | None]] = {
        "outputs": (outputs_of(requests), None),
        "columns": ([], columns_of(requests)),
    }
    found: dict[str, list[Spent]] = {form: [] for form in forms}
    for _ in range(rounds):
        for form, (outputs, decoded) in forms.items():
            found[form].append(await measure(outputs, decoded, requests, reports))
    for form, spent in found.items():
        leader, router = (min(part) for part in zip(*spent, strict=True))
        print(f"| {requests} | {form} | {leader:.1f} | {router:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", nargs="+", type=int, default=[16, 32, 64])
    parser.add_argument("--reports", type=int, default=1000, help="in a round")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print("| requests | form | leader us a report | router us a report |\n|---|---|---|---|")
    for requests in options.requests:
        asyncio.run(compare(requests, options.reports, options.rounds))


if __name__ == "__main__":
    main()
