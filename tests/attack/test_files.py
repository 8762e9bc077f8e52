"""Hostile files: Parquet, YAML, safetensors, pictures, JSON lines. Each is one sentence; nothing else is opened or run.

What a process opens, connects to or starts while it reads them is listened to, by Python's own audit events.
"""

import io
import json
import pickle
import struct
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from etchr.editor import lora_files
from etchr.images import decode_image, encode_png, open_image
from etchr.jsonl import JsonLines
from etchr.rewards.cache import RewardCache
from etchr.router import Router
from etchr.sample import read_parquet
from etchr.training.mixture import read_mixture
from evaluation.cost import read_prices
from tests.attack.ways import bomb

SECRET = "attack-secret"
MEMORY_MIB = 800  # of Python's own, for one file; decoding 175 million pixels is Pillow's and refused by the header
DANGEROUS = ("socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class")
_heard: list[tuple[str, str]] | None = None


def _listen(event: str, args: tuple[object, ...]) -> None:
    if _heard is not None and (event in DANGEROUS or (event == "open" and SECRET in str(args[0]))):
        _heard.append((event, str(args)))


sys.addaudithook(_listen)


@contextmanager
def nothing_else() -> Iterator[None]:
    """Inside, nothing is opened that is called secret, nothing connected to and nothing run."""
    global _heard
    _heard = []
    try:
        yield
        assert _heard == []
    finally:
        _heard = None


class Evil:
    """What runs a command where somebody unpickles it."""

    def __reduce__(self):
        import os

        return os.system, (f"touch {SECRET}",)


def parquet(folder: Path, **columns: object) -> Path:
    path = folder / "train.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def rows(folder: Path, count: int = 1, **changes: object) -> Path:
    """Samples in the project's schema with these cells."""
    picture = {"bytes": encode_png(Image.new("RGB", (8, 8))), "path": None}
    row = {"id": "a", "family": "chart", "task": "t", "image": picture, "question": "q", "choices": [], "answer": "a"}
    row |= {"edit_image": None, "meta": "{}"} | changes
    path = folder / "train.parquet"
    pq.write_table(pa.Table.from_pylist([row] * count), path)
    return path


def annotated(folder: Path) -> Path:
    """A file whose notes name a class and a feature that opens paths."""
    secret = folder / SECRET
    secret.write_bytes(encode_png(Image.new("RGB", (8, 8))))
    table = pa.Table.from_pylist([{"image": {"bytes": None, "path": str(secret)}}])
    notes = {"info": {"features": {"image": {"_type": "Image"}, "x": {"_type": "Audio"}}}}
    path = folder / "train.parquet"
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(notes), "pandas": "{}"}), path)
    return path


def read_all(path: Path) -> None:
    data = read_parquet(path)
    for index in range(len(data)):
        _ = data[index]


