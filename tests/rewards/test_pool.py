"""The pool: scoring beside the caller, its exceptions, its end, and the cache in front of it."""

import asyncio
import gc
import signal
import threading
import warnings
from concurrent.futures import CancelledError

import pytest

from etchr.mllm.protocol import CallFailed
from etchr.rewards.cache import RewardCache
from etchr.rewards.pool import PoolStats, RewardPool
from etchr.rewards.score import EditRewards, Score
from etchr.rewards.settings import RewardConfig
from tests.mllm.fake_server import dead_url
from tests.rewards.fakes import BAD, EDIT, GOOD, GatedModel, ScriptedModel, make_client, make_sample

RIGHT = "\\boxed{7}"
CONFIG = RewardConfig(num_decodings=2)


class OpenedModel(ScriptedModel):
    """A model with connections: it notes when it is opened and closed, and by which loop."""

    error: Exception | None = None

    async def check(self):
        self.events = [("check", asyncio.get_running_loop())]
        if self.error:
            raise self.error

    async def aclose(self):
        self.events.append(("close", asyncio.get_running_loop()))


class StuckModel(OpenedModel):
    """A model that never answers; it says when it is asked and notes when it has stopped."""

    def __init__(self):
        super().__init__()
        self.asked = threading.Event()

    async def think(self, call):
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)  # hanging up takes a while
            self.events.append(("stop", asyncio.get_running_loop()))


def make_pool(model, cache=None, judge=None):
    return RewardPool(EditRewards(model, judge or model, CONFIG), cache)


def submit(pool, key="k", iteration=1, seed=1, sample=None):
    return pool.submit(iteration, key, sample or make_sample(), EDIT, seed)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # coroutines never awaited, files and loops never closed
        yield
        gc.collect()
    assert set(threading.enumerate()) == before


def test_edits_are_scored_while_the_caller_goes_on():
    with make_pool(ScriptedModel({"answer": [RIGHT], "judge": [GOOD]})) as pool:
        assert submit(pool).result(timeout=10) == Score(1.0, 1.0)
    assert pool.stats == PoolStats(asked=1)


def test_many_edits_are_asked_about_at_once():
    model = GatedModel(2 * 20, answer=[RIGHT], judge=[GOOD])
    with make_pool(model) as pool:
        scores = [submit(pool, seed=seed) for seed in range(20)]
        assert {future.result(timeout=10) for future in scores} == {Score(1.0, 1.0)}
    assert model.max_in_flight == 40


def test_models_are_checked_and_closed_on_the_pools_own_loop():
    model = OpenedModel({"answer": [RIGHT], "judge": [GOOD]})
    with make_pool(model) as pool:
        submit(pool).result(timeout=10)
    assert [name for name, _ in model.events] == ["check", "close"]
    assert model.events[0][1] is model.events[1][1]


def test_what_is_wrong_at_the_start_reaches_the_caller():
    good, bad = OpenedModel({}), OpenedModel({})
    bad.error = ValueError("nobody serves 'tiny'")
    with pytest.raises(ValueError, match="nobody serves 'tiny'"), make_pool(good, judge=bad):
        pytest.fail("the pool started")
    assert [name for name, _ in good.events] == ["check", "close"]
    with pytest.raises(ValueError, match="start the server or correct base_urls"), make_pool(make_client(dead_url())):
        pytest.fail("the pool started")


def test_an_unexpected_exception_surfaces_from_its_future_and_others_go_on():
    with make_pool(ScriptedModel({"answer": [RIGHT], "judge": [GOOD]})) as pool:
        wrong, right = submit(pool, sample=make_sample("many")), submit(pool)
        with pytest.raises(ValueError, match="its answer 'many' is no number answer"):
            wrong.result(timeout=10)
        assert right.result(timeout=10) == Score(1.0, 1.0)


