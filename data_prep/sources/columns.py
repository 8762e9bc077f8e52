"""The Parquet files of ETCHR's released data sets: which column holds what, and their rows one after another.

The files say little about themselves, so `find_layout` goes by the Arrow types and by names that such sets use. `Rows`
then reads forwards in small batches: memory does not grow with the number of rows, nor with the size of a row group.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etchr.parquet import is_list, plain_type

KINDS = ("sft", "grpo", "dl3dv2k")
NO_COLUMN = "none"  # the value of an option that says: there is no such column
BATCH = 16  # rows in memory

# Names in the order in which they are looked for. `image` and `edit_image` mean different things in different sets.
SOURCES = ("source_image", "source_images", "src_image", "source", "input_image", "original_image", "problem_image_0")
TARGETS = ("target_image", "target_images", "edited_image", "target", "output_image", "gt_image", "reasoning_image_0")
PROMPTS = ("prompt", "instruction", "edit_prompt", "edit_instruction", "caption", "question", "problem", "text")
ANSWERS = ("answer", "gt_answer", "ground_truth", "gt", "solution", "qa_list", "qa")
LABELS = ("dataset", "data_source", "source", "subset", "category", "family", "task", "task_type", "type")
IDS = ("id", "pid", "uid", "idx")
OWN_SCHEMA = {"id", "family", "task", "image", "question", "choices", "answer", "edit_image", "meta"}


@dataclass(frozen=True)
class Layout:
    """The columns of a released data set."""

    kind: str  # sft, grpo or dl3dv2k
    source: str
    target: str | None  # the same as `source` where a list holds both pictures
    prompt: str
    answer: str | None
    candidates: str | None  # DL3DV-2k: the options
    labels: tuple[str, ...]  # texts that may say which set a row is from
    id: str | None

    def columns(self) -> list[str]:
        """The columns that are read, each once."""
        named = (self.source, self.target, self.prompt, self.answer, self.candidates, *self.labels, self.id)
        return list(dict.fromkeys(name for name in named if name))

    def __str__(self) -> str:
        parts = {"source": self.source, "target": self.target, "prompt": self.prompt, "answer": self.answer}
        parts |= {"candidates": self.candidates, "labels": ", ".join(self.labels)}
        return f"kind={self.kind}: " + "; ".join(f"{part} in {name}" for part, name in parts.items() if name)


@dataclass(frozen=True)
class WantedColumns:
    """What the user says about the columns; None where it is to be found out."""

    kind: str = "auto"
    source: str | None = None
    target: str | None = None
    prompt: str | None = None
    answer: str | None = None


def find_layout(schema: Any, wanted: WantedColumns, hint: str = "") -> Layout:
    """What stands where, from an Arrow schema; `hint` is the name of the file or folder.

    Pictures are columns of bytes, of structs with `bytes`, or of lists of either. Where only `image` and `edit_image`
    are there they are meant as in the released training table: `image` is the TARGET and `edit_image` the SOURCE. Where
    one list column without a telling name is all there is, it holds the source and the edit of kind=sft in this order.
    Raises `ValueError` with the columns seen where that leaves something open.
    """
    names = list(schema.names)
    seen = columns_seen(schema)
    if len(set(names)) < len(names):
        raise ValueError(f"two columns have one name; {seen}")
    if set(names) >= OWN_SCHEMA:
        raise ValueError(f"these files are in this project's schema already and need no reading; {seen}")
    for option in ("source", "target", "prompt", "answer"):
        if (name := getattr(wanted, option)) and name != NO_COLUMN and name not in names:
            raise ValueError(f"{option}_column={name!r} is not there; {seen}")
    pictures = [field.name for field in schema if is_picture(field.type)]
    texts = [field.name for field in schema if is_text(field.type)]
    answers = [field.name for field in schema if _is_answer(field.type)]
    candidates = _first(("candidates",), [*texts, *(name for name in names if is_list(schema.field(name).type))])
    answer = _chosen(wanted.answer, _first(ANSWERS, answers))
    prompt, labels = find_prompt(schema, wanted, ("question",) if candidates else PROMPTS)
    source, target = _find_pictures(pictures, wanted, seen)
    if source is None or not is_picture(schema.field(source).type):
        raise ValueError(f"no column holds the source picture as embedded bytes; name it: source_column=...; {seen}")
    if target and not is_picture(schema.field(target).type):
        raise ValueError(f"column {target} does not hold the edited picture as embedded bytes; {seen}")
    kind = wanted.kind if wanted.kind != "auto" else _guess(candidates, target, answer, hint)
    if kind == "sft" and not target and not wanted.target and source not in SOURCES:
        target = source if is_list(schema.field(source).type) else None
    layout = Layout(
        kind=kind,
        source=source,
        target=target if kind != "dl3dv2k" else None,
        prompt=prompt,
        answer=answer,
        candidates=candidates if kind == "dl3dv2k" else None,
        labels=tuple(name for name in labels if name != answer),
        id=_first(IDS, answers),
    )
    _check(layout, seen)
    return layout


def find_prompt(schema: Any, wanted: WantedColumns, known: Sequence[str] = PROMPTS) -> tuple[str, list[str]]:
    """The column of the prompt and the text columns that may name a row's set; `ValueError` with the columns seen."""
    texts = [field.name for field in schema if is_text(field.type)]
    prompt = _chosen(wanted.prompt, _first(known, texts))
    if prompt is None or prompt not in texts:
        raise ValueError(
            f"no column {prompt or ''} with prompts as text; name it: prompt_column=...; {columns_seen(schema)}"
        )
    return prompt, [name for name in LABELS if name in texts and name != prompt]


