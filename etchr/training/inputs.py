"""What both stages read of a sample: the prompt that it gives the editor, and its pictures' headers."""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from etchr.router import Router
from etchr.sample import EditSample


def prompt_maker(kind: str, router: Router) -> Callable[[EditSample], str]:
    """Sample to editing prompt: meta-prompt and question, or the explicit instruction kept in its meta."""

    def make(sample: EditSample) -> str:
        if kind == "question":
            return router.prompt(sample.question, sample.family)
        instruction = sample.meta.get("instruction")
        if not isinstance(instruction, str) or not instruction.strip():
            raise ValueError(f"row {sample.id!r} has no instruction in its meta; use data.prompt=question")
        return instruction

    return make


def headers(table: Any) -> Iterator[dict[str, Any]]:
    """The rows of an Arrow table in order; each image's bytes as a stream over the mapped file, not a copy."""
    for batch in table.data.table.to_batches(max_chunksize=1024):
        columns = {name: batch.column(name) for name in batch.schema.names}
        for index in range(batch.num_rows):
            row = {name: column[index] for name, column in columns.items()}
            yield {name: _picture(value) if "image" in name else value.as_py() for name, value in row.items()}


def _picture(cell: Any) -> dict[str, Any] | None:
    if not cell.is_valid:
        return None
    data = cell["bytes"].as_buffer() if cell["bytes"].is_valid else None
    return {"bytes": pa.BufferReader(data) if data and data.size else None, "path": cell["path"].as_py()}
