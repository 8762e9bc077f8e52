"""`ChatClient` against scripted servers on the loopback interface: real HTTP, no patching."""

import asyncio
import base64
import dataclasses
import email.utils
import gc
import gzip
import io
import json
import logging
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

from etchr.images import from_data_uri
from etchr.mllm.chat import ChatClient, ChatSettings
from etchr.mllm.protocol import CallFailed, Reply, Sampling, user_message
from tests.mllm.fake_server import MODEL, FakeEndpoint, FakeServer, Step, answer, dead_url, refusal

KEY = "sk-very-secret-0123456789"
KEY_ENV = "ETCHR_TEST_CHAT_KEY"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with FakeServer.running() as app:
        yield app


def make_client(*endpoints: FakeEndpoint | str, **options: Any) -> ChatClient:
    urls = tuple(endpoint if isinstance(endpoint, str) else endpoint.base_url for endpoint in endpoints)
    fast: dict[str, Any] = {"timeout_s": 5.0, "backoff_base_s": 0.01, "backoff_max_s": 0.05, "api_key_env": KEY_ENV}
    return ChatClient(ChatSettings(urls, **({"model": MODEL} | fast | options)))


def ask(client: ChatClient, text: str = "q", *images: Image.Image, **options: Any) -> list[Reply]:
    async def call() -> list[Reply]:
        async with client:
            return await client.chat([user_message(text, *images)], Sampling(**options))

    return asyncio.run(call())


def ask_many(client: ChatClient, count: int) -> list[Reply]:
    async def calls() -> list[Reply]:
        async with client:
            replies = await asyncio.gather(*(client.chat([user_message(f"q{i}")]) for i in range(count)))
            return [reply for [reply] in replies]

    return asyncio.run(calls())


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def sent_images(endpoint: FakeEndpoint) -> list[Image.Image]:
    parts = endpoint.requests[-1]["messages"][-1]["content"]
    return [from_data_uri(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]


# What is sent


def test_pixels_arrive_bit_exact_in_order_and_before_the_text(server: FakeServer) -> None:
    endpoint = server.endpoint()
    first, second = noise(31, 17), noise(8, 40)
    ask(make_client(endpoint), "which?", first, second)
    parts = endpoint.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image_url", "image_url", "text"]
    assert parts[2]["text"] == "which?"
    assert [image.tobytes() for image in sent_images(endpoint)] == [first.tobytes(), second.tobytes()]


def test_a_palette_image_is_sent_with_its_colours(server: FakeServer) -> None:
    endpoint = server.endpoint()
    image = noise(9, 9, "P")
    ask(make_client(endpoint), "q", image)
    assert sent_images(endpoint)[0].tobytes() == image.convert("RGB").tobytes()


def test_transparency_is_sent_as_white_and_not_left_to_the_server(server: FakeServer) -> None:
    endpoint = server.endpoint()
    ask(make_client(endpoint), "q", Image.new("RGBA", (2, 2), (0, 0, 0, 0)))
    uri = endpoint.requests[0]["messages"][0]["content"][0]["image_url"]["url"]
    sent = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert (sent.mode, sent.getpixel((0, 0))) == ("RGB", (255, 255, 255))


@pytest.mark.parametrize("size", [(100, 50), (333, 77), (1, 5000), (5000, 1), (64, 64)])
def test_images_over_the_cap_shrink_with_their_aspect_ratio(server: FakeServer, size: tuple[int, int]) -> None:
    endpoint = server.endpoint()
    ask(make_client(endpoint, max_image_pixels=1000), "q", noise(*size))
    width, height = sent_images(endpoint)[0].size
    assert width * height <= 1000
    if min(size) > 1:
        assert width / height == pytest.approx(size[0] / size[1], rel=0.1)
        assert width * height > 850  # not smaller than needed


def test_images_under_the_cap_are_untouched(server: FakeServer) -> None:
    endpoint = server.endpoint()
    image = noise(20, 50)
    ask(make_client(endpoint, max_image_pixels=1000), "q", image)
    assert sent_images(endpoint)[0].tobytes() == image.tobytes()


def test_sampling_options_reach_the_server(server: FakeServer) -> None:
    endpoint = server.endpoint()
    client = make_client(endpoint, extra_body={"top_p": 0.8, "top_k": 20}, top_logprobs=5)
    ask(client, "plain", n=2, temperature=0.7, max_tokens=9, seed=3)
    assert endpoint.requests == [
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": "plain"}],
            "n": 2,
            "temperature": 0.7,
            "max_tokens": 9,
            "seed": 3,
            "top_p": 0.8,
            "top_k": 20,
            "logprobs": True,
            "top_logprobs": 5,
        }
    ]


