"""One live request: what came of it so far, and what waits for its front."""

from __future__ import annotations

import asyncio

import grpc

from ...proto.headway.v1 import engine_pb2, sampling_pb2
from ..types import EngineRequest, PlaceLogprobs, TokenChunk
from .logprobs import places_of

# A replica that ends a request so shortly before its deadline by our clock did so because of that deadline.
DEADLINE_SLACK_S = 0.25


class LiveRequest:
    """Receives from one session at a time; a front takes from it at its own pace.

    All tokens that arrived are in `received`, in order and once; the first `taken` of them went to the front. A slow
    front finds the tokens of several steps in one chunk. There is one waiter at most.
    """

    __slots__ = (
        "_scored",
        "_waiter",
        "cached_tokens",
        "embedding",
        "expired",
        "finish_reason",
        "logprobs",
        "loss",
        "losses_in_row",
        "migrations",
        "patience_ends",
        "preemptions",
        "prompt_logprobs",
        "received",
        "refusal",
        "refused_by",
        "replica_id",
        "request",
        "revision",
        "stop_token_id",
        "submit_id",
        "taken",
    )

    def __init__(self, request: EngineRequest) -> None:
        self.request = request
        self.received: list[int] = []
        self.logprobs: list[PlaceLogprobs] = []  # of `received`, when asked for
        self.prompt_logprobs: list[PlaceLogprobs] = []
        self.taken = 0
        self.replica_id = ""
        self.revision = ""
        self.submit_id = 0
        self.cached_tokens: int | None = None
        self.finish_reason: sampling_pb2.FinishReason = sampling_pb2.FINISH_REASON_UNSPECIFIED
        self.stop_token_id: int | None = None
        self.embedding = b""
        self.preemptions = 0
        self.migrations = 0
        self.refusal: engine_pb2.Refusal | None = None
        self.refused_by: set[str] = set()
        self.loss = ""
        self.expired = False
        self.losses_in_row = 0
        self.patience_ends = 0.0
        self._scored = request.logprobs is not None or request.prompt_logprobs is not None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def finished(self) -> bool:
        return bool(self.finish_reason)

    @property
    def known_tokens(self) -> list[int]:
        """Prompt and all output so far: what a continuation starts from."""
        return self.request.token_ids + self.received

    @property
    def bound_revision(self) -> str:
        """The model revision that must go on: another one would continue with other tokens. Any when empty, as before
        the first token of a request that names none."""
        return self.request.revision or (self.revision if self.received else "")

    def sent(self, replica_id: str, revision: str, submit_id: int) -> None:
        """It is on its way to this replica."""
        self.replica_id, self.revision, self.submit_id = replica_id, revision, submit_id
        self.refusal, self.loss = None, ""

    def token(self, token: int) -> None:
        """One new token (see replicas.intake.OutputSink), of nearly every request at every step."""
        if self.finish_reason:
            return
        if self._scored:
            self.output(engine_pb2.StepOutput(token_ids=[token]))
            return
        self.received.append(token)
        self.losses_in_row = 0
        self._wake()

    def output(self, output: engine_pb2.StepOutput) -> None:
        """News (see replicas.intake.OutputSink)."""
        if self.finish_reason:
            return
        token_ids, finish_reason = output.token_ids, output.finish_reason
        # A continuation's own figure would count what the first replica computed as a prompt found in a cache.
        if self.cached_tokens is None and not self.received and output.HasField("cached_tokens"):
            self.cached_tokens = output.cached_tokens
        if self._scored and not self._take_logprobs(output):
            return
        if token_ids:
            self.received.extend(token_ids)
            self.losses_in_row = 0
        if finish_reason == sampling_pb2.FINISH_REASON_ABORTED:
            # Not at our wish: what we abort is withdrawn first. Either its time is over, or the replica stops, of which
            # the caller is to notice nothing.
            self.expired = self._at_deadline()
            self.lost("the replica stopped before the request had ended")
            return
        if finish_reason:
            self.finish_reason = finish_reason
            self.embedding = output.embedding
            self.preemptions += output.preemptions
            if output.HasField("stop_token_id"):
                self.stop_token_id = output.stop_token_id
        self._wake()

    def _take_logprobs(self, output: engine_pb2.StepOutput) -> bool:
        """Keeps the output's log probabilities; False, and the request ends, when they are not those asked for."""
        if self.request.prompt_logprobs is not None and output.HasField("prompt_logprobs") and not self.received:
            self.prompt_logprobs = places_of(output.prompt_logprobs)
        if self.request.logprobs is None or not output.token_ids:
            return True
        places = places_of(output.logprobs)
        if len(places) != len(output.token_ids):
            what = f"the replica gave {len(places)} log probabilities for {len(output.token_ids)} tokens"
            internal = grpc.StatusCode.INTERNAL.value[0]
            self.refused(engine_pb2.Refusal(code=internal, reason="INTERNAL", message=what))
            return False
        self.logprobs.extend(places)
        return True

    def _at_deadline(self) -> bool:
        deadline = self.request.deadline
        return deadline is not None and asyncio.get_running_loop().time() >= deadline - DEADLINE_SLACK_S

    def refused(self, refusal: engine_pb2.Refusal) -> None:
        self.refusal = refusal
        self._wake()

    def lost(self, why: str) -> None:
        self.loss = why
        self._wake()

    def finish(self, reason: sampling_pb2.FinishReason) -> None:
        """Ends it now, with what has arrived; without effect when it has ended."""
        if not self.finish_reason:
            self.finish_reason = reason
            self._wake()

    async def news(self) -> None:
        """Waits until there is something to take or to decide."""
        if self.taken < len(self.received) or self.finish_reason or self.refusal is not None or self.loss:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def take(self) -> TokenChunk | None:
        """What arrived since the last time; None when nothing did and the request goes on."""
        tokens = self.received[self.taken :]
        if not tokens and not self.finish_reason:
            return None
        first = self.taken == 0
        logprobs = self.logprobs[self.taken : self.taken + len(tokens)] if self._scored else []
        self.taken += len(tokens)
        return TokenChunk(
            token_ids=tokens,
            replica_id=self.replica_id,
            cached_tokens=self.cached_tokens or 0,
            finish_reason=self.finish_reason,
            stop_token_id=self.stop_token_id,
            migrations=self.migrations,
            preemptions=self.preemptions,
            embedding=self.embedding,
            logprobs=logprobs,
            prompt_logprobs=self.prompt_logprobs if first else [],
        )

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
