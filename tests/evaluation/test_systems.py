"""Each system's steps: what is asked, what is drawn, which edit counts, what a failure means."""

import dataclasses
import json
from math import log

from PIL import Image

from etchr.boxes import Box, draw_boxes
from etchr.families import TaskFamily
from etchr.mllm.protocol import GREEDY, CallFailed, Reply
from etchr.mllm.verdict import Verdict
from evaluation.settings import SystemConfig
from evaluation.systems import SYSTEMS
from evaluation.systems.base import sample_seed
from evaluation.systems.prompting import read_instruction
from tests.evaluation.dialogue import ACCEPT, REJECT, SOURCE, TRUTH, Painter, Scripted, make_sample, run, system

SEVEN, FIVE = "\\boxed{7}", "\\boxed{5}"


# ------------------------------------------------------------------------------------------- no edit, or one edit


def test_what_the_systems_without_a_choice_answer_from():
    model, painter = Scripted(SEVEN), Painter()
    trace = run(system("direct"), model, painter=painter)
    assert (trace.answer, trace.proposal, trace.verdict, painter.drawn) == ("7", None, None, [])
    assert model.pictures() == [[SOURCE]]

    model = Scripted(SEVEN)
    trace = run(system("always_edit"), model)
    assert (trace.used_edit, trace.verdict, len(model.asked)) == (True, None, 1)

    model = Scripted(REJECT, SEVEN)
    trace = run(system("oracle_edit"), model)
    assert (trace.used_edit, trace.verdict) == (True, Verdict.REJECTED)
    assert model.pictures() == [[SOURCE, TRUTH]] * 2


def test_evr_answers_from_the_edit_only_if_it_was_accepted():
    for verdict, used in [(ACCEPT, True), (REJECT, False), ("Hm.", False)]:
        model = Scripted(verdict, SEVEN)
        trace = run(system("evr"), model)
        assert (trace.used_edit, trace.answer) == (used, "7"), verdict
        edit = trace.proposal.image
        assert model.pictures() == [[SOURCE, edit], [SOURCE, edit] if used else [SOURCE]], verdict
        assert trace.proposal.prompt.endswith("How many?"), verdict
        assert set(trace.seconds) == {"edit", "verify", "reason"}, verdict
        assert dataclasses.asdict(trace.usage["scripted"]) == {
            "calls": 2,
            "prompt_tokens": 20,
            "completion_tokens": 4,
        }, verdict

    answerer, verifier = Scripted(SEVEN), Scripted(ACCEPT, name="other")
    trace = run(system("evr"), answerer, verifier=verifier)
    assert (trace.verifier, trace.reasoner) == ("other", "scripted")
    assert (len(answerer.asked), len(verifier.asked)) == (1, 1)
    assert set(trace.usage) == {"other", "scripted"}

    more = Image.new("RGB", (32, 32), "green")
    model = Scripted(ACCEPT, SEVEN)
    trace = run(system("evr"), model, make_sample(more_images=(more,)))
    edit = trace.proposal.image
    assert model.pictures() == [[SOURCE, more, edit]] * 2
    assert all("You see 3 images. The last image is an edited version of the first" in text for text in model.texts())


def test_the_first_picture_is_edited_and_the_others_are_its_references():
    """As many as klein takes; whoever writes the editor's prompt sees what the editor sees."""
    green, blue, _ = more = [Image.new("RGB", (32, 32), colour) for colour in ("green", "blue", "red")]
    for others, given in (((), []), ((green,), [(green,)]), (more, [tuple(more)]), ([*more, green], [tuple(more)])):
        painter = Painter()
        trace = run(system("always_edit"), Scripted(SEVEN), make_sample(more_images=tuple(others)), painter=painter)
        assert painter.references == given
        assert trace.proposal.image.size == SOURCE.size

    sample = make_sample(more_images=(green, blue))
    routed, written = Scripted("\\boxed{2}", SEVEN), Scripted("\\boxed{Box it.}", SEVEN)
    run(system("always_edit", route="model"), routed, sample)
    run(system("always_edit", prompt="enhanced"), written, sample)
    assert routed.pictures()[0] == written.pictures()[0] == [SOURCE, green, blue]
    assert "3 images. The first is the one to be edited" in written.texts()[0]

    rewritten, painter = Scripted("\\boxed{A}", REJECT, "\\boxed{B}", ACCEPT, SEVEN), Painter()
    trace = run(system("iterate", prompt="enhanced", attempts=2), rewritten, sample, painter=painter)
    assert rewritten.pictures()[2] == [SOURCE, green, blue, trace.attempts[0].proposal.image]
    assert "4 images. The last is what an image editor made of the first" in rewritten.texts()[2]
    assert painter.references == [(green, blue)] * 2

    unified, painter = Scripted(SEVEN), Painter()
    trace = run(SystemConfig("interleaved", "nano"), unified, sample, painter=painter)
    assert painter.references == [(green, blue)]
    assert unified.pictures() == [[SOURCE, green, blue, trace.turns[0].image]]
    assert "4 images. The last image is an edited version of the first" in unified.texts()[0]