def test_defaults_send_nothing_but_the_call(server: FakeServer) -> None:
    endpoint = server.endpoint()
    ask(make_client(endpoint, token_limit_field="max_completion_tokens"))
    assert set(endpoint.requests[0]) == {"model", "messages", "n", "temperature", "max_completion_tokens"}


def test_lone_surrogates_neither_leave_nor_enter(server: FakeServer) -> None:
    endpoint = server.endpoint(answer("a\ud800b"))
    [reply] = ask(make_client(endpoint), "q\udfff")
    assert reply.text.encode() == b"a?b"
    assert endpoint.requests[0]["messages"][0]["content"] == "q?"


# What comes back


def test_reply_carries_counts_and_finish_reason(server: FakeServer) -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 7}
    client = make_client(server.endpoint(answer("x", "y", finish_reason="length", usage=usage)))
    first, second = ask(client, n=2, temperature=1.0)
    assert first == Reply("x", "length", 11, 7)
    assert second == Reply("y", "length", None, None)
    assert (client.stats.prompt_tokens, client.stats.completion_tokens) == (11, 7)


def test_a_reply_cut_off_before_its_first_word_is_a_reply(server: FakeServer) -> None:
    """All its tokens went into thoughts that are not shown: it would be so the next time too, and is paid for."""
    endpoint = server.endpoint(answer(None, finish_reason="length", usage={"completion_tokens": 4096}))
    client = make_client(endpoint)
    assert ask(client) == [Reply("", "length", None, 4096)]
    assert (client.stats.calls, client.stats.failures) == (1, 0)


@pytest.mark.parametrize("usage", [None, [], "many", {"prompt_tokens": -1, "completion_tokens": True}])
def test_unusable_counts_are_none(server: FakeServer, usage: Any) -> None:
    assert ask(make_client(server.endpoint(answer("x", usage=usage)))) == [Reply("x")]


def test_logprobs_per_token_hold_the_drawn_token_and_the_top_ones(server: FakeServer) -> None:
    top = [{"token": "B", "logprob": -0.1}, {"token": "A", "logprob": -3.0}, {"token": "A", "logprob": -9.0}]
    content = [{"token": "C", "logprob": -5.0, "top_logprobs": top}, {"token": ".", "logprob": 0, "top_logprobs": []}]
    choice = {"message": {"content": "C."}, "finish_reason": "stop", "logprobs": {"content": content}}
    endpoint = server.endpoint(Step(json.dumps({"choices": [choice]}).encode()))
    [reply] = ask(make_client(endpoint, top_logprobs=3))
    assert reply.logprobs == ({"B": -0.1, "A": -3.0, "C": -5.0}, {".": 0.0})


@pytest.mark.parametrize("logprobs", [None, {}, [], {"content": [{"token": "x", "logprob": "y"}]}, {"content": [3]}])
def test_unusable_logprobs_are_none(server: FakeServer, logprobs: Any) -> None:
    choice = {"message": {"content": "x"}, "logprobs": logprobs}
    endpoint = server.endpoint(Step(json.dumps({"choices": [choice]}).encode()))
    assert ask(make_client(endpoint, top_logprobs=1)) == [Reply("x")]


def test_missing_choices_are_asked_for_again_with_other_seeds(server: FakeServer) -> None:
    endpoint = server.endpoint(answer("only one"), answer("second", "", None))
    replies = ask(make_client(endpoint), n=4, temperature=1.0, seed=10)
    assert [reply.text for reply in replies] == ["only one", "second", "reply 12", "reply 13"]
    assert [(request["n"], request["seed"]) for request in endpoint.requests] == [(4, 10), (3, 11), (2, 12)]


