"""`python -m evaluation.calibrate loras=[FOLDER, ...]`: fit the embedded reader's confidence, and report on it."""

import asyncio
import logging
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated

from annotated_types import Ge

from etchr.checks import NotNegative, check
from etchr.config import parse_command
from etchr.editor.folder import check_folder, find_lora, named_folder
from etchr.mllm.answers import answer_type, extract_answer, is_correct
from etchr.mllm.prompts import answer_prompt
from etchr.mllm.protocol import user_message
from etchr.nano.confidence import RULES_FILE, Rule, rules_text
from etchr.nano.reader import Reader
from etchr.nano.skills import FEATURES, Reading, read, recognise
from etchr.run_folder import write_atomically
from etchr.sample import EditSample, read_parquet
from evaluation.calibrate import report
from evaluation.calibrate.edits import ShownEdit, drawn, made
from evaluation.calibrate.fit import Example, fit_rule, left_out
from evaluation.calibrate.report import Judged

log = logging.getLogger(__name__)

MADE_COUNTS = 0.05  # how much an edit counts that no editor drew: what editors draw is what a verdict is for


@dataclass
class CalibrateConfig:
    """Options of `python -m evaluation.calibrate`."""

    data: str = "outputs/data/calibration"  # folder with TASK/val.parquet of questions
    editor: str = "nano"  # folder of the base editor; nano: the kept one
    loras: list[str] = field(default_factory=list)  # adapters over it, whose edits count too
    num_samples: Annotated[int, Ge(2)] = 20  # questions of each task for each editor
    num_made: Annotated[int, Ge(2)] = 60  # questions of each task whose ground-truth edit is spoiled
    l2: NotNegative = 0.001  # what keeps weights small
    folds: Annotated[int, Ge(2)] = 5  # of the questions, for the report
    seed: int = 0  # of edits and of what spoils them
    out: str = str(RULES_FILE)  # YAML to write
    report: str = "outputs/calibration"  # folder of report.md and curve.png

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class _Read:
    """An edit and what the reader read off it, rightly or not."""

    shown: ShownEdit
    reading: Reading
    is_right: bool
    guess_is_right: bool

    @property
    def example(self) -> Example:
        counts = MADE_COUNTS if self.shown.is_made else 1.0
        return Example(self.reading.features, self.is_right, self.shown.sample.id, counts)


