"""Changes of viewpoint from the videos of DL3DV-10K and their camera poses: the source is one frame, the edit another
frame of the same video, and the question is about the camera's motion or about what the new view shows. Had from the
Hub after accepting its terms: DL3DV/DL3DV-ALL-480P (about 730 GB), DL3DV/DL3DV-ALL-960P (2.8 TB), and
DL3DV/DL3DV-10K-Sample (11 scenes, free). Licence: DL3DV-10K Terms of Use, non-commercial research only. The folder
`root` holds a folder per scene at any depth, such as 1K/<hash>, each with transforms.json and images_4 or images_8. The
140 scenes of the benchmark are to be left out, so their list must be given with `exclude`."""

import csv
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from annotated_types import Ge, Interval
from PIL import Image

from data_prep.sources import poses
from data_prep.sources.poses import Motion, Video, direction_word, read_video, sector, turn
from data_prep.sources.source import BuildConfig, Source
from etchr.checks import NotNegative, OneOf, Share, one_of
from etchr.families import TaskFamily
from etchr.images import open_image
from etchr.rows import inside
from etchr.sample import EditSample

KINDS = ("light", "move", "turn")
THIRDS = ("In the left third", "In the middle third", "In the right third")
TURNS = {"left": "To the left", "right": "To the right", "straight": "It has not turned"}
AUTO = ("images_4", "images_8")  # the larger first
FOLDERS = ("images", "images_2", *AUTO)

HASH = re.compile(r"[0-9a-f]{64}")  # the name of a scene
MAX_LIST = 16 * 2**20  # bytes of the list of excluded scenes
MAX_DEPTH = 6  # folders from root down to a scene
MAX_SLOPE = 30.0  # degrees; steeper motions are not told by a direction in the ground plane
LEAST_MOTION = 0.005  # of the path's extent; a smaller motion has no direction
STRAIGHT, CLEAR = 5.0, 10.0  # degrees of yaw: at most the one is no turn, at least the other is one
STEP = 15  # degrees to which a turn is rounded in words, and from which one is asked about
ASPECT_TOLERANCE = 0.03  # of w/h against the picture's; rounding to 270 lines gives 0.004

Pictures = dict[int, Image.Image]  # by the number of the frame

FrameFolder = Annotated[str, OneOf("auto", *FOLDERS)]
Tilt = Annotated[float, Interval(gt=0, le=80)]


@dataclass
class DL3DVConfig(BuildConfig):
    """Options of the DL3DV-10K source."""

    part_size: int = 25  # scenes that go into one Parquet file; 25 have about 400 pictures: 0.3 GB at 960x540
    root: str = ""  # folder that holds the scenes' folders; required
    exclude: str | None = None  # list of scenes to leave out: benchmark-meta.csv, a hash per line, or none; required
    images: FrameFolder = "auto"  # of a scene's pictures, such as images_8 (480x270); auto: images_4, else images_8
    pairs_per_scene: Annotated[int, Ge(2)] = 8  # samples of a scene at most
    frames_per_scene: Annotated[int, Ge(3)] = 32  # frames drawn at random that the pairs are made of
    kinds: list[str] = field(default_factory=lambda: list(KINDS))  # of questions; for RL only light is learnable
    sectors: int = 8  # directions that are told apart, 8 or 4
    margin: NotNegative = 7.0  # degrees round the border of two directions that are left out as ambiguous
    light_margin: Annotated[float, Ge(1)] = 16.0  # of 255: how much brighter the brightest third must be than the next
    min_baseline: NotNegative = 0.03  # least distance of the two cameras, as a share of the path's extent
    max_baseline: float = 0.5  # largest distance
    min_yaw: NotNegative = 0.0  # degrees that the camera turns at least
    max_yaw: float = 60.0  # degrees that it turns at most
    min_shared: Share = 0.4  # share of either picture that the other shows too, estimated
    max_tilt: Tilt = 35.0  # degrees that a camera may be pitched or rolled
    near: float = 0.25  # depth at which contents are assumed to begin, as a share of the path's extent
    far: float = 2.0  # depth at which they end

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sectors not in (4, 8):
            raise ValueError(f"sectors={self.sectors} must be 4 or 8")
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds={self.kinds} must name at least one kind, and each once")
        for kind in self.kinds:
            one_of("kinds", kind, KINDS)
        if self.margin >= 180 / self.sectors:
            raise ValueError(f"margin={self.margin} must be below {180 / self.sectors}, half of a direction's width")
        if not self.min_baseline < self.max_baseline or not self.min_yaw < self.max_yaw <= 180:
            raise ValueError("min_baseline must be below max_baseline, and min_yaw below max_yaw (at most 180)")
        if not 0 < self.near < self.far:
            raise ValueError(f"near={self.near} must be above 0 and below far={self.far}")