def test_surplus_choices_are_dropped(server: FakeServer) -> None:
    endpoint = server.endpoint(answer("a", "b", "c"))
    assert [reply.text for reply in ask(make_client(endpoint), n=2, temperature=1.0)] == ["a", "b"]


def test_greedy_completions_are_single_requests(server: FakeServer) -> None:
    endpoint = server.endpoint()
    assert len(ask(make_client(endpoint), n=3)) == 3
    assert [request["n"] for request in endpoint.requests] == [1, 1, 1]


# Faults of one endpoint

PASSING_FAULTS = {
    **{f"HTTP {status}": refusal(status) for status in (408, 409, 429, 500, 502, 503, 504)},
    "cut-off JSON": Step(answer("x").body[:-9]),
    "empty body": Step(b""),
    "HTML": Step(b"<html>busy</html>", headers={"content-type": "text/html"}),
    "deep JSON": Step(b"[" * 100_000),
    "error in a 200": Step(b'{"error": {"message": "overloaded"}}'),
    "no choices": answer(),
    "null content": answer(None),
    "empty content": answer(" \n"),
    "choices of no shape": Step(b'{"choices": [null, 3, {"message": []}]}'),
    "dies half-way": Step(answer("x").body, dies=True),
    "time-out": answer("late", delay_s=1.0),
}


@pytest.mark.parametrize("fault", PASSING_FAULTS)
def test_a_passing_fault_is_retried(server: FakeServer, fault: str) -> None:
    endpoint = server.endpoint(PASSING_FAULTS[fault])
    client = make_client(endpoint, timeout_s=0.4 if fault == "time-out" else 5.0)
    assert ask(client)[0].text == "reply 0"
    assert (client.stats.calls, client.stats.retries, client.stats.failures) == (2, 1, 0)
    assert endpoint.requests[0] == endpoint.requests[1]


@pytest.mark.parametrize(
    "step",
    [
        answer("x" * 3000),
        refusal(400, "x" * 3000),
        Step(gzip.compress(answer("x" * 10**6).body), headers={"content-encoding": "gzip"}),
    ],
)
def test_a_reply_of_more_bytes_than_are_taken_is_a_failed_call(server: FakeServer, step: Step) -> None:
    """It is missing, as any reply that cannot be used: asked for again first, and the server is not taken for dead."""
    assert len(step.body) < 4000
    endpoint = server.endpoint(step, step)
    with pytest.raises(CallFailed, match="sent more than 2,000 bytes; gave up after 2 attempts"):
        ask(make_client(endpoint, max_reply_bytes=2000, max_retries=1))
    [reply] = ask(make_client(server.endpoint(step), max_reply_bytes=2000))
    assert reply.text == "reply 0"


def test_a_compressed_reply_is_read(server: FakeServer) -> None:
    packed = Step(gzip.compress(answer("fine").body), headers={"content-encoding": "gzip"})
    assert ask(make_client(server.endpoint(packed)))[0].text == "fine"


def test_the_timeout_is_for_the_whole_answer(server: FakeServer) -> None:
    endpoint = server.endpoint(Step(answer("a byte now and then").body, drip_s=0.01))
    client = make_client(endpoint, timeout_s=0.4)
    assert ask(client)[0].text == "reply 0"
    assert client.stats.retries == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_wrong_request_fails_at_once(server: FakeServer, status: int) -> None:
    endpoint = server.endpoint(always=refusal(status))
    client = make_client(endpoint)
    with pytest.raises(CallFailed, match=f"{MODEL} at {endpoint.base_url}.*HTTP {status}"):
        ask(client)
    assert len(endpoint.requests) == client.stats.calls == client.stats.failures == 1


def test_a_404_points_at_the_model_name(server: FakeServer) -> None:
    with pytest.raises(CallFailed, match="the model name or the base URL may be wrong: no such model"):
        ask(make_client(server.endpoint(refusal(404, "no such model"))))


