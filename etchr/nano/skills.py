"""What the embedded reader can do with a question, a picture and an edit of it: one skill per kind of question.

A skill gets pictures and the words of the question, nothing else, and returns what it read off the edit and a few
measurements; `confidence.py` makes of these how probably the answer is right. It follows a drawn path but does not
search one, compares a restored puzzle with its pieces but does not solve it, and reads what a box encloses but does not
look for a small thing in a scene.
"""

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache

import numpy as np
from PIL import Image

from etchr.nano import sight
from etchr.nano.confidence import Feature, Rule, read_rules
from etchr.nano.paths import Cell, follow, nearly

UNEDITED = 0.02  # a picture of which no block changed by more is no edit


@dataclass(frozen=True)
class Reading:
    """What a skill read off an edit."""

    answer: str | None  # in the words of the options, or in the form the question wants; None: nothing could be read
    reason: str  # what was seen, or why nothing was
    features: Mapping[str, float] = field(default_factory=dict)  # see `FEATURES`; none where nothing can be right
    nearness: float = 0.0  # how nearly an edit shows it from which nothing can be read, 0..1

    @property
    def may_be_right(self) -> bool:
        return self.answer is not None and bool(self.features)


@dataclass(frozen=True)
class Finding:
    """What a look at (source, edit) gave."""

    answer: str | None  # as a reading's
    confidence: float  # how probably that answer is right, 0..1; 0 where it cannot be
    guess: float  # how probably the answer without the edit would be
    reason: str  # in favour of the answer
    fault: str = ""  # what speaks against it the most
    nearness: float = 0.0  # as a reading's


def nothing(reason: str) -> Finding:
    return Finding(None, 0.0, 0.5, reason, reason)


def _unread(reason: str, nearness: float = 0.0) -> Reading:
    return Reading(None, reason, nearness=nearness)


# --------------------------------------------------------------------------------------------------------- boxes

_BOX_FEATURES = {
    "closure": Feature(1, "the red marks are more or less than one whole box"),
    "stray": Feature(-1, "the red marks are more or less than one whole box"),
    "changed": Feature(-1, "the picture beside the box was changed"),
}

LEAST_SHARE = 0.5  # of what is coloured in a box: with less of the asked colour it is round another thing


def _box_features(source: Image.Image, edit: Image.Image, box: sight.RedBox) -> dict[str, float]:
    return {"closure": box.closure, "stray": box.stray, "changed": sight.changed(source, edit, box)}


def _share(names: sight.Array, colour: str) -> float:
    """How much of what is coloured has this colour."""
    return float((names == colour).sum() / max((names != "").sum(), 1))


def dot_side(words: re.Match[str], source: Image.Image, edit: Image.Image) -> Reading:
    """On which side of the boxed object its dot is."""
    colour = words["colour"]
    box, why = sight.find_box(source, edit)
    if box is None:
        return _unread(why)
    inside = sight.crop(source, box)
    if inside.size == 0:
        return _unread("the box is too small")
    dark = sight.ink(inside)
    if not dark.any():
        return _unread("there is no dot in the box")
    y, x = (position.mean() / side - 0.5 for position, side in zip(np.nonzero(dark), dark.shape, strict=True))
    side = ("left", "right")[int(x > 0)] if abs(x) > abs(y) else ("top", "bottom")[int(y > 0)]
    share = _share(sight.colour_names(inside), colour)
    if share < LEAST_SHARE:
        return Reading(side, f"the box is not round a {colour} thing")
    features = {
        "colour": share,
        "aside": float(abs(abs(x) - abs(y))),
        "spread": sight.spread(dark),
        **_box_features(source, edit, box),
    }
    return Reading(side, f"the box is round the {colour} thing and its dot is on the {side}", features)


