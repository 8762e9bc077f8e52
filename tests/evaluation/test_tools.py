"""Tools: what a model writes is hostile text; what comes out is a picture, or a sentence for the model."""

import json

import pytest
from PIL import Image

from etchr.boxes import RED
from evaluation.tools import MAX_CALLS, TOOLS, parse_calls, run_tool

PICTURE = Image.radial_gradient("L").resize((200, 100)).convert("RGB")


def written(**value):
    return f"<tool_call>{json.dumps(value)}</tool_call>"


def use(name, **arguments):
    (call,) = parse_calls(written(name=name, arguments=arguments))
    return run_tool(call, PICTURE)


def test_calls_in_a_reply():
    text = f"I look. {written(name='crop', arguments={'box': [0, 0, 10, 10]})} and {written(name='x', arguments='{}')}"
    assert [(call.name, call.arguments) for call in parse_calls(text)] == [("crop", {"box": [0, 0, 10, 10]}), ("x", {})]
    assert parse_calls("no tools here") == []
    assert len(parse_calls(written(name="crop", arguments={}) * 10)) == MAX_CALLS


def test_what_is_no_call_no_tool_or_no_argument_is_told_so():
    for body in [
        *("{", "[]", '"crop"', "5", "null", '{"name": 5}', '{"name": "crop", "arguments": [1]}', '{"arguments": {}}'),
        *('{"name": "crop", "arguments": "{"}', "[" * 3000, " " * 5000, "crop(0, 0, 1, 1)", "__import__('os')"),
    ]:
        for text in (f"<tool_call>{body}</tool_call>", f"<tool_call>{body}"):
            (call,) = parse_calls(text)
            with pytest.raises(ValueError, match=r"a tool call is .* in JSON"):
                run_tool(call, PICTURE)

    with pytest.raises(ValueError, match=r"there is no tool '__class__'; there are: crop, draw_box, draw_line"):
        use("__class__")

    for name, arguments, match in [
        ("crop", {}, "box must be"),
        ("crop", {"box": [0, 0, 10]}, "box must be"),
        ("crop", {"box": "0,0,1,1"}, "box must be"),
        ("crop", {"box": [10, 10, 10, 20]}, r"the box \[10, 10, 10, 20\] is empty"),
        ("crop", {"box": [0, 0, "1", 1]}, "coordinates are numbers"),
        ("crop", {"box": [0, 0, True, 1]}, "coordinates are numbers"),
        ("crop", {"box": [0, 0, 1e999, 1]}, "coordinates are numbers"),
        ("crop", {"box": [0, 0, 10**400, 1]}, "coordinates are numbers"),
        ("crop", {"box": [0, 0, None, 1]}, "coordinates are numbers"),
        ("draw_line", {"points": [[0, 0]]}, "points must be a list of 2 to 64"),
        ("draw_line", {"points": [[0, 0]] * 100}, "points must be a list of 2 to 64"),
        ("draw_line", {"points": [[0, 0], [1]]}, "a point is a pair"),
    ]:
        with pytest.raises(ValueError, match=match) as caught:
            use(name, **arguments)
        assert "\n" not in str(caught.value), (name, arguments)


def test_a_crop_is_that_part_enlarged():
    part = use("crop", box=[500, 0, 1000, 1000])
    assert part.size == (384, 384)  # 100x100 pixels, enlarged
    expected = PICTURE.crop((100, 0, 200, 100)).resize((384, 384), Image.Resampling.LANCZOS)
    assert part.tobytes() == expected.tobytes()


def test_a_box_is_drawn_round_its_inside_a_line_through_its_points_and_the_source_stays():
    before = PICTURE.tobytes()
    drawn = use("draw_box", box=[250, 300, 750, 700])
    assert drawn.size == PICTURE.size
    assert PICTURE.tobytes() == before
    inner = (50, 30, 150, 70)
    assert drawn.crop(inner).tobytes() == PICTURE.crop(inner).tobytes()
    assert drawn.getpixel((49, 50)) == drawn.getpixel((100, 29)) == RED

    drawn = use("draw_line", points=[[0, 500], [500, 500], [500, 0]])
    assert drawn.getpixel((50, 50)) == drawn.getpixel((100, 20)) == RED
    assert drawn.getpixel((150, 80)) == PICTURE.getpixel((150, 80))


def test_coordinates_outside_are_brought_to_the_edge_of_pictures_of_any_shape():
    assert use("crop", box=[-50, -50, 2000, 2000]).tobytes() == use("crop", box=[0, 0, 1000, 1000]).tobytes()
    tiny = use("crop", box=[999, 999, 1000, 1000])
    assert min(tiny.size) >= 1
    assert use("draw_box", box=[999, 999, 1000, 1000]).size == PICTURE.size

    for size in [(1, 1), (1, 200), (2000, 20)]:
        picture = Image.new("RGB", size, "white")
        for name in TOOLS:
            arguments = {"points": [[0, 0], [1000, 1000]]} if name == "draw_line" else {"box": [100, 100, 900, 900]}
            (call,) = parse_calls(written(name=name, arguments=arguments))
            assert max(run_tool(call, picture).size) <= 2000, size


def test_a_crop_too_thin_for_the_server_is_told_to_the_model():
    picture = Image.new("RGB", (4000, 3000))
    for box, is_shown in (
        ([0, 0, 1000, 0.3], False),  # 4000x1 pixels
        ([500, 0, 500.1, 1000], False),
        ([0, 0, 1000, 6.6], False),  # 200:1, which rounds to 1024x5
        ([0, 0, 1000, 7.6], True),
        ([0, 0, 50, 0.33], True),  # 200:1 of few pixels, which rounds to 384x2
        ([500, 0, 505, 1000], True),
    ):
        (call,) = parse_calls(written(name="crop", arguments={"box": box}))
        if is_shown:
            assert max(run_tool(call, picture).size) <= 200 * min(run_tool(call, picture).size)
        else:
            with pytest.raises(
                ValueError, match=r"this crop is too thin to be seen, \d+x\d+ pixels: a side is 200 times"
            ):
                run_tool(call, picture)
