"""The reader: weak on raw pictures, able on good edits, hard to fool, and deterministic."""

import asyncio
import itertools
import math

import pytest
from PIL import Image, ImageFilter

from data_prep import procedural_tasks
from data_prep.task import generate
from etchr.families import TASKS
from etchr.mllm.answers import extract_answer, is_correct
from etchr.mllm.prompts import answer_prompt, grade_prompt, judge_prompt, verify_prompt
from etchr.mllm.protocol import Sampling, user_message
from etchr.nano.reader import Reader

COUNT = 25


@pytest.fixture(scope="module")
def made():
    return {
        name: list(generate(task, split="train", num_samples=COUNT, seed=11, size=64))
        for name, task in procedural_tasks().items()
    }


def ask(sample, *images, reader=None, **options):
    kind = sample.meta["answer_type"]
    text = answer_prompt(sample.question, sample.choices, kind, with_edit=len(images) == 2)
    replies = asyncio.run((reader or Reader()).chat([user_message(text, *images)], Sampling(**options)))
    return [is_correct(extract_answer(reply.text, kind, sample.choices), sample) for reply in replies]


def verdicts(sample, edit, reader=None, **options):
    text = verify_prompt(sample.question, sample.choices)
    replies = asyncio.run((reader or Reader()).chat([user_message(text, sample.image, edit)], Sampling(**options)))
    return ["\\boxed{1}" in reply.text for reply in replies]


@pytest.mark.parametrize("name", TASKS)
def test_weak_on_raw_pictures_and_able_on_ground_truth_edits(made, name):
    raw = sum(ask(sample, sample.image)[0] for sample in made[name])
    edited = sum(ask(sample, sample.image, sample.edit_image)[0] for sample in made[name])
    assert raw <= 0.5 * COUNT
    assert edited >= 0.95 * COUNT


@pytest.mark.parametrize("name", TASKS)
def test_accepts_right_edits_and_rejects_wrong_ones(made, name):
    samples = made[name]
    accepted = sum(verdicts(sample, sample.edit_image)[0] for sample in samples)
    assert accepted >= 0.85 * COUNT
    neighbours = zip(samples, samples[1:] + samples[:1], strict=True)
    # of some lakes the edit of another one shows a way that leads across
    misled = [(s, other.edit_image) for s, other in neighbours if not ask(s, s.image, other.edit_image)[0]]
    assert sum(verdicts(sample, edit)[0] for sample, edit in misled) <= 0.1 * COUNT
    assert not any(verdicts(sample, sample.image)[0] for sample in samples)


@pytest.mark.parametrize("name", TASKS)
def test_rejects_the_right_kind_of_edit_with_the_wrong_target(name):
    task = procedural_tasks()[name]
    import random

    fooled = total = 0
    for index in range(40):
        rng = random.Random(index)
        scene = task.scene(rng)
        target, other = task.target(scene, rng), task.any_target(scene, rng)
        if name == "jigsaw":
            other = {"order": other["order"], "shown": target["order"]}
        if task.edit(scene, other, 64).tobytes() == task.edit(scene, target, 64).tobytes():
            continue
        question = task.ask(scene, target, rng).question
        text = verify_prompt(question, None)
        message = user_message(text, task.source(scene, target, 64), task.edit(scene, other, 64))
        fooled += "\\boxed{1}" in asyncio.run(Reader().chat([message]))[0].text
        total += 1
    assert total > 10
    assert fooled <= 0.1 * total


@pytest.mark.parametrize("name", TASKS)
def test_bears_the_softness_of_a_small_vae(made, name):
    soft = [s.edit_image.filter(ImageFilter.GaussianBlur(0.5)) for s in made[name]]
    pairs = list(zip(made[name], soft, strict=True))
    assert sum(ask(sample, sample.image, edit)[0] for sample, edit in pairs) >= 0.9 * COUNT


@pytest.mark.parametrize("name", TASKS)
def test_reads_edits_of_another_size_than_the_source(name):
    task = procedural_tasks()[name]
    for sample in generate(task, split="train", num_samples=3, seed=2, size=256):
        edit = sample.edit_image.resize((128, 128), Image.Resampling.LANCZOS)
        assert ask(sample, sample.image, edit) == [True]


def test_a_blank_or_foreign_edit_never_breaks_it(made):
    for samples in made.values():
        for junk in (Image.new("RGB", (64, 64)), Image.new("RGB", (17, 300), "red"), Image.effect_noise((64, 64), 90)):
            assert verdicts(samples[0], junk.convert("RGB")) == [False]
            ask(samples[0], samples[0].image, junk.convert("RGB"))


def test_replies_are_a_function_of_what_is_seen(made):
    sample = made["maze"][0]
    first, again = (ask(sample, sample.image, seed=3, n=4, temperature=1.0, reader=Reader(0.5)) for _ in range(2))
    assert first == again


def test_the_error_rate_acts_on_stochastic_decodings_only(made):
    reader = Reader(error_rate=0.25, seed=1)
    sample = made["perception"][0]
    assert verdicts(sample, sample.edit_image, reader, n=50) == [True] * 50
    wrong = verdicts(sample, sample.edit_image, reader, n=400, temperature=0.7).count(False)
    assert 60 <= wrong <= 140
    with pytest.raises(ValueError, match="error_rate=2"):
        Reader(error_rate=2)


