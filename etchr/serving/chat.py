"""Serve any in-process `MLLM` over the OpenAI chat protocol, so that `ChatClient`, or any other client, can call it.

Requests are hostile input: bodies are limited in bytes, images come in as base64 data URIs only and pass through
`etchr.images`, nothing is ever fetched, and every refusal is one sentence in OpenAI's error format.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, model_validator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from etchr.concurrent import LoopThread, Room
from etchr.http.application import application, check_model, checked, error_response, limited_body, refusal
from etchr.http.endpoints import printable
from etchr.images import data_uri_bytes, from_data_uri, to_data_uri
from etchr.mllm.protocol import MLLM, CallFailed, ImagePart, Message, Reply, Sampling, TextPart
from etchr.serving.pictures import MAX_REQUEST_PIXELS, give_back, num_pixels

MAX_BODY_BYTES = 256 * 2**20  # an 8K image as PNG takes about 60 million bytes in base64
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


class ChatRequest(_Strict):
    """The fields that are read of a chat request; one that is null counts as left out."""

    messages: Annotated[list[ChatMessage], FailFast(), Field(min_length=1)]
    temperature: float = Field(1.0, ge=0, le=2)  # the protocol's default, not `MLLM.chat`'s
    max_tokens: int = Field(4096, ge=1, le=2**31)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    n: int = Field(1, ge=1, le=128)  # the protocol's own limit
    logprobs: bool = False
    top_logprobs: int = Field(1, ge=0, le=100)
    stream: Literal[False] = False

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


def build_app(mllm: MLLM, max_body_bytes: int = MAX_BODY_BYTES) -> Starlette:
    """The ASGI application: POST /v1/chat/completions, GET /v1/models, GET /health.

    The model computes beside the server's event loop, and decoded pictures are bounded over all requests.
    """
    model, room = LoopThread(), Room(MAX_REQUEST_PIXELS)

    async def chat(request: Request) -> JSONResponse:
        pixels = 0
        try:
            body = b"".join([chunk async for chunk in limited_body(request, max_body_bytes)])
            call = await asyncio.to_thread(_parse, body, mllm.name)
            del body
            pixels = await asyncio.to_thread(num_pixels, call.pictures())
            async with room.taken(pixels):
                messages = await asyncio.to_thread(_messages, call.messages)  # decoding takes seconds
                replies = await model.run(mllm.chat(messages, call.sampling))
                del messages
        except ValueError as error:
            return refusal(error)
        except CallFailed as error:
            return error_response(503, str(error))
        finally:
            give_back(pixels)
        return JSONResponse(_completion(mllm.name, replies, max(call.top_logprobs, 1) if call.logprobs else 0))

    return application(mllm.name, [Route("/v1/chat/completions", chat, methods=["POST"])])


def _parse(body: bytes, served: str) -> ChatRequest:
    """A request body to a typed call; `ValueError` in one sentence for anything else."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the request body is not valid JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("the request body must be a JSON object")
    check_model(fields.get("model"), served)
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