class DL3DV(Source):
    """Scenes of DL3DV-10K; an item is a scene.

    The words of a question must not tell its answer, or the pictures are not needed. So questions come in sets of two
    to four: the same words and the same options, but other pairs of frames, and each option is the answer once. Who
    reads the words and options alone, with whatever geometry, is right in one of as many cases as there are options.
    No answer has more than half of a scene's questions. Poses know no objects, so the kinds are:

    - `light`: the motion is told (direction, turn to 15 degrees); asked in which third the new picture is brightest,
      which is measured in it and never the third that is brightest in the source (who knows this can rule that one
      out). The words fix the view up to the length of the step; from the source follows what comes where, as far as
      it shows it.
    - `move`: the turn is told; asked the direction moved in. Source and edit together show it.
    - `turn`: the direction moved in is told; asked the turn. Source and edit together show it.

    `move` and `turn` leave open which of several views is meant, and the source hints at it by habit at most (people
    walk round things). They teach an editor to draw views of the scene, but an editor that is rewarded for the right
    answer can only guess: use kinds=[light] for a set for RL. Poses have no true scale, so no length is ever told.

    Pairs for which an answer is near a border are left out. What hides what in the scene is not known. A scene in which
    the words always have one answer, such as one circle round a thing, gives no question of that kind.
    """

    name = "dl3dv"
    free_options = ("root", "exclude")

    def __init__(self, config: DL3DVConfig) -> None:
        excluded = excluded_scenes(config.exclude)
        if not config.root or not Path(config.root).is_dir():
            raise ValueError(f"root={config.root!r} is no folder; give the one that holds DL3DV-10K's scenes")
        self.config, self.root = config, Path(config.root)
        self.wanted = AUTO if config.images == "auto" else (config.images,)
        found = _scene_folders(self.root, self.wanted)
        if not found:
            raise ValueError(f"no scene (a folder with transforms.json) below {self.root}; unpack the scenes there")
        if not any(found.values()):
            raise ValueError(
                f"no scene below {self.root} has a folder {' or '.join(self.wanted)}; choose another one with images="
            )
        top = self.root.resolve().name
        self.scenes = [scene for scene in found.items() if excluded.isdisjoint(_names(top, scene[0]))]
        self.keys = [_key(_names(top, folder)) for folder, _ in self.scenes]
        scenes = (f"{folder}: {images}" for folder, images in self.scenes)
        self.digests = {"scenes": _digest(scenes), "excluded": _digest(sorted(excluded))}

    def __len__(self) -> int:
        return len(self.scenes)

    def key(self, index: int) -> str:
        return self.keys[index]

    def identity(self) -> dict[str, Any]:
        return self.digests

    def samples(self, index: int, rng: random.Random) -> list[EditSample]:
        folder, images = self.scenes[index]
        video = read_video(inside(self.root, (folder / "transforms.json").as_posix()), self.config.max_tilt)
        if images is None:
            raise ValueError(f"the scene has no folder {' or '.join(self.wanted)}")
        pictures = read_pictures(self.root, folder / images, video, self.config.frames_per_scene, rng)
        bright = {frame: _thirds(picture) for frame, picture in pictures.items()}
        asks: list[ViewAsk] = []
        for first, second in permutations(pictures, 2):
            if pair := find_pair(video, first, second, self.config):
                asks.extend(questions(pair, bright[first], bright[second], self.config))
        about = {"source": "DL3DV-10K", "licence": "DL3DV-10K Terms of Use (non-commercial research)"}
        about |= {"answer_type": "option", "scene": self.keys[index], "folder": folder.as_posix(), "images": images}
        found: list[EditSample] = []
        for number, chosen in enumerate(contrasting(asks, self.config.pairs_per_scene, rng)):
            options = [ask.answer for ask in chosen]
            for ask in chosen:
                meta = about | {"kind": ask.kind, "set": number} | _facts(video, ask.pair)
                shuffled = tuple(rng.sample(options, len(options)))
                found.append(_sample(f"{self.name}-{index:07d}-{len(found)}", pictures, ask, shuffled, meta))
        if not found:
            raise ValueError(f"its {len(pictures)} frames fit no question with two answers to the same words")
        return found


# -------------------------------------------------------------------------------------------------------------- folders


