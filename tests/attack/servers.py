"""Servers on 127.0.0.1 that mean ill, or only count who comes."""

import asyncio
import json
import random
import re
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

from tests.attack.ways import CLOSE, RESET, WAYS, Piece, content, said
from tests.mllm.fake_server import MODEL


@contextmanager
def listening(server: "Server") -> Iterator[str]:
    """Run a server in a thread of its own; yields http://127.0.0.1:PORT."""
    ready: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        made, stop = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=2**26), asyncio.Event()
        ready.set_result((made.sockets[0].getsockname()[1], asyncio.get_running_loop(), stop))
        await stop.wait()
        made.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    port, loop, stop = ready.result(timeout=10)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


class Server:
    """Takes requests one after the other from each connection and asks `answer` what to send."""

    def __init__(self) -> None:
        self.requests = 0

    def answer(self, path: str, body: dict[str, Any], key: str) -> list[Piece]:
        """The pieces to send."""
        raise NotImplementedError

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await self._request(reader):
                self.requests += 1
                for piece in self.answer(*request):
                    if not await self._send(piece, writer):
                        return
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the test ends
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> tuple[str, dict[str, Any], str] | None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        size = re.search(r"(?i)content-length: (\d+)", head)
        body = await reader.readexactly(int(size[1])) if size else b"{}"
        key = re.search(r"(?i)authorization: bearer (\S+)", head)
        return head.split()[1], json.loads(body), key[1] if key else ""

    async def _send(self, piece: Piece, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        if piece == RESET:
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        elif isinstance(piece, float):
            await asyncio.sleep(piece)
        elif callable(piece):
            while not writer.is_closing():
                writer.write(piece())
                await writer.drain()
        elif piece != CLOSE:
            assert isinstance(piece, bytes)
            writer.write(piece)
            await writer.drain()
        return piece not in (RESET, CLOSE) and not callable(piece)


class Trap(Server):
    """Where nobody is to come: counts the requests."""

    def answer(self, path: str, body: dict[str, Any], key: str) -> list[Piece]:
        return content("\\boxed{trapped}")


class Hostile(Server):
    """A chat server that misbehaves in one way, told by the model asked for: `hostile/NUMBER` of the list of ways."""

    def __init__(self, trap: str) -> None:
        super().__init__()
        self.trap, self.names = trap, list(WAYS)

    def answer(self, path: str, body: dict[str, Any], key: str) -> list[Piece]:
        return WAYS[self.names[int(body["model"].rpartition("/")[2])]](self.trap, key)


class Spoiling(Server):
    """A chat server that spoils the first attempts of each request and then gives what `replies` says of its text."""

    def __init__(self, trap: str, replies: dict[str, str], names: list[str], spoiled: int, seed: int) -> None:
        super().__init__()
        self.trap, self.replies, self.names, self.spoiled = trap, replies, names, spoiled
        self.rng, self.attempts = random.Random(seed), dict[str, int]()

    def answer(self, path: str, body: dict[str, Any], key: str) -> list[Piece]:
        if not body:
            return said({"data": [{"id": MODEL}]})
        [message] = body["messages"]
        parts = message["content"]
        text = parts if isinstance(parts, str) else next(part["text"] for part in parts if part["type"] == "text")
        self.attempts[text] = self.attempts.get(text, 0) + 1
        if self.attempts[text] <= self.spoiled:
            return WAYS[self.rng.choice(self.names)](self.trap, key)
        return content(self.replies[text])
