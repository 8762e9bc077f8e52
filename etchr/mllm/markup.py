"""What a reply is dressed in: thoughts before it, a box round its answer, LaTeX, Markdown, Unicode. No torch."""

import re
import unicodedata

MAX_REPLY = 40_000  # characters of a reply that are read, from its end: 4,096 tokens are about 16,000

# How models mark their thoughts: tags in any case (of Qwen, DeepSeek, GLM, Claude, Seed, LLaVA-CoT, ...), Kimi's
# triangles, Magistral's brackets, Cohere's and Sky-T1's tokens, the channels of gpt-oss with and without their tokens.
_THOUGHT = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad)"
_OPENS = re.compile(
    rf"<\s?{_THOUGHT}(?:\s[^<>]{{0,80}})?>|◁\s?think\s?▷|\[THINK\]|<\|(?:START_THINKING|begin_of_thought)\|>"
    r"|<\|channel\|>\s?(?:analysis|commentary)\b",
    re.IGNORECASE,
)
_CLOSES = re.compile(
    rf"<\s?/\s?{_THOUGHT}\s?>|◁\s?/think\s?▷|\[/THINK\]|<\|(?:END_THINKING|end_of_thought)\|>"
    r"|<\|channel\|>\s?final\b\s?(?:<\|constrain\|>\s?\w{0,20}\s?)?<\|message\|>|assistantfinal",
    re.IGNORECASE,
)
_BOX_TOKENS = re.compile(r"<\|begin_of_box\|>(.*?)<\|end_of_box\|>", re.DOTALL)  # of GLM
_TOKEN = re.compile(r"<\|/?\w{1,30}\|>|</?s>|<(?:eos|bos|pad|end_of_turn|start_of_turn)>")
_ANSWER_TAG = re.compile(
    r"<(answer|final_answer|conclusion)>((?:(?!</?(?:answer|final_answer|conclusion)>).)*)</\1>",
    re.IGNORECASE | re.DOTALL,
)

# LaTeX that only dresses what follows it
_FONTS = (
    r"\\(?:(?:text|math)(?:rm|bf|it|tt|sf|sc|up|md|normal|cal|bb)?|operatorname\*?|boldsymbol|bm|pmb|mbox|hbox|emph|"
    r"underline|bf|it|rm|tt|em|bfseries|itshape|left|right|[bB]ig{1,2}[lr]?|displaystyle|textstyle|large|Large|small)"
    r"(?![A-Za-z])\s*"
)
_ARROW = re.compile(r"\\(?:[lL]ong)?([Rr]ight|[Ll]eft|[Uu]p|[Dd]own)arrow(?![a-z])")
_ARROWS = {"right": "→", "left": "←", "up": "↑", "down": "↓"}
_VULGAR = {mark: unicodedata.normalize("NFKC", mark).replace("\u2044", "/") for mark in "¼½¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}


def normalise_unicode(text: str) -> str:
    """Compatibility forms (full width, ligatures), dashes, minus signs and quotes to their plain characters."""
    text = re.sub(f"(?<=\\d)\\s?([{''.join(_VULGAR)}])", lambda mark: f" {_VULGAR[mark[1]]}", text)  # 1½ is not 11/2
    text = re.sub("[\u2010-\u2015\u2212\ufe58]", "-", unicodedata.normalize("NFKC", text))
    text = re.sub("[\u200b-\u200f\u2060\ufe0f\ufeff]", "", text)
    return text.translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x3001: ",", 0x3002: "."})


def after_thinking(text: str) -> str | None:
    """The reply proper, after the model's thoughts and without tokens of its format; None if the thoughts never end."""
    closes = [match.end() for match in _CLOSES.finditer(text)]
    tail = text[closes[-1] :] if closes else text
    if _OPENS.search(tail):
        return None
    return _TOKEN.sub(" ", _BOX_TOKENS.sub(r"\\boxed{\1}", tail))


def last_box(text: str) -> str | None:
    """The inside of the last non-empty \\boxed{...}, braces nested; None without one or if the last is cut off."""
    if box_is_cut(text):
        return None
    closings = _closings(text)
    for match in reversed(list(re.finditer(r"\\?\\(?:boxed|fbox)\s*(?=\{)", text))):
        end = closings.get(match.end())
        if end is not None and plain(text[match.end() + 1 : end]):
            return text[match.end() + 1 : end]
    return None


def box_is_cut(text: str) -> bool:
    """Whether the last box opens but never closes: the reply was cut off while it gave its answer."""
    opened = list(re.finditer(r"\\(?:boxed|fbox)\s*(\{|$)", text))
    return bool(opened) and (not opened[-1][1] or opened[-1].start(1) not in _closings(text))


def last_answer_tag(text: str) -> str | None:
    """The inside of the last <answer>, <final_answer> or <conclusion> tag."""
    tags = _ANSWER_TAG.findall(text)
    return tags[-1][1] if tags else None


def plain(text: str, *, keep_lines: bool = False) -> str:
    """`text` without LaTeX and Markdown dress: `$\\text{\\textbf{(B)}}$.` -> `(B).`; one line unless `keep_lines`."""
    text = re.sub(r"\\(?:d|t|c)?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" \1/\2", text)
    text = re.sub(r"(?<=\d)(?:\{,\}|\\,|\\ |~|\u202f|\u2009)(?=\d{3}(?!\d))", ",", text)  # groups of a number
    text = re.sub(
        r"\\(?:[lL]ong)?([Rr]ight|[Ll]eft|[Uu]p|[Dd]own)arrow(?![a-z])", lambda at: _ARROWS[at[1].lower()], text
    )
    text = re.sub(r"\\(?:to|implies)(?![A-Za-z])", "→", text)
    text = re.sub(r"\{,\}", ",", text)
    text = re.sub(r"\\(?:[,;:! ]|q?quad(?![A-Za-z]))|~(?!\d)|(?<=\w)~", " ", text)
    text = re.sub(_FONTS, "", text)
    text = re.sub(r"\\[()\[\]{}]|[{}`]|\*\*|__", "", _without_math_signs(text))
    text = re.sub(r"\\([%_#&])", r"\1", text)
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


def _closings(text: str) -> dict[int, int]:
    """Where each brace that opens in `text` closes."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for at in (match.start() for match in re.finditer("[{}]", text)):
        if text[at] == "{":
            opened.append(at)
        elif opened:
            found[opened.pop()] = at
    return found
