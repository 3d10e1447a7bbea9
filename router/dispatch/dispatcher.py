"""A request's way over replicas: placed, streamed, and placed again with what it has when its replica dies.

The sampler draws by (seed, position), so a continuation elsewhere brings the tokens that would have come: the client
sees a pause, not an error. What has arrived here is the only truth about what was delivered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator

from ...core.errors import AlreadyExists, DeadlineExceeded, Overloaded, Unavailable
from ...proto.headway.v1 import engine_pb2, sampling_pb2
from ..index import PrefixIndex
from ..policy import Policy
from ..replicas import Fleet, FleetCatalogue
from ..types import EngineRequest, TokenChunk
from .live import LiveRequest
from .meter import DispatchMeter, SilentMeter
from .placement import Placement
from .refusals import TRANSIENT, error_of

log = logging.getLogger(__name__)

# A request that was running waits this long for a replica to go on with; a group's restart takes a few seconds.
FAILOVER_PATIENCE_S = 30.0
# So many replicas are asked before a refusal is the caller's answer.
MOST_REFUSALS = 3
# A request that loses so many replicas without a token in between is likely what kills them.
MOST_LOSSES = 3
RETRY_S = 0.25


class FleetDispatcher:
    """Implements `router.types.Dispatcher` over the fleet's sessions."""

    def __init__(
        self,
        fleet: Fleet,
        catalogue: FleetCatalogue,
        index: PrefixIndex,
        policy: Policy,
        *,
        meter: DispatchMeter | None = None,
        failover_patience_s: float = FAILOVER_PATIENCE_S,
    ) -> None:
        self._fleet = fleet
        self._meter = meter or SilentMeter()
        self._placement = Placement(fleet, catalogue, index, policy, self._meter)
        self._patience_s = failover_patience_s
        self._live: dict[str, dict[int, LiveRequest]] = {}  # by request id and sequence

    @property
    def live_requests(self) -> int:
        """Sequences that run, over all requests."""
        return sum(map(len, self._live.values()))

    def abort(self, request_id: str) -> bool:
        """Ends all live sequences of a request with FINISH_REASON_ABORTED; False when there is none."""
        running = [live for live in self._live.get(request_id, {}).values() if not live.finished]
        for live in running:
            live.finish(sampling_pb2.FINISH_REASON_ABORTED)
            self._placement.withdraw(live)
        return bool(running)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[TokenChunk]:
        """Tokens of the request as they come (see `router.types.Dispatcher`)."""
        live = self._enter(request)
        try:
            self._placement.place(live, beside=self._replica_of(request))
            while True:
                await live.news()
                chunk = live.take()
                if chunk is not None:
                    self._placement.settle(live)
                    yield chunk
                    if chunk.finish_reason:
                        return
                elif live.expired:
                    raise DeadlineExceeded(f"the deadline passed after {len(live.received)} tokens")
                elif live.refusal is not None:
                    await self._after_refusal(live, live.refusal)
                else:
                    await self._after_loss(live)
        finally:
            self._leave(live)
            self._placement.withdraw(live)

    def _enter(self, request: EngineRequest) -> LiveRequest:
        """Makes the sequence a live one."""
        if request.sequence in self._live.get(request.request_id, {}):
            raise AlreadyExists(f"request {request.request_id!r} is running", field="request_id")
        live = LiveRequest(request)
        self._live.setdefault(request.request_id, {})[request.sequence] = live
        return live

    def _leave(self, live: LiveRequest) -> None:
        running = self._live[live.request.request_id]
        del running[live.request.sequence]
        if not running:
            del self._live[live.request.request_id]

    def _replica_of(self, request: EngineRequest) -> str:
        """The replica that has the prompt because another sequence of the request runs there; empty for none."""
        if request.pooling:  # its sequences are inputs of their own
            return ""
        running = self._live[request.request_id].values()
        return next((live.replica_id for live in running if live.replica_id), "")

    async def _after_refusal(self, live: LiveRequest, refusal: engine_pb2.Refusal) -> None:
        """A full or closing replica sends the request to another one; any other verdict is the caller's answer."""
        error = error_of(refusal)
        self._placement.settle(live)
        self._meter.refused(live.replica_id, error.reason)
        if refusal.code not in TRANSIENT:
            raise error
        if live.migrations:
            await self._place_patiently(live, first_wait_s=RETRY_S)
            return
        live.refused_by.add(live.replica_id)
        if len(live.refused_by) >= MOST_REFUSALS:
            raise error
        try:
            self._placement.place(live)
        except (Unavailable, Overloaded):
            raise error from None

    async def _after_loss(self, live: LiveRequest) -> None:
        """The replica died: the request goes on from what has arrived."""
        live.losses_in_row += 1
        if live.losses_in_row >= MOST_LOSSES:
            log.error("request %s lost %d replicas in a row", live.request.request_id, live.losses_in_row)
            raise Unavailable(f"{live.losses_in_row} replicas in a row were lost under the request")
        live.migrations += 1
        live.refused_by.clear()
        live.patience_ends = time.monotonic() + self._patience_s
        self._meter.migrated(live.request.model)
        if live.received and len(live.received) >= live.request.max_new_tokens:
            live.finish(sampling_pb2.FINISH_REASON_LENGTH)
        else:
            await self._place_patiently(live)

    async def _place_patiently(self, live: LiveRequest, first_wait_s: float = 0.0) -> None:
        """Places a request that was running, when there is a replica for it again."""
        wait_s = first_wait_s
        while not live.finished:
            remaining_s = live.patience_ends - time.monotonic()
            if remaining_s <= 0:
                raise Unavailable(
                    f"the replica was lost and no other could go on within {self._patience_s:g} s", retry_after_s=5.0
                )
            if wait_s:
                await self._fleet.changed.wait(min(wait_s, remaining_s))
            try:
                self._placement.place(live)
                return
            except (Unavailable, Overloaded):
                wait_s = RETRY_S
