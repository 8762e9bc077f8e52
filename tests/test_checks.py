"""Limits of options, in their types: what is refused, and by which words."""

from dataclasses import dataclass, field
from typing import Annotated

import pytest
from annotated_types import Ge, Gt, Interval, Lt

from etchr.checks import BelowOne, Count, OneOf, Positive, Share, check


@dataclass
class Inner:
    """Options inside others."""

    share: Share = 0.5
    part: BelowOne | None = None
    word: Annotated[str, OneOf("a", "b")] = "a"


@dataclass
class Outer:
    """Options with a limit of each kind."""

    count: Count | None = None
    rate: Positive = 1.0
    many: Annotated[int, Ge(2)] = 2
    clip: Annotated[float, Gt(0)] = 1.0
    small: Annotated[int, Lt(10)] = 9
    part: Annotated[float, Interval(gt=0, le=1)] = 1.0
    free: float = 0.0
    inner: Inner = field(default_factory=Inner)
    other: Inner | None = None


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"count": 0}, "count=0 must be at least 1, or null"),
        ({"rate": 0.0}, "rate=0.0 must be above 0 and finite"),
        ({"rate": INF}, "rate=inf must be above 0 and finite"),
        ({"rate": NAN}, "rate=nan must be above 0 and finite"),
        ({"many": 1}, "many=1 must be at least 2"),
        ({"clip": -1.0}, "clip=-1.0 must be above 0"),
        ({"clip": NAN}, "clip=nan must be above 0"),
        ({"small": 10}, "small=10 must be below 10"),
        ({"part": 1.5}, "part=1.5 must be above 0 and at most 1"),
        ({"inner": Inner(share=-0.5)}, "inner.share=-0.5 must lie between 0 and 1"),
        ({"inner": Inner(share=NAN)}, "inner.share=nan must lie between 0 and 1"),
        ({"other": Inner(part=1.0)}, "other.part=1.0 must be at least 0 and below 1, or null"),
        ({"other": Inner(word="c")}, "other.word='c' must be one of a, b"),
    ],
)
def test_the_sentence_names_option_value_and_what_is_allowed(options, sentence):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole sentence is compared
        check(Outer(**options))
    assert str(error.value) == sentence


def test_what_lies_on_an_allowed_end_passes():
    check(Outer())
    check(Outer(count=1, part=1.0, free=NAN, inner=Inner(1.0, 0.0, "b"), other=Inner(0.0)))
