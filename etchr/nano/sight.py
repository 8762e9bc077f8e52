"""What the embedded reader can see: measurements on pixels, with numpy alone.

Fine detail is read inside a highlighted region only (`find_box`, then `crop`); whether the rest of a picture stayed as
it was is seen at a glance of 16 x 16 blocks; grids are seen by the colours of their cells. All coordinates are
fractions of the picture's side, so that a source and an edit of another size compare.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]

# Hue in degrees of the colours the reader has a word for.
HUES = {"red": 0, "orange": 30, "yellow": 48, "green": 138, "teal": 184, "blue": 228, "purple": 277, "pink": 310}
INK_BELOW = 95  # a pixel whose brightest channel is below this is ink
RED_GAIN = 55  # of `_redness`: a pixel that has it, and has gained it, was marked red by the edit
LEAST_CLOSURE, MOST_STRAY = 0.6, 0.4  # of `RedBox`: red marks beyond these are no box
MAX_SIDE = 1024  # px to which pictures are brought before they are measured
GLANCE = 16  # blocks a side that a glance resolves


@dataclass(frozen=True)
class DrawnBox:
    """A rectangle in fractions of the side."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class RedBox(DrawnBox):
    """A box that an edit drew, and how well."""

    closure: float  # share of its frame that is red
    stray: float  # share of the red that is not its frame


def pixels(image: Image.Image, size: int | None = None) -> Array:
    """RGB as float (H, W, 3) in 0..255, scaled to `size` x `size` by area where one is given."""
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BOX)
    return np.asarray(image.convert("RGB"), np.float32)


def glance(image: Image.Image) -> Array:
    """The picture as 16 x 16 mean colours."""
    return pixels(image, GLANCE)


def colour_names(rgb: Array) -> Array:
    """The colour word of every pixel (..., 3) -> (...); "" for greys, whites, blacks and pale tints."""
    top, bottom = rgb.max(-1), rgb.min(-1)
    chroma = np.maximum(top - bottom, 1e-6)
    r, g, b = np.moveaxis(rgb, -1, 0)
    hue = 60 * np.where(top == r, (g - b) / chroma % 6, np.where(top == g, (b - r) / chroma + 2, (r - g) / chroma + 4))
    words, angles = np.array(list(HUES)), np.array(list(HUES.values()))
    distance = np.abs((hue[..., None] - angles + 180) % 360 - 180)
    vivid = (chroma > 70) & (chroma > 0.4 * top)
    return np.where(vivid & (distance.min(-1) < 24), words[distance.argmin(-1)], "")


def ink(rgb: Array) -> Array:
    """Where dark pixels are: text and marks."""
    return rgb.max(-1) < INK_BELOW


def spread(mask: Array) -> float:
    """How far the marked pixels lie apart, in log: 0 for a disc, larger for what is in several places."""
    rows, columns = np.nonzero(mask)
    return float(np.log(np.sqrt(2 * np.pi * max(rows.var() + columns.var(), 1e-6) / len(rows))))


def changed(source: Image.Image, edit: Image.Image, outside: DrawnBox | None = None) -> float:
    """The largest change of a block's mean colour between source and edit at a glance, 0..1, beside the box."""
    difference = np.abs(glance(source) - glance(edit)).mean(-1) / 255
    if outside is not None:
        left, top = int(outside.left * GLANCE), int(outside.top * GLANCE)
        right, bottom = int(np.ceil(outside.right * GLANCE)), int(np.ceil(outside.bottom * GLANCE))
        difference[max(top, 0) : bottom, max(left, 0) : right] = 0
    return float(difference.max())


def find_box(source: Image.Image, edit: Image.Image) -> tuple[RedBox | None, str]:
    """The one red box that the edit adds to the source, and in words why there is none."""
    size = min(max(edit.size), MAX_SIDE)
    after, before = _redness(pixels(edit, size)), _redness(pixels(source, size))
    red = (after > RED_GAIN) & (after - before > RED_GAIN)
    if red.sum() < size * size * 0.004:
        return None, "there is no red box"
    rows, columns = np.flatnonzero(red.sum(1) >= 0.05 * size), np.flatnonzero(red.sum(0) >= 0.05 * size)
    if not len(rows) or not len(columns):
        return None, "there is no red box"
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    if min(bottom - top, right - left) < 0.1 * size:
        return None, "the red marks form no box"
    line = max(2, round(size / 32))
    frame = np.zeros_like(red)
    frame[top:bottom, left:right] = True
    frame[top + line : bottom - line, left + line : right - line] = False
    closure, stray = float(red[frame].mean()), float((red & ~frame).sum() / red.sum())
    if closure < LEAST_CLOSURE or stray > MOST_STRAY:
        return None, "the red marks are more or less than one whole box"
    return RedBox(left / size, top / size, right / size, bottom / size, closure, stray), ""


def _redness(rgb: Array) -> Array:
    """How far red stands above the other channels; soft frames still gain, whatever they are drawn over."""
    return rgb[..., 0] - np.maximum(rgb[..., 1], rgb[..., 2])


def crop(image: Image.Image, box: DrawnBox, margin: float = 0.035) -> Array:
    """The pixels inside a box's frame, at full resolution."""
    width, height = image.size
    left, right = (box.left + margin) * width, (box.right - margin) * width
    top, bottom = (box.top + margin) * height, (box.bottom - margin) * height
    return pixels(image)[max(round(top), 0) : round(bottom), max(round(left), 0) : round(right)]


def cells(image: Image.Image, count: int, border: float = 0.0) -> Array:
    """Mean colours (count, count, 3) of the middles of a grid's cells; `border` is the frame's share of the side."""
    size = min(max(image.size), MAX_SIDE)
    if (1 - 2 * border) * size < 4 * count:
        return np.zeros((count, count, 3), np.float32)  # too fine to be seen: black cells
    rgb = pixels(image, size)
    first, step = border * size, (1 - 2 * border) * size / count
    out = np.zeros((count, count, 3), np.float32)
    for r in range(count):
        for c in range(count):
            y, x = first + (r + 0.5) * step, first + (c + 0.5) * step
            reach = max(step * 0.25, 0.5)
            out[r, c] = rgb[round(y - reach) : round(y + reach), round(x - reach) : round(x + reach)].mean((0, 1))
    return out


LIKE_NO_DIGIT = 0.3  # mean distance of strokes from a bitmap
# 3x5 bitmaps of the digits that the reader has learned to read.
_GLYPHS = {
    0: "111101101101111", 1: "010110010010111", 2: "111001111100111", 3: "111001111001111", 4: "101101111001001",
    5: "111100111001111", 6: "111100111101111", 7: "111001010010010", 8: "111101111101111", 9: "111101111001111",
}  # fmt: skip


@dataclass(frozen=True)
class Digit:
    """A digit that was read; how far the strokes are from its bitmap, 0..1, and how much farther from the next."""

    value: int
    distance: float
    gap: float


def read_digit(mask: Array) -> Digit | None:
    """The digit whose strokes `mask` (H, W) shows, or None if it is like none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) < 3 or len(columns) < 1:
        return None
    glyph = Image.fromarray((mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] * 255).astype(np.uint8))
    seen = np.asarray(glyph.resize((3, 5), Image.Resampling.BOX), np.float32).reshape(-1) / 255
    distances = {digit: float(np.abs(seen - [int(bit) for bit in bits]).mean()) for digit, bits in _GLYPHS.items()}
    (best, distance), (_, next_distance) = sorted(distances.items(), key=lambda pair: pair[1])[:2]
    return Digit(best, distance, next_distance - distance) if distance < LIKE_NO_DIGIT else None
