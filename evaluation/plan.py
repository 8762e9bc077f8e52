"""A dry run: what an evaluation would call, before anything is loaded or asked.

Calls are counted exactly where a system always makes the same, else from the fewest to the most. Tokens are estimates:
a picture takes one token for every 32x32 pixels (Qwen3-VL; other models count otherwise), a text one for every four
characters, a reply `REPLY_TOKENS`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from etchr.editor.geometry import MAX_PIXELS, fit_size
from etchr.mllm.prompts import ANSWER, VERIFY
from etchr.mllm.settings import ModelConfig
from etchr.router import DEFAULT_ROUTER, Router
from etchr.sample import EditSample
from evaluation import factory
from evaluation.cost import Prices, read_prices
from evaluation.factory import Task
from evaluation.records import RunFolder
from evaluation.run import check
from evaluation.settings import EvalConfig, SystemConfig

TOKEN_SIDE = 32  # pixels along a side of one picture token
LETTERS_PER_TOKEN = 4
REPLY_TOKENS = 300  # of one reply, the reasoning before its box included


@dataclass(frozen=True)
class Calls:
    """The calls of one sample, at least and at most, and the pictures that go with each: sources, and added ones."""

    least: int
    most: int
    edits: int  # at most
    added: int  # pictures of the editor's size that a call shows beside the sources, at most


def calls_of(system: SystemConfig) -> Calls:
    """What one sample takes in a system."""
    n, turns = system.attempts, system.turns
    by_question = system.prompt == "question"
    routed = by_question and system.route != "label"
    first = int(system.prompt == "enhanced") + int(routed and system.route == "model")  # calls before the first edit
    rewrites = 0 if by_question else n - 1
    least, most, edits, added = {
        "direct": (1, 1, 0, 0),
        "oracle_edit": (2, 2, 0, 1),
        "evr": (2, 2, 1, 1),
        "enhancer": (2, 2, 1, 1),
        "always_edit": (1, 1, 1, 1),
        "crop": (2, 2, 1, 2),
        "best_of_n": (n + 1, n + 1, n, 1),
        "iterate": (2, n + 1 + rewrites, n, 1),
        "tool_loop": (1, turns, 0, turns),
        "interleaved": (1, turns, turns, turns),
    }[system.kind]
    if system.kind in ("direct", "oracle_edit", "tool_loop", "interleaved"):
        return Calls(least, most, edits, added)
    if routed:  # an uncertain family asks for no edit, and the answer is all that is left
        least = 1
    return Calls(least + first, most + first, edits, added)


@dataclass
class Sum:
    """What the samples of a system take together, at most."""

    samples: int = 0
    edits: int = 0
    least: int = 0
    most: int = 0
    prompt: int = 0
    completion: int = 0


def dry_run(config: EvalConfig) -> str:
    """The plan as Markdown; `ValueError` for all that would stop the run at its start."""
    tasks = factory.read_tasks(config)
    check(config, tasks, Router.load(config.router or DEFAULT_ROUTER))
    prices = read_prices(config.prices)
    head = ["system", "kind", "samples left", "edits", "calls", "prompt tokens", "reply tokens", "USD"]
    rows = []
    for name, system in config.systems.items():
        total = _sum(config, name, system, tasks)
        calls = f"{total.least:,}" if total.least == total.most else f"{total.least:,} to {total.most:,}"
        usd = _usd(total, system.model or config.reasoner, prices)
        tokens = [f"{total.prompt:,}", f"{total.completion:,}"]
        rows.append([name, system.kind, f"{total.samples:,}", f"{total.edits:,}", calls, *tokens, usd])
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---", "---", *["---:"] * 6], *rows)]
    counts = ", ".join(f"{name} {len(task):,}" for name, task in tasks.items())
    repeats = f", each {config.repeats} times" if config.repeats > 1 else ""
    notes = [
        f"Samples: {counts}{repeats}. What {config.out} has a record of is left out.",
        f"At most; one token per {TOKEN_SIDE}x{TOKEN_SIDE} pixels and per {LETTERS_PER_TOKEN} letters, {REPLY_TOKENS} "
        "a reply. Edits and replies that are kept from before cost nothing. Nothing was loaded or asked.",
    ]
    if config.judge is not None:
        notes.append("The judge is asked once more for every free-text answer that rules find different.")
    if config.edit_judge is not None:
        notes.append("The edit judge is asked once for every edit.")
    return "\n".join([*lines, "", *notes])


def _sum(config: EvalConfig, name: str, system: SystemConfig, tasks: dict[str, Task]) -> Sum:
    calls, total = calls_of(system), Sum()
    model = system.model or config.reasoner
    for sample in _left(config, name, tasks):
        sources = sum(_picture_tokens(image.size, model) for image in (sample.image, *sample.more_images))
        edited = fit_size(*sample.image.size, max_pixels=config.editing.max_pixels or MAX_PIXELS)
        words = len(ANSWER) + len(VERIFY) + 2 * len(sample.question) + 2 * sum(map(len, sample.choices or ()))
        pictures = sources + calls.added * _picture_tokens(edited, model)
        total.samples += 1
        total.edits += calls.edits
        total.least += calls.least
        total.most += calls.most
        total.prompt += calls.most * (pictures + words // (2 * LETTERS_PER_TOKEN))
        total.completion += calls.most * min(REPLY_TOKENS, config.max_tokens)
    return total


def _left(config: EvalConfig, name: str, tasks: dict[str, Task]) -> Iterator[EditSample]:
    """The samples, as headers, that a system has no record of."""
    done = RunFolder(config.out).records(name).read()
    for task in tasks.values():
        for index in range(len(task)):
            for repeat in range(config.repeats):
                record = done.get((task.samples.ids[index], repeat))
                if record is None or record["unscored"] is not None:
                    yield task.samples.peek(index)


def _picture_tokens(size: tuple[int, int], model: ModelConfig) -> int:
    width, height = size
    if model.max_image_pixels is not None and width * height > model.max_image_pixels:
        scale = math.sqrt(model.max_image_pixels / (width * height))
        width, height = round(width * scale), round(height * scale)
    return max(1, round(width / TOKEN_SIDE)) * max(1, round(height / TOKEN_SIDE))


def _usd(total: Sum, model: ModelConfig, prices: Prices) -> str:
    name = "reader" if model.kind == "reader" else model.model.rstrip("/").rpartition("/")[2]
    if name not in prices:
        return f"no price for {name}"
    price = prices[name]
    return f"{(total.prompt * price.prompt + total.completion * price.completion) / 1e6:.2f}"
