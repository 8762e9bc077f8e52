"""What both servers bear: picture bombs, computing models, clients that dawdle, hang up or send nonsense."""

import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from etchr.editor.unedited import Unedited
from etchr.http import application, listening
from etchr.images import encode_png, to_data_uri
from etchr.mllm.protocol import GREEDY, Reply
from etchr.serving import chat
from tests.attack.ways import bomb, uri
from tests.serving import edit_server

FORM = "multipart/form-data; boundary=b"


class Busy:
    """A model that computes for a while without a pause, and remembers the sizes of what it saw."""

    name = "busy"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.seen = seconds, list[tuple[int, int]]()

    async def chat(self, messages, sampling=GREEDY):
        self.seen += [part["image"].size for part in messages[0]["content"] if part["type"] == "image"]
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            pass
        return [Reply("done")]


class Drawing(Unedited):
    """An editor that gives back what it is given, as the server wants one."""

    batch_size = 4

    def __init__(self) -> None:
        super().__init__(64 * 64)
        self.settings = self

    max_pixels = 64 * 64

    def with_sampling(self, num_inference_steps=None, guidance_scale=None):
        return self


@contextmanager
def running(app) -> Iterator[str]:
    """`app` as the commands run it, in a thread; yields HOST:PORT."""
    listener = listening.bind("127.0.0.1", 0)
    server = listening.server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)


def ask(place: str, *pictures: str) -> tuple[int, str]:
    """Status and words of a chat about `pictures`."""
    parts = [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures]
    body = json.dumps({"model": "busy", "messages": [{"role": "user", "content": parts}]}).encode()
    return send(place, "/v1/chat/completions", body, "application/json")


def form(picture: bytes, prompt: bytes = b"draw", model: bytes = b"unedited") -> bytes:
    fields = [b'name="model"\r\n\r\n' + model, b'name="prompt"\r\n\r\n' + prompt]
    fields.append(b'name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n' + picture)
    return b"".join(b"--b\r\nContent-Disposition: form-data; " + field + b"\r\n" for field in fields) + b"--b--\r\n"


def send(place: str, path: str, body: bytes, kind: str = FORM) -> tuple[int, str]:
    connection = http.client.HTTPConnection(place, timeout=60)
    connection.request("POST", path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def peak_mib() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024


def memory_mib() -> int:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) // 1024


def test_picture_bombs_cost_no_more_than_their_pixels():
    """40 million pixels of a palette with transparency are 120 MB as RGB; nothing of that size is made on the way."""
    Path("/proc/self/clear_refs").write_text("5")  # peak memory counts from here
    before = memory_mib()
    with running(chat.build_app(Busy())) as place, running(edit_server.build_app(Drawing())) as other:
        palette, grey = bomb(8000, 5000, 8, 3), bomb(8000, 5000, 16, 0)
        for data in (palette, grey):
            assert len(data) < 200_000
            assert ask(place, uri(data))[0] == 200
            assert send(other, "/v1/images/edits", form(data))[0] == 200
        assert peak_mib() - before < 600
        for size in ((8000, 5001), (40_000_001, 1)):
            status, said = ask(place, uri(bomb(*size)))
            assert (status, f"image has {size[0]}x{size[1]} pixels; at most 40,000,000" in said) == (400, True), said
            status, said = send(other, "/v1/images/edits", form(bomb(*size)))
            assert (status, "at most 40,000,000" in said) == (400, True), said
        status, said = ask(place, *[uri(palette)] * 4)
        assert (status, "may have 120,000,000 pixels together, got 160,000,000" in said) == (400, True), said
    assert memory_mib() - before < 100


def test_health_answers_while_a_model_computes():
    with running(chat.build_app(Busy(3.0))) as place:
        asking = threading.Thread(target=ask, args=(place, to_data_uri(Image.new("RGB", (8, 8)))))
        asking.start()
        time.sleep(0.3)
        start = time.monotonic()
        connection = http.client.HTTPConnection(place, timeout=10)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        assert asking.is_alive()
        assert time.monotonic() - start < 2
        asking.join()


def test_whoever_dawdles_is_let_go(monkeypatch):
    monkeypatch.setattr(listening, "HEADERS_S", 0.3)
    monkeypatch.setattr(application, "BODY_S", 0.3)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"
    whole = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with running(chat.build_app(Busy())) as place:
        for sent, status in ((b"", b""), (b"POST /v1", b""), (whole + b"GET", b"200"), (head, b"408")):
            with socket.create_connection(place.split(":"), timeout=20) as client:
                client.sendall(sent)
                said = b"".join(iter(lambda client=client: client.recv(4096), b""))  # until the server closes
            assert said.split(b" ")[1:2] == ([status] if status else []), (sent, said)


def test_requests_that_come_at_once_on_one_connection_are_all_answered(monkeypatch):
    """The time-out is for a head that does not come, not for an answer that takes longer."""
    monkeypatch.setattr(listening, "HEADERS_S", 0.3)
    body = json.dumps({"model": "busy", "messages": [{"role": "user", "content": "?"}]}).encode()
    one = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with running(chat.build_app(Busy(0.6))) as place, socket.create_connection(place.split(":"), timeout=20) as client:
        client.sendall(one * 2)
        said = b"".join(iter(lambda: client.recv(4096), b""))
    assert said.count(b"HTTP/1.1 200") == 2


def test_there_are_so_many_connections_at_most(monkeypatch):
    monkeypatch.setattr(listening, "MAX_CONNECTIONS", 4)
    with running(chat.build_app(Busy())) as place:
        idle = [socket.create_connection(place.split(":")) for _ in range(5)]
        time.sleep(0.1)
        assert send(place, "/v1/chat/completions", b"{}")[0] == 503
        for client in idle:
            client.close()
        time.sleep(0.1)
        assert send(place, "/v1/chat/completions", b"{}")[0] == 404  # no model was named


def test_a_client_that_leaves_in_the_middle_is_no_news(caplog, capfd):
    with caplog.at_level(logging.INFO), running(edit_server.build_app(Drawing())) as place:
        for path in ("/v1/images/edits", "/v1/chat/completions"):
            with socket.create_connection(place.split(":")) as client:
                head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 9999\r\n\r\n"
                client.sendall(head.encode() + b"--b\r\n")
        assert send(place, "/v1/images/edits", form(encode_png(Image.new("RGB", (8, 8)))))[0] == 200
        time.sleep(0.1)
    assert "Traceback" not in caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("charset", ["utf-7", "raw_unicode_escape", "hostile", "idna", "zlib", "unicode_escape"])
def test_a_charset_cannot_break_a_form(charset):
    kind = f"{FORM}; charset={charset}"
    with running(edit_server.build_app(Drawing())) as place:
        status, said = send(place, "/v1/images/edits", form(encode_png(Image.new("RGB", (8, 8))), b"\\ud800"), kind)
        assert status in (200, 400), said
        assert ("error" in json.loads(said)) == (status == 400)
