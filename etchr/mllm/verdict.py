"""The verdict in a model's reply on an edit, of verification and of the correctness reward alike."""

import re
from enum import StrEnum

from etchr.mllm.markup import MAX_REPLY, after_thinking, last_answer_tag, last_box, normalise_unicode, plain


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNPARSABLE = "unparsable"  # the model said nothing that can be read as a verdict; never the same as rejected


POSITIVE, NEGATIVE = ("1", "Yes", "yes"), ("0", "No", "no")  # the tokens of a verdict, for its probability

_WORD = r"(1(?:\.0)?|0(?:\.0)?|yes|no|true|false)"
_STATEMENT = re.compile(  # a line of its own: "the answer is 1" inside a sentence may speak of the question
    r"^[^\w\n]*(?:the\s+|my\s+)?(?:final\s+)?(?:verdict|answer|decision)\b\W{0,4}(?:is\W{0,4})?(?<![-.])"
    + _WORD
    + r"\W*$",
    re.IGNORECASE | re.MULTILINE,
)
_BARE = re.compile(r"\W*(?<![-.])" + _WORD + r"\W*", re.IGNORECASE)  # -1 is no verdict
_LEADING = re.compile(  # "Yes, the box is right."; not "Yes, there are two boxes, but none is right"
    r"\W*(?:(yes)(?!.*\b(?:but|however|although|not|no|none|wrong)\b|.*n't\b)|(no)(?!.*\b(?:but|however|although|yes)\b))"
    r"\s*(?:[,.:;!-]|\n)",
    re.IGNORECASE | re.DOTALL,
)
_POSITIVE, _NEGATIVE = {"1", "1.0", "yes", "correct", "true"}, {"0", "0.0", "no", "incorrect", "wrong", "false"}


def parse_verdict(text: str) -> Verdict:
    """The verdict in a reply: the last box decides, else an <answer> tag, else a stated verdict, else the reply where
    that is one word, else a yes or no that opens it.

    Anything else is UNPARSABLE, a third outcome that is counted apart. What the model thought on the way, or was still
    thinking when it was cut off, is no verdict.
    """
    text = after_thinking(normalise_unicode(text)[-MAX_REPLY:]) or ""
    if r"\boxed" in text:
        word = plain(last_box(text) or "").strip(" .").lower()
    elif (tag := last_answer_tag(text)) is not None:
        word = plain(tag).strip(" .").lower()
    elif statements := _STATEMENT.findall(text):
        word = statements[-1].lower()
    else:
        bare = _BARE.fullmatch(text.strip()) or _LEADING.match(text)
        word = next(filter(None, bare.groups())).lower() if bare else ""
    if word in _POSITIVE:
        return Verdict.ACCEPTED
    return Verdict.REJECTED if word in _NEGATIVE else Verdict.UNPARSABLE


def accepts(text: str) -> bool | None:
    """Whether the verdict in a reply is positive; None without one."""
    verdict = parse_verdict(text)
    return None if verdict is Verdict.UNPARSABLE else verdict is Verdict.ACCEPTED
