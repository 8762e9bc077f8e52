"""The grader: realistic replies, and properties that no reply may break."""

import random
import re

import pytest
from PIL import Image

from etchr.families import TaskFamily
from etchr.mllm.answers import extract_answer, ground_truth, is_correct, reaches_goal
from etchr.mllm.markup import last_box, plain
from etchr.sample import EditSample

LEFT_RIGHT = ("left", "right", "front", "back")
COMPOUND = ("front", "front-left", "left", "back")
LETTERED = ("B", "A", "C", "D")  # a sign that shows a letter
COLOURS = ("the red mug", "the blue mug")

# (reply, choices, letter)
OPTIONS = [
    (r"The box marks the mug. \boxed{B}", LEFT_RIGHT, "B"),
    (r"\boxed{\text{B}}", LEFT_RIGHT, "B"),
    (r"\boxed{\textbf{(B)}}", LEFT_RIGHT, "B"),
    (r"$\boxed{\text{A. left}}$", LEFT_RIGHT, "A"),
    (r"\boxed{ b }", LEFT_RIGHT, "B"),
    (r"\boxed{\mathrm{C}}.", LEFT_RIGHT, "C"),
    (r"\boxed{right}", LEFT_RIGHT, "B"),
    (r"\boxed{\text{The Right}}", LEFT_RIGHT, "B"),
    (r"\boxed{front-left}", COMPOUND, "B"),
    (r"\boxed{It is on the front-left.}", COMPOUND, "B"),
    (r"\boxed{A left}", LEFT_RIGHT, "A"),
    (r"\boxed{A} is tempting, but no: \boxed{D}", LEFT_RIGHT, "D"),
    ("I put the final answer in \\boxed{}.\nAnswer: C", LEFT_RIGHT, "C"),
    (r"\boxed{B}", LETTERED, "B"),
    (r"\boxed{A, B}", LEFT_RIGHT, None),
    (r"\boxed{A or B}", LEFT_RIGHT, None),
    (r"\boxed{E}", LEFT_RIGHT, None),
    (r"\boxed{\text{cannot be determined}}", LEFT_RIGHT, None),
    (r"\boxed{not left}", LEFT_RIGHT, None),
    (r"The dot is right. \boxed{B", LEFT_RIGHT, None),
    (r"First \boxed{A}, then again \boxed{", LEFT_RIGHT, None),
    ("Answer: C", LEFT_RIGHT, "C"),
    ("**Answer:** (B)", LEFT_RIGHT, "B"),
    ("The correct answer is **D**.", LEFT_RIGHT, "D"),
    ("Based on the image, the answer is D.", LEFT_RIGHT, "D"),
    ("The answer is B. My answer is based on the red box.", LEFT_RIGHT, "B"),
    ("The answer to the question is: right", LEFT_RIGHT, "B"),
    ("The answer is not A.", LEFT_RIGHT, None),
    ("The answer is none of these.", LEFT_RIGHT, None),
    ("Final answer: option (C) front", LEFT_RIGHT, "C"),
    ("<answer>B</answer>", LEFT_RIGHT, "B"),
    ("<think>A? Or B? The answer is A.</think>\nB", LEFT_RIGHT, "B"),
    ("<think>The answer is A, but let me check the", LEFT_RIGHT, None),
    ("It is a left turn: B", LEFT_RIGHT, "B"),
    ("A closer look shows that it is option C.", LEFT_RIGHT, "C"),
    ("Certainly, looking at the picture I choose (B)", LEFT_RIGHT, "B"),
    ("B", LEFT_RIGHT, "B"),
    ("Ｂ．", LEFT_RIGHT, "B"),
    ("(B)", LEFT_RIGHT, "B"),
    ("B. right", LEFT_RIGHT, "B"),
    ("B: the dot is on the right side.", LEFT_RIGHT, "B"),
    ("B\n\nThe red box encloses the mug, whose handle points right.", LEFT_RIGHT, "B"),
    ("The handle points away.\nTherefore, D.", LEFT_RIGHT, "D"),
    ("On the right.", LEFT_RIGHT, "B"),
    ("the blue mug", COLOURS, "B"),
    ("It could be left or right.", LEFT_RIGHT, None),
    ("It is not on the left.", LEFT_RIGHT, None),
    ("It is either (A) or (B).", LEFT_RIGHT, None),
    ("A or B", LEFT_RIGHT, None),
    ("I cannot tell whether it is A.", LEFT_RIGHT, None),
    ("I'm sorry, but I can’t help with that.", LEFT_RIGHT, None),
    ("Let me look at the picture. There is a", LEFT_RIGHT, None),
    ("", LEFT_RIGHT, None),
    ("   \n", LEFT_RIGHT, None),
    (r"\boxed{C}", None, "C"),
]

