"""CharXiv in its authors' words, read as data from a copy of their repository that the user has.

`src/constants.py` of princeton-nlp/CharXiv holds the questions and rubrics. How a question begins, and what a computed
number must look like, stands in `descriptive_utils.py` and `reasoning_utils.py` beside it. The files are parsed and
their literals taken; nothing in them is ever imported or executed.
"""

import ast
import logging
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etchr.mllm.markup import after_thinking
from evaluation.benchmarks.charxiv_words import KINDS, TEMPLATES, WHOLE_FIGURE, Grading, OwnWords, Place, filled

MAX_SOURCE_BYTES = 2**20
RUBRIC_NAMES = {  # our name of a group of templates -> theirs
    "title": "title",
    "ocr": "ocr",
    "quantity": "quant",
    "boolean": "bool",
    "enumeration": "enum",
    "trend": "trend",
    "layout": "layout",
}
WANTED = {  # names in constants.py -> the keys that are used of a dict; none: a text
    "DESCRIPTIVE_RESP_INST": tuple(TEMPLATES),
    "DESCRIPTIVE_GRADING_PREFIX": (),
    "DESCRIPTIVE_GRADING_QMAP": tuple(TEMPLATES),
    "DESCRIPTIVE_GRADING_ICL": tuple(RUBRIC_NAMES.values()),
    "REASONING_RESP_INST": tuple(KINDS),
    "REASONING_GRADING_PREFIX": (),
    "REASONING_GRADING_INST": tuple(KINDS),
}
_SCORE = re.compile(r'"score(?:_T1)?"\s*:\s*"?(-?[\d.]+|true|false|null)"?\s*[,}\n]', re.IGNORECASE)

Pieces = dict[int, list[str]]  # texts with gaps, by the number of gaps: what stands round these


def read_score(reply: str) -> bool | None:
    """The verdict in a judge's JSON, `"score": 0` or `1` (`score_T1` for descriptive questions); None without one.

    Read from the text rather than as JSON: an answer quoted in it, such as \\alpha, often makes it invalid. Several
    scores must agree. What the judge thought on the way does not count.
    """
    scores = set(_SCORE.findall(after_thinking(reply) or ""))
    return scores == {"1"} if scores in ({"0"}, {"1"}) else None


@dataclass(frozen=True)
class AuthorsWords:
    """`Words` as the authors put them; a verdict is JSON with a score, one answer a call."""

    constants: dict[str, Any]
    places: Pieces = field(default_factory=dict)  # how a question begins; empty: in our words
    precision: Pieces = field(default_factory=dict)  # what a computed number looks like; empty: in our words
    name = "authors"

    @classmethod
    def read(cls, path: Path) -> "AuthorsWords":
        """The words in `path`, a copy of the authors' constants.py; `ValueError` if it is none."""
        tree = _parsed(path)
        constants = {
            node.targets[0].id: _literal(node.value, path)
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in WANTED
        }
        for name, keys in WANTED.items():
            _check(name, constants.get(name), keys, path)
        words = cls(
            constants,
            _pieces(path.with_name("descriptive_utils.py"), "descriptive_query_helper", "prefix", {0, 1, 2}),
            _pieces(path.with_name("reasoning_utils.py"), "get_number_instruction", "inst", {0, 1}),
        )
        words.descriptive(1, None)  # templates that do not fit are found before anything is asked
        for template in TEMPLATES:
            words.descriptive(template, (1, 1))
        for kind in KINDS:
            words.reasoning(kind, "", "1")
        return words

    def descriptive(self, template: int, place: Place) -> str:
        text: str = self.constants["DESCRIPTIVE_RESP_INST"][template]
        return (text if template in WHOLE_FIGURE else filled(text, [self._begin(place)])).strip()

    def _begin(self, place: Place) -> str:
        values = [] if place is None else [place] if isinstance(place, str) else [str(part) for part in place]
        if len(values) not in self.places:
            begin = OwnWords().locate(place)
            return begin[0].upper() + begin[1:]
        return _joined(self.places[len(values)], values)

    def reasoning(self, kind: int, query: str, answer: str) -> str:
        return filled(self.constants["REASONING_RESP_INST"][kind], [query, *self._precision(kind, answer)]).strip()

    def _precision(self, kind: int, answer: str) -> list[str]:
        if KINDS[kind] != "number_in_general":
            return []
        if not self.precision:
            return [f"* {OwnWords().precision(answer)}"]
        _, point, decimals = answer.partition(".")
        values = [str(len(decimals.partition(".")[0]))] if point else []
        return [_joined(self.precision[len(values)], values)]

    def grade_descriptive(self, template: int, question: str, answer: str) -> Grading:
        """A prompt for one answer; the authors put up to five to one template into a call."""
        prefix = _marked(
            self.constants["DESCRIPTIVE_GRADING_PREFIX"],
            {
                "NUM_TRIPLETS": "1",
                "OVERARCHING_QUESTION": self.constants["DESCRIPTIVE_GRADING_QMAP"][template],
                "JSON_KEYS": str(["extract_answer_T1", "score_T1"]),
            },
        )
        rubric = self.constants["DESCRIPTIVE_GRADING_ICL"][RUBRIC_NAMES[TEMPLATES[template].group]]
        return f"{prefix}{rubric}T1:\nResponse 1: ", f"\nGround Truth 1: {answer}\n\n"

    def grade_reasoning(self, kind: int, query: str, answer: str) -> Grading:
        rules: str = self.constants["REASONING_GRADING_INST"][kind]
        head, _, tail = rules.partition("<|response|>")
        values = {"question": query, "ground_truth": answer}
        return self.constants["REASONING_GRADING_PREFIX"] + _marked(head, values), _marked(tail, values)


