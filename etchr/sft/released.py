"""The sizes at which the released code trains, kept to compare with: `data.geometry=released`.

From DiffSynth-Studio at ETCHR's commit (`core/data/operators.py`, `pipelines/flux2_image.py`): target and condition are
sized apart from each other, bilinear with a centred crop; then the condition is brought to about one megapixel once
more, enlarged if it is smaller. Inference through diffusers does neither, which is why `native` is our default.
"""

import math

from PIL import Image
from torch import Tensor

CONDITION_AREA = 1024 * 1024
Size = tuple[int, int]


def target_size(width: int, height: int, max_pixels: int) -> Size:
    """Scaled down to `max_pixels` if larger, sides floored to multiples of 16; never enlarged."""
    if width * height > max_pixels:
        scale = math.sqrt(width * height / max_pixels)  # divided by, as there: the last bit decides about 16 pixels
        width, height = int(width / scale), int(height / scale)
    return max(width // 16 * 16, 16), max(height // 16 * 16, 16)


def condition_size(width: int, height: int) -> Size:
    """About 1024 x 1024 pixels of area at the same aspect ratio, sides rounded to multiples of 32."""
    ratio = width / height
    wide = math.sqrt(CONDITION_AREA * ratio)
    return max(round(wide / 32) * 32, 32), max(round(wide / ratio / 32) * 32, 32)


def pixel_values(levels: Tensor) -> Tensor:
    """Levels 0..255 in [-1, 1]: rounded to bfloat16 before they are scaled, not after."""
    return levels.bfloat16() * (2 / 255) - 1


def cover(image: Image.Image, size: Size) -> Image.Image:
    """`image` scaled (bilinear) until it covers `size`, the middle cut out."""
    width, height = size
    scale = max(width / image.width, height / image.height)
    scaled = (round(image.width * scale), round(image.height * scale))
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))
