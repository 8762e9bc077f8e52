"""Rewards over real HTTP from servers that fail: a score is missing or right, never a zero that nobody gave."""

import re
from contextlib import ExitStack

import pytest

from data_prep import procedural_tasks
from data_prep.task import generate
from etchr.nano.reader import Reader
from etchr.rewards.pool import RewardPool
from etchr.rewards.score import EditRewards, Score
from etchr.rewards.settings import CorrectnessConfig, GuidanceConfig, RewardConfig
from tests.mllm.fake_server import dead_url, serving
from tests.rewards.fakes import BreakableServer, make_client

FULL = Score(1.0, 1.0)


@pytest.fixture(scope="module")
def samples():
    tasks = (procedural_tasks()[name] for name in ("chart", "perception", "maze"))
    return [next(iter(generate(task, split="train", num_samples=1, seed=5, size=64))) for task in tasks]


def pool_of(client, **options):
    return RewardPool(EditRewards(client, client, RewardConfig(**({"num_decodings": 4, "retries": 1} | options))))


def score_all(pool, samples):
    """The scores of the ground-truth edits, which are all `FULL` if the model gets to see them."""
    futures = [pool.submit(0, "", sample, sample.edit_image, seed) for seed, sample in enumerate(samples)]
    return [future.result(timeout=60) for future in futures]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (500, "answered HTTP 500"),
        (400, "answered HTTP 400"),
        ("garbage", "not complete JSON"),
        ("empty", "reply without choices"),
        ("mumble", "no (number answer|verdict) in 'I am a teapot"),
        ("hang up", "cannot be reached or broke off"),
        ("silence", r"gave no answer within 0\.5 s"),
    ],
)
def test_a_server_at_fault_gives_missing_scores_and_right_ones_when_it_is_back(samples, fault, reason):
    server = BreakableServer()
    options = {"timeout_s": 0.5} if fault == "silence" else {}
    with serving(server) as url, pool_of(make_client(f"{url}/v1", max_retries=1, **options)) as pool:
        server.fault = fault
        [score] = score_all(pool, samples[:1])
        assert (score.guidance, score.correctness) == (None, None)
        assert re.search(f"guidance: .*{reason}.*; correctness: .*{reason}", score.missing)
        server.fault = None
        assert score_all(pool, samples) == [FULL] * len(samples)
    assert (pool.stats.asked, pool.stats.missing) == (4, 1)


@pytest.mark.parametrize("fault", [503, "garbage", "mumble", "hang up"])
def test_a_fault_that_passes_is_ridden_out(samples, fault):
    server = BreakableServer()
    with serving(server) as url, pool_of(make_client(f"{url}/v1"), retries=2) as pool:
        server.fault, server.faults_left = fault, 2
        assert score_all(pool, samples) == [FULL] * len(samples)
    assert server.faults_left == 0


def test_a_server_that_dies_for_good_makes_scores_missing(samples):
    with ExitStack() as alive, ExitStack() as stack:
        url = alive.enter_context(serving(BreakableServer()))
        pool = stack.enter_context(pool_of(make_client(f"{url}/v1")))
        assert score_all(pool, samples) == [FULL] * len(samples)
        alive.close()
        scores = score_all(pool, samples)
    assert {(score.guidance, score.correctness) for score in scores} == {(None, None)}
    assert pool.stats.missing == len(samples)


def test_of_two_endpoints_one_is_dead_and_every_edit_is_scored(samples):
    server = BreakableServer()
    with serving(server) as url, pool_of(make_client(dead_url(), f"{url}/v1")) as pool:
        assert score_all(pool, samples * 4) == [FULL] * 12
    assert server.requests == 24


def test_of_two_endpoints_one_answers_errors_only_and_every_edit_is_scored(samples):
    sick, well = BreakableServer(), BreakableServer()
    sick.fault = 500
    with serving(sick) as first, serving(well) as second, pool_of(make_client(f"{first}/v1", f"{second}/v1")) as pool:
        assert score_all(pool, samples * 4) == [FULL] * 12
    assert sick.requests > 0
    assert well.requests == 24


def test_dense_rewards_over_http_are_the_readers_own_odds(samples):
    [sample] = [sample for sample in samples if sample.task == "perception"]
    reader = Reader(error_rate=0.2)
    dense = {"guidance": GuidanceConfig(dense=True), "correctness": CorrectnessConfig(dense=True)}
    server = BreakableServer(reader)
    with serving(server) as url:
        with pool_of(make_client(f"{url}/v1", model=reader.name, top_logprobs=20), **dense) as pool:
            [score] = score_all(pool, [sample])
        with pool_of(make_client(f"{url}/v1", model=reader.name), **dense) as pool:
            future = pool.submit(0, "", sample, sample.edit_image, 1)
            with pytest.raises(ValueError, match="gives none: set top_logprobs"):
                future.result(timeout=60)
    assert score.correctness == pytest.approx(0.8, abs=0.02)  # it is nearly sure of this edit
    assert score.guidance == pytest.approx(0.8 + 0.2 / len(sample.choices))
