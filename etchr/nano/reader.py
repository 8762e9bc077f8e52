"""The embedded understanding model: deterministic, given only pictures and text, good enough to prove a method on.

It stands for a model that needs the edit. From a raw picture it can only guess, because it neither searches a scene
nor a maze, nor solves a puzzle; from a good edit it reads what is highlighted, follows what is drawn, compares what was
put together. Of a raw picture it sees which colour is where, enough to tell an editor where to draw. It says of an
edit how probably it would answer right from it, by a rule fitted on other questions (`confidence.py`), and never sees
ground truth. So the gap between raw pictures and good edits is built in: its scores measure *edits*, and say nothing
about multimodal models. With poorer sight, or a share of readings gone wrong, it stands for a weaker model.

`python -m etchr.nano.reader --port 8000` serves it over the OpenAI chat protocol.
"""

import argparse
import asyncio
import hashlib
import itertools
import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from etchr.families import TASK_FAMILY
from etchr.mllm.markup import normalise_unicode
from etchr.mllm.prompts import ROUTE_FAMILY
from etchr.mllm.protocol import GREEDY, Message, Reply, Sampling
from etchr.mllm.settings import check_reader
from etchr.nano.skills import Finding, look, nothing, recognise
from etchr.nano.wishes import wish

_OPTION = re.compile(r"^([A-Z])\. (.+)$", re.MULTILINE)
_ANSWERS = re.compile(r"^Reference answer: (.*)\nCandidate answer: (.*)$", re.MULTILINE)
_INSTRUCTION, _ROUTE, _TOOLS = "Put the instruction in", "Which kind of picture would help", "<tool_call>"
_BOXED = re.compile(r"(.*\\boxed\{)(.)(\}.*)", re.DOTALL)
NEARLY = 0.9  # a nearness of at most a half becomes the probability of a yes: below a half, so it is never accepted


class Reader:
    """An `MLLM`. With a temperature above 0 it errs: each decoding goes wrong with probability `error_rate`.

    An edit is accepted where the confidence that its answer is right is at least `threshold`; by default where it is at
    least that of a guess without the edit, for only below that does rejecting pay. Of every picture that is larger, no
    more is seen than `resolution` px a side show; of `misread_rate` of all readings the answer is another one, at any
    temperature, and which are these depends on `seed`, pictures and text alone.

    Log-probabilities come with every reply, unless `logprobs` is false: everything before and after the box is certain.
    An option's are those of such decodings. A verdict's hold the confidence, or how few cells of a path are amiss,
    mixed with the error rate, so that a dense reward tells a nearly good edit from a bad one; decodings are sharper, as
    those of a cold model are.
    """

    def __init__(
        self,
        error_rate: float = 0.0,
        seed: int = 0,
        *,
        resolution: int | None = None,
        misread_rate: float = 0.0,
        threshold: float | None = None,
        logprobs: bool = True,
        latency_s: float = 0.0,
    ) -> None:
        check_reader(error_rate, resolution, misread_rate, threshold)
        self.error_rate, self.seed, self.logprobs, self.latency_s = error_rate, seed, logprobs, latency_s
        self.resolution, self.misread_rate, self.threshold = resolution, misread_rate, threshold
        self.name = self._name()

    def _name(self) -> str:
        """The reader's name with those options that are not as usual; the seed counts where it decides anything."""
        usual = {"error_rate": 0.0, "resolution": None, "misread_rate": 0.0, "threshold": None}
        options = [f"{name}={getattr(self, name):g}" for name, value in usual.items() if getattr(self, name) != value]
        if self.error_rate or self.misread_rate:
            options.append(f"seed={self.seed}")
        return f"reader({','.join(options)})" if options else "reader"

    async def chat(self, messages: Sequence[Message], sampling: Sampling = GREEDY) -> list[Reply]:
        """See `protocol.MLLM`. Equal pictures, text and seed give equal replies."""
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        request = _ReaderRequest.of(messages, self.resolution)
        finding = self._misread(request, request.finding())
        threshold = finding.guess if self.threshold is None else self.threshold
        odds = request.odds(finding, self.error_rate, threshold)
        replies = []
        for index in range(sampling.n):
            rng = random.Random(f"{self.seed}/{sampling.seed}/{index}/{request.digest}")
            errs = sampling.temperature > 0 and rng.random() < self.error_rate
            text = request.reply(finding, threshold, errs, rng)
            words = text.split(" ")
            cut = len(words) > sampling.max_tokens
            text = " ".join(words[: sampling.max_tokens])
            replies.append(
                Reply(
                    text=text,
                    finish_reason="length" if cut else "stop",
                    prompt_tokens=len(request.text.split()),
                    completion_tokens=min(len(words), sampling.max_tokens),
                    logprobs=_logprobs(text, odds) if self.logprobs else None,
                )
            )
        return replies

    def _misread(self, request: "_ReaderRequest", finding: Finding) -> Finding:
        """The finding, or one of another answer: nobody knows that he misreads, so the confidence is the same."""
        rng = random.Random(f"misread/{self.seed}/{request.digest}")
        if finding.answer is None or rng.random() >= self.misread_rate:
            return finding
        return replace(finding, answer=_another(finding.answer, list(request.options), rng))


