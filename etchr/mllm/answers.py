"""The one grader, of rewards and evaluation alike: finds the answer in a model's reply and says whether it is right.

Reading is tolerant (boxes, LaTeX, "Answer: C", "(B)", option text for a letter, moves as words) but never a guess: a
reply that gives nothing usable has the answer None, and None is wrong. That is not the same as *unscored*, which means
that the model call itself failed. Loads without torch.
"""

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal

from etchr.mllm.markup import (
    MAX_REPLY,
    after_thinking,
    box_is_cut,
    last_answer_tag,
    last_box,
    normalise_unicode,
    plain,
)
from etchr.mllm.numerals import read_decimal
from etchr.sample import EditSample

ANSWER_TYPES = ("option", "number", "moves", "permutation", "text")
STEPS = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}
MAX_ANSWER = 1000  # characters of one candidate
MAX_STATEMENTS = 8  # "answer is ..." statements looked at, from the end

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WORD_MOVES = {"up": "U", "down": "D", "left": "L", "right": "R", "north": "U", "south": "D", "west": "L", "east": "R"}
_ARROW_MOVES = {"↑": "U", "↓": "D", "←": "L", "→": "R", "⬆": "U", "⬇": "D", "⬅": "L", "➡": "R"}
_FILLERS = {
    "move",
    "moves",
    "go",
    "then",
    "and",
    "first",
    "next",
    "finally",
    "step",
    "steps",
    "path",
    "actions",
    "plan",
}
_CORNERS = re.compile(r"\b(?:upper|top|lower|bottom)[\s-]*(?:left|right)\b|\b[ULTB][LR]\b|[→:=]", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\b(?:cannot|can not|can't|could not|couldn't|unable|impossible|unclear|unsure|not sure|don't know|do not know|"
    r"not possible|sorry|no way to)\b",
    re.IGNORECASE,
)
_OPTION_WORD = re.compile(
    r"^(?:the\s+)?(?:correct\s+)?(?:option|choice|letter|answer)\s*[:=]?\s*(?=\W?[A-Z]\b)", re.IGNORECASE
)
_SAID_NUMBER = re.compile(
    r"(?:\b(?:is|are|was|were|equals|reads|shows|at|about|approximately)|[:=≈])\s*([^\d\s]{0,2}\d.*)$"
)
_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻"
_STATED_LETTER = re.compile(  # "B is correct.", "I think it's B."
    r"(?:.*\W)?(?i:option|choice)?\s*[(\[]?([A-Z])[)\]]?\s+(?i:is|seems|looks)\s+(?:the\s+)?(?i:correct|right|best|true)"
    r"(?:\s+(?i:one|answer|option|choice))?\W*|(?:.*\W)?(?i:it's|it is|that's|that is|must be)\s+[(\[]?([A-Z])[)\]]?\W*"
)
_NEGATION = re.compile(r"\b(?:not|no|none|neither|nor|isn't|aren't|never)\b", re.IGNORECASE)
_STATEMENT = re.compile(
    r"(?:\b(?:answers?|moves?|path|route|sequence|order|permutation|arrangement|directions|option|choice|solution|result)\b"
    r"(?:\s+(?:to|for|of|from)(?:\s+\w+){1,8}?)?[\"']?\s*"
    r"(?::|=|→|\b(?:is|are|would be|should be|must be|will be)\b)"
    r"|\b(?:antwort|lösung|réponse|respuesta|resposta|risposta|ответ|jawaban)\b[^:\n]{0,30}?\s*(?::|\b(?:ist|est|es|é|è|adalah)\b)"
    r"|(?:答案|选项|选择|答え|正解|正답|정답|답)(?:应该|应)?(?:是|为|选|は|은|는|:)+)\s*:?\s*(?P<rest>\S[^\n]*)",
    re.IGNORECASE,
)


def answer_type(sample: EditSample) -> str:
    """How the sample's answer is written; `ValueError` for a type that no rule here knows."""
    kind = sample.meta.get("answer_type") or ("option" if sample.choices else "text")
    if kind not in ANSWER_TYPES:
        raise ValueError(f"sample {sample.id!r}: unknown answer_type {kind!r}; known: {', '.join(ANSWER_TYPES)}")
    return kind


def extract_answer(
    reply_text: str, answer_type: str, choices: Sequence[str] | None = None, *, truncated: bool = False
) -> str | None:
    """The answer in a reply, in canonical form ("B", "1234", "D,R", "0-2-3-1"); None where it gives nothing usable.

    Tried in order: the last non-empty \\boxed{}, the last <answer> tag, the last "answer is ..." statement, the form of
    the reply itself. A box that does not parse ends the search; of a tag the same is tried inside. Of a reply that was
    cut off at the token limit (`truncated`) only a box or a tag counts, for what stands before the cut may be a thought
    on the way.
    """
    if answer_type not in _READERS:
        raise ValueError(f"unknown answer_type {answer_type!r}; known: {', '.join(ANSWER_TYPES)}")
    read = _READERS[answer_type]
    text = after_thinking(_unicode_as(answer_type, reply_text or "")[-MAX_REPLY:])
    if text is None:
        return None
    explicit = last_box(text)
    if explicit is not None:
        return read(plain(explicit), choices)
    tag = last_answer_tag(text)
    if tag is not None:
        text = tag
        if (found := read(plain(tag), choices)) is not None:
            return found
    elif truncated or box_is_cut(text):
        return None
    text = plain(text, keep_lines=True)
    if answer_type == "moves" and (lines := _last_moves(text)):
        return read(lines, choices)
    for rest in _statements(text):
        if _REFUSAL.search(rest) or (_NEGATION.match(rest) and answer_type != "text"):
            return None
        found = read(rest, choices) or read(_first_sentence(rest), choices)
        if found is not None:
            return found
    return _from_form(text, answer_type, choices)


def is_correct(answer: str | None, sample: EditSample) -> bool:
    """Whether an extracted answer is right; None is wrong. `ValueError` if the sample's own answer cannot be read.

    Moves are executed on `meta["grid"]` where there is one: any walk over free cells that ends on the goal is right.
    """
    kind = answer_type(sample)
    truth = ground_truth(sample)
    if answer is None:
        return False
    if kind == "moves" and "grid" in sample.meta:
        return reaches_goal(answer.split(","), sample.meta["grid"])
    if kind == "number":
        return math.isclose(float(answer), float(truth), rel_tol=1e-6, abs_tol=1e-9)
    if kind == "text":
        return _same_text(answer, truth)
    return answer == truth


def ground_truth(sample: EditSample) -> str:
    """The sample's answer in canonical form; a `ValueError` names the sample if it is not of its `answer_type`."""
    kind = answer_type(sample)
    written = plain(_unicode_as(kind, sample.answer))
    # A text that reads like a refusal is one in a reply, but as the truth it is what a survey's chart says: "Not sure".
    truth = (_bare(written) or None) if kind == "text" else _READERS[kind](written, sample.choices)
    if truth is None:
        raise ValueError(f"sample {sample.id!r}: its answer {sample.answer!r} is no {kind} answer")
    if kind == "moves" and "grid" in sample.meta and not reaches_goal(truth.split(","), sample.meta["grid"]):
        raise ValueError(f"sample {sample.id!r}: its answer {sample.answer!r} does not lead from S to G on its grid")
    return truth


def reaches_goal(moves: Sequence[str], grid: Sequence[str]) -> bool:
    """Whether `moves` lead from S over free cells to G, which must be the last cell; leaving the grid fails.

    `grid` has a text for each row of cells; `ValueError` if it is anything else, or without one S and a G.
    """
    if not isinstance(grid, list | tuple) or not all(isinstance(line, str) for line in grid):
        raise ValueError(f"a grid is a list of texts, got {grid!r}")
    marks = {(r, c): mark for r, line in enumerate(grid) for c, mark in enumerate(line)}
    starts = [cell for cell, mark in marks.items() if mark == "S"]
    if len(starts) != 1 or "G" not in marks.values():
        raise ValueError(f"a grid needs one S and a G, got {list(grid)}")
    r, c = starts[0]
    for move in moves:
        dr, dc = STEPS[move]
        r, c = r + dr, c + dc
        if marks.get((r, c), "#") == "#":
            return False
    return marks[r, c] == "G"


# --- text of a reply ---------------------------------------------------------------------------------------------


def _unicode_as(answer_type: str, text: str) -> str:
    """`normalise_unicode`, which would make 10-3 of 10⁻³: exponents of free text become 10^-3 first."""
    if answer_type == "text":
        text = re.sub(f"[{_SUPERSCRIPTS}]+", lambda run: "^" + normalise_unicode(run[0]), text)
    return normalise_unicode(text)


def _statements(text: str) -> list[str]:
    """What follows "the answer is", "Answer:", "the path is" ..., the last first; one may begin inside another."""
    found, position = [], 0
    while match := _STATEMENT.search(text, position):
        found.append(match["rest"][:MAX_ANSWER].strip())
        position = match.start("rest")
    return found[: -MAX_STATEMENTS - 1 : -1]


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?;])\s+|,?\s+(?:because|since|as)\s+", text, maxsplit=1)[0]


