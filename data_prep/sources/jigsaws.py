"""Jigsaws of 2x2 patches, cut from any folder of photographs, or the published ones of Spatial-SSRL-81k. The patches
are shuffled, with a blue border and an index from 0 to 3 each; the edit is the restored photo, of the same size. With
photos=FOLDER every jpg, png and webp below the folder is used, and its licence is its owner's (COCO 2017's 118,000
training photos are 18 GB). A tenth of the photos, by their content, is kept for split=test and is in no training set. A
test set has one puzzle of each of the first num_items of them (200, if it is not said) that can be cut, in the order of
the SHA-256 of their file names: the same ones for everybody who has the folder. With spatial_ssrl=FOLDER the folder
holds spatialssrl.parquet and, extracted, images.zip (images/shuffle/...) of
https://huggingface.co/datasets/internlm/Spatial-SSRL-81k (MIT; 81,053 rows of five tasks, of which the shuffled patches
are used). Its unshuffled photos are not published, so those edits keep borders and indices: prefer photos.
"""

import hashlib
import math
import posixpath
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Interval
from PIL import Image, ImageDraw, ImageFont

from data_prep.jigsaw import ORDERS, photo_labels
from data_prep.sources.columns import Rows, columns_seen, is_text, schema_of
from data_prep.sources.source import TEST_SHARE, BuildConfig, Source, split_of
from etchr.checks import at_least
from etchr.families import TaskFamily
from etchr.images import MAX_BYTES, open_image, peek_image
from etchr.parquet import is_list
from etchr.rows import inside, text
from etchr.sample import EditSample
from etchr.seeds import hash_seed

BORDER = (0, 0, 255)
MAX_ASPECT = 4.0  # longer side over shorter one
TEST_PHOTOS = 200  # of a test set of photographs, where num_items does not say it
TABLE, PICTURES, TASK_FOLDER = "spatialssrl.parquet", "images", "shuffle"
PUBLISHED_AT = "https://huggingface.co/datasets/internlm/Spatial-SSRL-81k"
COLUMNS = {  # what is wanted -> the names that it may have; the first is that of Spatial-SSRL's own training options
    "question": ("problem", "question", "prompt"),
    "answer": ("answer", "label", "ground_truth"),
    "images": ("images", "image"),
}
QUESTION = (
    "This is a jigsaw: a photo was cut into 2x2 patches of one size, and the patches were shuffled. Each has a blue "
    "border and its index, 0 to 3, in its upper left corner. Which patches belong to the upper left, upper right, "
    "lower left and lower right of the photo? Answer with the four indices in that order, joined by hyphens, such as "
    "2-0-3-1."
)

NumOrders = Annotated[int, Interval(ge=1, lt=len(ORDERS))]


@dataclass
class JigsawsConfig(BuildConfig):
    """Options of `python -m data_prep jigsaws`; either `photos` or `spatial_ssrl` is to be given."""

    has_test_set: ClassVar[bool] = True

    photos: str | None = None  # folder of photographs, searched with all folders below it
    spatial_ssrl: str | None = None  # folder with spatialssrl.parquet and the extracted images.zip
    puzzles: NumOrders = 1  # of each photograph, all of different orders; 23 at most
    max_pixels: int = 1_048_576  # area of a picture; larger ones are scaled down
    min_side: Annotated[int, Ge(64)] = 128  # px of the shorter side, after scaling; smaller pictures are refused
    photos_source: str = "photographs"  # name of the photographs' collection, for the samples
    photos_licence: str = "not stated"  # of the photographs, for the samples

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, {"max_pixels": self.min_side**2})
        if bool(self.photos) == bool(self.spatial_ssrl):
            raise ValueError("give either photos=FOLDER or spatial_ssrl=FOLDER")
        if self.split == "test" and (self.spatial_ssrl or self.puzzles > 1):
            raise ValueError("split=test has one puzzle of each photograph: give photos=FOLDER and puzzles=1")
        if self.spatial_ssrl and self.puzzles > 1:
            raise ValueError(f"puzzles={self.puzzles} is for photos; Spatial-SSRL's pictures are puzzles already")


