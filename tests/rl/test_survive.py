"""Reward servers that fail, over real HTTP: a run waits, leaves edits out or stops, and no edit gets a zero for it."""

from contextlib import ExitStack

import pytest
import torch

from etchr.config import compose
from etchr.mllm.settings import build_model
from etchr.nano.reader import Reader
from etchr.rl.__main__ import main
from etchr.rl.settings import RlConfig
from etchr.rl.trainer import TooManyMissing, train
from tests.mllm.fake_server import dead_url, serving
from tests.rewards.fakes import CountingServer
from tests.rl.fakes import LateServer
from tests.rl.runs import lines, scores, trainer, words
from tests.sft.runs import weights

# One request for every edit, 8 in an iteration; those of the second one are kept to look at.
WORDS = (
    *("reward.reasoner.kind=http", "reward.reasoner.model='reader(error_rate=0.5,seed=0)'", "reward.num_decodings=6"),
    *("reward.reasoner.api_key_env=ETCHR_TEST_REWARD_KEY", "reward.reasoner.max_retries=0", "reward.retries=0"),
    *("reward.guidance_weight=0", "reward.max_missing=0.5", "iterations=2", "keep_checkpoints=9"),
)


def command(url, *run):
    """The words of a run whose reader is served at `url`; `run`: base, data, folder and more words."""
    tiny, pairs, out, *more = run
    return words(tiny, pairs, out, *WORDS, f"reward.reasoner.base_urls=[{url}/v1]", *more)


def over(url, *run):
    return compose(RlConfig, "rl", command(url, *run))


def server_with(fault, first=0, count=None):
    return LateServer(fault, first, count, error_rate=0.5)


@pytest.fixture(scope="module")
def healthy(tiny, pairs, tmp_path_factory):
    """What a run leaves whose server never fails."""
    out = tmp_path_factory.mktemp("healthy") / "run"
    server = server_with(None)
    with serving(server) as url:
        train(over(url, tiny, pairs, out))
    assert server.requests == 16
    assert len(kept(out)) == 8
    return out


def kept(out):
    return {record["key"]: record["correctness"] for record in scores(out)}


def assert_same(out, healthy):
    there, here = weights(healthy), weights(out)
    assert all(torch.equal(there[key], here[key]) for key in there)
    assert lines(out) == lines(healthy)


@pytest.mark.parametrize("fault", [400, 500, "garbage", "mumble", "silence"])
def test_edits_without_an_answer_are_left_out_and_counted(healthy, tiny, pairs, tmp_path, fault):
    patience = 3 if fault == "silence" else 60  # a machine that is busy elsewhere takes its time over an answer
    with serving(server_with(fault, first=8, count=3)) as url:
        train(over(url, tiny, pairs, tmp_path, "reward.max_missing=1", f"reward.reasoner.timeout_s={patience}"))
    first, second = lines(tmp_path)
    scored = kept(tmp_path)
    assert first == lines(healthy)[0]
    assert scored.items() <= kept(healthy).items()  # right or not there at all
    assert second["missing_share"] == pytest.approx(1 - len(scored) / 8)
    if fault in (500, "silence"):  # the server counts as down for a while: others may be lost with it
        assert second["missing_share"] > 0
    else:
        assert second["missing_share"] == 3 / 8
    if scored:
        assert second["reward"] == pytest.approx(sum(scored.values()) / len(scored), rel=1e-5)
    assert (tmp_path / "adapter").is_dir()


@pytest.mark.parametrize("fault", [503, "hang up"])
def test_a_run_waits_for_a_server_that_comes_back(healthy, tiny, pairs, tmp_path, fault):
    server = server_with(fault, first=9, count=2)
    with serving(server) as url:
        train(over(url, tiny, pairs, tmp_path, "reward.reasoner.max_retries=5", "reward.max_missing=0"))
    assert server.requests == 18
    assert_same(tmp_path, healthy)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(400, "answered HTTP 400"), ("garbage", "not complete JSON"), ("mumble", "no verdict in 'I am a teapot")],
)
def test_a_run_stops_with_the_reason_and_goes_on_when_that_is_mended(healthy, tiny, pairs, tmp_path, fault, reason):
    with serving(server_with(fault, first=11)) as url, pytest.raises(SystemExit) as caught:
        main(command(url, tiny, pairs, tmp_path, "save_every=9"))
    said = str(caught.value)
    assert said.startswith("62% of a rollout's edits have no score, more than reward.max_missing=0.5: correctness: ")
    assert reason in said
    assert "\n" not in said
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]
    assert len(kept(tmp_path)) == 3
    mended = server_with(None)
    with serving(mended) as url:
        train(over(url, tiny, pairs, tmp_path, "save_every=9"))
    assert mended.requests == 5  # those that had no answer
    assert_same(tmp_path, healthy)


def test_a_server_that_dies_and_comes_back_elsewhere(healthy, tiny, pairs, tmp_path):
    with ExitStack() as stack:
        url = stack.enter_context(serving(server_with(None)))
        config = over(url, tiny, pairs, tmp_path)
        with trainer(config, build_model(config.reward.reasoner)) as loop:
            loop.total = 1
            loop.fit()
            stack.close()
            loop.total = 2
            with pytest.raises(TooManyMissing, match=r"^100% of .*: correctness: .* cannot be reached or broke off"):
                loop.fit()
    with serving(server_with(None)) as url:
        train(over(url, tiny, pairs, tmp_path))
    assert_same(tmp_path, healthy)


@pytest.mark.parametrize("more", [(), ("validation.every=1", "save_every=1", "keep_checkpoints=1")])
def test_no_question_is_asked_twice(tiny, pairs, tmp_path, more):
    """Whatever is forgotten of scores, and though a validation after an idle update looks at the same edits again."""
    server = CountingServer(Reader(error_rate=0.5))
    with serving(server) as url:
        train(over(url, tiny, pairs, tmp_path, "optim.lr=1e-12", "reward.guidance_weight=0.5", "iterations=3", *more))
    assert len(server.answered) >= 48
    assert set(server.answered.values()) == {1}


def test_a_server_that_is_not_there_is_said_before_anything_is_made(tiny, pairs, tmp_path):
    url = dead_url().removesuffix("/v1")
    with pytest.raises(ValueError, match="start the server or correct base_urls"):
        train(over(url, tiny, pairs, tmp_path / "run"))
    assert not (tmp_path / "run" / "run.json").exists()
    with serving(server_with(None)) as url:
        train(over(url, tiny, pairs, tmp_path / "run", "iterations=1", "optim.lr=0.02"))  # other options fit
