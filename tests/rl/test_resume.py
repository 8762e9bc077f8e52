"""A run that is killed and started again ends as an unbroken one, whatever it was doing."""

import json
import shutil

import pytest
import torch

from etchr.rl.__main__ import main
from etchr.rl.trainer import train
from tests.processes import kill_when
from tests.rl.fakes import RIGHT, WRONG, RuleModel, always, by_seed
from tests.rl.runs import lines, options, scores, trainer, words
from tests.sft.runs import weights

KEEP_ALL = ("iterations=4", "save_every=1", "keep_checkpoints=9", "validation.every=2", "pictures_every=2")
PLAIN = ("group_size=2", "updates_per_iteration=1", "reward.guidance_weight=0", "reward.num_decodings=50")
MORE = {
    "grpo": ("optim.ema=0.9", "optim.schedule=cosine", "objective.kl=0.1", "rollout.trained=fraction"),
    "nft": ("objective.kind=nft", "optim.name=muon", "objective.kl=0.1", "objective.advantage=gdpo"),
}


@pytest.fixture(scope="module")
def more(stage_one):
    """The options of both kinds of run: over a merged adapter, and going on with that adapter."""
    start = {"grpo": f"sft={stage_one}", "nft": f"adapter.init={stage_one}"}
    return {kind: (*words, start[kind], f"objective.kind={kind}") for kind, words in MORE.items()}


