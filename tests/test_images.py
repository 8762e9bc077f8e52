"""Pictures from outside: every mode and format to upright RGB, hostile bytes to one clear error."""

import base64
import io
import random
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from etchr import images
from etchr.images import decode_image, encode_png, from_data_uri, open_image, peek_image, to_data_uri, upright

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "photos"


def picture(width: int = 40, height: int = 24) -> Image.Image:
    """Four blocks of different colours, so that every turn and flip shows."""
    image = Image.new("RGB", (width, height), (250, 250, 250))
    image.paste((200, 10, 10), (0, 0, width // 2, height // 2))
    image.paste((10, 160, 10), (width // 2, 0, width, height // 2))
    image.paste((10, 10, 200), (0, height // 2, width // 2, height))
    return image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG file of these chunks, right or wrong, with right checksums."""
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def header(width: int, height: int, depth: int = 8, colour: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def largest_difference(left: Image.Image, right: Image.Image) -> int:
    assert (left.mode, left.size) == ("RGB", right.size)
    return int(np.abs(np.asarray(left, int) - np.asarray(right.convert("RGB"), int)).max())


def mean_difference(left: Image.Image, right: Image.Image) -> float:
    assert (left.mode, left.size) == ("RGB", right.size)
    return float(np.abs(np.asarray(left, int) - np.asarray(right, int)).mean())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    assert largest_difference(decode_image(encoded(picture(), kind)), picture()) == 0


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "MPO"])
def test_lossy_formats_are_read(kind: str) -> None:
    assert mean_difference(decode_image(encoded(picture(), kind, quality=95)), picture()) < 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_every_exif_orientation_is_turned_upright_once(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    data = encoded(picture(), kind, exif=exif, **options)
    decoded = decode_image(data)
    assert largest_difference(decoded, ImageOps.exif_transpose(Image.open(io.BytesIO(data)))) == 0
    assert decoded.size == ((40, 24) if orientation < 5 else (24, 40))
    assert upright(decoded) is decoded or upright(decoded).tobytes() == decoded.tobytes()


@pytest.mark.parametrize("value", [0, 9, 65535, "left"])
def test_an_orientation_that_does_not_exist_is_ignored(value: Any) -> None:
    image = picture()
    image.getexif()[0x0112] = value
    assert upright(image).tobytes() == picture().tobytes()


def test_damaged_exif_is_no_reason_to_refuse_the_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 6, "text", 72.0
    good, rng = exif.tobytes(), random.Random(0)
    for _ in range(300):
        block = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            block[rng.randrange(6, len(block))] = rng.randrange(256)
        assert sorted(decode_image(encoded(picture(), "PNG", exif=bytes(block))).size) == [24, 40]


def test_cmyk_jpeg() -> None:
    decoded = decode_image(encoded(picture().convert("CMYK"), "JPEG", quality=95))
    assert mean_difference(decoded, picture()) < 4


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (257 * 128, 128), (65535, 255), (200, 0)])
def test_16_bit_png_is_scaled_by_its_depth(value: int, grey: int) -> None:
    """Also a dark one: 200 of 65535 is black, not 200 of 255."""
    image = Image.fromarray(np.full((4, 6), value, np.uint16))
    assert decode_image(encoded(image, "PNG")).getpixel((0, 0)) == (grey, grey, grey)


@pytest.mark.parametrize(("value", "grey"), [(0.5, 127), (128.0, 128), (32768.0, 127), (-3.0, 0)])
def test_float_tiff_is_scaled_by_its_range(value: float, grey: int) -> None:
    image = Image.fromarray(np.array([[value, 0.0]], np.float32))
    white = {0.5: 1.0, 128.0: 255.0, 32768.0: 65535.0, -3.0: 1.0}[value]
    image.putpixel((1, 0), white)
    assert decode_image(encoded(image, "TIFF")).getpixel((0, 0))[0] == pytest.approx(grey, abs=1)


def test_a_highlight_or_a_broken_pixel_of_a_float_picture_is_clipped_and_darkens_no_other() -> None:
    dark = [1 / 255, 2 / 255, 0.5, 0.75, 0.25, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0]
    cases = {"mode F": (np.float32, [1.2, 4, 300, 1e30, np.inf]), "mode I": (np.int32, [300, 2**31 - 128])}
    for kind, odds in cases.values():
        greys = np.array([dark] * 2, np.float32) * (1 if kind is np.float32 else 255)
        plain = np.asarray(decode_image(encoded(Image.fromarray(greys.astype(kind)), "TIFF")), int)
        assert plain[0, 11, 0] == 255
        for odd in odds:
            greys[1, 11] = odd
            seen = np.asarray(decode_image(encoded(Image.fromarray(greys.astype(kind)), "TIFF")), int)
            assert (seen == plain).all(), odd
    for odd in (np.nan, -np.inf, -5):
        seen = decode_image(encoded(Image.fromarray(np.array([[0.5, 1.0, odd]], np.float32)), "TIFF"))
        assert [seen.getpixel((place, 0))[0] for place in range(3)] == [127, 255, 0]


def test_palette_with_and_without_transparency() -> None:
    colours = picture().quantize(4)
    assert largest_difference(decode_image(encoded(colours, "PNG")), picture()) < 8
    index = colours.getpixel((0, 0))
    seen = decode_image(encoded(colours, "PNG", transparency=index))
    assert seen.getpixel((0, 0)) == (255, 255, 255)
    assert seen.getpixel((39, 0)) == colours.convert("RGB").getpixel((39, 0))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize(("alpha", "expected"), [(255, 0), (0, 255), (51, 204)])
def test_alpha_is_laid_over_white(mode: str, alpha: int, expected: int) -> None:
    image = Image.new(mode, (3, 3), (0, alpha) if mode == "LA" else (0, 0, 0, alpha))
    assert decode_image(encoded(image, "PNG")).getpixel((1, 1)) == (expected,) * 3


def test_a_transparent_colour_key_is_laid_over_white() -> None:
    decoded = decode_image(encoded(picture(), "PNG", transparency=(200, 10, 10)))
    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.getpixel((39, 0)) == (10, 160, 10)


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [picture(), Image.new("RGB", (40, 24), "black"), Image.new("RGB", (40, 24), "white")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert largest_difference(decode_image(data), picture()) < 8


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (1, 3000), (3000, 1)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    assert decode_image(encoded(Image.new("RGB", size), "PNG")).size == size


HOSTILE = {
    "nothing": b"",
    "text": b"<html>no image</html>",
    "truncated jpeg": encoded(picture(400, 300), "JPEG")[:2000],
    "truncated png": encoded(picture(400, 300), "PNG")[:150],
    "header alone": png([header(10, 10)]),
    "no pixels": png([header(0, 10), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]),
    "palette picture without palette": png(
        [header(2, 2, colour=3), (b"IDAT", zlib.compress(bytes(6))), (b"IEND", b"")]
    ),
    "bad rows": png([header(10, 10), (b"IDAT", b"no zlib"), (b"IEND", b"")]),
    "text bomb": png([header(2, 2), (b"zTXt", b"k\0\0" + zlib.compress(bytes(2**24))), (b"IEND", b"")]),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_bytes_are_one_clear_error(case: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing leaks as a warning either
        with pytest.raises(ValueError, match=r"\w") as caught:
            decode_image(HOSTILE[case])
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)  # no object addresses: the same bytes give the same message


@pytest.mark.parametrize(("width", "height"), [(13_300, 13_300), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(ValueError, match=r"at most 175,000,000|exceeds limit|dimensions"):
        decode_image(png([header(width, height), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_damaged_bytes_are_a_picture_or_a_value_error(kind: str) -> None:
    good, rng = encoded(picture(), kind), random.Random(0)
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            assert decode_image(bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])).mode == "RGB"
        except ValueError:
            continue


# ------------------------------------------------------------------------------------------------------- headers


def peeked(data: bytes) -> tuple[int, int]:
    return peek_image(io.BytesIO(data)).size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
def test_a_header_gives_the_upright_size(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(), kind, exif=exif)
    assert peeked(data) == decode_image(data).size == ((40, 24) if orientation < 5 else (24, 40))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF", "GIF", "BMP", "PPM"])
def test_a_header_without_an_orientation(kind: str) -> None:
    assert peeked(encoded(picture(), kind)) == (40, 24)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
NOTES = {
    "eXIf": (b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    "XMP": (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
}


@pytest.mark.parametrize("note", NOTES)
@pytest.mark.parametrize("place", ["before the pixels", "after the pixels"])
def test_the_orientation_of_a_png_may_stand_anywhere(note: str, place: str) -> None:
    pixels = (b"IDAT", zlib.compress(bytes((40 * 3 + 1) * 24)))
    chunks = [NOTES[note], pixels] if place == "before the pixels" else [pixels, NOTES[note]]
    data = png([header(40, 24), *chunks, (b"IEND", b"")])
    assert peeked(data) == decode_image(data).size == (24, 40)


def test_a_png_is_read_whatever_its_profiles_and_texts_unpack_to() -> None:
    """Pillow refuses more than 1 MiB in one and 64 MiB in all; the pixels and the orientation need none of them."""
    pixels, large = (b"IDAT", zlib.compress(bytes((40 * 3 + 1) * 24))), zlib.compress(bytes(2**21))
    fitting = [(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**20)))] * 100
    cases = {
        "profile": [(b"iCCP", b"name\0\0" + large)],
        "compressed text": [(b"zTXt", b"keyword\0\0" + large)],
        "compressed international text": [(b"iTXt", b"keyword\0\1\0en\0key\0" + large)],
        "plain text": [(b"tEXt", b"keyword\0" + bytes(2**27))],
        "plain international text": [(b"iTXt", b"keyword\0\0\0\0\0" + bytes(2**27))],
        "many that fit": fitting,
    }
    for name, notes in cases.items():
        for chunks in ([*notes, NOTES["eXIf"], pixels], [NOTES["eXIf"], pixels, *notes]):
            data = png([header(40, 24), *chunks, (b"IEND", b"")])
            assert peeked(data) == decode_image(data).size == (24, 40), name


class Counted(io.BytesIO):
    """Knows how many bytes were read from it."""

    num_read = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.num_read += len(data)
        return data


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "PPM"])
def test_no_pixels_are_read_for_a_header(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8))
    stream = Counted(encoded(noise, kind))
    assert peek_image(stream).size == (800, 600)
    assert stream.num_read < len(stream.getvalue()) / 5


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "PPM"])
def test_a_file_cut_after_its_header_has_one_and_no_pixels(kind: str) -> None:
    data = encoded(picture(400, 300), kind)[:800]
    assert peeked(data) == (400, 300)
    with pytest.raises(ValueError, match="not a readable image"):
        decode_image(data)


@pytest.mark.parametrize("case", ["nothing", "text", "header alone", "no pixels", "svg", "eps"])
def test_what_is_no_image_has_no_header(case: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        peeked(HOSTILE[case])
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"\w") as decoded:
        decode_image(HOSTILE[case])
    assert str(caught.value) == str(decoded.value)


@pytest.mark.parametrize(("width", "height"), [(13_300, 13_300), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_the_header_of_a_decompression_bomb_is_refused(width: int, height: int) -> None:
    with pytest.raises(ValueError, match=r"at most 175,000,000|exceeds limit|dimensions"):
        peeked(png([header(width, height), (b"IDAT", zlib.compress(bytes(1000)))]))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_headers_of_damaged_bytes_agree_with_the_pixels(kind: str) -> None:
    """Pairs are sorted by their headers' sizes into batches of one size: a header must not say something else."""
    rng = random.Random(1)
    for number in range(160):
        exif = Image.Exif()
        exif[0x0112] = number % 8 + 1
        data = bytearray(encoded(picture(), kind, **({} if kind in ("GIF", "BMP") else {"exif": exif})))
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            size = decode_image(bytes(data)).size
        except ValueError:
            continue
        assert peeked(bytes(data)) == size


def test_too_many_bytes_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(), "PNG")
    (tmp_path / "large.png").write_bytes(data)
    monkeypatch.setattr(images, "MAX_BYTES", len(data) - 1)
    with pytest.raises(ValueError, match="at most"):
        decode_image(data)
    with pytest.raises(ValueError, match="at most"):
        peeked(data)
    with pytest.raises(ValueError, match=r"large\.png has .* bytes; at most"):
        open_image(tmp_path / "large.png")


def test_open_image_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"junk")
    (tmp_path / "good.png").write_bytes(encoded(picture(), "PNG"))
    assert largest_difference(open_image(str(tmp_path / "good.png")), picture()) == 0
    with pytest.raises(ValueError, match=r"bad\.png: not an image; PNG, JPEG"):
        open_image(tmp_path / "bad.png")
    for missing in ("none.png", ""):
        with pytest.raises(ValueError, match="no image file at"):
            open_image(tmp_path / missing)


def test_equal_pixels_give_equal_png_bytes() -> None:
    plain = picture()
    dressed = Image.open(io.BytesIO(encoded(picture(), "PNG", dpi=(300, 300), icc_profile=b"profile")))
    assert encode_png(plain) == encode_png(dressed)
    assert largest_difference(decode_image(encode_png(plain)), plain) == 0


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "L", "LA", "RGBA", "I;16"])
def test_any_mode_is_encoded_as_it_looks(mode: str) -> None:
    image = picture().quantize(4) if mode == "P" else picture().convert("L").convert(mode)
    assert largest_difference(decode_image(encode_png(image)), upright(image)) <= 1


def test_data_uri_round_trip() -> None:
    uri = to_data_uri(picture())
    assert uri.startswith("data:image/png;base64,")
    assert largest_difference(from_data_uri(uri), picture()) == 0


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "data:image/png;base64,",
        "data:image/png;base64,@@@@",
        "data:image/png;base64,äöü",
        "data:image/png,raw",
        "data:text/html;base64,AAAA",
        "http://127.0.0.1/image.png",
        "file:///etc/hostname",
        "data:image/png;base64," + base64.b64encode(b"junk").decode(),
    ],
)
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        from_data_uri(uri)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photos are not part of the repository")
def test_real_photos() -> None:
    files = [file for file in sorted(PHOTOS.iterdir()) if file.suffix.lower() in {".jpg", ".png", ".webp"}]
    assert files
    for file in files:
        assert open_image(file).mode == "RGB"
