"""3D view: three solids on a board, seen from the south; the edit is the view from another side.

The question asks for a relation as it is seen from behind one of the solids, so the viewpoint has to be inferred from
the scene, and the answer follows from the two camera poses. Pictures are ray-traced; the light goes with the camera.
Instructions name the viewpoint by the solid or by the side; some remove a named solid instead (`changes.py`).
"""

import itertools
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep.changes import told
from data_prep.draw import COLOURS
from data_prep.task import Ask, ProceduralTask, Scene, Target

Array = NDArray[np.floating[Any]]
Rows = NDArray[np.signedinteger[Any]]

SOLIDS = ("ball", "cube", "cone")
AZIMUTH = {"south": 0, "east": 90, "north": 180, "west": 270}  # of the camera, degrees, counter-clockwise from above
ANCHOR = {"east": (1, 0), "north": (0, 1), "west": (-1, 0)}  # cell of the solid that marks the viewpoint
VERBS = ("behind",) * 4 + ("from",) * 2 + ("remove",)  # of instructions, as often as named here
DISTANCE, ELEVATION, FIELD_OF_VIEW = 9.0, 52.0, 23.0  # board cells, degrees, degrees
RADIUS = 0.42  # of a solid, in board cells
REACH = 0.7  # from a solid's centre, in board cells; no solid reaches farther than 0.67
KEPT = 256  # rays a side up to which the four views are kept with all that they show, 24 MB in all
BACKGROUND, BOARD = (236, 238, 244), ((214, 206, 190), (196, 186, 168))
RELATIONS = {"to the left": (-1, 0), "to the right": (1, 0), "behind": (0, 1), "in front": (0, -1)}


class View3D(ProceduralTask):
    name = "view3d"
    shallow = 1

    def scene(self, rng: random.Random) -> Scene:
        # The first solid marks the viewpoint: the middle cell of a side other than the south. The others share a row
        # or a column, so that their relation is plain from any side.
        side = rng.choice(list(ANCHOR))
        anchor = ANCHOR[side]
        free = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != anchor]
        while True:
            first, second = rng.sample(free, 2)
            if _aligned(first, second):
                break
        colours = rng.sample(sorted(COLOURS), 3)
        return {
            "side": side,
            "solids": [
                {"at": list(cell), "colour": colour, "solid": rng.choice(SOLIDS)}
                for cell, colour in zip((anchor, first, second), colours, strict=True)
            ],
        }

    def aliases(self, scene: Scene) -> list[Scene]:
        # Which solid the question is asked from, and in which order it names the others, cannot be seen.
        sides = {cell: side for side, cell in ANCHOR.items()}
        orders = [list(order) for order in itertools.permutations(scene["solids"])]
        return [
            {"side": sides[tuple(order[0]["at"])], "solids": order}
            for order in orders
            if tuple(order[0]["at"]) in sides and _aligned(order[1]["at"], order[2]["at"])
        ]

    def target(self, scene: Scene, rng: random.Random) -> Target:
        return {"verb": "behind", "side": scene["side"]}

    def any_target(self, scene: Scene, rng: random.Random) -> Target:
        solids, verb = scene["solids"], rng.choice(VERBS)
        match verb:
            case "behind":
                return {"verb": verb, "side": rng.choice([side for side in ANCHOR if side in _sides(solids)])}
            case "from":
                return {"verb": verb, "side": rng.choice(list(ANCHOR))}
        return {"verb": verb, "side": "south", "solid": rng.randrange(len(solids))}

    def depth(self, scene: Scene, target: Target) -> int:
        return abs((AZIMUTH[target["side"]] + 180) % 360 - 180) // 90

    def source(self, scene: Scene, target: Target, size: int) -> Image.Image:
        return render(scene["solids"], AZIMUTH["south"], size)

    def edit(self, scene: Scene, target: Target, size: int) -> Image.Image:
        solids = list(scene["solids"])
        if target["verb"] == "remove":
            del solids[target["solid"]]
        return render(solids, AZIMUTH[target["side"]], size)

    def instruction(self, scene: Scene, target: Target) -> str:
        match target["verb"]:
            case "behind":
                return f"Show the scene from behind {_name(_sides(scene['solids'])[target['side']])}."
            case "from":
                return f"Show the scene from the {target['side']}."
        words = told(target, _name(scene["solids"][target["solid"]]))
        assert words
        return words

    def ask(self, scene: Scene, target: Target, rng: random.Random) -> Ask:
        anchor, first, second = scene["solids"]
        pose = camera_to_world(AZIMUTH[scene["side"]])
        offset = np.array([*np.subtract(first["at"], second["at"]), 0.0])
        right, forward = pose[:3, 0] @ offset, -pose[:3, 2] @ offset
        seen = (np.sign(right), 0) if abs(right) > abs(forward) else (0, np.sign(forward))
        choices = rng.sample(sorted(RELATIONS), 4)
        answer = next(name for name, direction in RELATIONS.items() if direction == seen)
        names = [_name(thing) for thing in (anchor, first, second)]
        return Ask(
            f"Seen from behind {names[0]}, where is {names[1]} relative to {names[2]}?",
            "ABCD"[choices.index(answer)],
            "option",
            tuple(choices),
            {"poses": [camera_to_world(AZIMUTH["south"]).tolist(), pose.tolist()]},  # OpenGL camera-to-world
        )


