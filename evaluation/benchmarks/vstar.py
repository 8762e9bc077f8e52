"""V*Bench (Wu and Xie 2023, arXiv 2312.14135): small things in large photographs, 191 questions with options.

Each picture `x.jpg` has a file `x.json` {target_object, bbox, question, options} whose first option is the right one;
boxes are [x, y, w, h] in pixels. The authors score the likelihood of each option's text, for which order means nothing.
A model that answers by letter must not find all truths at A, so the options are shuffled here, by a seed and the
sample's id. Their file test_questions.jsonl {image, text, category, label, question_id}, with the options in the text
and in an order of its own, is read where the others are not there; it has no boxes.
"""

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etchr.boxes import Box, draw_boxes, parse_box, read_boxes
from etchr.choices import chosen_letter, read_options
from etchr.families import TaskFamily
from etchr.rows import text
from etchr.sample import EditSample
from etchr.seeds import hash_seed
from evaluation.benchmarks.benchmark import Benchmark, Decode, HubFiles, LazySamples, LoadOptions, Samples
from evaluation.benchmarks.files import Header, all_different, digest, naming, picture, read_json, read_json_lines

CATEGORIES = ("direct_attributes", "relative_position")  # OCR and GPT4V-hard lie beside them and are not of the 191
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
MAX_BOXES = 20  # of a question
QUESTIONS = "test_questions.jsonl"
FIRST_OPTION = re.compile(r"\s*\(A\)\s|\n\s*A[.)]\s")


@dataclass(frozen=True)
class VStarQuestion:
    """A question as its file has it, its options in the order in which they are shown."""

    picture: str  # below the benchmark's folder
    category: str
    text: str
    choices: tuple[str, ...]
    answer: str  # a letter
    meta: dict[str, Any]
    boxes: tuple[Box, ...] = ()


class VStar(Benchmark):
    """The two categories of the published table."""

    name, title = "vstar", "V*Bench"
    largest = (4096, 4096)  # where Qwen3-VL's own processor begins to scale down: the largest one is not published
    licence = "none stated; the photographs are SA-1B's and COCO's"
    get = "python -m evaluation download vstar"
    rule = (
        "the letter of the right option, options shuffled by a seed; the authors' own scoring, the likelihood of each "
        "option's text, needs a model's weights and no order, so figures from it are near but not the same"
    )
    hub = HubFiles("craigwu/vstar_bench", tuple(f"{category}/*" for category in CATEGORIES))
    expected = 191
    draws_options = True

    def load(self, folder: Path, options: LoadOptions) -> Samples:
        """The questions in `folder`, by category and name; all are read, no picture is opened."""
        files = sorted(path for category in CATEGORIES for path in (folder / category).glob("*.json"))
        if files:
            questions = [self._annotated(path, folder, options.option_seed) for path in files]
        elif (folder / QUESTIONS).is_file():
            questions = self._listed(folder / QUESTIONS)
        else:
            raise self.missing(f"neither {CATEGORIES[0]}/*.json nor {QUESTIONS} in {folder}")
        ids = [self._id(question.picture) for question in questions]
        all_different(ids, folder)

        def read(index: int, decode: Decode) -> EditSample:
            return self._sample(ids[index], folder, questions[index], decode)

        return LazySamples(ids, read)

    def _id(self, label: str) -> str:
        return f"{self.name}-{Path(label).with_suffix('').as_posix()}"

    def _annotated(self, path: Path, folder: Path, seed: int) -> VStarQuestion:
        """The question of one picture; its options shuffled."""
        row = read_json(path)
        with naming(path):
            if not isinstance(row, dict):
                raise ValueError(f"it holds no JSON object but {type(row).__name__}")
            listed = row.get("options")
            if not isinstance(listed, list) or not 2 <= len(listed) <= 26:
                raise ValueError("options must be a list of 2 to 26 texts, the right one first")
            choices = [text(option, "option") for option in listed]
            boxes = row.get("bbox") or []
            if not isinstance(boxes, list):
                raise ValueError("bbox must be a list of boxes [x, y, w, h]")
            label = _picture_of(path).relative_to(folder).as_posix()
            order = list(range(len(choices)))
            random.Random(hash_seed(seed, self._id(label))).shuffle(order)
            targets = row.get("target_object") or []
            if not isinstance(targets, list):
                raise ValueError("target_object must be a list of texts")
            return VStarQuestion(
                picture=label,
                category=path.parent.name,
                text=text(row.get("question"), "question"),
                choices=tuple(choices[place] for place in order),
                answer=chr(ord("A") + order.index(0)),
                meta={
                    "option_order": order,  # of each option shown, its place in the file
                    "targets": [text(target, "target_object") for target in targets],
                },
                boxes=tuple(parse_box(box) for box in boxes),
            )

    def _listed(self, path: Path) -> list[VStarQuestion]:
        """The questions of the file that has them all."""
        questions = []
        for number, row in enumerate(read_json_lines(path), 1):
            with naming(path, number):
                category = text(row.get("category"), "category", 100)
                if category not in CATEGORIES:
                    continue
                written = text(row.get("text"), "text")
                choices = read_options(written)  # the last one ends with its line; the next line says how to answer
                answer = chosen_letter(text(row.get("label"), "label", 1_000), choices)
                if not choices or answer is None:
                    raise ValueError("text and label must hold options (A) ... and the letter of one of them")
                questions.append(
                    VStarQuestion(
                        picture=text(row.get("image"), "image", 1_000),
                        category=category,
                        text=text(FIRST_OPTION.split(written, maxsplit=1)[0], "question"),
                        choices=choices,
                        answer=answer,
                        meta={"option_order": "as published"},
                    )
                )
        return questions

    def _sample(self, key: str, folder: Path, question: VStarQuestion, decode: Decode) -> EditSample:
        image = picture(folder, question.picture, decode)
        meta: dict[str, Any] = {
            "answer_type": "option",
            **self.origin,
            "cluster": question.picture,
            "category": question.category,
            **question.meta,
        }
        edit = None
        if question.boxes:
            meta["boxes"] = [box.as_list() for box in question.boxes]
            try:
                boxes = read_boxes(meta["boxes"], image.size, outside="clip", most=MAX_BOXES)
                edit = _framed(image, boxes)
            except ValueError as error:  # the answer does not hang on the boxes, only systems that need the edit do
                meta["edit_is_missing"] = str(error)
        return EditSample(
            id=key,
            family=TaskFamily.PERCEPTION,
            task=self.name,
            image=image,
            question=question.text,
            answer=question.answer,
            choices=question.choices,
            edit_image=edit,
            meta=meta,
        )


def _framed(image: Any, boxes: list[Box]) -> Any:
    """The picture with its boxes drawn; of a header a header, whose digest goes with picture and boxes."""
    if isinstance(image, Header):
        return Header(image.size, digest(image.digest, json.dumps([box.as_list() for box in boxes])))
    return draw_boxes(image, boxes)


def _picture_of(path: Path) -> Path:
    """The picture of an annotation, which is called the same."""
    for suffix in (*PICTURES, *(suffix.upper() for suffix in PICTURES)):
        if (found := path.with_suffix(suffix)).is_file():
            return found
    raise ValueError(f"no picture {path.stem}{PICTURES[0]} beside it")
