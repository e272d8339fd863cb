"""Who is let in, and what browsers may do with what they get."""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from reblur_plugin.app.settings import Settings

_POLICY = (
    "default-src 'none'; img-src 'self' data:; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)


class Guard:
    """Asks for the password, refuses what other sites' pages send, and says what this page may do."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._headers = {
            "content-security-policy": _POLICY + ("" if settings.in_frames else "; frame-ancestors 'none'"),
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        app: ASGIApp = self._app
        if not self._may_enter(request):
            app = Response("password?", 401, {"www-authenticate": 'Basic realm="reblur_plugin", charset="UTF-8"'})
        elif request.method not in ("GET", "HEAD") and request.headers.get("sec-fetch-site") not in (
            None,
            "same-origin",
        ):
            app = Response("expected a request of the page itself", 403)

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in self._headers.items()]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await app(scope, receive, send_with_headers)

    def _may_enter(self, request: Request) -> bool:
        if self._settings.password is None:
            return True
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        try:
            password = base64.b64decode(given, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return False
        return kind.lower() == "basic" and secrets.compare_digest(password, self._settings.password.encode())


def _is_from_elsewhere(request: Request) -> bool:
    return request.headers.get("sec-fetch-site", "same-origin") != "same-origin"
