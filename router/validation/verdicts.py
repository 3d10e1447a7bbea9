"""An engine's verdict in its caller's words: engines know the fields of Submit, callers those of their front."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...core.errors import HeadwayError
from .request import UserRequest


@contextmanager
def in_callers_words(request: UserRequest) -> Iterator[None]:
    """Renames the field of errors that come out of the engines' side; its words begin with that name when they can."""
    try:
        yield
    except HeadwayError as error:
        if not error.field:
            raise
        field = _callers_field(error.field, request)
        message = error.message
        if message.startswith(error.field):
            message = field + message.removeprefix(error.field)
        raise type(error)(message, field=field, retry_after_s=error.retry_after_s) from None


def _callers_field(field: str, request: UserRequest) -> str:
    name = field.removeprefix("sampling.")
    if name == "token_ids":
        name = "messages" if request.chat else "prompt"
    # A grammar's form is in the caller's name of it already.
    return request.names["grammar" if name.startswith("grammar.") else name]
