"""From scores to what is learned: missing edits leave their group, groups without a difference cost nothing."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from etchr.rewards.score import Score
from etchr.rl.advantage import advantages
from etchr.rl.logger import RlLogger
from etchr.rl.rollout import Batch, Group
from etchr.rl.scores import Scores
from etchr.rl.trainer import TooManyMissing
from etchr.runtime import Runtime
from etchr.training.run import Run
from tests.rewards.fakes import make_sample
from tests.rl.fakes import RIGHT, RuleModel, always, by_seed, failing
from tests.rl.runs import lines, options, scores, trainer

GONE = Score(None, None, missing="guidance: the model is away")


def done(score):
    future: Future[Score] = Future()
    future.set_result(score)
    return future


def make_group(place, futures):
    """A group whose edits have these scores, in two batches."""
    prompt: Any = SimpleNamespace(sample=make_sample())
    numbers = list(range(len(futures)))
    half = len(numbers) // 2
    batches = [Batch(prompt, part, torch.zeros(len(part), 1)) for part in (numbers[:half], numbers[half:])]
    return Group(place, prompt, batches, [Image.new("RGB", (8, 8))] * len(futures), futures)


@pytest.fixture
def make_scores(tiny, pairs, tmp_path):
    def make(table, *more):
        """`Scores` of groups with these (guidance, correctness); None: missing, "pending": not there yet."""
        futures = [
            [Future() if pair == "pending" else done(Score(*pair) if pair else GONE) for pair in row] for row in table
        ]
        config = options(tiny, pairs, tmp_path, "prompts_per_iteration=4", *more)
        groups = [make_group(place, row) for place, row in enumerate(futures)]
        return Scores(config, Runtime("cpu", threads=1), groups), groups

    return make


FULL = [(0.0, 0.5), (0.5, 0.5), (1.0, 0.0), (1.0, 1.0)]
HOLED = [(0.0, 0.5), None, (1.0, 0.0), (1.0, 1.0)]
ALONE = [None, (1.0, 1.0), None, None]
EQUAL = [(0.5, 0.5)] * 4


def learned(made, groups):
    """The advantages (P, G) as the trainer gets them."""
    return torch.stack([torch.cat([made.advantage(batch) for batch in group.batches]) for group in groups])


def tensors(*rows):
    """Guidance and correctness (P, G) in fp64, missing ones NaN."""
    table = [[pair or (float("nan"),) * 2 for pair in row] for row in rows]
    guidance, correctness = torch.tensor(table, dtype=torch.float64).unbind(2)
    return {"guidance": guidance, "correctness": correctness, "alpha": 0.5}


@pytest.mark.parametrize("name", ["win_rate", "zscore", "gdpo"])
def test_a_missing_edit_leaves_its_group_and_is_no_zero(make_scores, name):
    made, groups = make_scores([FULL, HOLED, ALONE, EQUAL], f"objective.advantage={name}")
    found = learned(made, groups)
    assert found[1, 1] == 0
    assert not found[2].any()
    assert not found[3].any()
    if name != "gdpo":  # which is normalised over the batch: see the test below
        [full] = advantages(name, **tensors(FULL))
        [holed] = advantages(name, **tensors([pair for pair in HOLED if pair]))
        assert found[0].tolist() == pytest.approx(full.tolist(), abs=1e-6)
        assert found[1, [0, 2, 3]].tolist() == pytest.approx(holed.tolist(), abs=1e-6)
    as_zero = advantages(name, **tensors(FULL, [pair or (0.0, 0.0) for pair in HOLED], EQUAL, EQUAL))[1]
    assert abs(float(as_zero[0] - found[1, 0])) > 0.05, "a missing score counts as a zero"


def test_gdpo_is_normalised_over_the_edits_that_have_a_score(make_scores):
    made, groups = make_scores([FULL, HOLED, ALONE, EQUAL], "objective.advantage=gdpo")
    found = learned(made, groups)
    present = [*found[0], *found[1, [0, 2, 3]], *found[3]]
    assert float(torch.stack(present).std()) == pytest.approx(1.0, abs=1e-5)


def test_what_the_log_says_counts_scored_edits_only(make_scores):
    made, groups = make_scores([FULL, HOLED, ALONE, EQUAL])
    learned(made, groups)
    made.share()
    summary = made.summary()
    scored = [pair for row in (FULL, HOLED, ALONE, EQUAL) for pair in row if pair]
    assert summary["missing_share"] == made.missing_share() == 4 / 16
    assert summary["dropped_groups"] == 1
    assert summary["guidance"] == pytest.approx(sum(g for g, _ in scored) / 12)
    assert summary["correctness"] == pytest.approx(sum(c for _, c in scored) / 12)
    assert summary["reward"] == pytest.approx(sum(g + c for g, c in scored) / 24)
    assert summary["zero_variance_share"] == pytest.approx(1 / 3)
    assert summary["best_of_group"] == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert made.reason() == "guidance: the model is away"
    assert made.reasons.total() == 4
    assert "missing" in made.words(groups[1])


def test_a_rollout_without_any_score_has_a_summary(make_scores):
    made, groups = make_scores([[None] * 4] * 4)
    assert not learned(made, groups).any()
    made.share()
    assert made.missing_share() == 1
    assert "reward" not in made.summary()


def test_a_group_waits_for_its_own_scores_only(make_scores):
    made, groups = make_scores([FULL, ["pending"] * 4, FULL, FULL])
    assert made.advantage(groups[2].batches[0]).any()
    for future in groups[1].scores:
        future.set_result(GONE)
    assert not made.advantage(groups[1].batches[0]).any()


def test_it_is_known_without_waiting_that_enough_scores_are_there(make_scores):
    made, groups = make_scores([FULL, HOLED, ["pending"] * 4, [*FULL[:3], "pending"]])
    assert made.missing_at_most() == 6 / 16
    for future in (*groups[2].scores, groups[3].scores[3]):
        future.set_result(Score(1.0, 1.0))
    assert made.missing_at_most() == 1 / 16
    made.share()
    assert made.missing_at_most() == made.missing_share()


def test_a_validation_that_misses_too_many_scores_is_no_best(tiny, pairs, tmp_path):
    config = options(tiny, pairs, tmp_path, "reward.max_missing=0.5")
    inputs: Any = None  # of which a journal writes nothing
    journal = RlLogger(Run(config, Runtime("cpu", threads=1), inputs, tmp_path), 0)
    assert journal.best() == float("-inf")
    journal.write(1, {"reward": 0.95})
    journal.write(2, {"val_missing_share": 0.5, "val_reward": 0.3})
    journal.write(3, {"val_missing_share": 0.6, "val_reward": 0.9})
    journal.write(4, {"val_missing_share": 1.0})
    assert journal.best() == 0.3
    journal.close()


def test_advantages_are_cut_where_the_options_say(make_scores):
    made, groups = make_scores([FULL, EQUAL, EQUAL, EQUAL], "objective.max_advantage=0.25")
    assert learned(made, groups).abs().max() == 0.25


@pytest.mark.parametrize(("weight", "row"), [(1.0, [(0.0, None), (1.0, None)]), (0.0, [(None, 0.0), (None, 1.0)])])
def test_a_reward_of_weight_0_does_not_matter(make_scores, weight, row):
    made, groups = make_scores([row * 2] * 4, f"reward.guidance_weight={weight}")
    found = learned(made, groups)
    assert found[0].tolist() == pytest.approx([-0.866, 0.866] * 2, abs=1e-3)
    made.share()
    assert made.summary()["reward"] == 0.5


# ------------------------------------------------------------------------------------------------- in the trainer


def fit(config, model):
    """Run the loop; how many forwards were for sampling and for training."""
    count = {True: 0, False: 0}
    with trainer(config, model) as loop:

        def note(*_):
            count[torch.is_grad_enabled()] += 1

        loop.state.editor.transformer.register_forward_hook(note)
        start = [parameter.detach().clone() for parameter in loop.state.parameters]
        loop.fit()
        moved = any(not torch.equal(a, b) for a, b in zip(start, loop.state.parameters, strict=True))
    return count[False], count[True], moved


ONE = ("iterations=1", "reward.guidance_weight=0", "rollout.window=2", "group_size=2", "optim.weight_decay=0.1")


@pytest.mark.parametrize("kind", ["grpo", "nft"])
def test_groups_without_a_difference_cost_no_forward_and_change_nothing(tiny, pairs, tmp_path, kind):
    model = RuleModel(always(RIGHT))
    sampled, trained, moved = fit(options(tiny, pairs, tmp_path, *ONE, f"objective.kind={kind}"), model)
    assert (sampled, trained, moved) == (2 * 4, 0, False)
    [line] = lines(tmp_path)
    assert (line["num_updates"], line["zero_variance_share"], line["reward"]) == (0, 1, 1)


def test_only_groups_with_a_difference_are_trained_on(tiny, pairs, tmp_path):
    first: list[str] = []

    def rule(call):
        first.append(call.text) if not first else None
        differs = call.text == first[0]
        return by_seed(call) if differs else [RIGHT] * call.n

    more = (*ONE, "prompts_per_iteration=4", "reward.num_decodings=50")
    sampled, trained, moved = fit(options(tiny, pairs, tmp_path, *more), RuleModel(rule))
    assert (sampled, trained, moved) == (4 * 4, 2, True)  # of one group: one batch, two steps
    [line] = lines(tmp_path)
    assert (line["num_updates"], line["zero_variance_share"]) == (1, 0.75)


def test_a_reward_of_weight_0_is_not_asked_for(tiny, pairs, tmp_path):
    for weight, kind in ((0, "judge"), (1, "answer")):
        model = RuleModel(always("\\boxed{7}" if weight else RIGHT))
        fit(options(tiny, pairs, tmp_path / kind, *ONE, f"reward.guidance_weight={weight}"), model)
        assert {call.kind for call in model.calls} == {kind}
        assert len([call for call in model.calls if call.n == 4]) == 4  # edits


def test_missing_edits_are_left_out_and_their_count_is_logged(tiny, pairs, tmp_path):
    def rule(call):
        return failing() if call.seed % 2 else by_seed(call)

    more = ("iterations=2", "reward.guidance_weight=0", "reward.max_missing=1", "reward.num_decodings=50")
    fit(options(tiny, pairs, tmp_path, *more), RuleModel(rule))
    written = lines(tmp_path)
    assert 0 < sum(line["missing_share"] for line in written) < 2
    found = [record["correctness"] for record in scores(tmp_path)]  # of the second iteration, which can be repeated
    assert 0 < len(found) == 8 * (1 - written[1]["missing_share"])
    assert written[1]["reward"] == pytest.approx(sum(found) / len(found), rel=1e-4)


def test_too_many_missing_edits_stop_the_run_before_anything_changes(tiny, pairs, tmp_path):
    config = options(tiny, pairs, tmp_path, *ONE, "reward.max_missing=0.4", "prompts_per_iteration=4")
    asked: list[object] = []

    def rule(call):
        asked.append(call)
        return failing() if len(asked) <= 4 else by_seed(call)  # of 8 edits

    with pytest.raises(
        TooManyMissing, match=r"50% of a rollout's edits .*max_missing=0.4: correctness: .*the model is"
    ):
        fit(config, RuleModel(rule))
    assert not list((tmp_path / "checkpoints").glob("*"))
    assert len(scores(tmp_path)) == 4
    model = RuleModel(by_seed)
    fit(config, model)
    assert len(model.calls) == 4  # those that were missing
