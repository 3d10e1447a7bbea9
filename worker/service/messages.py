"""The engine's plain values as messages."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np

from ...core.blocks import join_keys
from ...proto.headway.v1 import engine_pb2
from ..engine import Decoded, Figures, Output, Refused
from ..pages import KvChange, KvOp, Medium
from ..plan import PlaceLogprobs

MEDIA = {
    Medium.DEVICE: engine_pb2.MEDIUM_DEVICE,
    Medium.HOST: engine_pb2.MEDIUM_HOST,
    Medium.DISK: engine_pb2.MEDIUM_DISK,
}


def load_message(figures: Figures, silence_s: float) -> engine_pb2.Load:
    tiers = figures.tiers
    return engine_pb2.Load(
        running=figures.running,
        waiting=figures.waiting,
        waiting_uncached_tokens=figures.uncached_tokens,
        used_pages=figures.used_pages,
        cached_pages=figures.cached_pages,
        total_pages=figures.total_pages,
        engine_silence_ms=int(silence_s * 1000),
        prefill_rate=figures.prefill_rate,
        decode_step_ms=figures.decode_step_ms,
        accepting=figures.accepting,
        host_used_pages=tiers.host_used,
        host_total_pages=tiers.host_total,
        disk_used_pages=tiers.disk_used,
        disk_total_pages=tiers.disk_total,
        totals=engine_pb2.LoadTotals(
            requests=figures.requests,
            prompt_tokens=figures.prompt_tokens,
            cached_tokens=figures.cached_tokens,
            output_tokens=figures.output_tokens,
            steps=figures.steps,
            preemptions=figures.preemptions,
            aborts=figures.aborts,
            step_seconds=figures.step_seconds,
            model_seconds=figures.model_seconds,
            host_cached_tokens=tiers.host_hits * figures.page_size,
            disk_cached_tokens=tiers.disk_hits * figures.page_size,
            spilled_pages=tiers.spilled,
            fetched_pages=tiers.fetched,
            disk_written_pages=tiers.written,
            disk_read_pages=tiers.read,
        ),
    )


def event_messages(changes: Iterable[KvChange]) -> list[engine_pb2.KvEvent]:
    return [_event(change) for change in changes]


def _event(change: KvChange) -> engine_pb2.KvEvent:
    if change.op is KvOp.CLEARED:
        return engine_pb2.KvEvent(cleared=engine_pb2.BlocksCleared())
    keys, medium = join_keys(change.keys), MEDIA[change.medium]
    if change.op is KvOp.STORED:
        return engine_pb2.KvEvent(stored=engine_pb2.BlocksStored(keys=keys, medium=medium))
    return engine_pb2.KvEvent(removed=engine_pb2.BlocksRemoved(keys=keys, medium=medium))


def write_decoded(decoded: Decoded, message: engine_pb2.SessionResponse) -> None:
    """Lists, as elements of arrays are slower to take over one by one."""
    message.decoded_ids.extend(decoded.ids.tolist())
    message.decoded_tokens.extend(decoded.tokens.tolist())


def write_output(output: Output, message: engine_pb2.StepOutput) -> None:
    """Into an empty message. Few fields are set in most."""
    message.id = output.id
    message.token_ids.extend(output.token_ids)
    if output.cached_tokens is not None:
        message.cached_tokens = output.cached_tokens
    if output.finish:
        message.finish_reason = output.finish
        message.preemptions = output.preemptions
        message.embedding = output.embedding
        if output.stop_token_id is not None:
            message.stop_token_id = output.stop_token_id
    if output.logprobs is not None:
        message.logprobs.CopyFrom(_logprobs(output.logprobs))
    if output.prompt_logprobs is not None:
        message.prompt_logprobs.CopyFrom(_logprobs(output.prompt_logprobs))


def _logprobs(places: PlaceLogprobs) -> engine_pb2.Logprobs:
    return engine_pb2.Logprobs(
        width=places.width, token_ids=np.frombuffer(places.ids, "<u4"), values=np.frombuffer(places.values, "<f4")
    )


def refusal_message(refused: Refused) -> engine_pb2.Refusal:
    error = refused.error
    return engine_pb2.Refusal(
        id=refused.id, code=error.code.value[0], reason=error.reason, message=error.message, field=error.field
    )


def stamp(message: engine_pb2.SessionResponse) -> None:
    """Sets its time to now."""
    message.time.seconds, message.time.nanos = divmod(time.time_ns(), 1_000_000_000)
