"""How fast a training step is, what it needs, and how far from what the hardware gives: `python -m etchr.bench sft`.

Each row of the table is one way to train, in the trainer's own options, on random pairs and (except nano) random
weights: what a step costs does not depend on the values. A row runs in a process of its own, so its peak memory is its
own and a row that cannot run here says why while the others go on.
"""

import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etchr.bench import own_process, result_in, write_results
from etchr.bench.sft_row import FROZEN_PARTS, BenchRow, guarded, measure, prepare
from etchr.config import compose, parse_command
from etchr.sft.settings import SftConfig

# name -> options of `python -m etchr.sft`, each a change against its defaults: an fp32 adapter trained by AdamW on a
# base in fp32 on a CPU, and in bf16 under autocast on a GPU
VARIANTS: dict[str, list[str]] = {
    "adamw": [],
    "muon": ["optim.name=muon"],
    "bf16_adapter": ["adapter.dtype=bfloat16"],
    "bf16_base": ["model.dtype=bfloat16"],
    "checkpoint_all": ["model.gradient_checkpointing=1"],
    "checkpoint_2": ["model.gradient_checkpointing=2"],
    "fused": ["adapter.product=fused"],
    "weight": ["adapter.product=weight"],
    "compile": ["model.compile=inductor"],
    "int8": ["model.quantisation=int8"],
    "nf4": ["model.quantisation=nf4"],
}
SIZES = ("nano", "4b", "9b")


@dataclass
class SftBenchConfig:
    """Options of `python -m etchr.bench sft`."""

    sizes: list[str] = field(default_factory=list)  # nano, 4b, 9b; empty: nano on a CPU, 4b and 9b on a GPU
    rank: int | None = None  # of the adapter; null: 32 for nano, 768 otherwise
    pairs: list[str] = field(default_factory=list)  # WIDTHxHEIGHT; empty: 64x64 for nano, else 1024x1024 and 640x480
    batch_sizes: list[int] = field(default_factory=lambda: [1])  # pairs per step
    variants: list[str] = field(default_factory=list)  # ways to train; empty: all
    num_steps: int = 5  # steps per measurement
    warmup_steps: int = 2  # before the first measurement
    repeats: int = 3  # measurements, of which the table has the median
    threads: int = 0  # CPU threads of a process; 0: torch's choice
    device: str = "auto"  # auto: a GPU where there is one; cpu
    out: str = "outputs/bench_sft"  # folder for table.md and results.json

    def __post_init__(self) -> None:
        for name, known in (("sizes", SIZES), ("variants", tuple(VARIANTS))):
            if unknown := [value for value in getattr(self, name) if value not in known]:
                raise ValueError(f"{name}={unknown} must be of {', '.join(known)}")
        for pair in self.pairs:
            if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", pair) or any(int(side) % 16 for side in pair.split("x")):
                raise ValueError(f"pairs={pair!r} must be WIDTHxHEIGHT in pixels, both multiples of 16")
        if min([*self.batch_sizes, self.num_steps, self.repeats]) < 1 or not self.batch_sizes:
            raise ValueError("batch_sizes, num_steps and repeats must be at least 1")


def rows(config: SftBenchConfig, device: str) -> Iterator[BenchRow]:
    """What is measured, in the table's order."""
    for size in config.sizes or (["4b", "9b"] if device == "cuda" else ["nano"]):
        rank = config.rank or (32 if size == "nano" else 768)
        for pair in config.pairs or (["64x64"] if size == "nano" else ["1024x1024", "640x480"]):
            for batch_size in config.batch_sizes:
                parts = FROZEN_PARTS if size == "nano" else ()
                for what in (*(config.variants or VARIANTS), *parts):
                    words = [f"adapter.rank={rank}", f"device={config.device}", f"threads={config.threads}"]
                    options = compose(SftConfig, None, [*VARIANTS.get(what, []), *words])
                    yield BenchRow(size, pair, batch_size, what, options, device, config.warmup_steps)


def run(group: Sequence[BenchRow], num_steps: int, repeats: int) -> list[dict[str, Any]]:
    """Measure the rows of a group by turns, so that what else happens on the machine hits all of them alike."""
    results: list[dict[str, Any]] = []
    with ExitStack() as stack:
        pools = [stack.enter_context(own_process()) for _ in group]
        for pool, row in zip(pools, group, strict=True):
            results.append({"rounds": [], **_ask(pool, prepare, row)})
        for _ in range(repeats):
            for pool, result in zip(pools, results, strict=True):
                if "reason" not in result:
                    answer = _ask(pool, measure, num_steps)
                    result.update(answer) if "reason" in answer else result["rounds"].append(answer)
    return results


