"""The filter of the RL set (ETCHR, arXiv 2605.23897, Eq. 1): of the samples in Parquet files, keep those whose question
the understanding model M answers wrongly from the picture alone and rightly when it is given the ground-truth edit too.
Each question is asked once for each of the two and every verdict is kept in the folder, so a run that was killed goes
on with the same command. With other thresholds, quotas or orders it asks only about samples without verdicts: those
whose calls failed, and those that stop_at_quota=true left out. Another M, other decodings or a changed grader ask anew.
What comes out is a folder of Parquet that python -m etchr.rl reads (data.paths=[FOLDER]), and report.md with the counts
of each family. A call that fails for good leaves its sample out and is tried again by the next run; it never counts as
a wrong answer.
"""

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Interval

from etchr.checks import Count, Natural, OneOf, Share, check
from etchr.mllm.judge import Grader
from etchr.mllm.settings import ModelConfig

View = Annotated[str, OneOf("both", "edit")]
Split = Annotated[str, OneOf("train", "val", "test")]


@dataclass
class FilterConfig:
    """Options of `python -m data_prep.filter_rl`."""

    paths: list[str] = field(default_factory=lambda: ["outputs/data/rl"])  # Parquet files or folders of them
    split: Split = "train"  # of a folder, the files <split>*.parquet in it and one level below; names what comes out
    out: str = "outputs/data/rl_filtered"  # folder of what is kept, of the verdicts and the report; one for each split
    max_raw: Share = 0.0  # M fails on the picture alone if at most this share of its answers is right (paper: 0)
    min_edit: Share = 1.0  # and succeeds with the edit if at least this share is right (paper: 1)
    quota: Count | None = 2000  # samples kept of each family; null: all
    order_seed: int = 0  # of the order in which quotas are filled, in which the samples are asked about too
    stop_at_quota: bool = False  # ask about no sample after its family's quota is full; larger quotas ask later
    view: View = "both"  # what M sees beside the picture alone: both (source and edit) or edit (Eq. 1: the edit alone)
    reasoner: ModelConfig = field(default_factory=ModelConfig)  # M, which answers
    num_decodings: Count = 1  # k, of each question from each side (paper: 1)
    temperature: Annotated[float, Interval(ge=0, le=2)] = 0.0  # of the decodings (paper: 0); of several, above 0
    max_tokens: Count = 4096  # of a reply
    seed: int = 0  # of the decodings
    grade: Grader = "auto"  # rules; model (a text-only call); text: it for free text (paper); auto: it where rules fail
    concurrency: Count = 32  # samples in flight
    retries: Natural = 2  # further rounds over the samples whose calls failed, after the client's own retries

    def __post_init__(self) -> None:
        check(self)
        if self.stop_at_quota and self.quota is None:
            raise ValueError("stop_at_quota=true needs a quota, and quota is null")
        if self.temperature == 0 and self.num_decodings > 1:
            raise ValueError(
                f"temperature=0 makes all {self.num_decodings} decodings alike; set num_decodings=1 or a temperature"
            )
        if not self.paths:
            raise ValueError("paths is empty; name Parquet files or folders of them, such as paths=[outputs/data/rl]")
