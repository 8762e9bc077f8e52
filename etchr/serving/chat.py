"""Serve models over the OpenAI chat protocol, so that `ChatClient`, or any other client, can call them.

Requests are hostile input: bodies are limited in bytes, images come in as base64 data URIs only and pass through
`etchr.images`, nothing is ever fetched, and every refusal is one sentence in OpenAI's error format.
"""

import asyncio
import json
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, model_validator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from etchr.concurrent import Room
from etchr.families import TaskFamily
from etchr.http.application import (
    CLIENT_GONE,
    application,
    check_model,
    checked,
    error_response,
    limited_body,
    refusal,
    unless_gone,
)
from etchr.http.endpoints import printable
from etchr.images import data_uri_bytes, from_data_uri, to_data_uri
from etchr.mllm.protocol import MLLM, CallFailed, ImagePart, Message, Reply, Sampling, TextPart
from etchr.rows import MAX_TEXT
from etchr.serving.pictures import MAX_REQUEST_PIXELS, give_back, num_pixels
from etchr.serving.plugged import Answer, Beside, PluggedModel

MAX_BODY_BYTES = 256 * 2**20  # an 8K image as PNG takes about 60 million bytes in base64
MAX_WAITING = 256  # requests under way at once
EVENTS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
MAX_IMAGES = 16  # per request: a small file can hold a large picture


class _Strict(BaseModel):
    """Fields that are taken by their own type alone: neither "1" nor true is a number."""

    model_config = ConfigDict(strict=True)


class ChatImage(_Strict):
    """Where a picture is; only data URIs are read."""

    url: str


class ChatPart(_Strict):
    """A text or a picture of a message."""

    type: Literal["text", "image_url"]
    # JSON allows lone surrogates, and clients that cut a text at a length send them.
    text: Annotated[str | None, BeforeValidator(lambda text: printable(text) if isinstance(text, str) else text)] = None
    image_url: ChatImage | None = None

    @model_validator(mode="after")
    def _holds_what_it_says(self) -> Self:
        if getattr(self, self.type) is None:
            raise ValueError(f"a part of type {self.type} must hold {self.type}")
        return self