def _check(layout: Layout, seen: str) -> None:
    """`ValueError` where the columns do not suffice for the kind of data set."""
    if layout.kind == "sft" and not layout.target:
        raise ValueError(f"no column holds the edited picture; name it: target_column=..., or say kind=grpo; {seen}")
    if layout.kind != "sft" and not layout.answer:
        raise ValueError(f"no column holds the answers; name it: answer_column=..., or say kind=sft; {seen}")
    if layout.kind == "dl3dv2k" and not layout.candidates:
        raise ValueError(f"kind=dl3dv2k needs a column candidates; {seen}")


def _guess(candidates: str | None, target: str | None, answer: str | None, hint: str) -> str:
    """The kind: by the columns and, where there are edits and answers, by the name of the folder or file."""
    if candidates:
        return "dl3dv2k"
    if bool(target) != bool(answer):
        return "sft" if target else "grpo"
    return "grpo" if answer and "grpo" in hint.lower() else "sft"


def _find_pictures(pictures: list[str], wanted: WantedColumns, seen: str) -> tuple[str | None, str | None]:
    """The columns of the source and of the edited picture."""
    source = _chosen(wanted.source, _first(SOURCES, [name for name in pictures if name != wanted.target]))
    target = _chosen(wanted.target, _first(TARGETS, [name for name in pictures if name != source]))
    rest = [name for name in pictures if name not in (source, target)]
    no_target = wanted.target == NO_COLUMN
    if source is None and target is None and not no_target and {"image", "edit_image"} <= set(rest):
        return "edit_image", "image"
    if source is None:
        source = _first(("image", "images", "edit_image"), rest) or (rest[0] if len(rest) == 1 else None)
        rest = [name for name in rest if name != source]
    if source is not None and target is None and not no_target and rest:
        target = _first(("edit_image", "image"), rest)
        if target is None:
            raise ValueError(
                f"{' or '.join(rest)} may hold the edited picture; say target_column=... (or {NO_COLUMN}); {seen}"
            )
    return source, target


def _chosen(option: str | None, found: str | None) -> str | None:
    """What the user says, else what was found."""
    return (None if option == NO_COLUMN else option) if option else found


def _first(known: Sequence[str], names: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in known if name in lower), None)


def columns_seen(schema: Any) -> str:
    """The columns of an Arrow schema and their types, for a message."""
    return f"columns seen: {', '.join(f'{column.name} ({str(column.type)[:60]})' for column in schema) or 'none'}"


def is_picture(kind: Any) -> bool:
    """Whether a column of this Arrow type can hold encoded pictures."""
    from pyarrow import types

    kind = plain_type(kind)
    if is_list(kind):
        return is_picture(kind.value_type)
    if types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and is_picture(kind.field(at).type)
    return types.is_binary(kind) or types.is_large_binary(kind)


def is_text(kind: Any) -> bool:
    """Whether a column of this Arrow type holds texts."""
    from pyarrow import types

    kind = plain_type(kind)
    return types.is_string(kind) or types.is_large_string(kind)


def _is_answer(kind: Any) -> bool:
    """Texts, numbers, and questions with answers: structs that hold an answer, or lists of them."""
    from pyarrow import types

    if is_list(kind):
        return types.is_struct(kind.value_type) and _is_answer(kind.value_type)
    if types.is_struct(kind):
        at = kind.get_field_index("answer")
        return at >= 0 and _is_answer(kind.field(at).type)
    return is_text(kind) or types.is_integer(kind) or types.is_floating(kind)


# ------------------------------------------------------------------------------------------------------------ rows


def find_parquet(root: str | None) -> list[Path]:
    """The Parquet files of a folder, or the one file; `ValueError` if there are none."""
    if not root:
        raise ValueError("say where the downloaded Parquet files are: root=folder")
    path = Path(root)
    if path.is_file():
        return [path]
    found = [file for file in path.rglob("*.parquet") if file.is_file()]
    files = sorted(file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts))
    if not files:
        raise ValueError(
            f"no *.parquet in {path}; get a data set with: hf download internlm/ETCHR-GRPO-10K --repo-type dataset "
            f"--local-dir {path}"
        )
    return files


def schema_of(file: Path) -> Any:
    """The Arrow schema of a Parquet file; `ValueError` if it is none."""
    with _opened(file) as parquet:
        return parquet.schema_arrow


