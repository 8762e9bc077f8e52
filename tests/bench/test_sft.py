"""The bench: what it measures, what it makes of the numbers, and one short run in processes of its own."""

import json

import pytest

from etchr.bench.sft import FROZEN_PARTS, VARIANTS, SftBenchConfig, bench, evaluate, rows, table
from etchr.config import compose
from etchr.editor.flops import StepFlops
from etchr.editor.shapes import transformer_config


def one_row(variant, pair="64x64", batch_size=2):
    config = SftBenchConfig(sizes=["nano"], variants=[variant], pairs=[pair], batch_sizes=[batch_size])
    return next(rows(config, "cpu"))


def measured(*seconds, matmul=1e12):
    return {"before_gb": 0.5, "rounds": [{"seconds": s, "peak_gb": s, "matmul": matmul} for s in seconds]}


def test_a_gpu_gets_the_full_sizes_and_a_cpu_nano():
    on_cpu, on_gpu = list(rows(SftBenchConfig(), "cpu")), list(rows(SftBenchConfig(), "cuda"))
    assert [row.what for row in on_cpu] == [*VARIANTS, *FROZEN_PARTS]
    assert {(row.size, row.pair, row.config.adapter.rank) for row in on_cpu} == {("nano", "64x64", 32)}
    assert {(row.size, row.pair) for row in on_gpu} == {
        (size, pair) for size in ("4b", "9b") for pair in ("1024x1024", "640x480")
    }
    assert {row.config.adapter.rank for row in on_gpu} == {768}
    assert on_gpu[0].tokens == (4096, 4096, 512)
    assert on_cpu[0].tokens == (64, 64, 28)
    assert next(row.grid for row in on_gpu if row.pair == "640x480") == (30, 40)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_changes_the_trainers_options(name):
    default, changed = one_row("adamw").config, one_row(name).config
    assert (changed == default) == (name == "adamw")


def test_products_are_in_the_base_s_dtype():
    assert one_row("adamw").dtype == one_row("bf16_adapter").dtype == "float32"
    assert one_row("bf16_base").dtype == "bfloat16"
    config = SftBenchConfig(sizes=["4b"], variants=["adamw"])
    assert next(rows(config, "cuda")).dtype == "bfloat16"


def test_the_numbers_are_medians_against_what_the_machine_gives():
    slow, fast = one_row("adamw"), one_row("muon")
    done = [(slow, measured(4.0, 1.0, 2.0, matmul=1e12)), (fast, measured(1.0, matmul=2e12))]
    (first, second), rates = evaluate(done, "adamw")
    flops = 2 * StepFlops(transformer_config("nano"), 32).per_pair(64, 64, 28)
    assert rates == {"float32": 2e12}
    assert first["seconds_per_step"] == 2.0
    assert first["samples_per_second"] == 1.0
    assert first["peak_memory_gb"] == 4.0
    assert first["floor_seconds"] == pytest.approx(flops / 2e12)
    assert first["utilisation"] == pytest.approx(flops / 2e12 / 2.0)
    assert (first["speed_ratio"], second["speed_ratio"]) == (1.0, 2.0)


def test_a_row_that_cannot_run_says_why_and_is_compared_with_nothing():
    broken = {"rounds": [], "reason": "no | library"}
    lines, rates = evaluate([(one_row("adamw"), broken), (one_row("muon"), measured(1.0))], "adamw")
    assert rates == {"float32": 1e12}
    assert "speed_ratio" not in lines[1]
    page = table(lines, ["Command: x"]).splitlines()
    assert page[0] == "Command: x"
    assert "no / library" in page[4]
    assert len({line.count("|") for line in page[2:]}) == 1  # every line has every column


@pytest.mark.slow
def test_a_run_writes_what_it_measured(tmp_path):
    config = SftBenchConfig(
        sizes=["nano"], pairs=["32x32"], variants=["muon", "nf4"], num_steps=1, repeats=2, threads=1, out=str(tmp_path)
    )
    page = bench(config, "the command").read_text()
    values = json.loads((tmp_path / "results.json").read_text())
    lines = {line["what"]: line for line in values["rows"]}
    assert set(lines) == {"muon", "nf4", *FROZEN_PARTS}
    assert 0 < lines["muon"]["utilisation"] < 1
    assert lines["muon"]["speed_ratio"] == 1.0
    assert len(lines["muon"]["all_seconds"]) == 2
    assert lines["muon"]["peak_memory_gb"] > lines["muon"]["memory_before_gb"] > 0
    assert "nf4" in lines["nf4"]["reason"]  # without a GPU, or without its library
    assert all(lines[part]["samples_per_second"] > 0 for part in FROZEN_PARTS)
    assert values["threads"] == 1
    assert "`the command`" in page
    assert all(f"| {what} |" in page for what in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sizes=[12b]"], "must be of nano, 4b, 9b"),
        (["variants=[adamv]"], "must be of adamw, muon"),
        (["pairs=[64]"], "must be WIDTHxHEIGHT"),
        (["pairs=[64x65]"], "both multiples of 16"),
        (["repeats=0"], "must be at least 1"),
    ],
)
def test_a_mistake_is_one_sentence(words, message):
    with pytest.raises(ValueError, match=message):
        compose(SftBenchConfig, None, words)