# (reply, answer_type, answer)
OTHERS = [
    (r"\boxed{7}", "number", "7"),
    (r"\boxed{1,234}", "number", "1234"),
    (r"\boxed{1{,}234.50}", "number", "1234.5"),
    (r"\boxed{6.7\%}", "number", "6.7"),
    (r"\boxed{\$5}", "number", "5"),
    (r"\boxed{$5 million}", "number", "5000000"),
    (r"\boxed{x = -3}", "number", "-3"),
    (r"\boxed{−3}", "number", "-3"),
    (r"\boxed{\frac{1}{2}}", "number", "0.5"),
    (r"\boxed{1.5 \times 10^{3}}", "number", "1500"),
    (r"\boxed{2 + 3 = 5}", "number", "5"),
    (r"\boxed{\text{seven}}", "number", "7"),
    (r"\boxed{8 units}", "number", "8"),
    (r"\boxed{007}", "number", "7"),
    (r"\boxed{5 \text{ or } 6}", "number", None),
    (r"\boxed{6,7}", "number", None),
    ("The answer is 7.", "number", "7"),
    ("Answer: 7, because the bar ends there.", "number", "7"),
    ("The blue bar is 4 tall. The red bar is 7 tall.", "number", "7"),
    ("9", "number", "9"),
    ("The chart has 4 bars and I", "number", None),
    ("I cannot read the 3 bars.", "number", None),
    (r"\boxed{nan}", "number", None),
    (r"\boxed{D,D,R,R}", "moves", "D,D,R,R"),
    (r"\boxed{DDRR}", "moves", "D,D,R,R"),
    (r"\boxed{\text{D, D, R, R}}", "moves", "D,D,R,R"),
    (r"\boxed{d d r r}", "moves", "D,D,R,R"),
    (r"\boxed{D \rightarrow D \rightarrow R}", "moves", "D,D,R"),
    (r"\boxed{D->D->R}", "moves", "D,D,R"),
    (r"\boxed{\downarrow\downarrow\rightarrow}", "moves", "D,D,R"),
    ("\\boxed{↓, ↓, →}", "moves", "D,D,R"),
    (r'\boxed{["D", "R"]}', "moves", "D,R"),
    (r"\boxed{Down, Down, Right}", "moves", "D,D,R"),
    ("Move right, then down.", "moves", "R,D"),
    ("The path follows the blue cells.\nMoves: D, D, R, R.", "moves", "D,D,R,R"),
    ("Following the blue cells I get D, D, R, R.", "moves", "D,D,R,R"),
    (r"\boxed{D,D,R", "moves", None),
    (r"\boxed{D,X,R}", "moves", None),
    ("I cannot find a path from S to G.", "moves", None),
    (r"\boxed{0-2-3-1}", "permutation", "0-2-3-1"),
    (r"\boxed{[0, 2, 3, 1]}", "permutation", "0-2-3-1"),
    (r"\boxed{0231}", "permutation", "0-2-3-1"),
    (r"\boxed{(0 2 3 1)}", "permutation", "0-2-3-1"),
    (r"\boxed{0\to 2\to 3\to 1}", "permutation", "0-2-3-1"),
    (r"\boxed{0–2–3–1}", "permutation", "0-2-3-1"),
    (r"\boxed{\text{UL: 0, UR: 2, LL: 3, LR: 1}}", "permutation", "0-2-3-1"),
    ("The order is 0-2-3-1.", "permutation", "0-2-3-1"),
    ("Comparing the borders, piece by piece, gives 0, 2, 3, 1", "permutation", "0-2-3-1"),
    ("I cannot tell the order of the pieces 0, 1, 2, 3.", "permutation", None),
    ("There are pieces 0-3.", "permutation", None),
    (r"\boxed{2024}", "permutation", None),
    (r"\boxed{\text{Paris.}}", "text", "Paris"),
    (r"\boxed{f(\{x\}) = \text{big}}", "text", "f(x) = big"),
    ("\\boxed{10⁻³}", "text", "10^-3"),
    ("\\boxed{x² m²}", "text", "x^2 m^2"),
    ("\\boxed{12 m²}", "number", "12"),
    ("The answer is Paris.", "text", "Paris"),
    ("\\boxed{# of lines}", "text", "# of lines"),
    ("# Answer\n\nThe answer is **Paris**.", "text", "Paris"),
    ("<answer>perhaps 5, or rather <answer>7</answer>", "number", "7"),
    ("<answer>6</answer> No: <ANSWER>7</ANSWER>", "number", "7"),
    ("Paris", "text", "Paris"),
    (r"\boxed{\text{I don't know}}", "text", None),
    ("I don't know.", "text", None),
]


