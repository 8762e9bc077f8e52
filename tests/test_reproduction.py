"""docs/reproduction.md: the files and tests it names exist, and its values are those of the composed configs."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from etchr.config import compose
from etchr.rl.settings import RlConfig
from etchr.sft.settings import SftConfig
from evaluation.published import MODELS, TABLE
from evaluation.settings import EvalConfig

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
COMMANDS = {"Stage I: SFT": (SftConfig, "sft"), "Stage II: RL": (RlConfig, "rl")}


def rows() -> list[tuple[str, list[str]]]:
    """(section, cells) of every row of the page's tables."""
    found = []
    for section in PAGE.split("\n## ")[1:]:
        title, *lines = section.splitlines()
        table = [line for line in lines if line.startswith("|")][2:]
        found += [(title, [cell.strip() for cell in line.strip("|").split("|")]) for line in table]
    return found


@cache
def composed(section: str, experiment: str):
    schema, command = COMMANDS.get(section, (EvalConfig, "eval"))
    return compose(schema, command, [f"experiment={experiment}"])


def lookup(config, key: str):
    for part in key.split("."):
        config = config[part] if isinstance(config, dict) else getattr(config, part)
    return config


def test_every_row_is_whole():
    assert len(rows()) > 100
    for _, cells in rows():
        assert len(cells) == 5, cells
        assert cells[4] in ("exact", "nano", "GPU", "open"), cells


def test_values_are_those_of_the_configs():
    for section, (what, here, value, _, _) in rows():
        option = re.fullmatch(r"`(\w+): ([\w.]+)`", here)
        if option:
            assert lookup(composed(section, option[1]), option[2]) == yaml.safe_load(value), what
        else:
            assert (ROOT / here.strip("`")).is_file(), what
            assert not value, what


def test_the_tests_exist():
    for _, (what, _, _, test, _) in rows():
        path, _, name = test.strip("`").partition("::")
        source = (ROOT / path).read_text(encoding="utf-8")
        assert not name or f"\ndef {name}(" in source or f"\nasync def {name}(" in source, what


def test_the_gains_are_those_of_the_published_means():
    gains = [TABLE[f"{model} + ETCHR"].mean - TABLE[model].mean for model in MODELS]
    assert [f"+{gain:.2f}" for gain in gains] == re.findall(r"\+\d\.\d\d", PAGE)


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]), ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            known = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in known, f"{page.name}: no heading for {target}"
