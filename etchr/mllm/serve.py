"""Serve any in-process `MLLM` over the OpenAI chat protocol, so that `ChatClient`, or any other client, can call it.

Requests are hostile input: bodies are limited in bytes, images come in as base64 data URIs only and pass through
`etchr.images`, nothing is ever fetched, and every refusal is one sentence in OpenAI's error format.
"""

import asyncio
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from etchr.images import from_data_uri, to_data_uri
from etchr.mllm.protocol import MLLM, CallFailed, ImagePart, Message, Reply, Sampling, TextPart
from etchr.serving import application, check_model, error_response, limited_body, refusal, shown

MAX_BODY_BYTES = 256 * 2**20  # an 8K image as PNG takes about 60 million bytes in base64
MAX_IMAGES = 16  # per request: a small file can hold a large picture
MAX_REQUEST_PIXELS = 400 * 10**6  # decoded, over all images of a request: 1.2 GB
MAX_N = 128  # the protocol's own limit
DEFAULT_TEMPERATURE = 1.0  # the protocol's default, not `MLLM.chat`'s


@dataclass(frozen=True)
class _ChatRequest:
    """The body of a chat request, checked."""

    messages: list[Message]
    sampling: Sampling
    top_logprobs: int  # 0: no log-probabilities wanted


def build_app(mllm: MLLM, max_body_bytes: int = MAX_BODY_BYTES) -> Starlette:
    """The ASGI application: POST /v1/chat/completions, GET /v1/models, GET /health."""

    async def chat(request: Request) -> JSONResponse:
        try:
            body = b"".join([chunk async for chunk in limited_body(request, max_body_bytes)])
            call = await asyncio.to_thread(_parse, body, mllm.name)  # decoding images takes seconds
            replies = await mllm.chat(call.messages, call.sampling)
        except ValueError as error:
            return refusal(error)
        except CallFailed as error:
            return error_response(503, str(error))
        return JSONResponse(_completion(mllm.name, replies, call.top_logprobs))

    return application(mllm.name, [Route("/v1/chat/completions", chat, methods=["POST"])])


def run(mllm: MLLM, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve `mllm` until interrupted. There is no authentication: listen beyond loopback only in a closed network."""
    import uvicorn

    uvicorn.run(build_app(mllm), host=host, port=port, log_level="warning", access_log=False)


def _parse(body: bytes, served: str) -> _ChatRequest:
    """A request body to a typed call; `ValueError` in one sentence for anything else."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the request body is not valid JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("the request body must be a JSON object")
    check_model(fields.get("model"), served)
    if fields.get("stream"):
        raise ValueError("stream is not supported; leave it out")
    limit = "max_completion_tokens" if fields.get("max_completion_tokens") is not None else "max_tokens"
    temperature = _number(fields, "temperature", 0.0, 2.0)
    wants_logprobs = fields.get("logprobs") is True
    return _ChatRequest(
        messages=_messages(fields.get("messages")),
        sampling=Sampling(
            temperature=DEFAULT_TEMPERATURE if temperature is None else temperature,
            max_tokens=_integer(fields, limit, 1, 2**31) or 4096,
            seed=_integer(fields, "seed", -(2**63), 2**63 - 1),
            n=_integer(fields, "n", 1, MAX_N) or 1,
        ),
        top_logprobs=(_integer(fields, "top_logprobs", 0, 100) or 1) if wants_logprobs else 0,
    )


def _number(fields: dict[str, Any], name: str, low: float, high: float) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, got {shown(value)}")
    return float(value)


def _integer(fields: dict[str, Any], name: str, low: int, high: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, got {shown(value)}")
    return value


def _messages(entries: Any) -> list[Message]:
    if not isinstance(entries, list) or not entries:
        raise ValueError("messages must be a list of one or more messages")
    contents = [entry.get("content") for entry in entries if isinstance(entry, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    num_images = sum(isinstance(part, dict) and part.get("type") == "image_url" for part in parts)
    if num_images > MAX_IMAGES:  # before any is decoded
        raise ValueError(f"a request may hold {MAX_IMAGES} images, got {num_images}")
    messages, num_pixels = [], 0
    for entry in entries:
        messages.append(_message(entry))
        pictures = [part["image"] for part in messages[-1]["content"] if part["type"] == "image"]
        num_pixels += sum(picture.width * picture.height for picture in pictures)
        if num_pixels > MAX_REQUEST_PIXELS:
            raise ValueError(f"the images of a request may have {MAX_REQUEST_PIXELS:,} pixels together")
    return messages


def _message(entry: Any) -> Message:
    role = entry.get("role") if isinstance(entry, dict) else None
    if role not in ("system", "user", "assistant"):
        raise ValueError(f"a message's role must be system, user or assistant, got {shown(role)}")
    content = entry.get("content")
    if isinstance(content, str):
        return {"role": role, "content": [_text_part(content)]}
    if not isinstance(content, list):
        raise ValueError("a message's content must be a text or a list of parts")
    return {"role": role, "content": [_part(part) for part in content]}


def _part(part: Any) -> TextPart | ImagePart:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return _text_part(part["text"])
    if kind == "image_url":
        link = part.get("image_url")
        url = link.get("url") if isinstance(link, dict) else None
        if not isinstance(url, str):
            raise ValueError('an image part must look like {"type": "image_url", "image_url": {"url": "data:..."}}')
        return {"type": "image", "image": from_data_uri(url)}
    raise ValueError(f"a content part must be a text or an image_url, got type {shown(kind)}")


def _text_part(text: str) -> TextPart:
    return {"type": "text", "text": text.encode("utf-8", "replace").decode("utf-8")}  # JSON allows lone surrogates


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
