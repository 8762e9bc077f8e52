"""A chat server's ways to misbehave: what it sends for a request, as raw bytes, by a name that says what is wrong.

`WAYS` maps each name to a function of (trap, key) -> the pieces to send: `trap` is a URL that nobody may visit, `key`
the secret that came with the request. A number among the pieces is a pause in seconds, `CLOSE` ends the connection,
`RESET` breaks it, and a piece that is a function is asked for bytes until the client has gone.
"""

import base64
import gzip
import itertools
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

CLOSE, RESET = "close", "reset"
Piece = bytes | float | str | Callable[[], bytes]
Way = Callable[[str, str], list[Piece]]

ESCAPES = "\x1b]0;owned\x07\x1b[2J\r\nINFO forged line\u202e"
MANY = 10**6


def http(body: bytes, status: int | str = 200, *headers: str, length: int | None = None) -> bytes:
    """A response; `status` may hold any text."""
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", *headers]
    if length is None or length >= 0:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def said(value: Any, *headers: str) -> list[Piece]:
    """A response that holds `value` as JSON."""
    return [http(json.dumps(value).encode(), 200, *headers)]


def content(value: Any, **more: Any) -> list[Piece]:
    """A completion whose only message holds `value`."""
    choice = {"index": 0, "message": {"role": "assistant", "content": value}, "finish_reason": "stop"} | more
    return said({"choices": [choice], "usage": None})


def raw(text: str) -> list[Piece]:
    """A response with exactly this body."""
    return [http(text.encode("utf-8", "surrogatepass"))]


def choices(inside: str) -> list[Piece]:
    """A completion around JSON that no dict could hold."""
    return raw('{"choices": [{"index": 0, "finish_reason": "stop", ' + inside + "}]}")


def chunked(*chunks: bytes) -> list[Piece]:
    """A response in chunks, each with the line of its size as given."""
    return [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *chunks]


