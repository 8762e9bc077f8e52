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

from etchr.checks import at_least, lookup, one_of
from etchr.mllm.judge import GRADERS
from etchr.mllm.settings import ModelConfig


@dataclass
class FilterConfig:
    """Options of `python -m data_prep.filter_rl`."""

    paths: list[str] = field(default_factory=lambda: ["outputs/data/rl"])  # Parquet files or folders of them
    split: str = "train"  # of a folder, the files <split>*.parquet in it and one level below; names what comes out
    out: str = "outputs/data/rl_filtered"  # folder of what is kept, of the verdicts and the report; one for each split
    max_raw: float = 0.0  # M fails on the picture alone if at most this share of its answers is right (paper: 0)
    min_edit: float = 1.0  # and succeeds with the edit if at least this share is right (paper: 1)
    quota: int | None = 2000  # samples kept of each family; null: all
    order_seed: int = 0  # of the order in which quotas are filled, in which the samples are asked about too
    stop_at_quota: bool = False  # ask about no sample after its family's quota is full; larger quotas ask later
    reasoner: ModelConfig = field(default_factory=ModelConfig)  # M, which answers
    num_decodings: int = 1  # k, of each question from each side (paper: 1)
    temperature: float = 0.0  # of the decodings (paper: 0); num_decodings above 1 needs one above 0
    max_tokens: int = 4096  # of a reply
    seed: int = 0  # of the decodings
    grade: str = "auto"  # auto: rules, and free text that they find wrong by a second, text-only call; text: all free
    # text by that call; model: all answers by it; rules: rules alone
    concurrency: int = 32  # samples in flight
    retries: int = 2  # further rounds over the samples whose calls failed, after the client's own retries

    def __post_init__(self) -> None:
        one_of("split", self.split, ("train", "val", "test"))
        one_of("grade", self.grade, GRADERS)
        at_least(self, {"num_decodings": 1, "max_tokens": 1, "concurrency": 1, "retries": 0})
        for name, most in (("max_raw", 1), ("min_edit", 1), ("temperature", 2)):
            if not 0 <= lookup(self, name) <= most:
                raise ValueError(f"{name}={lookup(self, name)} must lie between 0 and {most}")
        if self.quota is not None and self.quota < 1:
            raise ValueError(f"quota={self.quota} must be at least 1, or null for all")
        if self.stop_at_quota and self.quota is None:
            raise ValueError("stop_at_quota=true needs a quota, and quota is null")
        if self.temperature == 0 and self.num_decodings > 1:
            raise ValueError(
                f"temperature=0 makes all {self.num_decodings} decodings alike; set num_decodings=1 or a temperature"
            )
        if not self.paths:
            raise ValueError("paths is empty; name Parquet files or folders of them, such as paths=[outputs/data/rl]")
