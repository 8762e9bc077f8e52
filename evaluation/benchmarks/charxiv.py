"""CharXiv (arXiv 2406.18521): figures of scientific papers, four descriptive questions and a reasoning one about each.

Read from the authors' repository (`data/*.json` and `images/`), from a folder with these JSON files, or from the
Parquet files of the hub's data set. All four descriptive questions of a figure are asked. They are about one figure, so
that their outcomes depend on each other: the figure is the unit that intervals redraw.
"""

import inspect
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from etchr.families import TaskFamily
from etchr.mllm.answers import ground_truth
from etchr.mllm.judge import Grade, Judge
from etchr.mllm.markup import after_thinking
from etchr.rows import text
from etchr.sample import EditSample
from evaluation.benchmarks import charxiv_authors, charxiv_words
from evaluation.benchmarks.benchmark import Benchmark, Decode, HubFiles, LazySamples, LoadOptions, Samples
from evaluation.benchmarks.charxiv_authors import AuthorsWords, read_score
from evaluation.benchmarks.charxiv_words import KINDS, TEMPLATES, Grading, OwnWords, Place, Words
from evaluation.benchmarks.files import ParquetRows, digest, embedded, naming, picture, read_json, wanted_columns

SOURCE = "princeton-nlp/CharXiv"
QUESTIONS_PER_FIGURE = 4
MAX_PLACE = 300  # characters of a subplot's description
MAX_QUERY = 4000
MAX_ANSWER = 2000  # of a reference
MAX_CANDIDATE = 2000  # of an answer that goes to the judge
MAX_REPLY = 16_000  # of a reply that goes to the judge in the authors' prompt, from its end
PLAIN_NUMBER = re.compile(r"[-+]?\d{1,30}(?:\.\d{1,30})?")

Row = Mapping[str, Any]  # of a figure, with the names of the authors' JSON files


@dataclass(frozen=True)
class CharxivQuestion:
    """A question about a figure, as it is asked and graded."""

    number: int | None  # of the four descriptive ones, from 1
    category: str
    text: str
    answer: str
    grading: Grading
    meta: dict[str, Any]


