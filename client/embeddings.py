"""Embeddings: the message that a caller's arguments make, and what the answer says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import msgspec

from ..core.errors import InvalidRequest
from ..proto.headway.v1 import inference_pb2 as pb
from ..proto.headway.v1 import pooling_pb2
from .errors import why
from .responses import read_usage
from .values import Usage

Inputs = str | Sequence[int] | Sequence[str | Sequence[int]]
POOLINGS = {"last": pooling_pb2.POOLING_LAST, "mean": pooling_pb2.POOLING_MEAN}
PATHS = {
    "model": "model",
    "request_id": "request_id",
    "normalize": "normalize",
    "dimensions": "dimensions",
    "cache_salt": "cache.salt",
    "cache_bypass": "cache.bypass",
}


class EmbedOptions(TypedDict, total=False):
    """Options of embed. One left out, or None, takes the server's default; bounds are the server's.

    `pooling` is "last" or "mean": the hidden state of an input's last token, or the mean over all of them.
    `dimensions` keeps so many of the first values; `normalize` (on unless False) then scales to length 1.
    """

    model: str | None
    request_id: str | None
    pooling: str | None
    normalize: bool | None
    dimensions: int | None
    cache_salt: str | None
    cache_bypass: bool | None


class Embeddings(msgspec.Struct, frozen=True):
    """One vector for each input, in order. Only vectors of one `model_revision` can be compared."""

    request_id: str
    model: str
    model_revision: str
    vectors: list[list[float]]
    usage: Usage

    def __len__(self) -> int:
        return len(self.vectors)


def embed_request(inputs: Inputs, options: EmbedOptions) -> pb.EmbedRequest:
    """The message: a text or a list of ids is one input, anything else a list of inputs.

    Raises TypeError for an option that does not exist, InvalidRequest for a value that the message cannot hold.
    """
    request = pb.EmbedRequest()
    alone = isinstance(inputs, str) or (len(inputs) > 0 and isinstance(inputs[0], int))
    several: Sequence[Any] = [inputs] if alone else inputs
    for index, one in enumerate(several):
        _add_input(request, index, one)
    for name, value in options.items():
        if value is not None:
            _set(request, name, value)
    return request


def _add_input(request: pb.EmbedRequest, index: int, value: str | Sequence[int]) -> None:
    prompt = request.inputs.add()
    try:
        if isinstance(value, str):
            prompt.text = value
        else:
            prompt.token_ids.ids.extend(value)
            prompt.token_ids.SetInParent()
    except (ValueError, TypeError) as error:
        field = f"inputs[{index}].{'text' if isinstance(value, str) else 'token_ids'}"
        raise InvalidRequest(f"{field}: {why(error)}", field=field) from None


def _set(request: pb.EmbedRequest, name: str, value: Any) -> None:
    if name == "pooling":
        if value not in POOLINGS:
            raise InvalidRequest(f"pooling must be one of {', '.join(POOLINGS)}; got {value!r}", field=name)
        request.pooling = POOLINGS[value]
        return
    if name not in PATHS:
        raise TypeError(f"unknown option {name!r}; there are {', '.join(sorted([*PATHS, 'pooling']))}")
    parent, _, leaf = PATHS[name].rpartition(".")
    try:
        setattr(getattr(request, parent) if parent else request, leaf, value)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"{name} {why(error)}", field=PATHS[name]) from None


def read_embeddings(message: pb.EmbedResponse) -> Embeddings:
    return Embeddings(
        request_id=message.request_id,
        model=message.model,
        model_revision=message.model_revision,
        vectors=[list(embedding.values) for embedding in message.embeddings],
        usage=read_usage(message.usage),
    )
