"""Limits of options stand in their types, and one function holds values to them, in the words of the command line.

The types are annotated in pydantic's vocabulary. Pydantic itself does not fit: omegaconf knows no `Literal`, and it
builds inner dataclasses first, where an option's full name is not known yet. Rules between options are code of the
dataclass that has both. Null is no value, and has no limits.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable
from math import inf
from typing import Annotated, Any

from annotated_types import BaseMetadata, Ge, Gt, Interval

Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]
Positive = Annotated[float, Interval(gt=0, lt=inf)]
NotNegative = Annotated[float, Interval(ge=0, lt=inf)]
Share = Annotated[float, Interval(ge=0, le=1)]
BelowOne = Annotated[float, Interval(ge=0, lt=1)]


class OneOf(BaseMetadata):
    """The words that an option may have, or a dict that may still grow and whose names they are."""

    def __init__(self, *known: str | dict[str, Any]) -> None:
        first, *more = known
        self.known: Iterable[str] = first if isinstance(first, dict) else [first, *map(str, more)]


def check(config: Any, prefix: str = "") -> None:
    """`ValueError` for the first option of a dataclass, or of one inside it, that is outside the limits of its type."""
    for name, hint in typing.get_type_hints(type(config), include_extras=True).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            check(value, f"{prefix}{name}.")
        nullable = typing.get_origin(hint) in (typing.Union, types.UnionType)
        for part in typing.get_args(hint) if nullable else (hint,):
            for limit in getattr(part, "__metadata__", ()):
                if value is not None and not _is_within(value, limit):
                    raise ValueError(f"{prefix}{name}={value!r} must {_words(limit)}{', or null' if nullable else ''}")


def _is_within(value: Any, limit: Any) -> bool:
    """NaN is within nothing."""
    if isinstance(limit, OneOf):
        return value in limit.known
    if isinstance(limit, Interval):
        return all(_is_within(value, part) for part in limit)
    if isinstance(limit, Ge):
        return value >= limit.ge
    if isinstance(limit, Gt):
        return value > limit.gt
    return value < limit.lt if hasattr(limit, "lt") else value <= limit.le


def _words(limit: Any) -> str:
    """What `limit` wants, after "must"."""
    if isinstance(limit, OneOf):
        return f"be one of {', '.join(limit.known)}"
    ge, gt, le, lt = (getattr(limit, name, None) for name in ("ge", "gt", "le", "lt"))
    if ge is not None and le is not None:
        return f"lie between {ge} and {le}"
    ends = {"at least": ge, "above": gt, "at most": le, "below": lt}
    words = ["finite" if end == inf else f"{word} {end}" for word, end in ends.items() if end is not None]
    return f"be {' and '.join(words)}"


def at_least(config: Any, limits: dict[str, float]) -> None:
    """`ValueError` for the first option below a limit that depends on other ones."""
    for name, least in limits.items():
        if (value := getattr(config, name)) < least:
            raise ValueError(f"{name}={value} must be at least {least}")


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """`ValueError` unless `value`, one of a list of them or read from data, is one of the known ones."""
    if value not in known:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(known)}")
