"""The operators' page: sources in `web/` (TypeScript), built by `build.py` into `static/`, served by the controller.

The page reads `GET api/watch` (server-sent events, each a `WatchClusterResponse` as proto3 JSON) and changes things by
`POST api/drain` and `POST api/scale`. All addresses are relative: serve `static/` at "/" or below any prefix that ends
in "/".
"""

from __future__ import annotations

from pathlib import Path

STATIC_DIR = Path(__file__).parent / "static"

# Nothing but the page's own origin: no inline script or style, no frame around it, no form that posts elsewhere.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
