"""Short trainings for the tests: options of a tiny run, and what it left."""

import json
import sys
from pathlib import Path

from safetensors.torch import load_file

from etchr.config import compose
from etchr.sft.settings import SftConfig

WORDS = [
    *("steps=6", "global_batch_size=4", "batch_size=2", "log_every=1", "save_every=2", "device=cpu", "threads=1"),
    *("adapter.rank=4", "optim.lr=0.01", "optim.clip=1.0"),
    *("validation.every=0", "validation.num_samples=4", "validation.num_pictures=2"),
]


def words(tiny, pairs, out, *more):
    """The command line of a tiny run."""
    return [f"model.base={tiny}", f"data.paths=[{pairs}]", f"out={out}", *WORDS, *more]


def options(tiny, pairs, out, *more) -> SftConfig:
    """The same as options."""
    return compose(SftConfig, "sft", words(tiny, pairs, out, *more))


def command(*args) -> list[str]:
    """`python -m etchr.sft` with these words."""
    return [sys.executable, "-m", "etchr.sft", *args]


def weights(out, name="adapter/pytorch_lora_weights"):
    """Tensors that a run left."""
    return load_file(Path(out) / f"{name}.safetensors")


def metrics(out, key="loss"):
    """step -> value from metrics.jsonl; every step has one line."""
    lines = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    found = [(line["step"], line[key]) for line in lines if key in line]
    assert len(dict(found)) == len(found), "a step was written twice"
    return dict(found)