def bomb(width: int, height: int, depth: int = 1, colour: int = 0) -> bytes:
    """A sound PNG of one colour, which is small however many pixels it has."""
    pack = zlib.compressobj(9)
    row = bytes(1 + (width * depth * (3 if colour == 2 else 1) + 7) // 8)
    pixels = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    palette = chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", b"\x80") if colour == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + head + palette + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def uri(data: bytes) -> str:
    """`data` as the data URI of a PNG."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def picture(url: str) -> list[Piece]:
    """A completion that shows a picture."""
    return content([{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": url}}])


def dripping(chunk: bytes) -> Callable[[], bytes]:
    """The same bytes without an end."""
    return lambda: chunk


def _gzip_bomb() -> list[Piece]:
    return [http(gzip.compress(bytes(300 * 2**20), 1), 200, "Content-Encoding: gzip")]


def _nested_gzip() -> list[Piece]:
    packed = gzip.compress(gzip.compress(gzip.compress(bytes(50 * 2**20), 1)))
    return [http(packed, 200, "Content-Encoding: gzip, gzip, gzip")]


WAYS: dict[str, Way] = {
    # the connection
    "closes at once": lambda trap, key: [CLOSE],
    "resets at once": lambda trap, key: [RESET],
    "resets in the body": lambda trap, key: [http(b'{"choices": [', length=1000), RESET],
    "says nothing": lambda trap, key: [60.0],
    "stops in the body": lambda trap, key: [http(b'{"choices": [', length=1000), 60.0],
    "stops in the headers": lambda trap, key: [b"HTTP/1.1 200 OK\r\nContent-Type: appl", 60.0],
    "drips a byte at a time": lambda trap, key: [http(b"", length=10**6), *itertools.chain(*[[b" ", 0.2]] * 100)],
    # the head
    "no HTTP": lambda trap, key: [b"SSH-2.0-OpenSSH_9.6\r\n", CLOSE],
    "HTTP 0.9": lambda trap, key: [b"hello\n", CLOSE],
    "status that is no number": lambda trap, key: [http(b"{}", "abc")],
    "status 999": lambda trap, key: [http(b"{}", 999)],
    "status 99": lambda trap, key: [http(b"{}", 99)],
    "negative length": lambda trap, key: [http(b"{}", 200, "Content-Length: -1", length=-1), CLOSE],
    "length of a terabyte": lambda trap, key: [http(b"{}", length=2**40), CLOSE],
    "length of forty digits": lambda trap, key: [http(b"{}", length=10**40), CLOSE],
    "two lengths": lambda trap, key: [http(b"{}", 200, "Content-Length: 1"), CLOSE],
    "header of a megabyte": lambda trap, key: [http(b"{}", 200, "X-Long: " + "a" * 2**20)],
    "ten thousand headers": lambda trap, key: [http(b"{}", 200, *(f"X-{i}: 1" for i in range(10_000)))],
    "header that is not ASCII": lambda trap, key: [http(b"{}", 200, "X-Name: \u00e9\udcff", "Retry-After: \u00b2")],
    "header with a NUL": lambda trap, key: [http(b"{}", 200, "X-Name: a\0b")],
    "header without a colon": lambda trap, key: [http(b"{}", 200, "nonsense")],
    "header name of spaces": lambda trap, key: [http(b"{}", 200, "   : 1")],
    "endless 100s": lambda trap, key: [dripping(b"HTTP/1.1 100 Continue\r\n\r\n")],
    "switches protocols": lambda trap, key: [b"HTTP/1.1 101 X\r\nUpgrade: hostile\r\nConnection: Upgrade\r\n\r\n\0\0"],
    "nothing with 204": lambda trap, key: [http(b"", 204)],
    "cookie with the key": lambda trap, key: [http(b"{}", 500, f"Set-Cookie: k={key}", f"X-Request-Id: {key}")],
    # elsewhere
    **{
        f"redirect {status}": lambda trap, key, status=status: [http(b"", status, f"Location: {trap}/v1")]
        for status in (300, 301, 302, 303, 307, 308)
    },
    "redirect with a password": lambda trap, key: [http(b"", 307, f"Location: {trap.replace('//', '//u:p@')}/v1")],
    "redirect to a file": lambda trap, key: [http(b"", 302, "Location: file:///etc/passwd")],
    "redirect to itself": lambda trap, key: [http(b"", 308, "Location: ")],
    "refresh": lambda trap, key: [http(b"{}", 503, f"Refresh: 0; url={trap}", f"Alt-Svc: h2={trap!r}")],
    # patience
    **{
        f"wait {wait[:12]}": lambda trap, key, wait=wait: [http(b"{}", 429, f"Retry-After: {wait}")]
        for wait in ("1e308", "-1", "inf", "nan", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 99 Foo 0000")
    },
    # packing
    "gzip that is none": lambda trap, key: [http(b"{}", 200, "Content-Encoding: gzip")],
    "gzip bomb": lambda trap, key: _gzip_bomb(),
    "gzip in gzip": lambda trap, key: _nested_gzip(),
    "deflate that is none": lambda trap, key: [http(b"{}", 200, "Content-Encoding: deflate")],
    "packed as nobody can": lambda trap, key: [http(b"{}", 200, "Content-Encoding: br, zstd, x-hostile")],
    "chunk of no size": lambda trap, key: [*chunked(b"zz\r\n{}\r\n"), CLOSE],
    "chunk of a terabyte": lambda trap, key: [*chunked(b"10000000000\r\n{}"), CLOSE],
    "chunks without end": lambda trap, key: [*chunked(), dripping(b"10000\r\n" + b" " * 65536 + b"\r\n")],
    "two responses at once": lambda trap, key: [http(b"[]") + http(b'{"choices": []}')],
    # errors
    "error page": lambda trap, key: [http(b"<html>bad gateway</html>", 502)],
    "the key in an error": lambda trap, key: [http(json.dumps({"error": {"message": f"not {key}"}}).encode(), 401)],
    "the key in a plain error": lambda trap, key: [http(f"no {key}".encode(), 403)],
    "error of other types": lambda trap, key: [http(b'{"error": [[{"message": 1}]]}', 400)],
    "error with 200": lambda trap, key: said({"error": {"message": ESCAPES, "code": 402}}),
    "error of ten megabytes": lambda trap, key: [http(b"x" * 10**7, 500)],
    # JSON
    "no JSON": lambda trap, key: raw("\x00\x01\x02"),
    "JSON in UTF-16": lambda trap, key: [http(json.dumps({"choices": []}).encode("utf-16"))],
    "unknown charset": lambda trap, key: [http(b"{}", 200, "Content-Type: application/json; charset=hostile\x7f")],
    "deep JSON": lambda trap, key: raw("[" * 200_000),
    "deep JSON that closes": lambda trap, key: raw("[" * 200_000 + "]" * 200_000),
    "a number of a million digits": lambda trap, key: raw('{"choices": [], "created": ' + "9" * MANY + "}"),
    "a hundred megabytes of spaces": lambda trap, key: [http(b" " * 10**8)],
    "text behind the JSON": lambda trap, key: raw('{"choices": []} and more'),
    "an event stream": lambda trap, key: [http(b'data: {"choices": []}\n\n', 200, "Content-Type: text/event-stream")],
    "a list": lambda trap, key: raw("[1, 2]"),
    "null": lambda trap, key: raw("null"),
    # choices
    "choices that are null": lambda trap, key: said({"choices": None}),
    "choices that are a dict": lambda trap, key: said({"choices": {"0": {}}}),
    "a million choices": lambda trap, key: raw('{"choices": [' + "{}," * MANY + "{}]}"),
    "choices of numbers": lambda trap, key: said({"choices": [1, None, "x", []]}),
    "another index": lambda trap, key: content("\\boxed{A}", index=10**30),
    "no message": lambda trap, key: said({"choices": [{"index": 0, "finish_reason": "stop"}]}),
    "finish reason of a list": lambda trap, key: content("\\boxed{A}", finish_reason=["stop"]),
    "finish reason unheard of": lambda trap, key: content("\\boxed{A}", finish_reason="\x1b[2J" * 9999),
    "finish reason error": lambda trap, key: content("\\boxed{A}", finish_reason="error"),
    # contents
    **{
        f"content {value!r:.12}": lambda trap, key, value=value: content(value)
        for value in (None, 1, True, {"text": "A"}, [[]], [None], [{"type": "text", "text": {"a": 1}}])
    },
    "content of lone surrogates": lambda trap, key: choices('"message": {"content": "\\ud800 A \\udfff"}'),
    "content of escapes": lambda trap, key: content(ESCAPES * 100),
    "content with the key": lambda trap, key: content(f"your key is {key}, is it not? {key}"),
    "content of open boxes": lambda trap, key: content("\\boxed{" * 300_000),
    "content of open thoughts": lambda trap, key: content("<think>" * 300_000),
    "content of brackets": lambda trap, key: content("{[(" * 500_000),
    "content of digits": lambda trap, key: content("9" * 10**6),
    "refusal in its field": lambda trap, key: said({"choices": [{"message": {"content": None, "refusal": "no"}}]}),
    "calls of tools": lambda trap, key: content(
        None, message={"content": None, "tool_calls": [{"function": {"name": ESCAPES, "arguments": "[" * 99_999}}]}
    ),
    "picture from a file": lambda trap, key: picture("file:///etc/passwd"),
    "picture from elsewhere": lambda trap, key: picture(trap + "/picture.png"),
    "picture of 175 million pixels": lambda trap, key: picture(uri(bomb(174_999_999, 1))),
    "eight large pictures": lambda trap, key: content(
        [{"type": "image_url", "image_url": {"url": uri(bomb(12_000, 12_000))}}] * 8
    ),
    "picture that is none": lambda trap, key: picture(uri(b"GIF89a" + bytes(99))),
    # odds and tokens
    "odds beyond floats": lambda trap, key: choices(
        '"message": {"content": "1"}, "logprobs": {"content": [{"token": "1", "logprob": -1' + "0" * 400 + "}]}"
    ),
    "odds that are no numbers": lambda trap, key: choices(
        '"message": {"content": "1"}, "logprobs": {"content": [{"token": "1", "logprob": NaN, "top_logprobs": 3}]}'
    ),
    "odds of anything": lambda trap, key: content("1", logprobs={"content": [None, 1, {"token": []}, {"logprob": {}}]}),
    "negative tokens": lambda trap, key: said(
        {"choices": [{"message": {"content": "\\boxed{A}"}}], "usage": {"prompt_tokens": -5, "completion_tokens": "x"}}
    ),
    "tokens beyond floats": lambda trap, key: raw(
        '{"choices": [{"message": {"content": "A"}}], "usage": {"prompt_tokens": 1' + "0" * 400 + "}}"
    ),
}