@pytest.mark.parametrize(("reply", "choices", "letter"), OPTIONS)
def test_option_replies(reply, choices, letter):
    assert extract_answer(reply, "option", choices) == letter


@pytest.mark.parametrize(("reply", "kind", "answer"), OTHERS)
def test_other_replies(reply, kind, answer):
    assert extract_answer(reply, kind) == answer


def test_a_cut_off_reply_counts_only_with_a_box():
    assert extract_answer("It looks like the answer is B", "option", LEFT_RIGHT, truncated=True) is None
    assert extract_answer(r"\boxed{B} and to explain", "option", LEFT_RIGHT, truncated=True) == "B"


def test_unknown_answer_type_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'colour'.*option, number, moves, permutation, text"):
        extract_answer("red", "colour")


def make_sample(answer, choices=None, **meta):
    return EditSample("s", TaskFamily.LOGIC, "maze", Image.new("RGB", (4, 4)), "Q?", answer, choices, None, meta)


GRID = ["S.#", "#..", "..G"]


@pytest.mark.parametrize(
    ("moves", "right"),
    [
        ("R,D,D,R", True),  # as good as the stored answer
        ("R,D,R,D", True),
        ("R,D,R,L,R,D", True),  # a detour
        ("R,R,D,D", False),  # into a wall
        ("U,D,R,D,R,D", False),  # leaves the grid
        ("R,D,D", False),  # stops before the goal
        ("R,D,R,D,U", False),  # walks past the goal
    ],
)
def test_moves_are_executed(moves, right):
    sample = make_sample("R,D,R,D", answer_type="moves", grid=GRID)
    assert is_correct(extract_answer(rf"\boxed{{{moves}}}", "moves"), sample) is right


def test_random_walks_agree_with_an_independent_simulation():
    rng = random.Random(0)
    for _ in range(300):
        moves = rng.choices("UDLR", k=rng.randint(1, 8))
        x = y = 0
        alive = True
        for move in moves:
            x, y = x + (move == "R") - (move == "L"), y + (move == "D") - (move == "U")
            alive = alive and 0 <= x < 3 and 0 <= y < 3 and GRID[y][x] != "#"
        assert reaches_goal(moves, GRID) == (alive and (x, y) == (2, 2))


