"""An embedding request as a caller may ask it, and what both fronts hold it to."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

import msgspec

from ...core.errors import ContextTooLong, InvalidRequest
from ...core.sampling import SamplingParams
from ...proto.headway.v1 import pooling_pb2
from ..types import EngineRequest, ServedModel
from . import limits
from .fields import check_cache_salt, check_request_id
from .request import FieldNames
from .resolve import check_token_ids

POOLINGS = {"last": pooling_pb2.POOLING_LAST, "mean": pooling_pb2.POOLING_MEAN}
NOTHING_SAMPLED = SamplingParams(temperature=0.0)


class UserEmbedding(msgspec.Struct, kw_only=True):
    """None means unset. `inputs` are texts and lists of token ids; None in it stands for an input without a form.

    `names` is as in UserRequest; `input_name` gives the path of an input by its number, as its caller knows it.
    `pooling` is one of POOLINGS by its name, or what the caller wrote instead.
    """

    names: FieldNames
    input_name: Callable[[int], str]
    request_id: str = ""
    model: str = ""
    inputs: Sequence[str | list[int] | None] = ()
    pooling: str = "last"
    normalize: bool = True
    dimensions: int | None = None
    cache_salt: str = ""
    cache_bypass: bool = False


def check_embedding(request: UserEmbedding) -> None:
    """Checks that need no model. Raises InvalidRequest naming the caller's field and its bound."""
    names, inputs = request.names, request.inputs
    check_request_id(request.request_id, names["request_id"])
    check_cache_salt(request.cache_salt, names["cache_salt"])
    field = names["inputs"]
    if not inputs:
        raise InvalidRequest(f"{field} is empty; at least one text or list of token ids", field=field)
    if len(inputs) > limits.MAX_EMBED_INPUTS:
        raise InvalidRequest(f"{field} has {len(inputs)} inputs; at most {limits.MAX_EMBED_INPUTS}", field=field)
    for index, one in enumerate(inputs):
        if not one:
            raise _empty(request, index)
    if request.pooling not in POOLINGS:
        field = names["pooling"]
        allowed = ", ".join(POOLINGS)
        raise InvalidRequest(f"{field} must be one of {allowed}; got {request.pooling[:40]!r}", field=field)


def check_dimensions(request: UserEmbedding, model: ServedModel) -> None:
    """Checks what the answer would be. Raises InvalidRequest."""
    names, size = request.names, model.embedding_size
    if not size:
        raise InvalidRequest(f"model {model.name!r} gives no embeddings", field=names["model"])
    dimensions = request.dimensions
    if dimensions is not None and not 1 <= dimensions <= size:
        field = names["dimensions"]
        raise InvalidRequest(
            f"{field} must be at least 1 and at most {size} (the model's embedding_size), got {dimensions}", field=field
        )
    values = len(request.inputs) * (dimensions or size)
    if values > limits.MAX_EMBED_VALUES:
        field = names["inputs"]
        raise InvalidRequest(
            f"{field} has {len(request.inputs)} inputs, whose embeddings have {values} values in all; at most "
            f"{limits.MAX_EMBED_VALUES}",
            field=field,
        )


def check_input(request: UserEmbedding, model: ServedModel, index: int, token_ids: list[int], before: int) -> None:
    """Checks the tokens of input number `index`, which come after `before` of the inputs ahead of it.

    Raises ContextTooLong for more than the model's context, InvalidRequest for the rest.
    """
    if not token_ids:
        raise _empty(request, index)
    if len(token_ids) > model.max_context_tokens:
        raise input_too_long(request, model, index, str(len(token_ids)))
    total = before + len(token_ids)
    if total > limits.MAX_EMBED_TOKENS:
        field = request.names["inputs"]
        raise InvalidRequest(
            f"{field} has {total} tokens in its first {index + 1} inputs; at most {limits.MAX_EMBED_TOKENS} in all",
            field=field,
        )
    check_token_ids(token_ids, model.vocab_size, request.input_name(index))


def input_too_long(request: UserEmbedding, model: ServedModel, index: int, tokens: str) -> ContextTooLong:
    """The refusal of an input of `tokens` tokens (a number, or words for one)."""
    field = request.input_name(index)
    return ContextTooLong(
        f"{field} has {tokens} tokens; the model's context is {model.max_context_tokens}", field=field
    )


def resolve_embedding(
    request: UserEmbedding, model: ServedModel, inputs: list[list[int]], deadline: float | None
) -> list[EngineRequest]:
    """What the engines are sent, one for each input: they share an id and differ in `sequence`."""
    request_id = request.request_id or uuid.uuid4().hex
    mean = request.pooling == "mean"
    return [
        EngineRequest(
            request_id=request_id,
            model=model.name,
            token_ids=token_ids,
            sampling=NOTHING_SAMPLED,
            max_new_tokens=0,
            eos_token_ids=(),
            cache_salt=request.cache_salt,
            cache_bypass=request.cache_bypass or mean,
            sequence=index,
            deadline=deadline,
            pooling=POOLINGS[request.pooling],
            revision=model.revision,
        )
        for index, token_ids in enumerate(inputs)
    ]


def _empty(request: UserEmbedding, index: int) -> InvalidRequest:
    field = request.input_name(index)
    return InvalidRequest(f"{field} is empty; at least one token", field=field)