class CharXiv(Benchmark):
    """What both sets of questions share."""

    place = "charxiv"
    largest = (2048, 2048)
    licence = "questions CC BY-SA 4.0; the figures belong to the papers' authors"
    hub = HubFiles(SOURCE, ("val.parquet",))
    needs_judge = True
    part: str  # of the names of the JSON files
    columns: tuple[str, ...]  # of the Parquet files

    def load(self, folder: Path, options: LoadOptions) -> Samples:
        """See `Benchmark`. No picture is opened; `charxiv_constants` puts all in the authors' words."""
        words: Words = AuthorsWords.read(Path(options.charxiv_constants)) if options.charxiv_constants else OwnWords()
        source = self._source(folder, options.split)
        figures: dict[int, list[CharxivQuestion]] = {}
        for number, row in enumerate(source.rows, 1):
            with naming(source.file, number):
                figure = _whole(row.get("figure_id"), "figure_id", 0, 10**9)
                if figure in figures:
                    raise ValueError(f"figure {figure} occurs twice")
                figures[figure] = list(self.questions(row, words))
        asked = [
            (index, figure, question)
            for index, (figure, questions) in enumerate(figures.items())
            for question in questions
        ]
        licence = {"source": SOURCE, "licence": self.licence, "split": options.split}

        def read(index: int, decode: Decode) -> EditSample:
            row, figure, question = asked[index]
            return EditSample(
                id=self._id(figure, question),
                family=TaskFamily.CHART,
                task=self.name,
                image=source.picture(row, figure, decode),
                question=question.text,
                answer=question.answer,
                meta={
                    "answer_type": "text",
                    "cluster": f"charxiv-{figure}",
                    "category": question.category,
                    "grading": question.grading,
                    "words": words.name,
                    **question.meta,
                    **licence,
                },
            )

        return LazySamples([self._id(figure, question) for _, figure, question in asked], read)

    def _id(self, figure: int, question: CharxivQuestion) -> str:
        return f"{self.name}-{figure}" + (f"-{question.number}" if question.number else "")

    @abstractmethod
    def questions(self, row: Row, words: Words) -> Iterator[CharxivQuestion]:
        """The questions in a row; `ValueError` if one does not fit."""

    @abstractmethod
    def row(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """A row of the hub's data set with the names of the authors' JSON files."""

    async def score(
        self, sample: EditSample, answer: str | None, judge: Judge | None, reply: str | None = None
    ) -> Grade:
        """By the judge, of whom `rule` says what it sees. The authors' prompt takes the answer out of the reply.

        In our words it sees the answer alone or, of a reply that puts none into a box, the end.
        """
        authors = sample.meta["words"] == AuthorsWords.name
        if authors:
            candidate = (reply or "")[-MAX_REPLY:].strip()
        elif answer is None and reply is not None and r"\boxed" not in reply:
            candidate = (after_thinking(reply) or "")[-MAX_CANDIDATE:].strip()
        else:
            candidate = answer or ""
        if not candidate:
            return Grade(False)
        if not authors and says_the_same(candidate, ground_truth(sample), sample.meta["category"]):
            return Grade(True)
        if judge is None:
            return Grade(None, why=f"{self.title} is graded by a model, and there is none")
        before, after = sample.meta["grading"]
        if authors:
            return await judge.verdict(before + candidate + after, read_score)
        return await judge.verdict(before + " ".join(candidate.split())[:MAX_CANDIDATE] + after)

    def identity(self) -> dict[str, Any]:
        """Questions and rubrics are part of every sample; what is left is how verdicts are read."""
        return super().identity() | {"words": digest(*map(inspect.getsource, (charxiv_words, charxiv_authors)))}

    def _source(self, folder: Path, split: str) -> "ChartSource":
        """What lies in `folder`: Parquet files, which hold the pictures too, before JSON."""
        parquet = sorted([*folder.glob(f"{split}*.parquet"), *folder.glob(f"data/{split}*.parquet")])
        if parquet:
            table = ParquetRows(parquet)
            wanted_columns(table.columns, ("image", "figure_path", *self.columns), parquet[0])
            names = ("figure_path", *self.columns)
            cells = zip(*(table.column(name) for name in names), strict=True)
            rows = [self.row(dict(zip(names, row, strict=True))) for row in cells]
            return ChartSource(parquet[0], rows, lambda row, figure, decode: embedded(table[row]["image"], decode))
        name = f"{self.part}_{split}.json"
        file = next((path for path in (folder / "data" / name, folder / name) if path.is_file()), None)
        if file is None:
            raise self.missing(f"{folder} has neither {split}.parquet nor {name}")
        read = read_json(file)
        rows = list(read.values()) if isinstance(read, dict) else read
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"{file} holds no figures; expected an object with one object for each")

        def figure_file(row: int, figure: int, decode: Decode) -> Any:
            try:
                return picture(folder, f"images/{figure}.jpg", decode)
            except ValueError as error:
                raise ValueError(f"{error}; the figures are in images.zip of {SOURCE} on the hub") from None

        return ChartSource(file, rows, figure_file)


@dataclass(frozen=True)
class ChartSource:
    """A file of questions, and how a figure's picture is had: by its place in `rows`, or by its number."""

    file: Path
    rows: Sequence[Row]
    picture: Callable[[int, int, Decode], Any]