def test_a_failed_call_is_a_missing_score_and_counted():
    with make_pool(ScriptedModel({"answer": [RIGHT], "judge": [CallFailed("down")]})) as pool:
        assert "down" in submit(pool).result(timeout=10).missing
    assert pool.stats == PoolStats(asked=1, missing=1)


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_what_is_under_way_is_cancelled_before_the_models_are_closed(error):
    model = StuckModel()
    with pytest.raises(type(error)), make_pool(model) as pool:  # noqa: PT012
        future = submit(pool)
        assert model.asked.wait(10)
        raise error
    assert future.cancelled() or isinstance(future.exception(), CancelledError)
    assert [name for name, _ in model.events] == ["check", "stop", "stop", "close"]


def test_an_interrupt_during_the_check_ends_the_thread_too():
    class Interrupting(OpenedModel):
        async def check(self):
            self.events = [("check", None)]
            await asyncio.sleep(0.05)  # by then the caller waits
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            await asyncio.Event().wait()

    model = Interrupting()
    with pytest.raises(KeyboardInterrupt), make_pool(model):
        pytest.fail("the pool started")
    assert [name for name, _ in model.events] == ["check", "close"]


def test_a_model_that_cannot_be_closed_is_heard_of_unless_something_else_went_wrong():
    class Broken(OpenedModel):
        async def aclose(self):
            raise ValueError("cannot close")

    with pytest.raises(ValueError, match="cannot close"), make_pool(Broken()):
        pass
    with pytest.raises(RuntimeError, match="boom"), make_pool(Broken()):
        raise RuntimeError("boom")


def test_a_pool_takes_edits_inside_its_block_only_and_can_be_opened_again():
    pool = make_pool(ScriptedModel({"answer": [RIGHT], "judge": [GOOD]}))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="inside its `with` block"):
            submit(pool)
        with pool:
            assert submit(pool).result(timeout=10) == Score(1.0, 1.0)
            with pytest.raises(RuntimeError, match="at work already"):
                pool.__enter__()


def test_other_coroutines_run_on_the_models_loop():
    async def loop_of():
        return asyncio.get_running_loop()

    model = OpenedModel({})
    with make_pool(model) as pool:
        assert pool.run(loop_of()).result(timeout=10) is model.events[0][1]
    with pytest.raises(RuntimeError, match="inside its `with` block"):
        pool.run(loop_of())


# ---------------------------------------------------------------------------------------------------------- cache


def test_a_known_score_asks_nothing(tmp_path):
    with make_pool(ScriptedModel({"answer": [RIGHT], "judge": [BAD]}), RewardCache(tmp_path, 0)) as pool:
        assert submit(pool, "a").result(timeout=10) == Score(1.0, 0.0)
    model = ScriptedModel({})
    with make_pool(model, RewardCache(tmp_path, 1)) as pool:
        assert submit(pool, "a").result(timeout=0) == Score(1.0, 0.0)
    assert (model.calls, pool.stats) == ([], PoolStats(cached=1))


def test_a_missing_score_is_asked_for_again(tmp_path):
    model = ScriptedModel({"answer": [RIGHT], "judge": [CallFailed("down"), GOOD]})
    cache = RewardCache(tmp_path, 0)
    with make_pool(model, cache) as pool:
        assert submit(pool, "a").result(timeout=10).missing
        assert submit(pool, "a").result(timeout=10) == Score(1.0, 1.0)
        assert submit(pool, "a").result(timeout=10) == Score(1.0, 1.0)
    assert pool.stats == PoolStats(asked=2, cached=1, missing=1)


def test_the_iteration_decides_what_pruning_forgets(tmp_path):
    cache = RewardCache(tmp_path, 0)
    with make_pool(ScriptedModel({"answer": [RIGHT], "judge": [GOOD]}), cache) as pool:
        for key, iteration in (("a", 1), ("b", 2)):
            submit(pool, key, iteration).result(timeout=10)
        cache.prune(2)
    again = RewardCache(tmp_path, 0)
    assert (again.get("a"), again.get("b")) == (None, Score(1.0, 1.0))
