"""Chart: read one value of a bar or line chart; the edit is a red box round the asked value.

Four categories, told apart by colour, with values from 1 to 9 printed in small digits above the bar or the point.
"""

import random

from PIL import Image

from data_prep.draw import COLOURS, INK, Canvas
from data_prep.task import Ask, ProceduralTask, Scene, Target
from etchr.boxes import RED

PITCH, BASE, UNIT = 16, 60, 4  # units: width of a category, height of the axis from the top, height of a value step


class Chart(ProceduralTask):
    name = "chart"

    def scene(self, rng: random.Random) -> Scene:
        return {
            "kind": rng.choice(("bar", "point")),
            "values": [rng.randint(1, 9) for _ in range(4)],
            "colours": rng.sample(sorted(COLOURS), 4),
        }

    def target(self, scene: Scene, rng: random.Random) -> Target:
        return {"column": rng.randrange(4)}

    any_target = target

    def source(self, scene: Scene, target: Target, size: int) -> Image.Image:
        canvas = Canvas(size)
        tops = [BASE - UNIT * value for value in scene["values"]]
        if scene["kind"] == "point":
            canvas.line([(PITCH * i + 8, top + 3) for i, top in enumerate(tops)], (150, 150, 160))
        for i, (top, colour) in enumerate(zip(tops, scene["colours"], strict=True)):
            height = BASE - top if scene["kind"] == "bar" else 6
            canvas.rect(PITCH * i + 3, top, 10, height, COLOURS[colour])
            canvas.digit(str(scene["values"][i]), PITCH * i + 5, top - 12)
        canvas.rect(0, BASE, 64, 2, INK)
        return canvas.image

    def edit(self, scene: Scene, target: Target, size: int) -> Image.Image:
        canvas = Canvas(size, self.source(scene, target, size))
        canvas.frame(*_box(scene, target), RED)
        return canvas.image

    def instruction(self, scene: Scene, target: Target) -> str:
        return f"Red box round the value of {scene['kind']} {target['column'] + 1}."

    def ask(self, scene: Scene, target: Target, rng: random.Random) -> Ask:
        column = target["column"]
        return Ask(
            f"What is the value of the {scene['colours'][column]} {scene['kind']}?",
            str(scene["values"][column]),
            "number",
            meta={"boxes": [[side / 64 for side in _box(scene, target)]]},  # x, y, w, h as fractions of the side
        )


def _box(scene: Scene, target: Target) -> tuple[int, int, int, int]:
    """The box round a value's digit and the top of its bar or point, in units."""
    column = target["column"]
    return PITCH * column, BASE - UNIT * scene["values"][column] - 16, PITCH, 22
