"""Short Stage II runs for the tests: options of a tiny run, and what it left.

The embedded reader errs half the time, so that a random editor gets rewards that differ; what it says depends on the
pictures and the seed alone.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etchr.checkpoint import Checkpoints
from etchr.config import compose
from etchr.mllm.protocol import MLLM
from etchr.rewards.cache import RewardCache
from etchr.rewards.pool import RewardPool
from etchr.rewards.score import EditRewards
from etchr.rl.settings import RlConfig
from etchr.rl.setup import build, read_inputs
from etchr.rl.trainer import Trainer
from etchr.run_folder import RunFolder
from etchr.runtime import Runtime

WORDS = [
    *("iterations=3", "prompts_per_iteration=2", "group_size=4", "batch_size=2", "updates_per_iteration=2"),
    *("rollout.num_steps=4", "reward.reasoner.error_rate=0.5", "reward.num_decodings=4"),
    *("adapter.rank=4", "adapter.alpha=8", "optim.lr=0.01", "save_every=1", "device=cpu", "threads=1"),
    *("validation.every=0", "validation.num_samples=4", "validation.num_pictures=2", "pictures_every=0"),
]


def words(tiny, pairs, out, *more) -> list[str]:
    """The command line of a tiny run."""
    return [f"model.base={tiny}", f"data.paths=[{pairs}]", f"out={out}", *WORDS, *more]


def options(tiny, pairs, out, *more) -> RlConfig:
    """The same as options."""
    return compose(RlConfig, "rl", words(tiny, pairs, out, *more))


@contextmanager
def trainer(config: RlConfig, model: MLLM) -> Iterator[Trainer]:
    """The loop of a run whose edits `model` rewards."""
    runtime, folder = Runtime(config.device, threads=config.threads), RunFolder(config.out)
    inputs = read_inputs(config, runtime)
    checkpoints = Checkpoints(folder.path / "checkpoints", config.keep_checkpoints)
    cache = RewardCache(folder.path / "rewards", runtime.rank)
    with RewardPool(EditRewards(model, model, config.reward), cache) as pool:
        run = build(config, runtime, inputs)
        assert config.iterations is not None
        yield Trainer(config, runtime, inputs, run, pool, checkpoints, folder, config.iterations)


def lines(out) -> list[dict]:
    """metrics.jsonl without what a clock or a memory gauge says."""
    written = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if "seconds" not in key and "memory" not in key} for line in written]


def scores(out, rank=0) -> list[dict]:
    """The rewards that a run keeps, in the order in which they came."""
    path = Path(out) / "rewards" / f"rewards_rank{rank}.jsonl"
    whole = path.read_bytes().rpartition(b"\n")[0] if path.is_file() else b""
    return [json.loads(line) for line in whole.splitlines()]
