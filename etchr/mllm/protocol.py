"""What an understanding model is to this project: one asynchronous `chat` call over text and pictures.

Two implementations: `chat.ChatClient` (any OpenAI-compatible endpoint) and `reader.Reader` (embedded). No torch.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

from PIL import Image

from etchr.http.endpoints import CallFailed as CallFailed  # what a chat raises; its callers take it from here


class TextPart(TypedDict):
    type: Literal["text"]
    text: str


class ImagePart(TypedDict):
    type: Literal["image"]
    image: Image.Image


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: list[TextPart | ImagePart]


@dataclass(frozen=True)
class Reply:
    """One decoded completion."""

    text: str
    finish_reason: str = "stop"  # "length": cut off at max_tokens
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    logprobs: tuple[dict[str, float], ...] | None = None  # per generated token: its top candidates and their log p
    images: tuple[Image.Image, ...] = ()  # pictures that a unified model drew into its reply, in order
    seconds: float | None = None  # that the call took, where it was made at another time (a run's journal)


@dataclass(frozen=True)
class Sampling:
    """How a model's replies are drawn."""

    temperature: float = 0.0
    max_tokens: int = 4096  # of a reply
    seed: int | None = None
    n: int = 1  # replies


GREEDY = Sampling()


class MLLM(Protocol):
    """An understanding model."""

    name: str  # written into every record

    async def chat(self, messages: Sequence[Message], sampling: Sampling = GREEDY) -> list[Reply]:
        """`sampling.n` completions of the conversation; raises `CallFailed` when there is no reply to be had."""
        ...


@asynccontextmanager
async def opened(model: MLLM) -> AsyncIterator[MLLM]:
    """A model ready for use: one with endpoints is asked whether they answer, and its connections are closed after."""
    try:
        if hasattr(model, "check"):
            await model.check()
        yield model
    finally:
        if hasattr(model, "aclose"):
            await model.aclose()


def user_message(text: str, *images: Image.Image) -> Message:
    """A user turn: the pictures in order, then the text."""
    parts: list[TextPart | ImagePart] = [{"type": "image", "image": image} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}
