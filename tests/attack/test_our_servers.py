"""Both servers of ours, as the commands start them, under ten thousand hostile requests: whole and small at the end."""

import http.client
import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from PIL import Image

from etchr.images import encode_png
from tests.attack.servers import Trap, listening
from tests.attack.ways import ESCAPES, bomb, uri
from tests.processes import ROOT, environment

REQUESTS = 5_000  # of each server
GROWTH_MIB = 100
FORM = "multipart/form-data; boundary=b"
SERVERS = {
    "reader": ([sys.executable, "-m", "etchr.nano.reader", "--port", "0"], "/v1/chat/completions"),
    "editor": ([sys.executable, "-m", "etchr.cli", "serve", "--port", "0"], "/v1/images/edits"),
}


@contextmanager
def started(command: list[str], log: Path) -> Iterator[tuple[str, int]]:
    """HOST:PORT of a server in a process of its own, and the process."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env=environment()
        )
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            yield said.split("http://")[1].split("/")[0], process.pid
            assert process.poll() is None, "the server has ended"
        finally:
            process.kill()
            process.wait()


def memory_mib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) // 1024


def post(place: str, path: str, body: bytes, kind: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(place, timeout=120)
    try:
        connection.request("POST", path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def part(name: bytes, value: bytes, more: bytes = b"") -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="' + name + b'"' + more + b"\r\n\r\n" + value + b"\r\n"


def form(picture: bytes, prompt: bytes = b"Draw a red box.", model: bytes = b"nano_base", *more: bytes) -> bytes:
    fields = part(b"model", model) + part(b"prompt", prompt) + part(b"num_inference_steps", b"1") + b"".join(more)
    return fields + part(b"image", picture, b'; filename="../../a.png"\r\nContent-Type: image/png') + b"--b--\r\n"


def chat(content: object, **more: object) -> bytes:
    return json.dumps({"model": "reader", "messages": [{"role": "user", "content": content}]} | more).encode()


def image_part(url: str) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": url}}


def pictures(rng: random.Random) -> list[bytes]:
    """Encoded pictures that are none, lie about themselves, or are large."""
    sound = encode_png(Image.new("RGB", (32, 32), "red"))
    cut = sound[: rng.randrange(len(sound))]
    flipped = bytearray(sound)
    flipped[rng.randrange(len(sound))] ^= 1 << rng.randrange(8)
    small = [b"", b"GIF89a", b"%!PS-Adobe", cut, bytes(flipped), bytes(rng.randrange(256) for _ in range(200)), sound]
    large = [bomb(8000, 5000, 8, 3), bomb(8000, 5001, 8, 3), bomb(174_999_999, 1), bomb(3000, 3000, 16, 0)]
    return small * 12 + large


TEXTS = ["?", ESCAPES, "\ud800", "x" * 200_000, "\\boxed{" * 5000, "🦊" * 99, "\0", " "]
URLS = ["file:///etc/passwd", "data:text/html;base64,AA", "data:image/png,%00", "//x", "data:image/png;base64,=" * 9]
ODD = [None, -1, 10**400, True, "9", [], {}, 1e-300]
OPTIONS = ["n", "temperature", "max_tokens", "seed", "stream", "model"]
JSONS = [b"[" * 90_000, b"9" * 9000, b'"\\ud800"', b"NaN"]
FIELDS, VALUES = [b"seed", b"n", b"size", b"x" * 9000], [b"-1", b"1e999", b"\0", b"9" * 999]
FORMS = [FORM + "; charset=utf-7", "multipart/form-data", FORM + '; boundary="', "text/plain", FORM * 99]


def chats(picture: bytes, trap: str, rng: random.Random) -> Iterator[tuple[bytes, str]]:
    """Requests to the reader, each with its content type."""
    text = rng.choice(TEXTS)
    yield chat([{"type": "text", "text": text}, image_part(uri(picture))]), "a/b"
    yield chat([image_part(rng.choice([trap, *URLS]))]), "application/json"
    yield chat(text, **{rng.choice(OPTIONS): rng.choice(ODD)}), ""
    yield b'{"messages":' + rng.choice(JSONS) + b"}", "text/plain"


def forms(picture: bytes, trap: str, rng: random.Random) -> Iterator[tuple[bytes, str]]:
    """Requests to the editor, each with its content type."""
    yield form(picture, rng.choice(TEXTS).encode("utf-8", "replace")), FORM
    yield form(picture, model=rng.choice([b"../x", b"", b"\xff\xfe"])), FORM
    more = part(rng.choice(FIELDS), rng.choice(VALUES)) * rng.choice([1, 2, 200])
    yield form(b"", b"x", b"nano_base", more), FORM
    yield form(picture, trap.encode()), rng.choice(FORMS)


def bodies(kind: str, trap: str, rng: random.Random) -> Iterator[tuple[bytes, str]]:
    """Requests without an end, each with its content type."""
    while True:
        for picture in pictures(rng):
            yield from (chats if kind == "reader" else forms)(picture, trap, rng)
            yield bytes(rng.randrange(256) for _ in range(300)), rng.choice([FORM, "application/json"])


HEADS = [
    *(b"GET", b"\0" * 99, b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"A" * 100_000),
    b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n{",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
]


def raw(place: str, rng: random.Random) -> None:
    """What is no request, or only the beginning of one."""
    host, port = place.split(":")
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(rng.choice(HEADS))
        if rng.random() < 0.5:
            client.shutdown(socket.SHUT_WR)
            client.recv(1000)


@pytest.mark.parametrize("kind", SERVERS)
def test_hostile_requests_leave_a_server_healthy_and_small(kind, tmp_path, tally):
    command, path = SERVERS[kind]
    trap, outcomes = Trap(), list[int]()
    good = encode_png(Image.new("RGB", (64, 64), "white"))
    fine = (form(good), FORM) if kind == "editor" else (chat([image_part(uri(good))]), "")
    with listening(trap) as there, started(command, tmp_path / "log") as (place, pid):

        def attack(seed: int) -> None:
            rng = random.Random(seed)
            sent = bodies(kind, there, rng)
            for number in range(REQUESTS // 8):
                if number % 10 == 0:
                    raw(place, rng)
                    outcomes.append(0)
                    continue
                body, content_type = next(sent)
                try:
                    status, _ = post(place, path, body, content_type)
                except (ConnectionError, http.client.HTTPException, ValueError):  # it may end a connection
                    status = 0
                outcomes.append(status)

        for _ in range(20):
            assert post(place, path, *fine)[0] == 200
        before, calm = memory_mib(pid), post(place, path, *fine)[1]
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(attack, range(8)))
        status, after = post(place, path, *fine)
        assert status == 200
        if kind == "reader":
            assert json.loads(after)["choices"] == json.loads(calm)["choices"]
        grown = memory_mib(pid) - before
    assert trap.requests == 0
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log, log[-3000:]
    assert "\x1b]0;owned" not in log
    assert "\nINFO forged" not in log
    borne = sum(status < 500 or status == 503 for status in outcomes)  # 503: too many at once
    assert grown < GROWTH_MIB, f"grew by {grown} MiB"
    tally(f"hostile requests to the {kind}'s server, which grew by {grown} MiB", len(outcomes), borne)
