"""SIGKILL at random moments, again and again: each run ends as an undisturbed one, no finished call is made twice."""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from etchr.nano.reader import Reader
from etchr.rl.__main__ import main as rl
from etchr.sft.__main__ import main as sft
from tests.evaluation import faulty
from tests.evaluation.fakes import write_data
from tests.mllm.fake_server import FakeServer, serving
from tests.processes import CHILDREN, ROOT, environment
from tests.rewards.fakes import CountingServer
from tests.rl import runs as rl_runs
from tests.sft import runs as sft_runs
from tests.sft.runs import weights

SFT_KILLS, RL_KILLS, EVALUATION_KILLS = 30, 30, 40
AT_ONCE = 2  # calls of a training
SFT = ("steps=12", "save_every=3", "validation.every=4", "optim.ema=0.9")
RL = (
    *("iterations=4", "save_every=2", "keep_checkpoints=9", "validation.every=2", "objective.kl=0.1"),
    *("reward.reasoner.kind=http", "reward.reasoner.model='reader(error_rate=0.5,seed=0)'"),
    *(
        "reward.reasoner.error_rate=0",
        f"reward.reasoner.max_concurrency={AT_ONCE}",
        "reward.reasoner.api_key_env=ETCHR_TEST_REWARD_KEY",
    ),
)
Main = Callable[[list[str]], object]


def seconds_of(main: Main, words: list[str]) -> float:
    """How long a run takes that nobody disturbs, from the start of its process."""
    loaded = CHILDREN.Process(target=int)  # the first child waits until everything is imported
    loaded.start()
    loaded.join()
    start, child = time.monotonic(), CHILDREN.Process(target=main, args=(words,))
    child.start()
    child.join()
    assert child.exitcode == 0
    return time.monotonic() - start


def finished_through_kills(main: Main, words: list[str], rng: random.Random, length: float, most: int) -> int:
    """Start a run until it ends by itself, killing it up to `most` times; how many kills hit it."""
    hits = 0
    while True:
        child = CHILDREN.Process(target=main, args=(words,))
        child.start()
        child.join(rng.uniform(0.0, 0.8 * length) if hits < most else None)
        child.kill()
        child.join()
        if child.exitcode == 0:
            return hits
        assert child.exitcode == -9, "the run failed by itself"
        hits += 1


def killed_often(main: Main, words_of: Callable[[Path], list[str]], calm: Path, wanted: int, seed: int) -> list[Path]:
    """Folders of runs that were killed `wanted` times together, and then ended."""
    rng, folders, kills = random.Random(seed), [], 0
    length = seconds_of(main, words_of(calm))
    while kills < wanted:
        folders.append(calm.with_name(f"killed{len(folders)}"))
        kills += finished_through_kills(main, words_of(folders[-1]), rng, length, min(6, wanted - kills))
    return folders


def same(folder: Path, calm: Path, names: list[str]) -> bool:
    """Whether two runs left the same tensors."""
    pairs = [(weights(folder, name), weights(calm, name)) for name in names]
    return all(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in pairs)


def test_kills_of_stage_one(tiny, pairs, tmp_path, tally):
    def words(out: Path) -> list[str]:
        return sft_runs.words(tiny, pairs, out, *SFT)

    calm = tmp_path / "calm"
    folders = killed_often(sft, words, calm, SFT_KILLS, seed=1)
    held = sum(
        same(folder, calm, ["adapter/pytorch_lora_weights"]) and sft_runs.metrics(folder) == sft_runs.metrics(calm)
        for folder in folders
    )
    tally(f"SFT runs that end as an undisturbed one, through {SFT_KILLS} kills", len(folders), held)


def test_kills_of_stage_two(tiny, pairs, tmp_path, tally):
    """Validation included. What may be asked again is what was under way at a kill."""
    server = CountingServer(Reader(error_rate=0.5))
    with serving(server) as url:

        def words(out: Path) -> list[str]:
            return rl_runs.words(tiny, pairs, out, *RL, f"reward.reasoner.base_urls=[{url}/v1]")

        seconds_of(rl, words(tmp_path / "first"))
        asked = Counter(server.answered)
        server.answered.clear()
        folders = killed_often(rl, words, tmp_path / "calm", RL_KILLS, seed=2)
    names = ["adapter/pytorch_lora_weights", "last/pytorch_lora_weights"]
    calm = tmp_path / "calm"
    held = sum(same(folder, calm, names) and rl_runs.lines(folder) == rl_runs.lines(calm) for folder in folders)
    assert set(server.answered) == set(asked), "other questions than those of the undisturbed run"
    again = sum(server.answered.values()) - (len(folders) + 1) * sum(asked.values())
    assert 0 <= again <= RL_KILLS * AT_ONCE, f"{again} calls were made again"
    done = f"{sum(asked.values())} calls each, {again} of all under way at a kill and made again"
    tally(f"RL runs that end as an undisturbed one, through {RL_KILLS} kills; {done}", len(folders), held)


def test_kills_of_an_evaluation(tmp_path, tally):
    data = write_data(faulty.CASES, tmp_path / "data")
    server, hits, kills = FakeServer(), 0, EVALUATION_KILLS // 2
    with serving(server) as server.url:
        calm = faulty.table(faulty.config(data, tmp_path / "calm", server.endpoint(kind=faulty.Table).base_url))
        for seed in (3, 4):
            endpoint = server.endpoint(kind=faulty.Table)
            endpoint.delay_s = 0.02
            words = [endpoint.base_url, data, tmp_path / f"{seed}" / "killed", str(kills), str(seed)]
            command = [sys.executable, "-m", "tests.evaluation.faulty", *words]
            ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment())
            assert ran.returncode == 0, ran.stderr[-2000:]
            result = json.loads(ran.stdout.splitlines()[-1])
            assert result["report"] == calm
            lost = sum(endpoint.answered.values()) - 2 * 3 * len(faulty.CASES)  # of it, and of one before
            assert 0 < lost <= kills * faulty.CONCURRENCY
            hits += result["hits"]
    tally("kills of an evaluation that changed nothing", EVALUATION_KILLS, hits)
