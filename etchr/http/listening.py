"""Listening for requests: one way to run both servers, with limits on who may keep them waiting.

A connection on which no head of a request arrives in time is closed, and there are so many at once at most. A client
that closes its side counts as gone, for what it asked for costs the time of a GPU: one that closes it halfway gets no
answer, however long it reads on.
"""

import asyncio
import ctypes
import socket

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_S = 20.0  # for the head of a request, from the connection or from the answer before
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
APART_BYTES = 8 * 2**20  # of memory that go back as soon as they are free: Pillow's blocks have 16 MiB
MAX_CONNECTIONS = 512  # at once; one more gets status 503


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1, with a time-out while the head of a request is awaited."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waits()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._given_up.cancel()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._waits()

    def connection_lost(self, exc: Exception | None) -> None:
        self._given_up.cancel()
        super().connection_lost(exc)

    def _waits(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            return  # a pipelined request is being answered already
        self._given_up = self.loop.call_later(HEADERS_S, self.transport.close)


def bind(host: str, port: int) -> socket.socket:
    """A socket at `host` and `port` (0: any free one), taken before an editor is loaded; `ValueError` if in use."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ValueError(f"cannot listen at {host}:{port}: {error.strerror}") from None
    return listener


def run(app: Starlette, listener: socket.socket) -> None:
    """Serve until interrupted."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # glibc; whatever the environment says of it
        for what in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            mallopt(what, APART_BYTES)
    server(app).run(sockets=[listener])


def server(app: Starlette) -> uvicorn.Server:
    """What serves `app`, and ends when its `should_exit` is set."""
    config = uvicorn.Config(
        app,
        http=ImpatientProtocol,
        ws="none",
        log_level="error",  # what a client does wrong is told to the client
        access_log=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=10,
    )
    return uvicorn.Server(config)
