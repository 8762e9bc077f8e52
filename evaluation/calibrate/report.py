"""What is said of the fit: confidence against the share of right readings, in bins, and what the verdict pays."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.tabular import Table, markdown_table, number

BINS = 10


@dataclass(frozen=True)
class Judged:
    """An edit, what the reader made of it, and how that compares with the truth."""

    task: str
    origin: str
    is_usual: bool
    is_read: bool  # an answer was read, which may be wrong
    is_right: bool
    guess_is_right: bool  # the answer without an edit, which is also what is given where nothing was read
    confidence: float  # by a rule that has not seen the question; 0 where nothing can be right
    guess: float  # how often the answers without an edit are right: with less confidence an edit is turned away

    @property
    def is_accepted(self) -> bool:
        return self.confidence >= self.guess

    @property
    def always(self) -> bool:
        """Whether the answer is right when the edit is always used."""
        return self.is_right if self.is_read else self.guess_is_right

    @property
    def verified(self) -> bool:
        """Whether the answer is right when the edit is used where it is accepted."""
        return self.is_right if self.is_accepted else self.guess_is_right

    @property
    def best(self) -> bool:
        """The same with a verifier that always knows."""
        return self.is_right or self.guess_is_right


@dataclass(frozen=True)
class Bin:
    """Edits of about one confidence."""

    low: float
    count: int
    confidence: float  # mean
    right: float  # share


def bins(edits: Sequence[Judged]) -> list[Bin]:
    """Equal steps of confidence, those without an edit left out."""
    found = []
    for index in range(BINS):
        inside = [edit for edit in edits if min(int(edit.confidence * BINS), BINS - 1) == index]
        if inside:
            right = float(np.mean([edit.is_right for edit in inside]))
            found.append(Bin(index / BINS, len(inside), float(np.mean([edit.confidence for edit in inside])), right))
    return found


def calibration_error(edits: Sequence[Judged]) -> float:
    """The mean distance of confidence and share of right readings over the bins, each counting its edits."""
    return sum(each.count * abs(each.confidence - each.right) for each in bins(edits)) / len(edits)


def markdown(edits: Sequence[Judged], folds: int) -> str:
    """The whole report."""
    usual = [edit for edit in edits if edit.is_usual]
    parts = [
        "# How sure the reader is, and how often it is right",
        f"{len(edits)} edits, {len(usual)} of them drawn as editors are used. Every confidence is by a rule that was "
        f"fitted without the edit's question ({folds} folds).",
        "## What the verdict pays",
        "Right answers, percent: without an edit, always from the edit, from the edit where it is accepted (EVR), and "
        "with a verifier that always knows.",
        _lines(["edits", "task", "count", "direct", "always", "EVR", "best"], _pays(edits)),
        "## Verdicts",
        "*precise*: share of right answers of the accepted edits. *found*: share of accepted edits of those with a "
        "right answer. *error*: mean distance of confidence and share, over ten bins.",
        _lines(["task", "edits", "right", "accepted", "precise", "found", "Brier", "error"], _verdicts(edits)),
        "## Confidence against share of right answers",
        _lines(["task", "confidence", "edits", "mean confidence", "right"], _curve(edits)),
    ]
    return "\n\n".join(parts) + "\n"


def _groups(edits: Sequence[Judged]) -> Iterable[tuple[str, list[Judged]]]:
    yield "all", list(edits)
    usual = [edit for edit in edits if edit.is_usual]
    if usual:
        yield "all, as used", usual
    for task in dict.fromkeys(edit.task for edit in edits):
        yield task, [edit for edit in edits if edit.task == task]


def _pays(edits: Sequence[Judged]) -> Iterable[list[str]]:
    for origin in dict.fromkeys(edit.origin for edit in edits):
        mine = [edit for edit in edits if edit.origin == origin]
        for task, group in _groups(mine):
            if task == "all" or (task != "all, as used" and group[0].is_usual):
                columns = (
                    [getattr(e, name) for e in group] for name in ("guess_is_right", "always", "verified", "best")
                )
                yield [origin, task, str(len(group)), *(_percent(np.mean(column)) for column in columns)]


def _verdicts(edits: Sequence[Judged]) -> Iterable[list[str]]:
    for name, group in _groups(edits):
        right = np.array([edit.is_right for edit in group])
        confidence = np.array([edit.confidence for edit in group])
        accepted = np.array([edit.is_accepted for edit in group])
        precise = right[accepted].mean() if accepted.any() else np.nan
        found = accepted[right].mean() if right.any() else np.nan
        shares = [_percent(value) for value in (right.mean(), accepted.mean(), precise, found)]
        brier = np.square(confidence - right).mean()
        yield [name, str(len(group)), *shares, f"{brier:.3f}", f"{calibration_error(group):.3f}"]


def _curve(edits: Sequence[Judged]) -> Iterable[list[str]]:
    for name, group in _groups(edits):
        for each in bins(group):
            about = f"{each.low:.1f} to {each.low + 1 / BINS:.1f}"
            yield [name, about, str(each.count), f"{each.confidence:.3f}", _percent(each.right)]


def _percent(share: float | np.floating) -> str:
    return "" if np.isnan(share) else number(100 * float(share))


def _lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(markdown_table(Table(head, list(rows), words=2)))


def picture(edits: Sequence[Judged]) -> bytes:
    """The calibration curves as a PNG, a panel for all edits and for each task; the area of a dot is its edits."""
    import matplotlib.figure
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    groups = list(_groups(edits))
    columns = 4
    rows = -(-len(groups) // columns)
    figure = matplotlib.figure.Figure(figsize=(2.6 * columns, 2.7 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, group) in enumerate(groups):
        axes = figure.add_subplot(rows, columns, place + 1)
        curve = bins(group)
        axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        at, share = [each.confidence for each in curve], [each.right for each in curve]
        axes.plot(at, share, color="#4f81bd", linewidth=1)
        axes.scatter(at, share, [8 + 200 * each.count / len(group) for each in curve], color="#4f81bd", alpha=0.7)
        axes.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), title=f"{name} ({len(group)})")
        axes.title.set_fontsize(9)
    figure.supxlabel("confidence", fontsize=9)
    figure.supylabel("share of right answers", fontsize=9)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110, metadata={"Software": None})
    return data.getvalue()
