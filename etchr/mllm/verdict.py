"""The verdict in a model's reply on an edit, of verification and of the correctness reward alike."""

import re
from enum import StrEnum

from etchr.mllm.markup import MAX_REPLY, after_thinking, last_box, normalise_unicode, plain


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNPARSABLE = "unparsable"  # the model said nothing that can be read as a verdict; never the same as rejected


POSITIVE, NEGATIVE = ("1", "Yes", "yes"), ("0", "No", "no")  # the tokens of a verdict, for its probability

_STATEMENT = re.compile(  # a line of its own: "the answer is 1" inside a sentence may speak of the question
    r"^[^\w\n]*(?:the\s+|my\s+)?(?:final\s+)?(?:verdict|answer|decision)\b\W{0,4}(?:is\W{0,4})?(?<![-.])(0|1|yes|no)\W*$",
    re.IGNORECASE | re.MULTILINE,
)
_BARE = re.compile(r"\W*(?<![-.])(0|1|yes|no)\W*", re.IGNORECASE)  # -1 is no verdict
_POSITIVE, _NEGATIVE = {"1", "yes", "correct", "true"}, {"0", "no", "incorrect", "wrong", "false"}


def parse_verdict(text: str) -> Verdict:
    """The verdict in a reply: the last box decides, else a stated verdict, else a reply that is one word.

    Anything else is UNPARSABLE, a third outcome that is counted apart. What the model thought on the way, or was still
    thinking when it was cut off, is no verdict.
    """
    text = after_thinking(normalise_unicode(text)[-MAX_REPLY:]) or ""
    if r"\boxed" in text:
        word = plain(last_box(text) or "").strip(" .").lower()
    elif statements := _STATEMENT.findall(text):
        word = statements[-1].lower()
    else:
        bare = _BARE.fullmatch(text.strip())
        word = bare[1].lower() if bare else ""
    if word in _POSITIVE:
        return Verdict.ACCEPTED
    return Verdict.REJECTED if word in _NEGATIVE else Verdict.UNPARSABLE


def accepts(text: str) -> bool | None:
    """Whether the verdict in a reply is positive; None without one."""
    verdict = parse_verdict(text)
    return None if verdict is Verdict.UNPARSABLE else verdict is Verdict.ACCEPTED
