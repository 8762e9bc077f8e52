"""The data sets that ETCHR released, read from their Parquet files: ETCHR-SFT-400K (405K pairs for Stage I,
BeichenZhang/ETCHR-SFT-400K or internlm/ETCHR-SFT-400K), ETCHR-GRPO-10K (10K questions for Stage II,
internlm/ETCHR-GRPO-10K) and DL3DV-2k (2K questions for evaluation, internlm/DL3DV-2k, MIT). Their licences stand on
their pages on huggingface.co. Get one with `hf download NAME --repo-type dataset --local-dir FOLDER` and give
root=FOLDER, one set at a time. The prompts of the first two hold the meta-prompt in front of the question. Either leave
it there and train with router=configs/router/none.yaml, or read the meta-prompts with `python -m
data_prep.sources.meta_prompts` and give the file that it writes as meta_prompts= here, which cuts them off, and as
router= to training and inference. The family is known by the prompt's words. An edited picture of another size than its
source is resized to it. The whole prompt stays in meta as the instruction. A row of the SFT set without an answer gets
a stand-in, marked in meta, which Stage II refuses; in the GRPO set such a row is left out. Each set has a folder of its
own below out=: released_sft, released_grpo and released_dl3dv2k. The last one is for evaluation, so val_share is taken
as 0 for it and all its rows are in split=train."""

import hashlib
import json
import multiprocessing
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from PIL import Image

from data_prep.sources.columns import KINDS, NO_COLUMN, Rows, WantedColumns, find_layout, find_parquet, schema_of
from data_prep.sources.source import BuildConfig, Source
from etchr.checks import NotNegative, OneOf
from etchr.choices import chosen_letter, read_options
from etchr.families import TaskFamily
from etchr.images import decode_image
from etchr.router import Router
from etchr.rows import text
from etchr.sample import MAX_META, EditSample

NAMES = {"sft": "ETCHR-SFT-400K", "grpo": "ETCHR-GRPO-10K", "dl3dv2k": "DL3DV-2k"}
LICENCES = {"sft": "see the data set's page", "grpo": "see the data set's page", "dl3dv2k": "MIT"}
# The words by which the released reward tells the families apart; it does not tell charts from perception.
RED_BOX = "Draw a red box"
FRAGMENTS = {
    RED_BOX: TaskFamily.PERCEPTION,
    "shortest path": TaskFamily.LOGIC,
    "jigsaw": TaskFamily.JIGSAW,
    "Imagine a new perspective": TaskFamily.VIEW3D,
}
TASKS = {TaskFamily.LOGIC: "maze"}  # the logic questions of these sets; other tasks are called as their families
BOX_FAMILIES = ("perception", "chart")
# What stands for an answer that a row of the SFT set does not have. Stage I does not read it; to the grader it is no
# number, so Stage II does not start on such rows.
NO_ANSWER = "cannot be known: this released row has no answer"
MAX_LABEL = 500  # characters of a path or an id that are kept
# D,R,R and `Down, right` and DRRD and arrows; blanks and commas between them.
MOVES = re.compile(r"(?:up|down|left|right|[udlr]+)(?:[\s,]+(?:up|down|left|right|[udlr]+))*|[↑↓←→][↑↓←→\s,]*", re.I)

Kind = Annotated[str, OneOf("auto", *KINDS)]
Alpha = Annotated[str, OneOf("white", "drop")]
BoxFamily = Annotated[str, OneOf(*BOX_FAMILIES)]


@dataclass
class ReleasedConfig(BuildConfig):
    """Options of `python -m data_prep released`."""

    root: str | None = None  # REQUIRED: the downloaded folder of one data set, or one Parquet file
    kind: Kind = "auto"  # sft, grpo or dl3dv2k; auto: by the columns and the folder's name
    meta_prompts: str | None = None  # router YAML: these sentences are cut off; null: the prompt is the question
    source_column: str | None = None  # of the source picture; null: found by type and name
    target_column: str | None = None  # of the edited picture, or none; the source's where a list holds both, in order
    prompt_column: str | None = None  # of the prompt or question
    answer_column: str | None = None  # of the answer, or of a list of questions with answers; or none
    box_family: BoxFamily = "perception"  # or chart: of red-box rows that no path and no column tells apart
    alpha: Alpha = "white"  # of transparent pixels: white, or drop: the colour behind it shows (released)
    max_stretch: NotNegative = 0.05  # an edit whose shape differs more from its source's is refused, not resized

    def __post_init__(self) -> None:
        super().__post_init__()
        if NO_COLUMN in (self.source_column, self.prompt_column):
            raise ValueError("every row needs a source picture and a prompt: name the columns")

    def wanted(self) -> WantedColumns:
        """The options that are about columns."""
        return WantedColumns(self.kind, self.source_column, self.target_column, self.prompt_column, self.answer_column)