class ChatMessage(_Strict):
    """A message; a text alone stands for a list of one part."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[
        list[ChatPart],
        FailFast(),  # a body of a million wrong parts is refused at the first one
        BeforeValidator(lambda content: [{"type": "text", "text": content}] if isinstance(content, str) else content),
    ]


class EtchrFields(_Strict):
    """What a client that knows of Edit-Verify-Reason may ask for; no other sends it."""

    family: TaskFamily | None = Field(None, strict=False)  # of the edit; left out: a rule guesses it from the question
    question: str | None = Field(None, max_length=MAX_TEXT)  # what the editor is asked; left out: the turn's whole text
    edit: bool = False  # the trace holds the edit as a data URI


class ChatRequest(_Strict):
    """The fields that are read of a chat request; one that is null counts as left out."""

    model: str
    messages: Annotated[list[ChatMessage], FailFast(), Field(min_length=1)]
    temperature: float = Field(1.0, ge=0, le=2)  # the protocol's default, not `MLLM.chat`'s
    max_tokens: int = Field(4096, ge=1, le=2**31)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int = Field(1, ge=1, le=128)  # the protocol's own limit
    logprobs: bool = False
    top_logprobs: int = Field(1, ge=0, le=100)
    stream: bool = False  # the whole answer as one event: of a trace nothing is known before its end
    etchr: EtchrFields = Field(default_factory=lambda: EtchrFields(family=None, question=None))

    def pictures(self) -> Iterator[bytes]:
        """The encoded pictures, where they are few; `ValueError` for one that is no data URI."""
        parts = [part for message in self.messages for part in message.content if part.type == "image_url"]
        urls = [part.image_url.url for part in parts if part.image_url is not None]
        if len(urls) > MAX_IMAGES:
            raise ValueError(f"a request may hold {MAX_IMAGES} images, got {len(urls)}")
        return map(data_uri_bytes, urls)

    @property
    def sampling(self) -> Sampling:
        """How the model is to sample."""
        limit = self.max_completion_tokens or self.max_tokens
        return Sampling(temperature=self.temperature, max_tokens=limit, seed=self.seed, n=self.n)


class ChatService:
    """POST /v1/chat/completions over one model or several, and GET /metrics about it.

    Decoded pictures are bounded over all requests; of `max_waiting` that are under way one more is refused with 429.
    """

    def __init__(self, *models: MLLM, max_body_bytes: int = MAX_BODY_BYTES, max_waiting: int = MAX_WAITING) -> None:
        self.models, self.max_body_bytes, self.max_waiting = {m.name: m for m in models}, max_body_bytes, max_waiting
        self.routes = [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]
        self.counts: Counter[tuple[str, int]] = Counter()  # answers, by model and status
        self.seconds: defaultdict[str, float] = defaultdict(float)  # by model
        self.edits: Counter[str] = Counter()  # drawn, used
        self._room, self._waiting = Room(MAX_REQUEST_PIXELS), 0

    async def chat(self, request: Request) -> Response:
        """Answer one request."""
        if self._waiting >= self.max_waiting:
            self.counts["", 429] += 1
            return error_response(429, f"{self._waiting} requests are waiting already", headers={"Retry-After": "1"})
        begin, self._waiting = time.perf_counter(), self._waiting + 1
        name, pixels, response = "", 0, Response(status_code=CLIENT_GONE)
        try:
            call = await self._read(request)
            name, pixels = call.model, await asyncio.to_thread(num_pixels, call.pictures())
            response = await self._answered(request, call, pixels)
        except ValueError as error:
            response = refusal(error)
        except CallFailed as error:
            response = error_response(503, str(error))
        finally:
            self._waiting -= 1
            self.counts[name, response.status_code] += 1
            self.seconds[name] += time.perf_counter() - begin
            give_back(pixels)  # only here is nothing left that holds the pictures
        return response

    async def _read(self, request: Request) -> ChatRequest:
        body = b"".join([chunk async for chunk in limited_body(request, self.max_body_bytes)])
        return await asyncio.to_thread(_parse, body, tuple(self.models))

    async def _answered(self, request: Request, call: ChatRequest, pixels: int) -> Response:
        """What a call with so many pixels in its pictures is answered; raises `ValueError` and `CallFailed`."""
        model = self.models[call.model]
        async with self._room.taken(pixels):
            messages = await asyncio.to_thread(_messages, call.messages)  # decoding takes seconds
            answer = await unless_gone(request, asyncio.ensure_future(_answer(model, messages, call)))
        if answer is None:
            return Response(status_code=CLIENT_GONE)
        if answer.trace is not None:
            self.edits["drawn"] += answer.trace.proposal is not None
            self.edits["used"] += answer.trace.used_edit
        found = _completion(call.model, answer.replies, max(call.top_logprobs, 1) if call.logprobs else 0)
        if isinstance(model, PluggedModel):
            found["etchr"] = await asyncio.to_thread(answer.about, with_edit=call.etchr.edit)
        return StreamingResponse(_events(found), 200, EVENTS) if call.stream else JSONResponse(found)

    async def metrics(self, request: Request) -> Response:
        """What was answered so far, in Prometheus' text format."""
        lines = ["# TYPE etchr_requests_total counter"]
        lines += [f'etchr_requests_total{{model="{n}",status="{s}"}} {c}' for (n, s), c in sorted(self.counts.items())]
        lines.append("# TYPE etchr_request_seconds_total counter")
        lines += [f'etchr_request_seconds_total{{model="{n}"}} {s:.6f}' for n, s in sorted(self.seconds.items())]
        lines.append("# TYPE etchr_edits_total counter")
        lines += [f'etchr_edits_total{{what="{what}"}} {self.edits[what]}' for what in ("drawn", "used")]
        lines += ["# TYPE etchr_waiting gauge", f"etchr_waiting {self._waiting}"]
        return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


