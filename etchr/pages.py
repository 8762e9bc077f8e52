"""What pages and reports show of data that comes from outside: texts stay texts, pictures have a bounded size."""

import base64
import io
import json
from typing import Any

from PIL import Image

from etchr.images import to_data_uri, to_rgb

MAX_SHORT = 300  # characters
QUALITY = 85  # of JPEG thumbnails


def short(words: object, limit: int = MAX_SHORT) -> str:
    """`words` on one line of at most `limit` characters, without what could steer a terminal or break an encoding."""
    line = " ".join(str(words)[: 4 * limit].split())
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return line if len(line) <= limit else line[: limit - 3] + "..."


def script_json(value: Any) -> str:
    """`value` as JSON that may stand in a <script>: no text in it can end the element or begin another.

    `ValueError` for NaN and infinities, which no page could parse.
    """
    text = json.dumps(value, allow_nan=False)  # ASCII alone, so the line ends that only JavaScript knows are escaped
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def thumbnail(image: Image.Image, side: int) -> Image.Image:
    """The picture with at most `side` px a side, its shape kept; one that is small enough is returned as it is."""
    if max(image.size) <= side:
        return image
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def encode_jpeg(image: Image.Image, quality: int = QUALITY) -> bytes:
    """JPEG bytes of the pixels alone, without metadata: equal pixels give equal bytes."""
    rgb, buffer = to_rgb(image), io.BytesIO()
    Image.frombytes("RGB", rgb.size, rgb.tobytes()).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def picture_uri(image: Image.Image, side: int) -> str:
    """A data URI of the picture: up to `side` px pixel by pixel (PNG), else of its thumbnail (JPEG)."""
    if max(image.size) <= side:
        return to_data_uri(image)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(thumbnail(image, side))).decode("ascii")