def _last_sentence(text: str) -> str:
    line = text.rsplit("\n", 1)[-1]
    return re.split(r"(?<=[.!?])\s+(?=\S)", line)[-1]


# --- one reader per answer type: a text that is said to be the answer -> its canonical form, or None -------------


def _read_option(text: str, choices: Sequence[str] | None) -> str | None:
    """A letter ("B", "(b)", "B. left", "option B") or the text of exactly one option -> the letter."""
    known = _LETTERS[: len(choices)] if choices else _LETTERS
    text = _OPTION_WORD.sub("", text.strip(" \"'"))
    match = re.match(r"^[(\[]?([A-Za-z])[)\]]?\s*(?P<mark>[.):,;!-]|$)\s*(?P<rest>.*)$", text)
    if match is None or _more_letters(match["rest"]):
        match = re.match(r"^[(\[]([A-Za-z])[)\]]\s+(?P<rest>.*)$", text)
    if match and match[1].upper() in known and not _more_letters(match["rest"]):
        return match[1].upper()
    if not choices:
        return None
    spaced = re.match(r"^([A-Za-z])\s+(?P<rest>.+)$", text)
    if spaced and spaced[1].upper() in known and _same_text(spaced["rest"], choices[known.index(spaced[1].upper())]):
        return spaced[1].upper()
    equal = [i for i, choice in enumerate(choices) if _same_text(text, choice)]
    if not equal and not _NEGATION.search(text) and not _REFUSAL.search(text):
        equal = _mentioned(text, choices)
    return known[equal[0]] if len(equal) == 1 else None


