"""The line under the table: what it shows, in words that follow from the numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from etchr.pages import short
from evaluation.settings import StoryConfig
from evaluation.statistics import mean_difference
from evaluation.summary import Values, differences_of, interval
from evaluation.tabular import number

Told = Mapping[str, Any]  # an entry of the story, as report.json holds it


def tell(
    story: Sequence[StoryConfig], report: Mapping[str, Any], outcomes: Mapping[str, Values], tasks: Sequence[str]
) -> list[Told]:
    """The numbers of every entry: the system's mean and, if it is compared, the other's and the paired difference."""
    found: list[Told] = []
    for line in story:
        entry = {"what": line.what, "system": line.system, "mean": report["systems"][line.system]["mean"]}
        if line.against is not None:
            differences = differences_of(outcomes[line.system], outcomes[line.against], tasks)
            other = report["systems"][line.against]["mean"]
            entry |= {"against": line.against, "other": other, **interval("difference", mean_difference(differences))}
        found.append(entry)
    return found


def sentence(story: Sequence[Told]) -> str:
    """All entries in one line; empty where there is nothing to say."""
    parts = [_clause(told) for told in story if told["mean"] is not None and told.get("difference", 0) is not None]
    return f"Mean Pass@1: {'; '.join(parts)}." if parts else ""


def _clause(told: Told) -> str:
    what, mean = short(told["what"]), number(told["mean"])
    if "against" not in told:
        return f"{what} reaches {mean}"
    gain, low, high = told["difference"], told["low"], told["high"]
    way = f"{number(told['other'])} to {mean}"
    if low <= 0 <= high:
        shown = f"{number(gain, sign=True)} [{number(low, sign=True)}, {number(high, sign=True)}]"
        return f"{what} makes no difference that so many samples can show, {shown}"
    if gain < 0:
        return f"{what} costs {number(-gain)} [{number(-high)}, {number(-low)}], from {way}"
    return f"{what} adds {number(gain)} [{number(low)}, {number(high)}], from {way}"