def _marked(text: str, values: dict[str, str]) -> str:
    """`text` with its marks <|name|> replaced in one pass: a mark inside a value stays what it is."""
    return re.sub(r"<\|(\w+)\|>", lambda mark: values.get(mark[1], mark[0]), text)


def _joined(pieces: list[str], values: list[str]) -> str:
    return pieces[0] + "".join(value + piece for value, piece in zip(values, pieces[1:], strict=True))


def _parsed(path: Path) -> ast.Module:
    if not path.is_file():
        raise ValueError(f"no file {path}; charxiv_constants=FILE names a copy of CharXiv's src/constants.py")
    if path.stat().st_size > MAX_SOURCE_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_SOURCE_BYTES:,} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # their texts hold escapes such as \l, which Python warns of
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path} is not Python source: {error}") from None


def _literal(node: ast.expr, path: Path) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"{path}, line {node.lineno}: this is no literal, and nothing there is executed") from None


def _check(name: str, value: Any, keys: tuple[Any, ...], path: Path) -> None:
    """`ValueError` unless a constant is a text, or a dict with a text for each of `keys`."""
    if value is None:
        raise ValueError(f"{path} assigns no {name}; charxiv_constants=FILE names a copy of CharXiv's src/constants.py")
    texts = [value.get(key) for key in keys] if keys and isinstance(value, dict) else [None if keys else value]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"{path}: {name} is not what CharXiv's is, {'texts by ' + str(keys) if keys else 'a text'}")


def _pieces(path: Path, function: str, variable: str, gaps: set[int]) -> Pieces:
    """The texts that a function assigns to a variable, by their number of gaps; empty, with a warning, without them."""
    found: Pieces = {}
    if path.is_file():
        tree = _parsed(path)
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
        for node in (node for each in functions for node in ast.walk(each) if isinstance(node, ast.Assign)):
            target = node.targets[0]
            if isinstance(target, ast.Name) and target.id == variable:
                text = _pieces_of(node.value)
                found |= {len(text) - 1: text} if text else {}
    if gaps <= found.keys():
        return found
    logging.getLogger(__name__).warning(
        "%s, which holds a few of the authors' words, is not there or is another one: those few are ours.", path
    )
    return {}


def _pieces_of(node: ast.expr) -> list[str]:
    """What stands round the gaps of a string literal; empty for another expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if not isinstance(node, ast.JoinedStr):
        return []
    pieces = [""]
    for part in node.values:
        if isinstance(part, ast.Constant):
            pieces[-1] += str(part.value)
        else:
            pieces.append("")
    return pieces
