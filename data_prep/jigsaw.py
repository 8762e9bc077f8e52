"""Jigsaw: a picture cut into 2x2 pieces and shuffled; the edit is the restored picture.

Pieces carry blue borders and their number in the upper left corner. The answer `2-0-3-1` names the pieces that belong
to the upper left, upper right, lower left and lower right. Pictures are painted (a gradient with a centred figure) or,
at full size, cut from a folder of photographs.
"""

import hashlib
import itertools
import random
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from data_prep.draw import BLUE, COLOURS, INK, SHAPES, WHITE, Canvas
from data_prep.task import Ask, ProceduralTask, Scene, Target
from etchr.images import open_image, peek_image
from etchr.rows import inside

ORDERS = list(itertools.permutations(range(4)))  # the first is the identity
PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


class Jigsaw(ProceduralTask):
    name = "jigsaw"
    shallow = 3

    def __init__(self, photos: Path | None = None) -> None:
        """With `photos`, pictures are the image files of that folder; `ValueError` if it holds none.

        What is no photograph for all its name (a pipe, a device, a link out of the folder, a damaged file) is passed
        over; that a file's pixels are damaged shows when it is drawn, and another one takes its place.
        """
        self.photos: dict[str, Path] = {}  # by content, so that a photo keeps its split when others come or go
        if photos is not None:
            labels = photo_labels(photos)
            self.photos = dict(filter(None, (_found(photos, label) for label in labels)))
            self.scenes_repeat = True  # a folder holds few; each gives several puzzles
            if not self.photos:
                raise ValueError(f"none of the {len(labels)} photographs in {photos} is a sound file inside it")

    def scene(self, rng: random.Random) -> Scene:
        while self.photos:
            name = rng.choice(sorted(self.photos))
            if _opens(self.photos[name]):
                return {"photo": name}
            del self.photos[name]
            if not self.photos:
                raise ValueError("none of the photographs could be decoded; give photos= another folder")
        colours = rng.sample(sorted(COLOURS), 3)
        return {
            "corners": [[rng.randrange(40, 256) for _ in range(3)] for _ in range(4)],
            "figure": {"shape": rng.choice(SHAPES), "colour": colours[0], "radius": rng.choice((14, 18, 22))},
            "core": {"shape": rng.choice(SHAPES), "colour": colours[1]},
        }

    def target(self, scene: Scene, rng: random.Random) -> Target:
        return {"order": list(rng.choice(ORDERS[1:]))}

    def any_target(self, scene: Scene, rng: random.Random) -> Target:
        # The pieces lie in one order and are asked for in another: the instruction decides, not the picture.
        return {"order": list(rng.choice(ORDERS)), "shown": list(rng.choice(ORDERS))}

    def depth(self, scene: Scene, target: Target) -> int:
        return sum(piece != quadrant for quadrant, piece in enumerate(target["order"]))

    def source(self, scene: Scene, target: Target, size: int) -> Image.Image:
        shown = (
            target["shown"] if "shown" in target else target["order"]
        )  # shown[q]: where the piece of quadrant q lies
        picture, half = self._picture(scene, size), size // 2
        image = Image.new("RGB", (size, size))
        for quadrant, place in enumerate(shown):
            image.paste(picture.crop(_square(quadrant, half)), _square(place, half)[:2])
        canvas = Canvas(size, image)
        for place in range(4):
            x, y = place % 2 * 32, place // 2 * 32
            canvas.frame(x, y, 32, 32, BLUE)
            canvas.rect(x + 4, y + 4, 8, 12, INK)
            canvas.digit(str(place), x + 5, y + 5, WHITE)
        return canvas.image

    def edit(self, scene: Scene, target: Target, size: int) -> Image.Image:
        picture, half = self._picture(scene, size), size // 2
        if "shown" not in target:
            return picture
        image = Image.new("RGB", (size, size))
        for quadrant, place in enumerate(target["order"]):
            image.paste(picture.crop(_square(target["shown"].index(place), half)), _square(quadrant, half)[:2])
        return image

    def instruction(self, scene: Scene, target: Target) -> str:
        places = zip(("UL", "UR", "LL", "LR"), target["order"], strict=True)
        return "Place the pieces: " + " ".join(f"{place}{piece}" for place, piece in places)

    def ask(self, scene: Scene, target: Target, rng: random.Random) -> Ask:
        return Ask(
            "Which order of the pieces restores the picture?", "-".join(map(str, target["order"])), "permutation"
        )

    def _picture(self, scene: Scene, size: int) -> Image.Image:
        return _photo(self.photos[scene["photo"]], size) if "photo" in scene else _painting(scene, size)


def _square(index: int, half: int) -> tuple[int, int, int, int]:
    left, top = index % 2 * half, index // 2 * half
    return left, top, left + half, top + half


def _painting(scene: Scene, size: int) -> Image.Image:
    corners = np.array(scene["corners"], np.float64).reshape(2, 2, 1, 1, 3)
    down, right = np.meshgrid(*[np.linspace(0, 1, size)] * 2, indexing="ij")
    down, right = down[..., None], right[..., None]
    gradient = (corners[0, 0] * (1 - right) + corners[0, 1] * right) * (1 - down) + (
        corners[1, 0] * (1 - right) + corners[1, 1] * right
    ) * down
    canvas = Canvas(size, Image.fromarray(gradient.round().astype(np.uint8)))
    figure, core = scene["figure"], scene["core"]
    canvas.shape(figure["shape"], 32, 32, figure["radius"], COLOURS[figure["colour"]])
    canvas.shape(core["shape"], 32, 32, figure["radius"] / 2, COLOURS[core["colour"]])
    return canvas.image


def photo_labels(root: Path) -> list[str]:
    """The photographs below `root` by their path there, in a fixed order; `ValueError` if there is none."""
    files = (path for path in root.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
    labels = sorted(path.relative_to(root).as_posix() for path in files)
    if not labels:
        raise ValueError(f"no photographs ({', '.join(sorted(PHOTO_SUFFIXES))}) in {root}")
    return labels


def _found(root: Path, label: str) -> tuple[str, Path] | None:
    """Digest and path of a photograph below `root`, or None where something else bears the name of one."""
    try:
        path = inside(root, label)
        with path.open("rb") as stream:
            peek_image(stream)  # which limits its bytes
            stream.seek(0)
            return hashlib.file_digest(stream, "sha256").hexdigest(), path
    except (ValueError, OSError):
        return None


@lru_cache(maxsize=4096)
def _opens(path: Path) -> bool:
    try:
        open_image(path)
    except (ValueError, OSError):
        return False
    return True


@lru_cache(maxsize=32)
def _photo(path: Path, size: int) -> Image.Image:
    return ImageOps.fit(open_image(path), (size, size), Image.Resampling.LANCZOS)
