"""Values in the rows of data that come from outside: hostile until they have passed through here."""

import math
from pathlib import Path
from typing import Any

import yaml

MAX_TEXT = 20_000  # characters of a question, an answer or a prompt; longer ones are refused


def inside(root: Path, label: Any) -> Path:
    """The existing file that a row's `label` names below `root`; `ValueError` if it lies elsewhere or nowhere.

    Labels are hostile: absolute ones, `..` and links that lead out of `root` are refused.
    """
    name = text(label, "path", 1_000)
    path, home = root / name, root.resolve()
    try:
        if "\0" in name or Path(name).is_absolute() or not path.resolve().is_relative_to(home):
            raise ValueError(f"path {name[:200]!r} does not lie below the source's folder")
        if not path.is_file():
            raise ValueError(f"no file {name[:200]!r} below {root}")
    except (OSError, RuntimeError):  # a name that the file system cannot hold, a loop of links
        raise ValueError(f"path {name[:200]!r} cannot be looked up") from None
    return path


def text(value: Any, name: str, limit: int = MAX_TEXT) -> str:
    """A row's text, stripped; `ValueError` for what is missing, NaN, no text, empty or longer than `limit`."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise ValueError(f"{name} is missing")
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text but {type(value).__name__}")
    if len(value) > limit:
        raise ValueError(f"{name} has {len(value):,} characters; at most {limit:,} are read")
    if not value.strip():
        raise ValueError(f"{name} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds half a character (a lone surrogate), which no file can") from None
    return value.strip()


def parsed_yaml(words: str) -> Any:
    """What a YAML text holds; `yaml.YAMLError` on one line for one that is none, or is nested beyond all use."""
    try:
        return yaml.safe_load(words)
    except yaml.YAMLError as error:
        raise yaml.YAMLError(" ".join(str(error).split())) from None
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
