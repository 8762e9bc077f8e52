"""How long a request to an understanding model gets: what a server must be started with so that pictures go in whole.

`python -m evaluation.context_length key=value ...` prints the numbers; `vllm_server.py` starts servers with them. Every
bound is from above. A picture larger than was said is scaled down by the model's processor; a request that is too long
all the same is refused by the server, in words, and its sample is unscored.
"""

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from etchr.checks import Count, check
from etchr.config import parse_command
from etchr.families import TASKS
from evaluation.benchmarks import BENCHMARKS
from evaluation.benchmarks.prepared import Procedural
from evaluation.systems import SYSTEMS
from evaluation.systems.base import Shown
from evaluation.tools import MAX_CALLS

LEAST_TOKENS = 128  # of a picture: small ones are enlarged, to 65,536 pixels by Qwen3-VL
EDIT_TOKENS = 34**2  # of an edit of a megapixel, sides rounded up to whole tokens
CROP_TOKENS = 32**2  # of an enlarged part, 1024 pixels a side at most
TEXT_TOKENS = 2048  # of question, options, prompt and chat template
STEP = 1024  # lengths are rounded up to a multiple


# What is asked beside the systems: of source, edit and ground truth.
KINDS = {name: kind.shows for name, kind in SYSTEMS.items()} | {
    "edit_judge": Shown(edits=1, whole=1),
    "rewards": Shown(edits=1, whole=1),  # in Stage II
}

Pixels = Annotated[int, Ge(1024)]


@dataclass
class RequestConfig:
    """What a server's longest request holds."""

    benchmarks: list[str] = field(default_factory=list)  # whose pictures must fit; empty: all of the paper's table
    images: list[str] = field(default_factory=list)  # sizes that must fit, as WIDTHxHEIGHT; alone if no benchmarks
    systems: list[str] = field(default_factory=lambda: ["evr"])  # kinds that will run; edit_judge, rewards are two more
    num_sources: Count = 1  # pictures of a sample
    turns: Count = 4  # of tool_loop
    max_tokens: Count = 4096  # of a reply
    token_side: Count = 32  # pixels along a side of one picture token: 32 of Qwen3-VL, 28 of Qwen2.5-VL
    own_max_pixels: Pixels = 16777216  # above this the model's own processor scales down, unless whole
    whole: bool = True  # raise that limit where a picture is larger; false: leave such pictures to be scaled down
    model_max_tokens: int = 262144  # the longest context that the model knows

    def __post_init__(self) -> None:
        check(self)
        for system in self.systems:
            if system not in KINDS:
                raise ValueError(f"no kind of system {system!r}; there are: {', '.join(KINDS)}")
        if not self.systems:
            raise ValueError(f"no systems; there are: {', '.join(KINDS)}")


@dataclass(frozen=True)
class Request:
    """The longest request of a server."""

    size: tuple[int, int]  # of the largest picture
    source_tokens: int  # of that picture
    num_images: int
    max_model_len: int
    max_pixels: int | None  # the processor's limit, where it must be raised

    def describe(self) -> str:
        """The numbers in words."""
        width, height = self.size
        raised = "" if self.max_pixels is None else f"; the processor's limit is raised to {self.max_pixels:,} pixels"
        return (
            f"{self.max_model_len:,} tokens and {self.num_images} pictures a request: the largest picture, "
            f"{width}x{height}, takes {self.source_tokens:,} tokens{raised}"
        )


def longest_request(config: RequestConfig) -> Request:
    """The longest request of any system on any benchmark.

    `ValueError` for an unknown benchmark, a size that is none, and a request that is longer than the model can read.
    """
    sizes = [parse_size(size) for size in config.images]
    names = config.benchmarks or ([] if sizes else list(BENCHMARKS))
    sizes += [largest(name) for name in names]
    size = max(sizes, key=lambda each: picture_tokens(each, config.token_side))
    limit = config.own_max_pixels
    raised = max(width * height for width, height in sizes) if config.whole else limit
    source = max(LEAST_TOKENS, picture_tokens(size, config.token_side))
    if not config.whole:
        source = min(source, limit // config.token_side**2)
    lengths, counts = zip(*(_length(KINDS[name], source, config) for name in config.systems), strict=True)
    length = math.ceil(max(lengths) / STEP) * STEP
    if length > config.model_max_tokens:
        raise ValueError(
            f"a request may take {length:,} tokens and the model reads {config.model_max_tokens:,}: serve fewer "
            f"systems, turns or sources, smaller images, or set whole=false (now {', '.join(config.systems)} on "
            f"{size[0]}x{size[1]}, {source:,} tokens a picture)"
        )
    return Request(size, source, max(counts), length, raised if raised > limit else None)


def _length(shown: Shown, source: int, config: RequestConfig) -> tuple[int, int]:
    """Tokens and pictures of a system's longest request, its reply included."""
    earlier = config.turns - 1 if shown.tools else 0
    large = config.num_sources + shown.whole + MAX_CALLS * earlier
    pictures = large * source + shown.edits * EDIT_TOKENS + shown.crops * CROP_TOKENS
    return pictures + TEXT_TOKENS + (1 + earlier) * config.max_tokens, large + shown.edits + shown.crops


def picture_tokens(size: tuple[int, int], token_side: int = 32) -> int:
    """The tokens of a picture: one for each square of `token_side` pixels, begun ones counted whole."""
    width, height = size
    return math.ceil(width / token_side) * math.ceil(height / token_side)


def parse_size(text: str) -> tuple[int, int]:
    """Width and height in `text`; `ValueError` if it is not of the form 3840x2160."""
    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text)
    if not found:
        raise ValueError(f"an image size looks like 3840x2160, got {text!r}")
    return int(found[1]), int(found[2])


def largest(name: str) -> tuple[int, int]:
    """The largest picture of a benchmark; `ValueError` that lists them all if there is no such benchmark."""
    if name in TASKS:
        return Procedural.largest
    if name not in BENCHMARKS:
        known = ", ".join((*TASKS, *BENCHMARKS))
        raise ValueError(f"no benchmark {name!r}; there are: {known}; for other data give images=[WIDTHxHEIGHT]")
    return BENCHMARKS[name].largest


def main(argv: Sequence[str]) -> None:
    """Print what a server must take."""
    config = parse_command(
        RequestConfig,
        config_name=None,
        argv=argv,
        prog="python -m evaluation.context_length",
        description="The longest request of a run: what a server of the understanding model must be started with.\n"
        f"Benchmarks: {', '.join(BENCHMARKS)}, and the procedural tasks.\nKinds of system: {', '.join(KINDS)}.",
    )
    try:
        print(longest_request(config).describe())
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main(sys.argv[1:])