def _more_letters(rest: str) -> bool:
    """Whether a second option letter follows: "A, B" or "A or B" names no single option."""
    return bool(re.match(r"^(?:(?:or|and|/|,|&)\s*)?[(\[]?[A-Z][)\]]?\s*(?:$|[,.)])", rest))


def _mentioned(text: str, choices: Sequence[str]) -> list[int]:
    """Indices of the options whose text occurs as whole words, without those inside a longer one that occurs."""
    words = f" {_text_key(text)} "
    keys = [_text_key(choice) for choice in choices]
    for key in sorted(filter(None, keys), key=len, reverse=True):
        if f" {key} " in words:
            words = words.replace(f" {key} ", f" \0{keys.index(key)}\0 ")
    return [i for i in range(len(keys)) if f"\0{i}\0" in words]


def _read_number(text: str, choices: Sequence[str] | None) -> str | None:
    """Exactly one number, perhaps with a currency, a percent sign, a unit or "x =" before it."""
    value = read_decimal(text)
    return None if value is None else _canonical(value)


def _canonical(value: Decimal) -> str:
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text.removeprefix("+")


def _read_moves(text: str, choices: Sequence[str] | None) -> str | None:
    """Moves as letters with or without separators, as words or as arrows -> "D,R,R"; nothing else may be there."""
    text = re.sub(r"^[^:]{0,40}:\s*", "", text.replace("->", "→").replace("=>", "→"))
    text = re.sub(r"(?<![\w.])\d{1,3}[.):]", " ", text)  # steps may be numbered
    tokens = re.findall(r"[A-Za-z]+|[^\sA-Za-z]", text)
    if not any(token.isalpha() for token in tokens):
        moves = [_ARROW_MOVES[token] for token in tokens if token in _ARROW_MOVES]
        rest = [token for token in tokens if token not in _ARROW_MOVES]
    else:
        moves, rest = [], []
        for token in tokens:
            if token.lower() in _WORD_MOVES:
                moves.append(_WORD_MOVES[token.lower()])
            elif set(token.upper()) <= set("UDLR"):
                moves.extend(token.upper())
            elif token.lower() not in _FILLERS and token not in "→>":
                rest.append(token)
    return ",".join(moves) if moves and all(token in ",;.-[]()'\"_ " for token in rest) else None


def _read_permutation(text: str, choices: Sequence[str] | None) -> str | None:
    """Piece numbers joined by hyphens, commas, blanks or nothing -> "0-2-3-1"."""
    text = _CORNERS.sub(" ", text.replace("->", "→")).strip(" .[](){}'\"")
    run = re.fullmatch(r"\d{2,9}", text)
    pieces = list(run[0]) if run else re.split(r"[\s,;>-]+", text)
    if len(pieces) < 2 or not all(re.fullmatch(r"\d{1,2}", piece) for piece in pieces):
        return None
    numbers = [int(piece) for piece in pieces]
    if run and sorted(numbers) != list(range(len(numbers))):
        return None  # "2024" is a number, not four pieces
    return "-".join(map(str, numbers))


def _read_text(text: str, choices: Sequence[str] | None) -> str | None:
    """Any text but a refusal."""
    text = _bare(text)
    return text if text and not _REFUSAL.search(text) else None


