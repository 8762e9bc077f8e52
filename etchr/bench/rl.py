"""What an iteration of Stage II costs: `python -m etchr.bench rl`.

At every picture size the trainer runs twice on the same options, prompts and noise: (a) as the released code goes about
it, one edit at a time and rewards asked for when all are there, and (b) as this trainer does, a group in one forward
and rewards on their way while the next group is sampled. The understanding model answers after a fixed time, as a
server would. Each runs in a process of its own, so its peak memory is its own.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etchr.bench import own_process, result_in, write_results
from etchr.config import compose, parse_command
from etchr.rl.settings import RlConfig

LOOPS = {
    "one at a time, rewards at the end": ["batch_size=1", "reward.overlap=false"],
    "this trainer": [],
}
# An untrained editor is never right: a reader that errs makes the rewards differ, so that there is something to learn.
NOISY = ["reward.reasoner.kind=reader", "reward.reasoner.error_rate=0.5", "reward.num_decodings=4"]
PARTS = ("sampling", "waiting", "training")


@dataclass
class RlBenchConfig:
    """Options of `python -m etchr.bench rl`."""

    preset: str = "nano_rl_paper"  # experiment of python -m etchr.rl whose options are measured
    size: str | None = None  # 9b, 4b: random weights of that shape (35, 17 GB below TMPDIR); null: the preset's base
    change: list[str] = field(default_factory=list)  # options of python -m etchr.rl that replace them, such as [seed=1]
    data: str = "outputs/data/bench_rl"  # prompts: a folder per side of the pictures in px
    sides: list[int] = field(default_factory=lambda: [64])  # of those, the ones that are measured
    latency_s: float = 2.0  # seconds before the understanding model answers
    iterations: int = 4  # per loop; the first is not counted unless it is the only one
    out: str = "outputs/bench_rl"  # folder for table.md and results.json

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations={self.iterations} must be at least 1")
        if self.size not in (None, "9b", "4b"):
            raise ValueError(f"size={self.size!r} must be 9b or 4b, or null for the preset's base")
        for side in self.sides:
            if not Path(folder := f"{self.data}/{side}").is_dir():
                words = f"split=train seed=1 num_samples=16 size={side} out={folder}"
                raise ValueError(f"no prompts in {folder}; make them with python -m data_prep all {words}")


def options(config: RlBenchConfig, base: str | None, side: int, loop: Sequence[str], out: str) -> list[str]:
    """The command line of the run that is measured."""
    return [
        *(f"experiment={config.preset}", "sft=null", f"data.paths=[{config.data}/{side}]"),
        *([f"model.base={base}"] if base is not None else []),
        *NOISY,
        f"reward.reasoner.latency_s={config.latency_s}",
        *config.change,
        *loop,
        *(f"iterations={config.iterations}", "validation.every=0", "pictures_every=0", f"out={out}"),
    ]


def measure(words: Sequence[str]) -> dict[str, Any]:
    """Median seconds per prompt of each part of an iteration, and the peak memory: of the GPU, or resident on a CPU."""
    from etchr.rl.trainer import train

    config: RlConfig = compose(RlConfig, "rl", list(words))
    train(config)
    out = Path(config.out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if "seconds" in line]
    counted = lines[1:] or lines
    parts = {part: statistics.median(line[f"seconds_{part}"] for line in counted) for part in PARTS}
    total = statistics.median(line["seconds"] for line in counted)
    return {
        "seconds": total,
        "per_prompt": {part: value / config.prompts_per_iteration for part, value in parts.items()},
        "waiting_share": parts["waiting"] / total,
        "edit_steps": statistics.median(line["edit_steps_trained"] for line in counted),
        "peak_gb": max(line["peak_memory_gb"] for line in counted),
        "machine": json.loads((out / "environment.json").read_text(encoding="utf-8")),
    }


def bench(config: RlBenchConfig, command: str) -> str:
    """Both loops at every picture size; `table.md`, which is returned, and `results.json` are written after each."""
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        base = None
        if config.size is not None:
            base = f"{scratch}/klein"
            print(f"writing random weights of {config.size} ...", file=sys.stderr)
            _alone(_random_base, config.size, base)
        for side in config.sides:
            for loop, words in LOOPS.items():
                print(f"{side} px, {loop} ...", file=sys.stderr)
                with tempfile.TemporaryDirectory() as run:
                    result = _alone(measure, options(config, base, side, words, f"{run}/run"))
                lines.append({"side": side, "loop": loop, **result})
                text = table(lines, config, command)
                write_results(Path(config.out), lines, text)
    return text


def _alone(function: Callable[..., Any], *args: Any) -> Any:
    with own_process() as process:
        return result_in(process, function, *args)


def _random_base(size: str, folder: str) -> None:
    import torch

    from etchr.editor.shapes import random_folder

    torch.manual_seed(0)
    random_folder(size, folder, "cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16)


def table(lines: Sequence[dict[str, Any]], config: RlBenchConfig, command: str) -> str:
    """The measurements as Markdown; the speed is against the first row of the same picture size.

    "Edit steps" counts what an iteration learned from: edits with an advantage other than 0 times the steps or noise
    levels trained. Edits without one that share a batch with such edits are computed, too, and not counted; a loop of
    single edits leaves them out.
    """
    machine = lines[0]["machine"]
    shown = ", ".join(f"{name} {machine[name]}" for name in ("device", "cpus", "threads", "torch", "diffusers", "peft"))
    number = config.iterations
    counted = (
        f"Median of {number - 1} iterations after the first" if number > 1 else "One iteration, its warm-up included"
    )
    weights = f" Random weights of the shape of klein-base-{config.size.upper()}." if config.size else ""
    rows = [
        f"Command: `{command}`, {time.strftime('%Y-%m-%d')}",
        f"Hardware and versions: {shown}. {counted}; the model answers after {config.latency_s:g} s.{weights}",
        "",
        "| side, px | loop | s/prompt: sampling | waiting | training | edit steps | s/iteration | waits | GB | speed |",
        "| ---: | --- |" + " ---: |" * 8,
    ]
    first = {line["side"]: line["seconds"] for line in reversed(lines)}
    for line in lines:
        cells = [str(line["side"]), line["loop"], *(f"{line['per_prompt'][part]:.2f}" for part in PARTS)]
        cells += [
            f"{line['edit_steps']:g}",
            f"{line['seconds']:.2f}",
            f"{line['waiting_share']:.0%}",
            f"{line['peak_gb']:.1f}",
        ]
        rows.append(f"| {' | '.join(cells)} | {first[line['side']] / line['seconds']:.2f} |")
    return "\n".join(rows) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table; exits with one sentence when something is wrong."""
    words = sys.argv[1:] if argv is None else list(argv)
    config = parse_command(
        RlBenchConfig,
        config_name=None,
        argv=words,
        prog="python -m etchr.bench rl",
        description="Seconds per prompt of sampling, waiting for rewards and training, against a loop that samples one "
        "edit at a time and asks for rewards at the end. Full size: preset=rl_9b size=9b sides=[512,720].",
    )
    try:
        print(bench(config, " ".join(["bash scripts/bench.sh rl", *words])), end="")
    except (ValueError, RuntimeError, OSError) as error:  # torch's own are RuntimeErrors
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
