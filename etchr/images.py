"""Reading and writing images that come from outside: every picture enters the project through this file.

Files, bytes and data URIs are hostile: they are limited in bytes and pixels before they are decoded, decoded by Pillow
alone, turned upright (EXIF) and returned as plain 8-bit RGB.
"""

import base64
import binascii
import functools
import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

MAX_BYTES = 256 * 2**20  # of an encoded image
MAX_PIXELS = 175 * 10**6  # of a decoded one, just under Pillow's own hard limit; HR-Bench 8K has 33 million
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")  # no EPS: Pillow hands it to Ghostscript
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PNG_TEXTS = (b"iTXt", b"tEXt", b"zTXt")
BAND = 256  # rows that are converted at a time
MOST_HIGHLIGHTS = 0.1  # of a float or 32-bit picture's pixels above black, that may lie beyond what is white in it
DECODE_ERRORS = (OSError, SyntaxError, RuntimeError, TypeError, MemoryError, Image.DecompressionBombError)
TURNS = {  # EXIF orientation -> what turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = {TURNS[value] for value in (5, 6, 7, 8)}  # these swap width and height


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


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS, drop_alpha: bool = False) -> Image.Image:
    """Encoded bytes to an upright RGB image; `ValueError` for anything that is no image or is over the limits.

    Transparent pixels become white, or with `drop_alpha` show the colour that is written behind their transparency.
    """
    with _opened(io.BytesIO(data), max_pixels) as image:
        image.load()
        return upright(image, drop_alpha)


@dataclass(frozen=True)
class ImageHeader:
    """What a picture says about itself before its pixels are decoded."""

    size: tuple[int, int]  # (width, height) in pixels, upright


def peek_image(stream: IO[bytes]) -> ImageHeader:
    """The header of an encoded image; `ValueError` as `decode_image`, except that damaged pixels go unnoticed."""
    with _opened(stream) as image:
        (width, height), noted = image.size, image
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow swaps the sides of this format alone by itself
            width, height = (image.tag_v2[tag] for tag in (ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength))
        elif isinstance(image, PngImagePlugin.PngImageFile):
            # its orientation may follow the pixels, which Pillow would decode to get there
            assert image.fp is not None  # before its pixels are loaded
            noted = Image.open(_png_notes(image.fp), formats=("PNG",))
        lies = TURNS.get(_orientation(noted)) in SIDEWAYS
        return ImageHeader((height, width) if lies else (width, height))


def _png_notes(stream: IO[bytes]) -> IO[bytes]:
    """A PNG of one pixel with the metadata that stand before and after the pixels of the one in `stream`."""
    notes = [_png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))]
    notes += [_read(stream, *place) for name, *place in _png_chunks(stream) if name in (b"eXIf", *PNG_TEXTS)]
    pixel = _png_chunk(b"IDAT", zlib.compress(bytes(2)))
    return io.BytesIO(PNG_MAGIC + b"".join(notes) + pixel + _png_chunk(b"IEND", b""))


