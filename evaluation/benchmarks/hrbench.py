"""HR-Bench 4K and 8K (Wang et al. 2024, arXiv 2408.15556): details in photographs of 4K and 8K, questions with options.

Each of the 200 questions is asked four times, its options turned by one place each time. The published score is the
mean over the four turns of the accuracy in each, which is the plain mean of all rows where the turns have equally many,
so that is asked for here. Intervals must not take four rows about one thing for four observations: the unit is the
question. Columns: index, question, A, B, C, D, answer, category, cycle_category, image (base64).
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etchr.families import TaskFamily
from etchr.sample import EditSample
from evaluation.benchmarks.benchmark import Benchmark, Decode, HubFiles, LazySamples, LoadOptions, Samples
from evaluation.benchmarks.files import (
    ParquetRows,
    RowReader,
    TsvRows,
    all_different,
    digest,
    embedded_bytes,
    naming,
    wanted_columns,
    word,
)

log = logging.getLogger(__name__)

LETTERS = "ABCD"
CATEGORIES = {"single": "FSP", "cross": "FCP"}  # perception of a single instance, and across instances
COLUMNS = ("index", "question", *LETTERS, "answer", "category", "cycle_category", "image")
TURNS = 4


class HRBench(Benchmark):
    """One of the two sizes."""

    place = "hrbench"
    licence = "'other' on the hub, with an empty licence file"
    rule = (
        "the letter of the right option; the mean over the four turns of the options of the accuracy in each, which is "
        "the mean over rows (a question counts by each turn that is right, not only if all four are)"
    )
    expected = 800

    def __init__(self, size: str) -> None:
        self.largest = {"4k": (4096, 4096), "8k": (7680, 4320)}[size]
        self.name, self.title, self.file = f"hrbench_{size}", f"HR-Bench {size.upper()}", f"hr_bench_{size}"
        self.get = f"python -m evaluation download {self.name}"
        self.hub = HubFiles("DreamMr/HR-Bench", (f"{self.file}.parquet",))

    def load(self, folder: Path, options: LoadOptions) -> Samples:
        """The rows in `folder`'s Parquet file, or else in its TSV file, in their order."""
        path, rows = self._table(folder)
        wanted_columns(rows.columns, COLUMNS, path)
        short = {name: rows.column(name) for name in COLUMNS if name != "image"}
        lines = [dict(zip(short, values, strict=True)) for values in zip(*short.values(), strict=True)]
        self._check_turns(lines, path)
        ids = []
        for number, line in enumerate(lines, 1):
            with naming(path, number):
                index, turn = (word(line[name], name, 100) for name in ("index", "cycle_category"))
                ids.append(f"{self.name}-{index}-{turn}")
        all_different(ids, path)

        def read(index: int, decode: Decode) -> EditSample:
            with naming(path, index + 1):
                return self._sample(ids[index], rows[index], decode)

        return LazySamples(ids, read)

    def _table(self, folder: Path) -> tuple[Path, RowReader]:
        """The file of this size and its rows."""
        if files := sorted(folder.glob(f"{self.file}*.parquet")):
            return files[0] if len(files) == 1 else folder, ParquetRows(files)
        tsv = folder / f"{self.file}.tsv"
        if not tsv.is_file():
            raise self.missing(f"neither {self.file}.parquet nor {tsv.name} in {folder}")
        return tsv, TsvRows(tsv)

    def _check_turns(self, lines: Sequence[dict[str, Any]], path: Path) -> None:
        """`ValueError` if the plain mean is not the published score; a warning for questions not asked four times."""
        turns = Counter(str(line["cycle_category"]) for line in lines)
        if len(set(turns.values())) > 1:
            counts = ", ".join(f"{count} of {turn[:40]!r}" for turn, count in sorted(turns.items())[:8])
            raise ValueError(
                f"{path}: its cycle_category has {counts}; the published score is the mean over equally many of each, "
                "so some rows are missing"
            )
        asked = Counter(str(line["question"]) + "\0" + "\0".join(_sorted_options(line)) for line in lines)
        odd = sum(count % TURNS > 0 for count in asked.values())  # several pictures may share a question
        if odd:
            log.warning("%s: %d of %d questions are not asked %d times", path, odd, len(asked), TURNS)

    def _sample(self, key: str, row: dict[str, Any], decode: Decode) -> EditSample:
        question = word(row["question"], "question")
        choices = _options(row)
        answer = word(row["answer"], "answer", 1_000).upper()
        if answer not in LETTERS[: len(choices)]:
            raise ValueError(f"answer {answer[:40]!r} is none of the letters of its {len(choices)} options")
        category = word(row["category"], "category", 100)
        if category not in CATEGORIES:
            raise ValueError(f"category {category!r} is none of {', '.join(CATEGORIES)}")
        data = embedded_bytes(row["image"])
        return EditSample(
            id=key,
            family=TaskFamily.PERCEPTION,
            task=self.name,
            image=decode(data),
            question=question,
            answer=answer,
            choices=choices,
            meta={
                "answer_type": "option",
                **self.origin,
                "cluster": (cluster := digest(question, *_sorted_options(row), digest(data))),
                "noise": cluster,  # one edit for the four turns
                "category": CATEGORIES[category],
                "turn": word(row["cycle_category"], "cycle_category", 100),
            },
        )


def _options(row: dict[str, Any]) -> tuple[str, ...]:
    """The options of a row, from A up to the first that is empty; `ValueError` for fewer than two or a gap."""
    cells = [row[letter] for letter in LETTERS]
    given = [cell not in (None, "") and cell == cell for cell in cells]
    count = given.index(False) if False in given else len(given)
    if count < 2 or any(given[count:]):
        raise ValueError("options must be in the columns A, B and so on without a gap, two at the least")
    return tuple(word(cell, f"option {letter}") for letter, cell in zip(LETTERS, cells[:count], strict=False))


def _sorted_options(row: dict[str, Any]) -> list[str]:
    """What the turns of one question share."""
    return sorted(" ".join(str(row[letter]).split()) for letter in LETTERS)
