"""A server that misbehaves in every way, a run that is killed again and again: the same table, nothing asked twice."""

import json
import os
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import pytest

from etchr.mllm.settings import ModelConfig
from evaluation.run import HOPELESS
from tests.evaluation import faulty
from tests.evaluation.fakes import Case, write_data
from tests.mllm.fake_server import FakeServer, Step, dead_url, refusal, serving

ROOT = Path(__file__).parents[2]
NUM_CALLS = 3 * len(faulty.CASES)  # an answer without the edit; a verdict and an answer with it


@pytest.fixture(scope="module")
def server():
    app = FakeServer()
    with serving(app) as app.url:
        yield app


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(faulty.CASES, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def calm(server, data, tmp_path_factory):
    """The table of an undisturbed run."""
    endpoint = server.endpoint(kind=faulty.Table)
    report = faulty.table(faulty.config(data, tmp_path_factory.mktemp("calm"), endpoint.base_url))
    assert set(endpoint.answered.values()) == {1}
    assert sum(endpoint.answered.values()) == NUM_CALLS
    return report


def test_every_fault_is_outlasted(server, data, tmp_path, calm):
    """Errors, rate limits, time-outs, torn and empty replies: nothing is scored wrong because of them."""
    endpoint = server.endpoint(kind=faulty.Faulty)
    report = faulty.table(faulty.config(data, tmp_path / "faulty", endpoint.base_url))
    assert report == calm
    assert set(endpoint.seen) == set(range(len(endpoint.FAULTS)))  # each of them occurred
    assert set(endpoint.answered.values()) == {1}


def test_a_server_that_comes_back_or_has_a_healthy_neighbour_changes_nothing(server, data, tmp_path, calm):
    endpoint = server.endpoint(kind=faulty.Table)
    endpoint.script.extend([Step(b"{", dies=True)] * 20)
    endpoint.step, steady = (
        lambda request: endpoint.script.popleft() if endpoint.script else steady(request),
        endpoint.step,
    )
    assert faulty.table(faulty.config(data, tmp_path / "dies", endpoint.base_url, max_retries=20)) == calm

    endpoint = server.endpoint(kind=faulty.Table)
    assert faulty.table(faulty.config(data, tmp_path / "half", dead_url(), endpoint.base_url)) == calm


def test_a_server_that_is_gone_leaves_samples_unscored_and_the_next_start_scores_them(server, data, tmp_path, calm):
    endpoint = server.endpoint(kind=faulty.Table)
    steady = endpoint.step

    def half(request):
        return steady(request) if crc32(faulty.text_of(request).encode()) % 2 else refusal(400, "gone")

    endpoint.step = half
    options = faulty.config(data, tmp_path / "gone", endpoint.base_url, max_retries=0)
    report = faulty.table(options)
    cells = [cell for system in report["systems"].values() for cell in system["tasks"].values()]
    assert sum(cell["num_unscored"] for cell in cells) > 5
    for cell in cells:  # what is unscored is in no figure, and bounds it
        assert cell["if_wrong"] <= (cell["pass_at_1"] or cell["if_wrong"]) <= cell["if_right"]
    endpoint.step = steady
    assert faulty.table(options) == calm
    assert set(endpoint.answered.values()) == {1}  # what the first start was told was not asked for again


def test_a_wrong_model_name_is_found_before_anything_is_asked(server, data, tmp_path):
    endpoint = server.endpoint(kind=faulty.Table)
    options = faulty.config(data, tmp_path / "name", endpoint.base_url)
    options.reasoner = ModelConfig("http", "other", [endpoint.base_url], api_key_env="NO_SUCH_KEY")
    with pytest.raises(ValueError, match="does not serve 'other'; it serves: tiny-vl"):
        faulty.table(options)
    assert [faulty.text_of(request) for request in endpoint.requests] == ["Say yes."]


def test_a_server_that_answers_nothing_stops_the_run_with_the_reason(server, tmp_path):
    cases = [Case("maze", str(i)) for i in range(HOPELESS + 20)]
    data = write_data(cases, tmp_path / "data")
    endpoint = server.endpoint(always=refusal(404, "no such model"))
    options = faulty.config(data, tmp_path / "out", endpoint.base_url, max_concurrency=2)
    options.tasks, options.concurrency = ["maze"], 2
    with pytest.raises(
        ValueError, match=rf"none of the first {HOPELESS} samples could be scored; .* HTTP 404"
    ) as caught:
        faulty.table(options)
    assert "\n" not in str(caught.value)
    assert len(endpoint.requests) < HOPELESS + 5


def test_20_kills_change_nothing_and_repeat_no_finished_call(server, data, tmp_path, calm):
    """Killed at random moments, in the middle of calls too: what had been written when it died is not asked again."""
    endpoint = server.endpoint(kind=faulty.Table)
    endpoint.delay_s = 0.02
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "tests.evaluation.faulty", endpoint.base_url, data, out, "20", "5"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert ran.returncode == 0, ran.stderr[-2000:]
    result = json.loads(ran.stdout.splitlines()[-1])
    assert result["report"] == calm
    assert result["hits"] == 20
    keys = [json.loads(line)["key"] for line in (out / "calls" / "calls.jsonl").read_bytes().splitlines()]
    assert len(keys) == len(set(keys)) == NUM_CALLS  # every reply was written once: none was asked for again
    lost = sum(endpoint.answered.values()) - 2 * NUM_CALLS  # of the run, and of the one that loads everything
    assert 0 < lost <= 20 * faulty.CONCURRENCY  # what was under way when it was killed, and no more
