"""`serve.build_app` over real HTTP: an editor in process and behind `RemoteEditor` draws the same pixels."""

import base64
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image, ImageChops

from etchr.editor.folder import NANO_BASE
from etchr.editor.klein import KleinEditor
from etchr.editor.remote import RemoteEditor
from etchr.editor.settings import RemoteConfig
from etchr.http.endpoints import CallFailed
from etchr.http.listening import bind
from etchr.images import decode_image, encode_png
from tests.mllm.fake_server import FakeImages, FakeServer, negative, serving
from tests.serving.edit_server import build_app

MAX_BODY_BYTES = 200_000


class SlowEditor:
    """An editor that notes its batches, and draws when it is let."""

    name, batch_size = "slow", 4
    settings = SimpleNamespace(max_pixels=128 * 128)

    def __init__(self) -> None:
        self.may_draw = threading.Event()
        self.may_draw.set()
        self.batches: list[list[int]] = []
        self.arrived = 0  # requests that were put in line

    def with_sampling(
        self, num_inference_steps: int | None = None, guidance_scale: float | None = None
    ) -> "SlowEditor":
        return self

    def fitted_size(self, image: Image.Image) -> tuple[int, int]:
        self.arrived += 1
        return image.size

    def edit(self, images: Sequence[Image.Image], prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        self.batches.append(list(seeds))
        assert self.may_draw.wait(timeout=20)
        if "fail" in prompts:
            raise RuntimeError("no memory")
        return [negative(image, seed) for image, seed in zip(images, seeds, strict=True)]


@pytest.fixture
def slow() -> SlowEditor:
    return SlowEditor()


@pytest.fixture
def url(slow: SlowEditor) -> Iterator[str]:
    with serving(build_app(slow, max_body_bytes=MAX_BODY_BYTES), lifespan="on") as url:
        yield url


@pytest.fixture(scope="module")
def nano() -> KleinEditor:
    return KleinEditor.load(NANO_BASE, device="cpu")


@pytest.fixture(scope="module")
def nano_url(nano: KleinEditor) -> Iterator[str]:
    with serving(build_app(nano), lifespan="on") as url:
        yield url


def remote(url: str, model: str, *sampling: Any, **options: Any) -> RemoteEditor:
    return RemoteEditor.connect(RemoteConfig(model, [f"{url}/v1"], max_retries=1, **options), *sampling)


def picture(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def form(**changes: Any) -> dict[str, Any]:
    """A good request's fields, with changes; None takes one out."""
    return {k: v for k, v in ({"model": "slow", "prompt": "Red box.", "seed": "7"} | changes).items() if v is not None}


def post(url: str, fields: dict[str, Any], image: Any = b"", name: str = "image") -> tuple[int, dict[str, Any]]:
    data = encode_png(picture(0)) if image == b"" else image
    files = {} if data is None else {name: ("source.png", data, "image/png")}
    reply = httpx.post(f"{url}/v1/images/edits", data=fields, files=files or {"other": b"x"}, timeout=20)
    return reply.status_code, reply.json()


def send(url: str, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# The real editor


@pytest.mark.parametrize(("size", "seed"), [((64, 64), 0), ((48, 64), 2**63 - 1), ((61, 35), 126)])
def test_remote_and_local_draw_the_same_pixels(
    nano: KleinEditor, nano_url: str, size: tuple[int, int], seed: int
) -> None:
    source, prompt = picture(1, 64, 64).resize(size), "Red box round the value of bar 1."
    with remote(nano_url, nano.name, max_pixels=nano.settings.max_pixels) as editor:
        made = editor.edit([source], [prompt], [seed])[0]
    expected = nano.edit([source], [prompt], [seed])[0]
    assert made.size == expected.size == editor.fitted_size(source)
    assert made.tobytes() == expected.tobytes()
    assert made.tobytes() != nano.edit([source], [prompt], [seed - 1 if seed else 1])[0].tobytes()


def test_references_reach_the_editor_in_their_order(nano: KleinEditor, nano_url: str) -> None:
    source, small, wide = picture(1), picture(2, 48, 32), picture(3, 64, 48)
    drawn = set()
    with remote(nano_url, nano.name, max_pixels=nano.settings.max_pixels) as editor:
        for references in ([], [small], [small, wide], [wide, small]):
            made = editor.edit([source], ["Red box."], [5], [references])[0]
            assert made.tobytes() == nano.edit([source], ["Red box."], [5], [references])[0].tobytes()
            assert made.size == source.size
            drawn.add(made.tobytes())
        with pytest.raises(ValueError, match="2 lists of references and 1 images do not pair up"):
            editor.edit([source], ["Red box."], [5], [[], []])
    assert len(drawn) == 4


def test_steps_and_guidance_are_the_requests_own(nano: KleinEditor, nano_url: str) -> None:
    source, prompt = picture(2), "Red box round the value of bar 2."
    with remote(nano_url, nano.name, 3, 2.5, max_pixels=4096) as editor:
        made = editor.edit([source], [prompt], [5])[0]
    expected = nano.with_sampling(3, 2.5).edit([source], [prompt], [5])[0]
    assert made.tobytes() == expected.tobytes()
    assert made.tobytes() != nano.edit([source], [prompt], [5])[0].tobytes()
    assert (nano.settings.num_inference_steps, nano.settings.guidance_scale) == (4, 1.0)  # as it was


def test_another_way_of_sampling_shares_the_weights(nano: KleinEditor) -> None:
    other = nano.with_sampling(num_inference_steps=3)
    assert other.transformer is nano.transformer
    assert (other.settings.num_inference_steps, other.settings.guidance_scale) == (3, 1.0)
    assert nano.with_sampling(4, 1.0) is nano.with_sampling() is nano
    with pytest.raises(ValueError, match="num_inference_steps=0"):
        nano.with_sampling(0)


def test_edits_asked_for_at_once_are_the_local_ones(nano: KleinEditor, nano_url: str) -> None:
    sources = [picture(seed, *((64, 64) if seed % 2 else (64, 48))) for seed in range(4)]
    with remote(nano_url, nano.name, max_concurrency=4) as editor, ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda seed: editor.edit([sources[seed]], [f"p{seed}"], [seed])[0], range(4)))
    for seed, image in enumerate(made):
        expected = nano.edit([sources[seed]], [f"p{seed}"], [seed])[0]
        difference = np.asarray(ImageChops.difference(image, expected))
        assert difference.max() <= 1  # one level of 255, where the rounding of a batch falls either way


def test_a_source_larger_than_the_editor_takes_comes_back_at_the_size_asked_for(
    nano: KleinEditor, nano_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with remote(nano_url, nano.name) as editor:
        made = editor.edit([picture(3, 320, 160)], ["x"], [1])[0]
    assert made.size == (320, 160)
    assert "answers with 80x32 where 320x160 was asked for" in caplog.text


# The protocol


def test_answer_has_the_protocols_shape(url: str) -> None:
    status, answer = post(url, form(n="2", size="auto", response_format="b64_json", output_format="png", user="me"))
    assert status == 200
    assert (answer["size"], answer["output_format"]) == ("64x64", "png")
    assert isinstance(answer["created"], int)
    made = [decode_image(base64.b64decode(entry["b64_json"])) for entry in answer["data"]]
    assert [image.tobytes() for image in made] == [negative(picture(0), seed).tobytes() for seed in (7, 8)]


def test_the_array_name_of_the_image_is_known_too(url: str) -> None:
    assert post(url, form(), name="image[]")[0] == 200


def test_without_a_seed_edits_differ(url: str, slow: SlowEditor) -> None:
    for _ in range(2):
        assert post(url, form(seed=None))[0] == 200
    [first], [second] = slow.batches
    assert first != second


def test_models_and_health(url: str) -> None:
    assert send(url, "GET", "/v1/models")[1]["data"][0]["id"] == "slow"
    assert send(url, "GET", "/health") == (200, {"status": "ok", "model": "slow"})


def test_clients_may_know_it_under_another_name(slow: SlowEditor) -> None:
    with serving(build_app(slow, "me/my-editor"), lifespan="on") as url:
        with remote(url, "me/my-editor") as editor:
            assert editor.edit([picture(0)], ["x"], [3])[0].tobytes() == negative(picture(0), 3).tobytes()
        with pytest.raises(ValueError, match="does not serve 'slow'; it serves: me/my-editor"):
            remote(url, "slow")


def test_requests_that_wait_share_batches(url: str, slow: SlowEditor) -> None:
    slow.may_draw.clear()
    with ThreadPoolExecutor(9) as threads:
        replies = [threads.submit(post, url, form(seed="0"))]
        until(lambda: slow.batches)
        replies += [threads.submit(post, url, form(seed=str(seed))) for seed in range(1, 9)]
        until(lambda: slow.arrived == 9)
        slow.may_draw.set()
        assert {reply.result()[0] for reply in replies} == {200}
    assert sorted(seed for batch in slow.batches for seed in batch) == list(range(9))
    assert max(map(len, slow.batches)) == 4


def test_who_hangs_up_is_not_worked_for(url: str, slow: SlowEditor) -> None:
    slow.may_draw.clear()
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(post, url, form(seed="1"))
        until(lambda: slow.batches)
        with httpx.Client() as client:
            files = {"image": ("source.png", encode_png(picture(0)), "image/png")}
            body = client.build_request("POST", f"{url}/v1/images/edits", data=form(seed="2"), files=files)
            hasty = http.client.HTTPConnection(urlsplit(url).netloc)
            hasty.request("POST", "/v1/images/edits", body.read(), dict(body.headers))
        until(lambda: slow.arrived == 2)
        hasty.close()
        last = threads.submit(post, url, form(seed="3"))
        until(lambda: slow.arrived == 3)
        time.sleep(0.3)  # for the server to see it
        slow.may_draw.set()
        assert (first.result()[0], last.result()[0]) == (200, 200)
    assert slow.batches == [[1], [3]]


def test_an_editors_failure_is_a_500_and_the_callers_call_failed(url: str) -> None:
    with remote(url, "slow") as editor:
        with pytest.raises(CallFailed, match="HTTP 500: the editor failed: RuntimeError: no memory"):
            editor.edit([picture(0)], ["fail"], [1])
        assert editor.edit([picture(0)], ["draw"], [1])[0].size == (64, 64)


# Bad requests

BAD_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "no prompt": (form(prompt=None), "prompt is missing"),
    "empty prompt": (form(prompt=" \n"), "prompt: must say what to draw"),
    "long prompt": (form(prompt="x" * 32_001), "prompt: String should have at most 32000 characters"),
    "unknown field": (form(negative_prompt="cats"), "field 'negative_prompt' is not known here; guidance_scale, model"),
    "n of 0": (form(n="0"), "n: Input should be greater than or equal to 1, got '0'"),
    "n too large": (form(n="11"), "n: Input should be less than or equal to 10, got '11'"),
    "size of no shape": (form(size="64"), "size: String should match pattern '^(auto|"),
    "size of 0": (form(size="0x64"), "size: String should match pattern"),
    "seed text": (form(seed="lucky"), "seed: Input should be a valid integer"),
    "seed below 0": (form(seed="-1"), "seed: Input should be greater than or equal to 0"),
    "seed too large": (form(seed=str(2**63)), f"seed: Input should be less than {2**63}, got"),
    "seed without end": (
        form(seed="9" * 100_000),
        "seed: Unable to parse input string as an integer",
    ),
    "seed in other digits": (form(seed="٣"), "seed: Input should be a valid integer"),
    "steps of 0": (form(num_inference_steps="0"), "num_inference_steps: Input should be greater than"),
    "guidance NaN": (form(guidance_scale="nan"), "guidance_scale: Input should be a finite number"),
    "guidance too large": (form(guidance_scale="1e3"), "guidance_scale: Input should be less than or equal to 100"),
    "a URL wanted": (form(response_format="url"), "response_format: Input should be 'b64_json', got 'url'"),
    "JPEG wanted": (form(output_format="jpeg"), "output_format: Input should be 'png', got 'jpeg'"),
    "stream": (form(stream="true"), "stream: Input should be 'false', got 'true'"),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_bad_fields_get_one_sentence(url: str, slow: SlowEditor, case: str) -> None:
    fields, message = BAD_FIELDS[case]
    status, answer = post(url, fields)
    assert status == 400
    assert message in answer["error"]["message"]
    assert len(answer["error"]["message"]) < 300
    assert "\n" not in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"
    assert slow.batches == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "not an image"),
        (encode_png(picture(0))[:-400], "not a readable image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
        (None, "must hold the picture as a file"),
    ],
)
def test_what_is_no_picture_is_refused(url: str, data: bytes | None, message: str) -> None:
    status, answer = post(url, form(), data)
    assert status == 400
    assert message in answer["error"]["message"]