@dataclass(frozen=True)
class ReleasedPicture:
    """An encoded picture and the path that it had elsewhere: a label, which is never opened."""

    data: bytes
    label: str | None


@dataclass(frozen=True)
class Asked:
    """The text side of a sample."""

    family: TaskFamily
    question: str
    answer: str
    answer_type: str
    choices: tuple[str, ...] | None
    meta: dict[str, Any]


class Released(Source):
    """The rows of one released set, in the order of its files."""

    free_options = ("root", "meta_prompts")
    name = "released"  # and the kind of the set behind it: the sets share neither folder nor ids

    def __init__(self, config: ReleasedConfig) -> None:
        """`ValueError` for files that are none, for columns that fit no layout, and for a router that is none."""
        self.config = config
        files = find_parquet(config.root)
        root = Path(config.root or "").absolute()
        self.layout = find_layout(schema_of(files[0]), config.wanted(), f"{root.parent.name}/{root.name}")
        self.name = f"released_{self.layout.kind}"
        if self.layout.kind == "dl3dv2k":
            if config.meta_prompts:
                raise ValueError("the questions of DL3DV-2k stand without a meta-prompt; leave meta_prompts= out")
            if config.split == "val":
                raise ValueError("DL3DV-2k is for evaluation and not divided: all its rows are in split=train")
            config.val_share = 0.0  # of the driver's own options, for that is what hides rows
        self.router = Router.load(config.meta_prompts) if config.meta_prompts else None
        self.rows = Rows(files, self.layout.columns())
        self._last: tuple[int, dict[str, Any]] | None = None
        if multiprocessing.parent_process() is None:
            print(f"{len(self.rows):,} rows in {len(files):,} files, {self.layout}")

    def __len__(self) -> int:
        return len(self.rows)

    def identity(self) -> dict[str, Any]:
        sentences = {} if self.router is None else {str(f): s for f, s in sorted(self.router.meta_prompts.items())}
        return {"files": self.rows.digest, "rows": len(self.rows), "columns": str(self.layout), "router": sentences}

    def key(self, index: int) -> str:
        """The digest of the source picture's bytes: rows about one picture share a split.

        It cannot see that two pictures show one photo: two jigsaws of it have two keys, as have two sizes of it.
        """
        return hashlib.sha256(self._pictures(self._row(index))[0].data).hexdigest()

    def samples(self, index: int, rng: random.Random) -> Iterable[EditSample]:
        row = self._row(index)
        prompt = text(row[self.layout.prompt], "prompt")
        source, target = self._pictures(row)
        file, number = self.rows.place(index)
        meta: dict[str, Any] = {
            "source": NAMES[self.layout.kind],
            "licence": LICENCES[self.layout.kind],
            "released": {"file": file.name, "row": number},
        }
        labels = {"path": source.label, "edit_path": target.label if target else None}
        labels |= {f"label_{name}": _label(row[name]) for name in self.layout.labels}
        labels["released_id"] = _label(row[self.layout.id]) if self.layout.id else None
        meta |= {name: label for name, label in labels.items() if label}
        said = [
            label
            for name in ("path", "edit_path", *(f"label_{n}" for n in self.layout.labels))
            if (label := labels[name])
        ]
        asked = self._asked_dl3dv(row, prompt) if self.layout.kind == "dl3dv2k" else self._asked(row, prompt, said)
        image = self._decoded(source)
        edit, about = (None, {}) if target is None else aligned(self._decoded(target), image, self.config.max_stretch)
        yield EditSample(
            id=f"{self.name}-{index:07d}",
            family=asked.family,
            task="dl3dv2k" if self.layout.kind == "dl3dv2k" else TASKS.get(asked.family, str(asked.family)),
            image=image,
            question=asked.question,
            answer=asked.answer,
            choices=asked.choices,
            edit_image=edit,
            meta={**meta, **asked.meta, **about, "answer_type": asked.answer_type},
        )

    def _decoded(self, picture: ReleasedPicture) -> Image.Image:
        return decode_image(picture.data, drop_alpha=self.config.alpha == "drop")

    def _row(self, index: int) -> dict[str, Any]:
        if self._last is None or self._last[0] != index:
            self._last = None  # two rows of large pictures need not be held at once
            self._last = index, self.rows[index]
        return self._last[1]

    def _pictures(self, row: dict[str, Any]) -> tuple[ReleasedPicture, ReleasedPicture | None]:
        """The source and the edited picture; of a list the first one counts, as in the released code."""
        layout = self.layout
        found = pictures(row[layout.source])
        if not found:
            raise ValueError(f"{layout.source} holds no picture")
        if layout.target == layout.source:
            if len(found) != 2:
                raise ValueError(f"{layout.source} holds {len(found)} pictures; the source and its edit are wanted")
            return found[0], found[1]
        edits = pictures(row[layout.target]) if layout.target else []
        if not edits and layout.kind == "sft":
            raise ValueError(f"{layout.target} holds no picture: without the edit there is nothing to imitate")
        return found[0], edits[0] if edits else None

    def _asked(self, row: dict[str, Any], prompt: str, labels: Sequence[str]) -> Asked:
        """What a row of the two training sets asks."""
        family = family_of(prompt, labels, self.config.box_family)
        question = prompt if self.router is None else cut(prompt, family, self.router)
        value = row[self.layout.answer] if self.layout.answer else None
        meta: dict[str, Any] = {"instruction": prompt}
        listed = questions_with_answers(value, question)
        if not listed:
            if self.layout.kind == "grpo":
                raise ValueError("the row has no answer, which Stage II needs")
            return Asked(family, question, NO_ANSWER, "number", None, meta | {"answer_is_missing": True})
        pairs = [Asked(family, asked, *typed(answer, family, asked), {}) for asked, answer in listed]
        meta["released_answer"] = listed[0][1]
        if any(asked != question for asked, _ in listed):
            meta["edit_question"] = question  # the editor's prompt is one for all pairs, M is asked theirs
        if len(pairs) > 1:
            names = ("question", "answer", "answer_type", "choices")
            meta["pairs"] = [{name: getattr(pair, name) for name in names} for pair in pairs]
        return replace(pairs[0], meta=meta)

    def _asked_dl3dv(self, row: dict[str, Any], question: str) -> Asked:
        """What a row of DL3DV-2k asks. Candidates that cannot be told apart become part of the question."""
        answer = first_answer(row[self.layout.answer or ""])
        if answer is None:
            raise ValueError("the row has no answer")
        cell = row[self.layout.candidates or ""]
        if isinstance(cell, list):
            cell = json.dumps([text(option, "option") for option in cell])
        candidates = text(cell, "candidates")
        meta = {"candidates": candidates, "released_question": f"Question: {question}Candidates: {candidates}"}
        options = read_options(candidates)
        if not options:
            return Asked(TaskFamily.VIEW3D, f"{question}\n{candidates}", answer, "text", None, meta)
        letter = chosen_letter(answer, options)
        if letter is None:
            raise ValueError(f"the answer {answer[:100]!r} is none of the {len(options)} candidates")
        return Asked(TaskFamily.VIEW3D, question, letter, "option", options, meta)


