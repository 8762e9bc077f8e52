"""The released code's sizes, against token counts measured on that code itself; ours for comparison."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from etchr.editor.geometry import fit_size
from etchr.sft.data import Sizing
from etchr.sft.released import cover, pixel_values, target_size

MEGAPIXEL = 1024 * 1024
RELEASED = Sizing("released", MEGAPIXEL)
# (width, height) of a picture -> tokens of 16 x 16 px that the released code makes of target and condition
FACTS = {
    (640, 480): (1200, 4144),
    (500, 375): (713, 4144),
    (512, 512): (1024, 4096),
    (1200, 800): (3750, 4056),
    (1920, 1080): (4080, 4128),
    (1024, 1024): (4096, 4096),
}
ODD = [(1, 1), (16, 16), (15, 4000), (4000, 15), (333, 777), (1025, 1023), (8000, 6000)]


@pytest.mark.parametrize("size", FACTS)
def test_token_counts_are_those_of_the_released_code(size):
    tokens = tuple(width * height // 16**2 for width, height in RELEASED.sizes(*size))
    assert tokens == FACTS[size]


@pytest.mark.parametrize("size", ODD)
def test_targets_are_never_larger_than_the_limit_and_conditions_are_about_a_megapixel(size):
    (width, height), (wide, high) = RELEASED.sizes(*size)
    assert width % 16 == height % 16 == wide % 32 == high % 32 == 0
    assert width * height <= max(MEGAPIXEL, 16 * max(width, height))
    if 1 / 8 < width / height < 8:
        assert 0.9 < wide * high / MEGAPIXEL < 1.1


def test_sizes_are_those_of_plain_arithmetic_to_the_last_bit():
    """1040 x 1040 is 1024 x 1024 there; multiplied by the inverse it would be 1008 x 1008."""
    assert target_size(1040, 1040, MEGAPIXEL) == (1024, 1024)
    for width, height in itertools.product(range(900, 2200, 52), range(900, 2200, 76)):
        shrink = math.sqrt(width * height / MEGAPIXEL) if width * height > MEGAPIXEL else 1.0
        assert target_size(width, height, MEGAPIXEL) == (
            int(width / shrink) // 16 * 16,
            int(height / shrink) // 16 * 16,
        )


def test_pixels_are_rounded_before_they_are_scaled():
    levels = torch.arange(256, dtype=torch.uint8)
    by_hand = torch.tensor([float(torch.tensor(level * (2 / 255)).bfloat16()) for level in range(256)]).bfloat16() - 1
    assert torch.equal(pixel_values(levels), by_hand.bfloat16())
    assert not torch.equal(pixel_values(levels), (levels.float() / 127.5 - 1).bfloat16())


def striped(width, height):
    """A picture whose colours tell the column (red) and the row (green)."""
    data = np.zeros((height, width, 3), np.uint8)
    data[..., 0] = np.linspace(0, 255, width)[None]
    data[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(data)


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (48, 160), (320, 240)])
@pytest.mark.parametrize("source", [(200, 100), (90, 170), (64, 64)])
def test_cover_fills_the_size_with_the_middle(source, size):
    covered = cover(striped(*source), size)
    assert covered.size == size
    pixels = np.asarray(covered, float)
    assert pixels[size[1] // 2, size[0] // 2, :2] == pytest.approx([127.5, 127.5], abs=5)
    scale = max(size[0] / source[0], size[1] / source[1])
    for axis, channel in ((0, 0), (1, 1)):  # what is cut off is cut off evenly, and nothing where the side just fits
        share = size[axis] / (source[axis] * scale)
        line = pixels[:, :, channel].mean(axis)
        assert line[0] == pytest.approx(127.5 * (1 - share), abs=6)
        assert line[-1] == pytest.approx(127.5 * (1 + share), abs=6)


def test_a_picture_of_the_right_size_is_left_as_it_is():
    assert cover(striped(96, 64), (96, 64)).tobytes() == striped(96, 64).tobytes()


def test_the_released_condition_is_the_target_sized_picture_enlarged():
    source = striped(500, 375)
    expected = cover(cover(source, (496, 368)), (1184, 896))
    assert RELEASED.condition(source).tobytes() == expected.tobytes()
    assert RELEASED.target(source).size == (496, 368)


@pytest.mark.parametrize("step", [16, 64])
@pytest.mark.parametrize("size", [*FACTS, *ODD])
def test_native_sizes_are_those_of_inference_and_equal(size, step):
    target, condition = Sizing("native", MEGAPIXEL, step).sizes(*size)
    assert target == condition == fit_size(*size, max_pixels=MEGAPIXEL, multiple_of=step, min_side=step)
    if step == 16:
        assert target == fit_size(*size)


def test_native_pictures_are_resized_not_cropped():
    sizing = Sizing("native", 64 * 64)
    for made in (sizing.target(striped(200, 100)), sizing.condition(striped(200, 100))):
        assert made.size == fit_size(200, 100, max_pixels=64 * 64)
        line = np.asarray(made, float)[..., 0].mean(0)
        assert line[0] < 4
        assert line[-1] > 251


def test_a_bucket_step_that_no_picture_can_have_is_refused():
    with pytest.raises(
        ValueError, match=r"data.bucket_step=64 needs pictures of at least 4096 pixels.*limited to 4000"
    ):
        Sizing("native", 4000, 64)
    Sizing("native", 4096, 64)
