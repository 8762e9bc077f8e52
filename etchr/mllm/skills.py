"""What the embedded reader can do with a question, a picture and an edit of it: one skill per kind of question.

A skill gets pictures and the words of the question, nothing else, and returns what it read off the edit and whether the
edit can be relied on. It follows a drawn path but does not search one, compares a restored puzzle with its pieces but
does not solve it, and reads what a box encloses but does not look for a small thing in a scene.
"""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from etchr.mllm import sight

STEPS = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}


@dataclass(frozen=True)
class Finding:
    """What a look at (source, edit) gave."""

    answer: str | None  # in the words of the options, or in the form the question wants; None: nothing could be read
    reliable: bool  # whether the edit holds up to a check against the source and the question
    reason: str


def nothing(reason: str) -> Finding:
    return Finding(None, False, reason)


# --------------------------------------------------------------------------------------------------------- boxes


def dot_side(words: re.Match[str], source: Image.Image, edit: Image.Image) -> Finding:
    """On which side of the boxed object its dot is."""
    colour = words["colour"]
    box, why = sight.find_box(source, edit)
    if box is None:
        return nothing(why)
    inside = sight.crop(source, box)
    if inside.size == 0:
        return nothing("the box is too small")
    names = sight.colour_names(inside)
    dark = sight.ink(inside)
    if not dark.any():
        return nothing("there is no dot in the box")
    y, x = (position.mean() / side - 0.5 for position, side in zip(np.nonzero(dark), dark.shape, strict=True))
    side = ("left", "right")[int(x > 0)] if abs(x) > abs(y) else ("top", "bottom")[int(y > 0)]
    vivid = (names != "").sum()
    if vivid == 0 or (names == colour).sum() < 0.7 * vivid:
        return Finding(side, False, f"the box is not round a {colour} thing")
    if sight.changed(source, edit, box) > 0.15:
        return Finding(side, False, "the picture beside the box was changed")
    return Finding(side, True, f"the box is round the {colour} thing and its dot is on the {side}")


def chart_value(words: re.Match[str], source: Image.Image, edit: Image.Image) -> Finding:
    """The number printed in the box, above a bar or a point of the asked colour."""
    colour = words["colour"]
    box, why = sight.find_box(source, edit)
    if box is None:
        return nothing(why)
    inside = sight.crop(source, box)
    if inside.size == 0:
        return nothing("the box is too small")
    names = sight.colour_names(inside)
    coloured = np.flatnonzero((names != "").mean(1) > 0.4)
    above = sight.ink(inside[: coloured[0]] if len(coloured) else inside)
    digit = sight.read_digit(above)
    if digit is None:
        return nothing("there is no number in the box")
    vivid = (names != "").sum()
    if vivid == 0 or (names == colour).sum() < 0.7 * vivid:
        return Finding(str(digit), False, f"the box is not at the {colour} {words['kind']}")
    if sight.changed(source, edit, box) > 0.15:
        return Finding(str(digit), False, "the chart beside the box was changed")
    return Finding(str(digit), True, f"the box shows the value {digit} of the {colour} {words['kind']}")


# --------------------------------------------------------------------------------------------------------- paths


def follow(marked: set[tuple[int, int]], start: tuple[int, int], goal: tuple[int, int]) -> tuple[str | None, bool]:
    """Walk from start to goal over marked cells; the moves, and whether the marks are one plain path and no more."""
    here, left = start, set(marked) - {start, goal}
    moves: list[str] = []
    while True:
        around = {name: (here[0] + dr, here[1] + dc) for name, (dr, dc) in STEPS.items()}
        ahead = [(name, cell) for name, cell in around.items() if cell in left]
        last = [name for name, cell in around.items() if cell == goal]
        if last and not ahead:
            return ",".join([*moves, last[0]]), not left
        if len(ahead) != 1:
            return None, False
        moves.append(ahead[0][0])
        here = ahead[0][1]
        left.remove(here)


