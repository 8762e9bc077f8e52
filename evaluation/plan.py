"""A dry run: what an evaluation would call, before anything is loaded or asked.

Calls are counted exactly where a system always makes the same, else from the fewest to the most. Tokens are estimates:
a picture takes one token for every 32x32 pixels (Qwen3-VL; other models count otherwise), a text one for every four
characters, a reply `REPLY_TOKENS`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from etchr.editor.geometry import MAX_PIXELS, fit_size
from etchr.mllm.prompts import ANSWER, VERIFY, grade_prompt, judge_prompt
from etchr.mllm.settings import ModelConfig
from etchr.mllm.wire import capped_size
from etchr.sample import EditSample
from evaluation import factory
from evaluation.context_length import picture_tokens
from evaluation.cost import Prices, read_prices
from evaluation.factory import Task
from evaluation.records import EvalFolder
from evaluation.run import check
from evaluation.settings import EvalConfig, SystemConfig
from evaluation.systems import SYSTEMS
from evaluation.tabular import Table, markdown_table

TOKEN_SIDE = 32  # pixels along a side of one picture token
LETTERS_PER_TOKEN = 4
REPLY_TOKENS = 300  # of one reply, the reasoning before its box included


@dataclass
class Sum:
    """What some calls take together, at most: the tokens of each model that is asked."""

    samples: int = 0
    edits: int = 0
    least: int = 0
    most: int = 0
    prompt: Counter[str] = field(default_factory=Counter)
    completion: Counter[str] = field(default_factory=Counter)

    def ask(self, model: ModelConfig, calls: int, letters: int, pictures: list[tuple[int, int]], reply: int) -> None:
        """Add so many calls of a model, each with these texts and pictures."""
        shown = sum(picture_tokens(capped_size(size, model.max_image_pixels), TOKEN_SIDE) for size in pictures)
        self.prompt[_name(model)] += calls * (shown + letters // LETTERS_PER_TOKEN)
        self.completion[_name(model)] += calls * min(REPLY_TOKENS, reply)


def dry_run(config: EvalConfig) -> str:
    """The plan as Markdown; `ValueError` for all that would stop the run at its start."""
    tasks = factory.read_tasks(config)
    check(config, tasks)
    prices = read_prices(config.prices)
    head = ["system", "kind", "samples left", "edits", "calls", "prompt tokens", "reply tokens", "USD"]
    sums = {name: _sum(config, name, system, tasks) for name, system in config.systems.items()}
    rows = [_row(name, config.systems[name].kind, total, prices) for name, total in sums.items()]
    rows += [_row(role, _name(model), total, prices) for role, model, total in _judges(config, tasks)]
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
    return "\n".join([*markdown_table(Table(head, rows)), "", *notes])


def _row(name: str, kind: str, total: Sum, prices: Prices) -> list[str]:
    calls = f"{total.least:,}" if total.least == total.most else f"{total.least:,} to {total.most:,}"
    tokens = [f"{counts.total():,}" for counts in (total.prompt, total.completion)]
    return [name, kind, f"{total.samples:,}", f"{total.edits:,}", calls, *tokens, _usd(total, prices)]


def _sum(config: EvalConfig, name: str, system: SystemConfig, tasks: dict[str, Task]) -> Sum:
    calls, total = SYSTEMS[system.kind].calls_of(system), Sum()
    reasoner = system.model or config.reasoner
    verifier = config.verifier or reasoner
    for _, sample in _left(config, name, tasks):
        sources, edit = _sizes(config, sample)
        letters = (len(ANSWER) + len(VERIFY)) // 2 + len(sample.question) + sum(map(len, sample.choices or ()))
        total.samples += 1
        total.edits += calls.edits
        total.least += calls.least
        total.most += calls.most
        total.ask(reasoner, calls.most - calls.verify, letters, sources + [edit] * calls.added, config.max_tokens)
        total.ask(verifier, calls.verify, letters, [*sources, edit], config.max_tokens)
    return total


def _judges(config: EvalConfig, tasks: dict[str, Task]) -> Iterator[tuple[str, ModelConfig, Sum]]:
    """What grading takes, by the role of who grades, over all systems."""
    answers, edits = Sum(), Sum()
    for name, system in config.systems.items():
        kind = SYSTEMS[system.kind]
        proposes = kind.is_routed or kind.needs_truth
        for task, sample in _left(config, name, tasks):
            if config.judge is not None and task.benchmark.may_ask_judge(sample):
                answers.samples, answers.most = answers.samples + 1, answers.most + 1
                own = sample.meta.get("grading")  # CharXiv's rubrics
                words = own or [grade_prompt(sample.question, sample.choices, sample.answer, sample.answer)]
                answers.ask(config.judge, 1, sum(map(len, words)), [], config.judge_max_tokens)
            if config.edit_judge is not None and proposes:
                edits.samples, edits.most = edits.samples + 1, edits.most + 1
                edits.least += system.route == "label"
                sources, edit = _sizes(config, sample)
                words = judge_prompt(sample.task, sample.family, sample.question, sample.choices, "both")
                edits.ask(config.edit_judge, 1, len(words), [*sources, edit], config.max_tokens)
    for role, model, total in (("judge", config.judge, answers), ("edit_judge", config.edit_judge, edits)):
        if model is not None:
            yield role, model, total


def _sizes(config: EvalConfig, sample: EditSample) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """The sizes of a sample's pictures, and of its edit."""
    edit = fit_size(*sample.image.size, max_pixels=config.editing.max_pixels or MAX_PIXELS)
    return [image.size for image in sample.sources], edit


def _left(config: EvalConfig, name: str, tasks: dict[str, Task]) -> Iterator[tuple[Task, EditSample]]:
    """The samples, as headers, that a system has no record of."""
    done = EvalFolder(config.out).records(name).read()
    for task in tasks.values():
        for index in range(len(task)):
            for repeat in range(config.repeats):
                record = done.get((task.samples.ids[index], repeat))
                if record is None or record["unscored"] is not None:
                    yield task, task.samples.peek(index)


def _name(model: ModelConfig) -> str:
    return "reader" if model.kind == "reader" else model.model.rstrip("/").rpartition("/")[2]


def _usd(total: Sum, prices: Prices) -> str:
    usd = 0.0
    for name, prompt in total.prompt.items():
        if not prompt:
            continue
        if name not in prices:
            return f"no price for {name}"
        usd += prices[name].of(prompt, total.completion[name])
    return f"{usd:.2f}"
