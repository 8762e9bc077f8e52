"""`RemoteEditor` against scripted servers on the loopback interface: real HTTP, real forms, no patching."""

import asyncio
import base64
import json
import logging
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from etchr.editor import geometry
from etchr.editor.batching import EditBatcher, EditFailed
from etchr.editor.remote import RemoteEditor
from etchr.editor.settings import RemoteConfig
from etchr.http.endpoints import CallFailed
from etchr.images import decode_image, encode_png, to_data_uri
from tests.mllm.fake_server import (
    MODEL,
    FakeEndpoint,
    FakeImages,
    FakeServer,
    Step,
    dead_url,
    negative,
    picture_answer,
    refusal,
)

KEY = "sk-very-secret-0123456789"
KEY_ENV = "ETCHR_TEST_EDITOR_KEY"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer.running() as app:
        yield app


def images_endpoint(server: FakeServer, *script: Step, always: Step | None = None) -> FakeEndpoint:
    return server.endpoint(*script, always=always, kind=FakeImages)


def config(*endpoints: FakeEndpoint | str, **options: Any) -> RemoteConfig:
    urls = [endpoint if isinstance(endpoint, str) else endpoint.base_url for endpoint in endpoints]
    return RemoteConfig(**{"model": MODEL, "base_urls": urls, "api_key_env": KEY_ENV, "timeout_s": 5.0} | options)


def make_editor(
    *endpoints: FakeEndpoint | str, steps: int | None = None, guidance: float | None = None, **options: Any
) -> RemoteEditor:
    return RemoteEditor(config(*endpoints, **options), steps, guidance, backoff_base_s=0.01)


def draw(editor: RemoteEditor, image: Image.Image, prompt: str = "Red box.", seed: int = 1) -> Image.Image:
    with editor:
        return editor.edit([image], [prompt], [seed])[0]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def entry(**fields: Any) -> Step:
    return Step(json.dumps({"created": 0, "data": [fields]}).encode())


# What is sent


def test_source_prompt_and_seed_are_sent_and_nothing_else_that_matters(server: FakeServer) -> None:
    endpoint = images_endpoint(server)
    source, prompt = noise(64, 48), 'A "red" box.\nRound the cat \U0001f600 漢; 100 %'
    draw(make_editor(endpoint), source, prompt, 2**63 - 1)
    [sent] = endpoint.requests
    assert decode_image(sent.pop("image")).tobytes() == source.tobytes()
    assert sent == {
        "prompt": prompt,
        "model": MODEL,
        "n": "1",
        "size": "64x48",
        "seed": str(2**63 - 1),
        "response_format": "b64_json",
    }


def test_steps_and_guidance_are_extra_fields(server: FakeServer) -> None:
    endpoint = images_endpoint(server)
    draw(make_editor(endpoint, steps=12, guidance=3.5), noise(32, 32))
    sent = endpoint.requests[0]
    assert (sent["num_inference_steps"], sent["guidance_scale"]) == ("12", "3.5")


def test_the_configurations_fields_prevail_and_null_leaves_one_out(server: FakeServer) -> None:
    endpoint = images_endpoint(server)
    extra = {"num_inference_steps": 40, "true_cfg_scale": 4.0, "seed": None, "size": None, "response_format": None}
    draw(make_editor(endpoint, steps=12, extra_body=extra), noise(32, 32))
    assert set(endpoint.requests[0]) == {"image", "prompt", "model", "n", "num_inference_steps", "true_cfg_scale"}
    assert endpoint.requests[0]["num_inference_steps"] == "40"


@pytest.mark.parametrize("size", [(500, 300), (301, 77), (64, 64)])
def test_a_source_is_fitted_before_it_is_sent(server: FakeServer, size: tuple[int, int]) -> None:
    endpoint = images_endpoint(server)
    source, editor = noise(*size), make_editor(endpoint, max_pixels=16_384)
    made = draw(editor, source)
    fitted = geometry.fit(source, max_pixels=16_384)
    assert made.size == fitted.size == editor.fitted_size(source)
    assert decode_image(endpoint.requests[0]["image"]).tobytes() == fitted.tobytes()