@dataclass(frozen=True)
class _ReaderRequest:
    """A conversation as the reader takes it in: all text, and the pictures in order, as well as it sees them."""

    text: str
    images: list[Image.Image]
    digest: str  # of the conversation as it was sent
    source: str  # digest of the first picture as it was sent

    @classmethod
    def of(cls, messages: Sequence[Message], resolution: int | None) -> "_ReaderRequest":
        parts = [part for message in messages for part in message["content"]]
        text = "\n".join(part["text"] for part in parts if part["type"] == "text")
        images = [part["image"].convert("RGB") for part in parts if part["type"] == "image"]
        hashed = hashlib.sha256(text.encode())
        for image in images:
            hashed.update(repr(image.size).encode() + image.tobytes())
        source = hashlib.sha256(images[0].tobytes() if images else b"").hexdigest()
        return cls(text, [_seen(image, resolution) for image in images], hashed.hexdigest(), source)

    @property
    def options(self) -> dict[str, str]:
        """The letter of each option's text."""
        return {text.strip(): letter for letter, text in _OPTION.findall(self.text)}

    @property
    def wants_verdict(self) -> bool:
        return "\\boxed{1}" in self.text and "\\boxed{0}" in self.text

    def reply(self, finding: Finding, threshold: float, errs: bool, rng: random.Random) -> str:
        """What the reader says: an instruction, a family, a tool call, a verdict or an answer."""
        if _INSTRUCTION in self.text:
            told = wish(self.text, self.images[0]) if self.images else None
            return "I do not know what to draw." if told is None else f"\\boxed{{{told.instruction}}}"
        if _ROUTE in self.text:
            others = [number for number in range(len(ROUTE_FAMILY) + 1) if number != self.kind]
            return f"\\boxed{{{rng.choice(others) if errs else self.kind}}}"
        if _TOOLS in self.text and len(self.images) == 1 and (wanted := wish(self.text, self.images[0])) and wanted.box:
            box = [
                round(1000 * side) for side in (wanted.box.left, wanted.box.top, wanted.box.right, wanted.box.bottom)
            ]
            call = json.dumps({"name": "draw_box", "arguments": {"box": box}})
            return f"I look closer.\n<tool_call>{call}</tool_call>"
        if self.wants_verdict:
            return self.verdict(finding, threshold, errs)
        return self.answer(finding, errs, rng)

    @property
    def kind(self) -> int:
        """The number of the kind of picture that would help, as `prompts.ROUTE` counts; 0 for unknown questions."""
        known = recognise(self.text)
        return list(ROUTE_FAMILY).index(TASK_FAMILY[known[0]]) + 1 if known else 0

    def finding(self) -> Finding:
        """What there is to say: of a source and its edit (a third picture is not looked at), or of two answers."""
        if not self.images and (answers := _ANSWERS.findall(self.text)):
            return _agreement(*answers[-1])
        if len(self.images) not in (2, 3):
            return nothing("I see no second image")
        return look(self.text, self.images[0], self.images[1])

    def odds(self, finding: Finding, error_rate: float, threshold: float) -> dict[str, float]:
        """The probability of each character that may stand in the box, where that is a verdict, a letter or a kind."""
        if _INSTRUCTION in self.text:
            return {}
        if _ROUTE in self.text:
            kinds = range(len(ROUTE_FAMILY) + 1)
            wrong = error_rate / len(ROUTE_FAMILY)
            return {str(kind): 1 - error_rate if kind == self.kind else wrong for kind in kinds}
        if self.wants_verdict:
            accepts = max(_at_threshold(finding.confidence, threshold), NEARLY * finding.nearness)
            accepts = error_rate + (1 - 2 * error_rate) * accepts
            return {"1": accepts, "0": 1 - accepts}
        letters = [letter for letter, _ in _OPTION.findall(self.text)]
        sure = _BOXED.fullmatch(self.answer(finding, False, random.Random(0))) if letters else None
        if sure is None:
            return {}
        return {each: error_rate / len(letters) + (1 - error_rate) * (each == sure[2]) for each in letters}

    def verdict(self, finding: Finding, threshold: float, errs: bool) -> str:
        reliable = finding.confidence >= threshold
        reason = finding.reason if reliable else finding.fault
        return f"{reason[:1].upper()}{reason[1:]}. \\boxed{{{int(reliable != errs)}}}"

    def answer(self, finding: Finding, errs: bool, rng: random.Random) -> str:
        options = self.options
        answer = None if errs else finding.answer
        if answer is not None and options:
            answer = options.get(answer)
        if answer is None:
            # A guess depends on the question and the first picture only: a useless edit does not change it.
            dice = rng if errs else random.Random(self.source)
            guess = _guess(self.text, list(options.values()), dice)
            return "I cannot tell." if guess is None else f"I cannot see it well; my guess is \\boxed{{{guess}}}"
        return f"I see that {finding.reason}. The answer is \\boxed{{{answer}}}"


