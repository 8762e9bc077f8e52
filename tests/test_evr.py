"""Edit-Verify-Reason: verdicts, fall-back, what is kept, and what a failure means."""

import asyncio

import pytest
from PIL import Image

from etchr.editor.batching import EditBatcher, EditFailed
from etchr.evr import Proposal, Sampling, Trace, Usage, Verdict, edit_verify_reason, parse_verdict
from etchr.families import TaskFamily
from etchr.mllm.prompts import EDIT_NOTE
from etchr.mllm.protocol import GREEDY, CallFailed, Reply
from etchr.sample import EditSample

SOURCE, EDIT = Image.new("RGB", (64, 64), "white"), Image.new("RGB", (64, 64), "red")
SAMPLE = EditSample("s", TaskFamily.CHART, "chart", SOURCE, "How many?", "7", meta={"answer_type": "number"})


class Scripted:
    """A model that replies from a list and remembers what it was shown."""

    name = "scripted"

    def __init__(self, *replies):
        self.replies, self.seen = list(replies), []

    async def chat(self, messages, sampling=GREEDY):
        parts = messages[0]["content"]
        self.seen.append(
            (next(p["text"] for p in parts if p["type"] == "text"), [p["image"] for p in parts if p["type"] == "image"])
        )
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return [Reply(reply, prompt_tokens=10, completion_tokens=2)]


async def propose(sample):
    return Proposal(EDIT, "fake", "do it", 3, 0.5)


def run(model, propose=propose, verify=True, **options):
    return asyncio.run(edit_verify_reason(SAMPLE, propose, model if verify else None, model, Sampling(), **options))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("\\boxed{1}", "accepted"),
        ("\\boxed{0}", "rejected"),
        (" \\boxed{ 1 } ", "accepted"),
        ("\\boxed{1.}", "accepted"),
        ("\\boxed{\\text{1}}", "accepted"),
        ("\\boxed{\\text{ no }}", "rejected"),
        ("\\boxed {0}", "rejected"),
        ("The box is \\boxed{0}? On reflection: \\boxed{1}", "accepted"),
        ("Reply \\boxed{1} if good. It is not: \\boxed{0}", "rejected"),
        ("\\boxed{Yes}", "accepted"),
        ("\\boxed{incorrect}", "rejected"),
        ("\\boxed{correct}", "accepted"),
        ("1", "accepted"),
        ("1.", "accepted"),
        (" 0 \n", "rejected"),
        ("**0**", "rejected"),
        ("Yes.", "accepted"),
        ("No", "rejected"),
        ("Verdict: 1", "accepted"),
        ("verdict is 0", "rejected"),
        ("The final answer is: **1**", "accepted"),
        ("Answer: no", "rejected"),
        ("The chart shows that the answer is 1, but the box is misplaced.", "unparsable"),
        ("The answer is 0.8", "unparsable"),
        ("The answer is no longer hidden; the edit is right.", "unparsable"),
        ("It is well drawn.\nVerdict: 1", "accepted"),
        ("", "unparsable"),
        ("I cannot tell.", "unparsable"),
        ("The edit is incorrect", "unparsable"),  # prose is not a verdict: "incorrect" contains "correct"
        ("\\boxed{maybe}", "unparsable"),
        ("\\boxed{", "unparsable"),
        ("\\boxed{1}, no, on a second look it is \\boxed{0", "unparsable"),  # cut off in its last word
        ("\\boxed{\\textbf{１}}", "accepted"),
        ("\\boxed{10}", "unparsable"),
        ("<think>If it were right, I would say \\boxed{1}. But let me", "unparsable"),  # cut off in its thoughts
        ("<think>Is it \\boxed{1}?</think>\n\n0", "rejected"),
        ("Is it \\boxed{0}?</think>\n\n\\boxed{1}", "accepted"),
        pytest.param("\n" * 200_000, "unparsable", id="line ends"),  # and soon
        ("-1", "unparsable"),
        ("Verdict: -1", "unparsable"),
        ("There is 1 box", "unparsable"),
        ("Yes, there are 2 boxes but none is right", "unparsable"),
    ],
)
def test_verdict_table(text, verdict):
    assert parse_verdict(text) == verdict