def _sides(solids: Sequence[Scene]) -> dict[str, Scene]:
    """The solids in the middle of a side of the board, from behind which a question may look, by that side."""
    sides = {cell: side for side, cell in ANCHOR.items()}
    return {sides[cell]: thing for thing in solids if (cell := tuple(thing["at"])) in sides}


def _name(thing: Scene) -> str:
    return f"the {thing['colour']} {thing['solid']}"


def _aligned(a: Sequence[int], b: Sequence[int]) -> bool:
    return a[0] == b[0] or a[1] == b[1]


def camera_to_world(azimuth: float) -> Array:
    """The OpenGL pose (4, 4) of a camera that looks at the board's centre: +x right, +y up, -z forward; z is up."""
    a, e = np.deg2rad(azimuth), np.deg2rad(ELEVATION)
    backward = np.array([np.sin(a) * np.cos(e), -np.cos(a) * np.cos(e), np.sin(e)])
    right = np.array([np.cos(a), np.sin(a), 0.0])
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = right, np.cross(backward, right), backward
    pose[:3, 3] = DISTANCE * backward
    return pose


class View:
    """What a camera on the circle round the board sees: its rays, row by row from the top, and the empty board."""

    def __init__(self, azimuth: float, rays: int) -> None:
        """`rays` x `rays` rays; N below is their number."""
        reach = np.tan(np.deg2rad(FIELD_OF_VIEW / 2)) * (np.arange(rays) + 0.5 - rays / 2) / (rays / 2)
        x, y = np.meshgrid(reach, -reach)
        directions = np.stack([x, y, -np.ones_like(x)], -1).reshape(-1, 3)
        pose = camera_to_world(azimuth)
        self.origin = pose[:3, 3]
        self.light = pose[:3, :3] @ np.array([-0.45, 0.75, 0.5])
        directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        self.directions = directions @ pose[:3, :3].T  # (N, 3)
        self.depth = -self.origin[2] / self.directions[:, 2]  # (N,) of the ground z = 0; every ray points down
        ground = self.origin[:2] + self.depth[:, None] * self.directions[:, :2]
        on_board = np.abs(ground).max(1) < 1.5
        odd = np.floor(ground + 1.5).sum(1) % 2 == 1
        board = np.where(odd[:, None], BOARD[1], BOARD[0])
        self.colour = np.where(on_board[:, None], board, BACKGROUND).astype(float)  # (N, 3), 0 to 255
        self._solids: dict[tuple[str, int, int], tuple[Rows, Array, Array]] = {}

    def solid(self, name: str, x: int, y: int) -> tuple[Rows, Array, Array]:
        """Of a solid at a cell the rays that hit it (M,), their lengths (M,) and the shade (M,) that they meet."""
        if (name, x, y) not in self._solids:
            origin = self.origin - np.array([x, y, RADIUS], float)
            along = self.directions @ origin
            near = np.flatnonzero(along * along >= origin @ origin - REACH**2)
            hit, normal = _INTERSECT[name](origin, self.directions, near)
            seen = hit < self.depth[near]
            shade = 0.62 + 0.45 * np.clip(normal[seen] @ self.light, 0, 1)
            self._solids[name, x, y] = near[seen], hit[seen], shade
        return self._solids[name, x, y]


