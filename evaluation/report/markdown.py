"""The report as Markdown."""

from collections.abc import Sequence

from evaluation.report.sections import SHEET, Section
from evaluation.tabular import markdown_table, markdown_text


def markdown(parts: Sequence[Section], picture: str | None) -> str:
    """The report as one document: the sheet of pictures, the first section, and under a heading the others."""
    lines = ["# Edit-Verify-Reason", ""]
    if picture is not None:
        lines += [f"![{SHEET}]({picture})", ""]
    for number, section in enumerate(parts):
        lines += ["## Statistics", ""] if number == 1 else []
        lines += [f"{'###' if number else '##'} {markdown_text(section.title)}", ""]
        for table in section.tables:
            lines += [*markdown_table(table), ""]
        lines += [section.about, ""] if section.about else []
    return "\n".join(lines)
