"""What single services want otherwise: fields that they refuse, and errors that they word their own way."""

import asyncio
import json

import pytest

from etchr.config import compose
from etchr.mllm.chat import ChatClient, ChatSettings
from etchr.mllm.protocol import CallFailed, Reply, Sampling, user_message
from etchr.mllm.settings import ModelConfig, build_model, model_fingerprint
from evaluation.settings import EvalConfig
from tests.mllm.fake_server import MODEL, FakeServer, Step, answer, serving


@pytest.fixture(scope="module")
def server():
    fake = FakeServer()
    with serving(fake) as fake.url:
        yield fake


def ask(endpoint, extra_body, **options) -> list[Reply]:
    async def call() -> list[Reply]:
        settings = ChatSettings((endpoint.base_url,), MODEL, max_retries=0, extra_body=extra_body)
        async with ChatClient(settings) as client:
            return await client.chat([user_message("Hello")], Sampling(**options))

    return asyncio.run(call())


def test_a_field_that_is_null_in_extra_body_is_not_sent(server):
    endpoint = server.endpoint(always=answer("yes"))
    ask(endpoint, {"top_p": 0.8}, seed=3, temperature=0.7)
    ask(endpoint, {"seed": None, "temperature": None, "n": None, "top_p": 0.8}, seed=3, temperature=0.7)
    usual, bare = endpoint.requests
    assert (usual["seed"], usual["temperature"], usual["n"], usual["top_p"]) == (3, 0.7, 1, 0.8)
    assert bare == {name: value for name, value in usual.items() if name not in ("seed", "temperature", "n")}


def test_a_server_that_is_not_told_n_is_asked_until_there_are_n(server):
    endpoint = server.endpoint(answer("a"), answer("b"), answer("c"))
    replies = ask(endpoint, {"n": None}, n=3, temperature=0.7, seed=5)
    assert [reply.text for reply in replies] == ["a", "b", "c"]
    assert [request["seed"] for request in endpoint.requests] == [5, 6, 7]


@pytest.mark.parametrize("extra", [{"seed": 3}, {"model": None}, {"messages": None}, {"max_tokens": None}])
def test_nothing_else_about_a_call_can_be_set_there(extra):
    with pytest.raises(ValueError, match=f"extra_body may not set \\['{next(iter(extra))}'\\]"):
        ChatSettings(("http://127.0.0.1:1/v1",), MODEL, extra_body=extra)


def test_an_error_inside_a_list_is_quoted(server):
    body = [{"error": {"code": 400, "message": 'Unknown name "seed": Cannot find field.', "status": "INVALID"}}]
    endpoint = server.endpoint(always=Step(json.dumps(body).encode(), 400))
    with pytest.raises(CallFailed, match=r'HTTP 400: Unknown name "seed": Cannot find field\.$'):
        ask(endpoint, {})


@pytest.mark.parametrize(
    ("name", "host", "key", "left_out", "sampling"),
    [
        ("qwen3_vl_8b", "127.0.0.1", "OPENAI_API_KEY", set(), (0, 4096)),
        ("gemini_3_1_flash_lite", "generativelanguage.googleapis.com", "GEMINI_API_KEY", {"seed"}, (0, 4096)),
        ("kimi_k2_5", "api.moonshot.ai", "MOONSHOT_API_KEY", {"seed", "temperature", "n"}, (1, 32768)),
    ],
)
def test_the_experiments_reach_the_services_of_the_paper(name, host, key, left_out, sampling):
    config = compose(EvalConfig, "eval", ["experiment=paper_table", f"experiment={name}"])
    client = build_model(config.reasoner)
    assert isinstance(client, ChatClient)
    assert all(f"//{host}" in url for url in client.settings.base_urls)
    assert (client.settings.api_key_env, client.settings.left_out) == (key, left_out)
    assert (config.temperature, config.max_tokens) == sampling  # the paper's where the service takes them
    assert set(config.systems) == {"direct", "etchr"}
    assert len(config.tasks) == 11
    assert name in config.out  # runs of different models do not meet in one folder


def test_what_is_left_out_decides_replies():
    model = {"kind": "http", "model": "m", "base_urls": ["http://127.0.0.1:1/v1"]}
    usual, bare = ModelConfig(**model), ModelConfig(**model, extra_body={"seed": None})
    assert model_fingerprint(usual) != model_fingerprint(bare)