@pytest.fixture(scope="module", params=MORE)
def unbroken(request, tiny, pairs, more, tmp_path_factory):
    """A run of 4 iterations with a checkpoint after each; the words it was started with."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    words = (*more[request.param], *KEEP_ALL)
    train(options(tiny, pairs, out, *words))
    return out, words


def assert_equal(out, whole, last):
    """That two runs left the same tensors and lines."""
    kept = [path.stem for path in (whole / "checkpoints" / f"step_{last:08d}").glob("*.safetensors")]
    assert "optimizer" in kept
    names = [f"checkpoints/step_{last:08d}/{stem}" for stem in kept]
    for name in ("adapter/pytorch_lora_weights", "last/pytorch_lora_weights", *names):
        there, here = weights(whole, name), weights(out, name)
        assert there.keys() == here.keys()
        assert all(torch.equal(there[key], here[key]) for key in there), name
    assert lines(out) == lines(whole)


@pytest.mark.parametrize("last", [1, 2, 3])
def test_a_run_goes_on_exactly_from_every_checkpoint(unbroken, tiny, pairs, tmp_path, last):
    unbroken, words = unbroken
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    for name in ("adapter", "last"):
        shutil.rmtree(out / name)
    for step in range(last + 1, 5):
        shutil.rmtree(out / "checkpoints" / f"step_{step:08d}")
    train(options(tiny, pairs, out, *words))
    assert_equal(out, unbroken, 4)


# ------------------------------------------------------------------------------------------------------- killed


def is_once_each(records):
    keys = [record["key"] for record in records]
    return len(set(keys)) == len(keys)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grpo", "nft"])
def test_a_killed_run_ends_as_an_unbroken_one(tiny, pairs, more, tmp_path, kind):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options_of = (*more[kind], "iterations=5", "save_every=2", "validation.every=3", "reward.reasoner.latency_s=0.02")
    journal = broken / "metrics.jsonl"

    def has_lines(count):
        return lambda: journal.is_file() and journal.read_bytes().count(b"\n") >= count

    def has_checkpoint(step):
        return (broken / "checkpoints" / f"step_{step:08d}").is_dir

    for moment in (has_lines(2), has_checkpoint(2), has_lines(5)):
        kill_when(moment, main, words(tiny, pairs, broken, *options_of))
        assert not (broken / "adapter").exists()
    train(options(tiny, pairs, broken, *options_of))
    train(options(tiny, pairs, whole, *options_of))
    assert_equal(broken, whole, 5)
    assert [line["step"] for line in lines(broken)] == [0, 1, 2, 3, 3, 4, 5, 5]


def test_what_is_scored_when_a_run_is_killed_is_not_asked_for_again(tiny, pairs, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    more = ("save_every=9", "iterations=3", "reward.reasoner.latency_s=0.05", "reward.overlap=true")
    before: list[dict] = []

    def has_scores(count):
        return lambda: len(scores(broken)) >= count

    for count in (3, 13):  # of 8 edits an iteration: while rewards are under way
        kill_when(has_scores(count), main, words(tiny, pairs, broken, *more))
        kept = scores(broken)
        assert kept[: len(before)] == before
        assert is_once_each(kept)
        before = kept
    with trainer(options(tiny, pairs, broken, *more, "iterations=2"), RuleModel(always("?"))) as loop:
        loop.sample(0)  # the first iteration is sampled again, and all of it is known
        assert (loop.pool.stats.asked, loop.pool.stats.cached) == (0, 8)
    train(options(tiny, pairs, broken, *more))
    train(options(tiny, pairs, whole, *more))
    assert_equal(broken, whole, 3)


# -------------------------------------------------------------------------------------------------------- the rest


def test_a_validation_that_a_kill_prevented_is_made_up_for(unbroken, tiny, pairs, tmp_path):
    unbroken, words = unbroken
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    shutil.rmtree(out / "adapter")
    journal = out / "metrics.jsonl"
    *before, last = journal.read_text().splitlines(keepends=True)
    assert json.loads(last).keys() >= {"val_reward"}
    journal.write_text("".join(before))
    (out / "validation" / "held_out_step_00000004.png").unlink()
    train(options(tiny, pairs, out, *words))
    assert_equal(out, unbroken, 4)
    assert (out / "validation" / "held_out_step_00000004.png").is_file()
    notes = [json.loads((run / "best" / "best.json").read_text()) for run in (out, unbroken)]
    assert notes[0] == notes[1]


def test_a_finished_run_is_left_as_it_is_and_other_options_are_refused(unbroken, tiny, pairs):
    out, words = unbroken
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    train(options(tiny, pairs, out, *words))
    free = ("save_every=3", "pictures_every=1", "reward.max_missing=1")
    train(options(tiny, pairs, out, *words, *free))
    for word, message in {
        "optim.lr=0.02": r"optim.lr: 0.01 there, 0.02 here",
        "objective.clip=0.5": r"objective.clip: 0.0001 there, 0.5 here",
        "reward.reasoner.seed=1": r"reward.judge.seed: 0 there, 1 here",
        "iterations=5": r"iterations: 4 there, 5 here",
        "validation.seed=2": r"validation.seed: 1234 there, 2 here",
    }.items():
        with pytest.raises(ValueError, match=rf"holds a run with other settings \({message}"):
            train(options(tiny, pairs, out, *words, word))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == files


def test_checkpoints_rotate_and_the_best_and_the_last_stay(tiny, pairs, tmp_path):
    train(options(tiny, pairs, tmp_path, "iterations=5", "save_every=2", "validation.every=3"))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step_00000004", "step_00000005"]
    rewards = {line["step"]: line["val_reward"] for line in lines(tmp_path) if "val_reward" in line}
    assert list(rewards) == [0, 3, 5]
    best = json.loads((tmp_path / "best" / "best.json").read_text())
    assert best["val_reward"] == pytest.approx(max(rewards.values()), rel=1e-5)
    assert best["iteration"] == max(rewards, key=rewards.__getitem__)  # the first of equals
    assert min(record["iteration"] for record in scores(tmp_path)) == 4  # older scores are forgotten


def test_when_a_run_is_saved_does_not_change_what_it_learns(tiny, pairs, tmp_path):
    """Of the first two iterations there is nothing to learn, so the optimizer is saved before it has any state."""
    for name, more in {"often": ["save_every=1"], "once": ["save_every=9"], "broken": ["save_every=1"]}.items():
        asked: list[object] = []

        def rule(call, asked=asked):
            asked.append(call)
            return always(RIGHT)(call) if len(asked) <= 8 else by_seed(call)

        config = options(tiny, pairs, tmp_path / name, *PLAIN, "iterations=4", *more)
        for stop in (1, 2, 4) if name == "broken" else (4,):
            with trainer(config, RuleModel(rule)) as loop:
                loop.total = stop
                loop.fit()
        assert [line["num_updates"] for line in lines(tmp_path / name)] == [0, 0, 1, 1]
    for name in ("adapter", "optimizer"):
        often, once, broken = (
            weights(tmp_path / run, f"checkpoints/step_00000004/{name}") for run in ("often", "once", "broken")
        )
        assert often.keys() == once.keys() == broken.keys()
        for other in (once, broken):
            assert all(torch.equal(often[key], other[key]) for key in often), name


def test_of_equal_validations_the_first_stays_the_best_when_a_run_goes_on(tiny, pairs, tmp_path):
    def rule(call):  # a third, which six digits do not hold
        return [RIGHT, *[WRONG] * (call.n - 1)]

    more = ("reward.guidance_weight=0", "reward.num_decodings=3", "validation.every=1", "iterations=4")
    for stop in (2, 4):
        with trainer(options(tiny, pairs, tmp_path, *more), RuleModel(rule)) as loop:
            loop.total = stop
            loop.fit()
    assert [line["val_reward"] for line in lines(tmp_path) if "val_reward" in line] == [0.333333] * 5
    assert json.loads((tmp_path / "best" / "best.json").read_text())["iteration"] == 0


def test_looking_at_the_training_prompts_does_not_change_what_is_learned(tiny, pairs, tmp_path):
    looks = ("validation.every=1", "validation.split=train", "validation.num_samples=24", "batch_size=4")
    plain = ("batch_size=4", "iterations=3")
    train(options(tiny, pairs, tmp_path / "blind", *plain))
    train(options(tiny, pairs, tmp_path / "looking", *plain, *looks))
    for name in ("adapter", "optimizer"):
        blind, looking = (weights(tmp_path / run, f"checkpoints/step_00000003/{name}") for run in ("blind", "looking"))
        assert all(torch.equal(blind[key], looking[key]) for key in blind), name
