"""A leader whose model takes no time: the real EngineService over an engine that says a token a stream at every step.

python benchmarks/paced_engine.py [--step-ms 1]

Prints where it listens and which thread is its engine, and serves until SIGTERM. `benchmarks/path.py` starts it, to
measure what carries tokens without what makes them.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import threading
import time
from collections import defaultdict
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, cast

import numpy as np

from headway.core.sampling import SamplingParams
from headway.core.wire import sampling_to_proto
from headway.proto.headway.v1 import engine_pb2, sampling_pb2
from headway.worker.engine import Abort, Command, Decoded, Figures, Leave, Output, StepReport, Submit
from headway.worker.scheduler import Limits, Request
from headway.worker.service import AdapterRegistry, Hub, ServiceThread, Standing
from headway.worker.service.servicer import ServedEngine
from headway.worker.structured.compiler import GrammarCompiler
from headway.worker.structured.crew import Crew

DEMO = Path(__file__).parents[1] / "demo" / "headway-demo"
MODEL, VOCAB_SIZE, PAGES = "headway-demo", 4096, 65_536
LIMITS = Limits(
    page_size=16, total_pages=PAGES, max_context_tokens=8192, max_sequences=1024, token_budget=65_536,
    max_waiting=4096, vocab_size=VOCAB_SIZE,
)  # fmt: skip
MORE = sampling_pb2.FINISH_REASON_UNSPECIFIED
# Of the demo model's vocabulary, by position: ids of plain text.
TOKENS = [300 + (7 * position) % 3000 for position in range(LIMITS.max_context_tokens)]


class PacedEngine:
    """Takes what the service puts into `inbox`; every `step_s` publishes a token for each request that runs."""

    def __init__(self, service: ServiceThread, step_s: float) -> None:
        self.inbox: SimpleQueue[Command] = SimpleQueue()
        self._service = service
        self._step_s = step_s
        self._running: dict[tuple[int, int], tuple[Request, Any]] = {}
        self._submitted: dict[int, int] = {}
        self._steps = self._output_tokens = 0

    def figures(self) -> Figures:
        return Figures(
            running=len(self._running), total_pages=PAGES, prefill_rate=1e6, decode_step_ms=self._step_s * 1e3,
            accepting=True, output_tokens=self._output_tokens, steps=self._steps, page_size=LIMITS.page_size,
        )  # fmt: skip

    def run(self) -> None:
        due = time.perf_counter()
        while True:
            self._take_commands()
            if not self._running:
                self._service.publish(StepReport({}, {}, {}, self._submitted, [], self.figures()))
                self._handle(self.inbox.get())
                due = time.perf_counter()
            due = max(due + self._step_s, time.perf_counter())
            time.sleep(max(0.0, due - time.perf_counter()))
            self._step()

    def _step(self) -> None:
        self._steps += 1
        self._output_tokens += len(self._running)
        outputs: dict[int, list[Output]] = defaultdict(list)
        plain: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for (session, id), (request, positions) in list(self._running.items()):
            position = next(positions)
            last = position + 1 >= request.max_new_tokens
            if position and not last:
                plain[session].append((id, TOKENS[position]))
                continue
            finish = sampling_pb2.FINISH_REASON_LENGTH if last else MORE
            outputs[session].append(Output(id, [TOKENS[position]], finish, None, None if position else 0, 0))
            if last:
                del self._running[session, id]
        decoded = {session: Decoded(*np.array(rows, np.int64).T) for session, rows in plain.items()}
        submitted, self._submitted = self._submitted, {}
        self._service.publish(StepReport(outputs, decoded, {}, submitted, [], self.figures()))

    def _take_commands(self) -> None:
        try:
            while True:
                self._handle(self.inbox.get_nowait())
        except Empty:
            return

    def _handle(self, command: Command) -> None:
        match command:
            case Submit(request, _):
                self._submitted[request.session] = request.id
                self._running[request.session, request.id] = (request, itertools.count())
            case Abort(session, id):
                self._running.pop((session, id), None)
            case Leave(session):
                for key in [key for key in self._running if key[0] == session]:
                    del self._running[key]
            case _:
                raise SystemExit(f"the paced engine does not know {command!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step-ms", type=float, default=1.0)
    options = parser.parse_args()
    service = ServiceThread(Standing("paced-0", "paced"), "", lambda draining: None)
    port = service.start("127.0.0.1", 0)
    engine = PacedEngine(service, options.step_ms / 1e3)
    hub = Hub("paced", engine.inbox, lambda: 0.0, engine.figures())
    description = engine_pb2.DescribeResponse(
        replica_id="paced-0", model=MODEL, revision="paced", incarnation="paced", page_size=LIMITS.page_size,
        max_context_tokens=LIMITS.max_context_tokens, vocab_size=VOCAB_SIZE, eos_token_ids=[2],
        default_sampling=sampling_to_proto(SamplingParams()), max_sequences=LIMITS.max_sequences,
        max_waiting=LIMITS.max_waiting,
    )  # fmt: skip
    adapters = AdapterRegistry(MODEL, cast("Any", None), engine.inbox, lambda held: None)
    grammars = GrammarCompiler(DEMO, VOCAB_SIZE, (2,), Crew())
    service.ready(ServedEngine(hub, LIMITS, description, DEMO, adapters, grammars))
    thread = threading.Thread(target=engine.run, name="paced-engine", daemon=True)
    thread.start()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print(f"EngineService at 127.0.0.1:{port}, engine thread {thread.native_id}", flush=True)
    stop.wait()


if __name__ == "__main__":
    main()
