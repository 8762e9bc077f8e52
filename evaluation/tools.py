"""The tools of the tool-based system: pictures in, a picture out, drawn by our own functions. No code is executed.

A model asks for a tool in its reply, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, the form in which
models are trained to write such calls (Hermes, Qwen), so that any chat endpoint will do. What stands there is hostile
text: names, coordinates and sizes are checked, and a mistake is told to the model in one sentence.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from etchr.boxes import RED, Box, draw_boxes, line_width
from evaluation.zoom import zoomed

SCALE = 1000  # coordinates run from 0 to this along either side
MAX_CALLS = 3  # of one reply that are looked at
MAX_CALL = 4000  # characters of a call
MAX_POINTS = 64  # of a line
MAX_RATIO = 200  # of a crop's sides: Qwen's image processors refuse a picture beyond it, and with it the whole request
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)

DESCRIPTION = """crop {"box": [left, top, right, bottom]}: that part of image 1, enlarged
draw_box {"box": [left, top, right, bottom]}: image 1 with a red box there
draw_line {"points": [[x, y], [x, y], ...]}: image 1 with a red line through these points"""


@dataclass(frozen=True)
class ToolCall:
    """A call that a model has written: what it asks for, or why that cannot be read."""

    name: str
    arguments: dict[str, Any]
    mistake: str | None = None


def parse_calls(text: str) -> list[ToolCall]:
    """The tool calls in a reply, the first `MAX_CALLS` of them."""
    return [_parse(body) for body in _CALL.findall(text)[:MAX_CALLS]]


def _parse(body: str) -> ToolCall:
    try:
        if len(body) > MAX_CALL:
            raise ValueError
        value = json.loads(body)
        arguments = value.get("arguments", {})
        if isinstance(arguments, str):  # some write the arguments as JSON in a text
            arguments = json.loads(arguments)
        if isinstance(value.get("name"), str) and isinstance(arguments, dict):
            return ToolCall(value["name"], arguments)
    except (ValueError, AttributeError, RecursionError):
        pass
    return ToolCall("tool", {}, 'a tool call is {"name": "...", "arguments": {...}} in JSON')


def run_tool(call: ToolCall, image: Image.Image) -> Image.Image:
    """The picture that a call asks for; `ValueError` in a sentence for the model if it cannot be drawn."""
    if call.mistake:
        raise ValueError(call.mistake)
    if call.name not in TOOLS:
        raise ValueError(f"there is no tool {call.name[:40]!r}; there are: {', '.join(TOOLS)}")
    return TOOLS[call.name](image, call.arguments)


def crop(image: Image.Image, arguments: dict[str, Any]) -> Image.Image:
    part = zoomed(image, _box(image, arguments), margin=0.0)
    if max(part.size) > MAX_RATIO * min(part.size):
        width, height = part.size
        raise ValueError(
            f"this crop is too thin to be seen, {width}x{height} pixels: a side is {MAX_RATIO} times the other at most"
        )
    return part


def draw_box(image: Image.Image, arguments: dict[str, Any]) -> Image.Image:
    return draw_boxes(image, [_box(image, arguments)])


def draw_line(image: Image.Image, arguments: dict[str, Any]) -> Image.Image:
    points = arguments.get("points")
    if not isinstance(points, list) or not 2 <= len(points) <= MAX_POINTS:
        raise ValueError(f"points must be a list of 2 to {MAX_POINTS} pairs [x, y]")
    drawn = image.copy()
    corners = [_point(image, pair) for pair in points]
    ImageDraw.Draw(drawn).line(corners, fill=RED, width=line_width(image.size), joint="curve")
    return drawn


TOOLS: dict[str, Callable[[Image.Image, dict[str, Any]], Image.Image]] = {
    "crop": crop,
    "draw_box": draw_box,
    "draw_line": draw_line,
}


def _box(image: Image.Image, arguments: dict[str, Any]) -> Box:
    """The box of a call in pixels of the picture, at least one pixel large."""
    edges = arguments.get("box")
    if not isinstance(edges, list) or len(edges) != 4:
        raise ValueError("box must be [left, top, right, bottom]")
    left, top = _point(image, edges[:2])
    right, bottom = _point(image, edges[2:])
    if right <= left or bottom <= top:
        raise ValueError(
            f"the box {[round(_number(edge)) for edge in edges]} is empty: right and bottom must be larger"
        )
    x, y = min(math.floor(left), image.width - 1), min(math.floor(top), image.height - 1)
    return Box(x, y, max(1, math.ceil(right) - x), max(1, math.ceil(bottom) - y))


def _point(image: Image.Image, pair: Any) -> tuple[float, float]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise ValueError("a point is a pair [x, y]")
    x, y = (min(max(_number(value), 0), SCALE) / SCALE for value in pair)
    return x * image.width, y * image.height


def _number(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"coordinates are numbers from 0 to {SCALE}")
    return number