def chart_value(words: re.Match[str], source: Image.Image, edit: Image.Image) -> Reading:
    """The number printed in the box, above a bar or a point of the asked colour."""
    colour, kind = words["colour"], words["kind"]
    box, why = sight.find_box(source, edit)
    if box is None:
        return _unread(why)
    inside = sight.crop(source, box)
    if inside.size == 0:
        return _unread("the box is too small")
    names = sight.colour_names(inside)
    coloured = np.flatnonzero((names != "").mean(1) > 0.4)
    digit = sight.read_digit(sight.ink(inside[: coloured[0]] if len(coloured) else inside))
    if digit is None:
        return _unread("there is no number in the box")
    share = _share(names, colour)
    if share < LEAST_SHARE:
        return Reading(str(digit.value), f"the box is not at the {colour} {kind}")
    features = {
        "colour": share,
        "distance": digit.distance,
        "gap": digit.gap,
        **_box_features(source, edit, box),
    }
    return Reading(str(digit.value), f"the box shows the value {digit.value} of the {colour} {kind}", features)


# --------------------------------------------------------------------------------------------------------- paths

_PATH_FEATURES = {
    "colour": Feature(1, "the path is hard to see"),
    "loose": Feature(-1, "the path has loose ends"),
    "changed": Feature(-1, "the map itself was changed"),
}


def _path_features(before: sight.Array, after: sight.Array, walked: set[Cell], loose: set[Cell]) -> dict[str, float]:
    change = np.abs(before - after).mean(-1) / 255
    beside = [change[cell] for cell in np.ndindex(change.shape) if cell not in walked | loose]
    chroma = (after.max(-1) - after.min(-1)) / 255
    return {
        "colour": float(min((chroma[cell] for cell in walked), default=0)),
        "loose": len(loose) / len(change),
        "changed": float(max(beside, default=0)),
    }


def maze_moves(words: re.Match[str], source: Image.Image, edit: Image.Image) -> Reading:
    """The moves along the blue cells from green to red."""
    count = int(words["size"])
    if not 2 <= count <= 40:
        return _unread("that is no maze I can see")
    border = 1 / (count + 2)
    before, after = sight.cells(source, count, border), sight.cells(edit, count, border)
    names = sight.colour_names(before)
    starts, goals = np.argwhere(names == "green"), np.argwhere(names == "red")
    if len(starts) != 1 or len(goals) != 1:
        return _unread("I see no single green and red cell")
    start, goal = ((int(row), int(column)) for row, column in (starts[0], goals[0]))
    path = {(int(r), int(c)) for r, c in np.argwhere(sight.colour_names(after) == "blue")}
    moves, loose = follow(path, start, goal)
    if moves is None:
        return _unread("no blue path leads from green to red", nearly(path, start, goal, count))
    walls = before.max(-1) < 110
    if any(walls[cell] for cell in path - loose):
        return Reading(",".join(moves), "the blue path crosses walls")
    features = _path_features(before, after, path - loose, loose)
    return Reading(",".join(moves), "a clean blue path leads from green to red", features)


def lake_moves(words: re.Match[str], source: Image.Image, edit: Image.Image) -> Reading:
    """The moves along the pink marks from the upper left to the gift in the lower right."""
    count = int(words["size"])
    if not 2 <= count <= 40:
        return _unread("that is no lake I can see")
    before, after = sight.cells(source, count), sight.cells(edit, count)
    names = sight.colour_names(after)
    path = {(int(r), int(c)) for r, c in np.argwhere((names == "pink") | (names == "purple"))}
    start, goal = (0, 0), (count - 1, count - 1)
    moves, loose = follow(path, start, goal)
    if moves is None:
        return _unread("no pink path leads to the gift", nearly(path, start, goal, count))
    holes = before.mean(-1) < 145
    if any(holes[cell] for cell in path - loose):
        return Reading(",".join(moves), "the pink path crosses holes")
    features = _path_features(before, after, path - loose, loose)
    return Reading(",".join(moves), "a clean pink path leads to the gift", features)


# -------------------------------------------------------------------------------------------------------- jigsaw

_ORDERS = list(itertools.permutations(range(4)))  # the first is the identity, which is no puzzle's solution
_PIECE = 32  # samples a side at which pieces are compared
_CLEAR = 0.08  # a second best order that costs so much more is out of the question, and counts no less if it costs more
_SOFT_SEAM, _HARD_SEAM = 0.04, 0.06  # a jump that a soft edit may have, and one that counts no less if it is larger
LARGEST_COST, LARGEST_SEAM = 0.145, 0.15  # beyond these an edit is of another picture, or in a wrong order
_JIGSAW_FEATURES = {
    "match": Feature(1, "the quarters of the edit are hardly those of the pieces"),
    "gap": Feature(1, "the pieces might lie in another order as well"),
    "seam": Feature(-1, "the pieces do not meet at the seams"),
}


