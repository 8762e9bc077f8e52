"""What the embedded reader would have an editor draw, for the systems in which a model tells an editor what to do.

At a glance the reader sees where a colour is, and nothing finer. So it can say where to look or from which side, but
not which way leads through a maze or how pieces fit: there it guesses, as anybody would who has not solved it.
"""

import hashlib
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase

import numpy as np
from PIL import Image

from etchr.nano import sight
from etchr.nano.paths import STEPS
from etchr.nano.skills import recognise


@dataclass(frozen=True)
class Wish:
    """What the reader would have drawn: in the words that the nano editor knows, and as a box where it is one."""

    instruction: str
    box: sight.DrawnBox | None = None  # in fractions of the picture's side


def _place(source: Image.Image, colour: str) -> tuple[float, float, float] | None:
    """Where a colour is, as fractions: its middle across, its middle down and its top; None if it is not there."""
    where = np.argwhere(sight.colour_names(sight.pixels(source, 64)) == colour)
    if len(where) < 8:
        return None
    (down, across), top = (where.mean(0) + 0.5) / 64, where[:, 0].min() / 64
    return float(across), float(down), float(top)


def _wish_dot(words: re.Match[str], source: Image.Image) -> Wish | None:
    place = _place(source, words["colour"])
    if place is None:
        return None
    column, row = int(place[0] * 4), int(place[1] * 4)
    box = sight.DrawnBox(column / 4, row / 4, (column + 1) / 4, (row + 1) / 4)
    return Wish(f"Red box round the {words['colour']} {words['shape']} at row {row + 1}, column {column + 1}.", box)


def _wish_value(words: re.Match[str], source: Image.Image) -> Wish | None:
    place = _place(source, words["colour"])
    if place is None:
        return None
    column, top = int(place[0] * 4), place[2]
    box = sight.DrawnBox(column / 4, max(top - 0.25, 0.0), (column + 1) / 4, min(top + 0.09, 1.0))
    return Wish(f"Red box round the value of {words['kind']} {column + 1}.", box)


def straight_ahead(size: int, source: Image.Image) -> list[str]:
    """The moves of someone who sees no walls: along two sides, which two depending on the picture alone."""
    down, right = ["D"] * (size - 1), ["R"] * (size - 1)
    return down + right if _coin(source, 2) else right + down


def _coin(source: Image.Image, sides: int) -> int:
    """A number below `sides` that the picture alone decides."""
    return hashlib.sha256(source.tobytes()).digest()[0] % sides


def _cells(moves: list[str]) -> list[tuple[int, int]]:
    """The cells between start and goal, from the upper left."""
    cells, row, column = [], 0, 0
    for move in moves[:-1]:
        row, column = row + STEPS[move][0], column + STEPS[move][1]
        cells.append((row, column))
    return cells


def _wish_path(words: re.Match[str], source: Image.Image) -> Wish | None:
    size = int(words["size"])
    if not 2 <= size <= 26:
        return None
    cells = _cells(straight_ahead(size, source))
    verb, letters = ("Mark pink", ascii_uppercase) if "lake" in words[0] else ("Fill blue", ascii_lowercase)
    return Wish(f"{verb}: " + " ".join(f"{letters[column]}{row + 1}" for row, column in cells))


def _wish_order(words: re.Match[str], source: Image.Image) -> Wish | None:
    order = list(itertools.permutations(range(4)))[_coin(source, 24)]
    return Wish(
        "Place the pieces: "
        + " ".join(f"{place}{piece}" for place, piece in zip(("UL", "UR", "LL", "LR"), order, strict=True))
    )


def _wish_view(words: re.Match[str], source: Image.Image) -> Wish | None:
    place = _place(source, words["anchor"])
    if place is None:
        return None
    side = "north" if abs(place[0] - 0.5) < 0.12 else "east" if place[0] > 0.5 else "west"
    return Wish(f"Show the scene from the {side}.")


WISHES: dict[str, Callable[[re.Match[str], Image.Image], Wish | None]] = {
    "perception": _wish_dot,
    "chart": _wish_value,
    "maze": _wish_path,
    "frozen_lake": _wish_path,
    "jigsaw": _wish_order,
    "view3d": _wish_view,
}


def wish(text: str, source: Image.Image) -> Wish | None:
    """What would help with the question in a text; None if the reader does not know it or sees nothing of it."""
    known = recognise(text)
    if known is None:
        return None
    task, words = known
    return WISHES[task](words, source)
