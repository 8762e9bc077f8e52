"""DL3DV-2k, the benchmark that ETCHR's authors released (arXiv 2605.23897): questions about scenes of DL3DV-10K.

Parquet with the columns question, candidates, images and answer; the released code (Evaluation/utils.py of
InternLM/ETCHR) puts question and candidates into one prompt and shows the first picture. How candidates and answers are
written is not documented, so options are told apart in every usual form, and a row counts only if its answer is one.
"""

import ast
from pathlib import Path
from typing import Any

from etchr.choices import chosen_letter, read_options
from etchr.families import TaskFamily
from etchr.rows import text
from etchr.sample import EditSample
from evaluation.benchmarks.benchmark import Benchmark, Decode, HubFiles, LazySamples, LoadOptions, Samples
from evaluation.benchmarks.files import (
    ParquetRows,
    content_ids,
    digest,
    embedded_bytes,
    naming,
    wanted_columns,
    word,
)

COLUMNS = ("question", "candidates", "answer")
IMAGES = ("images", "image")


class DL3DV2k(Benchmark):
    """The whole set."""

    name, title = "dl3dv_2k", "DL3DV-2k"
    largest = (3840, 2160)
    licence = "MIT; the videos are under DL3DV-10K's terms"
    get = "python -m evaluation download dl3dv_2k"
    rule = "the letter of the right candidate"
    hub = HubFiles("internlm/DL3DV-2k", ("*.parquet",))

    def load(self, folder: Path, options: LoadOptions) -> Samples:
        """The rows of the Parquet files in `folder`, or in the folder data in it."""
        files = sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))
        if not files:
            raise self.missing(f"no *.parquet in {folder}")
        rows, path = ParquetRows(files), files[0] if len(files) == 1 else files[0].parent
        images = next((name for name in IMAGES if name in rows.columns), IMAGES[0])
        wanted_columns(rows.columns, (*COLUMNS, images), path)
        contents = []
        for index in range(len(rows)):
            with naming(path, index + 1):
                row = rows[index]
                question, candidates, answer = _fields(row)
                contents.append(digest(embedded_bytes(row[images]), question, *candidates, answer))
        ids = content_ids(self.name, contents)

        def read(index: int, decode: Decode) -> EditSample:
            with naming(path, index + 1):
                row = rows[index]
                return self._sample(ids[index], row, row[images], decode)

        return LazySamples(ids, read)

    def _sample(self, key: str, row: dict[str, Any], images: Any, decode: Decode) -> EditSample:
        question, candidates, answer = _fields(row)
        data = embedded_bytes(images)
        return EditSample(
            id=key,
            family=TaskFamily.VIEW3D,
            task=self.name,
            image=decode(data),
            question=question,
            answer=answer,
            choices=candidates,
            meta={
                "answer_type": "option",
                **self.origin,
                "cluster": digest(data),  # several questions may be asked about one picture
                "num_images": len(images) if isinstance(images, list) else 1,  # the first one is shown
            },
        )


def _fields(row: dict[str, Any]) -> tuple[str, tuple[str, ...], str]:
    """Question, options and the letter of the right one; `ValueError` that names the column if they cannot be read."""
    cell, answer = row["candidates"], word(row["answer"], "answer")
    if isinstance(cell, list | tuple):
        options = tuple(text(option, "candidates") for option in cell)
        options = read_options("\n".join(options)) or options
    else:
        options = candidates_in(text(cell, "candidates"))
    if not 2 <= len(options) <= 26:
        raise ValueError(f"candidates {str(cell)[:100]!r} cannot be told apart; 'A. ... B. ...' or a list is wanted")
    letter = chosen_letter(answer, options)
    if letter is None:
        raise ValueError(f"answer {answer[:100]!r} is none of the {len(options)} candidates")
    return text(row["question"], "question"), options, letter


def candidates_in(written: str) -> tuple[str, ...]:
    """The options in a text: lettered, as a list of JSON or of Python, or one on each line; () if there are none."""
    if options := read_options(written):
        return options
    if written.startswith(("[", "(")):
        try:
            listed = ast.literal_eval(written)  # reads literals, runs nothing
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return ()
        if isinstance(listed, list | tuple) and all(isinstance(option, str) for option in listed):
            options = tuple(text(option, "candidates") for option in listed)
            return read_options("\n".join(options)) or options
        return ()
    lines = [line.strip() for line in written.split("\n") if line.strip()]
    return tuple(lines) if len(lines) > 1 else ()
