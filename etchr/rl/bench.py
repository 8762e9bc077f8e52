"""What an iteration of Stage II costs: `python -m etchr.rl.bench`.

Runs the trainer twice on the same options, prompts and noise: (a) as the released code goes about it, one edit at a
time and rewards asked for when all are there, and (b) as this trainer does, a group in one forward and rewards on their
way while the next group is sampled. The understanding model answers after a fixed time, as a server would.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etchr.config import compose, parse_command
from etchr.rl.settings import RlConfig
from etchr.run_folder import write_atomically

LOOPS = {
    "one at a time, rewards at the end": ["batch_size=1", "reward.overlap=false"],
    "this trainer": [],
}
# An untrained editor is never right: a reader that errs makes the rewards differ, so that there is something to learn.
NOISY = ["reward.reasoner.error_rate=0.5", "reward.num_decodings=4"]
PARTS = ("sampling", "waiting", "training")


@dataclass
class BenchConfig:
    """Options of `python -m etchr.rl.bench`."""

    preset: str = "nano_rl_paper"  # experiment of python -m etchr.rl whose options are measured
    change: list[str] = field(default_factory=list)  # options of python -m etchr.rl that replace them, such as [seed=1]
    data: str = "outputs/data/bench_rl"  # prompts
    latency_s: float = 2.0  # seconds before the understanding model answers
    iterations: int = 4  # per loop, of which the first is not counted
    out: str = "outputs/bench_rl"  # folder for table.md and results.json

    def __post_init__(self) -> None:
        if self.iterations < 2:
            raise ValueError(f"iterations={self.iterations} must be at least 2: the first is not counted")


def measure(config: BenchConfig, loop: Sequence[str], out: Path) -> dict[str, Any]:
    """Median seconds per prompt of each part of an iteration."""
    from etchr.rl.trainer import train

    words = [
        f"experiment={config.preset}",
        "sft=null",
        f"data.paths=[{config.data}]",
        *NOISY,
        *config.change,
        *loop,
    ]
    words += [f"iterations={config.iterations}", "validation.every=0", "pictures_every=0", f"out={out}"]
    options: RlConfig = compose(RlConfig, "rl", [*words, f"reward.reasoner.latency_s={config.latency_s}"])
    train(options)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    counted = [line for line in lines if "seconds" in line][1:]
    parts = {part: statistics.median(line[f"seconds_{part}"] for line in counted) for part in PARTS}
    total = statistics.median(line["seconds"] for line in counted)
    per_prompt = {part: value / options.prompts_per_iteration for part, value in parts.items()}
    machine = json.loads((out / "environment.json").read_text(encoding="utf-8"))
    return {"seconds": total, "per_prompt": per_prompt, "waiting_share": parts["waiting"] / total, "machine": machine}


def table(results: dict[str, dict[str, Any]], config: BenchConfig, command: str) -> str:
    """The measurements as Markdown; the last column is against the first row."""
    first = next(iter(results.values()))
    machine = first["machine"]
    shown = ", ".join(f"{name} {machine[name]}" for name in ("device", "cpus", "threads", "torch", "diffusers", "peft"))
    rows = [
        f"Command: `{command}`, {time.strftime('%Y-%m-%d')}",
        f"Hardware and versions: {shown}. Median of {config.iterations - 1} iterations; the model answers after "
        f"{config.latency_s:g} s.",
        "",
        "| loop | sampling, s/prompt | waiting, s/prompt | training, s/prompt | s/iteration | waiting | speed |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, result in results.items():
        cells = [f"{result['per_prompt'][part]:.2f}" for part in PARTS]
        cells += [f"{result['seconds']:.2f}", f"{result['waiting_share']:.0%}"]
        rows.append(f"| {name} | {' | '.join(cells)} | {first['seconds'] / result['seconds']:.2f} |")
    return "\n".join(rows) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table; exits with one sentence when something is wrong."""
    words = sys.argv[1:] if argv is None else list(argv)
    config = parse_command(
        BenchConfig,
        config_name=None,
        argv=words,
        prog="python -m etchr.rl.bench",
        description="Seconds per prompt of sampling, waiting for rewards and training, against a loop that samples one "
        "edit at a time and asks for rewards at the end. For another size: \"change=['model.base=FOLDER']\".",
    )
    results: dict[str, dict[str, Any]] = {}
    try:
        for name, loop in LOOPS.items():
            with tempfile.TemporaryDirectory() as folder:
                results[name] = measure(config, loop, Path(folder) / "run")
    except ValueError as error:
        raise SystemExit(str(error)) from None
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    text = table(results, config, " ".join(["python -m etchr.rl.bench", *words]))
    write_atomically(out / "results.json", (json.dumps(results, indent=2) + "\n").encode())
    write_atomically(out / "table.md", text.encode())
    print(text, end="")


if __name__ == "__main__":
    main()