def test_an_accepted_edit_is_used_and_everything_is_kept():
    model = Scripted("fine \\boxed{1}", "\\boxed{7}")
    trace = run(model)
    assert (trace.verdict, trace.used_edit, trace.answer, trace.unscored) == (Verdict.ACCEPTED, True, "7", None)
    assert trace.proposal == Proposal(EDIT, "fake", "do it", 3, 0.5)
    assert (trace.verdict_text, trace.answer_text) == ("fine \\boxed{1}", "\\boxed{7}")
    assert set(trace.seconds) == {"edit", "verify", "reason"}
    assert trace.usage == {"scripted": Usage(calls=2, prompt_tokens=20, completion_tokens=4)}
    assert [images for _, images in model.seen] == [[SOURCE, EDIT], [SOURCE, EDIT]]


@pytest.mark.parametrize("verdict", ["\\boxed{0}", "who knows"])
def test_a_rejected_or_unreadable_verdict_falls_back_to_the_source(verdict):
    model = Scripted(verdict, "\\boxed{5}")
    trace = run(model)
    assert not trace.used_edit
    assert trace.answer == "5"
    assert model.seen[1][1] == [SOURCE]


def test_both_branches_are_worded_alike_but_for_the_second_image():
    accepted, rejected = Scripted("\\boxed{1}", "7"), Scripted("\\boxed{0}", "7")
    run(accepted)
    run(rejected)
    direct = Scripted("7")
    run(direct, propose=None)
    assert accepted.seen[1][0] == EDIT_NOTE + rejected.seen[1][0]
    assert rejected.seen[1][0] == direct.seen[0][0]


def test_without_a_verifier_the_edit_is_always_used():
    trace = run(Scripted("7"), verify=False)
    assert (trace.verdict, trace.used_edit) == (None, True)


def test_a_failed_call_is_unscored_and_keeps_what_came_before():
    trace = run(Scripted("\\boxed{1}", CallFailed("endpoint down")))
    assert (trace.unscored, trace.verdict, trace.answer) == ("endpoint down", Verdict.ACCEPTED, None)
    assert trace.proposal is not None


def test_a_failed_edit_is_unscored():
    async def broken(sample):
        raise EditFailed("no memory")

    trace = run(Scripted(), propose=broken)
    assert trace == Trace("s", reasoner="scripted", unscored="no memory")


def test_a_reply_without_an_answer_is_no_failure():
    trace = run(Scripted("\\boxed{1}", "I cannot say."))
    assert (trace.unscored, trace.answer) == (None, None)


# ------------------------------------------------------------------------------------------------------- batching


class Recording:
    """An editor that notes its batches and refuses one prompt."""

    name = "recording"

    def __init__(self):
        self.batches = []

    def fitted_size(self, image):
        return image.size

    def edit(self, images, prompts, seeds):
        self.batches.append(list(prompts))
        if "bad" in prompts:
            raise RuntimeError("cannot draw that")
        return [Image.new("RGB", image.size, (seed, 0, 0)) for image, seed in zip(images, seeds, strict=True)]


def test_requests_share_batches_and_get_their_own_edit():
    editor = Recording()

    async def go():
        async with EditBatcher(editor, batch_size=4) as batcher:
            return await asyncio.gather(*(batcher.edit(SOURCE, f"p{i}", i) for i in range(10)))

    edits = asyncio.run(go())
    assert [edit.image.getpixel((0, 0))[0] for edit in edits] == list(range(10))
    assert max(map(len, editor.batches)) == 4
    assert sorted(prompt for batch in editor.batches for prompt in batch) == sorted(f"p{i}" for i in range(10))


def test_one_bad_sample_does_not_take_its_neighbours_down():
    async def go():
        async with EditBatcher(Recording(), batch_size=4) as batcher:
            jobs = [batcher.edit(SOURCE, prompt, 1) for prompt in ("a", "bad", "c")]
            return await asyncio.gather(*jobs, return_exceptions=True)

    first, bad, last = asyncio.run(go())
    assert isinstance(bad, EditFailed)
    assert "cannot draw that" in str(bad)
    assert first.image.size == last.image.size == (64, 64)


def test_a_batcher_needs_room():
    with pytest.raises(ValueError, match="batch_size=0"):
        EditBatcher(Recording(), batch_size=0)
