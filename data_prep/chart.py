"""Chart: read one value of a bar or line chart; the edit is a red box round the asked value.

Four categories, told apart by colour, with values from 1 to 9 printed in small digits above the bar or the point.
Instructions also change the named bar or point itself (`changes.py`).
"""

import random
from collections.abc import Sequence

from PIL import Image

from data_prep.changes import boxed_or_changed, told
from data_prep.draw import COLOURS, INK, PAPER, Canvas, Colour
from data_prep.task import Ask, ProceduralTask, Scene, Target
from etchr.boxes import RED

PITCH, BASE, UNIT = 16, 60, 4  # units: width of a category, height of the axis from the top, height of a value step


class Chart(ProceduralTask):
    name = "chart"
    shallow = 6

    def scene(self, rng: random.Random) -> Scene:
        return {
            "kind": rng.choice(("bar", "point")),
            "values": [rng.randint(1, 9) for _ in range(4)],
            "colours": rng.sample(sorted(COLOURS), 4),
        }

    def target(self, scene: Scene, rng: random.Random) -> Target:
        return {"column": rng.randrange(4)}

    def any_target(self, scene: Scene, rng: random.Random) -> Target:
        return boxed_or_changed(self.target(scene, rng), scene["colours"], rng)

    def depth(self, scene: Scene, target: Target) -> int:
        return max(scene["values"]) - min(scene["values"])  # how far apart the boxes may lie

    def source(self, scene: Scene, target: Target, size: int) -> Image.Image:
        return _draw(scene, [COLOURS[colour] for colour in scene["colours"]], size)

    def edit(self, scene: Scene, target: Target, size: int) -> Image.Image:
        colours, column = [COLOURS[colour] for colour in scene["colours"]], target["column"]
        match target.get("verb", "box"):
            case "remove":
                colours[column] = PAPER
            case "recolour":
                colours[column] = COLOURS[target["colour"]]
            case "blacken":
                colours[column] = INK
            case _:
                canvas = Canvas(size, _draw(scene, colours, size))
                canvas.frame(*_box(scene, target), RED)
                return canvas.image
        return _draw(scene, colours, size)

    def instruction(self, scene: Scene, target: Target) -> str:
        kind, column = scene["kind"], target["column"]
        name = f"the {scene['colours'][column]} {kind}"
        place = f"{kind} {column + 1}" if target.get("verb") == "box at" else name
        return told(target, name) or f"Red box round the value of {place}."

    def ask(self, scene: Scene, target: Target, rng: random.Random) -> Ask:
        column = target["column"]
        return Ask(
            f"What is the value of the {scene['colours'][column]} {scene['kind']}?",
            str(scene["values"][column]),
            "number",
            meta={"boxes": [[side / 64 for side in _box(scene, target)]]},  # x, y, w, h as fractions of the side
        )


def _draw(scene: Scene, colours: Sequence[Colour], size: int) -> Image.Image:
    """The chart with a colour for each of its columns."""
    canvas = Canvas(size)
    tops = [BASE - UNIT * value for value in scene["values"]]
    if scene["kind"] == "point":
        canvas.line([(PITCH * i + 8, top + 3) for i, top in enumerate(tops)], (150, 150, 160))
    for i, (top, colour) in enumerate(zip(tops, colours, strict=True)):
        height = BASE - top if scene["kind"] == "bar" else 6
        canvas.rect(PITCH * i + 3, top, 10, height, colour)
        canvas.digit(str(scene["values"][i]), PITCH * i + 5, top - 12)
    canvas.rect(0, BASE, 64, 2, INK)
    return canvas.image


def _box(scene: Scene, target: Target) -> tuple[int, int, int, int]:
    """The box round a value's digit and the top of its bar or point, in units."""
    column = target["column"]
    return PITCH * column, BASE - UNIT * scene["values"][column] - 16, PITCH, 22
