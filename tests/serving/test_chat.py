"""`serve.build_app` over real HTTP: the same model in-process and behind `ChatClient` gives the same replies."""

import asyncio
import hashlib
import http.client
import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from etchr.images import to_data_uri
from etchr.mllm.chat import ChatClient, ChatSettings
from etchr.mllm.protocol import GREEDY, CallFailed, Message, Reply, Sampling, user_message
from etchr.serving.chat import build_app
from tests.mllm.fake_server import FakeServer, serving

MAX_BODY_BYTES = 200_000


class EchoModel:
    """Replies with what it was given: roles, texts, a hash of every image's pixels, and the sampling options."""

    name = "echo"

    async def chat(self, messages: Sequence[Message], sampling: Sampling = GREEDY) -> list[Reply]:
        heard: list[Any] = [message["role"] for message in messages]
        for part in (part for message in messages for part in message["content"]):
            if part["type"] == "text":
                if part["text"] == "fail":
                    raise CallFailed("the echo is hoarse")
                heard.append(part["text"])
            else:
                pixels = part["image"].tobytes()
                heard.append([*part["image"].size, part["image"].mode, hashlib.sha256(pixels).hexdigest()])
        texts = [
            json.dumps(
                [heard, sampling.temperature, sampling.max_tokens, None if sampling.seed is None else sampling.seed + i]
            )
            for i in range(sampling.n)
        ]
        logprobs = ({"yes": -0.25, "no": -1.5}, {".": -9999.0, "!": 0.0})
        return [Reply(text, "length", 12, len(text), logprobs) for text in texts]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(build_app(EchoModel(), MAX_BODY_BYTES)) as url:
        yield url