def main(argv: Sequence[str] | None = None) -> None:
    """Draw, read, fit, write and print what it pays."""
    config = parse_command(
        CalibrateConfig,
        config_name=None,
        argv=sys.argv[1:] if argv is None else argv,
        prog="python -m evaluation.calibrate",
        description="Fit how sure the embedded reader is of what it reads off an edit, on edits of val questions. "
        "Data: python -m data_prep all split=val num_samples=120 seed=7 out=outputs/data/calibration",
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        print(make(config))
    except ValueError as error:
        raise SystemExit(str(error)) from None


def make(config: CalibrateConfig) -> str:
    """Fit on edits as `config` says, and write rules and report; what is to be said of it."""
    found = [_read(shown) for shown in all_edits(config)]
    rules: dict[str, Rule] = {}
    judged: list[Judged] = []
    for task in FEATURES:
        mine = [each for each in found if each.shown.sample.task == task]
        guess = _share_guessed(mine)
        open_ones = [each for each in mine if each.reading.may_be_right]
        examples = [each.example for each in open_ones]
        try:
            rules[task] = fit_rule(examples, FEATURES[task], config.l2, guess)
        except ValueError as error:
            raise ValueError(f"{task}: {error}") from None
        unseen = iter(left_out(examples, FEATURES[task], config.l2, config.folds))
        judged += [_judge(each, next(unseen) if each.reading.may_be_right else 0.0, guess) for each in mine]
    folder = Path(config.report)
    folder.mkdir(parents=True, exist_ok=True)
    text = report.markdown(judged, config.folds)
    write_atomically(folder / "report.md", text.encode())
    write_atomically(folder / "curve.png", report.picture(judged))
    write_atomically(Path(config.out), rules_text(rules, _head(judged)).encode())
    return f"{text}\nrules: {config.out}\nreport: {folder / 'report.md'}, {folder / 'curve.png'}"


def all_edits(config: CalibrateConfig) -> Iterable[ShownEdit]:
    """The edits to fit on; `ValueError` where data or an editor are missing, before anything is drawn."""
    folder = named_folder(config.editor)
    check_folder(folder)
    for path in config.loras:
        find_lora(path)
    samples = {task: _questions(Path(config.data) / task, config) for task in FEATURES}
    for each in samples.values():
        yield from made(each[: config.num_made], config.seed)
    from etchr.editor.klein import KleinEditor

    loras: list[str | None] = [None, *config.loras]  # None: the base itself
    for lora in loras:
        editor = KleinEditor.load(folder, lora=lora)
        name = "base" if lora is None else _name(lora)
        for task, each in samples.items():
            log.info("%s draws %s", name, task)
            yield from drawn(editor, name, each[: config.num_samples], is_told=lora is None, seed=config.seed)


def _questions(folder: Path, config: CalibrateConfig) -> list[EditSample]:
    table = read_parquet(folder, "val")
    return [table[index] for index in range(min(len(table), max(config.num_samples, config.num_made)))]


def _name(lora: str) -> str:
    """A LoRA by the folder of its training, which says more than `adapter`."""
    path = Path(lora).resolve()
    return path.parent.name if path.name == "adapter" else path.name


def _read(shown: ShownEdit) -> _Read:
    sample = shown.sample
    known = recognise(sample.question)
    if known is None:
        raise ValueError(f"sample {sample.id!r}: the reader does not know its question {sample.question!r}")
    reading = read(*known, sample.image.convert("RGB"), shown.edit.convert("RGB"))
    answer = reading.answer
    if answer is not None and sample.choices:
        answer = ascii_uppercase[sample.choices.index(answer)] if answer in sample.choices else None
    return _Read(shown, reading, answer is not None and is_correct(answer, sample), _guess_is_right(sample))


def _guess_is_right(sample: EditSample) -> bool:
    """Whether the reader would answer right without an edit."""
    kind = answer_type(sample)
    message = user_message(answer_prompt(sample.question, sample.choices, kind, with_edit=False), sample.image)
    [reply] = asyncio.run(Reader().chat([message]))
    return is_correct(extract_answer(reply.text, kind, sample.choices), sample)


def _share_guessed(found: Sequence[_Read]) -> float:
    """The share of questions that are answered right without an edit; one of each kind is added, for none is sure."""
    right = {each.shown.sample.id: each.guess_is_right for each in found}
    return (sum(right.values()) + 1) / (len(right) + 2)


def _judge(each: _Read, confidence: float, guess: float) -> Judged:
    shown = each.shown
    return Judged(
        task=shown.sample.task,
        origin=shown.origin,
        is_usual=shown.is_usual,
        is_read=each.reading.answer is not None,
        is_right=each.is_right,
        guess_is_right=each.guess_is_right,
        confidence=confidence,
        guess=guess,
    )


def _head(judged: Sequence[Judged]) -> str:
    """The comment at the top of the rules."""
    origins = dict.fromkeys(edit.origin for edit in judged)
    text = (
        "How sure the embedded reader is of what it reads off an edit (confidence.py): log-odds that it is right are "
        "bias + sum of weight * (feature - usual). Made by python -m evaluation.calibrate, a logistic regression on "
        f"{len(judged)} edits of validation questions: {', '.join(origins)}. "
        f"On questions left out of the fit, confidence and share of right answers differ by "
        f"{report.calibration_error(judged):.3f} in the mean."
    )
    return textwrap.fill(text, 116)


if __name__ == "__main__":
    main()
