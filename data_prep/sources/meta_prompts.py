"""Read the meta-prompts of a published training set: what its prompts of one family begin with. Writes a router YAML
for router= of training and inference and for meta_prompts= of `python -m data_prep released`. Only the prompts are
read, no pictures. A family's meta-prompt is the longest beginning that ends with a sentence or a line (else with a
colon), that at least `share` of the family's prompts have in common and that leaves them something to ask. What all
questions of a family begin with cannot be told from the meta-prompt by reading, so look at what is printed."""

import random
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from data_prep.sources.columns import Rows, WantedColumns, find_parquet, find_prompt, schema_of
from data_prep.sources.released import BOX_FAMILIES, cut, family_of
from etchr.config import parse_command
from etchr.families import TaskFamily
from etchr.router import Router
from etchr.rows import text
from etchr.run_folder import write_atomically

NUM_KEPT = 5_000  # prompts per family that beginnings are sought in: drawn at random, so that memory does not grow
MAX_BEGINNING = 1_000  # characters of a prompt that may be meta-prompt
BORDERS = (
    re.compile(r"""[.!?]["')\]]*(?=\s)|(?<=\S)(?=[ \t]*\n)"""),  # the end of a sentence or a line
    re.compile(r":(?=\s)"),
)


@dataclass
class MetaPromptsConfig:
    """Options of `python -m data_prep.sources.meta_prompts`."""

    root: str | None = None  # REQUIRED: the downloaded folder of ETCHR-SFT-400K or ETCHR-GRPO-10K, or one Parquet file
    out: str = "router.yaml"  # the file to write
    share: float = 0.95  # of a family's prompts that must begin with its meta-prompt
    prompt_column: str | None = None  # null: found by type and name

    def __post_init__(self) -> None:
        if not 0.5 < self.share <= 1:
            raise ValueError(f"share={self.share} must be above 0.5 and at most 1")
        if Path(self.out).is_dir():
            raise ValueError(f"out={self.out} is a folder; name the file to write, such as {self.out}/router.yaml")


@dataclass
class Found:
    """What is known of the prompts of one family."""

    num_rows: int = 0
    kept: list[str] = field(default_factory=list)  # the beginnings of some
    sentence: str = ""
    num_other: int = 0  # prompts that are not the sentence and a question
    num_spaced: int = 0  # prompts that have other white space between the two than the router's one blank


def main(argv: Sequence[str] | None = None) -> None:
    """Read, write and print the meta-prompts."""
    config = parse_command(
        MetaPromptsConfig,
        config_name=None,
        argv=list(sys.argv[1:] if argv is None else argv),
        prog="python -m data_prep.sources.meta_prompts",
        description=__doc__ or "",
    )
    try:
        write_router(config)
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None


def write_router(config: MetaPromptsConfig) -> dict[TaskFamily, Found]:
    """Write the router file and say what is in it; `ValueError` if no prompt tells its family."""
    files = find_parquet(config.root)
    prompt, labels = find_prompt(schema_of(files[0]), WantedColumns(prompt=config.prompt_column))
    rows = Rows(files, [prompt, *labels])
    families = gather(rows)
    if not families:
        raise ValueError(f"none of the {len(rows):,} texts in column {prompt} tells its family; see prompt_column=")
    for found in families.values():
        found.sentence = beginning(found.kept, config.share)
    sentences = {name: families[name].sentence for name in TaskFamily if name in families}
    boxes = [TaskFamily(name) for name in BOX_FAMILIES]
    if known := [sentences[name] for name in boxes if name in sentences]:
        sentences |= {
            name: known[0] for name in boxes if name not in sentences
        }  # a prompt alone does not tell them apart
    count(rows, families, Router(sentences))
    out = Path(config.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    body = yaml.safe_dump(
        {str(name): s for name, s in sentences.items()}, allow_unicode=True, sort_keys=False, width=9999
    )
    write_atomically(out, f"# Meta-prompts read from {len(rows):,} released prompts.\n{body}".encode())
    report(families, len(rows), out)
    if added := sorted(set(sentences) - set(families)):
        print(f"{', '.join(added)}: as {' and '.join(set(BOX_FAMILIES) - set(added))}")
    return families


def prompts(rows: Rows) -> Iterator[tuple[TaskFamily, str]]:
    """The prompts that tell their family, from the first column of `rows`; the others are labels."""
    column, *labels = rows.columns
    for index in range(len(rows)):
        try:
            row = rows[index]
            prompt = text(row[column], "prompt")
            yield family_of(prompt, [str(row[name]) for name in labels if row[name]], BOX_FAMILIES[0]), prompt
        except ValueError:  # counted: rows less those of all families
            continue


def gather(rows: Rows) -> dict[TaskFamily, Found]:
    """The families with a random part of their prompts each, drawn in one pass."""
    families: dict[TaskFamily, Found] = {}
    rng = random.Random(0)
    for family, prompt in prompts(rows):
        found = families.setdefault(family, Found())
        found.num_rows += 1
        place = len(found.kept) if len(found.kept) < NUM_KEPT else rng.randrange(found.num_rows)
        if place < NUM_KEPT:
            found.kept[place : place + 1] = [prompt[:MAX_BEGINNING]]
    return families


def beginning(kept: Sequence[str], share: float) -> str:
    """The longest beginning of at least `share` of the prompts that ends at a border; '' if there is none."""
    for border in BORDERS:
        shared = Counter(prompt[:end] for prompt in kept for end in {match.end() for match in border.finditer(prompt)})
        common = [start for start, times in shared.items() if times >= share * len(kept) and start.strip()]
        if common:
            return max(common, key=len)
    return ""


def count(rows: Rows, families: dict[TaskFamily, Found], router: Router) -> None:
    """Count the prompts that are not what the router makes of a question."""
    for family, prompt in prompts(rows):
        try:
            question = cut(prompt, family, router)
        except ValueError:
            families[family].num_other += 1
            continue
        families[family].num_spaced += router.prompt(question, family) != prompt


def report(families: dict[TaskFamily, Found], num_rows: int, out: Path) -> None:
    """Print per family the meta-prompt and the rows that do not have it."""
    for name, found in sorted(families.items()):
        print(f"{name}: {found.sentence!r}; {found.num_other:,} of {found.num_rows:,} rows do not begin with it")
        if not found.sentence:
            start, times = _most_common(found.kept)
            print(f"  nothing is common to enough of them; most common: {start!r}, {times / len(found.kept):.0%}")
        if found.num_spaced:
            print(f"  {found.num_spaced:,} rows have other white space behind it; the router puts one blank there")
    print(f"{num_rows - sum(found.num_rows for found in families.values()):,} rows tell no family or several")
    print(f"written: {out}")


def _most_common(kept: Sequence[str]) -> tuple[str, int]:
    starts = Counter(match[0] for prompt in kept if (match := re.match(r"(?s).*?[.!?:\n]|.{1,80}", prompt)))
    return starts.most_common(1)[0]


if __name__ == "__main__":
    main()