def test_lone_surrogates_do_not_leave(server: FakeServer) -> None:
    endpoint = images_endpoint(server)
    draw(make_editor(endpoint), noise(16, 16), "a\udfffb")
    assert endpoint.requests[0]["prompt"] == "a?b"


# What comes back


def test_an_edit_comes_back_bit_exact(server: FakeServer) -> None:
    source = noise(64, 48)
    made = draw(make_editor(images_endpoint(server)), source, seed=77)
    assert made.mode == "RGB"
    assert made.tobytes() == negative(source, 77).tobytes()


def test_a_data_uri_is_a_picture_too(server: FakeServer) -> None:
    source = noise(32, 32)
    endpoint = images_endpoint(server, entry(b64_json=to_data_uri(source)))
    assert draw(make_editor(endpoint), source).tobytes() == source.tobytes()


def test_another_size_is_resized_with_one_warning_a_size(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    small = noise(16, 32)
    endpoint = images_endpoint(server, *[picture_answer(small)] * 3)
    with make_editor(endpoint) as editor:
        made = editor.edit([noise(64, 48)] * 2, ["a", "b"], [1, 2])
        editor.edit([noise(48, 48)], ["a"], [1])
        assert editor.edit([noise(48, 48)], ["a"], [1])[0].size == (48, 48)  # the script is over: the asked size
    expected = small.resize((64, 48), Image.Resampling.LANCZOS)
    assert [image.tobytes() for image in made] == [expected.tobytes()] * 2
    warnings = [record.message for record in caplog.records]
    assert warnings == [
        f"{MODEL} answers with 16x32 where 64x48 was asked for; it is resized",
        f"{MODEL} answers with 16x32 where 48x48 was asked for; it is resized",
    ]


def test_a_url_is_refused_and_not_fetched(server: FakeServer) -> None:
    bait = images_endpoint(server)
    endpoint = images_endpoint(server, always=entry(url=f"{bait.base_url}/models"))
    with pytest.raises(CallFailed, match=f"{MODEL} at {endpoint.base_url} sent a URL .* not fetched"):
        draw(make_editor(endpoint), noise(16, 16))
    assert len(endpoint.requests) == 1
    assert bait.authorizations == []  # one entry per request of any kind


def bomb() -> str:
    """A small PNG of 2.5 thousand million pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99)))]
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in [*chunks, (b"IEND", b"")]:
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return base64.b64encode(data).decode()


WHOLE = picture_answer(Image.new("RGB", (16, 16)))
PASSING_FAULTS = {
    **{f"HTTP {status}": refusal(status) for status in (408, 409, 429, 500, 502, 503, 504)},
    "cut-off JSON": Step(WHOLE.body[:-9]),
    "empty body": Step(b""),
    "HTML": Step(b"<html>busy</html>", headers={"content-type": "text/html"}),
    "deep JSON": Step(b"[" * 100_000),
    "error in a 200": Step(b'{"error": {"message": "overloaded"}}'),
    "no picture": Step(b'{"data": []}'),
    "data of no shape": Step(b'{"data": [null, 3]}'),
    "null picture": entry(b64_json=None),
    "empty picture": entry(b64_json=""),
    "not base64": entry(b64_json="@@@@"),
    "not an image": entry(b64_json=base64.b64encode(b"hello").decode()),
    "cut-off picture": entry(b64_json=base64.b64encode(encode_png(noise(32, 32))[:-800]).decode()),
    "a bomb": entry(b64_json=bomb()),
    "dies half-way": Step(WHOLE.body, dies=True),
    "time-out": picture_answer(Image.new("RGB", (16, 16)), delay_s=1.0),
}


@pytest.mark.parametrize("fault", PASSING_FAULTS)
def test_a_passing_fault_is_retried(server: FakeServer, fault: str) -> None:
    endpoint = images_endpoint(server, PASSING_FAULTS[fault])
    editor = make_editor(endpoint, timeout_s=0.4 if fault == "time-out" else 5.0)
    source = noise(16, 16)
    assert draw(editor, source, seed=5).tobytes() == negative(source, 5).tobytes()
    assert (editor.stats.calls, editor.stats.retries, editor.stats.failures) == (2, 1, 0)
    assert endpoint.requests[0] == endpoint.requests[1]


def test_a_picture_that_stays_unusable_is_named(server: FakeServer) -> None:
    endpoint = images_endpoint(server, always=PASSING_FAULTS["a bomb"])
    with pytest.raises(CallFailed, match=r"cannot be used: .*2500000000 pixels.*; gave up after 2"):
        draw(make_editor(endpoint, max_retries=1), noise(16, 16))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_wrong_request_fails_at_once(server: FakeServer, status: int) -> None:
    endpoint = images_endpoint(server, always=refusal(status))
    with pytest.raises(CallFailed, match=f"{MODEL} at {endpoint.base_url}.*HTTP {status}") as caught:
        draw(make_editor(endpoint), noise(16, 16))
    assert len(endpoint.requests) == 1
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        ("Invalid size format: '1x'", "HTTP 400: Invalid size format: '1x'"),
        ([{"loc": ["body", "seed"], "msg": "not an integer"}], "HTTP 400: seed: not an integer"),
        ([{"msg": "no"}], "HTTP 400: no"),
        ([], "HTTP 400$"),
        ([3], "HTTP 400$"),
    ],
)
def test_the_words_of_servers_on_fastapi_are_quoted(server: FakeServer, detail: Any, said: str) -> None:
    endpoint = images_endpoint(server, Step(json.dumps({"detail": detail}).encode(), 400))
    with pytest.raises(CallFailed, match=said):
        draw(make_editor(endpoint), noise(16, 16))


def test_a_server_that_refuses_response_format_is_asked_without_it(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = refusal(400, "Unknown parameter: 'response_format'.")
    endpoint = images_endpoint(server, unknown)
    source = noise(16, 16)
    with make_editor(endpoint) as editor:
        for seed in (1, 2):
            assert editor.edit([source], ["x"], [seed])[0].tobytes() == negative(source, seed).tobytes()
    assert ["response_format" in request for request in endpoint.requests] == [True, False, False]
    assert caplog.text.count("left out from now on") == 1


def test_a_refused_field_that_was_configured_is_no_matter_of_ours(server: FakeServer) -> None:
    endpoint = images_endpoint(server, always=refusal(400, "Unknown parameter: 'response_format'."))
    with pytest.raises(CallFailed, match="Unknown parameter"):
        draw(make_editor(endpoint, extra_body={"response_format": "b64_json"}), noise(16, 16))
    assert len(endpoint.requests) == 1


def test_retry_after_is_waited(server: FakeServer) -> None:
    endpoint = images_endpoint(server, refusal(429, retry_after="0.3"))
    draw(make_editor(endpoint), noise(16, 16))
    assert 0.3 <= endpoint.times[1] - endpoint.times[0] < 5


def test_a_dead_and_a_failing_server_are_left_for_one_that_works(server: FakeServer) -> None:
    broken, alive = images_endpoint(server, always=refusal(500)), images_endpoint(server)
    with make_editor(dead_url(), broken, alive) as editor:
        for seed in range(4):
            editor.edit([noise(16, 16)], ["x"], [seed])
    assert len(alive.requests) == 4


# Batches and threads


def test_a_batch_keeps_its_order(server: FakeServer) -> None:
    endpoint = images_endpoint(server)
    sources = [noise(16 * (1 + index % 3), 16, index) for index in range(6)]
    with make_editor(endpoint, max_concurrency=3) as editor:
        made = editor.edit(sources, [f"p{index}" for index in range(6)], list(range(6)))
    assert [image.tobytes() for image in made] == [negative(s, index).tobytes() for index, s in enumerate(sources)]


def test_the_first_failure_ends_its_batch(server: FakeServer) -> None:
    slow = picture_answer(noise(16, 16), delay_s=5.0)
    endpoint = images_endpoint(server, refusal(400, "no such thing"), slow, slow)
    begin = time.monotonic()
    with make_editor(endpoint) as editor, pytest.raises(CallFailed, match="no such thing"):
        editor.edit([noise(16, 16)] * 3, ["a"] * 3, [1, 2, 3])
    assert time.monotonic() - begin < 4


def test_unpaired_inputs_are_refused(server: FakeServer) -> None:
    with make_editor(dead_url()) as editor, pytest.raises(ValueError, match="1 images, 2 prompts and 1 seeds"):
        editor.edit([noise(16, 16)], ["a", "b"], [1])


def test_many_threads_share_one_editor(server: FakeServer) -> None:
    endpoint = images_endpoint(server)
    sources = [noise(16, 16, seed) for seed in range(40)]
    with make_editor(endpoint, max_concurrency=5) as editor, ThreadPoolExecutor(12) as threads:
        made = list(threads.map(lambda seed: editor.edit([sources[seed]], ["x"], [seed])[0], range(40)))
    assert [image.tobytes() for image in made] == [negative(s, seed).tobytes() for seed, s in enumerate(sources)]
    assert endpoint.max_in_flight <= 5


def test_behind_a_batcher_edits_overlap_and_a_failure_is_one_samples_own(server: FakeServer) -> None:
    endpoint = images_endpoint(server, refusal(400, "forbidden"), *[picture_answer(noise(16, 16), delay_s=0.2)] * 8)

    async def run(editor: RemoteEditor) -> list[Any]:
        async with EditBatcher(editor, batch_size=1, workers=4) as batcher:
            return await asyncio.gather(
                *(batcher.edit(noise(16, 16), "x", seed) for seed in range(9)), return_exceptions=True
            )

    with make_editor(endpoint, max_concurrency=4) as editor:
        results = asyncio.run(run(editor))
    failed = [result for result in results if isinstance(result, EditFailed)]
    assert len(failed) == 1
    assert f"CallFailed: {MODEL} at {endpoint.base_url} answered HTTP 400: forbidden" in str(failed[0])
    assert endpoint.max_in_flight == 4


def test_retries_end_in_a_failed_edit(server: FakeServer) -> None:
    endpoint = images_endpoint(server, always=refusal(500, "out of memory"))

    async def run(editor: RemoteEditor) -> None:
        async with EditBatcher(editor, batch_size=1) as batcher:
            await batcher.edit(noise(16, 16), "x", 1)

    with (
        make_editor(endpoint, max_retries=2) as editor,
        pytest.raises(EditFailed, match="out of memory; gave up after 3"),
    ):
        asyncio.run(run(editor))
    assert editor.stats.failures == 1


# Its end


def editor_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "remote-editor"]


def test_closing_frees_who_waits_and_leaves_no_thread(server: FakeServer) -> None:
    endpoint = images_endpoint(server, always=picture_answer(noise(16, 16), delay_s=30.0))
    editor = make_editor(endpoint, timeout_s=60.0)
    with ThreadPoolExecutor(2) as threads:
        edits = [threads.submit(editor.edit, [noise(16, 16)], ["x"], [seed]) for seed in range(2)]
        deadline = time.monotonic() + 10
        while len(endpoint.requests) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        editor.close()
        for edit in edits:
            with pytest.raises(CallFailed, match="was closed before it sent the edit"):
                edit.result(timeout=5)
    editor.close()  # again
    assert editor_threads() == []
    with pytest.raises(CallFailed, match="was closed"):
        editor.edit([noise(16, 16)], ["x"], [1])


def test_an_editor_that_cannot_connect_leaves_no_thread(server: FakeServer) -> None:
    with pytest.raises(ValueError, match="start the server or correct base_urls"):
        RemoteEditor.connect(config(dead_url()))
    assert editor_threads() == []


# Before the run


def test_connecting_asks_for_the_models_alone(server: FakeServer) -> None:
    endpoint = images_endpoint(server)
    RemoteEditor.connect(config(endpoint)).close()
    assert endpoint.requests == []
    assert len(endpoint.authorizations) == 1


def test_connecting_names_what_is_served_instead(server: FakeServer) -> None:
    endpoint = images_endpoint(server)
    endpoint.models = Step(json.dumps({"data": [{"id": "other-editor"}]}).encode())
    with pytest.raises(ValueError, match=f"does not serve '{MODEL}'; it serves: other-editor"):
        RemoteEditor.connect(config(endpoint))


def test_connecting_names_the_variable_of_a_refused_key(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = images_endpoint(server)
    endpoint.models = refusal(401)
    monkeypatch.setenv(KEY_ENV, KEY)
    with pytest.raises(ValueError, match=rf"refused the key in {KEY_ENV} \(HTTP 401\)"):
        RemoteEditor.connect(config(endpoint))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": ""}, "needs model=NAME"),
        ({"base_urls": []}, "needs model=NAME"),
        ({"base_urls": ["127.0.0.1:8000"]}, "a base URL looks like"),
        ({"base_urls": [f"http://me:{KEY}@h/v1"]}, "may hold no user name"),
        ({"api_key_env": KEY}, "NAME of an environment variable"),
        ({"timeout_s": 0}, "timeout_s must be above 0"),
        ({"max_concurrency": 0}, "max_concurrency=0 must be at least 1"),
        ({"max_pixels": 255}, "max_pixels=255 must be at least 256"),
        ({"extra_body": {"prompt": "x"}}, r"extra_body may not set \['prompt'\]"),
        ({"extra_body": {"seed": 7}}, "extra_body may not set seed"),
    ],
)
def test_bad_options_are_refused_without_repeating_a_key(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        config("http://h/v1", **options)
    assert KEY not in repr(caught.value)


@pytest.mark.parametrize(("steps", "guidance"), [(0, None), (None, -1.0), (None, float("nan")), (None, float("inf"))])
def test_senseless_sampling_is_refused(steps: int | None, guidance: float | None) -> None:
    with pytest.raises(ValueError, match="must be"):
        make_editor("http://h/v1", steps=steps, guidance=guidance)
    assert editor_threads() == []


def test_its_name_is_the_last_part_of_the_model() -> None:
    with make_editor("http://h/v1", model="black-forest-labs/FLUX.2-klein-base-4B") as editor:
        assert editor.name == "FLUX.2-klein-base-4B"


# The key


@pytest.mark.parametrize("step", [refusal(status, f"bad key {KEY}") for status in (400, 401, 403, 404, 422, 500)])
def test_an_echoed_key_is_told_to_nobody(
    server: FakeServer, step: Step, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(KEY_ENV, KEY)
    endpoint = images_endpoint(server, always=step)
    editor = make_editor(endpoint, max_retries=1)
    with pytest.raises(CallFailed) as caught:
        draw(editor, noise(16, 16))
    assert endpoint.authorizations[0] == f"Bearer {KEY}"
    told = [repr(caught.value), repr(caught.value.__cause__), repr(caught.value.__context__), caplog.text]
    assert not any(KEY in text for text in [*told, repr(vars(editor)), repr(editor.config)])


def test_importing_is_light() -> None:
    heavy = "{'torch', 'openai', 'starlette'}"
    code = f"import sys, etchr.editor.remote; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