def _png_chunks(stream: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of every whole chunk of the PNG in `stream`; none if it is no PNG."""
    end = stream.seek(0, io.SEEK_END)
    at = len(PNG_MAGIC) if _read(stream, 0, len(PNG_MAGIC)) == PNG_MAGIC else end
    name = b""
    while name != b"IEND" and at + 12 <= end:
        length, name = struct.unpack(">I4s", _read(stream, at, at + 8))
        at, start = at + length + 12, at
        if at <= end:
            yield name, start, at


def _read(stream: IO[bytes], start: int, end: int) -> bytes:
    stream.seek(start)
    return stream.read(end - start)


def _without_large_notes(stream: IO[bytes]) -> IO[bytes]:
    """`stream`, or a copy without the profiles and texts of a PNG that Pillow refuses to unpack: pixels need none."""
    left, kept, place = PngImagePlugin.MAX_TEXT_MEMORY, [], 0
    for name, start, end in _png_chunks(stream):
        if name == b"iCCP" or name in PNG_TEXTS:
            size = _unpacked(name, _read(stream, start + 8, end - 4))
            if size > min(left, PngImagePlugin.MAX_TEXT_CHUNK):
                kept.append((place, start))
                place = end
            else:
                left -= size
    if not kept:
        return stream
    pieces = [_read(stream, *piece) for piece in (*kept, (place, stream.seek(0, io.SEEK_END)))]
    return io.BytesIO(b"".join(pieces))


def _unpacked(name: bytes, data: bytes) -> int:
    """The bytes of a PNG's profile or text; of compressed ones counted to just over Pillow's limit."""
    packed = data.partition(b"\0")[2][1:]  # behind the keyword and the byte that names the method
    if name == b"iTXt":
        packed = packed[1:].split(b"\0", 2)[-1] if data.partition(b"\0")[2][:1] == b"\1" else b""
    if name == b"tEXt" or not packed:
        return len(data)
    try:
        return len(zlib.decompressobj().decompress(packed, PngImagePlugin.MAX_TEXT_CHUNK + 1))
    except zlib.error:  # which Pillow passes over
        return 0


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@contextmanager
def _opened(stream: IO[bytes], max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Pillow's image over `stream`, within the limits; what goes wrong inside becomes one sentence."""
    num_bytes = stream.seek(0, io.SEEK_END)
    if num_bytes > MAX_BYTES:
        raise ValueError(f"image has {num_bytes:,} bytes; at most {MAX_BYTES:,} are read")
    stream = _without_large_notes(stream)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the bomb warning (our own limit follows) and complaints about metadata
            image = Image.open(stream, formats=FORMATS)
            width, height = image.size
            if width * height > max_pixels:
                raise ValueError(f"image has {width}x{height} pixels; at most {max_pixels:,} are decoded")
            yield image
    except UnidentifiedImageError:
        raise ValueError(f"not an image; {', '.join(FORMATS)} are read") from None
    except DECODE_ERRORS as error:
        raise ValueError(f"not a readable image ({error})") from None


def upright(image: Image.Image, drop_alpha: bool = False) -> Image.Image:
    """`image` as 8-bit RGB, turned as its EXIF orientation says; the same object where that changes nothing."""
    turn = TURNS.get(_orientation(image))
    rgb = to_rgb(image, drop_alpha)
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


def to_rgb(image: Image.Image, drop_alpha: bool = False) -> Image.Image:
    """Any Pillow mode to 8-bit RGB: transparency over white or dropped, 16-bit and float greys scaled to 0..255."""
    if image.mode in ("P", "PA") and image.palette is None:
        raise ValueError("image has palette indices but no palette")
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _in_bands(image, functools.partial(_grey_to_rgb, white=_white(image)))
    over_white = image.has_transparency_data and not drop_alpha
    return _in_bands(image, _over_white if over_white else lambda band: band.convert("RGB"))


def _in_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """What `convert` makes of an image, some rows at a time: what it needs on the way is never there for all of it."""
    made = Image.new("RGB", image.size)
    for top in range(0, image.height, BAND):
        bottom = min(top + BAND, image.height)
        made.paste(convert(image.crop((0, top, image.width, bottom))), (0, top))
    return made


def _over_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def _white(image: Image.Image) -> float:
    """The level that means white in a grey of more than 8 bits.

    16 bits say it. In the other modes it is the smallest of 1, 255 and 65535 that nearly all pixels keep: a highlight,
    a broken pixel or an infinite one is clipped; it darkens no other pixel.
    """
    import numpy as np  # here, for who only sends and receives pictures starts without it

    if image.mode.startswith("I;16"):
        return 65535.0
    values = np.asarray(image)
    most = MOST_HIGHLIGHTS * np.count_nonzero(values > 0)
    return next((level for level in (1.0, 255.0) if np.count_nonzero(values > level) <= most), 65535.0)


def _grey_to_rgb(image: Image.Image, white: float) -> Image.Image:
    """A grey scaled so that `white` is 255; what is no number is black."""
    import numpy as np

    values = np.nan_to_num(np.asarray(image.convert("F")), posinf=white, neginf=0)
    return Image.fromarray(np.clip(values * (255.0 / white), 0, 255).astype(np.uint8)).convert("RGB")


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


def from_data_uri(uri: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image in a base64 data URI. Other URLs are refused: nothing is fetched."""
    return decode_image(data_uri_bytes(uri), max_pixels)


def data_uri_bytes(uri: str) -> bytes:
    """The encoded image in a base64 data URI; `ValueError` for any other URL."""
    head, _, body = uri.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64"):
        raise ValueError("only base64 image data URIs are read; URLs are not fetched")
    if len(body) > MAX_BYTES * 4 // 3 + 4:
        raise ValueError(f"image data URI is larger than {MAX_BYTES:,} bytes")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error:
        raise ValueError("image data URI is not valid base64") from None
