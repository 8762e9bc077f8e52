"""Zoom into what an edit marks: the red box that it adds to the source, and that part of the source enlarged.

The paper's figure on charts shows this step: the box is drawn first, then a crop round it goes to the model as well.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from etchr.boxes import RED, Box

SIDE = 768  # pixels of the longer side at which the frame is looked for
NEAR = 110  # distance of a colour from the frame's red, root of the squares over three channels of 0..255
GAIN = 30  # by which a pixel came nearer to it than it was in the source
BRIDGE = 1 / 128  # of the root of the picture's area, from either side
LEAST_SHARE = 0.012  # of a side of the picture that a frame measures at least, its lines included
LEAST_FRAME = 0.55  # of a box's outline that must be red
MARGIN = 0.15  # of the box's longer side that the crop shows around it
LEAST_CROP, MOST_CROP = 384, 1024  # pixels of the crop's longer side; smaller ones are enlarged


def red_box(source: Image.Image, edit: Image.Image) -> Box | None:
    """The red frame that the edit draws, as its outer edge in pixels of the source: the largest one of several.

    A frame is a connected set of pixels that turned red and covers most of the outline of its own bounding rectangle.
    The edit may have another size than the source.
    """
    from scipy import ndimage  # slow to load, and options name the systems that call this

    width, height = source.size
    scale = min(1.0, SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    before, after = (_distance(image.resize(size, Image.Resampling.BOX)) for image in (source, edit))
    turned = (after < NEAR) & (before - after > GAIN)
    # Where the source is reddish itself nothing turns red: such gaps are bridged by what is red in the edit.
    reach = max(1, round(BRIDGE * math.sqrt(size[0] * size[1])))
    red = turned | (ndimage.binary_dilation(turned, iterations=reach) & (after < NEAR))
    labels, _ = ndimage.label(red, structure=np.ones((3, 3)))  # neighbours at corners too
    frames = [edges for part in ndimage.find_objects(labels) if (edges := _frame(red, turned, part)) is not None]
    if not frames:
        return None
    left, top, right, bottom = max(frames, key=lambda edges: (edges[2] - edges[0]) * (edges[3] - edges[1]))
    across, down = width / size[0], height / size[1]
    return Box(left * across, top * down, (right - left) * across, (bottom - top) * down)


def zoomed(source: Image.Image, box: Box, margin: float = MARGIN) -> Image.Image:
    """The part of the source round a box, enlarged if it is small, at most `MOST_CROP` a side.

    `margin` is the share of the box's longer side that is shown around it.
    """
    margin *= max(box.w, box.h)
    left, top = max(0, math.floor(box.x - margin)), max(0, math.floor(box.y - margin))
    right = min(source.width, math.ceil(box.x + box.w + margin))
    bottom = min(source.height, math.ceil(box.y + box.h + margin))
    part = source.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    longer = max(part.size)
    wanted = min(max(longer, LEAST_CROP), MOST_CROP)
    if wanted == longer:
        return part
    width, height = (max(1, round(side * wanted / longer)) for side in part.size)
    return part.resize((width, height), Image.Resampling.LANCZOS)


def _distance(image: Image.Image) -> NDArray[np.float32]:
    """The distance (H, W) of every pixel's colour from the frame's red."""
    rgb = np.asarray(image.convert("RGB"), np.float32)
    return np.sqrt(((rgb - np.array(RED, np.float32)) ** 2).sum(-1))


def _frame(
    red: NDArray[np.bool_], turned: NDArray[np.bool_], part: tuple[slice, slice]
) -> tuple[int, int, int, int] | None:
    """The edges (left, top, right, bottom) of the frame in a part of the picture; None if what is there is none.

    A frame's sides are the outermost rows and columns of which most is red; what sticks out of them is not looked at.
    Its inside did not turn red.
    """
    seen = red[part]
    rows = np.flatnonzero(seen.mean(1) >= LEAST_FRAME)
    columns = np.flatnonzero(seen.mean(0) >= LEAST_FRAME)
    if not len(rows) or not len(columns):
        return None
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    if right - left < LEAST_SHARE * red.shape[1] or bottom - top < LEAST_SHARE * red.shape[0]:
        return None
    line = max(1, round(min(right - left, bottom - top) / 8))
    inner = turned[part][top + line : bottom - line, left + line : right - line]
    if inner.size and inner.mean() >= 0.5:
        return None
    y, x = part[0].start, part[1].start
    return int(x + left), int(y + top), int(x + right), int(y + bottom)
