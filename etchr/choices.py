"""Answer options (choices) that are written into a text, as many data sets keep them. Loads without torch."""

import json
import re
from collections.abc import Sequence

from etchr.rows import text


def read_options(words: str) -> tuple[str, ...]:
    """The options in a text such as `A. left B. right`, `(A) left, (B) right` or a JSON list; () if there are none.

    The last one ends with its line. `ValueError` for a JSON list with an option that is empty or no text for a file.
    """
    if words.startswith("["):
        try:
            listed = json.loads(words)
        except (ValueError, RecursionError):
            return ()
        if not isinstance(listed, list) or not 2 <= len(listed) <= 26 or not all(isinstance(o, str) for o in listed):
            return ()
        options = tuple(text(option, "option") for option in listed)  # an escape may stand for half a character
        return read_options("\n".join(options)) or options
    marks: list[re.Match[str]] = []
    for mark in re.finditer(r"(?:^|(?<=[\s,;:]))\(?([A-Z])[.):](?=\s|\w)", words):
        if mark[1] == chr(ord("A") + len(marks)):
            marks.append(mark)
    if len(marks) < 2:
        return ()
    ends = [*(mark.start() for mark in marks[1:]), len(words)]
    options = tuple(words[mark.end() : end].strip(" \t\r\n,;") for mark, end in zip(marks, ends, strict=True))
    options = (*options[:-1], options[-1].partition("\n")[0].rstrip(" \t\r,;"))
    return options if all(options) else ()


def chosen_letter(answer: str, options: Sequence[str]) -> str | None:
    """The letter of the option that an answer names by its letter, by its text or by both.

    None if it names none, or two: where the options are letters themselves, B may mean the option B or the one that
    says B.
    """
    letters = [chr(ord("A") + i) for i in range(len(options))]
    same = [letter for letter, option in zip(letters, options, strict=True) if option.lower() == answer.strip().lower()]
    lettered = _by_letter(answer, letters, options)
    if len(same) == 1:
        return same[0] if lettered in (None, same[0]) else None
    return lettered


def _by_letter(answer: str, letters: Sequence[str], options: Sequence[str]) -> str | None:
    match = re.fullmatch(r"\(?([A-Z])(?:[.):]\s*(.*)|\)?\.?)", answer.strip(), re.S)
    if match is None or match[1] not in letters:
        return None
    stated = (match[2] or "").strip().lower()
    return match[1] if not stated or stated == options[letters.index(match[1])].lower() else None