def _seen(image: Image.Image, resolution: int | None) -> Image.Image:
    """A picture as somebody sees it to whom it is at most so many px large."""
    if resolution is None or max(image.size) <= resolution:
        return image
    scale = resolution / max(image.size)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    small = image.resize(size, Image.Resampling.LANCZOS)
    return small.resize(image.size, Image.Resampling.BICUBIC)  # what is lost is detail, not the size of things


def _at_threshold(confidence: float, threshold: float) -> float:
    """The probability of a yes: the confidence, its odds scaled so that at the threshold it is a half."""
    yes, no = confidence * (1 - threshold), (1 - confidence) * threshold
    return yes / (yes + no)


def _another(answer: str, options: Sequence[str], rng: random.Random) -> str:
    """What somebody might have read in the place of `answer`: another option or number, or two steps exchanged."""
    if options:
        return rng.choice([option for option in options if option != answer] or [answer])
    if answer.isdigit():
        return rng.choice([digit for digit in "123456789" if digit != answer])
    mark = "," if "," in answer else "-"
    steps = answer.split(mark)
    places = [i for i in range(len(steps) - 1) if steps[i] != steps[i + 1]]
    if places:
        i = rng.choice(places)
        steps[i], steps[i + 1] = steps[i + 1], steps[i]
    return mark.join(steps)


def _logprobs(text: str, odds: dict[str, float]) -> tuple[dict[str, float], ...]:
    """Per token its candidates and their log p: the character in the box is a token, what stands round it two."""
    box = _BOXED.fullmatch(text)
    if box is None or not odds:
        return ({text: 0.0},)
    return {box[1]: 0.0}, {character: math.log(p) for character, p in odds.items() if p > 0}, {box[3]: 0.0}


def _agreement(reference: str, candidate: str) -> Finding:
    """Whether a candidate answer says what the reference says: the same words, perhaps within a sentence."""
    said, wanted = (f" {_words(answer)} " for answer in (candidate, reference))
    denied = any(f" {word} " in said and f" {word} " not in wanted for word in ("not", "no", "never"))
    if wanted.strip() and wanted in said and not denied:
        return Finding(None, 1.0, 0.5, "both answers say the same")
    return nothing("the answers differ")


def _words(text: str) -> str:
    words = re.findall(r"\w+", normalise_unicode(text).casefold())
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def _guess(text: str, letters: list[str], rng: random.Random) -> str | None:
    """An answer in the wanted form by someone who could not see: blind for options, straight ahead for paths."""
    if letters:
        return rng.choice(letters)
    if size := re.search(r"(\d{1,2})x\d{1,2} (?:maze|frozen lake)", text):
        steps = int(size[1]) - 1
        return ",".join(rng.choice((["R"] * steps + ["D"] * steps, ["D"] * steps + ["R"] * steps)))
    if "order of the pieces" in text:
        return "-".join(map(str, rng.choice(list(itertools.permutations(range(4))))))
    if "Answer with a number" in text:
        return str(rng.randint(1, 9))
    return None


def main(argv: Sequence[str] | None = None) -> None:
    """Serve the reader over HTTP."""
    from etchr.http import listening
    from etchr.serving.chat import build_app

    parser = argparse.ArgumentParser(
        prog="python -m etchr.nano.reader",
        description="Serve the embedded reader at http://HOST:PORT/v1, an OpenAI-compatible chat endpoint.",
    )
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default 8000; 0: any free one)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--error-rate", type=float, default=0.0, help="share of wrong decodings at temperature > 0")
    parser.add_argument("--misread-rate", type=float, default=0.0, help="share of wrong readings, at any temperature")
    parser.add_argument("--resolution", type=int, help="px a side that are seen of a larger picture (default: all)")
    parser.add_argument(
        "--threshold",
        type=float,
        help="confidence from which an edit is accepted (default: that of a guess without it)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the errors")
    args = parser.parse_args(argv)
    if not 0 <= args.port <= 65535:
        parser.error(f"--port {args.port} must lie between 0 and 65535")
    try:
        reader = Reader(
            args.error_rate,
            args.seed,
            resolution=args.resolution,
            misread_rate=args.misread_rate,
            threshold=args.threshold,
        )
        listener = listening.bind(args.host, args.port)
    except ValueError as error:
        parser.error(str(error))
    listener.listen()
    print(f"the reader answers at http://{args.host}:{listener.getsockname()[1]}/v1 as model {reader.name}", flush=True)
    listening.run(build_app(reader), listener)


if __name__ == "__main__":
    main()
