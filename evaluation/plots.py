"""The figures as pictures: PNG and SVG, without a display."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[Mapping[str, Any]]
COLOURS = {"question": "#c0504d", "enhanced": "#d9a13b", "instruction": "#4f81bd"}  # of figure 2a, by prompt
LABEL = "right edits, percent"
LEGEND = "95 % intervals; small numbers: edits"
HATCHES = ("", "//", "..", "xx", "\\\\")  # tell systems with one prompt apart


def draw(name: str, points: Points) -> dict[str, bytes]:
    """A figure by the suffixes of its files; equal points give equal bytes."""
    import matplotlib

    # Names come from data: no letter in them starts a formula.
    with matplotlib.rc_context({"text.parse_math": False, "svg.hashsalt": "etchr"}):
        return _files(*PLOTS[name](points))


def plot_2a(points: Points) -> "tuple[Figure, Axes]":
    """Bars for every task, one for each system, with intervals and numbers of edits."""
    tasks, systems = (list(dict.fromkeys(point[key] for point in points)) for key in ("task", "system"))
    wide = 0.8 / len(systems)
    figure, axes = _figure(1.6 + len(tasks) * (0.7 + 0.35 * len(systems)))
    same: dict[str, int] = {}  # systems so far with a prompt
    for place, system in enumerate(systems):
        mine = [point for point in points if point["system"] == system]
        prompt = mine[0]["prompt"]
        at = [tasks.index(point["task"]) + (place - (len(systems) - 1) / 2) * wide for point in mine]
        axes.bar(
            at,
            [point["correct"] for point in mine],
            wide * 0.92,
            yerr=_errors(mine),
            capsize=2,
            error_kw={"linewidth": 0.9},
            color=COLOURS[prompt],
            hatch=HATCHES[same.setdefault(prompt, 0) % len(HATCHES)],
            edgecolor="white",
            label=f"{system} ({prompt})",
        )
        same[prompt] += 1
        for x, point in zip(at, mine, strict=True):
            axes.annotate(f"{point['num_edits']}", (x, point["high"] + 1), ha="center", va="bottom", fontsize=6)
    axes.set_xticks(range(len(tasks)), tasks)
    return figure, axes


def plot_2b(points: Points) -> "tuple[Figure, Axes]":
    """A line for every task and system over the path length, with intervals and numbers of edits."""
    from matplotlib.ticker import MaxNLocator

    lines = list(dict.fromkeys((point["task"], point["system"]) for point in points))
    figure, axes = _figure(7.0)
    for place, (task, system) in enumerate(lines):
        mine = [point for point in points if (point["task"], point["system"]) == (task, system)]
        at = [(point["path_length"] + point["to"]) / 2 + 0.06 * (place - (len(lines) - 1) / 2) for point in mine]
        drawn = axes.errorbar(
            at,
            [point["correct"] for point in mine],
            yerr=_errors(mine),
            marker="osD^vP"[place % 6],
            markersize=4,
            capsize=2,
            linewidth=1.4,
            elinewidth=0.8,
            label=f"{task}, {system} ({mine[0]['prompt']})",
        )
        for x, point in zip(at, mine, strict=True):
            axes.annotate(
                f"{point['num_edits']}",
                (x, point["correct"]),
                xytext=(3, 3),
                textcoords="offset points",
                fontsize=6,
                color=drawn.lines[0].get_color(),
            )
    axes.set_xlabel("path length, moves")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


PLOTS: dict[str, "Callable[[Points], tuple[Figure, Axes]]"] = {"2a": plot_2a, "2b": plot_2b}


def _figure(width: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    figure = Figure(figsize=(width, 3.6), layout="constrained")
    return figure, figure.subplots()


def _errors(points: Points) -> list[list[float]]:
    """How far the intervals reach below and above the values."""
    return [
        [point["correct"] - point["low"] for point in points],
        [point["high"] - point["correct"] for point in points],
    ]


def _files(figure: "Figure", axes: "Axes") -> dict[str, bytes]:
    """The finished figure."""
    axes.set_ylim(-2, 107)
    axes.set_ylabel(LABEL)
    axes.grid(axis="y", linewidth=0.5, alpha=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        title=LEGEND,
        title_fontsize=7,
        fontsize=7,
        frameon=False,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=3,
    )
    files = {}
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        stream = io.BytesIO()
        figure.savefig(stream, format=suffix, dpi=160, metadata=metadata)
        files[suffix] = stream.getvalue()
    return files
