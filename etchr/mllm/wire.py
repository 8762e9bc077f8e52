"""What goes over the wire of the chat protocol and how it is read back: pure functions, no connection."""

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image

from etchr.http.endpoints import printable
from etchr.images import from_data_uri, to_data_uri, to_rgb
from etchr.mllm.protocol import ImagePart, Message, TextPart


def wire_messages(messages: Sequence[Message], max_pixels: int | None) -> list[dict[str, Any]]:
    """`messages` in the protocol's JSON; a lone text as a plain string, which text-only servers insist on."""
    wire = []
    for message in messages:
        parts = [_wire_part(part, max_pixels) for part in message["content"]]
        plain = len(parts) == 1 and parts[0]["type"] == "text"
        wire.append({"role": message["role"], "content": parts[0]["text"] if plain else parts})
    return wire


def _wire_part(part: TextPart | ImagePart, max_pixels: int | None) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "text", "text": printable(part["text"])}
    image = _capped(to_rgb(part["image"]), max_pixels)
    return {"type": "image_url", "image_url": {"url": to_data_uri(image)}}


def _capped(image: Image.Image, max_pixels: int | None) -> Image.Image:
    size = capped_size(image.size, max_pixels)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def capped_size(size: tuple[int, int], max_pixels: int | None) -> tuple[int, int]:
    """`size`, scaled down to at most `max_pixels` with its aspect ratio kept."""
    width, height = size
    if max_pixels is None or width * height <= max_pixels:
        return size
    scale = math.sqrt(max_pixels / (width * height))
    # Where one side would vanish it stays 1, and the other side alone must keep to the limit.
    return min(max_pixels, max(1, int(width * scale))), min(max_pixels, max(1, int(height * scale)))


MAX_REPLY_IMAGES = 8  # that are read of one completion
MAX_REPLY_PIXELS = 64 * 10**6  # of all of them together


def read_content(message: Any) -> tuple[str, tuple[Image.Image, ...]]:
    """The text of a completion's message, and the pictures that a unified model drew into it.

    Pictures stand among the parts of the content, or in a list `images` beside it; they are base64 data URIs. Raises
    `ValueError` for one that is none, or for too many or too large ones; URLs are not fetched.
    """
    message = message if isinstance(message, dict) else {}
    content, beside = message.get("content"), message.get("images")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    parts = [*(parts if isinstance(parts, list) else ()), *(beside if isinstance(beside, list) else ())]
    texts, uris = [], []
    for part in parts:
        part = part if isinstance(part, dict) else {}
        link = part.get("image_url")
        uri = link.get("url") if isinstance(link, dict) else link
        if isinstance(part.get("text"), str):
            texts.append(printable(part["text"]))
        elif isinstance(uri, str):
            uris.append(uri)
    if len(uris) > MAX_REPLY_IMAGES:
        raise ValueError(f"a reply may hold {MAX_REPLY_IMAGES} images, got {len(uris)}")
    images: list[Image.Image] = []
    for uri in uris:
        room = MAX_REPLY_PIXELS - sum(image.width * image.height for image in images)
        images.append(from_data_uri(uri, room))
    return "\n".join(texts), tuple(images)


# What services say for an end that the model chose, and for one at the limit of its tokens; in small letters.
WHOLE = frozenset({"stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed", "done"})
CALLS = frozenset({"tool_calls", "tool_use", "function_call"})
CUT = frozenset({"length", "max_tokens", "max_output_tokens", "max_length", "model_length", "token_limit"})


def read_finish_reason(value: Any) -> str | None:
    """`stop`, `tool_calls` or `length`, however a service spells it; none for a reply that it broke off itself.

    Where a service says nothing the reply is whole.
    """
    name = value.strip().lower() if isinstance(value, str) else ""
    if not name or name in WHOLE:
        return "stop"
    return "tool_calls" if name in CALLS else "length" if name in CUT else None


def token_count(usage: dict[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else None


def read_logprobs(choice: dict[str, Any]) -> tuple[dict[str, float], ...] | None:
    """Per token its candidates and their log p, the drawn one among them; None unless every token has some."""
    block = choice.get("logprobs")
    tokens = block.get("content") if isinstance(block, dict) else None
    if not isinstance(tokens, list) or not tokens:
        return None
    table = []
    for token in tokens:
        token = token if isinstance(token, dict) else {}
        top = token.get("top_logprobs")
        best: dict[str, float] = {}
        for candidate in [token, *(top if isinstance(top, list) else ())]:
            name, value = (candidate.get("token"), candidate.get("logprob")) if isinstance(candidate, dict) else (0, 0)
            if isinstance(name, str) and isinstance(value, int | float) and -1e9 < value < 1e9:  # also no NaN
                best[printable(name)] = max(float(value), best.get(printable(name), -math.inf))
        if not best:
            return None
        table.append(best)
    return tuple(table)
