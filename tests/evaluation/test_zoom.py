"""Finding the red frame that an edit adds, whatever the picture behind it; and enlarging what is in it."""

import random

import numpy as np
from PIL import Image

from etchr.boxes import Box, draw_boxes, line_width
from evaluation.zoom import red_box, zoomed


def noise(size, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (size[1] // 8 + 1, size[0] // 8 + 1, 3), np.uint8)).resize(size)


def framed(box, size):
    """The outer edge of a box's frame, inside the picture."""
    line = line_width(size)
    left, top = max(0, box.x - line), max(0, box.y - line)
    return Box(left, top, min(size[0], box.x + box.w + line) - left, min(size[1], box.y + box.h + line) - top)


def overlap(a, b):
    """Intersection over union."""
    across = max(0, min(a.x + a.w, b.x + b.w) - max(a.x, b.x))
    down = max(0, min(a.y + a.h, b.y + b.h) - max(a.y, b.y))
    return across * down / (a.w * a.h + b.w * b.h - across * down)


def test_a_frame_is_found_where_it_was_drawn():
    for size in [(64, 64), (640, 427), (1920, 1080), (400, 1600)]:
        rng = random.Random(str(size))
        for seed in range(6):
            source = noise(size, seed)
            w, h = rng.randint(size[0] // 8, size[0] // 2), rng.randint(size[1] // 8, size[1] // 2)
            box = Box(rng.randint(0, size[0] - w), rng.randint(0, size[1] - h), w, h)
            found = red_box(source, draw_boxes(source, [box]))
            assert found is not None, size
            assert overlap(found, framed(box, size)) > 0.8, size

    source, box = noise((1280, 960)), Box(300, 200, 400, 300)
    edit = draw_boxes(source, [box]).resize((640, 480), Image.Resampling.LANCZOS)
    assert overlap(red_box(source, edit), box) > 0.8

    source = noise((320, 240))
    small, large = Box(10, 10, 40, 30), Box(150, 80, 120, 100)
    assert overlap(red_box(source, draw_boxes(source, [small, large])), framed(large, source.size)) > 0.8


def test_no_frame_is_no_box():
    source = noise((320, 240))
    assert red_box(source, source) is None
    blot = source.copy()
    blot.paste((230, 30, 30), (100, 100, 180, 160))  # a filled patch is no frame
    assert red_box(source, blot) is None
    red = Image.new("RGB", (320, 240), (230, 30, 30))
    assert red_box(source, red) is None
    before = draw_boxes(source, [Box(50, 50, 100, 80)])
    assert red_box(before, before) is None  # a frame that was there before


def test_the_part_is_enlarged_up_to_a_limit_and_stays_inside():
    source = noise((3000, 2000))
    assert max(zoomed(source, Box(100, 100, 50, 30)).size) == 384
    assert max(zoomed(source, Box(0, 0, 3000, 2000)).size) == 1024
    assert zoomed(source, Box(500, 500, 400, 200), margin=0.0).size == (400, 200)
    corner = zoomed(source, Box(2990, 1990, 10, 10), margin=0.0)
    assert corner.size == (384, 384)
