"""The size policy as properties over many sizes, and on pictures as they come."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor
from PIL import Image

from etchr.editor.geometry import MAX_PIXELS, fit, fit_size
from etchr.images import open_image

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 1024), (1024, 1024)),
        ((64, 64), (64, 64)),
        ((640, 480), (640, 480)),  # never enlarged
        ((500, 375), (496, 368)),
        ((1920, 1080), (1360, 768)),  # the exact square root: 768, not a rounding error below it
        ((1080, 1920), (768, 1360)),
        ((2048, 2048), (1024, 1024)),
        ((1, 1), (16, 16)),
        ((5, 3), (16, 16)),
        ((17, 3), (16, 16)),
        ((1, 20000), (16, 20000)),
        ((20000, 1), (20000, 16)),
        ((1, 200_000), (16, 65_536)),  # the long side gives way: 16 x 65536 is the cap
        ((200_000, 1), (65_536, 16)),
        ((10**9, 10**9), (1024, 1024)),
    ],
)
def test_sizes_by_hand(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fit_size(*size) == expected


def test_properties_over_many_sizes() -> None:
    rng = random.Random(0)
    for _ in range(20_000):
        width, height = (int(math.exp(rng.uniform(0, math.log(40_000)))) for _ in range(2))
        multiple = rng.choice([1, 8, 16, 32])
        options = {"multiple_of": multiple, "min_side": multiple * rng.choice([1, 1, 4])}
        least = options["min_side"]
        cap = max(rng.choice([64 * 64, 512 * 512, MAX_PIXELS, 2024**2]), least**2)
        new = fit_size(width, height, max_pixels=cap, **options)
        case = (width, height, cap, options, new)
        assert new[0] * new[1] <= cap, case
        assert all(side % multiple == 0 and side >= least for side in new), case
        assert all(after <= max(before, least) for before, after in zip((width, height), new, strict=True)), case
        assert fit_size(*new, max_pixels=cap, **options) == new, case
        assert fit_size(height, width, max_pixels=cap, **options) == new[::-1], case
        scale = min(1.0, math.sqrt(cap / (width * height)))
        ideal = (width * scale, height * scale)
        if min(ideal) >= least:  # nothing raised: each side is the ideal one, short of at most one multiple
            assert all(-1e-6 <= want - got < multiple + 1 for want, got in zip(ideal, new, strict=True)), case


def test_a_larger_cap_never_gives_a_smaller_picture() -> None:
    sizes = [fit_size(3000, 1999, max_pixels=cap) for cap in range(16 * 16, 9_000_000, 99_991)]
    assert sizes == sorted(sizes, key=lambda size: size[0] * size[1])
    assert sizes[-1] == (2992, 1984)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0, "height": 5}, "at least 1x1 pixels, got 0x5"),
        ({"width": 5, "height": -1}, "got 5x-1"),
        ({"width": 5, "height": 5, "max_pixels": 255}, "max_pixels=255 .* give at least 256"),
        ({"width": 5, "height": 5, "max_pixels": 64 * 64 - 1, "min_side": 64}, "give at least 4096"),
        ({"width": 5, "height": 5, "min_side": 20}, "multiple_of=16, got 20"),
        ({"width": 5, "height": 5, "min_side": 0}, "multiple_of=16, got 0"),
        ({"width": 5, "height": 5, "multiple_of": 0}, "multiple_of=0"),
    ],
)
def test_what_cannot_be_fitted_is_one_clear_error(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_size(**arguments)


@pytest.mark.parametrize("size", [(64, 64), (1024, 1024), (640, 480), (16, 32)])
def test_a_picture_that_fits_keeps_its_pixels(size: tuple[int, int]) -> None:
    image = noise(*size)
    assert fit(image).tobytes() == image.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (37, 501), (300, 7), (1400, 1100)])
def test_fit_is_idempotent_and_never_crops(size: tuple[int, int]) -> None:
    """The corners of the source are the corners of the result: no content is cut away."""
    image = Image.new("RGB", size, "white")
    image.paste("red", (0, 0, math.ceil(size[0] / 2), size[1]))
    once = fit(image)
    assert once.size == fit_size(*size)
    assert fit(once).tobytes() == once.tobytes()
    red, green, _ = once.getpixel((0, once.height // 2))
    assert red > 200
    assert green < 60
    if size[0] > 1:
        share = (np.asarray(once)[..., 1] < 128).mean()
        assert share == pytest.approx(math.ceil(size[0] / 2) / size[0], abs=0.04)


def test_shrinking_averages_instead_of_dropping_pixels() -> None:
    checkerboard = (np.indices((192, 192)).sum(0) % 2 * 255).astype(np.uint8)
    small = np.asarray(fit(Image.fromarray(checkerboard).convert("RGB"), max_pixels=64 * 64), float)
    assert small.shape == (64, 64, 3)
    assert np.abs(small - 127.5).max() < 30


def test_source_and_edit_align() -> None:
    """A mark at the same relative place lands on the same pixels, whatever the two pictures' content."""
    source, edit = noise(1300, 950, 0), noise(1300, 950, 1)
    for image in (source, edit):
        image.paste("black", (600, 400, 800, 600))
    left, right = (np.asarray(fit(image)) for image in (source, edit))
    both_black = (left < 8).all(-1) & (right < 8).all(-1)
    ys, xs = np.nonzero(both_black)
    height, width = left.shape[:2]
    assert abs(xs.min() - 600 * width / 1300) <= 2
    assert abs(xs.max() - 800 * width / 1300) <= 2
    assert abs(ys.min() - 400 * height / 950) <= 2
    assert abs(ys.max() - 600 * height / 950) <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_applied_once(orientation: int) -> None:
    image = noise(48, 32)
    image.getexif()[0x0112] = orientation
    fitted = fit(image)
    assert fitted.size == ((48, 32) if orientation < 5 else (32, 48))
    assert fit(fitted).tobytes() == fitted.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "F"])
def test_any_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("L", (50, 40), 0).convert("F").convert(mode) if mode == "F" else Image.new(mode, (50, 40))
    assert (fit(image).mode, fit(image).size) == ("RGB", (48, 32))


def test_the_diffusers_pipeline_sees_the_same_pixels() -> None:
    """Its own preprocessing leaves a fitted picture as it is (sides of 64 and more, aspect up to 8)."""
    processor = Flux2ImageProcessor(vae_scale_factor=16)
    image = fit(noise(1500, 1001))
    processor.check_image_input(image)
    assert image.width * image.height <= 1024 * 1024
    theirs = processor.preprocess(image, height=image.height, width=image.width, resize_mode="crop")
    ours = np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1
    assert np.abs(theirs[0].numpy() - ours).max() < 1e-6


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photos are not part of the repository")
def test_real_photos() -> None:
    files = [file for file in sorted(PHOTOS.iterdir()) if file.suffix.lower() in {".jpg", ".png", ".webp"}]
    assert files
    for file in files:
        image = open_image(file)
        fitted = fit(image)
        assert fitted.mode == "RGB"
        assert fitted.width * fitted.height <= MAX_PIXELS
        assert fitted.width / fitted.height == pytest.approx(image.width / image.height, rel=0.05)