def excluded_scenes(path: str | None) -> set[str]:
    """The hashes in a list of scenes: one per line, or the column `hash` of a CSV such as benchmark-meta.csv.

    The word "none" gives none; `ValueError` if there is no list, or it is one of something else.
    """
    if path is None or not path.strip():
        raise ValueError(
            "exclude= must name the list of the benchmark's 140 scenes, benchmark-meta.csv of the Hub's "
            "DL3DV/DL3DV-10K-Benchmark, so that they are left out; exclude=none leaves out nothing"
        )
    if path == "none":
        return set()
    file = Path(path)
    if not file.is_file() or file.stat().st_size > MAX_LIST:
        raise ValueError(f"exclude={path} is no file, or one of more than {MAX_LIST:,} bytes")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"exclude={path} is no list of scenes ({error})") from None
    header = [cell.lower() for cell in rows[0]] if rows else []
    if "hash" in header:
        column = header.index("hash")
        cells = [row[column] if column < len(row) else "" for row in rows[1:]]
    elif all(len(row) == 1 for row in rows):
        cells = [row[0] for row in rows]
    else:
        raise ValueError(f"exclude={path} has no column 'hash'; it has: {', '.join(rows[0])[:200]}")
    hashes = {cell.lower() for cell in cells}
    if bad := [cell for cell in cells if not HASH.fullmatch(cell.lower())]:
        raise ValueError(f"exclude={path} holds {bad[0][:80]!r}, which is no scene's hash of 64 hexadecimal digits")
    if not hashes:
        raise ValueError(f"exclude={path} names no scene; exclude=none leaves out nothing")
    return hashes


def _scene_folders(root: Path, wanted: Iterable[str]) -> dict[Path, str | None]:
    """The scenes below `root`, relative to it, with the first of the `wanted` picture folders that each has.

    A scene is a folder with a transforms.json, or with pictures that should have one.
    """
    found = {}
    for place, folders, files in os.walk(root):
        folder = Path(place).relative_to(root)
        if "transforms.json" in files or not set(FOLDERS).isdisjoint(folders):
            found[folder] = next((name for name in wanted if name in folders), None)
            folders.clear()  # what lies deeper belongs to the scene
        elif len(folder.parts) >= MAX_DEPTH:
            folders.clear()
    return dict(sorted(found.items()))


def _names(top: str, folder: Path) -> list[str]:
    return [name.lower() for name in (top, *folder.parts)]


def _key(names: list[str]) -> str:
    """The scene's hash among the names of its folders; the last name where there is none."""
    hashes = [name for name in names if HASH.fullmatch(name)]
    return hashes[-1] if hashes else [name for name in names if name != "nerfstudio" or len(names) == 1][-1]


def _digest(lines: Iterable[str]) -> str:
    return sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:16]


# --------------------------------------------------------------------------------------------------------------- frames


def read_pictures(root: Path, folder: Path, video: Video, count: int, rng: random.Random) -> Pictures:
    """Up to `count` frames drawn at random, all of one size.

    Frames that are missing or damaged, or have not the shape that the camera has, are passed over; `ValueError` with
    the first reason if fewer than two are left.
    """
    pictures, reason = Pictures(), ""
    for frame in rng.sample(range(len(video.names)), len(video.names)):
        label = f"{folder.as_posix()}/{video.names[frame]}"
        try:
            picture = open_image(inside(root, label))
            if abs(picture.width / picture.height / video.aspect - 1) > ASPECT_TOLERANCE:
                raise ValueError(f"{label} is {picture.width}x{picture.height}, of another shape than w and h say")
        except ValueError as error:
            reason = reason or str(error)
            continue
        pictures[frame] = picture
        if len(pictures) == count:
            break
    sizes = Counter(picture.size for picture in pictures.values()).most_common(1)
    kept = {frame: picture for frame, picture in pictures.items() if picture.size == sizes[0][0]}
    if len(kept) < 2:
        raise ValueError(f"fewer than two frames can be used: {reason or f'they differ in size, as {sizes[0][0]}'}")
    return kept


def _thirds(picture: Image.Image) -> list[int]:
    """The mean brightness, 0 to 255, of the left, middle and right third of a picture."""
    return list(picture.convert("L").resize((3, 1), Image.Resampling.BOX).tobytes())


@dataclass(frozen=True)
class Pair:
    """Two frames of a video and what a question about them may use."""

    frames: tuple[int, int]
    motion: Motion
    shared: float  # share of either picture that the other shows too


def find_pair(video: Video, first: int, second: int, config: DL3DVConfig) -> Pair | None:
    """The pair of two frames; None if the motion between them is too small, too large or too steep."""
    ends = video.cameras[first], video.cameras[second]
    motion = poses.motion_between(*ends, video.up, video.extent)
    if not max(config.min_baseline, LEAST_MOTION) <= motion.baseline <= config.max_baseline:
        return None
    if not config.min_yaw <= abs(motion.yaw) <= config.max_yaw or abs(motion.slope) > MAX_SLOPE:
        return None
    shared = poses.shared_view(poses.relative(*ends), video.lens, config.near * video.extent, config.far * video.extent)
    return Pair((first, second), motion, shared) if shared >= config.min_shared else None


