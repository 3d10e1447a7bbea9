"""Checks that need no model, run before anything is spent on a request. The first violation in order is told."""

from __future__ import annotations

from ...core.errors import InvalidRequest
from ...core.sampling import BOUNDS
from . import limits
from .constraints import check_constraints, refusal
from .request import Message, UserRequest


def check_fields(request: UserRequest) -> None:
    """Raises InvalidRequest naming the caller's field and its bound."""
    _check_identity(request)
    _check_sampling(request)
    _check_stopping(request)
    check_constraints(request)
    if not (request.want_text or request.want_token_ids or request.logprobs is not None):
        what = "is off, and neither token ids nor log probabilities are asked for: nothing would be returned"
        raise refusal(request, "want_text", what)
    if request.chat:
        _check_messages(request)


def _check_identity(request: UserRequest) -> None:
    check_request_id(request.request_id, request.names["request_id"])
    check_cache_salt(request.cache_salt, request.names["cache_salt"])


def check_cache_salt(salt: str, field: str) -> None:
    """Salts are hashed for every request: short ones do."""
    if len(salt) > limits.MAX_CACHE_SALT:
        raise InvalidRequest(f"{field} has {len(salt)} characters; at most {limits.MAX_CACHE_SALT}", field=field)


def check_request_id(request_id: str, field: str) -> None:
    """Ids travel in HTTP headers and logs: printable ASCII only."""
    if len(request_id) > limits.MAX_REQUEST_ID:
        raise InvalidRequest(f"{field} has {len(request_id)} characters; at most {limits.MAX_REQUEST_ID}", field=field)
    if not (request_id.isascii() and request_id.isprintable()):
        raise InvalidRequest(f"{field} must be printable ASCII", field=field)


def _check_sampling(request: UserRequest) -> None:
    for name, value in request.sampling.items():
        bound = BOUNDS[name]
        if not bound.holds(value):
            got = f"{value:g}" if isinstance(value, float) else value
            raise refusal(request, name, f"must be {bound}, got {got}")


def _check_stopping(request: UserRequest) -> None:
    if request.max_new_tokens is not None and request.max_new_tokens < 1:
        raise refusal(request, "max_new_tokens", f"must be at least 1, got {request.max_new_tokens}")
    strings = request.stop_strings
    if len(strings) > limits.MAX_STOP_STRINGS:
        raise refusal(request, "stop_strings", f"has {len(strings)} strings; at most {limits.MAX_STOP_STRINGS}")
    for index, text in enumerate(strings):
        if not text:
            raise refusal(request, f"stop_strings[{index}]", "is empty")
        if len(text) > limits.MAX_STOP_STRING:
            raise _too_long(request, f"stop_strings[{index}]", len(text), limits.MAX_STOP_STRING)
    ids = request.stop_token_ids
    if len(ids) > limits.MAX_STOP_TOKEN_IDS:
        raise refusal(request, "stop_token_ids", f"has {len(ids)} ids; at most {limits.MAX_STOP_TOKEN_IDS}")


def _check_messages(request: UserRequest) -> None:
    check_messages(request.messages, request.names["messages"])


def check_messages(messages: list[Message], field: str) -> None:
    """A conversation that a template may be given: at least one message, each with a known role and its content."""
    if not messages:
        raise InvalidRequest(f"{field} is empty; at least one message", field=field)
    if len(messages) > limits.MAX_MESSAGES:
        raise InvalidRequest(f"{field} has {len(messages)} messages; at most {limits.MAX_MESSAGES}", field=field)
    for index, message in enumerate(messages):
        at = f"{field}[{index}]"
        if message.role is None or message.role not in limits.ROLES:
            got = "none" if not message.role else repr(message.role[:40])
            allowed = ", ".join(limits.ROLES)
            raise InvalidRequest(f"{at}.role must be one of {allowed}; got {got}", field=f"{at}.role")
        if message.content is None:
            raise InvalidRequest(f"{at}.content is missing", field=f"{at}.content")


def _too_long(request: UserRequest, name: str, length: int, most: int) -> InvalidRequest:
    return refusal(request, name, f"has {length} characters; at most {most}")
