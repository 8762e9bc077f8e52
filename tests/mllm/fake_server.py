"""Loopback HTTP servers for the tests: any ASGI app on a free port, and chat and images-edit endpoints that follow a
script."""

import asyncio
import base64
import itertools
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import uvicorn
from PIL import Image, ImageOps
from starlette.datastructures import UploadFile
from starlette.requests import Request

from etchr.images import decode_image, encode_png

MODEL = "tiny-vl"


@contextmanager
def serving(app: Any, lifespan: Literal["on", "off"] = "off") -> Iterator[str]:
    """Serve `app` with a real uvicorn in a thread; yields "http://127.0.0.1:PORT"."""
    listener = socket.socket(proto=socket.IPPROTO_TCP)  # named, or asyncio leaves Nagle's 40 ms delay on
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan=lifespan, log_config=None, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and thread.is_alive():
        assert time.monotonic() < deadline, "the test server did not start"
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def dead_url() -> str:
    """The base URL of a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@dataclass(frozen=True)
class Step:
    """One answer of a scripted endpoint."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    dies: bool = False  # close the connection in the middle of the body
    drip_s: float = 0.0  # pause after each byte of the body


def answer(*texts: str | None, finish_reason: str = "stop", usage: Any = None, delay_s: float = 0.0) -> Step:
    """A chat completion with one choice per text."""
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
        for index, text in enumerate(texts)
    ]
    return Step(json.dumps({"choices": choices, "usage": usage}).encode(), delay_s=delay_s)


def refusal(status: int, message: str = "no", **headers: str) -> Step:
    """An error in OpenAI's format; `retry_after="1"` becomes the header Retry-After."""
    body = json.dumps({"error": {"message": message}}).encode()
    return Step(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


class FakeEndpoint:
    """A chat endpoint that plays its script and then answers every request with as many choices as it asks for."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.script: deque[Step] = deque()
        self.always: Step | None = None  # after the script
        self.models: Step = Step(json.dumps({"data": [{"id": MODEL}]}).encode())
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.authorizations: list[str] = []
        self.in_flight = self.max_in_flight = 0

    def step(self, request: dict[str, Any]) -> Step:
        self.requests.append(request)
        self.times.append(time.monotonic())
        if self.script:
            return self.script.popleft()
        seed = request.get("seed") or 0
        return self.always or answer(*(f"reply {seed + index}" for index in range(request["n"])))


def picture_answer(image: Image.Image, delay_s: float = 0.0) -> Step:
    """An images answer that holds one picture."""
    entry = {"b64_json": base64.b64encode(encode_png(image)).decode(), "url": None}
    return Step(json.dumps({"created": 0, "data": [entry]}).encode(), delay_s=delay_s)


class FakeImages(FakeEndpoint):
    """An images-edit endpoint: it draws a source's negative, with the seed in the pixel at the top left."""

    def step(self, request: dict[str, Any]) -> Step:
        self.requests.append(request)
        self.times.append(time.monotonic())
        if self.script:
            return self.script.popleft()
        return self.always or picture_answer(negative(decode_image(request["image"]), int(request.get("seed", 0))))


def negative(source: Image.Image, seed: int) -> Image.Image:
    """What `FakeImages` draws."""
    image = ImageOps.invert(source)
    image.putpixel((0, 0), tuple(seed.to_bytes(8, "big")[-3:]))
    return image


class FakeServer:
    """The ASGI app that holds many endpoints, each under a path of its own."""

    def __init__(self) -> None:
        self.url = ""
        self._names = (f"e{index}" for index in itertools.count())
        self._endpoints: dict[str, FakeEndpoint] = {}

    @classmethod
    @contextmanager
    def running(cls) -> Iterator["FakeServer"]:
        """One that answers at its `url`."""
        app = cls()
        with serving(app) as app.url:
            yield app

    def endpoint(
        self, *script: Step, always: Step | None = None, kind: type[FakeEndpoint] = FakeEndpoint
    ) -> FakeEndpoint:
        name = next(self._names)
        endpoint = self._endpoints[name] = kind(f"{self.url}/{name}/v1")
        endpoint.script.extend(script)
        endpoint.always = always
        return endpoint

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        body = await self._body(request)
        endpoint = self._endpoints[request.url.path.split("/")[1]]
        endpoint.authorizations.append(request.headers.get("authorization", ""))
        step = endpoint.step(body) if request.method == "POST" else endpoint.models
        endpoint.in_flight += 1
        endpoint.max_in_flight = max(endpoint.max_in_flight, endpoint.in_flight)
        await asyncio.sleep(step.delay_s)
        endpoint.in_flight -= 1
        headers = {"content-type": "application/json", "content-length": str(len(step.body)), **step.headers}
        raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": step.status, "headers": raw_headers})
        if step.drip_s:
            for byte in step.body:
                await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
                await asyncio.sleep(step.drip_s)
        half = step.body[: len(step.body) // 2] if step.dies else step.body
        await send({"type": "http.response.body", "body": half, "more_body": step.dies})

    async def _body(self, request: Request) -> dict[str, Any]:
        """JSON as it is; a form with the bytes of its files."""
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            async with request.form() as form:
                return {k: await v.read() if isinstance(v, UploadFile) else v for k, v in form.multi_items()}
        return json.loads(await request.body() or b"{}")