@dataclass(frozen=True)
class JigsawRow:
    """A published jigsaw: what its row of the table says, unchecked."""

    number: int  # of the row
    label: str  # of the picture
    question: Any
    answer: Any


class Jigsaws(Source):
    """The photographs of a folder, or the rows of Spatial-SSRL that are jigsaws."""

    name = "jigsaws"
    free_options = ("photos", "spatial_ssrl")

    def __init__(self, config: JigsawsConfig) -> None:
        self.config = config
        self.root = Path(config.photos or config.spatial_ssrl or "")
        self.test_share = TEST_SHARE if config.photos else 0
        if not self.root.is_dir():
            raise ValueError(f"no folder {self.root}")
        self._rows: list[JigsawRow] = []
        if config.photos:
            self._labels = photo_labels(self.root)
        else:
            self._rows = published_rows(self.root / TABLE)
            self._labels = [picture_label(row.label) for row in self._rows]
            self.root = self.root / PICTURES if (self.root / PICTURES).is_dir() else self.root
        self._tests: list[int] = []  # the photographs of a test set, as far as they are known
        self._draw = self._test_photos()

    def __len__(self) -> int:
        """The number of items. A test set is looked for now, so that one that cannot be is refused before work."""
        if self.config.split != "test":
            return len(self._labels)
        count = self.config.num_items or TEST_PHOTOS
        self._photo(count - 1)
        return count

    def identity(self) -> dict[str, Any]:
        """The pictures by their names and, of published puzzles, all that is asked."""
        digest = hashlib.sha256(repr((self._labels, self._rows)).encode("utf-8", "surrogatepass"))
        return {"items": len(self._labels), "index": digest.hexdigest()}

    def key(self, index: int) -> str:
        """The digest of the picture's file, so that copies of a photo share a split.

        It cannot see that two pictures show one photo: at another size or quality, or as two published puzzles.
        """
        return _digest(self._path(self._photo(index)))

    def samples(self, index: int, rng: random.Random) -> Iterable[EditSample]:
        if self._rows:
            return [self._published(index)]
        return self._puzzles(index, rng)

    def _photo(self, index: int) -> int:
        """The photograph of an item; `ValueError` if there are too few for a test set."""
        if self.config.split != "test":
            return index
        while len(self._tests) <= index:
            photo = next(self._draw, None)
            if photo is None:
                raise ValueError(
                    f"split=test: of the {len(self._labels):,} photographs in {self.root} only {len(self._tests)} are "
                    "in that split and can be cut; ask for fewer with num_items=, or give a larger folder"
                )
            self._tests.append(photo)
        return self._tests[index]

    def _test_photos(self) -> Iterator[int]:
        """The photographs that a test set may have, in its order: none is a copy of one before."""
        names = {
            photo: hashlib.sha256(posixpath.basename(label).encode("utf-8", "surrogatepass")).hexdigest()
            for photo, label in enumerate(self._labels)
        }
        seen: set[str] = set()
        for photo in sorted(names, key=lambda photo: (names[photo], self._labels[photo])):
            try:
                key = _digest(self._path(photo))
                if split_of(key, 0, self.test_share) == "test" and key not in seen:
                    seen.add(key)
                    self._cuttable(photo)
                    yield photo
            except ValueError:  # damaged, too small: another one takes its place
                continue

    def _cuttable(self, photo: int) -> Image.Image:
        """A photograph at the size of its puzzles; `ValueError` if it can be none."""
        path = self._path(photo)
        size = self._size(path)
        picture = fitted(open_image(path), size)
        if len({piece.tobytes() for piece in cut(picture)}) < 4:
            raise ValueError("two of the photo's patches are alike, so its order cannot be told")
        return picture

    def _size(self, path: Path) -> tuple[int, int]:
        with path.open("rb") as stream:  # before the pixels are decoded
            return fitted_size(peek_image(stream).size, self.config.max_pixels, self.config.min_side)

    def _puzzles(self, index: int, rng: random.Random) -> Iterator[EditSample]:
        photo = self._cuttable(self._photo(index))
        orders = self.orders(index) if self.config.split == "test" else rng.sample(ORDERS[1:], self.config.puzzles)
        for number, order in enumerate(orders):
            image = with_borders(shuffled(photo, order))
            meta = {
                "source": self.config.photos_source,
                "licence": self.config.photos_licence,
                "border": border_width(photo.size),  # px
            }
            suffix = f"-{number}" if len(orders) > 1 else ""
            yield self._sample(f"{index:07d}{suffix}", image, photo, order, QUESTION, index, meta)

    def orders(self, index: int) -> list[tuple[int, ...]]:
        """The order of a test set's item: of any 23 items in a row each has another one, so that no guess is better."""
        block, place = divmod(index, len(ORDERS) - 1)
        rng = random.Random(hash_seed(self.name, "orders", self.config.seed, block))
        return [rng.sample(ORDERS[1:], len(ORDERS) - 1)[place]]

    def _published(self, index: int) -> EditSample:
        row, path = self._rows[index], self._path(index)
        size = self._size(path)
        question = text(row.question, "question").replace("<image>", " ").strip()
        order = read_order(row.answer)
        image = open_image(path)
        if image.width % 2 or image.height % 2:
            raise ValueError(f"picture has {image.width}x{image.height} px; a puzzle of 2x2 patches has even sides")
        image = fitted(image, size)
        meta = {"source": "Spatial-SSRL-81k", "licence": "MIT", "row": row.number, "edit_has_borders": True}
        return self._sample(f"{index:07d}", image, assemble(cut(image), order), order, question, index, meta)

    def _sample(
        self,
        suffix: str,
        image: Image.Image,
        edit: Image.Image,
        order: Sequence[int],
        question: str,
        index: int,
        meta: dict[str, Any],
    ) -> EditSample:
        return EditSample(
            id=f"{self.name}-{suffix}",
            family=TaskFamily.JIGSAW,
            task="jigsaw",
            image=image,
            question=question,
            answer="-".join(map(str, order)),
            edit_image=edit,
            meta={"answer_type": "permutation", "path": self._labels[self._photo(index)]} | meta,
        )

    def _path(self, picture: int) -> Path:
        path = inside(self.root, self._labels[picture])
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"picture has {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read")
        return path


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --- pieces -------------------------------------------------------------------------------------------------------


