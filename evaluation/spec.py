"""YAML files that say what a table is made of: read, and held against the keys that they may have."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from etchr.rows import parsed_yaml


def read_spec(path: Path, what: str, place: str, known: Sequence[str]) -> dict[str, Any]:
    """The file of `what`; `ValueError` in one sentence for one that is missing (`place` has some) or does not fit."""
    if not path.is_file():
        raise ValueError(f"no file of {what} at {path}; see {place} for some")
    try:
        content = parsed_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return with_keys(content, known, f"{path}")


def with_keys(value: Any, known: Sequence[str], where: str) -> dict[str, Any]:
    """`value`, if it maps some of the `known` keys to values; else a `ValueError` that begins with `where`."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} must map names to values: {', '.join(known)}")
    for key in value:
        if key not in known:
            raise ValueError(f"{where} holds {key!r}; there are: {', '.join(known)}")
    return value