def piece_order(words: re.Match[str], source: Image.Image, edit: Image.Image) -> Reading:
    """Which piece lies in which quarter of the restored picture."""
    size = 2 * _PIECE
    before, after = sight.pixels(source, size), sight.pixels(edit, size)
    use = np.ones((_PIECE, _PIECE), bool)
    use[:3], use[-3:], use[:, :3], use[:, -3:] = False, False, False, False  # borders
    use[:18, :14] = False  # the number
    quarters = [(r, c) for r in (0, _PIECE) for c in (0, _PIECE)]
    pieces, places = (
        np.stack([at[r : r + _PIECE, c : c + _PIECE][use] for r, c in quarters]) for at in (before, after)
    )
    cost = np.array([[np.abs(place - piece).mean() / 255 for piece in pieces] for place in places])
    mean = {order: float(np.mean([cost[q, p] for q, p in enumerate(order)])) for order in _ORDERS}
    best, second = sorted(_ORDERS, key=lambda order: mean[order])[:2]
    if best == _ORDERS[0]:
        return _unread("the pieces lie as they lay before")
    answer, match = "-".join(map(str, best)), _match(pieces[list(best)], places)
    seam = max(_seam(after, True), _seam(after, False))
    if mean[best] > LARGEST_COST:
        return Reading(answer, "the edit shows another picture than the pieces do")
    if seam > LARGEST_SEAM:
        return Reading(answer, "the pieces do not meet at the seams")
    features = {
        "match": match,
        "gap": min(1 - mean[best] / max(mean[second], 1e-6), _CLEAR),
        "seam": min(max(seam, _SOFT_SEAM), _HARD_SEAM) - _SOFT_SEAM,
    }
    return Reading(answer, "every quarter matches a piece and the seams meet", features)


def _match(pieces: np.ndarray, places: np.ndarray) -> float:
    """How far quarters (4, pixels, 3) differ as the pieces do, -1..1: a correlation, however soft they are."""
    a, b = pieces - pieces.mean(0), places - places.mean(0)
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-6))


def _seam(rgb: np.ndarray, vertical: bool) -> float:
    """How much larger the jump across the middle is than the change just beside it, 0..1."""
    if vertical:
        rgb = rgb.transpose(1, 0, 2)
    m = len(rgb) // 2
    across = np.abs(rgb[m + 1] - rgb[m - 2]).mean()
    beside = (np.abs(rgb[m + 4] - rgb[m + 1]).mean() + np.abs(rgb[m - 2] - rgb[m - 5]).mean()) / 2
    return float(max(across - beside, 0) / 255)


# ------------------------------------------------------------------------------------------------------- 3D view

_IN_FRONT = 0.68, 0.5  # (y, x) of the middle of the board's near side
FARTHEST = 0.15  # of the side: with its solid farther from there a view is from another side
_PLAIN = 0.25  # of the side: a larger difference leaves no doubt, and counts no more
_VIEW_FEATURES = {
    "margin": Feature(1, "the two stand askew in the new view"),
    "place": Feature(-1, "the new view is not from behind the {anchor} one"),
    "size": Feature(-1, "a solid changed its size"),
    "spread": Feature(-1, "a colour is all over the new view"),
}