def test_a_400_quotes_the_server_shortly(server: FakeServer) -> None:
    with pytest.raises(CallFailed, match="HTTP 400: too long") as caught:
        ask(make_client(server.endpoint(refusal(400, "too\nlong " + "x" * 10_000))))
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_the_words_of_a_server_on_fastapi_are_quoted(server: FakeServer) -> None:
    endpoint = server.endpoint(Step(json.dumps({"detail": "no such adapter"}).encode(), 422))
    with pytest.raises(CallFailed, match="HTTP 422: no such adapter") as caught:
        ask(make_client(endpoint))
    assert caught.value.status == 422


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(server: FakeServer, status: int) -> None:
    other = server.endpoint()
    endpoint = server.endpoint(always=Step(b"", status, {"location": f"{other.base_url}/chat/completions"}))
    endpoint.models = Step(b"", status, {"location": f"{other.base_url}/models"})
    with pytest.raises(CallFailed, match=f"HTTP {status}, a redirect, which is not followed"):
        ask(make_client(endpoint), "q", noise(4, 4))
    check(make_client(endpoint))
    assert (other.requests, other.authorizations) == ([], [])


def test_an_error_with_the_status_of_a_success_is_an_error(server: FakeServer) -> None:
    def step(**error: Any) -> Step:
        return Step(json.dumps({"error": error}).encode())

    endpoint = server.endpoint(step(message="busy", code=503), step(message="busy", code="rate_limit"))
    assert ask(make_client(endpoint))[0].text == "reply 0"
    for error, words in (
        ({"message": "no credit left", "code": 402}, "HTTP 402: no credit left"),
        ({"message": "no such model", "code": "404"}, "HTTP 404.*no such model"),
    ):
        endpoint = server.endpoint(always=step(**error))
        with pytest.raises(CallFailed, match=words):
            ask(make_client(endpoint))
        assert len(endpoint.requests) == 1


class NewModel(FakeEndpoint):
    """Refuses `max_tokens`, as newer models of OpenAI do."""

    def step(self, request: dict[str, Any]) -> Step:
        step = super().step(request)
        words = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return refusal(400, words) if "max_tokens" in request else step


def test_the_name_of_the_token_limit_is_found_out_once(server: FakeServer) -> None:
    endpoint = server.endpoint(kind=NewModel)
    client = make_client(endpoint)
    for _ in range(2):
        ask(client, max_tokens=9)
    sent = [{key: value for key, value in request.items() if "tokens" in key} for request in endpoint.requests]
    assert sent == [{"max_tokens": 9}, {"max_completion_tokens": 9}, {"max_completion_tokens": 9}]
    assert client.stats.failures == 0
    with pytest.raises(CallFailed, match="HTTP 400: Unsupported parameter"):
        ask(make_client(server.endpoint(kind=NewModel), token_limit_field="max_tokens"))


def test_finish_reasons_have_one_spelling_and_what_a_server_broke_off_is_no_reply(server: FakeServer) -> None:
    read = {
        "stop": ("stop", "STOP", "eos", "end_turn", "stop_sequence", "COMPLETE", "", None),
        "length": ("length", "LENGTH", "max_tokens", "MAX_TOKENS", "model_length"),
        "tool_calls": ("tool_calls", "tool_use", "function_call"),
    }
    for expected, spellings in read.items():
        for spelling in spellings:
            [reply] = ask(make_client(server.endpoint(answer("half", finish_reason=spelling))))  # type: ignore[arg-type]
            assert reply.finish_reason == expected, spelling
    for spelling in ("error", "abort", "content_filter", "SAFETY", "cancelled", "something new"):
        endpoint = server.endpoint(answer("half", finish_reason=spelling))
        assert ask(make_client(endpoint))[0].text == "reply 0"
        with pytest.raises(CallFailed, match=f"broke it off .finish_reason '{spelling}'"):
            ask(make_client(server.endpoint(always=answer("half", finish_reason=spelling)), max_retries=1))


