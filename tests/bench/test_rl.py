"""The bench of Stage II: both loops do the same work, and the table says what was measured."""

import json

import pytest

from etchr.bench.rl import LOOPS, RlBenchConfig, bench, measure, options, table

CHANGE = [
    *("group_size=4", "prompts_per_iteration=2", "updates_per_iteration=1", "batch_size=2", "rollout.num_steps=3"),
    *("adapter.rank=4", "adapter.alpha=8", "device=cpu", "threads=1"),
]


@pytest.fixture
def prompts(pairs, tmp_path):
    """The layout that the bench reads: a folder per picture side."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "64").symlink_to(pairs)
    return str(tmp_path / "data")


def test_both_loops_are_measured_and_compared(tiny, prompts, tmp_path):
    config = RlBenchConfig(data=prompts, change=CHANGE, latency_s=0.05, iterations=2)
    results = []
    for loop, words in LOOPS.items():
        result = measure(options(config, str(tiny), 64, words, str(tmp_path / str(len(results)))))
        assert result["per_prompt"].keys() == {"sampling", "waiting", "training"}
        assert 2 * sum(result["per_prompt"].values()) == pytest.approx(result["seconds"], rel=0.01)
        assert 0 < result["edit_steps"] <= 2 * 4 * 2  # prompts, edits, steps of the walk but the last
        results.append({"side": 64, "loop": loop, **result})
    assert results[0]["per_prompt"]["waiting"] >= 0.02  # it asks when all is sampled, and waits for one answer at least
    *_, first, second = table(results, config, "the command").splitlines()
    assert first.startswith("| 64 | one at a time, rewards at the end |")
    assert first.endswith("| 1.00 |")
    assert second.endswith(f"| {results[0]['seconds'] / results[1]['seconds']:.2f} |")


def test_one_iteration_counts_with_its_warm_up(tiny, prompts, tmp_path):
    config = RlBenchConfig(data=prompts, change=CHANGE, latency_s=0, iterations=1)
    result = measure(options(config, str(tiny), 64, [], str(tmp_path / "run")))
    assert "One iteration, its warm-up included" in table([{"side": 64, "loop": "x", **result}], config, "the command")


def test_bad_options_say_the_way_out(prompts):
    with pytest.raises(ValueError, match=r"no prompts in .*/720; make them with python -m data_prep all .*size=720"):
        RlBenchConfig(data=prompts, sides=[64, 720])
    with pytest.raises(ValueError, match="size='8b' must be 9b or 4b"):
        RlBenchConfig(data=prompts, size="8b")
    with pytest.raises(ValueError, match="iterations=0"):
        RlBenchConfig(data=prompts, iterations=0)


@pytest.mark.slow
def test_the_bench_writes_its_table(tiny, prompts, tmp_path):
    config = RlBenchConfig(data=prompts, change=[*CHANGE, f"model.base={tiny}"], latency_s=0, out=str(tmp_path / "out"))
    text = bench(config, "the command")
    assert (tmp_path / "out" / "table.md").read_text() == text
    assert [line["loop"] for line in json.loads((tmp_path / "out" / "results.json").read_text())] == list(LOOPS)