class CharXivDescriptive(CharXiv):
    """Four questions about what a figure shows, from 19 templates."""

    name, title = "charxiv_dq", "CharXiv descriptive"
    get = "python -m evaluation download charxiv_dq"
    part = "descriptive"
    expected = 4000
    rule = (
        "a judge compares the answer with the reference by the rubric of the question's group; an answer that is the "
        "reference to the letter, or the same plain number, is right unasked"
    )
    columns = (
        "subplot_row",
        "subplot_col",
        "subplot_loc",
        *(f"descriptive_{name}{number}" for number in range(1, QUESTIONS_PER_FIGURE + 1) for name in "qa"),
    )

    def questions(self, row: Row, words: Words) -> Iterator[CharxivQuestion]:
        templates, answers = row.get("qids"), row.get("answers")
        _published(answers if isinstance(answers, list) else [answers])
        if not isinstance(templates, list) or not isinstance(answers, list) or len(templates) != len(answers):
            raise ValueError("qids and answers must be lists of the same length")
        place = _place(row.get("subplot_loc"))
        for number, (template, answer) in enumerate(zip(templates, answers, strict=True), 1):
            template = _whole(template, "qid", min(TEMPLATES), max(TEMPLATES))
            answer = _written(answer, "answer", MAX_ANSWER)
            question = words.descriptive(template, place)
            grading = words.grade_descriptive(template, question, answer)
            yield CharxivQuestion(
                number, TEMPLATES[template].group, question, answer.strip(), grading, {"template": template}
            )

    def row(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        numbers = range(1, QUESTIONS_PER_FIGURE + 1)
        return {
            "figure_id": _figure(columns["figure_path"]),
            "subplot_loc": columns["subplot_loc"] or [columns["subplot_row"], columns["subplot_col"]],
            "qids": [columns[f"descriptive_q{number}"] for number in numbers],
            "answers": [columns[f"descriptive_a{number}"] for number in numbers],
        }


class CharXivReasoning(CharXiv):
    """One question about each figure that takes several steps."""

    name, title = "charxiv_rq", "CharXiv reasoning"
    get = "python -m evaluation download charxiv_rq"
    part = "reasoning"
    expected = 1000
    rule = (
        "a judge compares the answer with the reference by the rubric of the answer's kind; an answer that is the "
        "reference to the letter, or the same plain number, is right unasked"
    )
    columns = ("reasoning_q", "reasoning_a", "reasoning_a_type")

    def questions(self, row: Row, words: Words) -> Iterator[CharxivQuestion]:
        _published([row.get("answer")])
        kind = _whole(row.get("inst_category"), "inst_category", min(KINDS), max(KINDS))
        query = _written(row.get("query"), "query", MAX_QUERY)
        answer = _written(row.get("answer"), "answer", MAX_ANSWER)
        grading = words.grade_reasoning(kind, query, answer)
        yield CharxivQuestion(None, KINDS[kind], words.reasoning(kind, query, answer), answer.strip(), grading, {})

    def row(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The kind of the answer is `reasoning_a_type`; `reasoning_q_source` says who wrote the question."""
        return {
            "figure_id": _figure(columns["figure_path"]),
            "query": columns["reasoning_q"],
            "answer": columns["reasoning_a"],
            "inst_category": columns["reasoning_a_type"],
        }


def says_the_same(answer: str, reference: str, category: str) -> bool:
    """Whether no rubric could find `answer` different: letter for letter the reference, or its value.

    Case counts, for t and T are two labels; not so in yes, no and "Not Applicable". Values are compared between plain
    decimals, and not where a text is asked for.
    """
    answer, reference = (" ".join(each.split()) for each in (answer, reference))
    if answer == reference:
        return True
    if category == "boolean" or reference.lower() == "not applicable":
        return answer.lower() == reference.lower()
    if category in ("ocr", "quantity", "number_in_chart", "number_in_general"):
        both = PLAIN_NUMBER.fullmatch(answer), PLAIN_NUMBER.fullmatch(reference)
        return all(both) and Decimal(answer) == Decimal(reference)
    return False


def _published(answers: Iterable[Any]) -> None:
    if any(answer is None for answer in answers):
        raise ValueError("it has no answer; those of CharXiv's test split are not published: use charxiv_split=val")


def _written(value: Any, name: str, limit: int) -> str:
    """A row's text, checked but not stripped, for the authors' prompts hold it as it is."""
    text(value, name, limit)
    assert isinstance(value, str)
    return value


def _whole(value: Any, name: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, got {str(value)[:60]!r}")
    return value


def _place(value: Any) -> Place:
    """Where the asked part of a figure is: [row, column], a description, or [0, 0] for a figure with one part."""
    if isinstance(value, str):
        return text(value, "subplot_loc", MAX_PLACE)
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"subplot_loc must be [row, column] or a text, got {str(value)[:60]!r}")
    row, column = (_whole(part, "subplot_loc", 0, 999) for part in value)
    return (row, column) if row else None


def _figure(path: Any) -> int | None:
    """The number in `images/17.jpg`."""
    match = re.fullmatch(r"(?:.{0,200}/)?(\d{1,9})\.\w{1,5}", path) if isinstance(path, str) else None
    return int(match[1]) if match else None
