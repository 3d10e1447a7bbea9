"""From the flat log probabilities of an engine's message to one value for each place."""

from __future__ import annotations

from ...proto.headway.v1 import engine_pb2
from ..types import PlaceLogprobs


def places_of(message: engine_pb2.Logprobs) -> list[PlaceLogprobs]:
    """The places in order; none when the message is empty."""
    width = message.width
    if not width:
        return []
    entries = list(zip(message.token_ids, message.values, strict=True))
    return [PlaceLogprobs(tuple(entries[at : at + width])) for at in range(0, len(entries), width)]
