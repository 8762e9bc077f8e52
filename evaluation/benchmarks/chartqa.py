"""ChartQA's test set (Masry et al. 2022, arXiv 2203.10244): 1,250 questions by people and 1,250 generated ones.

Read are three layouts: Parquet as in HuggingFaceM4/ChartQA (image, query, label, human_or_machine) or as in lmms-eval's
copy (image, question, answer, type), and the authors' folder test/ with test_human.json, test_augmented.json and png/.

Two rules score an answer. *Strict* is relaxed accuracy as everybody computes it (section 5.1 of the paper, and the
code of pix2struct that evaluators share): numbers within 5 %, everything else equal but for case. It takes an answer as
it is written, so a truth of 6.7 does not meet "6.7%", nor 1234 "1,234", while a truth of 2019 meets 2005. *Normalised*
reads numbers as people write them, and gives years no 5 %.
"""

import re
from pathlib import Path
from typing import Any

from etchr.families import TaskFamily
from etchr.mllm.answers import ground_truth
from etchr.mllm.judge import Grade, Judge
from etchr.mllm.markup import normalise_unicode
from etchr.rows import inside, text
from etchr.sample import EditSample
from evaluation.benchmarks.benchmark import (
    Benchmark,
    Decode,
    HubFiles,
    LazySamples,
    LoadOptions,
    Samples,
    answer_or_refusal,
)
from evaluation.benchmarks.files import (
    ParquetRows,
    content_ids,
    digest,
    embedded_bytes,
    naming,
    picture,
    picture_bytes,
    read_objects,
    wanted_columns,
    word,
)

TOLERANCE = 0.05
LAYOUTS = (("query", "label", "human_or_machine"), ("question", "answer", "type"))  # of Parquet files, beside image
SPLITS = {"human": "test_human.json", "augmented": "test_augmented.json"}  # of the authors' folder
CATEGORIES = {"0": "human", "1": "augmented", "machine": "augmented"} | {
    name: split for split in SPLITS for name in (split, f"{split}_test")
}

# A number alone, perhaps with a currency, thousands in groups, or a percent sign.
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)\s*[$€£¥]?\s*(?P<minus>-?)(?P<digits>\d{1,3}(?:,\d{3})+|\d{1,30})?(?P<point>\.\d{1,30})?\s*(?P<percent>%?)"
)
_YEAR = re.compile(r"19\d\d|20\d\d|2100")
# "In which year ...", "Since when ...", "Find the year of ...": not "... in the year 2010" nor "What was it when ...".
_ASKS_FOR_YEAR = re.compile(
    r"\b(?:what|which)\s+(?:\w+\s+){0,3}years?\b(?!\s+\d)"
    r"|(?:^|\b(?:since|until|till|by|from)\s+)when\b"
    r"|\b(?:find|give|name|identify|tell|state|mention)\b[^.?!]{0,30}\byears?\b(?!\s+\d)"
    r"|\bthe\s+years?\s+(?:of|in\s+which|when|with|that|where)\b",
    re.IGNORECASE,
)


class ChartQA(Benchmark):
    """Both halves of the test set."""

    name, title = "chartqa", "ChartQA"
    licence = "GPL-3.0"
    largest = (2048, 2048)
    get = "python -m evaluation download chartqa"
    rule = (
        "strict: relaxed accuracy, within 5 % if answer and truth both parse as numbers ('7%' as 0.07), else equal but "
        "for case; normalised, beside it: 6.7% or 6.7, 1,234 or 1234, $5 or 5, lists by item, and years exactly where "
        "a year is asked for. No judge in either"
    )
    hub = HubFiles("HuggingFaceM4/ChartQA", ("data/test-*.parquet",))
    expected = 2500

    def may_ask_judge(self, sample: EditSample) -> bool:
        return False

    def load(self, folder: Path, options: LoadOptions) -> Samples:
        """The test questions in `folder`; their ids are digests of chart, question and truth, in whichever layout."""
        files = sorted(folder.glob("test*.parquet")) or sorted((folder / "data").glob("test*.parquet"))
        if files:
            return self._from_parquet(files)
        for place in (folder, folder / "test", folder / "ChartQA Dataset" / "test"):
            if all((place / name).is_file() for name in SPLITS.values()):
                return self._from_folder(place)
        raise self.missing(f"neither test*.parquet nor test/{SPLITS['human']} in {folder}")

    def _from_parquet(self, files: list[Path]) -> Samples:
        rows = ParquetRows(files)
        path = files[0] if len(files) == 1 else files[0].parent
        layout = next((names for names in LAYOUTS if set(names) <= set(rows.columns)), LAYOUTS[0])
        wanted_columns(rows.columns, ("image", *layout), path)
        contents = []
        for index in range(len(rows)):
            with naming(path, index + 1):
                row = rows[index]
                question, truth, _ = _fields(*(row[name] for name in layout))
                contents.append(digest(embedded_bytes(row["image"]), question, truth))
        ids = content_ids(self.name, contents)

        def read(index: int, decode: Decode) -> EditSample:
            with naming(path, index + 1):
                row = rows[index]
                data = embedded_bytes(row["image"])
                return self._sample(ids[index], decode(data), digest(data), _fields(*(row[name] for name in layout)))

        return LazySamples(ids, read)

    def _from_folder(self, place: Path) -> Samples:
        charts = place / "png"
        found: list[tuple[str, str, tuple[str, str, str]]] = []  # picture, its digest, fields
        contents = []
        for split, name in SPLITS.items():
            for number, row in enumerate(read_objects(place / name), 1):
                with naming(place / name, number):
                    fields = _fields(row.get("query"), row.get("label"), split)
                    data = picture_bytes(inside(charts, row.get("imgname")))
                    found.append((row["imgname"], digest(data), fields))
                    contents.append(digest(data, *fields[:2]))
        ids = content_ids(self.name, contents)

        def read(index: int, decode: Decode) -> EditSample:
            label, chart, fields = found[index]
            return self._sample(ids[index], picture(charts, label, decode), chart, fields)

        return LazySamples(ids, read)

    def _sample(self, key: str, image: Any, chart: str, fields: tuple[str, str, str]) -> EditSample:
        question, truth, category = fields
        return EditSample(
            id=key,
            family=TaskFamily.CHART,
            task=self.name,
            image=image,
            question=question,
            answer=truth,
            meta={
                "answer_type": "text",  # whatever the truth is, for the units of a reply must survive
                **self.origin,
                "cluster": chart,  # several questions are asked about one
                "category": category,
            },
        )

    async def score(
        self, sample: EditSample, answer: str | None, judge: Judge | None, reply: str | None = None
    ) -> Grade:
        """By both rules; None is wrong."""
        answer = answer_or_refusal(sample, answer, reply)
        if answer is None:
            return Grade(False, {"strict": False, "normalised": False})
        # An answer loses its full stop and double spaces when it is read; so must the truth, "U.S." for example.
        strict = relaxed(answer, sample.answer) or answer.lower() == ground_truth(sample).lower()
        return Grade(strict, {"strict": strict, "normalised": normalised(answer, sample.answer, sample.question)})


