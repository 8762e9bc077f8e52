"""Instructions that change a named thing: it goes, turns black, or takes another colour.

A thin frame round a thing teaches an editor little about which word means it; a thing that goes or turns black does,
and the frame follows.
"""

import random
from collections.abc import Collection

from data_prep.draw import COLOURS
from data_prep.task import Target

BOX_VERBS = ("box", "box", "box at", "remove", "blacken", "recolour")  # for boxed things, as often as named here


def new_colour(rng: random.Random, used: Collection[str]) -> str:
    """A colour that no thing of the scene has."""
    return rng.choice(sorted(set(COLOURS) - set(used)))


def boxed_or_changed(target: Target, used: Collection[str], rng: random.Random) -> Target:
    """A question's target with a verb: boxed by name or by place, or changed."""
    target = target | {"verb": rng.choice(BOX_VERBS)}
    return target | {"colour": new_colour(rng, used)} if target["verb"] == "recolour" else target


def told(target: Target, name: str) -> str | None:
    """The instruction to change the thing called `name`; None for a target that changes none."""
    match target.get("verb"):
        case "remove":
            return f"Remove {name}."
        case "recolour":
            return f"Make {name} {target['colour']}."
        case "blacken":
            return f"Paint {name} black."
    return None