def test_a_web_address_is_refused_and_not_fetched(url: str) -> None:
    canary = FakeServer()
    with serving(canary) as canary.url:
        bait = canary.endpoint(kind=FakeImages)
        status, answer = post(url, form(image=f"{bait.base_url}/models"), None)
    assert status == 400
    assert "URLs are not fetched" in answer["error"]["message"]
    assert bait.authorizations == []  # one entry per request of any kind


def test_more_pictures_than_klein_takes_and_bad_references_are_refused(url: str, slow: SlowEditor) -> None:
    good = encode_png(picture(0))
    for name, further, message in (
        ("image[]", [good] * 4, "Too many files. Maximum number of files is 4"),
        ("image", [good, b"hello"], "not an image"),
    ):
        files = [(name, (f"{number}.png", data)) for number, data in enumerate([good, *further])]
        reply = httpx.post(f"{url}/v1/images/edits", data=form(), files=files)
        assert reply.status_code == 400
        assert message in reply.json()["error"]["message"]
    fields = form(**{"image[]": "http://127.0.0.1/b.png"})
    status, answer = post(url, fields, good)
    assert status == 400
    assert "URLs are not fetched" in answer["error"]["message"]
    assert slow.batches == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"--x"),
        ("multipart/form-data; boundary=x", b"no form at all"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nv\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nslow'),
    ],
)
def test_what_is_no_form_is_refused(url: str, kind: str, body: bytes) -> None:
    status, answer = send(url, "POST", "/v1/images/edits", body, content_type=kind)
    assert status in (400, 404)  # a form that breaks off names no model
    assert "\n" not in answer["error"]["message"]


def test_a_large_body_is_refused(url: str) -> None:
    status, answer = post(url, form(), bytes(MAX_BODY_BYTES))
    assert status == 413
    assert "larger than 200,000 bytes" in answer["error"]["message"]


@pytest.mark.parametrize("model", ["gpt-image-1", None])
def test_another_model_is_a_404(url: str, model: str | None) -> None:
    status, answer = post(url, form(model=model))
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert "'slow' is" in answer["error"]["message"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/images/edits", 405), ("GET", "/v2", 404)])
def test_unknown_routes_answer_in_the_same_format(url: str, method: str, path: str, status: int) -> None:
    got, answer = send(url, method, path)
    assert got == status
    assert path in answer["error"]["message"]


# The socket


def test_a_port_that_is_taken_is_named_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot listen at 127.0.0.1:{port}: Address already in use"):
            bind("127.0.0.1", port)
    with bind("127.0.0.1", 0) as free:
        assert free.getsockname()[1] > 0
    with pytest.raises(ValueError, match=r"cannot listen at no\.such\.host\.invalid:1"):
        bind("no.such.host.invalid", 1)