def maze_moves(words: re.Match[str], source: Image.Image, edit: Image.Image) -> Finding:
    """The moves along the blue cells from green to red."""
    count = int(words["size"])
    if not 2 <= count <= 40:
        return nothing("that is no maze I can see")
    border = 1 / (count + 2)
    before, after = sight.cells(source, count, border), sight.cells(edit, count, border)
    names = sight.colour_names(before)
    starts, goals = np.argwhere(names == "green"), np.argwhere(names == "red")
    if len(starts) != 1 or len(goals) != 1:
        return nothing("I see no single green and red cell")
    start, goal = ((int(row), int(column)) for row, column in (starts[0], goals[0]))
    path = {(int(r), int(c)) for r, c in np.argwhere(sight.colour_names(after) == "blue")}
    moves, plain = follow(path, start, goal)
    if moves is None:
        return nothing("no blue path leads from green to red")
    walls = before.max(-1) < 110
    if not plain or any(walls[cell] for cell in path):
        return Finding(moves, False, "the blue path crosses walls or has loose ends")
    same = np.abs(before - after).mean(-1) / 255
    if max((same[cell] for cell in np.ndindex(count, count) if cell not in path), default=0) > 0.2:
        return Finding(moves, False, "the maze itself was changed")
    return Finding(moves, True, "a clean blue path leads from green to red")


def lake_moves(words: re.Match[str], source: Image.Image, edit: Image.Image) -> Finding:
    """The moves along the pink marks from the upper left to the gift in the lower right."""
    count = int(words["size"])
    if not 2 <= count <= 40:
        return nothing("that is no lake I can see")
    before, after = sight.cells(source, count), sight.cells(edit, count)
    names = sight.colour_names(after)
    path = {(int(r), int(c)) for r, c in np.argwhere((names == "pink") | (names == "purple"))}
    moves, plain = follow(path, (0, 0), (count - 1, count - 1))
    if moves is None:
        return nothing("no pink path leads to the gift")
    holes = before.mean(-1) < 145
    if not plain or any(holes[cell] for cell in path):
        return Finding(moves, False, "the pink path crosses holes or has loose ends")
    same = np.abs(before - after).mean(-1) / 255
    if max((same[cell] for cell in np.ndindex(count, count) if cell not in path), default=0) > 0.2:
        return Finding(moves, False, "the lake itself was changed")
    return Finding(moves, True, "a clean pink path leads to the gift")


# -------------------------------------------------------------------------------------------------------- jigsaw

_PIECE = 32  # samples a side at which pieces are compared


def piece_order(words: re.Match[str], source: Image.Image, edit: Image.Image) -> Finding:
    """Which piece lies in which quarter of the restored picture."""
    size = 2 * _PIECE
    before, after = sight.pixels(source, size), sight.pixels(edit, size)
    use = np.ones((_PIECE, _PIECE), bool)
    use[:3], use[-3:], use[:, :3], use[:, -3:] = False, False, False, False  # borders
    use[:18, :14] = False  # the number
    quarters = [(r, c) for r in (0, _PIECE) for c in (0, _PIECE)]
    pieces = [before[r : r + _PIECE, c : c + _PIECE][use] for r, c in quarters]
    places = [after[r : r + _PIECE, c : c + _PIECE][use] for r, c in quarters]
    cost = np.array([[np.abs(place - piece).mean() / 255 for piece in pieces] for place in places])
    ranked = sorted(itertools.permutations(range(4)), key=lambda order: sum(cost[q, p] for q, p in enumerate(order)))
    order = "-".join(map(str, ranked[0]))
    worst = max(cost[q, p] for q, p in enumerate(ranked[0]))
    if worst > 0.09:
        return Finding(order, False, "a quarter of the edit matches no piece")
    if (sight.colour_names(after[_PIECE - 2 : _PIECE + 2]) == "blue").mean() > 0.5 and _seam(before, True) < 0.05:
        return Finding(order, False, "the borders are still there")
    if max(_seam(after, True), _seam(after, False)) > 0.06:
        return Finding(order, False, "the pieces do not meet at the seams")
    return Finding(order, True, "every quarter matches a piece and the seams meet")


