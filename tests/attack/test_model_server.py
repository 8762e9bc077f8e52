"""A chat client against servers that misbehave in every way of `ways.py`: each call ends soon and costs itself only."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import pytest

from etchr.mllm.chat import ChatClient, ChatSettings
from etchr.mllm.protocol import CallFailed, Sampling, user_message
from tests.attack.servers import Hostile, Server, Spoiling, Trap, listening
from tests.attack.ways import WAYS, Piece, content
from tests.evaluation import faulty
from tests.evaluation.fakes import TableModel, write_data

HARMLESS = {  # what comes whole is a reply, whatever it says
    *("another index", "negative tokens", "finish reason of a list", "tokens beyond floats", "content with the key"),
    *("odds beyond floats", "odds that are no numbers", "odds of anything"),
    *(name for name in WAYS if name.startswith("content of ")),
}
KEY = "sk-attack-0123456789abcdef"
SOON_S = 20.0  # of a call that may take one attempt of 2 seconds; decoding 144 million pixels takes its time
MEMORY_MIB = 1500  # a hundred megabytes of JSON, or a picture at the limit, unpacked


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("ETCHR_ATTACK_KEY", KEY)


def settings(url: str, model: str, **more) -> ChatSettings:
    """Of a client that gives up at once."""
    options = {"timeout_s": 2.0, "max_retries": 0, "api_key_env": "ETCHR_ATTACK_KEY"}
    return ChatSettings((f"{url}/v1",), model, **(options | more))


def memory_mib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


async def outcome(client: ChatClient) -> str:
    """What a call came to, as all that is kept of it would show."""
    try:
        replies = await client.chat([user_message("Which? \\boxed{}")], Sampling(temperature=0.7, n=2, max_tokens=9))
    except CallFailed as error:
        return f"failed: {error}"
    return f"replied: {replies}"


def test_every_way_to_misbehave_ends_in_a_failure_or_a_reply(tally):
    trap, ends, held = Trap(), {}, 0
    with listening(trap) as there, listening(Hostile(there)) as url:
        for number, name in enumerate(WAYS):
            before, start = memory_mib(), time.monotonic()
            ends[name] = end = asyncio.run(outcome(ChatClient(settings(url, f"hostile/{number}"))))
            fine = {
                "soon": time.monotonic() - start < SOON_S,
                "small": memory_mib() - before < MEMORY_MIB,
                "silent": KEY not in end and "\x1b" not in end,
                "alone": trap.requests == 0,
            }
            assert all(fine.values()), (name, fine, end[:500])
            held += 1
    answered = {name for name, end in ends.items() if "\\boxed{A}" in end}
    assert answered == {"another index", "negative tokens", "finish reason of a list"}  # their text came whole
    assert {name for name, end in ends.items() if end.startswith("replied")} == HARMLESS
    tally("ways of a model server to misbehave", len(WAYS), held)


def test_a_table_made_through_all_of_them_is_that_of_a_calm_server(tally, tmp_path):
    """Calls that are not asked again leave samples unscored; the same command scores them."""
    data = write_data(faulty.CASES, tmp_path / "data")
    replies = {prompt: str(reply) for prompt, (_, _, reply) in TableModel(faulty.CASES).replies.items()}
    ways = [name for name in WAYS if name not in HARMLESS]
    trap = Trap()

    def run(server: Server, out: Path) -> dict:
        """The table as it is once every sample is scored."""
        with listening(server) as url:
            model = {"api_key_env": "ETCHR_ATTACK_KEY", "timeout_s": 1.0, "max_retries": 3}
            options = faulty.config(data, out, f"{url}/v1", **model)
            for _ in range(20):
                with suppress(ValueError):  # nothing could be scored
                    table = faulty.table(options)
                    cells = [cell for system in table["systems"].values() for cell in system["tasks"].values()]
                    if not any(cell["num_unscored"] for cell in cells):
                        return table
        raise AssertionError("samples stayed unscored")

    with listening(trap) as there:
        calm = run(Spoiling(there, replies, ways, spoiled=0, seed=0), tmp_path / "calm")
        tables = [run(Spoiling(there, replies, ways, spoiled=2, seed=seed), tmp_path / f"{seed}") for seed in range(3)]
    for out in tmp_path.iterdir():
        for file in filter(Path.is_file, out.rglob("*")):
            assert KEY.encode() not in file.read_bytes(), file
    assert trap.requests == 0
    tally("tables through a hostile model server", len(tables), sum(table == calm for table in tables))


class Away(Server):
    """Refuses with 503 until `seconds` after the first request; then it answers."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.first = seconds, 0.0

    def answer(self, path: str, body: dict, key: str) -> list[Piece]:
        self.first = self.first or time.monotonic()
        away = time.monotonic() - self.first < self.seconds
        return [b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"] if away else content("here")


def test_an_outage_of_a_minute_costs_no_call(tally):
    """With the patience that a user gets who sets nothing."""

    async def ask_all(client: ChatClient) -> list[str]:
        return await asyncio.gather(*(outcome(client) for _ in range(24)))

    with listening(Away(60.0)) as url:
        ends = asyncio.run(ask_all(ChatClient(ChatSettings((f"{url}/v1",), "m", "ETCHR_ATTACK_KEY"))))
    tally("calls through an outage of a minute", len(ends), sum("here" in end for end in ends))