def _opened(file: Path) -> Any:
    """The open Parquet file, its schema read; `ValueError` if it is none or holds types that Arrow does not know."""
    import pyarrow.parquet as pq

    with reading(f"{file} is not a whole Parquet file; download it again"):
        # Mapped: encoded pages are not copied. A disk that fails under the map ends the process, and so the build.
        parquet = pq.ParquetFile(file, memory_map=True, pre_buffer=False)
        parquet.schema_arrow  # noqa: B018  what cannot be converted is to be said here
        return parquet


@contextmanager
def reading(failed: str) -> Iterator[None]:
    """What Arrow says of bad data becomes a `ValueError` that begins with `failed`.

    Memory that runs out and faults of a disk or a network stay what they are, so that the build stops and goes on
    later instead of leaving good rows out. Arrow raises `OSError` for damaged pages too, but then without an errno.
    """
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, OverflowError, ValueError) as error:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        raise ValueError(f"{failed} ({' '.join(str(error).split())[:200]})") from None


class Rows:
    """The rows of some Parquet files by number, and of each the cells of some columns.

    Only the footers are read at the start. After that one row group of one file is open, `BATCH` rows and one page of
    it are in memory (writers put at most some thousand rows into a page), and reading goes forwards: a step back opens
    the group again. Not for several threads.
    """

    def __init__(self, files: Sequence[Path], columns: Sequence[str]) -> None:
        """`ValueError` for a file that is none or lacks a column."""
        self.files, self.columns = list(files), list(columns)
        self._groups: list[tuple[int, int]] = []  # (file, row group)
        self._starts: list[int] = []  # the number of its first row
        self._file_starts: list[int] = []
        self._num_rows = 0
        digest = hashlib.sha256()
        for number, file in enumerate(self.files):
            self._file_starts.append(self._num_rows)
            with _opened(file) as parquet:
                meta = parquet.metadata
                for name in self.columns:  # of whichever type: cells are looked at one by one
                    if (times := parquet.schema_arrow.names.count(name)) != 1:
                        raise ValueError(
                            f"{file} {'has several columns' if times else 'lacks column'} {name}, unlike "
                            f"{self.files[0]}; give root= one data set at a time"
                        )
                for group in range(meta.num_row_groups):
                    if (count := meta.row_group(group).num_rows) > 0:
                        self._groups.append((number, group))
                        self._starts.append(self._num_rows)
                        self._num_rows += count
                layout = [meta.row_group(group).total_byte_size for group in range(meta.num_row_groups)]
            digest.update(json.dumps([file.name, file.stat().st_size, meta.num_rows, layout]).encode())
        self.digest = digest.hexdigest()[:16]  # of names, sizes and row counts
        self._parquet: Any = None
        self._open_group: int | None = None
        self._stream: Iterator[Any] = iter(())
        self._batch: Any = None
        self._first = self._end = 0  # rows of the batch
        self._broken: dict[int, tuple[int, str]] = {}  # group -> its first row that cannot be read, and why

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The cells of a row; `ValueError` if the file is damaged there or a cell holds what Python cannot."""
        if not self._first <= index < self._end:
            self._seek(index)
        return {name: self._cell(name, index - self._first) for name in self.columns}

    def _cell(self, name: str, row: int) -> Any:
        with reading(f"column {name} of the row cannot be read"):  # a date beyond Python's, bytes that are no UTF-8
            return self._batch.column(name)[row].as_py()

    def place(self, index: int) -> tuple[Path, int]:
        """The file of a row and the row's number in it."""
        number = self._groups[bisect_right(self._starts, index) - 1][0]
        return self.files[number], index - self._file_starts[number]

    def _seek(self, index: int) -> None:
        if not 0 <= index < self._num_rows:
            raise IndexError(f"row {index} of {self._num_rows}")
        group = bisect_right(self._starts, index) - 1
        first_bad, reason = self._broken.get(group, (self._num_rows, ""))
        if index >= first_bad:
            raise ValueError(reason)
        number, inner = self._groups[group]
        try:
            with reading(f"row group {inner} of {self.files[number].name} cannot be read on"):
                if group != self._open_group or index < self._first:
                    self._open(group)
                while index >= self._end:
                    batch = next(self._stream, None)
                    if batch is None:
                        raise ValueError("fewer rows than announced")
                    self._batch, self._first, self._end = batch, self._end, self._end + batch.num_rows
        except ValueError as error:
            first_bad = self._end if group == self._open_group else self._starts[group]
            self._broken[group] = first_bad, str(error)
            raise
        except (OSError, MemoryError):
            self._open_group = None  # whoever tries again opens the group again
            raise

    def _open(self, group: int) -> None:
        number, inner = self._groups[group]
        if self._open_group is None or self._groups[self._open_group][0] != number:
            if self._parquet is not None:
                self._parquet.close()
            self._parquet, self._open_group = None, None
            self._parquet = _opened(self.files[number])
        self._open_group, self._batch = group, None
        self._first = self._end = self._starts[group]
        self._stream = self._parquet.iter_batches(BATCH, row_groups=[inner], columns=self.columns, use_threads=False)
