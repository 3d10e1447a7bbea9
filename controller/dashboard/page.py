"""Serves the built page, with the headers that keep it to its own origin and its caching right."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import CONTENT_SECURITY_POLICY, STATIC_DIR

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
# Names of assets carry a hash of their content; the page that refers to them is asked for again each time.
FOR_EVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"


class Page:
    """An ASGI application to mount at "/" or below a prefix."""

    def __init__(self) -> None:
        self._files: ASGIApp = StaticFiles(directory=STATIC_DIR, html=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_asset = "/assets/" in scope.get("path", "")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers["Cache-Control"] = FOR_EVER if is_asset and message["status"] < 400 else ASK_AGAIN
            await send(message)

        await self._files(scope, receive, with_headers)