@pytest.mark.parametrize(
    ("reply", "sample", "right"),
    [
        (r"\boxed{6.70\%}", make_sample("6.7", answer_type="number"), True),
        (r"\boxed{1234}", make_sample("1,234", answer_type="number"), True),
        (r"\boxed{6.8}", make_sample("6.7", answer_type="number"), False),
        (r"\boxed{2 0 3 1}", make_sample("2-0-3-1", answer_type="permutation"), True),
        (r"\boxed{2-0-1-3}", make_sample("2-0-3-1", answer_type="permutation"), False),
        (r"\boxed{right}", make_sample("B", LEFT_RIGHT), True),
        (r"\boxed{B}", make_sample("B. right", LEFT_RIGHT), True),
        (r"\boxed{A}", make_sample("B", LEFT_RIGHT), False),
        (r"\boxed{the eiffel tower!}", make_sample("Eiffel Tower"), True),
        (r"\boxed{1,234}", make_sample("1234"), True),
        (r"\boxed{yes}", make_sample("Yes."), True),
        ("no idea", make_sample("B", LEFT_RIGHT), False),
    ],
)
def test_grading(reply, sample, right):
    kind = sample.meta.get("answer_type", "option" if sample.choices else "text")
    assert is_correct(extract_answer(reply, kind, sample.choices), sample) is right


@pytest.mark.parametrize(
    "sample",
    [
        make_sample("nan", answer_type="number"),
        make_sample("E", LEFT_RIGHT),
        make_sample("R,R", answer_type="moves", grid=GRID),
        make_sample("R", answer_type="moves", grid=["..", ".G"]),
        make_sample("x", answer_type="colour"),
    ],
)
def test_a_ground_truth_that_cannot_be_graded_is_an_error(sample):
    with pytest.raises(ValueError, match=r"sample 's'|one S and a G"):
        ground_truth(sample)


@pytest.mark.parametrize("grid", [5, None, "S.G", ["S.", 3], {"S.": "G"}, [["S", "G"]]])
def test_a_grid_that_is_none_is_named(grid):
    sample = make_sample("R", answer_type="moves", grid=grid)
    for grade in (ground_truth, lambda sample: is_correct("R", sample)):
        with pytest.raises(ValueError, match="grid .*" + re.escape(repr(grid))):
            grade(sample)


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("w [$]", "w [$]"),
        (r"w [\$]", "w [$]"),
        ("Price ($) and $x$", "Price ($) and x"),
        ("Cost in US$", "Cost in US$"),
        ("$5 to $6", "$5 to $6"),
        (r"$\text{(B)}$.", "(B)."),
        (r"M [$M_\odot$]", r"M [M_\odot]"),
        ("$$B$$", "B"),
        ("$B", "B"),  # cut off
    ],
)
def test_a_sign_of_money_is_no_latex(text, bare):
    assert plain(text) == bare


def test_an_axis_in_dollars_is_graded_as_it_is_written():
    assert extract_answer(r"The label is \boxed{w [$]}", "text") == ground_truth(make_sample("w [$]")) == "w [$]"


def test_every_answer_survives_being_boxed():
    """Canonical answers are fixed points: what the grader wrote down it reads again."""
    for kind, answer in [("number", "1234.5"), ("moves", "D,R,U"), ("permutation", "3-1-0-2"), ("text", "two cats")]:
        assert extract_answer(rf"so \boxed{{{answer}}}", kind) == answer


def test_boxes_nest_and_hostile_text_is_quick():
    assert last_box(r"\boxed{a{b{c}}d}") == "a{b{c}}d"
    for reply in (r"\boxed{" * 20_000, "answer is " * 20_000, "{" * 100_000, "1," * 100_000, "(A" * 50_000):
        for kind in ("option", "number", "moves", "permutation", "text"):
            extract_answer(reply, kind, LEFT_RIGHT)