def test_crop_shows_what_the_red_box_encloses_enlarged():
    box = Box(16, 24, 20, 12)

    class Boxer(Painter):
        def edit(self, images, prompts, seeds):
            return [draw_boxes(image, [box]) for image in images]

    model = Scripted(ACCEPT, SEVEN)
    trace = run(system("crop"), model, painter=Boxer())
    source, edit, zoomed = model.pictures()[1]
    assert (source, edit) == (SOURCE, trace.proposal.image)
    assert max(zoomed.size) == 384
    assert "the third enlarges what it marks" in model.texts()[1]
    assert trace.turns[0].image == zoomed
    plain = Scripted(ACCEPT, SEVEN)
    run(system("crop"), plain)  # the edit has no red box
    assert len(plain.pictures()[1]) == 2
    rejected = Scripted(REJECT, SEVEN)
    run(system("crop"), rejected, painter=Boxer())
    assert rejected.pictures()[1] == [SOURCE]


# --------------------------------------------------------------------------------------------------------- prompts


def test_the_enhancer_draws_what_the_model_says_within_limits():
    model, painter = Scripted("I would say: \\boxed{Red box round bar 3.}", ACCEPT, SEVEN), Painter()
    trace = run(system("enhancer"), model, painter=painter)
    assert [prompt for prompt, _ in painter.drawn] == ["Red box round bar 3."]
    assert (trace.proposal.prompt, trace.used_edit) == ("Red box round bar 3.", True)
    assert "How many?" in model.texts()[0]
    assert model.pictures()[0] == [SOURCE]
    assert [(turn.role, turn.text) for turn in trace.turns] == [
        ("instruction", "I would say: \\boxed{Red box round bar 3.}")
    ]

    painter = Painter()
    run(system("enhancer"), Scripted("Well.\n\nIt depends.", ACCEPT, SEVEN), painter=painter)
    assert [prompt for prompt, _ in painter.drawn] == ["How many?"]

    trace = run(system("enhancer"), Scripted(f"\\boxed{{{'x' * 5000}}}", ACCEPT, SEVEN))
    assert len(trace.proposal.prompt) == 600

    for text, instruction in [
        ("\\boxed{Draw \\textbf{one} box.}", "Draw one box."),
        ("First \\boxed{a}, better \\boxed{b}", "b"),
        ("Draw a box round the dog.", "Draw a box round the dog."),
        ("\\boxed{}", None),
        ("\\boxed{Draw", None),
        ("Two\nlines", None),
        ("", None),
    ]:
        assert read_instruction(text) == instruction, text


def test_the_routed_family_decides_what_is_drawn_if_anything():
    painter = Painter()
    sample = make_sample(question="Which moves lead through the maze?", family=TaskFamily.PERCEPTION)
    trace = run(system("evr", route="model"), Scripted("\\boxed{3}", ACCEPT, SEVEN), sample, painter=painter)
    assert trace.routed.family is TaskFamily.LOGIC
    assert painter.drawn[0][0].startswith("Draw the shortest path.")
    assert "route" in trace.seconds

    logprobs = ({"\\boxed{": 0.0}, {"3": -1.6, "1": -1.7, "2": -1.8}, {"}": 0.0})
    reply, painter = Reply("\\boxed{3}", logprobs=logprobs), Painter()
    trace = run(system("evr", route="model", min_confidence=0.6), Scripted(reply, SEVEN), painter=painter)
    assert (trace.proposal, trace.verdict, trace.answer, painter.drawn) == (None, None, "7", [])
    assert trace.routed.confidence < 0.6
    none = run(system("evr", route="model"), Scripted("\\boxed{0}", SEVEN))  # the model says that no edit would help
    assert (none.proposal, none.routed.family, none.answer) == (None, None, "7")


