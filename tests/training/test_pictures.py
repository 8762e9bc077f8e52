"""What is drawn of a run: the curves of its rewards."""

import io

from PIL import Image

from etchr.rl.logger import reward_chart


def test_the_curves_are_one_picture_and_equal_lines_give_equal_bytes() -> None:
    lines = [{"step": step, "reward": step / 40} for step in range(40)] + [{"step": 40, "val_reward": 0.9}]
    page = reward_chart(lines)
    assert page is not None
    assert page == reward_chart(lines)
    image = Image.open(io.BytesIO(page))
    assert (image.format, image.size, image.info.keys() & {"Software", "Date"}) == ("PNG", (720, 360), set())
    assert page != reward_chart(lines[:-1])  # a curve of one point is seen too


def test_before_any_reward_there_is_no_picture() -> None:
    assert reward_chart([{"step": 0, "seconds": 1.0}]) is None
