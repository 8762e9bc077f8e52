"""Boxes in pixels: read from untrusted values, brought into their picture, and drawn round what they hold.

The edit of a question about a detail is the picture with a red frame round each box of the evidence (ETCHR,
arXiv 2605.23897, the families perception and chart). All functions are pure.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

RED = (230, 30, 30)  # of a frame
OUTSIDE = ("clip", "refuse")  # what becomes of a box that reaches out of its picture
MIN_KEPT = 0.5  # share of a box's area that must lie inside, or it is no longer a box of the thing it stands for
SLACK = 1.0  # pixels that a box may reach outside even where that is refused: sources round
MIN_SIDE = 32  # pixels of a picture's shorter side; a frame leaves nothing visible of a smaller one
LINES_PER_SIDE = 160  # line width: this part of the square root of the picture's area
MIN_LINE = 2  # pixels


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the picture; (x, y) is its upper left corner, x to the right and y down."""

    x: float
    y: float
    w: float
    h: float

    def edges(self) -> tuple[int, int, int, int]:
        """The smallest rectangle of whole pixels that holds the box: left, top, right, bottom; the last two exclusive.

        `OverflowError` for one that reaches to infinity; a box from `clip_box` does not.
        """
        right, bottom = math.ceil(self.x + self.w), math.ceil(self.y + self.h)
        return math.floor(self.x), math.floor(self.y), right, bottom

    def as_list(self) -> list[int]:
        """[x, y, w, h] in whole pixels, for `meta`."""
        left, top, right, bottom = self.edges()
        return [left, top, right - left, bottom - top]


def parse_box(value: Any) -> Box:
    """The box in a row: [x, y, w, h] or {x, y, w, h}, finite numbers, with an area; else `ValueError` names it."""
    if isinstance(value, Mapping) and all(name in value for name in "xywh"):
        value = [value[name] for name in "xywh"]
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) != 4:
        raise ValueError(f"box {_shown(value)} is not x, y, w, h")
    sides = []
    for number in value:
        try:
            side = float(number) if isinstance(number, int | float) and not isinstance(number, bool) else math.nan
        except OverflowError:  # an integer of hundreds of digits
            side = math.inf
        if not math.isfinite(side):
            raise ValueError(f"box {_shown(value)} holds {_shown(number)}, which is no finite number")
        sides.append(side)
    if sides[2] <= 0 or sides[3] <= 0:
        raise ValueError(f"box {_shown(value)} has no area: its width and height must be above 0")
    return Box(*sides)


def clip_box(box: Box, size: tuple[int, int], outside: str = "clip") -> Box:
    """The part of `box` that lies in a picture of `size` (width, height), in whole pixels, at least one.

    `ValueError` if less than `MIN_KEPT` of its area lies inside or, with `outside="refuse"`, if it reaches outside by
    more than `SLACK` pixels.
    """
    width, height = size
    right, bottom = box.x + box.w, box.y + box.h
    reach = max(-box.x, -box.y, right - width, bottom - height)
    shown = f"box {_shown([box.x, box.y, box.w, box.h])} in a picture of {width}x{height} px"
    if outside == "refuse" and reach > SLACK:
        raise ValueError(f"{shown} reaches {reach:.3g} px outside; outside=clip cuts such boxes")
    x0, y0, x1, y1 = max(box.x, 0.0), max(box.y, 0.0), min(right, width), min(bottom, height)
    if x0 >= x1 or y0 >= y1:
        raise ValueError(f"{shown} lies outside")
    if (share := ((x1 - x0) / box.w) * ((y1 - y0) / box.h)) < MIN_KEPT:
        raise ValueError(f"{shown} has only {share:.0%} of its area inside; {MIN_KEPT:.0%} are needed")
    left, top = math.floor(x0), math.floor(y0)
    return Box(left, top, math.ceil(x1) - left, math.ceil(y1) - top)


def read_boxes(values: Any, size: tuple[int, int], *, outside: str, most: int) -> list[Box]:
    """The boxes of a row, in whole pixels inside a picture of `size`, without repetitions; 1 to `most` of them.

    `ValueError` as `parse_box` and `clip_box`, for another number of boxes, and for a picture below `MIN_SIDE`.
    """
    if min(size) < MIN_SIDE:
        raise ValueError(
            f"a picture of {size[0]}x{size[1]} px is too small for a frame; {MIN_SIDE} px a side are needed"
        )
    if not isinstance(values, Sequence) or isinstance(values, str | bytes) or not values:
        raise ValueError(f"there are no boxes but {_shown(values)}")
    if len(values) > most:
        raise ValueError(f"there are {len(values):,} boxes; at most {most} are drawn")
    return list(dict.fromkeys(clip_box(parse_box(value), size, outside) for value in values))


def line_width(size: tuple[int, int]) -> int:
    """The width of a frame's line in a picture of `size`: the root of its area / 160, and 2 px at the least.

    So a line keeps its share of the picture when pictures are brought to one area: 2 px at 64x64, 3 at 640x480, 6 at
    1024x1024.
    """
    return max(MIN_LINE, round(math.sqrt(size[0] * size[1]) / LINES_PER_SIDE))


def draw_boxes(image: Image.Image, boxes: Iterable[Box]) -> Image.Image:
    """A copy of the RGB `image` with a red frame round each box; `ValueError` for a box that is not inside.

    A frame lies outside its box and touches it, so the box's own pixels stay as they are. Where the picture ends closer
    than a line's width, that side of the frame narrows to the room there is, but not below `MIN_LINE` px, and covers
    the outermost pixels of the box for want of other ones.
    """
    edited, line = image.copy(), line_width(image.size)
    draw = ImageDraw.Draw(edited)
    width, height = image.size
    for box in boxes:
        left, top, right, bottom = box.edges()
        if left < 0 or top < 0 or right > width or bottom > height or left >= right or top >= bottom:
            raise ValueError(f"box {box.as_list()} does not lie inside the picture of {width}x{height} px")
        x0, y0 = max(0, left - line), max(0, top - line)
        x1, y1 = min(width, right + line), min(height, bottom + line)
        thick = [max(MIN_LINE, room) for room in (left - x0, top - y0, x1 - right, y1 - bottom)]
        for bar in (
            (x0, y0, min(x0 + thick[0], x1), y1),
            (x0, y0, x1, min(y0 + thick[1], y1)),
            (max(x1 - thick[2], x0), y0, x1, y1),
            (x0, max(y1 - thick[3], y0), x1, y1),
        ):
            draw.rectangle((bar[0], bar[1], bar[2] - 1, bar[3] - 1), fill=RED)
    return edited


def _shown(value: Any) -> str:
    """A value in an error message, short whatever it is; lists one level deep, for a row may nest a thousand."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "[" + ", ".join(_shown_item(item) for item in value[:5]) + (", ...]" if len(value) > 5 else "]")
    return _shown_item(value)


def _shown_item(value: Any) -> str:
    if isinstance(value, int) and abs(value) >= 10**12:
        return "a huge integer"  # Python refuses to print some
    if isinstance(value, str | bytes | int | float | None):
        return repr(value[:60] if isinstance(value, str | bytes) else value)
    return f"a {type(value).__name__}"
