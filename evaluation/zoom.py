"""Zoom into what an edit marks: the red box that it adds to the source, and that part of the source enlarged.

The paper's figure on charts shows this step: the box is drawn first, then a crop round it goes to the model as well.
"""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from etchr.boxes import RED, Box

SIDE = 768  # pixels of the longer side at which the frame is looked for
NEAR = 110  # distance of a colour from the frame's red, root of the squares over three channels of 0..255
GAIN = 45  # by which a pixel came nearer to it than it was in the source
LEAST_SHARE = 0.012  # of a side of the picture that a frame measures at least, its lines included
LEAST_FRAME = 0.55  # of a box's outline that must be red
MARGIN = 0.15  # of the box's longer side that the crop shows around it
LEAST_CROP, MOST_CROP = 384, 1024  # pixels of the crop's longer side; smaller ones are enlarged


def red_box(source: Image.Image, edit: Image.Image) -> Box | None:
    """The box in pixels of the source round which the edit draws a red frame: the largest one if it draws several.

    A frame is a connected set of pixels that turned red and covers most of the outline of its own bounding rectangle.
    The edit may have another size than the source.
    """
    width, height = source.size
    scale = min(1.0, SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    before, after = (_distance(image.resize(size, Image.Resampling.BOX)) for image in (source, edit))
    red = (after < NEAR) & (before - after > GAIN)
    labels, _ = ndimage.label(red, structure=np.ones((3, 3)))  # neighbours at corners too
    frames = [(rows, columns) for rows, columns in ndimage.find_objects(labels) if _is_frame(red[rows, columns], size)]
    if not frames:
        return None
    rows, columns = max(frames, key=lambda frame: red[frame].size)
    across, down = width / size[0], height / size[1]
    left, top, right, bottom = columns.start, rows.start, columns.stop, rows.stop
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


def _is_frame(part: NDArray[np.bool_], size: tuple[int, int]) -> bool:
    """Whether most of the outline of a part (H, W) of the mask is red, and its inside is not."""
    height, width = part.shape
    if width < LEAST_SHARE * size[0] or height < LEAST_SHARE * size[1]:
        return False
    line = max(1, round(min(part.shape) / 8))
    outline = part[:line].any(0), part[-line:].any(0), part[:, :line].any(1), part[:, -line:].any(1)
    inner = part[line:-line, line:-line]
    return min(side.mean() for side in outline) >= LEAST_FRAME and (inner.size == 0 or inner.mean() < 0.5)
