"""What Drain answers counts every request that was handed to the engine, also before its first step is done."""

from __future__ import annotations

from array import array
from queue import SimpleQueue

from headway.core.blocks import root_key
from headway.core.sampling import SamplingParams
from headway.proto.headway.v1 import engine_pb2
from headway.worker.engine import Command, Figures, StepReport, Submit
from headway.worker.scheduler import Request
from headway.worker.service.hub import Hub


def request(session: int, id: int) -> Submit:
    tokens, sampling, root = array("I", [5, 6]), SamplingParams(), root_key("tests")
    return Submit(
        Request(
            session=session, id=id, tokens=tokens, prompt_tokens=2, max_new_tokens=1, sampling=sampling, root=root,
            page_size=16,
        )
    )  # fmt: skip


def test_requests_count_before_and_after_the_report_that_counts_them() -> None:
    inbox: SimpleQueue[Command] = SimpleQueue()
    hub = Hub("boot", inbox, lambda: 0.0, Figures(accepting=True))
    first, _ = hub.join(engine_pb2.Hello(router_id="a"))
    second, _ = hub.join(engine_pb2.Hello(router_id="b"))
    assert hub.unfinished == 0
    for session, id in ((first, 4), (second, 2), (first, 6)):
        hub.submit(session, request(session.number, id))
    assert hub.unfinished == inbox.qsize() == 3
    hub.heartbeat()
    assert hub.unfinished == 3, "a report without news counts nobody"
    hub.publish(StepReport({}, {}, {}, {first.number: 4, second.number: 2}, [], Figures(running=1, waiting=1)))
    assert hub.unfinished == 3, "two by the figures, and one that came during the step"
    hub.publish(StepReport({}, {}, {}, {first.number: 6}, [], Figures(running=1)))
    assert hub.unfinished == 1
    hub.submit(second, request(second.number, 3))
    hub.leave(second)
    hub.publish(StepReport({}, {}, {}, {}, [], Figures()))
    assert hub.unfinished == 0 and hub.drained
