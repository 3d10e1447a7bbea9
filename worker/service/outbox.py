"""What one router has not been sent yet. Reports merge here while its stream is slow, so the engine never waits."""

from __future__ import annotations

import asyncio

import numpy as np

from ...core.errors import HeadwayError
from ...proto.headway.v1 import engine_pb2
from ...proto.headway.v1.sampling_pb2 import FINISH_REASON_UNSPECIFIED
from ..engine import Decoded, Output, Refused
from ..pages import KvChange
from .changes import count_keys, net
from .columns import Columns
from .messages import event_messages, refusal_message, stamp, write_decoded, write_output

COMPACT_KEYS = 4_096
MESSAGE_BYTES = 32 << 20  # of tokens and outputs in one message, unless one output has more: transports take 64 MiB
ROW_BYTES = 16  # of a decoded token and its request's id, at most


class Outbox:
    """Holds at most: the tokens of the router's live requests, and the net change of the cache. Outputs that are too
    much for one message (log probabilities can be) wait for the next report.

    A message's decoded tokens come before its outputs. So tokens stay columns unless their request has an output here:
    then they follow in that one. No output is sent before all columns are.

    `adapters` go with the next message, when they have changed. Without `takes_decoded` all tokens go as outputs.
    """

    def __init__(self, *, takes_decoded: bool = True) -> None:
        self._takes_decoded = takes_decoded
        self.adapters: engine_pb2.AdapterSet | None = None
        self._first = 0
        self._last = 0
        self._columns = Columns()
        self._outputs: dict[int, Output] = {}
        self._refusals: list[Refused] = []
        self._changes: list[KvChange] = []
        self._keys = 0
        self._compact_at = COMPACT_KEYS
        self._load = engine_pb2.Load()
        self._last_submit = 0
        self._error: HeadwayError | None = None
        self._closed = False
        self._ready = asyncio.Event()

    def add(
        self,
        sequence: int,
        outputs: list[Output],
        decoded: Decoded | None,
        refusals: list[Refused],
        changes: list[KvChange],
        load: engine_pb2.Load,
        last_submit: int,
    ) -> None:
        """Takes this router's part of report `sequence`."""
        self._first = self._first or sequence
        self._last = sequence
        if decoded is not None:
            self._add_decoded(decoded)
        for output in outputs:
            self._add_output(output)
        self._refusals += refusals
        self._add_changes(changes)
        self._load = load
        self._last_submit = last_submit
        self._ready.set()

    def close(self, error: HeadwayError | None = None) -> None:
        """Ends the stream after what is held, with `error` if there is one."""
        self._closed = True
        self._error = self._error or error
        self._ready.set()

    @property
    def unread(self) -> int:
        """Requests of which the router has not been sent all news."""
        requests = len(self._outputs.keys() | self._columns.ids) if self._columns else len(self._outputs)
        return requests + len(self._refusals)

    async def take(self) -> engine_pb2.SessionResponse | None:
        """All that is held, as one message; waits for something. None, or the error, once closed and empty."""
        await self._ready.wait()
        if not self._first and not self._outputs and not self._columns:
            if self._error is not None:
                raise self._error
            return None
        if not self._first:  # closed, and nobody else takes the next number
            self._first = self._last = self._last + 1
        decoded = self._columns.take(MESSAGE_BYTES // ROW_BYTES) if self._columns else None
        outputs = self._take_outputs(0 if decoded is None else ROW_BYTES * len(decoded.ids))
        refusals = self._take_refusals()
        message = engine_pb2.SessionResponse(
            first_sequence=self._first,
            sequence=self._last,
            refusals=[refusal_message(refused) for refused in refusals],
            kv_events=event_messages(self._changes),
            load=self._load,
            last_submit_id=self._last_submit,
            adapters=self.adapters,
        )
        stamp(message)
        if decoded is not None:
            write_decoded(decoded, message)
        for output in outputs:
            write_output(output, message.outputs.add())
        self._first = self._keys = 0
        self.adapters = None
        self._changes = []
        if not self._closed:
            self._ready.clear()
        return message

    def _add_output(self, output: Output) -> None:
        before = self._outputs.get(output.id)
        self._outputs[output.id] = output if before is None else _merge(before, output)

    def _add_decoded(self, decoded: Decoded) -> None:
        """Most find no output here, and stay as they are."""
        if self._outputs or not self._takes_decoded:
            decoded = self._merge_decoded(decoded)
        if len(decoded.ids):
            self._columns.add(decoded)

    def _merge_decoded(self, decoded: Decoded) -> Decoded:
        """Puts tokens behind the outputs that their requests have here; returns the others."""
        ids = decoded.ids.tolist()
        behind = [at for at, id in enumerate(ids) if id in self._outputs or not self._takes_decoded]
        for at in behind:
            token = int(decoded.tokens[at])
            self._add_output(Output(ids[at], [token], FINISH_REASON_UNSPECIFIED, None, None, 0))
        return Decoded(np.delete(decoded.ids, behind), np.delete(decoded.tokens, behind)) if behind else decoded

    def _take_refusals(self) -> list[Refused]:
        """Those of requests that nothing else is held of."""
        if not self._refusals:
            return []
        held = self._outputs.keys() | self._columns.ids
        refusals = [refused for refused in self._refusals if refused.id not in held]
        self._refusals = [refused for refused in self._refusals if refused.id in held]
        return refusals

    def _take_outputs(self, size: int) -> list[Output]:
        """The oldest of them, one at least if there is one, as many as go into a message that has `size` bytes. None
        before all columns are sent."""
        taken: list[Output] = []
        if self._columns:
            return taken
        for output in list(self._outputs.values()):
            size += _size(output)
            if taken and size > MESSAGE_BYTES:
                break
            taken.append(self._outputs.pop(output.id))
        return taken

    def _add_changes(self, changes: list[KvChange]) -> None:
        if not changes:
            return
        self._changes = self._changes + changes
        self._keys += count_keys(changes)
        if self._keys > self._compact_at:
            self._changes = net(self._changes)
            self._keys = count_keys(self._changes)
            self._compact_at = max(COMPACT_KEYS, 2 * self._keys)


def _size(output: Output) -> int:
    """Bytes of the message, about."""
    if output.logprobs is None and output.prompt_logprobs is None:
        return 64 + 5 * len(output.token_ids) + len(output.embedding)
    places = [part for part in (output.logprobs, output.prompt_logprobs) if part is not None]
    return 64 + 5 * len(output.token_ids) + len(output.embedding) + sum(9 * len(part.ids) // 4 for part in places)


def _merge(before: Output, after: Output) -> Output:
    return Output(
        before.id,
        before.token_ids + after.token_ids,
        after.finish,
        after.stop_token_id,
        before.cached_tokens if before.cached_tokens is not None else after.cached_tokens,
        after.preemptions,
        after.embedding,
        before.logprobs + after.logprobs if before.logprobs and after.logprobs else before.logprobs or after.logprobs,
        before.prompt_logprobs or after.prompt_logprobs,
    )
