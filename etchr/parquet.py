"""Parquet files as they are stored: bytes stay bytes and a path stays a label, whatever the file says of itself.

A file may carry features of `datasets` that decode a cell when it is read: they open the local file, or fetch the URL,
that the cell names. So only Arrow's own types count here. Loads without torch.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import datasets


def open_parquet(files: Sequence[Path]) -> "datasets.Dataset":
    """The rows of files of one schema, memory-mapped by `datasets`, with cells of Arrow's plain types.

    Raises a `ValueError` that names the file if one is none, is damaged or has two columns of one name.
    """
    import datasets
    import pyarrow as pa

    schema = read_schema(files[0])
    try:
        plain = pa.schema([pa.field(field.name, plain_type(field.type)) for field in schema])
        features = datasets.Features.from_arrow_schema(plain)
        return datasets.Dataset.from_parquet([str(file) for file in files], features=features)
    except (datasets.exceptions.DatasetGenerationError, pa.ArrowException, OSError, TypeError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        advice = "; write it with plain lists" if "list_view" in reason else ""
        raise ValueError(f"{files[0]} is not a Parquet table that can be read: {reason}{advice}") from None


def read_schema(file: Path) -> Any:
    """The Arrow schema of a Parquet file; `ValueError` that names it if it is none or has two columns of one name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is not a Parquet file: {' '.join(str(error).split())[:300]}") from None
    if doubled := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise ValueError(f"{file} has two columns of the name {doubled[0][:100]!r}; rename one of them")
    return schema


def plain_type(kind: Any) -> Any:
    """An Arrow type without dictionaries and views, which hold the same values in another way."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, plain_type(field.type)) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain_type(kind.value_type), kind.list_size)
    if is_list(kind):
        make = pa.large_list if pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind) else pa.list_
        return make(plain_type(kind.value_type))
    views = {pa.binary_view(): pa.large_binary(), pa.string_view(): pa.large_string()}
    return views.get(kind, kind)


def is_list(kind: Any) -> bool:
    """Whether a column of this Arrow type holds lists."""
    from pyarrow import types

    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(test(kind) for test in tests)


def class_names(schema: Any) -> dict[str, list[str]]:
    """The names of the classes of every column whose integers are labels, as `datasets` notes them in a schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        labels = {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # none, or no sound note
        return {}
    return {
        name: names
        for name, names in labels.items()
        if isinstance(names, list) and all(isinstance(each, str) for each in names)
    }
