"""Questions about charts, from RefChartQA (arXiv 2503.23131), the grounded ChartQA; the edit is the chart with a red
frame round each element that the answer is read from. The data are omoured/RefChartQA of the Hugging Face hub, nine
Parquet files of 2.9 GB with 55,789 training, 6,223 validation and 11,690 test questions, AGPL-3.0 (the charts and
questions are ChartQA's, GPL-3.0). Wanted is a folder with the Parquet files, or with a folder data that holds them.
They are read some rows at a time. Labels of type pot are results of programs, such as 51.666666666666664: where nobody
would read so many digits off a chart, the answer is rounded to two decimals, or below 1 to three significant digits."""

import hashlib
import random
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from data_prep.sources.columns import Rows, columns_seen, is_picture, is_text, schema_of
from data_prep.sources.source import BuildConfig, Source
from etchr.boxes import OUTSIDE, draw_boxes, read_boxes
from etchr.checks import Count, OneOf, one_of
from etchr.families import TaskFamily
from etchr.images import decode_image
from etchr.rows import text
from etchr.sample import EditSample

COLUMNS = ("id", "image", "query", "label", "type", "grounding_bboxes")  # `response` is the label with the boxes again
TYPES = ("human", "machine", "pot")  # who wrote the question; pot: a program of thought, from TinyChart
SPLITS = ("train", "validation", "test")  # of the source, by the names of its files

# What the graders read as exactly one number: 12, -3.5, 1,234, $5, 45%. They lose the sign of -$5, which stays a text.
_NUMBER = re.compile(r"[-+$€£¥]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,30})(?:\.[0-9]{1,30})? ?%?")
_LONG = re.compile(r"-?[0-9]{1,15}\.[0-9]{5,30}")  # more decimals than a reader gives

SourceSplit = Annotated[str, OneOf(*SPLITS)]
Outside = Annotated[str, OneOf(*OUTSIDE)]


@dataclass
class RefChartQAConfig(BuildConfig):
    """The options of this source."""

    root: str = "data/refchartqa"  # folder of the Parquet files, or of a folder data with them
    source_split: SourceSplit = "train"  # train, validation or test of the source (whose test charts are ChartQA's)
    types: list[str] = field(default_factory=lambda: list(TYPES))  # use questions of these: human, machine, pot
    outside: Outside = "clip"  # boxes that reach out of the chart: clip, or refuse the question
    max_boxes: Count = 20  # of a question; one with more is refused

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.types:
            one_of("types", name, TYPES)
        if not self.types:
            raise ValueError(f"types=[] must name at least one of {', '.join(TYPES)}")


class RefChartQA(Source):
    """The questions of RefChartQA, in the order of the files."""

    name = "refchartqa"

    def __init__(self, config: RefChartQAConfig) -> None:
        self.config = config
        root = Path(config.root)
        pattern = f"{config.source_split}*.parquet"
        self._files = sorted((root / "data").glob(pattern)) or sorted(root.glob(pattern))
        if not self._files:
            raise ValueError(
                f"no {pattern} in {root} or {root / 'data'}; get them with: "
                f"hf download omoured/RefChartQA --repo-type dataset --local-dir {root}"
            )
        for path in self._files:
            _check_columns(path)
        self._rows = Rows(self._files, COLUMNS)
        self._numbers = array("Q")  # of each item: its row, counted through all files
        self._repeated: set[int] = set()  # rows whose id an earlier item has
        self._read_index()

    def _read_index(self) -> None:
        """Note the rows of the wanted types and the digest of their ids."""
        left_out, seen, digest = set(TYPES) - set(self.config.types), set[str](), hashlib.sha256()
        rows = Rows(self._files, ["id", "type"])
        for number in range(len(rows)):
            try:
                name, kind = rows[number].values()
            except ValueError:  # a damaged row is an item, which is refused when its turn comes
                name = kind = None
            if kind in left_out:
                continue
            if name in seen:
                self._repeated.add(number)
            seen.add(name or "")
            digest.update(f"{number} {name!r}\n".encode())
            self._numbers.append(number)
        self._digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._numbers)

    def key(self, index: int) -> str:
        """The chart, by the hash of its file: many questions share one, whatever their ids.

        It cannot see that two files show one chart, at another size or quality.
        """
        return hashlib.sha256(_image_bytes(self._row(index)["image"])).hexdigest()

    def samples(self, index: int, rng: random.Random) -> Iterator[EditSample]:
        row = self._row(index)
        original_id = text(row["id"], "id", 500)
        if self._numbers[index] in self._repeated:
            raise ValueError(f"id {original_id[:100]!r} occurs a second time; the first one is used")
        one_of("type", kind := text(row["type"], "type", 100), TYPES)
        question, label = text(row["query"], "query"), _label(row["label"])
        answer = readable(label) if kind == "pot" else label
        data = _image_bytes(row["image"])
        image = decode_image(data)
        boxes = read_boxes(row["grounding_bboxes"], image.size, outside=self.config.outside, most=self.config.max_boxes)
        yield EditSample(
            id=f"{self.name}-{index:07d}",
            family=TaskFamily.CHART,
            task=self.name,
            image=image,
            question=question,
            answer=answer,
            edit_image=draw_boxes(image, boxes),
            meta={
                "source": "RefChartQA",
                "licence": "AGPL-3.0; charts and questions of ChartQA: GPL-3.0",
                "answer_type": "number" if _NUMBER.fullmatch(answer) else "text",
                "boxes": [box.as_list() for box in boxes],  # x, y, w, h in pixels
                "original_id": original_id,
                "label": label,
                "type": kind,
                "source_split": self.config.source_split,
                "picture": hashlib.sha256(data).hexdigest(),
            },
        )

    def identity(self) -> dict[str, Any]:
        """The files' names, sizes and layout, and the rows by their ids; all bytes would take too long to read."""
        return {"files": self._rows.digest, "rows": self._digest}

    def _row(self, index: int) -> dict[str, Any]:
        return self._rows[self._numbers[index]]


def _check_columns(path: Path) -> None:
    """`ValueError` that names the columns seen, unless they are those of RefChartQA."""
    schema = schema_of(path)
    kinds = {column.name: column.type for column in schema}
    fits = {"image": is_picture, "id": is_text, "type": is_text}
    if not set(COLUMNS) <= set(kinds) or not all(is_fit(kinds[name]) for name, is_fit in fits.items()):
        raise ValueError(
            f"{path} is not RefChartQA: needed are the columns {', '.join(COLUMNS)}, where image is a struct of bytes "
            f"and path, and id and type are text; {columns_seen(schema)}"
        )


def _image_bytes(cell: Any) -> bytes:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes) or not data:
        raise ValueError("the chart is not embedded as bytes; paths in rows are not opened")
    return data


def readable(label: str) -> str:
    """A program's result as a reader of the chart would give it: 51.67 for 51.666666666666664, 0.0167 for 0.016666667.

    Answers are graded at a relative tolerance of 1e-6, at which nobody's 51.67 is right. Four decimals and fewer stay.
    """
    if not _LONG.fullmatch(label):
        return label
    value = float(label)
    rounded = format(Decimal(f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"), "f")
    return rounded.rstrip("0").rstrip(".") if "." in rounded else rounded


def _label(label: Any) -> str:
    """The label as a text; a list of several is joined by commas."""
    if isinstance(label, list):
        return text(", ".join(text(part, "label") for part in label), "label")
    return text(label, "label")
