"""A set of your own: `tasks=[my/set.yaml]` names a YAML that says where its questions are.

    data: questions.csv            # csv, jsonl, json or parquet, below the YAML's folder; or samples: [{...}, ...]
    columns: {question: query}     # where the file calls a column otherwise
    family: chart                  # of all samples; else a column, or unknown, and systems need route: rule or model
    answer_type: number            # of all samples; else a column, or option with choices and text without
    name, title, licence           # of the set, for tables; the name is the file's where none is given

A sample has image (a path below the YAML's folder, or bytes in Parquet), question and answer, and may have choices
(a list, or "A. left B. right"), answer_type, family, id (its row's number where there is none), category (for a
breakdown) and cluster (what intervals take for one observation).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from etchr.choices import chosen_letter, read_options
from etchr.families import TaskFamily
from etchr.mllm.answers import ground_truth
from etchr.rows import inside, parsed_yaml, text
from etchr.sample import EditSample
from evaluation.benchmarks.benchmark import Benchmark, Decode, LazySamples, LoadOptions, Samples
from evaluation.benchmarks.files import (
    ParquetRows,
    RowReader,
    all_different,
    embedded_bytes,
    naming,
    picture,
    read_csv,
    read_json_lines,
    read_objects,
    read_text,
    wanted_columns,
    word,
)

MAX_YAML_BYTES = 4 * 2**20
KEYS = ("name", "title", "licence", "data", "samples", "columns", "family", "answer_type")
NEEDED = ("image", "question", "answer")
COLUMNS = (*NEEDED, "choices", "answer_type", "family", "id", "category", "cluster")


class ListedRows:
    """Rows in memory that may lack cells, as those of JSON do."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._rows = rows
        self.columns = list(dict.fromkeys(name for row in rows for name in row))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]

    def column(self, name: str) -> list[Any]:
        """One column; None where a row lacks it."""
        return [row.get(name) for row in self._rows]