def family_of(prompt: str, labels: Sequence[str], box_family: str) -> TaskFamily:
    """The family that a prompt's words say; `ValueError` if they say none or several.

    A red box is drawn for perception and for charts alike. A label of the row, a path or a set's name, with `chart` in
    it says chart (RefChartQA), one with a set of photographs (GQA, COCO, V*) says perception; else it is `box_family`.
    """
    found = [fragment for fragment in FRAGMENTS if fragment in prompt]
    if len(found) != 1:
        raise ValueError(
            f"the prompt says {'several families' if found else 'no family'} "
            f"({' and '.join(map(repr, found)) or 'none of ' + ', '.join(map(repr, FRAGMENTS))}): {prompt[:100]!r}"
        )
    if found != [RED_BOX]:
        return FRAGMENTS[found[0]]
    said = " ".join(labels).lower()
    if "chart" in said:
        return TaskFamily.CHART
    return TaskFamily.PERCEPTION if re.search("gqa|coco|vstar|perception", said) else TaskFamily(box_family)


def cut(prompt: str, family: TaskFamily, router: Router) -> str:
    """The question behind the family's meta-prompt: the router makes the prompt of it, white space aside.

    `ValueError` for a prompt that does not begin with the meta-prompt or has no question.
    """
    sentence = router.meta_prompts.get(family)
    if sentence is None:
        raise ValueError(f"meta_prompts= has no sentence for {family}")
    rest = prompt.removeprefix(sentence)
    if not rest.strip() or not prompt.startswith(sentence) or (sentence and not rest[0].isspace()):
        raise ValueError(f"the prompt is not the meta-prompt of {family} and a question: {prompt[:100]!r}")
    return rest.strip()


def pictures(cell: Any) -> list[ReleasedPicture]:
    """The pictures in a cell: bytes, a struct with bytes, or a list of either; those without bytes are left out."""
    if isinstance(cell, list):
        return [picture for part in cell for picture in pictures(part)]
    if isinstance(cell, dict):
        data = cell.get("bytes")
        return [ReleasedPicture(data, _label(cell.get("path")))] if isinstance(data, bytes) and data else []
    return [ReleasedPicture(cell, None)] if isinstance(cell, bytes) and cell else []


