"""`python -m evaluation claims`: which of the paper's claims hold in runs of ours, by a YAML file that lists them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etchr.config import parse_command
from etchr.run_folder import write_atomically
from evaluation.claims.lines import markdown
from evaluation.claims.numbers import compute
from evaluation.claims.spec import read_claims


@dataclass
class ClaimsConfig:
    """Options of `python -m evaluation claims`."""

    claims: str = "configs/claims/nano.yaml"  # YAML file of claims; its own comments say what stands there
    out: str = "outputs/claims_table"  # folder for claims.md and claims.json
    skip_missing: bool = False  # show comparisons whose runs or systems are not there as not run, instead of stopping


def main(argv: Sequence[str]) -> None:
    """Write the table of claims and print it."""
    config = parse_command(
        ClaimsConfig,
        config_name=None,
        argv=argv,
        prog="python -m evaluation claims",
        description="Say of each claim whether it holds in runs of ours: paired differences with intervals over "
        "samples and seeds, in Pass@1 and in edits that match. Reads records alone; needs neither data nor models.",
    )
    found = compute(read_claims(Path(config.claims)), config.skip_missing)
    texts = {"md": markdown(found), "json": json.dumps(found, indent=2) + "\n"}
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in texts.items():
        write_atomically(folder / f"claims.{suffix}", text.encode())
    print(texts["md"])
    print(f"written: {', '.join(str(folder / f'claims.{suffix}') for suffix in texts)}")