def big_png(width: int, height: int) -> str:
    """A few kilobytes that say they are a picture of this size."""
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_what_a_hostile_server_sends_costs_its_own_call_only(server: FakeServer) -> None:
    def drawn(*uris: str) -> Step:
        images = [{"type": "image_url", "image_url": {"url": uri}} for uri in uris]
        message = {"content": "look", "images": images}
        return Step(json.dumps({"choices": [{"message": message}]}).encode())

    logprobs = {"content": [{"token": "a", "logprob": -1, "top_logprobs": []}]}
    surprised = json.dumps({"choices": [{"message": {"content": "a"}, "logprobs": logprobs}]})
    huge = surprised.replace("-1", "-1" + "0" * 400)
    usage = json.dumps({"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": 7}})
    for step, words in (
        (drawn(big_png(10**8, 1)), "picture that cannot be used"),
        (drawn(*[big_png(4000, 4000)] * 5), "picture that cannot be used: image has 4000x4000 pixels; at most 0"),
        (Step(refusal(400, "no").body, 400, {"x-odd": "\u00e9\u4e2d"}), "HTTP 400: no"),
    ):
        with pytest.raises(CallFailed, match=words):
            ask(make_client(server.endpoint(always=step), max_retries=0))
    assert ask(make_client(server.endpoint(Step(huge.encode()))))[0].logprobs is None
    many = Step(usage.replace("7", "1" + "0" * 400).encode())
    assert ask(make_client(server.endpoint(many)))[0].prompt_tokens is None
    empty = Step(json.dumps({"choices": [{}] * 200_000}).encode())
    client = make_client(server.endpoint(empty), max_retries=1)
    assert ask(client)[0].text == "reply 0"


def test_retries_end(server: FakeServer) -> None:
    endpoint = server.endpoint(always=refusal(500, "out of memory"))
    client = make_client(endpoint, max_retries=3)
    with pytest.raises(CallFailed, match="HTTP 500: out of memory; gave up after 4 attempts") as caught:
        ask(client)
    assert len(endpoint.requests) == 4
    assert dataclasses.asdict(client.stats) == {
        "calls": 4, "retries": 3, "failures": 1, "prompt_tokens": 0, "completion_tokens": 0,
    }  # fmt: skip
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_waits_are_full_jitter_under_a_growing_capped_backoff(server: FakeServer) -> None:
    endpoint = server.endpoint(always=refusal(500))
    with pytest.raises(CallFailed):
        ask(make_client(endpoint, max_retries=4, backoff_base_s=0.1, backoff_max_s=0.2, jitter_seed=570))
    draws = random.Random(570)  # its fourth draw is near 1: without the cap that wait would be 0.8 s
    expected = [draws.uniform(0, cap) for cap in (0.1, 0.2, 0.2, 0.2)]
    gaps = [after - before for before, after in pairwise(endpoint.times)]
    assert all(wait - 0.01 <= gap < wait + 0.4 for gap, wait in zip(gaps, expected, strict=True))


def test_waits_can_be_short_however_long_the_backoff(server: FakeServer) -> None:
    endpoint = server.endpoint(refusal(500), refusal(500))
    start = time.monotonic()
    ask(make_client(endpoint, backoff_base_s=2.0, backoff_max_s=2.0, jitter_seed=4278))  # its first draws are < 0.02
    assert time.monotonic() - start < 1.5


def test_retry_after_seconds_are_waited(server: FakeServer) -> None:
    endpoint = server.endpoint(refusal(429, retry_after="0.3"))
    ask(make_client(endpoint))
    assert 0.3 <= endpoint.times[1] - endpoint.times[0] < 3


def test_retry_after_holds_for_every_call(server: FakeServer) -> None:
    endpoint = server.endpoint(refusal(429, retry_after="0.3"))
    client = make_client(endpoint)

    async def second_call_after_the_429() -> None:
        async with client:
            first = asyncio.create_task(client.chat([user_message("a")]))
            while client.stats.calls == 0 or endpoint.script:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            await asyncio.gather(first, client.chat([user_message("b")]))

    asyncio.run(second_call_after_the_429())
    assert all(after - endpoint.times[0] >= 0.29 for after in endpoint.times[1:])