def _ask(pool: Any, function: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    try:
        return result_in(pool, guarded, function, *args)
    except ValueError as error:
        return {"reason": str(error)}


def evaluate(
    measured: list[tuple[BenchRow, dict[str, Any]]], first: str
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The numbers of each row, compared with the variant `first`, and the machine's FLOP/s by dtype."""
    rates: dict[str, float] = {}  # the best of all the moments at which the machine was asked
    compared: dict[tuple[str, str, int], float] = {}
    for row, result in measured:
        for part in result["rounds"]:
            rates[row.dtype] = max(rates.get(row.dtype, 0.0), part["matmul"])
        if row.what == first and "reason" not in result:
            seconds = statistics.median(part["seconds"] for part in result["rounds"])
            compared[row.size, row.pair, row.batch_size] = seconds
    lines = []
    for row, result in measured:
        line: dict[str, Any] = {"size": row.size, "pair": row.pair, "batch_size": row.batch_size, "what": row.what}
        if "reason" in result:
            lines.append(line | {"reason": result["reason"]})
            continue
        line |= _numbers(row, result)
        if row.what not in FROZEN_PARTS:
            floor, seconds = line["flops_per_step"] / rates[row.dtype], line["seconds_per_step"]
            line |= {"floor_seconds": floor, "utilisation": floor / seconds}
            if (row.size, row.pair, row.batch_size) in compared:
                line["speed_ratio"] = compared[row.size, row.pair, row.batch_size] / seconds
        lines.append(line)
    return lines, rates


def _numbers(row: BenchRow, result: dict[str, Any]) -> dict[str, Any]:
    from etchr.editor.flops import StepFlops
    from etchr.editor.shapes import transformer_config

    times = sorted(part["seconds"] for part in result["rounds"])
    seconds = statistics.median(times)
    numbers = {"dtype": row.dtype, "seconds_per_step": seconds, "all_seconds": times}
    numbers |= {"samples_per_second": row.batch_size / seconds, "memory_before_gb": result["before_gb"]}
    numbers |= {"peak_memory_gb": max(part["peak_gb"] for part in result["rounds"])}
    if row.what in FROZEN_PARTS:
        return numbers
    flops = StepFlops(transformer_config(row.size), row.config.adapter.rank).per_pair(*row.tokens)
    return numbers | {"flops_per_step": row.batch_size * flops}


def table(lines: list[dict[str, Any]], header: list[str]) -> str:
    """The lines as a Markdown page."""
    columns = "size | pair | batch | variant | samples/s | s/step (range) | floor s/step | utilisation | peak GB"
    page = ["\n\n".join(header), "", f"| {columns} | speed against the first |"]
    page.append("| --- | --- | ---: | --- |" + " ---: |" * 6)
    for line in lines:
        cells = [line["size"], line["pair"], str(line["batch_size"]), line["what"]]
        if "reason" in line:
            cells += [line["reason"].replace("|", "/"), *[""] * 5]
        else:
            low, high = line["all_seconds"][0], line["all_seconds"][-1]
            cells += [f"{line['samples_per_second']:.3g}", f"{line['seconds_per_step']:.3g} ({low:.3g} to {high:.3g})"]
            trained, ratio = "utilisation" in line, line.get("speed_ratio")
            cells += [f"{line['floor_seconds']:.3g}", f"{line['utilisation']:.1%}"] if trained else ["", ""]
            cells += [f"{line['peak_memory_gb']:.2f}", f"{ratio:.2f}" if ratio else ""]
        page.append(f"| {' | '.join(cells)} |")
    return "\n".join(page) + "\n"


def bench(config: SftBenchConfig, command: str) -> Path:
    """Measure everything the options name and write `table.md` and `results.json`, anew after every group of rows."""
    import torch

    from etchr.training.hardware import environment

    device = "cuda" if config.device == "auto" and torch.cuda.is_available() else "cpu"
    if config.threads:
        torch.set_num_threads(config.threads)
    hardware = environment(torch.device(device))
    out, done = Path(config.out), list[tuple[BenchRow, dict[str, Any]]]()
    began = time.strftime("%Y-%m-%d")
    groups: dict[Any, list[BenchRow]] = {}
    for number, row in enumerate(rows(config, device)):  # nano's processes fit side by side; full-size models do not
        side_by_side = row.size == "nano" and device == "cpu"
        groups.setdefault((row.pair, row.batch_size) if side_by_side else number, []).append(row)
    for group in groups.values():
        print(f"{group[0].size}, {group[0].pair}: {', '.join(row.what for row in group)} ...", file=sys.stderr)
        done += zip(group, run(group, config.num_steps, config.repeats), strict=True)
        lines, rates = evaluate(done, (config.variants or list(VARIANTS))[0])
        header = _header(command, began, hardware, rates, config)
        values = {"command": command, "date": began, **hardware, "matmul_flops": rates, "rows": lines}
        write_results(out, values, table(lines, header))
    return out / "table.md"


def _header(
    command: str, date: str, hardware: dict[str, Any], rates: dict[str, float], config: SftBenchConfig
) -> list[str]:
    rate_text = ", ".join(f"{dtype} {rate / 1e12:.3g} TFLOP/s" for dtype, rate in sorted(rates.items()))
    used = {name: " ".join(VARIANTS[name]) or "the defaults" for name in config.variants or VARIANTS}
    return [
        f"Command: `{command}`, {date}",
        f"Hardware and versions: {', '.join(f'{name} {value}' for name, value in hardware.items())}",
        f"Measured matrix product rate: {rate_text}. Floor: a step's model FLOPs (nothing recomputed) at that rate; "
        "utilisation: floor / median.",
        f"Times: median of {config.repeats} measurements of {config.num_steps} steps; nano's rows take turns on a CPU. "
        "Peak memory: of the GPU, or resident memory of the row's process, libraries included.",
        f"Variants: {'; '.join(f'{name}: {words}' for name, words in used.items())}.",
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table; exits with one sentence when an option is wrong."""
    words = sys.argv[1:] if argv is None else list(argv)
    config = parse_command(
        SftBenchConfig,
        config_name=None,
        argv=words,
        prog="python -m etchr.bench sft",
        description="Speed, memory and utilisation of training steps, one row per way to train. What cannot run here "
        "is a row that says why.",
    )
    try:
        path = bench(config, " ".join(["bash scripts/bench.sh sft", *words]))
    except KeyboardInterrupt:
        raise SystemExit(f"interrupted; what was measured is in {config.out}") from None
    print(path.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
