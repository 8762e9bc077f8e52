"""Every prompt that goes to an understanding model, as a named constant.

The answering prompt is the same with and without an edit but for one sentence about the second image, so that a
difference between two systems is a difference between images, not between wordings.
"""

from collections.abc import Sequence

ANSWER = """{edit_note}Question: {question}{options}
{answer_format} Put the final answer in \\boxed{{}}."""

EDIT_NOTE = (
    "You see two images. The second image is an edited version of the first, made to help with the question. "
    "Use both.\n"
)

VERIFY = """You see two images. The second image is an edited version of the first, made to help with the question.
Question: {question}{options}
Is the edit correct, and does it show what is needed to answer? Do not answer the question itself.
Reply \\boxed{{1}} if the edit can be relied on and \\boxed{{0}} if it cannot."""

# How an answer of each `answer_type` is to be written (see `answers.py`).
ANSWER_FORMAT = {
    "option": "Answer with the letter of the correct option.",
    "number": "Answer with a number.",
    "moves": "Answer with the moves U, D, L, R from start to goal, separated by commas.",
    "permutation": "Answer with the piece numbers for upper left, upper right, lower left, lower right, "
    "joined by hyphens.",
    "text": "Answer as briefly as possible.",
}


def options_block(choices: Sequence[str] | None) -> str:
    """The options as lines `A. ...`, preceded by a line break; empty without choices."""
    return "".join(f"\n{chr(ord('A') + i)}. {choice}" for i, choice in enumerate(choices or ()))


def answer_prompt(question: str, choices: Sequence[str] | None, answer_type: str, *, with_edit: bool) -> str:
    """The answering prompt, for the source image alone or for source and edit."""
    return ANSWER.format(
        edit_note=EDIT_NOTE if with_edit else "",
        question=question,
        options=options_block(choices),
        answer_format=ANSWER_FORMAT[answer_type],
    )


def verify_prompt(question: str, choices: Sequence[str] | None) -> str:
    """The verification prompt for (source, edit)."""
    return VERIFY.format(question=question, options=options_block(choices))