def test_a_long_retry_after_date_is_cut_with_a_word(server: FakeServer) -> None:
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    endpoint = server.endpoint(always=refusal(429, retry_after=date))
    with pytest.raises(CallFailed, match=r"HTTP 429: no \(it asks to wait 3\d\d\d s, cut to retry_after_max_s = 0.2 s"):
        ask(make_client(endpoint, max_retries=1, retry_after_max_s=0.2))
    assert 0.2 <= endpoint.times[1] - endpoint.times[0] < 3


@pytest.mark.parametrize("value", ["-5", "soon", "nan", "9" * 40, "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_past_or_unreadable_retry_after_does_not_hold_up(server: FakeServer, value: str) -> None:
    start = time.monotonic()
    ask(make_client(server.endpoint(refusal(503, retry_after=value))))
    assert time.monotonic() - start < 1


def test_an_abandoned_call_frees_its_place(server: FakeServer) -> None:
    endpoint = server.endpoint(answer("late", delay_s=2.0))
    client = make_client(endpoint, max_concurrency=1)

    async def abandon_and_ask() -> list[Reply]:
        async with client:
            abandoned = asyncio.create_task(client.chat([user_message("a")]))
            while not endpoint.requests:
                await asyncio.sleep(0.01)
            abandoned.cancel()
            with pytest.raises(asyncio.CancelledError):
                await abandoned
            return await client.chat([user_message("b")])

    assert asyncio.run(abandon_and_ask())[0].text == "reply 0"


# Several endpoints


def test_a_dead_endpoint_is_left_at_once(server: FakeServer) -> None:
    alive = server.endpoint()
    start = time.monotonic()
    replies = ask_many(make_client(dead_url(), alive, backoff_base_s=20.0, backoff_max_s=20.0), 6)
    assert time.monotonic() - start < 2
    assert len(replies) == len(alive.requests) == 6


def test_a_failing_endpoint_cools_down_and_comes_back(server: FakeServer) -> None:
    flaky, steady = server.endpoint(refusal(500)), server.endpoint()
    client = make_client(flaky, steady, backoff_base_s=0.5, backoff_max_s=0.5)

    async def calls() -> None:
        async with client:
            for _ in range(5):
                await client.chat([user_message("q")])
            assert (len(flaky.requests), len(steady.requests)) == (1, 5)
            await asyncio.sleep(0.55)
            await client.chat([user_message("q")])
            assert len(flaky.requests) == 2

    asyncio.run(calls())


def test_success_ends_the_growth_of_the_cool_down(server: FakeServer) -> None:
    flaky, steady = server.endpoint(*[refusal(500), answer("x")] * 5), server.endpoint()
    client = make_client(flaky, steady, backoff_base_s=0.05, backoff_max_s=10.0)

    async def calls() -> None:
        async with client:
            for _ in range(5):
                await client.chat([user_message("q")])
                await asyncio.sleep(0.06)
                await client.chat([user_message("q")])

    asyncio.run(calls())
    assert (len(flaky.requests), len(steady.requests)) == (10, 5)


def test_calls_one_by_one_stay_on_one_endpoint(server: FakeServer) -> None:
    first, second = server.endpoint(), server.endpoint()
    ask(make_client(first, second), n=4)
    assert (len(first.requests), len(second.requests)) == (4, 0)


def test_all_down_waits_until_one_is_back(server: FakeServer) -> None:
    first, second = server.endpoint(refusal(500), refusal(502)), server.endpoint(refusal(503), refusal(503))
    client = make_client(first, second)
    assert ask(client)[0].text == "reply 0"
    assert client.stats.failures == 0


def test_all_dead_ends_in_call_failed() -> None:
    with pytest.raises(CallFailed, match=r"cannot be reached.*gave up"):
        ask(make_client(dead_url(), dead_url(), max_retries=2))


def test_load_is_shared(server: FakeServer) -> None:
    first, second = (server.endpoint(always=answer("x", delay_s=0.2)) for _ in range(2))
    ask_many(make_client(first, second), 8)
    assert (len(first.requests), len(second.requests)) == (4, 4)


def test_concurrency_is_bounded(server: FakeServer) -> None:
    endpoint = server.endpoint(always=answer("x", delay_s=0.05))
    assert len(ask_many(make_client(endpoint, max_concurrency=3), 12)) == 12
    assert endpoint.max_in_flight == 3


# Before the run


def check(client: ChatClient) -> None:
    async def call() -> None:
        async with client:
            await client.check()

    asyncio.run(call())


@pytest.mark.parametrize(
    "models",
    [
        Step(json.dumps({"data": [{"id": "other"}, {"id": MODEL}]}).encode()),
        Step(json.dumps({"data": [{"id": f"models/{MODEL}"}]}).encode()),
        refusal(403),
        refusal(404),
        refusal(405),
        refusal(501),
        Step(b"not JSON"),
        Step(b'{"data": 3}'),
        Step(b'{"data": [null, {"id": 4}]}'),
    ],
)
def test_check_passes_where_the_model_is_listed_or_answers(server: FakeServer, models: Step) -> None:
    endpoint = server.endpoint()
    endpoint.models = models
    check(make_client(endpoint))
    is_listed = MODEL.encode() in models.body
    assert len(endpoint.requests) == (0 if is_listed else 1)  # a short question


def test_check_names_what_is_served_instead(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    right, wrong = server.endpoint(), server.endpoint(always=refusal(404, "no such model"))
    wrong.models = Step(json.dumps({"data": [{"id": "other-vl"}]}).encode())
    with pytest.raises(ValueError, match=f"{wrong.base_url} does not serve '{MODEL}'; it serves: other-vl"):
        check(make_client(right, wrong))
    wrong.always = None  # a deployment, an alias or a wildcard is served and not listed
    check(make_client(right, wrong))
    assert f"{wrong.base_url} does not list '{MODEL}', which answers nevertheless" in caplog.text


def test_check_finds_a_base_url_that_leads_nowhere(server: FakeServer) -> None:
    endpoint = server.endpoint(always=refusal(404))
    endpoint.models = refusal(404)  # as where /v1 is left out
    with pytest.raises(ValueError, match=f"{endpoint.base_url} answered HTTP 404, so the model name or the base URL"):
        check(make_client(endpoint))


def test_check_fails_when_nobody_answers(server: FakeServer) -> None:
    broken = server.endpoint()
    broken.models = refusal(503, "loading")
    with pytest.raises(ValueError, match=r"cannot be reached.*; .*HTTP 503: loading.*start the server"):
        check(make_client(dead_url(), broken))


def test_check_goes_on_with_one_endpoint_down(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    check(make_client(dead_url(), server.endpoint()))
    assert "cannot be reached" in caplog.text


def test_check_names_the_variable_of_a_refused_key(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = server.endpoint()
    endpoint.models = refusal(401)
    monkeypatch.delenv(KEY_ENV, raising=False)
    with pytest.raises(ValueError, match=rf"wants a key, and {KEY_ENV} is not set \(HTTP 401\)"):
        check(make_client(endpoint))
    monkeypatch.setenv(KEY_ENV, KEY)
    with pytest.raises(ValueError, match=rf"refused the key in {KEY_ENV} \(HTTP 401\)"):
        check(make_client(endpoint))


# The key


def test_the_key_is_sent_and_without_one_a_dummy(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = server.endpoint()
    monkeypatch.setenv(KEY_ENV, f"{KEY}\n")  # as read from a file
    ask(make_client(endpoint))
    monkeypatch.delenv(KEY_ENV)
    ask(make_client(endpoint))
    assert endpoint.authorizations == [f"Bearer {KEY}", "Bearer EMPTY"]


def exception_texts(error: BaseException | None) -> str:
    """`error` and all that hangs on it, shown or not."""
    if error is None:
        return ""
    return f"{error!r} {error} {exception_texts(error.__cause__)} {exception_texts(error.__context__)}"


@pytest.mark.parametrize("step", [refusal(status, f"bad key {KEY}") for status in (400, 401, 403, 404, 422, 500)])
def test_an_echoed_key_is_told_to_nobody(
    server: FakeServer, step: Step, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(KEY_ENV, KEY)
    endpoint = server.endpoint(always=step)
    endpoint.models = step
    client = make_client(endpoint, dead_url(), max_retries=1)
    with pytest.raises(CallFailed) as caught:
        ask(client)
    assert endpoint.authorizations[0] == f"Bearer {KEY}"
    told = [exception_texts(caught.value), caplog.text, repr(client), repr(vars(client)), repr(client.settings)]
    assert not any(KEY in text for text in told)


def test_a_key_in_a_reply_stays_out_of_it(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    assert ask(make_client(server.endpoint(answer(f"you sent {KEY}"))))[0].text == "you sent [key]"


def test_a_key_that_fits_no_header_is_named_but_not_shown(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, f"{KEY}é")
    with pytest.raises(ValueError, match=f"{KEY_ENV} is not printable ASCII") as caught:
        ask(make_client(server.endpoint()))
    assert KEY not in exception_texts(caught.value)


# The client itself


def test_one_client_serves_several_event_loops(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    client = make_client(server.endpoint())
    for _ in range(3):  # nothing is closed in between
        assert asyncio.run(client.chat([user_message("q")]))[0].text == "reply 0"

    async def collect_elsewhere() -> None:
        nonlocal client
        del client
        gc.collect()
        await asyncio.sleep(0.01)

    asyncio.run(collect_elsewhere())
    assert "never retrieved" not in caplog.text


def test_a_closed_client_opens_again(server: FakeServer) -> None:
    client = make_client(server.endpoint())
    assert ask(client) == ask(client)


def test_name_is_the_last_part_of_the_model(server: FakeServer) -> None:
    assert make_client("http://h/v1", model="Qwen/Qwen3-VL-8B-Instruct").name == "Qwen3-VL-8B-Instruct"


@pytest.mark.parametrize("options", [{"n": 0}, {"max_tokens": 0}])
def test_senseless_calls_are_refused(server: FakeServer, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        ask(make_client(server.endpoint()), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_urls": ()}, "base_urls must be a list"),
        ({"base_urls": "http://h/v1"}, "base_urls must be a list"),
        ({"base_urls": ("127.0.0.1:8000",)}, "a base URL looks like"),
        ({"base_urls": ("http://h:port/v1",)}, "a base URL looks like"),
        ({"base_urls": (f"http://me:{KEY}@h/v1",)}, "may hold no user name"),
        ({"base_urls": (f"http://h/v1?key={KEY}",)}, "may hold no user name"),
        ({"api_key_env": KEY}, "NAME of an environment variable"),
        ({"api_key_env": "f" * 16 + "0123456789abcdef"}, "NAME of an environment variable"),  # hexadecimal
        ({"api_key_env": "F" * 16 + "0123456789ABCDEF"}, "NAME of an environment variable"),
        ({"api_key_env": "hf_abcdefABCDEF"}, "NAME of an environment variable"),
        ({"model": " "}, "model must be"),
        ({"timeout_s": 0}, "timeout_s must be above 0, got 0"),
        ({"max_concurrency": 0}, "max_concurrency must be above 0"),
        ({"backoff_base_s": float("nan")}, "backoff_base_s must be above 0"),
        ({"max_retries": -1}, "max_retries must be 0 or more"),
        ({"max_image_pixels": 0}, "max_image_pixels must be 1 or more"),
        ({"token_limit_field": "limit"}, "token_limit_field="),
        ({"extra_body": {"stream": True, "top_p": 1}}, r"extra_body may not set \['stream'\]"),
    ],
)
def test_bad_settings_are_refused_without_repeating_a_key(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        ChatSettings(**({"base_urls": ("http://h/v1",), "model": MODEL} | options))
    assert KEY not in exception_texts(caught.value)
    assert options.get("api_key_env", KEY) not in exception_texts(caught.value)


def test_a_list_of_urls_is_normalised() -> None:
    settings = ChatSettings(["http://h:1/v1/", "https://g/v1"], MODEL)  # type: ignore[arg-type]  # as from YAML
    assert settings.base_urls == ("http://h:1/v1", "https://g/v1")


def test_importing_is_light() -> None:
    heavy = "{'torch', 'openai', 'starlette', 'numpy'}"
    code = f"import sys, etchr.mllm.chat; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
