"""The corpus of replies, and that nothing said round an answer turns it into another one."""

import itertools
import random
from pathlib import Path
from typing import Any

import yaml

from etchr.mllm.answers import extract_answer
from etchr.mllm.markup import after_thinking, last_box, plain
from etchr.mllm.verdict import parse_verdict

CORPUS: dict[str, list[list[Any]]] = yaml.safe_load(Path(__file__).with_name("replies.yaml").read_text("utf-8"))
CHOICES = ("left", "right", "front", "back")


def read(kind: str, reply: str) -> str | None:
    if kind == "verdict":
        return str(parse_verdict(reply))
    return extract_answer(reply, kind, CHOICES if kind == "option" else None)


def test_every_reply_of_the_corpus_is_read_as_it_is_meant() -> None:
    assert sum(map(len, CORPUS.values())) >= 300
    wrong = [
        f"{kind}: {reply!r} is read as {found!r}, not {expected!r}"
        for kind, entries in CORPUS.items()
        for reply, expected in entries
        if (found := read(kind, reply)) != expected
    ]
    assert not wrong, "\n".join(wrong)


ANSWERS = {
    "option": ["A", "B", "C", "D"],
    "number": ["7", "42", "-3", "0.5", "1200"],
    "moves": ["L,U,U", "R,D", "D,D,R"],
    "permutation": ["2-0-3-1", "1-0-2-3", "3-2-1-0"],
}
FORMS = [
    *("\\boxed{{{}}}", "$\\boxed{{\\text{{{}}}}}$", "<answer>{}</answer>", "The answer is {}.", "Answer: {}"),
    *("**Answer:** {}", "{}", "<|begin_of_box|>{}<|end_of_box|>", '{{"answer": "{}"}}'),
]
NOISE = [  # says nothing, but opens, closes and marks whatever a reply may
    *(
        "\n",
        " ",
        "\t",
        "\r\n",
        "**",
        "$",
        "$$",
        "\\",
        "{",
        "}",
        "<",
        ">",
        "(",
        ")",
        "[",
        "]",
        "`",
        "```",
        "#",
        "|",
        "*",
        "_",
    ),
    *("~", "\\quad", "\\,", "\\;", "\\text", "\\text{", "\\left", "<|im_end|>", "</s>", "<answer>", "</answer>", "\\("),
    *(
        "\\)",
        "\\[",
        "\\]",
        "\\boxed{",
        "\\boxed{}",
        "<think>",
        "</think>",
        "answer",
        "Answer:",
        "the",
        "so",
        '{"answer":',
    ),
    *('"', "'", "\u201c", "\u2014", "\u2026", "\u2022", "\u2713", "\u200b", "\ufeff", "\u202e"),
]


def test_nothing_round_a_wrong_answer_makes_it_the_right_one() -> None:
    """Whatever is dressed and thought, a reply that says one answer is never read as another."""
    thoughts = ["<think>{}</think>", "<Thinking>The answer is {}.</Thinking>", "[THINK]\\boxed{{{}}}[/THINK]",
                "◁think▷Answer: {}◁/think▷", "<|channel|>analysis<|message|>{}<|channel|>final<|message|>"]  # fmt: skip
    tails = ["", "\n", "<|im_end|>", "</s>", " "]
    dice = random.Random(0)
    for kind, known in ANSWERS.items():
        for thought, form, tail in itertools.product(thoughts, FORMS, tails):
            said, other = dice.sample(known, 2)
            reply = thought.format(other) + "\n" + form.format(said) + tail
            assert read(kind, reply) in (said, None), reply
            cut = reply[: dice.randrange(len(reply))]
            assert read(kind, f"<think>{cut}") is None or "</think>" in cut or "final" in cut or "/" in cut, cut


def test_noise_round_an_answer_makes_no_other_of_it() -> None:
    """The answer, or none: 4,000 replies with up to six pieces of noise on either side."""
    dice = random.Random(1)
    for _ in range(4000):
        kind = dice.choice(sorted(ANSWERS))
        said, form = dice.choice(ANSWERS[kind]), dice.choice(FORMS)
        before, after = ("".join(dice.choices(NOISE, k=dice.randrange(7))) for _ in range(2))
        reply = f"{before}\n{form.format(said)}\n{after}"
        assert read(kind, reply) in (said, None), (kind, reply)


def test_hostile_replies_are_read_in_one_pass() -> None:
    """Each took time that grew with the square of its length, or would if it were read so."""
    for piece in (
        "\\boxed{",
        "<think>",
        "$",
        "{",
        "}",
        "\\frac{",
        "<answer>",
        "answer is ",
        "A or ",
        "1,",
        "7 ",
        "- ",
        "=",
        "\\",
    ):
        reply = piece * (20_000 // len(piece)) + "\\boxed{}"
        for kind in CORPUS:
            read(kind, reply)
        after_thinking(reply), last_box(reply), plain(reply)