def cut(picture: Image.Image) -> list[Image.Image]:
    """The four quarters of a picture with even sides: upper left, upper right, lower left, lower right."""
    width, height = picture.width // 2, picture.height // 2
    boxes = [(x, y, x + width, y + height) for y in (0, height) for x in (0, width)]
    return [picture.crop(box) for box in boxes]


def assemble(pieces: Sequence[Image.Image], order: Sequence[int]) -> Image.Image:
    """The picture whose quarter `q` is `pieces[order[q]]`."""
    width, height = pieces[0].size
    picture = Image.new("RGB", (2 * width, 2 * height))
    for quarter, piece in enumerate(order):
        picture.paste(pieces[piece], (quarter % 2 * width, quarter // 2 * height))
    return picture


def shuffled(picture: Image.Image, order: Sequence[int]) -> Image.Image:
    """The puzzle whose answer is `order`: `assemble(cut(puzzle), order)` is `picture` again, pixel by pixel."""
    return assemble(cut(picture), [order.index(place) for place in range(4)])


def fitted_size(size: tuple[int, int], max_pixels: int, min_side: int) -> tuple[int, int]:
    """The even sides at which a picture of `size` is used; `ValueError` if that is too small or too thin."""
    scale = min(1.0, math.sqrt(max_pixels / (size[0] * size[1])))
    width, height = (int(side * scale) // 2 * 2 for side in size)
    if max(size) > MAX_ASPECT * min(size):
        raise ValueError(f"picture has {size[0]}x{size[1]} px; sides may differ {MAX_ASPECT:g}-fold at most")
    if min(width, height) < min_side:
        raise ValueError(f"picture of {size[0]}x{size[1]} px would have a side below min_side={min_side}")
    return width, height


def fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture at `size`: where it is one pixel longer its last row or column is cut off, else it is scaled."""
    if 0 <= picture.width - size[0] <= 1 and 0 <= picture.height - size[1] <= 1:
        return picture.crop((0, 0, *size))
    return picture.resize(size, Image.Resampling.LANCZOS)


# --- borders and indices ------------------------------------------------------------------------------------------


def border_width(size: tuple[int, int]) -> int:
    """Pixels of the border round each patch: Spatial-SSRL's 2 on a picture of 480 px, and in proportion."""
    return max(2, round(min(size) / 240))


def with_borders(puzzle: Image.Image) -> Image.Image:
    """The puzzle with a blue border just inside each patch and its index in the upper left corner."""
    image, width = puzzle.copy(), border_width(puzzle.size)
    canvas, font = ImageDraw.Draw(image), _font(max(16, min(puzzle.size) // 10))
    margin = width * 3
    for place in range(4):
        x, y = place % 2 * puzzle.width // 2, place // 2 * puzzle.height // 2
        box = (x, y, x + puzzle.width // 2 - 1, y + puzzle.height // 2 - 1)  # the ends are included
        canvas.rectangle(box, outline=BORDER, width=width)
        canvas.text((x + margin, y + margin), str(place), "white", font, "lt", stroke_width=width, stroke_fill="black")
    return image


@lru_cache(maxsize=64)
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


# --- what is published --------------------------------------------------------------------------------------------


def published_rows(table: Path) -> list[JigsawRow]:
    """The rows of Spatial-SSRL's table whose picture lies in `shuffle/`.

    Its published form is known from the options of the authors' training only (columns `problem`, `answer`, `images`,
    a list of paths), so other names are tried too. `ValueError` names the columns seen if there are no such ones.
    """
    if not table.is_file():
        raise ValueError(f"no {table.name} in {table.parent}; get it from {PUBLISHED_AT}")
    schema = schema_of(table)
    question, answer, images = (_column(want, schema) for want in COLUMNS)
    cells = Rows([table], [question, answer, images])
    labels = [(row[question], row[answer], _only(row[images])) for row in (cells[n] for n in range(len(cells)))]
    rows = [JigsawRow(n, label, q, a) for n, (q, a, label) in enumerate(labels) if f"/{TASK_FOLDER}/" in f"/{label}"]
    if not rows:
        seen = sorted({label[:100] for _, _, label in labels})[:3]
        raise ValueError(f"no row of {table.name} has a picture in {TASK_FOLDER}/; it has {len(labels)} rows: {seen}")
    return rows


def _column(want: str, schema: Any) -> str:
    """The name of the column that holds what is wanted."""
    name = next((name for name in COLUMNS[want] if name in schema.names), None)
    if name is None:
        raise ValueError(f"{TABLE} has no column {' or '.join(COLUMNS[want])}; {columns_seen(schema)}")
    kind = schema.field(name).type
    if want != "answer" and not is_text(kind.value_type if want == "images" and is_list(kind) else kind):
        holds = "paths" if want == "images" else "texts"
        raise ValueError(f"{TABLE}: column {name} is to hold {holds}; {columns_seen(schema)}")
    return name


def _only(images: Any) -> str:
    """The label of a row's only picture, or nothing."""
    images = images if isinstance(images, list) else [images]
    return images[0] if len(images) == 1 and isinstance(images[0], str) else ""


def picture_label(label: str) -> str:
    """A row's label from `shuffle` on, for the folders above differ with the machine that wrote the table."""
    return f"{TASK_FOLDER}/" + f"/{label}".rpartition(f"/{TASK_FOLDER}/")[2]


def read_order(answer: Any) -> tuple[int, ...]:
    """The order in a row's answer, such as `[2 0 3 1]`; `ValueError` for anything else and for the solved puzzle."""
    words = " ".join(map(str, answer)) if isinstance(answer, list) else text(answer, "answer", 100)
    if not re.fullmatch(r"[(\[]?\s*[0-3](?:[\s,;>-]*[0-3]){3}\s*[)\]]?\.?", words):
        raise ValueError(f"answer {words[:100]!r} is no order of the patches 0 to 3")
    order = tuple(int(digit) for digit in re.findall("[0-3]", words))
    if order not in ORDERS:
        raise ValueError(f"answer {words!r} names a patch twice")
    if order == ORDERS[0]:
        raise ValueError("the puzzle lies solved already")
    return order