async def _answer(model: MLLM, messages: list[Message], call: ChatRequest) -> Answer:
    if isinstance(model, PluggedModel):
        return await model.answer(messages, call.sampling, call.etchr.family, call.etchr.question)
    return Answer(await model.chat(messages, call.sampling))


def build_app(mllm: MLLM, max_body_bytes: int = MAX_BODY_BYTES) -> Starlette:
    """The ASGI application over one model: POST /v1/chat/completions, GET /v1/models, /metrics and /health.

    The model computes beside the server's event loop.
    """
    service = ChatService(Beside(mllm), max_body_bytes=max_body_bytes)
    return application([mllm.name], service.routes)


def _parse(body: bytes, served: tuple[str, ...]) -> ChatRequest:
    """A request body to a typed call; `ValueError` in one sentence for anything else."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the request body is not valid JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("the request body must be a JSON object")
    if fields.get("tools") or fields.get("functions"):
        raise ValueError("tools are not taken here; ask the understanding model itself")
    check_model(fields.get("model"), *served)
    return checked(ChatRequest, {name: value for name, value in fields.items() if value is not None})


def _messages(sent: list[ChatMessage]) -> list[Message]:
    """Messages with their pictures decoded."""

    def decoded(part: ChatPart) -> TextPart | ImagePart:
        if part.type == "image_url" and part.image_url is not None:
            return {"type": "image", "image": from_data_uri(part.image_url.url)}
        return {"type": "text", "text": part.text or ""}

    return [{"role": message.role, "content": [decoded(part) for part in message.content]} for message in sent]


def _completion(name: str, replies: list[Reply], top_logprobs: int) -> dict[str, Any]:
    """The protocol's answer. The prompt is counted once, the completions in sum."""
    prompt_tokens = max((reply.prompt_tokens or 0 for reply in replies), default=0)
    completion_tokens = sum(reply.completion_tokens or 0 for reply in replies)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": name,
        "choices": [_choice(index, reply, top_logprobs) for index, reply in enumerate(replies)],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


async def _events(found: dict[str, Any]) -> AsyncIterator[str]:
    """A completion as server-sent events: of each choice its text and its end, then the usage and the trace."""
    base = {key: found[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    for choice in found["choices"]:
        delta = {"index": choice["index"], "delta": choice["message"], "finish_reason": None}
        if "logprobs" in choice:
            delta["logprobs"] = choice["logprobs"]
        end = {"index": choice["index"], "delta": {}, "finish_reason": choice["finish_reason"]}
        for each in (delta, end):
            yield f"data: {json.dumps(base | {'choices': [each]})}\n\n"
    rest = {key: found[key] for key in ("usage", "etchr") if key in found}
    yield f"data: {json.dumps(base | {'choices': []} | rest)}\n\ndata: [DONE]\n\n"


def _choice(index: int, reply: Reply, top_logprobs: int) -> dict[str, Any]:
    content: Any = reply.text
    if reply.images:  # as a unified model's server sends them
        pictures = [{"type": "image_url", "image_url": {"url": to_data_uri(image)}} for image in reply.images]
        content = [{"type": "text", "text": reply.text}, *pictures]
    message = {"role": "assistant", "content": content}
    choice: dict[str, Any] = {"index": index, "message": message, "finish_reason": reply.finish_reason}
    if top_logprobs and reply.logprobs is not None and all(reply.logprobs):
        choice["logprobs"] = {"content": [_token(candidates, top_logprobs) for candidates in reply.logprobs]}
    return choice


def _token(candidates: dict[str, float], top_logprobs: int) -> dict[str, Any]:
    """One token's candidates, best first; the best one stands for the token, as a `Reply` does not say which it was."""
    ranked = sorted(candidates.items(), key=lambda item: -item[1])[:top_logprobs]
    top: list[dict[str, Any]] = [
        {"token": token, "logprob": max(logprob, -9999.0), "bytes": list(token.encode())}  # JSON has no -inf
        for token, logprob in ranked
    ]
    return {**top[0], "top_logprobs": top}
