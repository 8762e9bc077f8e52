"""Boxes: hostile values, clipping, and frames that enclose their boxes."""

import random

import numpy as np
import pytest
from PIL import Image

from etchr.boxes import RED, Box, clip_box, draw_boxes, line_width, parse_box, read_boxes


def red_of(boxes, size, background=(20, 20, 20)):
    """Which pixels of a plain picture are red once the boxes are drawn, rows first."""
    edited = np.asarray(draw_boxes(Image.new("RGB", size, background), boxes))
    red = (edited == RED).all(-1)
    assert (edited[~red] == background).all()
    return red


def random_box(rng, size):
    """A box of whole pixels inside, often at an edge, in a corner, tiny or as large as the picture."""
    spans = []
    for side in size:
        length = rng.choice((1, 2, 3, side, rng.randint(1, side), rng.randint(1, side)))
        spans.append((rng.choice((0, side - length, rng.randint(0, side - length))), length))
    (x, w), (y, h) = spans
    return Box(x, y, w, h)


def test_a_frame_encloses_the_pixels_of_its_box():
    rng = random.Random(5)
    for _ in range(300):
        size = (rng.choice((32, rng.randint(32, 300))), rng.choice((32, rng.randint(32, 300), 900)))
        box, line = random_box(rng, size), line_width(size)
        red = red_of([box], size)
        x, y, w, h = box.as_list()
        rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
        left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        rooms = (x, y, size[0] - x - w, size[1] - y - h)
        assert (x - left, y - top, right - x - w, bottom - y - h) == tuple(min(line, room) for room in rooms)
        assert red[top, left:right].all()
        assert red[bottom - 1, left:right].all()
        assert red[top:bottom, left].all()
        assert red[top:bottom, right - 1].all()
        covered = [max(0, 2 - room) for room in rooms]  # of the box, where the picture ends right behind it
        held = red[y + covered[1] : y + h - covered[3], x + covered[0] : x + w - covered[2]]
        assert not held.any()
        assert red[top:bottom, left:right].sum() == (bottom - top) * (right - left) - held.size


def test_every_one_of_several_boxes_gets_its_frame():
    boxes = [Box(40, 40, 10, 10), Box(100, 20, 30, 5), Box(5, 80, 8, 8)]
    together = red_of(boxes, (160, 120))
    assert (together == np.any([red_of([box], (160, 120)) for box in boxes], 0)).all()
    assert together.sum() == sum((box.w + 4) * (box.h + 4) - box.w * box.h for box in boxes)


def test_the_line_grows_with_the_picture():
    assert [line_width(size) for size in ((64, 64), (640, 480), (1024, 1024), (4096, 4096))] == [2, 3, 6, 26]


def test_the_source_is_not_drawn_on_and_boxes_outside_are_refused():
    image = Image.new("RGB", (64, 64))
    draw_boxes(image, [Box(4, 4, 9, 9)])
    assert not np.asarray(image).any()
    with pytest.raises(ValueError, match=r"box \[60, 4, 9, 9\] does not lie inside the picture of 64x64 px"):
        draw_boxes(image, [Box(60, 4, 9, 9)])


def test_boxes_are_read_from_lists_and_from_named_sides():
    assert parse_box([1, 2.5, 3, 4]) == parse_box({"h": 4, "w": 3, "y": 2.5, "x": 1}) == Box(1.0, 2.5, 3.0, 4.0)
    assert Box(1.2, 2.0, 3.0, 4.9).as_list() == [1, 2, 4, 5]


NESTED: list = []
for _ in range(5_000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ([1, 2, float("nan"), 4], "nan"),
        ([1, 2, float("inf"), 4], "inf"),
        ([1, 2, 10**400, 4], "a huge integer"),
        ([1, 2, "3", 4], "'3'"),
        ([1, True, 3, 4], "True"),
        ([1, 2, -3, 4], "-3"),
        ([1, 2, 3, 0], "no area"),
        ([1, 2, 3], "[1, 2, 3]"),
        ([1, 2, 3, 4, 5, 6], "..."),
        ("1234", "'1234'"),
        ({"x": 1, "y": 2, "w": 3}, "a dict"),
        ({"x": None, "y": 2, "w": 3, "h": 4}, "None"),
        (None, "None"),
        ([1, 2, 3, NESTED], "a list"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else "",
)
def test_hostile_boxes_are_refused_by_name(value, named):
    with pytest.raises(ValueError, match="box") as caught:
        parse_box(value)
    assert named in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_box_is_cut_at_the_edge_of_its_picture():
    assert clip_box(Box(-10, 20, 40, 30), (100, 80)) == Box(0, 20, 30, 30)
    assert clip_box(Box(70.5, 60.5, 40, 20), (100, 80)) == Box(70, 60, 30, 20)
    assert clip_box(Box(50, 40, 0.25, 0.25), (100, 80)) == Box(50, 40, 1, 1)


@pytest.mark.parametrize(
    ("box", "outside", "reason"),
    [
        (Box(100, 10, 20, 20), "clip", "lies outside"),
        (Box(-30, 10, 30, 20), "clip", "lies outside"),
        (Box(90.2, 10, 20, 20), "clip", "only 49% of its area inside; 50% are needed"),
        (Box(1e308, 0, 1e308, 1), "clip", "lies outside"),
        (Box(0, 0, 1e300, 1e300), "clip", "only 0% of its area inside"),
        (Box(-2, 10, 20, 20), "refuse", "reaches 2 px outside"),
    ],
)
def test_boxes_that_are_hardly_inside_are_refused(box, outside, reason):
    with pytest.raises(ValueError, match=reason):
        clip_box(box, (100, 80), outside)


def test_a_pixel_outside_is_rounding_even_where_outside_is_refused():
    assert clip_box(Box(-1, 61, 20, 20), (100, 80), "refuse") == Box(0, 61, 19, 19)
    assert clip_box(Box(90, 10, 20, 20), (100, 80)) == Box(90, 10, 10, 20)  # half of it: enough


def test_the_boxes_of_a_row_are_counted_and_not_repeated():
    values = [[1, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 4]]
    assert read_boxes(values, (64, 64), outside="clip", most=3) == [Box(1, 2, 3, 4), Box(5, 6, 7, 8)]
    for bad, size, reason in (
        (values, (64, 64), "3 boxes; at most 2"),
        ([], (64, 64), "no boxes"),
        (None, (64, 64), "no boxes"),
        ("boxes", (64, 64), "no boxes"),
        (values, (1, 20_000), "1x20000 px is too small"),
    ):
        with pytest.raises(ValueError, match=reason):
            read_boxes(bad, size, outside="clip", most=2)