def safetensors(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


A = "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"
TENSOR = {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}
LORAS = {
    "nothing": b"",
    "a pickle": pickle.dumps(Evil()),
    "a torch file": b"PK\x03\x04" + bytes(100),
    "a header of exabytes": safetensors(b"{}", length=2**63),
    "deep JSON": safetensors(b"[" * 100_000),
    "no JSON": safetensors(b"\xff\xfe"),
    "offsets outside": safetensors(json.dumps({A: TENSOR | {"data_offsets": [0, 2**40]}}).encode()),
    "offsets that overlap": safetensors(json.dumps({A: TENSOR, A + "x": TENSOR}).encode(), bytes(4)),
    "a shape of exabytes": safetensors(json.dumps({A: TENSOR | {"shape": [2**40, 2**40]}}).encode(), bytes(4)),
    "an unknown dtype": safetensors(json.dumps({A: TENSOR | {"dtype": "PICKLE"}}).encode(), bytes(4)),
    "a path as key": safetensors(json.dumps({"../../x": TENSOR}).encode(), bytes(4)),
    "NaN": safetensors(json.dumps({A: TENSOR}).encode(), struct.pack("<f", float("nan"))),
    "hostile patterns": safetensors(
        json.dumps({A: TENSOR, "__metadata__": {lora_files.METADATA: '{"alpha_pattern": {"(a+)+$": 1}}'}}).encode(),
        bytes(4),
    ),
    "deep notes": safetensors(
        json.dumps({A: TENSOR, "__metadata__": {lora_files.METADATA: "[" * 100_000}}).encode(), bytes(4)
    ),
}
TABLES: dict[str, Callable[[Path], Path]] = {
    "nothing": lambda folder: _bytes(folder, b""),
    "no Parquet": lambda folder: _bytes(folder, b"PAR1" + bytes(100) + b"PAR1"),
    "a footer of gigabytes": lambda folder: _bytes(folder, b"PAR1" + struct.pack("<I", 2**31 - 1) + b"PAR1"),
    "other columns": lambda folder: parquet(folder, a=[1]),
    "notes that open a file": annotated,
    "a path in the place of bytes": lambda folder: rows(folder, image={"bytes": None, "path": f"/tmp/{SECRET}"}),
    "a URL in the place of bytes": lambda folder: rows(
        folder, image={"bytes": None, "path": "http://127.0.0.1:9/x.png"}
    ),
    "a picture of 175 million pixels": lambda folder: rows(folder, image={"bytes": bomb(175_000_001, 1), "path": None}),
    "PostScript": lambda folder: rows(folder, image={"bytes": b"%!PS-Adobe-3.0 EPSF-3.0\n" * 9, "path": None}),
    "a text of 100 MB": lambda folder: rows(folder, question="q" * 10**8),
    "deep notes of a row": lambda folder: rows(folder, meta="[" * 10**5),
    "a family that is none": lambda folder: rows(folder, family="../../x"),
    "numbers for texts": lambda folder: rows(folder, id=1.5),
}
YAMLS = {
    "an object": f"!!python/object/apply:os.system ['touch {SECRET}']",
    "a module": "!!python/module:os",
    "deep lists": "[" * 10_000,
    "laughs": "a: &a [x, x]\n" + "\n".join(f"b{i}: &b{i} [*{'a' if not i else f'b{i - 1}'}, *a]" for i in range(40)),
    "two documents": "---\na: 1\n---\nb: 2\n",
    "bytes": "\0\1\2",
    "a tab": "\ta: 1",
}


def _bytes(folder: Path, data: bytes) -> Path:
    path = folder / "train.parquet"
    path.write_bytes(data)
    return path


def refused(read: Callable[[], object]) -> bool:
    """Whether reading ends in one sentence, and takes little memory of Python's."""
    said = ""
    tracemalloc.start()
    try:
        with nothing_else():
            read()
    except ValueError as error:
        said = str(error).strip()
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < MEMORY_MIB * 2**20
    assert "\n" not in said
    return bool(said)


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    """What a file might write would lie here, and be seen."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path(SECRET).exists() or Path(SECRET).is_dir()


def test_hostile_tables_are_one_sentence(tmp_path, tally):
    held = 0
    for number, (name, make) in enumerate(TABLES.items()):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        path = make(folder)
        assert refused(lambda path=path: read_all(path)), name
        held += 1
    tally("hostile Parquet files", len(TABLES), held)


def test_hostile_loras_are_one_sentence(tmp_path, tally):
    held = 0
    for number, (name, data) in enumerate(LORAS.items()):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(data)
        assert refused(lambda path=path: lora_files.read(path)), name
        held += 1
    tally("hostile safetensors files", len(LORAS), held)


def test_hostile_settings_are_one_sentence(tmp_path, tally):
    held, readers = 0, {"router": Router.load, "mixture": read_mixture, "prices": read_prices}
    for number, (name, words) in enumerate(YAMLS.items()):
        path = tmp_path / f"{number}.yaml"
        path.write_text(words, encoding="utf-8")
        for kind, read in readers.items():
            assert refused(lambda read=read, path=path: read(path)), (name, kind)
            held += 1
    tally("hostile YAML files", len(YAMLS) * len(readers), held)


def test_hostile_pictures_and_lines_are_one_sentence(tmp_path, tally):
    sound = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(sound, "PNG")
    whole, tried = sound.getvalue(), 0
    pictures = [whole[:cut] for cut in range(0, whole.index(b"IDAT") + 20, 7)]
    pictures += [bomb(175_000_001, 1), b"GIF89a" + bytes(9), b"II*\0" + b"\xff" * 99, b"RIFF\xff\xff\xff\xffWEBPVP8 "]
    for data in pictures:
        assert refused(lambda data=data: decode_image(data))
        path = tmp_path / "a.png"
        path.write_bytes(data)
        assert refused(lambda path=path: open_image(path))
        tried += 2
    for line in (b"[" * 100_000, b"\xff", b"null", b'{"key": 1', b"1e999", b'{"key": "a", "iteration": "x"}'):
        folder = tmp_path / "lines"
        folder.mkdir(exist_ok=True)
        (folder / "rewards.jsonl").write_bytes(line + b"\n")
        assert refused(lambda folder=folder: RewardCache(folder, 0)), line
        tried += 1
        if line[:1] != b"{" or line == b'{"key": 1':
            assert refused(lambda folder=folder: list(JsonLines(folder / "rewards.jsonl"))), line
            tried += 1
    tally("hostile pictures and lines", tried, tried)
