"""The rewards with the embedded reader, end to end on procedural samples: what they say of good and useless edits."""

import asyncio
import dataclasses

import pytest

from data_prep import procedural_tasks
from data_prep.task import generate
from etchr.families import TASKS, TaskFamily
from etchr.mllm.protocol import GREEDY
from etchr.nano.reader import Reader
from etchr.rewards.score import EditRewards, Score
from etchr.rewards.settings import CorrectnessConfig, GuidanceConfig, RewardConfig
from tests.rewards.fakes import ScriptedModel, make_sample

COUNT = 8


@pytest.fixture(scope="module")
def made():
    return {
        name: list(generate(task, split="train", num_samples=COUNT, seed=11, size=64))
        for name, task in procedural_tasks().items()
    }


def scores(pairs, reader=None, **options):
    async def ask():
        rewards = EditRewards(reader or Reader(), reader or Reader(), RewardConfig(**options))
        return [await rewards.score(sample, edit, seed) for seed, (sample, edit) in enumerate(pairs)]

    return asyncio.run(ask())


@pytest.mark.parametrize("view", ["both", "truth"])
@pytest.mark.parametrize("name", TASKS)
def test_the_ground_truth_edit_has_both_rewards_and_the_source_is_no_edit(made, name, view):
    options = {"num_decodings": 2, "correctness": CorrectnessConfig(view=view)}
    assert scores([(s, s.edit_image) for s in made[name]], **options) == [Score(1.0, 1.0)] * COUNT
    unedited = scores([(s, s.image) for s in made[name]], **options)
    assert {score.correctness for score in unedited} == {0.0}
    assert sum(score.guidance for score in unedited) <= COUNT / 2  # blind guesses
    assert not any(score.missing for score in unedited)


@pytest.mark.parametrize("name", TASKS)
def test_another_samples_edit_is_not_right(made, name):
    pairs = zip(made[name], made[name][1:] + made[name][:1], strict=True)
    others = scores([(sample, other.edit_image) for sample, other in pairs], num_decodings=2)
    assert sum(score.correctness for score in others) <= 1


def test_errors_make_the_rewards_empirical_and_dense_ones_give_their_expectation(made):
    reader, pairs = Reader(error_rate=0.25), [(s, s.edit_image) for s in made["perception"]]
    sampled = scores(pairs, reader, num_decodings=64)
    dense = scores(pairs, reader, guidance=GuidanceConfig(dense=True), correctness=CorrectnessConfig(dense=True))
    odds = 0.75 + 0.25 / len(pairs[0][0].choices)
    assert [score.correctness for score in dense] == pytest.approx([0.75] * COUNT, abs=0.03)  # it is nearly sure
    assert [score.guidance for score in dense] == pytest.approx([odds] * COUNT)
    assert len({score.guidance for score in sampled}) > 2
    assert sum(score.correctness for score in sampled) / COUNT == pytest.approx(0.75, abs=0.06)
    assert sum(score.guidance for score in sampled) / COUNT == pytest.approx(odds, abs=0.06)


def test_equal_seeds_give_equal_scores(made):
    pairs = [(s, s.edit_image) for s in made["maze"][:3]]
    first, again = (scores(pairs, Reader(error_rate=0.5)) for _ in range(2))
    assert first == again


def test_free_text_is_graded_by_the_reader(made):
    sample = dataclasses.replace(make_sample("Eiffel Tower", "text"), task="landmarks", family=TaskFamily.PERCEPTION)
    said = ["\\boxed{the eiffel tower}", "\\boxed{It is the Eiffel Tower.}", "\\boxed{Big Ben}", "\\boxed{Eiffel}"]

    class Talker(ScriptedModel):
        """Answers pictures from its script and leaves the grading to the reader."""

        async def chat(self, messages, sampling=GREEDY):
            if len(messages[0]["content"]) == 1:
                return await Reader().chat(messages, sampling)
            return await super().chat(messages, sampling)

    talker = Talker({"answer": [said]})
    [score] = scores([(sample, sample.edit_image)], talker, num_decodings=4, guidance_weight=1.0)
    assert score == Score(0.5, None)
    assert len(talker.calls) == 1