def noise(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def over_http(url: str, messages: list[Message], **options: Any) -> list[Reply]:
    async def call() -> list[Reply]:
        settings = ChatSettings((f"{url}/v1",), "echo", max_retries=0, top_logprobs=2)
        async with ChatClient(settings) as client:
            await client.check()
            return await client.chat(messages, Sampling(**options))

    return asyncio.run(call())


def post(url: str, body: bytes | dict[str, Any], path: str = "/v1/chat/completions") -> tuple[int, dict[str, Any]]:
    return send(url, "POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())


def send(url: str, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def request(**fields: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": "hi"}]} | fields


def with_part(part: Any) -> dict[str, Any]:
    return request(messages=[{"role": "user", "content": [part]}])


def with_image(link: Any) -> dict[str, Any]:
    return with_part({"type": "image_url", "image_url": link})


CONVERSATION: list[Message] = [
    {"role": "system", "content": [{"type": "text", "text": "Be brief. é 漢 \U0001f600"}]},
    user_message("What changed?", noise(1, 33, 20), noise(2, 7, 50)),
    {"role": "assistant", "content": [{"type": "text", "text": "Nothing."}]},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
]


def test_http_and_in_process_give_the_same_reply(url: str) -> None:
    options: dict[str, Any] = {"temperature": 0.5, "max_tokens": 77, "seed": 4}
    assert over_http(url, CONVERSATION, **options) == asyncio.run(EchoModel().chat(CONVERSATION, Sampling(**options)))


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_http_and_in_process_give_the_same_samples(url: str, temperature: float) -> None:
    options: dict[str, Any] = {"n": 3, "temperature": temperature, "seed": 4}
    local = asyncio.run(EchoModel().chat(CONVERSATION, Sampling(**options)))
    remote = over_http(url, CONVERSATION, **options)
    assert [reply.text for reply in remote] == [reply.text for reply in local]
    assert sum(reply.completion_tokens or 0 for reply in remote) == sum(reply.completion_tokens or 0 for reply in local)


def test_pixels_arrive_bit_exact(url: str) -> None:
    image = noise(3, 101, 67)
    [reply] = over_http(url, [user_message("q", image)])
    [heard, *_] = json.loads(reply.text)
    assert heard[1] == [101, 67, "RGB", hashlib.sha256(image.tobytes()).hexdigest()]


def test_the_models_failure_is_the_callers_call_failed(url: str) -> None:
    with pytest.raises(CallFailed, match="HTTP 503: the echo is hoarse"):
        over_http(url, [user_message("fail")])


def test_answer_has_the_protocols_shape(url: str) -> None:
    status, answer = post(url, request(n=2, max_completion_tokens=5, seed=1))
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "echo"
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert "logprobs" not in answer["choices"][0]
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert json.loads(texts[1]) == [["user", "hi"], 1.0, 5, 2]
    count = sum(map(len, texts))
    assert answer["usage"] == {"prompt_tokens": 12, "completion_tokens": count, "total_tokens": 12 + count}


def test_only_the_wanted_logprobs_are_given_best_first(url: str) -> None:
    _, answer = post(url, request(logprobs=True, top_logprobs=1))
    tokens = answer["choices"][0]["logprobs"]["content"]
    assert [(token["token"], token["logprob"], len(token["top_logprobs"])) for token in tokens] == [
        ("yes", -0.25, 1),
        ("!", 0.0, 1),
    ]


def test_models_and_health(url: str) -> None:
    assert send(url, "GET", "/v1/models")[1]["data"][0]["id"] == "echo"
    assert send(url, "GET", "/health") == (200, {"status": "ok", "model": "echo"})


BAD_REQUESTS: dict[str, tuple[bytes | dict[str, Any], str]] = {
    "cut-off JSON": (b'{"model": "echo", ', "not valid JSON"),
    "not UTF-8": (b"\xff\xfe{", "not valid JSON"),
    "deep JSON": (b"[" * 100_000, "not valid JSON"),
    "huge number": (b'{"model": "echo", "n": ' + b"9" * 5000 + b"}", "not valid JSON"),
    "a list": (b"[]", "must be a JSON object"),
    "no messages": ({"model": "echo"}, "messages is missing"),
    "empty messages": (request(messages=[]), "messages: List should have at least 1 item"),
    "message of no shape": (request(messages=[3]), "messages.0: Input should be a valid dictionary"),
    "unknown role": (
        request(messages=[{"role": "tool", "content": "x"}]),
        "messages.0.role: Input should be 'system', 'user' or 'assistant', got 'tool'",
    ),
    "no content": (request(messages=[{"role": "user"}]), "messages.0.content is missing"),
    "unknown part": (
        with_part({"type": "video_url"}),
        "content.0.type: Input should be 'text' or 'image_url', got 'video_url'",
    ),
    "part of no shape": (with_part("text"), "content.0: Input should be a valid dictionary"),
    "text of no shape": (
        with_part({"type": "text", "text": 3}),
        "text: Input should be a valid string, got 3",
    ),
    "text without text": (with_part({"type": "text"}), "a part of type text must hold text"),
    "type without end": (with_part({"type": "\n" * 50_000}), "type: Input should be 'text' or 'image_url', got '\\n"),
    "no message of many": (b'{"model": "echo", "messages": [' + b"3," * 90_000 + b"3]}", "messages.0: Input should be"),
    "image without url": (with_image("data:"), "image_url: Input should be a valid dictionary"),
    "file URL": (with_image({"url": "file:///etc/passwd"}), "URLs are not fetched"),
    "data URI of no image": (with_image({"url": "data:text/html;base64,AAAA"}), "URLs are not fetched"),
    "bad base64": (with_image({"url": "data:image/png;base64,@@@@"}), "not valid base64"),
    "not an image": (with_image({"url": "data:image/png;base64,AAAA"}), "image"),
    "n of 0": (request(n=0), "n: Input should be greater than or equal to 1, got 0"),
    "n too large": (request(n=10**9), "n: Input should be less than or equal to 128, got 1000000000"),
    "n true": (request(n=True), "n: Input should be a valid integer, got True"),
    "temperature NaN": (
        request(temperature=float("nan")),
        "temperature: Input should be less than or equal to 2",
    ),
    "temperature below 0": (request(temperature=-1), "temperature: Input should be greater than or equal to 0, got -1"),
    "max_tokens of 0": (request(max_tokens=0), "max_tokens: Input should be greater than or equal to 1, got 0"),
    "seed text": (request(seed="1"), "seed: Input should be a valid integer, got '1'"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_requests_get_one_sentence(url: str, case: str) -> None:
    body, message = BAD_REQUESTS[case]
    status, answer = post(url, body)
    assert status == 400
    assert message in answer["error"]["message"]
    assert answer["error"]["type"] == "invalid_request_error"
    assert len(answer["error"]["message"]) < 300
    assert "\n" not in answer["error"]["message"]


def test_a_web_address_is_refused_and_not_fetched(url: str) -> None:
    canary = FakeServer()
    with serving(canary) as canary.url:
        bait = canary.endpoint()
        status, answer = post(url, with_image({"url": f"{bait.base_url}/cat.png"}))
    assert status == 400
    assert "URLs are not fetched" in answer["error"]["message"]
    assert bait.authorizations == []  # one entry per request of any kind


def test_too_many_images_are_refused(url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": to_data_uri(noise(0, 2, 2))}}
    status, answer = post(url, request(messages=[{"role": "user", "content": [part] * 17}]))
    assert (status, answer["error"]["message"]) == (400, "a request may hold 16 images, got 17")


def test_a_large_body_is_refused(url: str) -> None:
    status, answer = post(url, b" " * (MAX_BODY_BYTES + 1))
    assert status == 413
    assert "larger than 200,000 bytes" in answer["error"]["message"]


def test_another_model_is_a_404(url: str) -> None:
    for model in ("gpt-5", None, ["echo"], "\ud800"):
        status, answer = post(url, request(model=model))
        assert (status, answer["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/chat/completions", 405), ("GET", "/v2", 404)])
def test_unknown_routes_answer_in_the_same_format(url: str, method: str, path: str, status: int) -> None:
    got, answer = send(url, method, path)
    assert got == status
    assert path in answer["error"]["message"]


def test_lone_surrogates_do_not_break_the_answer(url: str) -> None:
    status, answer = post(url, request(messages=[{"role": "user", "content": "a\ud800"}]))
    assert status == 200
    assert json.loads(answer["choices"][0]["message"]["content"])[0] == ["user", "a?"]
