"""The family that an understanding model names for a question, as `prompts.ROUTE` asks for it."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from etchr.families import TaskFamily
from etchr.mllm.logprobs import token_share
from etchr.mllm.markup import MAX_REPLY, after_thinking, last_box, normalise_unicode, plain
from etchr.mllm.prompts import ROUTE_FAMILY, route_prompt
from etchr.mllm.protocol import Message, Reply, user_message
from etchr.router import NO_FAMILY, Route

# What stands for each answer, from 0: the number, its name, the family's name and its description.
_FAMILIES: tuple[TaskFamily | None, ...] = (None, *map(TaskFamily.parse, ROUTE_FAMILY))
_NUMBER_NAMES = ("zero", "one", "two", "three", "four", "five")
_NAMES: list[set[str]] = [
    {str(number), _NUMBER_NAMES[number], family or NO_FAMILY} for number, family in enumerate(_FAMILIES)
]
_DESCRIPTIONS = {text: number for number, text in enumerate(ROUTE_FAMILY.values(), 1)}
_NOTHING = {"no", "nothing", "none of them", "none of these", "none of the above"}

_WORD = r"(?:answer|kind|number|choice|option)"
_STATEMENT = re.compile(  # a line of its own, as in "The answer is 2."
    rf"^[^\w\n]*(?:the\s+|my\s+)?(?:final\s+)?{_WORD}\b\s*(?:is\b|:|=)?\s*(\S.{{0,200}}?)\s*$",
    re.IGNORECASE | re.MULTILINE,
)
# A number, perhaps with what it stands for: "2", "kind 2", "2. the chart". A second number would leave it open.
_NUMBERED = re.compile(rf"(?:{_WORD}\s*)?#?(\d{{1,3}})(?:\s*[.):-]\D*)?", re.IGNORECASE)


def route_message(question: str, choices: Sequence[str] | None, *images: Image.Image) -> Message:
    """What the model is asked about a question and its pictures."""
    return user_message(route_prompt(question, choices), *images)


def read_route(reply: Reply) -> Route:
    """The family in a reply, with the model's own probability where it gives one, else 1.

    The last box decides, else the last stated answer, else a reply of one line. A reply that cannot be read names no
    family and has the confidence 0; one that says 0 is sure that no family's edit would help.
    """
    number = _number(_said(reply))
    if number is None:
        return Route(None, 0.0)
    others = set(itertools.chain(*_NAMES)) - _NAMES[number]
    share = token_share(_up_to_box(reply), _NAMES[number], others)
    return Route(_FAMILIES[number], 1.0 if share is None else share)


def _said(reply: Reply) -> str:
    """The words that should name a kind; "" if there are none."""
    text = after_thinking(normalise_unicode(reply.text)[-MAX_REPLY:])
    if text is None:
        return ""
    if r"\boxed" in text:
        return plain(last_box(text) or "")
    if reply.finish_reason == "length":
        return ""  # what stands before the cut may be a thought on the way
    text = plain(text, keep_lines=True)
    statements = _STATEMENT.findall(text)
    return statements[-1] if statements else text


def _number(said: str) -> int | None:
    """The number of the kind that words name."""
    words = said.strip(" .:()[]\"'*").casefold()
    if numbered := _NUMBERED.fullmatch(words):
        number = int(numbered[1])
        return number if number < len(_FAMILIES) else None
    if words in _NOTHING:
        return 0
    named = next((number for number, names in enumerate(_NAMES) if words in names), None)
    return _DESCRIPTIONS.get(words) if named is None else named


def _up_to_box(reply: Reply) -> Reply:
    """The reply with the log-probabilities of its tokens up to the end of the last box, where tokens show that."""
    best = [max(candidates, key=candidates.__getitem__, default="") for candidates in reply.logprobs or ()]
    box = reply.text.rfind(r"\boxed")
    if box < 0 or "".join(best) != reply.text:  # at a temperature the most probable tokens are not the reply's
        return reply
    end = reply.text.find("}", box)
    reached = itertools.accumulate(map(len, best))
    needed = sum(length <= end for length in reached) + 1 if end >= 0 else len(best)
    assert reply.logprobs is not None
    return replace(reply, logprobs=reply.logprobs[:needed])