def aligned(edit: Image.Image, source: Image.Image, max_stretch: float) -> tuple[Image.Image, dict[str, Any]]:
    """The edit at its source's size, as a sample demands, and what `meta` says about it.

    The edit is resized and the source left as it is, for the source is what an editor gets. The edit is not cropped,
    for a box or path must stay where it is. `ValueError` if that changes the ratio of the sides by more than
    `max_stretch` (0.05 is 5 %).
    """
    if edit.size == source.size:
        return edit, {}
    across, down = (new / old for new, old in zip(source.size, edit.size, strict=True))
    if max(across / down, down / across) > 1 + max_stretch:
        raise ValueError(f"the edit is {edit.width}x{edit.height}, the source {source.width}x{source.height}")
    return edit.resize(source.size, Image.Resampling.LANCZOS), {"edit_was_resized_from": list(edit.size)}


# --------------------------------------------------------------------------------------------------------- answers


def first_answer(value: Any) -> str | None:
    """The answer in a cell: a text, a number, or the first of a list of questions with answers; None if it is empty."""
    while isinstance(value, list | dict):
        value = value.get("answer") if isinstance(value, dict) else value[0] if value else None
    if isinstance(value, int) or (isinstance(value, float) and value == value):
        value = f"{value:.15g}" if isinstance(value, float) else str(value)
    try:
        return text(value, "answer")
    except ValueError:
        if isinstance(value, str) and value.strip():
            raise  # far too long; not the same as none
        return None


def questions_with_answers(value: Any, question: str) -> list[tuple[str, str]]:
    """The question-answer pairs in a cell; a single answer, or one without a question of its own, answers `question`.

    A list may be written as JSON. Pairs without an answer are left out. `ValueError` for more than a sample's meta
    holds.
    """
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        value = _parsed_pairs(value)
    pairs = []
    for entry in value if isinstance(value, list) else [value]:
        if (answer := first_answer(entry)) is not None:
            asked = entry.get("question") if isinstance(entry, dict) else None
            has_own = isinstance(asked, str) and asked.strip()
            pairs.append((text(asked, "question") if has_own else question, answer))
    if (size := sum(len(asked) + len(answer) for asked, answer in pairs)) > MAX_META // 4:
        raise ValueError(f"its {len(pairs):,} questions and answers have {size:,} characters, more than a sample holds")
    return pairs


def _parsed_pairs(words: str) -> Any:
    """The pairs that a text lists as JSON; the text itself where it is something else, as an answer in brackets."""
    try:
        value = json.loads(words)
    except (ValueError, RecursionError):
        return words
    listed = value if isinstance(value, list) else [value]
    return value if listed and all(isinstance(entry, dict) and "answer" in entry for entry in listed) else words


def typed(answer: str, family: TaskFamily, question: str) -> tuple[str, str, tuple[str, ...] | None]:
    """The answer as it is graded, its type, and the options that the question names.

    An option comes first, for its letter may look like a move and its text like a number; it becomes its letter. Then
    comes what the family asks for, moves or the order of pieces, and then a number; all else is free text.
    """
    options = read_options(question)
    if letter := chosen_letter(answer, options):
        return letter, "option", options
    if family is TaskFamily.LOGIC and MOVES.fullmatch(answer):
        return answer, "moves", None
    if family is TaskFamily.JIGSAW and (order := read_order(answer)):
        return order, "permutation", None
    if re.fullmatch(r"-?(?:\d{1,3}(?:,\d{3})+|\d{1,15})(?:\.\d{1,15})?", answer):
        return answer, "number", None
    return answer, "text", None


def read_order(answer: str) -> str | None:
    """The order of pieces in `2-0-3-1`, `[2, 0, 3, 1]` or `2031`, counted from 0 or 1, as `2-0-3-1`; else None."""
    if re.fullmatch(r"[0-9]{4,9}", answer):
        pieces = [int(digit) for digit in answer]
    elif re.fullmatch(r"[(\[]?\s*[0-9]{1,2}(?:[\s,;-]+[0-9]{1,2})+\s*[)\]]?\.?", answer):
        pieces = [int(piece) for piece in re.findall("[0-9]+", answer)]
    else:
        return None
    first = min(pieces)
    is_order = first in (0, 1) and sorted(pieces) == list(range(first, first + len(pieces)))
    return "-".join(map(str, pieces)) if is_order else None


def _label(value: Any) -> str | None:
    """A text of the source as a label, shortened; None for what is no text or number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value)[:MAX_LABEL] or None
