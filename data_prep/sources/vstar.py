"""Questions about details of photographs, from the training data of V* (SEAL, arXiv 2312.14135); the edit is the
photograph with a red frame round each thing that the question is about. The records are craigwu/seal_vqa_data of the
Hugging Face hub, six JSON files of 0.3 GB, of which four have boxes (191,000 records). Wanted is a folder with these
files and the pictures: coco2014/train2014 and coco2017/train2017 (13 and 19 GB, cocodataset.org), gqa/images (20 GB,
cs.stanford.edu/people/dorarad/gqa). The files state no licence of their own; GQA and COCO annotations are CC BY 4.0,
VAW's attributes and LLaVA's texts have terms of their own (github.com/adobe-research/vaw_dataset,
liuhaotian/LLaVA-Instruct-150K), and the photographs are Flickr users', under Flickr's terms."""

import codecs
import hashlib
import json
import posixpath
import random
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from data_prep.sources.source import BuildConfig, Source
from etchr.boxes import OUTSIDE, draw_boxes, read_boxes
from etchr.checks import Count, OneOf, one_of
from etchr.families import TaskFamily
from etchr.images import open_image
from etchr.rows import inside, text
from etchr.sample import EditSample

LICENCES = {  # of the annotations that a file was made from
    "GQA_data.json": "CC BY 4.0 (GQA)",
    "vaw_attribute_data.json": "VAW's own terms",
    "spatial_relation_data.json": "CC BY 4.0 (COCO)",
    "llava_focus_data.json": "LLaVA's own terms, CC BY 4.0 (COCO)",
    "negative_data.json": "CC BY 4.0 (COCO)",
    "llava_instruct_data.json": "LLaVA's own terms, CC BY 4.0 (COCO)",
}
FILES = tuple(LICENCES)
BOX_FILES = FILES[:4]  # the others hold no boxes: answers about what is not there, and dialogues
PICTURES = {"gqa": "gqa/images", "coco2014": "coco2014/train2014", "coco2017": "coco2017/train2017"}
MAX_JSON = 2**30  # bytes of a file of records
MAX_DIGITS = 4_000  # of an integer that is read as one; Python refuses to read more than 4,300

_FOCUS = re.compile(r"Additional visual information to focus on:\s*(?:<object>[\s;,.]*)*")
_PICTURE = re.compile(r"<image>|<im_start>|<im_end>")
_PLACEHOLDER = re.compile(r"<(?:image|object|im_start|im_end)>")
# Brackets, and texts, whose own do not count. A text without an end reaches to the end: no letter is read twice.
_SIGNS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_COCO_NAME = re.compile(r"(?:COCO_train2014_)?([0-9]{12})\.jpg")


@dataclass
class VStarConfig(BuildConfig):
    """The options of this source."""

    root: str = "data/vstar"  # folder of the JSON files and of coco2014, coco2017 and gqa; each may be a link
    files: list[str] = field(default_factory=lambda: list(BOX_FILES))  # of records; the two others have no boxes
    pictures: list[str] = field(default_factory=lambda: list(PICTURES))  # use records of these pictures
    outside: Annotated[str, OneOf(*OUTSIDE)] = "clip"  # boxes that reach out of the picture: clip, or refuse the record
    max_targets: Count = 6  # boxes of a record; one with more is refused
    multi_turn: bool = False  # also dialogues, by their first question, though the boxes may be of a later one

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.files:
            one_of("files", name, FILES)
        for name in self.pictures:
            one_of("pictures", name, tuple(PICTURES))
        for option in ("files", "pictures"):
            if len(set(getattr(self, option))) != len(getattr(self, option)) or not getattr(self, option):
                raise ValueError(f"{option}={getattr(self, option)} must name at least one, and none twice")


