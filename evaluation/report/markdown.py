"""The report as Markdown."""

from collections.abc import Sequence

from evaluation.report.sections import Section
from evaluation.tabular import markdown_table, markdown_text


def markdown(parts: Sequence[Section]) -> str:
    """The sections as one document; the first one's title is the document's."""
    lines: list[str] = []
    for number, section in enumerate(parts):
        lines += [f"{'#' if number == 0 else '##'} {markdown_text(section.title)}", ""]
        for table in section.tables:
            lines += [*markdown_table(table), ""]
        lines += [section.about, ""] if section.about else []
    return "\n".join(lines)
