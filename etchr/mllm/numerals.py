"""Numbers as people and models write them: read as the value that they mean, or not at all. No torch."""

import re
from decimal import Decimal

_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SUFFIXES = {"k": 10**3, "K": 10**3, "M": 10**6, "mn": 10**6, "B": 10**9, "bn": 10**9, "T": 10**12}
_VALUES = {word: value for value, word in enumerate(_SMALL)} | {w: 10 * n for n, w in enumerate(_TENS, start=2)}
_FRACTIONS = {"half": Decimal("0.5"), "quarter": Decimal("0.25")}
_NUMBER = re.compile(
    r"(?<![\w.])(?<!\d,)(?P<sign>[-+]?)(?P<value>(?:\d{1,3}(?:,\d{3}){1,9}|\d{1,30})(?:\.\d{1,30})?|\.\d{1,30})"
    r"(?:[eE](?P<power>[-+]?\d{1,2}))?(?P<suffix>(?:[kKMBT]|mn|bn)(?!\w))?(?!\d|[.,]\d)"
)
# What says that a number is no plain one: roots, powers, factorials, other bases, a letter that may be part of it
_OTHER_VALUE = re.compile(r"√|\bsqrt\b|\\sqrt|\^|\d!|\b0[xXbBoO][0-9a-fA-F]|\blog\b|π|\\pi\b")


def read_decimal(text: str) -> Decimal | None:
    """The one number in `text`, perhaps with a currency, a percent sign, a unit or "x =" before it.

    None for none, for more than one, and for what is not read to its end: never another number than the one written.
    """
    text = text.rsplit("=", 1)[-1]
    outside = re.sub(r"\([^()]*\)", " ", text)
    text = outside if re.search(r"\w", outside) else text.strip("()[] ")
    text = re.sub(r"(?<=\d)\s*(?:×|x|\*|\\times|\\cdot|·)\s*10\s*\^\s*\(?([-+]?\d{1,2})\)?", r"e\1", text)
    text = re.sub(r"(?<![\w.^])10\s*\^\s*\(?([-+]?\d{1,2})\)?", r"1e\1", text)
    text = re.sub(r"(?<=\d)_(?=\d{3}(?!\d))", ",", text)
    text = re.sub(r"\^\s*(?:\\circ|°|o)", "°", text)
    text = re.sub(r"[$€£¥]\s*", " ", text)
    text = re.sub(r"(?<=[a-z])(?<!\de)\^?[23](?!\w)", "", text)  # square and cubic units
    if _OTHER_VALUE.search(text):
        return None
    mixed = re.fullmatch(r"\D*?([-+]?\d{1,15})?\s*(?<![\d.,])(\d{1,15})\s*[/⁄]\s*(\d{1,15})(?![\d.,/])\D*", text)
    if mixed and int(mixed[3]):
        part = Decimal(int(mixed[2])) / Decimal(int(mixed[3]))
        whole = Decimal(mixed[1] or 0)
        negative = (mixed[1] or "").startswith("-") or (not mixed[1] and re.match(r"\D*-\s*\d", text) is not None)
        return -(abs(whole) + part) if negative else whole + part
    if re.search(r"\d\s*[/⁄]\s*\d", text):
        return None
    found = list(_NUMBER.finditer(text))
    words = re.findall(r"[a-z]+", text.lower())
    if not found:
        return None if re.search(r"\d", text) else _spoken(words)
    if len(found) != 1 or re.search(r"\d", text[: found[0].start()] + " " + text[found[0].end() :]):
        return None
    if any(word in _VALUES or word in _FRACTIONS or word == "hundred" for word in words):  # "3 hundred", "2 and a half"
        return None
    number = found[0]
    value = Decimal(number["value"].replace(",", "")).scaleb(int(number["power"] or 0))
    scales = [_SCALES[word] for word in words if word in _SCALES]
    if len(scales) + bool(number["suffix"]) > 1:
        return None
    value *= _SUFFIXES[number["suffix"]] if number["suffix"] else scales[0] if scales else 1
    said = re.search(r"\b(?:negative|minus)\s*$", text[: number.start()].lower()) is not None
    return -value if said != (number["sign"] == "-") else value


def _spoken(words: list[str]) -> Decimal | None:
    """The number in words, of a text that has one: "minus forty-two", "two hundred and five thousand"."""
    places = [i for i, word in enumerate(words) if word in _VALUES or word in _SCALES or word == "hundred"]
    if not places:
        return None
    total = group = Decimal(0)
    last = 0  # the size of the word before: each is smaller than it, or multiplies
    at = places[0]
    while at < len(words):
        word = words[at]
        if word in _VALUES:
            value = _VALUES[word]
            if last and not (last >= 100 or (20 <= last < 100 and value < 10 and last % 10 == 0)):
                return None  # two numbers
            group, last = group + value, value or 1
        elif word == "hundred":
            if not 0 < group < 10:
                return None
            group, last = group * 100, 100
        elif word in _SCALES:
            if not group:
                return None
            total, group, last = total + group * _SCALES[word], Decimal(0), _SCALES[word]
        elif word in ("and", "a") and any(w in _VALUES or w in _FRACTIONS for w in words[at + 1 : at + 3]):
            pass
        elif word in _FRACTIONS and words[at - 1] == "a" and words[at - 2] == "and":
            group, last = group + _FRACTIONS[word], 1
        else:
            break
        at += 1
    if any(w in _VALUES or w in _SCALES or w in _FRACTIONS or w in ("hundred", "point", "dozen") for w in words[at:]):
        return None
    is_negative = places[0] > 0 and words[places[0] - 1] in ("negative", "minus")
    return -(total + group) if is_negative else total + group
