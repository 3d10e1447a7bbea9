"""From OpenAI's body of /v1/embeddings to the request that both fronts share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ....core.errors import InvalidRequest
from ...validation.embedding import UserEmbedding
from ...validation.request import FieldNames
from .decode import check_neutral, decode
from .schema import Neutral

ENCODINGS = ("float", "base64")
_NAMES = FieldNames({"inputs": "input", "request_id": "x-request-id"})
_NEUTRAL: Neutral = {
    "truncate_prompt_tokens": (),
    "add_special_tokens": (True,),
    "priority": (0,),
}


class EmbeddingFields(msgspec.Struct, kw_only=True):
    """OpenAI's fields, then ours. None means unset."""

    # Text, ids, or a list of either: read by hand, because the lists cannot be told apart by type.
    input: msgspec.Raw = msgspec.Raw(b"null")
    model: str | None = None
    encoding_format: str | None = None
    dimensions: int | None = None
    user: str | None = None
    pooling: str | None = None
    normalize: bool | None = None
    cache_salt: str | None = None
    cache_bypass: bool | None = None


EmbeddingBody: Any = msgspec.defstruct(
    "EmbeddingBody",
    [(field, Any, None) for field in _NEUTRAL],
    bases=(EmbeddingFields,),
    kw_only=True,
    forbid_unknown_fields=True,
)
_body: msgspec.json.Decoder[Any] = msgspec.json.Decoder(EmbeddingBody)
_text: msgspec.json.Decoder[Any] = msgspec.json.Decoder(str | None)
_ids: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[int])
_many: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[str | list[int]])


async def read_embedding(body: bytes, request_id: str) -> tuple[UserEmbedding, bool]:
    """The request, and whether its vectors are wanted as base64 of their bytes rather than as numbers.

    Raises InvalidRequest naming the field that has the wrong type or asks for what is not offered.
    """
    fields: Any = await decode(body, _body)
    check_neutral(fields, _NEUTRAL)
    encoding = ENCODINGS[0] if fields.encoding_format is None else fields.encoding_format
    if encoding not in ENCODINGS:
        raise InvalidRequest(
            f"encoding_format must be one of {', '.join(ENCODINGS)}; got {encoding[:40]!r}", field="encoding_format"
        )
    inputs, name = await _inputs(bytes(fields.input))
    request = UserEmbedding(
        names=_NAMES,
        input_name=name,
        request_id=request_id,
        model=fields.model or "",
        inputs=inputs,
        pooling="last" if fields.pooling is None else fields.pooling,
        normalize=fields.normalize is not False,
        dimensions=fields.dimensions,
        cache_salt=fields.cache_salt or "",
        cache_bypass=bool(fields.cache_bypass),
    )
    return request, encoding == "base64"


async def _inputs(raw: bytes) -> tuple[list[str | list[int]], Callable[[int], str]]:
    """One text, one list of ids, or a list of such; and how the caller knows each of them."""
    if raw[:1] != b"[":
        text = await decode(raw, _text, "input")
        return ([] if text is None else [text]), _only
    if raw[1:].lstrip()[:1] in b'"[]':
        return await decode(raw, _many, "input"), "input[{}]".format
    return [await decode(raw, _ids, "input")], _only


def _only(index: int) -> str:
    return "input"