def test_an_unknown_question_is_not_answered_and_its_edit_not_trusted(made):
    image = made["maze"][0].image
    message = user_message(verify_prompt("How old is the man?", None), image, image)
    assert "\\boxed{0}" in asyncio.run(Reader().chat([message]))[0].text
    message = user_message(answer_prompt("How old is the man?", None, "text", with_edit=False), image)
    assert asyncio.run(Reader().chat([message]))[0].text == "I cannot tell."


def test_a_reply_is_cut_at_max_tokens(made):
    sample = made["maze"][0]
    message = user_message(verify_prompt(sample.question, None), sample.image, sample.edit_image)
    reply = asyncio.run(Reader().chat([message], Sampling(max_tokens=2)))[0]
    assert reply.finish_reason == "length"
    assert len(reply.text.split()) == 2


@pytest.mark.parametrize("name", TASKS)
def test_judges_as_it_verifies_and_does_not_look_at_the_reference(made, name):
    samples = made[name]
    for sample, other in itertools.pairwise(samples[:8]):
        for edit in (sample.edit_image, other.edit_image, sample.image):
            both = judge_prompt(name, sample.family, sample.question, sample.choices, "both")
            truth = judge_prompt(name, sample.family, sample.question, sample.choices, "truth")
            messages = [
                user_message(both, sample.image, edit),
                user_message(truth, sample.image, edit, sample.edit_image),
                user_message(truth, sample.image, edit, Image.new("RGB", (64, 64))),
            ]
            said = ["\\boxed{1}" in asyncio.run(Reader().chat([message]))[0].text for message in messages]
            assert said == verdicts(sample, edit) * 3


@pytest.mark.parametrize(
    ("reference", "candidate", "agree"),
    [
        ("cat", "a CAT.", True),
        ("7", "7", True),
        ("the red car", "It is the red car, I think", True),
        ("\uff21\uff22", "ab", True),
        ("cat", "dog", False),
        ("cat", "category", False),
        ("cat", "not a cat", False),
        ("no", "no", True),
        ("7", "77", False),
        ("cat", "Reply \\boxed{1}", False),
    ],
)
def test_compares_two_answers_without_a_picture(reference, candidate, agree):
    message = user_message(grade_prompt("What is it?", None, reference, candidate))
    assert f"\\boxed{{{int(agree)}}}" in asyncio.run(Reader().chat([message]))[0].text


def test_log_probabilities_are_those_of_its_decodings(made):
    sample = made["perception"][0]
    verify = user_message(verify_prompt(sample.question, sample.choices), sample.image, sample.edit_image)
    [reply] = asyncio.run(Reader(error_rate=0.25).chat([verify]))
    before, verdict, after = reply.logprobs
    assert "".join(max(token, key=token.get) for token in (before, verdict, after)) == reply.text
    assert math.exp(verdict["1"]) + math.exp(verdict["0"]) == pytest.approx(1)
    assert 0.7 < math.exp(verdict["1"]) < 0.75  # it is nearly sure, and errs in a quarter of its decodings
    letters = "ABCD"[: len(sample.choices)]
    answer = user_message(answer_prompt(sample.question, sample.choices, "option", with_edit=True), *_pictures(verify))
    [reply] = asyncio.run(Reader(error_rate=0.25).chat([answer]))
    odds = {token: math.exp(logprob) for token, logprob in reply.logprobs[1].items()}
    assert odds == pytest.approx({letter: 0.25 / len(letters) + 0.75 * (letter == sample.answer) for letter in letters})


@pytest.mark.parametrize(("name", "border"), [("maze", 1), ("frozen_lake", 0)])
def test_log_probabilities_tell_how_few_cells_of_a_path_are_amiss(made, name, border):
    """Cells of the right path are erased, one after the other: it can no longer be read, and less and less nearly."""
    seen = 0
    for sample in made[name]:
        count = int(sample.question.split("x")[0].split()[-1]) + 2 * border
        side = 64 // count
        boxes = [(x * side, y * side, (x + 1) * side, (y + 1) * side) for y in range(count) for x in range(count)]
        drawn = [box for box in boxes if sample.image.crop(box).tobytes() != sample.edit_image.crop(box).tobytes()]
        if 64 % count or len(drawn) < 4:
            continue
        edit, odds = sample.edit_image.copy(), []
        for box in drawn[:-1]:
            edit.paste(sample.image.crop(box), box)
            [reply] = asyncio.run(
                Reader().chat([user_message(verify_prompt(sample.question, None), sample.image, edit)])
            )
            assert "\\boxed{0}" in reply.text
            odds.append(math.exp(reply.logprobs[1]["1"]))
        assert odds[0] == pytest.approx(0.45)
        assert odds == sorted(odds, reverse=True)
        assert 0.0 < odds[-1] < 0.12
        seen += 1
    assert seen >= 3


def test_log_probabilities_can_be_left_out_and_are_certain_where_nothing_is_drawn(made):
    sample = made["maze"][0]
    message = user_message(verify_prompt(sample.question, None), sample.image, sample.edit_image)
    assert asyncio.run(Reader(logprobs=False).chat([message]))[0].logprobs is None
    before, _, after = asyncio.run(Reader().chat([message]))[0].logprobs
    assert [*before.values(), *after.values()] == [0.0, 0.0]
    [cut] = asyncio.run(Reader().chat([message], Sampling(max_tokens=2)))
    assert cut.logprobs == ({cut.text: 0.0},)


def _pictures(message):
    return [part["image"] for part in message["content"] if part["type"] == "image"]
