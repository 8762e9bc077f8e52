"""What a system takes: tokens, seconds, and money by a table of prices that a user can edit."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from etchr.rows import parsed_yaml

DEFAULT_PRICES = Path(__file__).parent.parent / "configs" / "prices.yaml"


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


Prices = dict[str, Price]  # by the model's name, as records have it
Usages = dict[str, dict[str, int]]  # by the model's name: calls and tokens


def read_prices(path: str | Path | None = None) -> Prices:
    """The prices in a YAML file, `model: {prompt: USD, completion: USD}`; `ValueError` that names a wrong entry."""
    path = Path(path or DEFAULT_PRICES)
    if not path.is_file():
        raise ValueError(f"no file of prices at {path}; the default one is {DEFAULT_PRICES}")
    try:
        entries = parsed_yaml(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"prices file {path} is not YAML: {error}") from None
    if not isinstance(entries, dict):
        raise ValueError(f"prices file {path} must map models to prices")
    prices = {}
    for name, entry in entries.items():
        try:
            prices[str(name)] = Price(float(entry["prompt"]), float(entry["completion"]))
        except (TypeError, KeyError, ValueError):
            raise ValueError(f"prices file {path}: {name} must be {{prompt: USD, completion: USD}}") from None
    return prices


def cost(rows: Iterable[Any], prices: Prices | None = None) -> dict[str, Any]:
    """The sums over records: calls and tokens of each model, seconds of each step, and what the tokens cost.

    A reply that was taken from the run's journal counts like one that was asked for: the figures are of the system, run
    alone. `usd` is None where a model has no price, or a server did not count its tokens. What judges took to grade the
    system stands apart, in `judging`, for it is no part of it.
    """
    usage: Usages = {}
    judging: Usages = {}
    seconds: dict[str, float] = {}
    num_samples = num_edits = 0
    for record in rows:
        num_samples += 1
        num_edits += max(len(record.get("attempts", ())), record["edit"] is not None)
        num_edits += sum(turn["role"] == "assistant" and "file" in turn for turn in record.get("turns", ()))
        for step, value in record["seconds"].items():
            seconds[step] = seconds.get(step, 0.0) + value
        _add(usage, record["usage"])
        _add(judging, record.get("judge_usage", {}))  # records of before have none
    return {
        "num_samples": num_samples,
        "num_edits": num_edits,
        "seconds": {step: round(value, 3) for step, value in sorted(seconds.items())},
        "usage": usage,
        "usd": _usd(usage, prices or {}),
        "judging": {"usage": judging, "usd": _usd(judging, prices or {})},
    }


def _add(usage: Usages, more: Usages) -> None:
    for model, counts in more.items():
        mine = usage.setdefault(model, dict.fromkeys(counts, 0))
        for key, value in counts.items():
            mine[key] += value


def _usd(usage: Usages, prices: Prices) -> float | None:
    usd = 0.0
    for model, counts in usage.items():
        price = prices.get(model)
        if price is None or (counts["calls"] and not counts["prompt_tokens"]):
            return None
        usd += price.of(counts["prompt_tokens"], counts["completion_tokens"])
    return round(usd, 4)
