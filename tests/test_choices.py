"""Options and the letter that an answer names."""

from etchr.choices import chosen_letter


def test_an_answer_names_one_option_or_none() -> None:
    sides, letters = ("left", "right", "front"), ("B", "A", "C")
    cases = {
        sides: {"A": "A", "B.": "B", "B. right": "B", "Right": "B", "B. left": None, "D": None, "up": None},
        # B may be the option B, or the one that says B; with its text, or where both are one, it is clear
        letters: {"B": None, "A": None, "C": "C", "B. A": "B", "A. B": "A", "B. C": None},
    }
    for options, answers in cases.items():
        for answer, letter in answers.items():
            assert chosen_letter(answer, options) == letter, (answer, options)
