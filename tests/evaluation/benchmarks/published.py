"""Files as benchmarks are published in them, small; and what a reply is worth."""

import asyncio
import base64
import io
import struct
import zlib
from pathlib import Path

from PIL import Image

from etchr.mllm.answers import answer_type, extract_answer

BIG_TEXT = "why? " * 2_000_000  # 10 MB


def png(size=(64, 48), colour="white") -> bytes:
    """An encoded picture."""
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def png_without_pixels(width: int, height: int) -> bytes:
    """The head of a PNG of that size, behind which its pixels should come."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"no pixels") + chunk(b"IEND", b"")


BOMB = png_without_pixels(60_000, 60_000)  # 10 GB when decoded
EIGHT_K = png_without_pixels(7680, 4320)


def cut_jpeg() -> bytes:
    """A JPEG that ends in the middle of its pixels."""
    stream = io.BytesIO()
    Image.effect_noise((200, 200), 90).convert("RGB").save(stream, "JPEG")
    return stream.getvalue()[:3000]


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def write_parquet(rows: list[dict], path: Path, features=None) -> Path:
    """Rows as a Parquet file, with the hub's features in its metadata where they are given."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    if features is None:
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        datasets.Dataset.from_list(rows, features=datasets.Features(features)).to_parquet(path)
    return path


def outcome(benchmark, sample, reply: str):
    """What a reply is worth, on the way that a run takes."""
    answer = extract_answer(reply, answer_type(sample), sample.choices)
    return asyncio.run(benchmark.score(sample, answer, None, reply))