# --------------------------------------------------------------------------------------------------- several edits


class Picky(Scripted):
    """Verdicts by the attempt whose picture it is shown, in whatever order they are asked for; then 7."""

    def __init__(self, *verdicts):
        super().__init__()
        self.verdicts = {sample_seed(126, "s", 0, number) % 251: verdict for number, verdict in enumerate(verdicts)}

    async def chat(self, messages, sampling=GREEDY):
        text, pictures = messages[0]["content"][-1]["text"], messages[0]["content"][1:-1]
        asked_to_verify = "relied on" in text
        self.replies.append(self.verdicts[pictures[0]["image"].getpixel((0, 0))[0]] if asked_to_verify else SEVEN)
        return await super().chat(messages, sampling)


def verdict(p, says=1):
    """A verdict with its probability."""
    return Reply(f"\\boxed{{{says}}}", logprobs=({"\\boxed{": 0.0}, {"1": log(p), "0": log(1 - p)}, {"}": 0.0}))


def test_best_of_n_takes_the_first_accepted_one_or_the_most_probable():
    model, painter = Picky(REJECT, ACCEPT, ACCEPT), Painter()
    trace = run(system("best_of_n", attempts=3), model, painter=painter)
    assert len({seed for _, seed in painter.drawn}) == 3
    assert [attempt.verdict for attempt in trace.attempts] == ["rejected", "accepted", "accepted"]
    assert trace.proposal == trace.attempts[1].proposal
    assert model.pictures()[3] == [SOURCE, trace.attempts[1].proposal.image]
    assert trace.usage["scripted"].calls == 4

    trace = run(system("best_of_n", attempts=3), Picky(verdict(0.6), verdict(0.9), verdict(0.7)))
    assert [round(attempt.score, 6) for attempt in trace.attempts] == [0.6, 0.9, 0.7]
    assert trace.proposal == trace.attempts[1].proposal

    # A rejected edit can be better than the next rejected one: the verifier's probability says so.
    verdicts = [verdict(p, says=0) for p in (0.2, 0.4, 0.1)]
    trace = run(system("iterate", attempts=3), Scripted(*verdicts, SEVEN))
    assert trace.proposal == trace.attempts[1].proposal
    assert not trace.used_edit


def test_without_an_accepted_edit_the_source_answers():
    for kind in ("best_of_n", "iterate"):
        trace = run(system(kind, attempts=2), model := Scripted(REJECT, "Hm.", SEVEN))
        assert (trace.used_edit, trace.answer, len(trace.attempts)) == (False, "7", 2)
        assert model.pictures()[-1] == [SOURCE]


def test_iterate_rewrites_an_instruction_from_the_verdict():
    model = Scripted("\\boxed{Box bar 1.}", REJECT, "\\boxed{Box bar 2.}", REJECT, "no idea\n\nat all", ACCEPT, SEVEN)
    painter = Painter()
    trace = run(system("iterate", attempts=4, prompt="enhanced"), model, painter=painter)
    assert [prompt for prompt, _ in painter.drawn] == ["Box bar 1.", "Box bar 2.", "Box bar 2."]
    assert "Box bar 1." in model.texts()[2]
    assert "The box is misplaced." in model.texts()[2]
    assert model.pictures()[2] == [SOURCE, trace.attempts[0].proposal.image]
    assert trace.used_edit

    model, painter = Scripted(REJECT, ACCEPT, SEVEN), Painter()
    trace = run(system("iterate", attempts=5), model, painter=painter)
    assert len(painter.drawn) == len(trace.attempts) == 2
    first, second = painter.drawn
    assert first[0] == second[0]  # a question-conditioned editor gets its question again
    assert first[1] != second[1]  # and other noise
    assert trace.proposal == trace.attempts[1].proposal


# ------------------------------------------------------------------------------------------------------- dialogues


def tool(name, **arguments):
    return f"Let me see.\n<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def test_a_tools_picture_comes_with_the_next_turn():
    model = Scripted(tool("crop", box=[0, 0, 500, 500]), tool("draw_box", box=[100, 100, 400, 300]), SEVEN)
    trace = run(system("tool_loop", turns=5), model)
    assert trace.answer == "7"
    assert [len(pictures) for pictures in model.pictures()] == [1, 2, 3]
    assert "Image 2, the result of crop:" in model.texts()[1]
    assert "Image 3, the result of draw_box:" in model.texts()[2]
    assert [turn.role for turn in trace.turns] == ["assistant", "tool", "assistant", "tool", "assistant"]
    assert [message["role"] for message in model.asked[2]] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]


