"""What a reply is dressed in: thoughts before it, a box round its answer, LaTeX, Markdown, Unicode. No torch."""

import re
import unicodedata

MAX_REPLY = 40_000  # characters of a reply that are read, from its end: 4,096 tokens are about 16,000


def normalise_unicode(text: str) -> str:
    """Compatibility forms (full width, ligatures), dashes, minus signs and quotes to their plain characters."""
    text = re.sub("[\u2010-\u2015\u2212\ufe58]", "-", unicodedata.normalize("NFKC", text))
    text = re.sub("[\u200b-\u200f\u2060\ufe0f\ufeff]", "", text)
    return text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'})


def after_thinking(text: str) -> str | None:
    """The reply proper, after a reasoning block; None if that block never ends."""
    tail = text.rpartition("</think>")[2]
    return None if "<think>" in tail else tail


def last_box(text: str) -> str | None:
    """The inside of the last non-empty \\boxed{...}, braces nested; None without one or if the last is cut off."""
    if box_is_cut(text):
        return None
    for match in reversed(list(re.finditer(r"\\?\\(?:boxed|fbox)\s*(?=\{)", text))):
        body = _balanced(text, match.end())
        if body is not None and plain(body):
            return body
    return None


def box_is_cut(text: str) -> bool:
    """Whether the last box opens but never closes: the reply was cut off while it gave its answer."""
    opened = list(re.finditer(r"\\(?:boxed|fbox)\s*(\{|$)", text))
    return bool(opened) and (not opened[-1][1] or _balanced(text, opened[-1].start(1)) is None)


def plain(text: str, *, keep_lines: bool = False) -> str:
    """`text` without LaTeX and Markdown dress: `$\\text{\\textbf{(B)}}$.` -> `(B).`; one line unless `keep_lines`."""
    text = re.sub(r"\\(?:d|t)?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", text)
    text = re.sub(r"\{,\}|\\,|\\;|\\!", lambda match: "," if match[0] == "{,}" else " ", text)
    text = text.replace(r"\rightarrow", "→").replace(r"\to ", "→ ").replace(r"\leftarrow", "←")
    text = text.replace(r"\uparrow", "↑").replace(r"\downarrow", "↓").replace(r"\%", "%")
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf|textit|texttt|mathit|mathsf|operatorname|left|right|displaystyle)"
                  r"(?![A-Za-z])\s*", "", text)  # fmt: skip
    text = re.sub(r"\\[()\[\]]|[{}`]|\*\*|__", "", _without_math_signs(text))
    if keep_lines:  # where a line begins with these it is a heading, a quotation or an item; in a box, "# of lines"
        text = re.sub(r"^[ \t]*[#>*]+[ \t]+", "", text, flags=re.MULTILINE)
        return "\n".join(line for line in (" ".join(line.split()) for line in text.splitlines()) if line)
    return " ".join(text.split())


def _without_math_signs(text: str) -> str:
    """`text` without the $ round formulas. Those of money stay: `$5`, `\\$`, `[$]`, a lone one but before a word."""
    lone = text.count("$") == 1 and not re.search(r"\$\s*[\\A-Za-z({]", text)
    if not lone:
        text = re.sub(r"(?<!\\)\$(?!\s*\d)(?!(?<=[\[(]\$)[\])])", "", text)
    return text.replace(r"\$", "$")


def _balanced(text: str, start: int) -> str | None:
    """The inside of the brace group that opens at `start`; None if it never closes."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start + 1 : i]
    return None