# ------------------------------------------------------------------------------------------------------------ questions


class ViewAsk(NamedTuple):
    """A question about a pair and its answer. Answers of one group are far enough apart to be options together."""

    kind: str
    pair: Pair
    question: str
    answer: str
    group: int = 0


def questions(pair: Pair, before: list[int], after: list[int], config: DL3DVConfig) -> Iterator[ViewAsk]:
    """The questions that a pair fits, given the brightness of the thirds of both pictures."""
    moved, yaw = sector(pair.motion.heading, config.sectors, config.margin), pair.motion.yaw
    side = turn(yaw, STRAIGHT, CLEAR)
    if moved is None or side is None:
        return
    word = direction_word(moved, config.sectors)
    faces = "the same way as here"
    if side != "straight":
        faces = f"about {max(1, round(abs(yaw) / STEP)) * STEP} degrees further to the {side} than here"
    best, second = sorted(range(3), key=lambda third: -after[third])[:2]
    if "light" in config.kinds and after[best] - after[second] >= config.light_margin and before[best] < max(before):
        yield ViewAsk(
            "light", pair,
            f"The camera moves {word} to a new viewpoint, and there it faces {faces}. In which third is the picture "
            "that it takes there the brightest on average?",
            THIRDS[best],
        )  # fmt: skip
    if "move" in config.kinds:
        yield ViewAsk(
            "move", pair,
            "A second picture of this place is taken from another viewpoint. There the camera faces "
            f"{faces}. In which direction has it moved, as seen from here?",
            word.capitalize(),
            moved % 2 if config.sectors == 8 else 0,  # of eight directions, neighbours are hard to tell apart
        )  # fmt: skip
    if "turn" in config.kinds and (side == "straight" or abs(yaw) >= STEP):
        yield ViewAsk(
            "turn", pair,
            f"The camera moves {word} to another viewpoint and takes a second picture of this place. Which way has it "
            "turned?",
            TURNS[side],
        )  # fmt: skip


def contrasting(asks: list[ViewAsk], room: int, rng: random.Random) -> Iterator[list[ViewAsk]]:
    """Sets of questions of the same words, each with another answer; `room` questions at most in all.

    The kind that was asked least comes first, then the largest set. No source frame is taken twice.
    """
    groups: dict[tuple[str, str, int], dict[str, list[ViewAsk]]] = {}
    for ask in rng.sample(asks, len(asks)):
        groups.setdefault((ask.kind, ask.question, ask.group), {}).setdefault(ask.answer, []).append(ask)
    asked, used = Counter[str](), set[int]()
    while True:
        sets = {key: found for key, answers in groups.items() if len(found := _free(answers, used)[:room]) > 1}
        if not sets:
            return
        best = max(sets, key=lambda key: (-asked[key[0]], len(sets[key])))
        del groups[best]
        asked[best[0]] += len(sets[best])
        used.update(ask.pair.frames[0] for ask in sets[best])
        room -= len(sets[best])
        yield sets[best]


def _free(answers: dict[str, list[ViewAsk]], used: set[int]) -> list[ViewAsk]:
    """A question for each answer that still can be given one, all of different source frames that are not `used`."""
    found: dict[int, ViewAsk] = {}
    for asks in answers.values():
        free = (ask for ask in asks if ask.pair.frames[0] not in used and ask.pair.frames[0] not in found)
        if ask := next(free, None):
            found[ask.pair.frames[0]] = ask
    return list(found.values())


def _facts(video: Video, pair: Pair) -> dict[str, Any]:
    motion = pair.motion
    numbers = {"heading": motion.heading, "yaw": motion.yaw, "baseline": motion.baseline, "shared_view": pair.shared}
    return {"frames": [video.names[n] for n in pair.frames], **{key: round(n, 4) for key, n in numbers.items()}}


def _sample(name: str, pictures: Pictures, ask: ViewAsk, options: tuple[str, ...], meta: dict[str, Any]) -> EditSample:
    return EditSample(
        id=name,
        family=TaskFamily.VIEW3D,
        task="dl3dv",
        image=pictures[ask.pair.frames[0]],
        edit_image=pictures[ask.pair.frames[1]],
        question=ask.question,
        choices=options,
        answer="ABCD"[options.index(ask.answer)],
        meta=meta,
    )