def test_a_tool_call_that_cannot_be_is_told_to_the_model():
    model = Scripted(tool("rm", path="/"), tool("crop", box=[5, 5, 5, 5]), "<tool_call>{", SEVEN)
    trace = run(system("tool_loop", turns=6), model)
    assert trace.answer == "7"
    last = model.texts()[-1]
    assert "there is no tool 'rm'; there are: crop, draw_box, draw_line" in last
    assert "the box [5, 5, 5, 5] is empty" in last
    assert "in JSON" in last
    assert all(len(pictures) == 1 for pictures in model.pictures())


def test_dialogues_come_to_an_end():
    model = Scripted(*[tool("crop", box=[0, 0, 500, 500])] * 3)
    trace = run(system("tool_loop", turns=3), model)
    assert len(model.asked) == 3
    assert "There are no tool calls left." in model.texts()[2]
    assert "There are no tool calls left." not in model.texts()[1]
    assert (trace.answer, trace.unscored) == (None, None)

    box = {"name": "crop", "arguments": {"box": [0, 0, 500, 500]}}
    three = "".join(f"<tool_call>{json.dumps(box)}</tool_call>" for _ in range(3))
    model = Scripted(three, three, three, three, SEVEN)
    trace = run(system("tool_loop", turns=9), model)
    assert [len(pictures) for pictures in model.pictures()] == [1, 4, 7, 9]  # eight beside the source, not ten
    assert (len(model.asked), trace.answer) == (4, None)  # it went on calling after it was told to answer

    drawn = Image.new("RGB", (64, 64), "red")
    model = Scripted(*[Reply("Hm.", images=(drawn,))] * 3)
    trace = run(system("interleaved", turns=3), model)
    assert (len(model.asked), trace.answer, trace.unscored) == (3, None, None)


def test_pictures_and_text_alternate_until_there_is_an_answer():
    drawn = Image.new("RGB", (64, 64), "red")
    model = Scripted(Reply("I draw.", images=(drawn,)), Reply("Once more.", images=(drawn,)), SEVEN)
    trace = run(system("interleaved"), model)
    assert trace.answer == "7"
    assert [len(pictures) for pictures in model.pictures()] == [1, 2, 3]
    assert [message["role"] for message in model.asked[1]] == ["user", "assistant", "user"]
    assert [(turn.text, turn.image) for turn in trace.turns] == [
        ("I draw.", drawn),
        ("Once more.", drawn),
        (SEVEN, None),
    ]


# -------------------------------------------------------------------------------------------------------- failures


def test_what_failed_leaves_the_sample_unscored():
    for kind in sorted(SYSTEMS):
        trace = run(system(kind), Scripted(CallFailed("endpoint down")))
        assert (trace.unscored, trace.answer) == ("endpoint down", None), kind

    for kind in ["evr", "always_edit", "crop", "iterate", "best_of_n"]:
        prompt = "Red box round 7."
        trace = run(system(kind, prompt="instruction"), Scripted(), painter=Painter(fails={prompt}))
        assert trace.unscored == "the editor failed: RuntimeError: no memory", kind


# ----------------------------------------------------------------------------------------------------------- seeds


def test_noise_is_of_the_question_the_repeat_and_the_attempt(tmp_path):
    seeds = {sample_seed(126, key, r, a) for key in ("a", "b", "a/1") for r in range(3) for a in range(3)}
    assert len(seeds) == 27
    assert sample_seed(126, "a") == sample_seed(126, "a", 0, 0)
    assert sample_seed(126, "a") != sample_seed(127, "a")

    # The four turns of an HR-Bench question differ in the order of their options alone.
    painter = Painter()
    for turn in range(4):
        sample = make_sample(id=f"q-{turn}", meta={"answer_type": "number", "noise": "q"})
        run(system("evr"), Scripted(ACCEPT, SEVEN), sample, painter=painter, folder=tmp_path)
    assert len(painter.drawn) == 1

    painters = [Painter(), Painter()]
    for repeat, painter in enumerate(painters):
        run(system("evr"), Scripted(ACCEPT, SEVEN), painter=painter, repeat=repeat)
    assert painters[0].drawn[0][1] != painters[1].drawn[0][1]
