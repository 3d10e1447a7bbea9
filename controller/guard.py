"""Keeps other web pages in an operator's browser from reading or changing the cluster."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class Guard:
    """Refuses requests that a page of another site could have made.

    A page that has rebound its own DNS name to this address still sends that name as Host: only addresses, localhost
    and `allowed_hosts` pass. A form cannot send JSON without asking first, and nothing here answers such a question;
    where a browser says from which origin a change comes, it must be this one.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: frozenset[str]) -> None:
        self._app = app
        self._allowed = allowed_hosts | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self._refusal(scope["method"], Headers(scope=scope))
            if refusal:
                error = {"message": refusal, "reason": "FORBIDDEN", "field": ""}
                await JSONResponse({"error": error}, status_code=403)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> str:
        """Why the request is refused; empty when it passes."""
        host = headers.get("host", "")
        name = _hostname(host)
        if name not in self._allowed and not _is_address(name):
            return f"Host {host!r} is not a name of this controller"
        if method in ("GET", "HEAD"):
            return ""
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            return f"Content-Type must be application/json, got {kind!r}"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return f"changes from {origin} are refused"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "changes from other sites are refused"
        return ""


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
