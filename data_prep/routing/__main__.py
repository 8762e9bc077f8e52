"""`python -m data_prep.routing charxiv=FOLDER viewspatial=FOLDER`: fit the words of the local routing rule."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Ge

from data_prep.routing.fit import FAMILIES, Array, Model, Problem, fit, left_out, temperature
from data_prep.routing.questions import RoutedQuestion, development
from etchr.checks import NotNegative, check
from etchr.config import parse_command
from etchr.router import DEFAULT_WORDS, NO_FAMILY
from etchr.run_folder import write_atomically


@dataclass
class RoutingConfig:
    """Options of `python -m data_prep.routing`."""

    charxiv: str | None = None  # folder with CharXiv's reasoning_test.json
    viewspatial: str | None = None  # folder with ViewSpatial-Bench.json
    out: str = str(DEFAULT_WORDS)  # YAML to write
    l1: NotNegative = 1e-4  # what keeps weights at 0; 5e-5 keeps 50 more: left-out cross-entropy 0.55, not 0.57
    folds: Annotated[int, Ge(2)] = 8  # of the lines of questions.yaml, for the temperature
    seed: int = 0  # of scenes and of what is drawn from large sources

    def __post_init__(self) -> None:
        check(self)
        if self.charxiv is None or self.viewspatial is None:
            raise ValueError("name the folders of the development data: charxiv=FOLDER viewspatial=FOLDER")


def main(argv: Sequence[str] | None = None) -> None:
    """Fit, calibrate, write, and print how the rule does on wordings that were left out."""
    config = parse_command(
        RoutingConfig,
        config_name=None,
        argv=sys.argv[1:] if argv is None else argv,
        prog="python -m data_prep.routing",
        description="Fit the words of the local routing rule on development data. OMP_NUM_THREADS=1 is the fastest.",
    )
    try:
        rows = development(Path(config.charxiv or ""), Path(config.viewspatial or ""), config.folds, config.seed)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    print(make(rows, config))


def make(rows: Sequence[RoutedQuestion], config: RoutingConfig) -> str:
    """Fit, calibrate and write the rule to `config.out`; what is to be said of it."""
    problem = Problem.of(rows)
    model = fit(problem, config.l1)
    logs = left_out(problem, [row.group for row in rows], config.l1, model)
    warmth = temperature(logs, problem)
    table = by_source(rows, problem, logs)
    calibrated = Model(model.weights / warmth, model.bias / warmth)
    write_atomically(Path(config.out), as_yaml(problem.words, calibrated, table).encode())
    words = np.count_nonzero(calibrated.weights.any(1))
    return "\n".join([*table, f"temperature {warmth:.3f}", f"{words} words and pairs written to {config.out}"])


def by_source(rows: Sequence[RoutedQuestion], problem: Problem, logs: Array) -> list[str]:
    """How many left-out questions of each family and source are routed rightly, as lines."""
    right = logs.argmax(1) == problem.family
    cells: dict[tuple[str, str], list[bool]] = {}
    for row, is_right in zip(rows, right, strict=True):
        cells.setdefault((row.family or NO_FAMILY, row.source), []).append(bool(is_right))
    return [f"{name:<10} {source:<11} {sum(cell):>4} of {len(cell):>4}" for (name, source), cell in cells.items()]


def as_yaml(words: Sequence[str], model: Model, table: Sequence[str]) -> str:
    """The rule as YAML, each family's words from the heaviest; `table` goes into the head."""
    lines = [
        "# Weights of the local routing rule (etchr/router.py), one for each word or pair of neighbouring words.",
        "# Made by python -m data_prep.routing, a sparse logistic regression on the questions that data_prep/routing",
        "# describes; scaled by a temperature that was fitted on wordings left out of the fit. Of those, so many were",
        "# routed rightly, a whole source or an eighth of the lines of questions.yaml being left out at a time:",
        *(f"#   {line}" for line in table),
    ]
    for column, family in enumerate(FAMILIES):
        lines += [f"{family or NO_FAMILY}:", f"  bias: {model.bias[column]:.2f}", "  words:"]
        weights = zip(words, model.weights[:, column].tolist(), strict=True)
        heaviest = sorted((pair for pair in weights if pair[1]), key=lambda pair: -abs(pair[1]))
        lines += [f'    "{word}": {weight:.2f}' for word, weight in heaviest]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