class VStarSource(Source):
    """The records of SEAL's instruction tuning that have boxes."""

    name = "vstar"

    def __init__(self, config: VStarConfig) -> None:
        self.config, self.root = config, Path(config.root)
        for name in config.files:
            if not (self.root / name).is_file():
                raise ValueError(
                    f"no {name} in {self.root}; get it with: "
                    f"hf download craigwu/seal_vqa_data --repo-type dataset --local-dir {self.root}"
                )
        for name in config.pictures:
            if not (self.root / PICTURES[name]).is_dir():
                raise ValueError(
                    f"no folder {PICTURES[name]} in {self.root}; put or link the pictures there, "
                    "or name those that you have: pictures=[...]"
                )
        self._digests: dict[str, str] = {}
        self._places = array("Q")  # of each item: file, number in the file, first byte, byte after the last
        for number, name in enumerate(config.files):
            self._read_index(number, name)

    def _read_index(self, number: int, name: str) -> None:
        path = self.root / name
        if path.stat().st_size > MAX_JSON:
            raise ValueError(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_JSON:,} are read")
        data = path.read_bytes()
        self._digests[name] = hashlib.sha256(data).hexdigest()
        left_out = set(PICTURES) - set(self.config.pictures)
        for row, (record, start, end) in enumerate(_records(data, path)):
            label = record.get("image") if isinstance(record, dict) else None
            if not isinstance(label, str) or label.partition("/")[0] not in left_out:
                self._places.extend((number, row, start, end))

    def __len__(self) -> int:
        return len(self._places) // 4

    def key(self, index: int) -> str:
        """The picture: its path, or its COCO number, for coco2014 and coco2017 hold the same photographs.

        It cannot see that about half of GQA's photographs, which are Visual Genome's, are COCO's under another number:
        one may be in `train` as GQA's and in `val` as COCO's. Where that matters take one of them: pictures=[gqa].
        """
        label = _label(self._record(index)[0])
        coco = _COCO_NAME.fullmatch(posixpath.basename(label))
        return f"coco/{coco[1]}" if coco and label.startswith("coco") else label

    def samples(self, index: int, rng: random.Random) -> Iterator[EditSample]:
        record, file, row = self._record(index)
        question, answer, num_turns = self._dialogue(record)
        targets = record.get("target_instances")
        if not isinstance(targets, list) or not targets:
            raise ValueError("the record has no target_instances")
        if not all(isinstance(target, dict) and target.get("bbox") for target in targets):
            raise ValueError("a target has no box")
        label = _label(record)
        names = [text(target.get("name"), "target name", 500) for target in targets]
        image = open_image(self._picture(label))
        boxes = read_boxes(
            [target["bbox"] for target in targets],
            image.size,
            outside=self.config.outside,
            most=self.config.max_targets,
        )
        yield EditSample(
            id=f"{self.name}-{index:07d}",
            family=TaskFamily.PERCEPTION,
            task=self.name,
            image=image,
            question=question,
            answer=answer,
            edit_image=draw_boxes(image, boxes),
            meta={
                "source": "SEAL (V*) VQA data",
                "licence": f"{LICENCES[file]}; photographs under Flickr's terms",
                "answer_type": "text",
                "boxes": [box.as_list() for box in boxes],  # x, y, w, h in pixels
                "targets": names,
                "path": label,
                "file": file,
                "record": row,
                "turns": num_turns,
            },
        )

    def identity(self) -> dict[str, Any]:
        return {"sha256": self._digests}

    def _record(self, index: int) -> tuple[dict[str, Any], str, int]:
        """Item `index`: the record, the name of its file and its number there."""
        number, row, start, end = self._places[4 * index : 4 * index + 4]
        name = self.config.files[number]
        with (self.root / name).open("rb") as stream:
            stream.seek(start)
            data = stream.read(end - start)
        try:
            record = json.loads(data, parse_int=_integer)
        except RecursionError:
            raise ValueError("the record is nested too deeply") from None
        if not isinstance(record, dict):
            raise ValueError(f"the record is no object but {type(record).__name__}")
        return record, name, row

    def _dialogue(self, record: dict[str, Any]) -> tuple[str, str, int]:
        """The question, the answer and the number of turns."""
        turns = record.get("conversations")
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise ValueError("conversations is no list of turns")
        if [turn.get("from") for turn in turns[:2]] != ["human", "gpt"]:
            raise ValueError("the dialogue does not begin with a human turn and a gpt turn")
        if len(turns) > 2 and not self.config.multi_turn:
            raise ValueError("a dialogue of several questions; which of them its boxes belong to is not told")
        asked = text(turns[0].get("value"), "question")
        question = text(_PICTURE.sub(" ", _FOCUS.sub(" ", asked)), "question")
        answer = text(turns[1].get("value"), "answer")
        for name, words in (("question", question), ("answer", answer)):
            if _PLACEHOLDER.search(words):
                raise ValueError(f"the {name} speaks of a picture by a placeholder")
        return question, answer, len(turns)

    def _picture(self, label: str) -> Path:
        for folder in PICTURES.values():
            if label.startswith(f"{folder}/"):
                return inside(self.root / folder, label.removeprefix(f"{folder}/"))
        raise ValueError(f"path {label[:200]!r} is not below {', '.join(PICTURES.values())}")


def _label(record: dict[str, Any]) -> str:
    return posixpath.normpath(text(record.get("image"), "image path", 1_000))


def _records(data: bytes, path: Path) -> Iterator[tuple[Any, int, int]]:
    """The records of a JSON list, one at a time, each with its first byte and the byte after its last.

    Read as Latin-1, so that a character is a byte: enough to see where a record ends, for no byte of UTF-8 beyond ASCII
    looks like JSON's own signs. A record's texts must be decoded again. One nested too deeply to be read is None
    here, and refused when its turn comes. `ValueError` for anything but a list.
    """
    letters, decode = data.decode("latin-1"), json.JSONDecoder(parse_int=_integer).raw_decode
    at = _after_blanks(letters, 3 if data.startswith(codecs.BOM_UTF8) else 0)
    if letters[at : at + 1] != "[":
        raise ValueError(f"{path} is no JSON list of records")
    sign = "["
    while sign != "]":
        at = _after_blanks(letters, at + 1)
        if sign == "[" and letters[at : at + 1] == "]":
            return
        try:
            record, end = decode(letters, at)
        except RecursionError:
            record, end = None, _end_of_nested(letters, at)
        except ValueError as error:
            raise ValueError(f"{path} is damaged at byte {at:,} ({str(error)[:100]}); download it again") from None
        yield record, at, end
        at = _after_blanks(letters, end)
        sign = letters[at : at + 1]
        if sign not in (",", "]"):
            raise ValueError(f"{path} is damaged or cut off at byte {at:,}; download it again")


def _end_of_nested(letters: str, at: int) -> int:
    """The place behind the list or object that begins at `at`; behind all letters if it never ends."""
    depth = 0
    for sign in _SIGNS.finditer(letters, at):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(sign[0], 0)
        if depth == 0:
            return sign.end()
    return len(letters)


def _integer(digits: str) -> float:
    """An integer of a record; one of too many digits for Python becomes infinite, which no box may be."""
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


def _after_blanks(letters: str, at: int) -> int:
    while letters[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at