def relation(words: re.Match[str], source: Image.Image, edit: Image.Image) -> Reading:
    """How two solids stand to each other in a view that has the named solid in front."""
    size = 96
    names = sight.colour_names(sight.pixels(edit, size))
    seen = sight.colour_names(sight.pixels(source, size))
    spots, sizes, spreads = {}, [], []
    for role in ("anchor", "first", "second"):
        where = np.argwhere(names == words[role])
        if len(where) < size * size * 0.006:
            return _unread(f"I cannot see the {words[role]} one in the new view")
        spots[role] = where.mean(0) / size  # (y, x)
        sizes.append(abs(np.log(len(where) / max((seen == words[role]).sum(), 1))))
        spreads.append(sight.spread(names == words[role]))
    dy, dx = spots["first"] - spots["second"]
    dy /= 0.75  # heights are foreshortened
    across, along = ("to the right" if dx > 0 else "to the left"), ("in front" if dy > 0 else "behind")
    answer = across if abs(dx) > abs(dy) else along
    place = float(np.hypot(*(spots["anchor"] - _IN_FRONT)))
    if place > FARTHEST:
        return Reading(answer, f"the new view is not from behind the {words['anchor']} one")
    features = {
        "margin": min(float(abs(abs(dx) - abs(dy))), _PLAIN),
        "place": place,
        "size": float(max(sizes)),
        "spread": max(spreads),
    }
    return Reading(answer, f"the new view has the {words['anchor']} one in front", features)


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
Skill = Callable[[re.Match[str], Image.Image, Image.Image], Reading]
SKILLS: dict[str, Skill] = {
    "perception": dot_side,
    "chart": chart_value,
    "maze": maze_moves,
    "frozen_lake": lake_moves,
    "jigsaw": piece_order,
    "view3d": relation,
}
FEATURES: dict[str, dict[str, Feature]] = {  # what each skill measures
    "perception": {
        "colour": Feature(1, "there is more in the box than a {colour} thing"),
        "aside": Feature(1, "the dot is on no side of the thing"),
        "spread": Feature(-1, "there is more than one dot in the box"),
        **_BOX_FEATURES,
    },
    "chart": {
        "colour": Feature(1, "there is more in the box than the {colour} {kind}"),
        "distance": Feature(-1, "the number in the box is hard to read"),
        "gap": Feature(1, "the number in the box might be another one"),
        **_BOX_FEATURES,
    },
    "maze": _PATH_FEATURES,
    "frozen_lake": _PATH_FEATURES,
    "jigsaw": _JIGSAW_FEATURES,
    "view3d": _VIEW_FEATURES,
}


def recognise(text: str) -> tuple[str, re.Match[str]] | None:
    """The task whose question stands in a text, and its words; None if there is none that the reader knows."""
    for task, pattern in QUESTIONS.items():
        words = pattern.search(text)
        if words:
            return task, words
    return None


def read(task: str, words: re.Match[str], source: Image.Image, edit: Image.Image) -> Reading:
    """What the task's skill reads off an edit; nothing from a picture that was not edited."""
    if sight.changed(source, edit) < UNEDITED:
        return _unread("the second image shows what the first does")
    return SKILLS[task](words, source, edit)


def look(question: str, source: Image.Image, edit: Image.Image) -> Finding:
    """Apply the skill that the question calls for, and say how sure its answer is."""
    known = recognise(question)
    if known is None:
        return nothing("I do not know this kind of question")
    task, words = known
    reading = _reading(task, words[0], _Seen.of(source), _Seen.of(edit))
    rule = _rules()[task]
    if not reading.may_be_right:
        return Finding(reading.answer, 0.0, rule.guess, reading.reason, reading.reason, reading.nearness)
    fault = FEATURES[task][rule.worst(reading.features)].fault.format(**words.groupdict())
    return Finding(reading.answer, rule.confidence(reading.features), rule.guess, reading.reason, fault)


@dataclass(frozen=True)
class _Seen:
    """A picture that equals every other one with the same pixels."""

    image: Image.Image = field(compare=False)
    pixels: tuple[str, tuple[int, int], bytes]

    @classmethod
    def of(cls, image: Image.Image) -> "_Seen":
        return cls(image, (image.mode, image.size, image.tobytes()))


@lru_cache(maxsize=128)
def _reading(task: str, question: str, source: _Seen, edit: _Seen) -> Reading:
    """As `read`; an edit is verified and then answered from, or rewarded in two ways, and read once."""
    words = QUESTIONS[task].search(question)
    assert words
    return read(task, words, source.image, edit.image)


@cache
def _rules() -> dict[str, Rule]:
    return read_rules(FEATURES)
