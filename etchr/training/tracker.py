"""Weights & Biases."""

import os
from pathlib import Path
from typing import Any


class Tracker:
    """Weights & Biases where it is asked for, in the main process; `metrics.jsonl` is written in any case."""

    def __init__(self, mode: str, project: str, folder: Path, config: dict[str, Any]) -> None:
        self._run: Any = None
        if mode != "disabled":
            import wandb

            name = folder.resolve().name
            identity = folder / "wandb_id"  # a run that is started again goes on in the same curve
            if not identity.is_file():
                identity.write_text(f"{os.urandom(6).hex()}", encoding="utf-8")
            self._run = wandb.init(
                project=project,
                name=name,
                id=identity.read_text(encoding="utf-8").strip(),
                resume="allow",
                dir=str(folder),
                mode=mode,  # type: ignore[arg-type]
                config=config,
                save_code=False,
            )

    def log(self, step: int, values: dict[str, float], picture: str | None = None) -> None:
        """Numbers, and a picture file, of a step."""
        if self._run is not None:
            import wandb

            pictures = {} if picture is None else {"validation/edits": wandb.Image(picture)}
            self._run.log({**values, **pictures}, step=step)

    def close(self) -> None:
        """Flush what is left."""
        if self._run is not None:
            self._run.finish()