def _seam(rgb: np.ndarray, vertical: bool) -> float:
    """How much larger the jump across the middle is than the change just beside it, 0..1."""
    if vertical:
        rgb = rgb.transpose(1, 0, 2)
    m = len(rgb) // 2
    across = np.abs(rgb[m + 1] - rgb[m - 2]).mean()
    beside = (np.abs(rgb[m + 4] - rgb[m + 1]).mean() + np.abs(rgb[m - 2] - rgb[m - 5]).mean()) / 2
    return float(max(across - beside, 0) / 255)


# ------------------------------------------------------------------------------------------------------- 3D view


def relation(words: re.Match[str], source: Image.Image, edit: Image.Image) -> Finding:
    """How two solids stand to each other in a view that has the named solid in front."""
    size = 96
    names = sight.colour_names(sight.pixels(edit, size))
    spots = {}
    for role in ("anchor", "first", "second"):
        where = np.argwhere(names == words[role])
        if len(where) < size * size * 0.006:
            return nothing(f"I cannot see the {words[role]} one in the new view")
        spots[role] = where.mean(0) / size  # (y, x)
    dy, dx = spots["first"] - spots["second"]
    dy /= 0.75  # heights are foreshortened
    if abs(dx) > abs(dy):
        answer, margin = ("to the right" if dx > 0 else "to the left"), abs(dx) - abs(dy)
    else:
        answer, margin = ("in front" if dy > 0 else "behind"), abs(dy) - abs(dx)
    if margin < 0.08:
        return Finding(answer, False, "the two stand askew in the new view")
    y, x = spots["anchor"]
    if abs(x - 0.5) > 0.1 or y < max(spots["first"][0], spots["second"][0]) - 0.09 or y < 0.5:
        return Finding(answer, False, f"the new view is not from behind the {words['anchor']} one")
    seen = sight.colour_names(sight.pixels(source, size))
    for role in ("anchor", "first", "second"):
        share = (names == words[role]).sum() / max((seen == words[role]).sum(), 1)
        if not 0.25 < share < 4:
            return Finding(answer, False, f"the {words[role]} one changed its size")
    return Finding(answer, True, f"the new view has the {words['anchor']} one in front")


# ------------------------------------------------------------------------------------------------------ questions

_NAMED = r"(?P<{0}>\w+) \w+"
QUESTIONS: dict[str, re.Pattern[str]] = {  # the questions of the procedural tasks, by task
    "perception": re.compile(r"which side of the (?P<colour>\w+) (?P<shape>\w+) is its dot"),
    "chart": re.compile(r"value of the (?P<colour>\w+) (?P<kind>bar|point)"),
    "maze": re.compile(r"from green to red in the (?P<size>\d{1,3})x\d{1,3} maze"),
    "frozen_lake": re.compile(r"cross the (?P<size>\d{1,3})x\d{1,3} frozen lake"),
    "jigsaw": re.compile(r"order of the pieces"),
    "view3d": re.compile(
        rf"from behind the {_NAMED.format('anchor')}, where is the {_NAMED.format('first')} "
        rf"relative to the {_NAMED.format('second')}"
    ),
}
SKILLS: dict[str, Callable[[re.Match[str], Image.Image, Image.Image], Finding]] = {
    "perception": dot_side,
    "chart": chart_value,
    "maze": maze_moves,
    "frozen_lake": lake_moves,
    "jigsaw": piece_order,
    "view3d": relation,
}


def recognise(text: str) -> tuple[str, re.Match[str]] | None:
    """The task whose question stands in a text, and its words; None if there is none that the reader knows."""
    for task, pattern in QUESTIONS.items():
        words = pattern.search(text)
        if words:
            return task, words
    return None


def look(question: str, source: Image.Image, edit: Image.Image) -> Finding:
    """Apply the skill that the question calls for."""
    known = recognise(question)
    if known is None:
        return nothing("I do not know this kind of question")
    task, words = known
    return SKILLS[task](words, source, edit)
