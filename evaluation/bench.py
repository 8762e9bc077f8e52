"""How well edits and model calls overlap: an editor and a model that only wait, through the real run and a serial loop.

The editor works on one edit after the other, so its own time is the least that a run can take. The serial loop does as
the released evaluation: edit, verify, answer, next sample.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from PIL import Image

from etchr.checks import Count, NotNegative, at_least, check
from etchr.config import parse_command
from etchr.editor.protocol import References
from etchr.families import TaskFamily
from etchr.mllm.protocol import GREEDY, Message, Reply, Sampling
from etchr.sample import EditSample, write_parquet
from evaluation.run import evaluate
from evaluation.settings import EditingConfig, EvalConfig, SystemConfig
from evaluation.tabular import Table, markdown_table


@dataclass
class EvrBenchConfig:
    """Options of `python -m etchr.bench evr`."""

    num_samples: Count = 200  # of the run
    num_serial: Count = 20  # of the serial loop, whose rate does not depend on their number
    edit_s: NotNegative = 0.4  # seconds of an edit
    call_least_s: NotNegative = 0.5  # seconds of a model call at least; each is drawn evenly
    call_most_s: float = 3.0  # the same at most
    concurrency: Count = 32  # model calls at the same time
    batch_size: Count = 16  # edits that run together
    seed: int = 0  # of the calls' lengths

    def __post_init__(self) -> None:
        check(self)
        at_least(self, {"call_most_s": self.call_least_s})


class WaitingEditor:
    """An editor that gives the source back, after `edit_s` for each."""

    name = "waiting"

    def __init__(self, edit_s: float) -> None:
        self.edit_s, self.busy_s = edit_s, 0.0

    def fitted_size(self, image: Image.Image) -> tuple[int, int]:
        return image.size

    def edit(
        self,
        images: Sequence[Image.Image],
        prompts: Sequence[str],
        seeds: Sequence[int],
        references: References | None = None,
    ) -> list[Image.Image]:
        begin = time.perf_counter()
        time.sleep(self.edit_s * len(images))
        self.busy_s += time.perf_counter() - begin
        return list(images)


class WaitingModel:
    """A model that accepts every edit and answers 7, after a while that the call decides; so many calls at a time."""

    name = "waiting"

    def __init__(self, config: EvrBenchConfig) -> None:
        self.config, self._slots = config, asyncio.Semaphore(config.concurrency)
        self.calls = 0

    async def chat(self, messages: Sequence[Message], sampling: Sampling = GREEDY) -> list[Reply]:
        async with self._slots:
            self.calls += 1
            text = next(part["text"] for part in messages[0]["content"] if part["type"] == "text")
            draw = Random(f"{self.config.seed} {text}").random()
            await asyncio.sleep(self.config.call_least_s + draw * (self.config.call_most_s - self.config.call_least_s))
            return [Reply("\\boxed{1}" if "relied on" in text else "\\boxed{7}")] * sampling.n


def main(argv: Sequence[str]) -> None:
    """Print both rates and their ratio, as Markdown."""
    config = parse_command(
        EvrBenchConfig,
        config_name=None,
        argv=argv,
        prog="python -m etchr.bench evr",
        description=(__doc__ or "").strip(),
    )
    serial = serial_loop(config)
    with tempfile.TemporaryDirectory() as folder:
        seconds, editor = overlapped(config, Path(folder))
    own, each, ours = config.num_samples * config.edit_s, serial / config.num_serial, seconds / config.num_samples
    head = ["loop", "samples", "seconds", "a sample", "against the editor's own time"]
    rows = [
        ["serial", str(config.num_serial), f"{serial:.1f}", f"{each:.2f}", f"{each / config.edit_s:.2f}"],
        ["this", str(config.num_samples), f"{seconds:.1f}", f"{ours:.2f}", f"{seconds / own:.2f}"],
    ]
    print("\n".join(markdown_table(Table(head, rows))))
    print(f"\nThe editor's own time: {own:.1f} s, measured {editor.busy_s:.1f} s. Speed-up: {each / ours:.1f}.")


def serial_loop(config: EvrBenchConfig) -> float:
    """Seconds of the serial loop."""
    editor = WaitingEditor(config.edit_s)

    async def loop() -> float:
        model = WaitingModel(config)
        begin = time.perf_counter()
        for sample in samples(config.num_serial):
            (edit,) = editor.edit([sample.image], [sample.question], [0])
            for words in ("can be relied on", "Question:"):
                parts = [{"type": "image", "image": edit}, {"type": "text", "text": f"{words} {sample.question}"}]
                await model.chat([{"role": "user", "content": parts}])  # type: ignore[typeddict-item]
        return time.perf_counter() - begin

    return asyncio.run(loop())


def overlapped(config: EvrBenchConfig, folder: Path) -> tuple[float, WaitingEditor]:
    """Seconds of a real run in `folder`, from its start to its last record, and the editor it used.

    torch is loaded before the clock starts, as it is once whatever the number of samples.
    """
    import etchr.editor.klein  # noqa: F401

    editor = WaitingEditor(config.edit_s)
    write_parquet(samples(config.num_samples), folder / "data" / "chart" / "test.parquet")
    (folder / "klein").mkdir()
    (folder / "klein" / "model_index.json").write_text('{"_class_name": "Flux2KleinPipeline"}')
    options = EvalConfig(
        systems={"evr": SystemConfig("evr", str(folder / "klein"))},
        tasks=["chart"],
        data=str(folder / "data"),
        out=str(folder / "out"),
        concurrency=config.concurrency,
        editing=EditingConfig(batch_size=config.batch_size, cache=str(folder / "edits")),
    )
    begin = time.perf_counter()
    evaluate(options, build_model=lambda _: WaitingModel(config), build_editor=lambda *_: editor)
    return time.perf_counter() - begin, editor


def samples(count: int) -> Iterator[EditSample]:
    """Questions about plain pictures."""
    image = Image.new("RGB", (64, 64), "white")
    for number in range(count):
        meta = {"answer_type": "number"}
        yield EditSample(
            f"s{number}", TaskFamily.CHART, "chart", image, f"What is value {number}?", "7", None, image, meta
        )
