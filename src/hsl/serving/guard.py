"""What stands before the application: who may ask, how long that may take, what an answer carries, what is logged."""

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import h11
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from hsl.serving.served import Answer, RefusedError
from hsl.terminal import visible

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Names of this machine that no other machine can reach it by."""
OPEN_PATHS = ("/", "/health", "/ready")
"""Asked without a token: the page holds no secret, and a load balancer has none."""
SILENT_S = 10.0
"""Seconds in which the head of a request has to come."""
MOST_CONNECTIONS = 512
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
logger = logging.getLogger(__name__)
Observe = Callable[[str, int, float], None]


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        hosts: names in lower case, without a port, that a request may call this server by.
        token: what a request has to show as ``Authorization: Bearer TOKEN``; ``None``: nothing.
    """

    hosts: Collection[str]
    token: str | None = None

    def check(self, request: Request) -> None:
        """Refuse whoever may not.

        Raises:
            RefusedError: another name, another page of a browser, or no token.
        """
        host = request.headers.get("host", "")
        if _bare(host) not in self.hosts or len(request.headers.getlist("host")) > 1:
            raise RefusedError(400, "unknown_host", "`Host` should be a name of this server. Found another. Name it in "
                               "`hosts=[...]` of `hsl serve`.")  # fmt: skip
        origin = request.headers.get("origin")
        if request.method == "POST" and origin is not None and origin.lower().partition("://")[2] != host.lower():
            raise RefusedError(403, "foreign_origin", "A browser should ask from the page of this server. "
                          "Found another origin. Open the page of this server.")  # fmt: skip
        if self.token is None or request.url.path in OPEN_PATHS:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.token.encode()):
            raise RefusedError(401, "no_token", "A request should show the token of this server, as "
                          "`Authorization: Bearer TOKEN`.")  # fmt: skip


def _bare(host: str) -> str:
    """A host without its port: ``[::1]:80`` is ``::1``."""
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


def response_of(answer: Answer) -> Response:
    """An answer as it is sent."""
    return Response(answer.body, answer.status, dict(answer.headers), answer.media_type)


class Guard:
    """The application, guarded.

    Args:
        app: what answers those who may ask.
        access: who may.
        observe: called with path, status and seconds of every request.
    """

    def __init__(self, app: ASGIApp, access: Access, observe: Observe) -> None:
        self._app, self._access, self._observe = app, access, observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 0  # of an answer that never was

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                more = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *(one for one in more if one[0] not in given)]
            await send(message)

        try:
            self._access.check(Request(scope))
            await self._app(scope, receive, sent)
        except RefusedError as problem:
            response = response_of(problem.answer())
            response.headers["Connection"] = "close"
            if problem.status == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
            await response(scope, receive, sent)
        finally:
            seconds = time.monotonic() - start
            self._observe(scope["path"], status, seconds)
            path = visible(scope["path"][:100], lines=False)
            logger.info("%s %s %d %.0f ms", scope["method"][:10], path, status, 1000 * seconds)


class Connection(H11Protocol):
    """uvicorn's connection, which waits for the head of a request only so long, and refuses in JSON.

    h11 and not httptools, which takes headers without an end.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._silent: asyncio.TimerHandle | None = None
        if len(self.connections) > MOST_CONNECTIONS:
            transport.close()
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._silent is not None:
            self._silent.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        del msg
        body = RefusedError(400, "bad_request", "A request should be HTTP/1.1. Found something else.").answer().body
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        try:
            for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:  # an answer is under way
            pass
        self.transport.close()

    def _watch(self) -> None:
        under_way: Any = self.cycle is not None and not self.cycle.response_complete
        if under_way and self._silent is not None:
            self._silent.cancel()
            self._silent = None
        elif not under_way and self._silent is None:
            self._silent = self.loop.call_later(SILENT_S, self._end)

    def _end(self) -> None:
        self._silent = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
