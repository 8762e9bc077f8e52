"""A run whose editor is elsewhere: the same records as with a local one, and nothing drawn twice after a failure."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from etchr.editor.settings import RemoteConfig
from etchr.images import decode_image
from evaluation.factory import build_editor
from evaluation.run import evaluate
from evaluation.settings import EditingConfig, SystemConfig
from tests.evaluation.fakes import Case, TableEditor
from tests.evaluation.runs import Run
from tests.mllm.fake_server import (
    MODEL,
    FakeEndpoint,
    FakeImages,
    FakeServer,
    Step,
    dead_url,
    picture_answer,
    refusal,
)

CASES = [Case("maze", str(index), draws="right" if index % 2 else "wrong") for index in range(6)]
DECIDES = ("verdict", "verdict_text", "used_edit", "answer", "answer_text", "correct", "unscored", "edit_correct")


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer.running() as app:
        yield app


@pytest.fixture
def run(new_run) -> Run:
    return new_run(CASES)


class Drawn(FakeImages):
    """It draws what the run's local editor would, save the samples that it refuses."""

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url)
        self.editor: TableEditor | None = None
        self.refused: set[str] = set()

    def step(self, request: dict[str, Any]) -> Step:
        self.requests.append(request)
        if any(request["prompt"].endswith(f"maze {key}?") for key in self.refused):
            return refusal(400, "not that one")
        return picture_answer(self.editor.edit([decode_image(request["image"])], [request["prompt"]], [0])[0])


@pytest.fixture
def endpoint(server: FakeServer, run: Run) -> FakeEndpoint:
    endpoint = server.endpoint(kind=Drawn)
    endpoint.editor = run.editor
    return endpoint


def elsewhere(run: Run, url: str, editing: EditingConfig | None = None, **options: Any):
    remote = RemoteConfig(MODEL, [url], max_retries=1, **options)
    editing = editing or EditingConfig(cache=str(run.folder / "edits"))
    return run.config({"evr": SystemConfig("evr", remote=remote)}, reference="evr", editing=editing)


def evaluated(run: Run, config) -> dict[str, dict[str, Any]]:
    evaluate(config, build_model=lambda _: run.model, build_editor=build_editor)
    assert not [thread for thread in threading.enumerate() if thread.name == "remote-editor"]
    return run.records("evr")


def test_records_are_those_of_a_local_editor_and_edits_that_are_kept_need_no_server(
    run: Run, endpoint: FakeEndpoint
) -> None:
    made = evaluated(run, elsewhere(run, endpoint.base_url))
    run.out = run.folder / "local"
    config = run.config({"evr": run.edits()}, reference="evr")
    evaluate(config, build_model=lambda _: run.model, build_editor=lambda *_: run.editor)
    expected = run.records("evr")
    assert made.keys() == expected.keys() == {case.id for case in CASES}
    for key, record in made.items():
        assert {name: record.get(name) for name in DECIDES} == {name: expected[key].get(name) for name in DECIDES}

    run.out = run.folder / "again"
    second = evaluated(run, elsewhere(run, dead_url()))
    assert {key: record["answer"] for key, record in second.items()} == {k: r["answer"] for k, r in made.items()}


def test_what_a_server_refuses_is_unscored_and_asked_for_again(run: Run, endpoint: FakeEndpoint) -> None:
    endpoint.refused = {"3"}
    unscored = {key: record["unscored"] for key, record in evaluated(run, elsewhere(run, endpoint.base_url)).items()}
    assert [key for key, reason in unscored.items() if reason] == ["maze-3"]
    assert "HTTP 400: not that one" in unscored["maze-3"]
    endpoint.refused = set()
    endpoint.requests.clear()
    assert evaluated(run, elsewhere(run, endpoint.base_url))["maze-3"]["unscored"] is None
    assert [request["prompt"][-len("maze 3?") :] for request in endpoint.requests] == ["maze 3?"]


def test_a_server_that_is_not_there_stops_the_run_before_a_sample_is_recorded(run: Run, endpoint: FakeEndpoint) -> None:
    with pytest.raises(ValueError, match="start the server or correct base_urls"):
        evaluated(run, elsewhere(run, dead_url()))
    assert not (run.out / "records" / "evr.jsonl").is_file() or not run.records("evr")
    assert len(evaluated(run, elsewhere(run, endpoint.base_url))) == len(CASES)  # where it is served decides nothing


def test_the_runs_options_reach_the_server(run: Run, endpoint: FakeEndpoint) -> None:
    editing = EditingConfig(num_inference_steps=7, guidance_scale=1.5, max_pixels=1024, cache=None)
    evaluated(run, elsewhere(run, endpoint.base_url, editing))
    sent = endpoint.requests[0]
    assert (sent["num_inference_steps"], sent["guidance_scale"], sent["size"]) == ("7", "1.5", "32x32")
    assert len({request["seed"] for request in endpoint.requests}) == len(CASES)