_kept_view = cache(View)


def render(solids: list[dict[str, Any]], azimuth: float, size: int) -> Image.Image:
    """Ray-trace the board and its solids with four rays a pixel."""
    rays = 2 * size
    view = (_kept_view if rays <= KEPT else View)(azimuth, rays)
    depth, colour = view.depth.copy(), view.colour.copy()
    for thing in solids:
        which, hit, shade = view.solid(thing["solid"], *thing["at"])
        nearer = hit < depth[which]
        which, hit, shade = which[nearer], hit[nearer], shade[nearer]
        depth[which] = hit
        colour[which] = np.clip(np.array(COLOURS[thing["colour"]]) * shade[:, None], 0, 255)
    pixels = colour.reshape(size, 2, size, 2, 3).mean((1, 3))
    return Image.fromarray(pixels.round().astype(np.uint8))


# Of each solid round 0: the distance (M,) at which the rays `near` of all rays `directions` (N, 3) from `origin` hit
# it, inf where they miss, and the normals (M, 3). Matrix products are of all rays, for of fewer they may round
# otherwise, and pictures are to be the same whatever is left out.


def _ball(origin: Array, directions: Array, near: Rows) -> tuple[Array, Array]:
    """A ball of `RADIUS`."""
    b = (directions @ origin)[near]
    root = b * b - (origin @ origin - RADIUS**2)
    hit = np.where(root >= 0, -b - np.sqrt(np.maximum(root, 0)), np.inf)
    return hit, _at(origin, directions[near], hit) / RADIUS


def _cube(origin: Array, directions: Array, near: Rows) -> tuple[Array, Array]:
    half, directions = RADIUS * 0.92, directions[near]
    with np.errstate(divide="ignore", invalid="ignore"):
        enters = (-np.sign(directions) * half - origin) / directions
        leaves = (np.sign(directions) * half - origin) / directions
    enter, leave = enters.max(1), leaves.min(1)
    axis = enters.argmax(1)
    normal = np.zeros_like(directions)
    rows = np.arange(len(directions))
    normal[rows, axis] = -np.sign(directions[rows, axis])
    return np.where(enter <= leave, enter, np.inf), normal


def _cone(origin: Array, directions: Array, near: Rows) -> tuple[Array, Array]:
    """An upright cone: apex at +1.3 R, base circle of radius R at -R."""
    apex, slope = 1.3 * RADIUS, 1 / 2.3  # radius per height
    o = origin - np.array([0, 0, apex])
    scale = np.array([1, 1, -(slope**2)])
    a, b, c = ((directions**2) @ scale)[near], (directions @ (scale * o))[near], (o * scale) @ o
    directions = directions[near]
    root = b * b - a * c
    with np.errstate(divide="ignore", invalid="ignore"):
        hits = np.stack([(-b - np.sqrt(np.maximum(root, 0))) / a, (-b + np.sqrt(np.maximum(root, 0))) / a])
    height = o[2] + hits * directions[:, 2]
    valid = (root >= 0) & (hits > 0) & (height <= 0) & (height >= -2.3 * RADIUS)
    hit = np.where(valid, hits, np.inf).min(0)
    normal = _at(o, directions, hit) * np.array([1, 1, -(slope**2)])
    return hit, normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)


def _at(origin: Array, directions: Array, hit: Array) -> Array:
    return origin + np.where(np.isfinite(hit), hit, 0)[:, None] * directions


_INTERSECT = {"ball": _ball, "cube": _cube, "cone": _cone}