class Local(Benchmark):
    """The set that a YAML describes."""

    get = "write the YAML of your set"
    rule = (
        "the grader of the rewards, by answer type; free text that it finds different goes to the judge, where one is"
    )

    def __init__(self, path: Path) -> None:
        """Read the YAML; `ValueError` for one that is missing, is none, or has unknown keys."""
        self.path, self.settings = path, _read_yaml(path)
        given = {key: word(self.settings[key], key, 200) for key in KEYS[:3] if self.settings.get(key) is not None}
        self.name = given.get("name", path.stem)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}", self.name):
            raise ValueError(f"{path}: name {self.name[:80]!r} may hold up to 60 letters, digits, _ and -; set name:")
        self.title, self.licence = given.get("title", self.name), given.get("licence", "not stated")
        with naming(path):
            if (family := self.settings.get("family")) is not None:
                TaskFamily.parse(text(family, "family", 100))

    def load(self, folder: Path, options: LoadOptions) -> Samples:
        """The set's samples; `folder` is the YAML's."""
        source, rows = self._rows(folder)
        names = self._columns(rows, source)
        ids = self._ids(rows, names, source)

        def read(index: int, decode: Decode) -> EditSample:
            with naming(source, index + 1):
                row = rows[index]
                cells = {name: row.get(column) for name, column in names.items()}
                return self._sample(ids[index], cells, folder, decode)

        return LazySamples(ids, read)

    def _rows(self, folder: Path) -> tuple[Path, RowReader]:
        """The file that the rows are in, and the rows."""
        listed, data = self.settings.get("samples"), self.settings.get("data")
        if (listed is None) == (data is None):
            raise ValueError(f"{self.path} needs either data: FILE or samples: [...]")
        if listed is not None:
            if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
                raise ValueError(f"{self.path}: samples must be a list of mappings, each a sample")
            return self.path, ListedRows([{str(key): cell for key, cell in row.items()} for row in listed])
        with naming(self.path):
            source = inside(folder, data)
        kind = source.suffix.lower()
        if kind == ".parquet":
            return source, ParquetRows([source])
        readers = {".csv": read_csv, ".jsonl": read_json_lines, ".json": read_objects}
        if kind not in readers:
            raise ValueError(f"{self.path}: data {source.name!r} is none of {', '.join((*readers, '.parquet'))}")
        return source, ListedRows(readers[kind](source))

    def _columns(self, rows: RowReader, source: Path) -> dict[str, str]:
        """What each column is called in the file, of those that it has."""
        renamed = self.settings.get("columns") or {}
        if not isinstance(renamed, Mapping) or not all(isinstance(name, str) for name in renamed.values()):
            raise ValueError(f"{self.path}: columns must map names to names of the file's columns")
        if unknown := [str(name) for name in renamed if name not in COLUMNS]:
            raise ValueError(f"{self.path}: columns has {', '.join(unknown)}; it may have {', '.join(COLUMNS)}")
        names = {name: renamed.get(name, name) for name in COLUMNS}
        wanted_columns(rows.columns, [names[name] for name in (*NEEDED, *renamed)], source)
        return {name: column for name, column in names.items() if column in rows.columns}

    def _ids(self, rows: RowReader, names: Mapping[str, str], source: Path) -> list[str]:
        given: list[Any] = rows.column(names["id"]) if "id" in names else list(range(1, len(rows) + 1))
        ids = []
        for number, cell in enumerate(given, 1):
            with naming(source, number):
                ids.append(f"{self.name}-{word(cell, 'id', 200)}")
        all_different(ids, source)
        return ids

    def _sample(self, key: str, cells: Mapping[str, Any], folder: Path, decode: Decode) -> EditSample:
        image = cells["image"]
        family = _given(cells.get("family")) or self.settings.get("family")
        kind = _given(cells.get("answer_type")) or self.settings.get("answer_type")
        choices, answer = _choices(cells.get("choices")), word(cells["answer"], "answer")
        if choices is not None:
            letter = chosen_letter(answer, choices)
            if letter is None:
                raise ValueError(
                    f"answer {answer[:100]!r} is none of the {len(choices)} choices, or both a letter and another "
                    "choice's text; give the letter and the text, such as 'B. left'"
                )
            answer = letter
        meta = {"answer_type": kind or ("text" if choices is None else "option"), "source": self.title}
        meta |= {name: word(cells[name], name, 200) for name in ("category", "cluster") if _given(cells.get(name))}
        sample = EditSample(
            id=key,
            family=TaskFamily.PERCEPTION if family is None else TaskFamily.parse(text(family, "family", 100)),
            task=self.name,
            image=picture(folder, image, decode) if isinstance(image, str) else decode(embedded_bytes(image)),
            question=text(cells["question"], "question"),
            answer=answer,
            choices=choices,
            meta=meta | {"licence": self.licence} | ({"family_is_unknown": True} if family is None else {}),
        )
        ground_truth(sample)  # a truth that is not of its answer_type is said with its row
        return sample


def _read_yaml(path: Path) -> dict[str, Any]:
    """The settings in a YAML file; `ValueError` if it is none, or for a key that is unknown."""
    written = read_text(path, MAX_YAML_BYTES)
    try:
        settings = parsed_yaml(written)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must map keys to values: {', '.join(KEYS)}")
    if unknown := [str(key) for key in settings if key not in KEYS]:
        raise ValueError(f"{path} has the unknown key {', '.join(unknown)}; known: {', '.join(KEYS)}")
    return settings


def _choices(cell: Any) -> tuple[str, ...] | None:
    """The options in a cell, a list or a text; None if it is empty."""
    if not _given(cell):
        return None
    if isinstance(cell, list | tuple):
        found = tuple(word(option, "choices") for option in cell)
        found = read_options("\n".join(found)) or found
    else:
        found = read_options(text(cell, "choices"))
    if not 2 <= len(found) <= 26:
        raise ValueError(f"choices {str(cell)[:100]!r} must be a list of 2 to 26, or written 'A. ... B. ...'")
    return found


def _given(cell: Any) -> Any:
    """A cell, or None where a table has nothing: no text, no items, NaN."""
    return None if cell is None or cell in ("", [], ()) or cell != cell else cell
