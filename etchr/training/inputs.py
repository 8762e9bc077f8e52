"""What both stages read: the files of a data set, and the prompt that a sample gives the editor."""

from collections.abc import Callable, Sequence
from pathlib import Path

from etchr.router import Router
from etchr.sample import EditSample


def find_files(paths: Sequence[str], split: str) -> list[Path]:
    """The Parquet files that `paths` name: files, or the `<split>*.parquet` of folders and of the folders in them."""
    files: list[Path] = []
    for path in map(Path, paths):
        found = (
            [path] if path.is_file() else sorted([*path.glob(f"{split}*.parquet"), *path.glob(f"*/{split}*.parquet")])
        )
        if not found:
            raise ValueError(
                f"no {split} data at {path}; make some with: python -m data_prep all split={split} out={path}"
            )
        files += found
    return files


def prompt_maker(kind: str, router: Router) -> Callable[[EditSample], str]:
    """Sample to editing prompt: meta-prompt and question, or the explicit instruction kept in its meta."""

    def make(sample: EditSample) -> str:
        if kind == "question":
            return router.prompt(sample.question, sample.family)
        instruction = sample.meta.get("instruction")
        if not isinstance(instruction, str) or not instruction.strip():
            raise ValueError(f"row {sample.id!r} has no instruction in its meta; use data.prompt=question")
        return instruction

    return make
