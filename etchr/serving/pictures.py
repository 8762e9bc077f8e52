"""Pictures in requests: limits before they are decoded, and the memory of large ones given back."""

import ctypes
import io
from collections.abc import Iterable

from etchr.images import peek_image

MAX_PIXELS = 40 * 10**6  # of one picture; an 8K photograph has 33 million
MAX_REQUEST_PIXELS = 120 * 10**6  # of all pictures of a request; 360 MB when decoded
LARGE = 4 * 10**6  # pixels from which memory is given back


def num_pixels(pictures: Iterable[bytes]) -> int:
    """The pixels of encoded pictures together, by their headers; `ValueError` for what is none or over a limit."""
    total = 0
    for data in pictures:
        width, height = peek_image(io.BytesIO(data)).size
        if width * height > MAX_PIXELS:
            raise ValueError(f"image has {width}x{height} pixels; at most {MAX_PIXELS:,} are decoded here")
        total += width * height
    if total > MAX_REQUEST_PIXELS:
        raise ValueError(f"the images of a request may have {MAX_REQUEST_PIXELS:,} pixels together, got {total:,}")
    return total


def give_back(pixels: int) -> None:
    """Give memory back to the system after so many pixels: glibc would keep for ever what each thread freed."""
    if pixels > LARGE and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
