"""The gRPC front: InferenceService over the request handler; core/servers.ErrorInterceptor makes errors statuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc

from ...core.errors import InvalidRequest
from ...proto.headway.v1 import inference_pb2, inference_pb2_grpc
from ..events import Delta, Finished, Started
from ..handler import RequestHandler
from ..validation.limits import MAX_ABORT_IDS
from ..validation.request import UserRequest
from .inference_requests import check_size, from_chat, from_embed, from_generate, to_messages
from .inference_responses import (
    delta_response,
    embed_response,
    finished_response,
    model_message,
    started_response,
    usage_response,
)
from .paging import page_of

Context = grpc.aio.ServicerContext[Any, Any]
NO_DEADLINE_S = 1e8  # grpc gives a call without a deadline some hundred years


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """Register it on a server of core/servers.new_server."""

    def __init__(self, handler: RequestHandler) -> None:
        self._handler = handler

    async def Generate(
        self, request: inference_pb2.GenerateRequest, context: Context
    ) -> AsyncGenerator[inference_pb2.GenerateResponse]:
        responses = self._responses(from_generate(request), "Generate", context)
        async with aclosing(responses):
            async for response in responses:
                yield response

    async def Chat(
        self, request: inference_pb2.ChatRequest, context: Context
    ) -> AsyncGenerator[inference_pb2.ChatResponse]:
        responses = self._responses(from_chat(request), "Chat", context)
        async with aclosing(responses):
            async for response in responses:
                yield inference_pb2.ChatResponse(generate=response)

    async def _responses(
        self, request: UserRequest, method: str, context: Context
    ) -> AsyncGenerator[inference_pb2.GenerateResponse]:
        request_id = request.request_id
        with_ids = request.want_token_ids
        events = self._handler.run(request, front="grpc", method=method, deadline=_deadline(context))
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Delta):
                    yield delta_response(event, request_id, with_ids)
                elif isinstance(event, Started):
                    request_id = event.request_id
                    yield started_response(event)
                elif isinstance(event, Finished):
                    yield finished_response(event, request_id)
                else:
                    yield usage_response(event, request_id)

    async def Embed(self, request: inference_pb2.EmbedRequest, context: Context) -> inference_pb2.EmbedResponse:
        found = await self._handler.embeddings.run(
            from_embed(request), front="grpc", method="Embed", deadline=_deadline(context)
        )
        return await embed_response(found)

    async def Tokenize(
        self, request: inference_pb2.TokenizeRequest, context: Context
    ) -> inference_pb2.TokenizeResponse:
        check_size(request)
        special = request.add_special_tokens if request.HasField("add_special_tokens") else True
        ids, model = await self._handler.tokenize(
            request.model, request.text, to_messages(request.messages), {}, special
        )
        return inference_pb2.TokenizeResponse(token_ids=ids, max_context_tokens=model.max_context_tokens)

    async def Detokenize(
        self, request: inference_pb2.DetokenizeRequest, context: Context
    ) -> inference_pb2.DetokenizeResponse:
        check_size(request)
        text = await self._handler.detokenize(request.model, request.token_ids)
        return inference_pb2.DetokenizeResponse(text=text)

    async def Abort(self, request: inference_pb2.AbortRequest, context: Context) -> inference_pb2.AbortResponse:
        ids = list(request.request_ids)
        if len(ids) > MAX_ABORT_IDS:
            raise InvalidRequest(f"request_ids has {len(ids)} ids; at most {MAX_ABORT_IDS}", field="request_ids")
        return inference_pb2.AbortResponse(aborted_request_ids=[one for one in ids if self._handler.abort(one)])

    async def ListModels(
        self, request: inference_pb2.ListModelsRequest, context: Context
    ) -> inference_pb2.ListModelsResponse:
        page, token = page_of(self._handler.catalogue.models(), request.page_size, request.page_token)
        messages = [model_message(model, await self._handler.has_template(model)) for model in page]
        return inference_pb2.ListModelsResponse(models=messages, next_page_token=token)

    async def GetModel(
        self, request: inference_pb2.GetModelRequest, context: Context
    ) -> inference_pb2.GetModelResponse:
        model = self._handler.catalogue.get(request.model)
        chat = await self._handler.has_template(model)
        return inference_pb2.GetModelResponse(model=model_message(model, chat))


def _deadline(context: Context) -> float | None:
    """The call's deadline on the loop's clock; None when it has none."""
    remaining = context.time_remaining()
    if remaining is None or remaining > NO_DEADLINE_S:
        return None
    return asyncio.get_running_loop().time() + remaining