def _bare(text: str) -> str:
    """A text without the full stop and the quotes round it."""
    return text.strip().rstrip(".").strip("\"' ")


_READERS: dict[str, Callable[[str, Sequence[str] | None], str | None]] = {
    "option": _read_option,
    "number": _read_number,
    "moves": _read_moves,
    "permutation": _read_permutation,
    "text": _read_text,
}


# --- replies that announce nothing: only unmistakable forms count ------------------------------------------------


def _from_form(text: str, answer_type: str, choices: Sequence[str] | None) -> str | None:
    """The answer in the form of a reply without box, tag or statement: its last sentence, or the whole if short."""
    sentence = _last_sentence(text)
    if not sentence or _REFUSAL.search(sentence):
        return None
    if answer_type == "option":
        return _option_from_form(text, sentence, choices)
    if answer_type == "number":
        said = _SAID_NUMBER.search(sentence)
        alone = (
            sentence
            if re.fullmatch(r"\W*[\d.,]+\W*(?:\w+\W*){0,2}|[A-Za-z]+(?:[ -][A-Za-z]+){0,3}\W*", sentence)
            else None
        )
        candidate = said[1] if said else alone
        return _read_number(candidate, choices) if candidate else None
    if answer_type == "moves":
        run = re.findall(r"\b[UDLR](?:\s*(?:,|;|-|→|->|\s)\s*[UDLR])+\b|\b[UDLR]{3,}\b", sentence)
        return _read_moves(run[0] if len(run) == 1 else sentence, choices)
    if answer_type == "permutation":
        run = re.findall(r"\d{1,2}(?:\s*(?:,|-|→|->)\s*\d{1,2})+|\b\d{3,9}\b", sentence)
        found = _read_permutation(run[0] if len(run) == 1 else sentence, choices)
        return found if found and sorted(map(int, found.split("-"))) == list(range(found.count("-") + 1)) else None
    return _read_text(text, choices) if "\n" not in text and len(text.split()) <= 12 else None


def _last_moves(text: str) -> str:
    """The lines at the end of a reply that hold moves and nothing else, such as a numbered list; "" if it has none."""
    lines: list[str] = []
    for line in reversed(text.splitlines()):
        if _read_moves(line, None) is None:
            break
        lines.insert(0, line)
    return " ".join(lines) if len(lines) > 1 else ""


def _option_from_form(text: str, sentence: str, choices: Sequence[str] | None) -> str | None:
    """A letter that opens the reply or closes its last sentence, or one option's text in a short reply."""
    known = _LETTERS[: len(choices)] if choices else _LETTERS
    first = text.split("\n", 1)[0]
    if opening := re.match(r"^[(\[]?([A-Z])(?:[)\].:]|$)", first):
        found = _read_option(first, choices) or _read_option(opening[1], choices)
        return None if _more_letters(first[opening.end() :].strip()) else found
    if stated := _STATED_LETTER.fullmatch(sentence):
        letter = stated[1] or stated[2]
        return letter if letter in known else None
    bracketed = set(re.findall(r"[(\[]([A-Z])[)\]]", sentence)) & set(known)
    if len(bracketed) > 1:
        return None
    closing = re.search(
        r"(?:[:=→(\[]|\b(?i:is|be|option|choice|answer|choose|pick|select|so|thus|therefore|hence|with)\b,?)"
        r"\s*[(\[]?([A-Z])[)\]]?[.!]?$",
        sentence,
    )
    named = re.findall(r"\b(?:[Oo]ption|[Cc]hoice)\s+[(\[]?([A-Z])\b", sentence)
    letters = bracketed | ({closing[1]} if closing else set()) | set(named)
    if letters:
        return letters.pop() if len(letters) == 1 and letters <= set(known) and not _NEGATION.search(sentence) else None
    return _read_option(text, choices) if choices and len(text.split()) <= 12 else None


def _text_key(text: str) -> str:
    """Case, punctuation, articles and spacing removed."""
    words = re.sub(r"[^\w.%+-]+|[.](?!\d)", " ", normalise_unicode(text).casefold()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the")) or " ".join(words)


def _same_text(left: str, right: str) -> bool:
    """Equal as normalised text or, if both are numbers alone, as numbers."""
    if _text_key(left) == _text_key(right):
        return True
    sides = [side.strip().replace(",", "").removeprefix("$").removesuffix("%") for side in (left, right)]
    if not all(re.fullmatch(r"[-+]?\d{1,30}(\.\d{1,30})?", side) for side in sides):
        return False
    return Decimal(sides[0]) == Decimal(sides[1])
