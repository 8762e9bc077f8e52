"""What a benchmark is: samples in a local folder, and the rule by which their answers are scored.

A benchmark is a file with a class that says where its data are had, reads them with `load()` and judges an answer with
`score()`. Samples are read when they are asked for, so a set of 8K pictures costs no memory.
"""

import hashlib
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from etchr.images import decode_image
from etchr.mllm.answers import answer_type, extract_answer
from etchr.mllm.judge import Grade, Judge, grade, may_ask
from etchr.mllm.markup import last_box, plain
from etchr.sample import EditSample
from evaluation.benchmarks.files import header, no_picture

Decode = Callable[[bytes], Any]  # encoded bytes -> a picture, or its header


class Samples(Protocol):
    """A sequence of samples, decoded on access."""

    @property
    def ids(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> EditSample: ...

    def peek(self, index: int) -> EditSample:
        """A sample whose images are headers (`images.ImageHeader`): quick, and enough to check all the rest."""
        ...

    def words(self, index: int) -> EditSample:
        """A sample without its pictures, which need not be there."""
        ...


class LazySamples:
    """`Samples` over a function that makes one from its index."""

    def __init__(self, ids: Sequence[str], read: Callable[[int, Decode], EditSample]) -> None:
        self.ids, self._read = list(ids), read

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> EditSample:
        return self._read(index, decode_image)

    def peek(self, index: int) -> EditSample:
        return self._read(index, header)

    def words(self, index: int) -> EditSample:
        return self._read(index, no_picture)


@dataclass(frozen=True)
class LoadOptions:
    """What decides how a benchmark reads its folder; part of a run's identity."""

    option_seed: int = 126  # of the option orders that are drawn here (V*Bench)
    split: str = "val"  # of CharXiv
    charxiv_constants: str | None = None  # src/constants.py of princeton-nlp/CharXiv: its own questions and rubric


@dataclass(frozen=True)
class HubFiles:
    """Files of a data set on huggingface.co."""

    repo_id: str
    patterns: tuple[str, ...]


class Benchmark(ABC):
    """One benchmark; `BENCHMARKS` in this package names them all."""

    name: str  # in options and tables
    title: str  # as it is called in print
    place: str = ""  # its folder below the benchmarks' one, where it is not called as the benchmark
    licence: str
    get: str  # how the data are had: a command, or where and how much
    rule: str  # of scoring, in one sentence
    hub: HubFiles | None = None  # what `python -m evaluation download` fetches
    largest: tuple[int, int]  # px, width x height, of a picture; a server of the model must be ready for it
    expected: int | None = None  # published number of samples
    needs_judge: bool = False
    draws_options: bool = False  # whether `LoadOptions.option_seed` decides how questions are put

    @abstractmethod
    def load(self, folder: Path, options: LoadOptions) -> Samples:
        """The samples in `folder`; `ValueError` in one sentence if what is there does not fit."""

    async def score(
        self, sample: EditSample, answer: str | None, judge: Judge | None, reply: str | None = None
    ) -> Grade:
        """What an extracted answer is worth, None being an answer that could not be found: it is wrong.

        By the one grader; free text that it finds different from the truth is put to the judge, if there is one. The
        whole `reply` is for rules that read it in a way of their own.
        """
        return await grade(answer_or_refusal(sample, answer, reply), sample, judge)

    def may_ask_judge(self, sample: EditSample) -> bool:
        """Whether `score` may call the judge, if there is one; a dry run counts by it."""
        return self.needs_judge or may_ask(sample, "auto")

    def identity(self) -> dict[str, Any]:
        """What decides an outcome beside the sample and the answer: the modules that this benchmark's class is in."""
        modules = dict.fromkeys(kind.__module__ for kind in type(self).__mro__ if kind not in (ABC, object))
        source = "\0".join(inspect.getsource(sys.modules[name]) for name in modules)
        return {"rule": hashlib.sha256(source.encode()).hexdigest()[:16]}

    @property
    def origin(self) -> dict[str, str]:
        """What the `meta` of every sample of a public test set holds."""
        return {"source": self.title, "licence": self.licence, "split": "test"}

    def missing(self, what: str) -> ValueError:
        """The error for data that are not there, with the way to them."""
        return ValueError(f"no {self.title} data: {what}. Get them with: {self.get}")

    def chance(self, sample: EditSample) -> float:
        """The probability that a blind guess is right: options alike, anything else 0."""
        return 1 / len(sample.choices) if sample.choices and answer_type(sample) == "option" else 0.0


def answer_or_refusal(sample: EditSample, answer: str | None, reply: str | None) -> str | None:
    """`answer`; if there is none and the truth itself reads like a refusal, what stands in the reply's box.

    "Don't know" is an answer where it is the truth, in a survey's chart for example, and to no other question.
    """
    if answer is not None or reply is None or answer_type(sample) != "text":
        return answer
    if extract_answer(f"\\boxed{{{sample.answer}}}", "text") is not None:
        return None
    box = last_box(reply)
    return box and plain(box)
