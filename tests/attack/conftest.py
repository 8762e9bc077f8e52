"""The attack's tally: each test says how much it tried and how much held, and the run prints the sums at its end."""

import pytest


def pytest_collection_modifyitems(items):
    """None of these belongs to a plain run; each may take as long as the whole attack."""
    for item in items:
        if "/attack/" in item.nodeid:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture
def tally(record_property):
    """`tally(what, tried, held)` notes the figures of a test and asserts that all held."""

    def note(what: str, tried: int, held: int) -> None:
        record_property("attack", (what, tried, held))
        assert tried == held, f"{what}: {held} of {tried} held"

    return note


def pytest_terminal_summary(terminalreporter):
    """One line for each thing that was tried."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    figures = [value for report in reports for name, value in report.user_properties if name == "attack"]
    if figures:
        terminalreporter.section("attack: tried, held")
        for what, tried, held in figures:
            terminalreporter.write_line(f"{tried:>7,} {held:>7,}  {what}")
