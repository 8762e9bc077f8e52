"""Short Stage II runs for the tests: options of a tiny run, and what it left.

The embedded reader errs half the time, so that a random editor gets rewards that differ; what it says depends on the
pictures and the seed alone.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from etchr.config import compose
from etchr.mllm.protocol import MLLM
from etchr.rewards.cache import RewardCache, score_key
from etchr.rewards.pool import RewardPool
from etchr.rewards.score import EditRewards
from etchr.rl.inputs import read_inputs
from etchr.rl.policy import build_policy
from etchr.rl.settings import RlConfig
from etchr.rl.trainer import RlTrainer
from etchr.runtime import Runtime
from etchr.sample import read_parquet
from etchr.seeds import hash_seed, server_seed
from etchr.training.run import Run
from tests.rl.fakes import BlindReader

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
def trainer(config: RlConfig, model: MLLM) -> Iterator[RlTrainer]:
    """The loop of a run whose edits `model` rewards."""
    runtime = Runtime(config.device, threads=config.threads)
    run = Run(config, runtime, read_inputs(config, runtime), Path(config.out))
    cache = RewardCache(run.folder / "rewards", runtime.rank)
    with RewardPool(EditRewards(model, model, config.reward), cache) as pool:
        yield RlTrainer(config, run, build_policy(config, runtime, run.inputs.base), pool)


def lines(out) -> list[dict]:
    """metrics.jsonl without what a clock or a memory gauge says."""
    written = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if "seconds" not in key and "memory" not in key} for line in written]


def scores(out, rank=0) -> list[dict]:
    """The rewards that a run keeps, in the order in which they came."""
    path = Path(out) / "rewards" / f"rewards{f'.{rank}' if rank else ''}.jsonl"
    whole = path.read_bytes().rpartition(b"\n")[0] if path.is_file() else b""
    return [json.loads(line) for line in whole.splitlines()]


# ------------------------------------------------------------------------------------- the edits that were rewarded


def reader_at(url: str, reader: BlindReader) -> tuple[str, ...]:
    """The words that make `reader`, served at `url`, the understanding model of a run."""
    return (
        *("reward.reasoner.kind=http", f"reward.reasoner.model='{reader.name}'", "reward.reasoner.error_rate=0"),
        *(f"reward.reasoner.base_urls=[{url}/v1]", "reward.reasoner.api_key_env=ETCHR_TEST_REWARD_KEY"),
    )


@dataclass(frozen=True)
class Asked:
    """What a reader was asked about one address: the seed of its score, and its edit each time it was drawn."""

    sample_id: str
    seed: int
    pictures: list[Image.Image]


def asked_about(reader: BlindReader, config: RlConfig, pairs: Path) -> dict[tuple, Asked]:
    """By address what `reader` was asked about: (sample, iteration, member), or (sample,) where that is held out."""
    assert config.iterations is not None
    seeds: dict[tuple, int] = {}
    for path in sorted(pairs.glob("*/*.parquet")):
        for sample in read_parquet(path):
            if path.stem == "val":
                seeds[(sample.id,)] = server_seed(config.validation.seed, sample.id, "reward")
                continue
            for iteration, member in itertools.product(range(config.iterations), range(config.group_size)):
                seed = server_seed(config.seed, iteration, sample.id, member, "reward")
                seeds[sample.id, iteration, member] = seed
    first = {address: server_seed(hash_seed(seed, 1), 0) for address, seed in seeds.items()}  # of guidance
    return {
        address: Asked(address[0], seeds[address], reader.edits[seed])
        for address, seed in first.items()
        if seed in reader.edits
    }


def told(records: Iterable[dict], asked: dict[tuple, Asked]) -> dict[tuple, tuple[float, float]]:
    """By address and iteration the rewards in a run's records. `KeyError` for one of an edit that was not shown.

    A record's own key hangs on every pixel of its edit; addresses are the same wherever a run takes place.
    """
    known = {
        score_key(about.sample_id, picture, about.seed): address
        for address, about in asked.items()
        for picture in about.pictures
    }
    return {
        (known[record["key"]], record["iteration"]): (record["guidance"], record["correctness"]) for record in records
    }
