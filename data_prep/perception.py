"""Perception: find the named object among others; the edit is a red box round it.

A 4x4 field with three to five objects of different colours. Each has a small dark dot near one of its sides, too small
to see from afar: the question asks on which side of a named object the dot is.

Instructions also change the named object itself (`changes.py`).
"""

import random

from PIL import Image

from data_prep.changes import boxed_or_changed, told
from data_prep.draw import COLOURS, INK, SHAPES, Canvas
from data_prep.task import Ask, ProceduralTask, Scene, Target
from etchr.boxes import RED

GRID, CELL = 4, 16  # cells a side, units a cell
SIDES = {"top": (0, -1), "right": (1, 0), "bottom": (0, 1), "left": (-1, 0)}


class Perception(ProceduralTask):
    name = "perception"
    shallow = 4

    def scene(self, rng: random.Random) -> Scene:
        count = rng.randint(3, 5)
        cells = rng.sample(range(GRID * GRID), count)
        colours = rng.sample(sorted(COLOURS), count)
        return {
            "objects": [
                {"cell": cell, "colour": colour, "shape": rng.choice(SHAPES), "dot": rng.choice(sorted(SIDES))}
                for cell, colour in sorted(zip(cells, colours, strict=True))
            ]
        }

    def target(self, scene: Scene, rng: random.Random) -> Target:
        return {"object": rng.randrange(len(scene["objects"]))}

    def any_target(self, scene: Scene, rng: random.Random) -> Target:
        return boxed_or_changed(self.target(scene, rng), {thing["colour"] for thing in scene["objects"]}, rng)

    def depth(self, scene: Scene, target: Target) -> int:
        return len(scene["objects"])

    def source(self, scene: Scene, target: Target, size: int) -> Image.Image:
        return _draw(scene["objects"], size)

    def edit(self, scene: Scene, target: Target, size: int) -> Image.Image:
        things, which = list(scene["objects"]), target["object"]
        match target.get("verb", "box"):
            case "remove":
                del things[which]
            case "recolour":
                things[which] = things[which] | {"colour": target["colour"]}
            case "blacken":
                things[which] = things[which] | {"colour": "black"}
            case _:
                canvas = Canvas(size, _draw(things, size))
                canvas.frame(*_corner(things[which]["cell"]), CELL, CELL, RED)
                return canvas.image
        return _draw(things, size)

    def instruction(self, scene: Scene, target: Target) -> str:
        thing = scene["objects"][target["object"]]
        name, (row, column) = f"the {thing['colour']} {thing['shape']}", divmod(thing["cell"], GRID)
        place = f" at row {row + 1}, column {column + 1}" if target.get("verb") == "box at" else ""
        return told(target, name) or f"Red box round {name}{place}."

    def ask(self, scene: Scene, target: Target, rng: random.Random) -> Ask:
        thing = scene["objects"][target["object"]]
        sides = rng.sample(sorted(SIDES), 4)
        x, y = _corner(thing["cell"])
        return Ask(
            f"On which side of the {thing['colour']} {thing['shape']} is its dot?",
            "ABCD"[sides.index(thing["dot"])],
            "option",
            tuple(sides),
            {"boxes": [[x / 64, y / 64, CELL / 64, CELL / 64]]},  # x, y, w, h as fractions of the side
        )


def _draw(things: list[Scene], size: int) -> Image.Image:
    canvas = Canvas(size)
    for thing in things:
        x, y = _corner(thing["cell"])
        canvas.shape(thing["shape"], x + CELL / 2, y + CELL / 2, 6, COLOURS.get(thing["colour"], INK))
        dx, dy = SIDES[thing["dot"]]
        canvas.rect(x + CELL / 2 - 2 + 3 * dx, y + CELL / 2 - 2 + 3 * dy, 4, 4, INK)
    return canvas.image


def _corner(cell: int) -> tuple[int, int]:
    row, column = divmod(cell, GRID)
    return column * CELL, row * CELL
