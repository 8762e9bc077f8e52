"""A table as Markdown, as LaTeX for booktabs, and as an HTML page; whatever stands in a cell stays text."""

import re
from collections.abc import Callable
from pathlib import Path

from etchr.pages import fill
from evaluation.tabular import MISSING, Cell, Table, markdown_table, markdown_text, text_of

HERE = Path(__file__).parent
LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after the end of a row it would be a distance
    "*": "{*}",
    "−": "$-$",
    "…": r"\ldots{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


def markdown(title: str, table: Table, note: str) -> str:
    """A document with the table."""
    return "\n".join([f"# {markdown_text(title)}", "", *markdown_table(table), "", note, ""])


def latex(title: str, table: Table, note: str) -> str:
    """A table float; needs the package booktabs."""
    rows: list[str] = []
    for row in table.rows:
        first, *cells = map(text_of, row)
        if rows and not first.text.startswith("..."):
            rows.append(r"\addlinespace")
        rows.append(" & ".join([latex_text(first.text), *map(_latex_cell, cells)]) + r" \\")
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table*}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",  # twelve columns of numbers with intervals
        rf"\caption{{{latex_text(title)}. {latex_text(note)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}",
        r"\toprule",
        " & ".join(_stacked([latex_text(word) for word in words.split()]) for words in table.head) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}",
        "",
    ]
    return "\n".join(lines)


def latex_text(words: str) -> str:
    """`words` without what LaTeX would take for a command; a minus before a number is one."""
    words = re.sub(r"(?<!\w)-(?=\d)", "−", " ".join(words.split()))
    return "".join(LATEX.get(letter, letter) for letter in words if letter.isprintable())


def _latex_cell(cell: Cell) -> str:
    """The value, and small under it what goes with it."""
    value = "--" if cell.text == MISSING else latex_text(cell.text)
    return _stacked([value, *(rf"\tiny {latex_text(line)}" for line in cell.beside.splitlines())])


def _stacked(lines: list[str]) -> str:
    """Lines one under the other, the first one on the row's."""
    if len(lines) < 2:
        return "".join(lines)
    return r"\begin{tabular}[t]{@{}r@{}}" + r" \\ ".join(lines) + r"\end{tabular}"


def page(title: str, table: Table, note: str) -> str:
    """A page of its own that loads nothing."""
    return fill(HERE / "template.html", title, table=table, note=note)


WRITERS: dict[str, Callable[[str, Table, str], str]] = {"md": markdown, "tex": latex, "html": page}
