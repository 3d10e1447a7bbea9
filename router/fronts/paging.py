"""Pages of a sorted list by the last name seen: models that come or go between two pages hide and repeat no others."""

from __future__ import annotations

import base64
import binascii

from ...core.errors import InvalidRequest
from ..types import ServedModel

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000


def page_of(models: list[ServedModel], page_size: int, page_token: str) -> tuple[list[ServedModel], str]:
    """The models after `page_token`, and the token of the next page: empty on the last one.

    `models` are sorted by name. Raises InvalidRequest for a size above the limit and a token that is not ours.
    """
    if page_size > LARGEST_PAGE:
        raise InvalidRequest(f"page_size must be at most {LARGEST_PAGE}, got {page_size}", field="page_size")
    size = page_size or DEFAULT_PAGE
    after = _name_in(page_token)
    rest = [model for model in models if model.name > after] if after else models
    page = rest[:size]
    return page, _token_of(page[-1].name) if len(rest) > size else ""


def _token_of(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _name_in(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise InvalidRequest("page_token is not one that this server gave", field="page_token") from None
