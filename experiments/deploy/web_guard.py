"""What a server of photos refuses before anything reads it."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_JSON = 1_000_000  # bytes; names and paths of files, never photos
_OUTSIDE = ("http://", "https://")


class Guard:
    """ASGI middleware for gradio, which would otherwise do more than a page of photos needs.

    Refused are requests with a longer body than allowed, whatever it is made of (gradio limits each
    file of a request, not the request); addresses that the server would fetch for the client;
    posts that pages of other origins make in the user's browser; and, where the server's names are
    known, requests for others, with which such a page would pass for this one (DNS rebinding).

    Args:
        app: the application.
        max_bytes: longest body of a request.
        hosts: names that the server is asked for by; None for any.
        same_origin: whether posts from pages of other origins are refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        hosts: Collection[str] | None = None,
        same_origin: bool = True,
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.hosts = hosts
        self.same_origin = same_origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have the application do so."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_json = "json" in headers.get("content-type", "").lower()
        limited = _limited(receive, min(_JSON, self.max_bytes) if is_json else self.max_bytes)
        try:
            self._check(scope, headers)
            if is_json:
                body = await _whole(limited)
                _check_addresses(body)
                limited = _again(body, receive)
        except HTTPException as error:
            await PlainTextResponse(error.detail, error.status_code)(scope, receive, send)
            return
        await self.app(scope, limited, send)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Refuse by the head of a request.

        Raises:
            HTTPException: 403 or 413.
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.hosts is not None and _name(f"//{host}") not in self.hosts:
            raise HTTPException(403, f"This server is not {host}; see --names of serve.py.")
        posted = scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if posted and self.same_origin and origin is not None and not self._own(origin, host):
            raise HTTPException(403, "Pages of other servers may not send anything to this one.")
        _, _, address = scope["path"].lower().partition("file=")
        if address.lstrip("/").startswith(_OUTSIDE):
            raise HTTPException(403, "This server fetches nothing from other servers.")
        if int(headers.get("content-length", "0")) > self.max_bytes:
            raise _too_much(self.max_bytes)

    def _own(self, origin: str, host: str) -> bool:
        if self.hosts is None:
            return urlsplit(origin).netloc == host
        return _name(origin) in self.hosts


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _limited(receive: Receive, most: int) -> Receive:
    """Return the same messages until their bodies are longer than allowed together."""
    left = most

    async def limited() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _too_much(most)
        return message

    return limited


def _too_much(most: int) -> HTTPException:
    return HTTPException(
        413,
        f"Too much at once: a request may have {most / 1e6:g} MB; send fewer or smaller photos.",
    )


async def _whole(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a body that was read already, then what comes after it."""
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _check_addresses(body: bytes) -> None:
    """Refuse a body in which the path of a file is an address.

    Raises:
        HTTPException: 403.
    """
    try:
        values = json.loads(body)
    except ValueError:  # the application says what is wrong with it
        return
    if any(path.strip().lower().startswith(_OUTSIDE) for path in _paths(values)):
        raise HTTPException(403, "This server fetches nothing from other servers.")


def _paths(values: Any) -> list[str]:
    """Return the values of all keys "path", at any depth."""
    found, left = [], [values]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            path = value.get("path")
            found += [path] if isinstance(path, str) else []
            left += value.values()
        elif isinstance(value, list):
            left += value
    return found
