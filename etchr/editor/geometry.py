"""ONE size policy for supervised training, reinforcement learning and inference.

A picture keeps its aspect ratio, is never enlarged, has at most `max_pixels`, and its sides are floored to multiples of
16 (the editor's patch). It is resized, never cropped: source and edit cover the same scene and align pixel to pixel.
Training and inference through different sizes shifts the edits, which is why this file is the only one that decides.
"""

import math

from PIL import Image

from etchr.images import upright

MAX_PIXELS = 1024 * 1024  # of a reference picture; the diffusers pipeline caps its references at the same area
MULTIPLE_OF = 16  # pixels per latent token: 8 (VAE) x 2 (patch)
MIN_SIDE = 16  # our editor's; the diffusers pipeline takes no side below 64 and no aspect ratio above 8


def fit_size(
    width: int, height: int, *, max_pixels: int = MAX_PIXELS, multiple_of: int = MULTIPLE_OF, min_side: int = MIN_SIDE
) -> tuple[int, int]:
    """The (width, height) in pixels at which a `width` x `height` picture is edited.

    Both sides are multiples of `multiple_of` and at least `min_side`, the area is at most `max_pixels`, and no side
    grows except one shorter than `min_side`, which becomes `min_side`. A size that satisfies this is returned as it
    is. In a panorama so thin that its short side has to be raised, the long side gives way to keep the area.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a picture needs at least 1x1 pixels, got {width}x{height}")
    if multiple_of < 1 or min_side < multiple_of or min_side % multiple_of:
        raise ValueError(f"min_side must be a positive multiple of multiple_of={multiple_of}, got {min_side}")
    if max_pixels < min_side**2:
        raise ValueError(
            f"max_pixels={max_pixels} leaves no room for sides of at least {min_side} px; give at least {min_side**2}"
        )

    def floored(side: int) -> int:
        return max(side // multiple_of * multiple_of, min_side)

    if width * height > max_pixels:  # integer square roots: the area can not end a pixel above the cap
        width, height = math.isqrt(max_pixels * width // height), math.isqrt(max_pixels * height // width)
    width, height = floored(width), floored(height)
    if width * height > max_pixels:  # only where the short side was raised to min_side
        if width < height:
            height = floored(max_pixels // width)
        else:
            width = floored(max_pixels // height)
    return width, height


def fit(
    image: Image.Image,
    *,
    max_pixels: int = MAX_PIXELS,
    multiple_of: int = MULTIPLE_OF,
    min_side: int = MIN_SIDE,
) -> Image.Image:
    """`image`, upright RGB, at its `fit_size`; the same pixels where it already has that size."""
    image = upright(image)
    size = fit_size(*image.size, max_pixels=max_pixels, multiple_of=multiple_of, min_side=min_side)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
