"""Reading and writing images that come from outside: every picture enters the project through this file.

Files, bytes and data URIs are hostile: they are limited in bytes and pixels before they are decoded, decoded by Pillow
alone, turned upright (EXIF) and returned as plain 8-bit RGB.
"""

import base64
import binascii
import io
import struct
import warnings
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError

MAX_BYTES = 256 * 2**20  # of an encoded image
MAX_PIXELS = 175 * 10**6  # of a decoded one, just under Pillow's own hard limit; HR-Bench 8K has 33 million
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # no EPS: Pillow hands it to Ghostscript
DECODE_ERRORS = (OSError, SyntaxError, RuntimeError, TypeError, Image.DecompressionBombError)
TURNS = {  # EXIF orientation -> what turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(path: str | Path) -> Image.Image:
    """The image at `path`, upright RGB. `ValueError` in one sentence if it is missing, unreadable or too large."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no image file at {path}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read")
    try:
        return decode_image(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def decode_image(data: bytes) -> Image.Image:
    """Encoded bytes to an upright RGB image; `ValueError` for anything that is no image or is over the limits."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"image has {len(data):,} bytes; at most {MAX_BYTES:,} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the bomb warning (our own limit follows) and complaints about metadata
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"image has {width}x{height} pixels; at most {MAX_PIXELS:,} are decoded")
            image.load()
            return upright(image)
    except UnidentifiedImageError:
        raise ValueError(f"not an image; {', '.join(FORMATS)} are read") from None
    except DECODE_ERRORS as error:
        raise ValueError(f"not a readable image ({error})") from None


def upright(image: Image.Image) -> Image.Image:
    """`image` as 8-bit RGB, turned as its EXIF orientation says; the same object where that changes nothing."""
    turn = TURNS.get(_orientation(image))
    rgb = to_rgb(image)
    if turn is None:
        return rgb
    turned = rgb.transpose(turn)
    turned.info = {}  # a second call must not turn it again
    return turned


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none. Damaged EXIF is common and no reason to refuse the pixels."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (*DECODE_ERRORS, ValueError, struct.error):
        return 1
    return value if isinstance(value, int) else 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode to 8-bit RGB: transparency over white, 16-bit and float greys scaled to 0..255."""
    if image.mode in ("P", "PA") and image.palette is None:
        raise ValueError("image has palette indices but no palette")
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = image.convert("F")
        top = 65535.0 if image.mode.startswith("I;16") else _white_level(grey)
        return grey.point(lambda value: value * (255.0 / top)).convert("L").convert("RGB")
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _white_level(grey: Image.Image) -> float:
    """The value that means white in a mode that does not say it: the smallest of 1, 255 and 65535 that holds all."""
    high = grey.getextrema()[1]
    assert isinstance(high, float)  # one band
    return 65535.0 if high > 255 else 255.0 if high > 1 else 1.0


def encode_png(image: Image.Image) -> bytes:
    """Lossless PNG bytes without metadata: equal pixels give equal bytes. Other modes than L, RGB, RGBA become RGB."""
    if image.mode not in ("L", "RGB", "RGBA"):
        image = to_rgb(image)
    buffer = io.BytesIO()
    Image.frombytes(image.mode, image.size, image.tobytes()).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def to_data_uri(image: Image.Image) -> str:
    """`image` as a PNG data URI."""
    return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode("ascii")


def from_data_uri(uri: str) -> Image.Image:
    """The image in a base64 data URI. Other URLs are refused: nothing is fetched."""
    head, _, body = uri.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64"):
        raise ValueError("only base64 image data URIs are read; URLs are not fetched")
    if len(body) > MAX_BYTES * 4 // 3 + 4:
        raise ValueError(f"image data URI is larger than {MAX_BYTES:,} bytes")
    try:
        return decode_image(base64.b64decode(body, validate=True))
    except binascii.Error:
        raise ValueError("image data URI is not valid base64") from None