def relaxed(answer: str, truth: str) -> bool:
    """Relaxed accuracy as evaluators share it: a truth of 0 is compared as text, a percentage counts as a hundredth."""
    found, wanted = _as_float(answer), _as_float(truth)
    if found is not None and wanted:
        return abs(found - wanted) / abs(wanted) <= TOLERANCE
    return answer.lower() == truth.lower()


def _as_float(written: str) -> float | None:
    try:
        return float(written.rstrip("%")) / 100.0 if written.endswith("%") else float(written)
    except ValueError:
        return None


def normalised(answer: str, truth: str, question: str) -> bool:
    """Whether the answer means the truth, item by item if it is a list; a year that is asked for must be that year."""
    exact_years = bool(_ASKS_FOR_YEAR.search(question))
    answers, truths = _items(normalise_unicode(answer)), _items(normalise_unicode(truth))
    return len(answers) == len(truths) and all(
        _same(one, other, exact_years) for one, other in zip(answers, truths, strict=True)
    )


def _same(answer: str, truth: str, exact_years: bool) -> bool:
    found, wanted = _readings(answer), _readings(truth)
    if exact_years and _YEAR.fullmatch(truth):
        return float(truth) in found.values()
    if relaxed(answer, truth) or answer.casefold() == truth.casefold():
        return True
    if set(found) == set(wanted) == {"number", "hundredth"}:  # both are percentages: they are compared as such
        found, wanted = {"number": found["number"]}, {"number": wanted["number"]}
    return any(
        one == other or (other != 0 and abs(one - other) / abs(other) <= TOLERANCE)
        for one in found.values()
        for other in wanted.values()
    )


def _readings(written: str) -> dict[str, float]:
    """What a number may mean: itself and, if it is a percentage, its hundredth; nothing if it is no number alone."""
    match = _NUMBER.fullmatch(written)
    if match is None or not (match["digits"] or match["point"]):
        return {}
    value = float((match["digits"] or "0").replace(",", "") + (match["point"] or ""))
    if "-" in (match["sign"], match["minus"]):
        value = -value
    return {"number": value, "hundredth": value / 100} if match["percent"] else {"number": value}


def _items(written: str) -> list[str]:
    """The items of a list, [A, B] or A, B, each bare; a text or number without commas is its only item."""
    bare = _bare(written)
    if _readings(bare):
        return [bare]
    if bare[:1] + bare[-1:] in ("[]", "()"):
        bare = bare[1:-1]
    return [_bare(item) for item in bare.split(",")]


def _bare(written: str) -> str:
    """One space between words, and no quotes or full stop round them."""
    return " ".join(written.split()).strip("\"'").rstrip(".").strip("\"' ")


def _fields(question: Any, label: Any, category: Any) -> tuple[str, str, str]:
    """Question, truth and category of a row."""
    if isinstance(label, list | tuple):
        if len(label) != 1:
            raise ValueError(f"label holds {len(label)} answers; one is wanted")
        label = label[0]
    name = word(category, "category", 100)
    if name not in CATEGORIES:
        raise ValueError(f"category {name!r} is none of {', '.join(CATEGORIES)}")
    return text(question, "question"), word(label, "label"), CATEGORIES[name]
