"""What a FLUX.2-klein folder says about itself, read before anything heavy is loaded. Loads without torch."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NANO_BASE = Path(__file__).parent.parent / "nano" / "nano_base"  # the base that the repository keeps
SETTINGS_FILE = "editor.json"


@dataclass(frozen=True)
class EditorSettings:
    """How a folder wants to be used; the defaults are the paper's for klein-base (section 5 of the method)."""

    num_inference_steps: int = 40
    guidance_scale: float = 3.5  # 1: no classifier-free guidance
    max_sequence_length: int = 512  # text tokens; the transformer sees all of them, padding included
    text_encoder_out_layers: tuple[int, ...] = (9, 18, 27)
    max_pixels: int = 1024 * 1024

    def __post_init__(self) -> None:
        for name, least in (("num_inference_steps", 1), ("max_sequence_length", 1), ("max_pixels", 256)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
        if not isinstance(self.guidance_scale, int | float) or not 0 <= self.guidance_scale < math.inf:
            raise ValueError(f"guidance_scale={self.guidance_scale!r} must be a number from 0 up; 1 is no guidance")

    @classmethod
    def read(cls, folder: str | Path, **changes: Any) -> "EditorSettings":
        """The settings in a folder's `editor.json` (the defaults if it has none), with `changes` that are not None.

        What a newer version wrote into the file is passed over; a change that is no setting is a `TypeError`.
        """
        path = Path(folder) / SETTINGS_FILE
        values = read_json(path) if path.is_file() else {}
        known = {name: values[name] for name in asdict(cls()) if name in values}
        if "text_encoder_out_layers" in known:
            known["text_encoder_out_layers"] = tuple(known["text_encoder_out_layers"])
        return cls(**known | {name: value for name, value in changes.items() if value is not None})


def named_folder(editor: str) -> str:
    """The folder or hub id that an option names; `nano` is the base editor kept in the repository."""
    return str(NANO_BASE) if editor == "nano" else editor


def check_folder(folder: str | Path) -> None:
    """Refuse, before anything is loaded, what is plainly no FLUX.2-klein; a hub id is left to diffusers."""
    path = Path(folder)
    if not path.exists():
        is_hub_id = str(folder).count("/") == 1 and not str(folder).startswith((".", "/")) and not path.parent.exists()
        if is_hub_id:
            return
        raise ValueError(f"no editor folder at {folder}; give a klein folder, a hub id such as org/name, or 'nano'")
    index = path / "model_index.json"
    if not index.is_file():
        raise ValueError(f"{folder} has no model_index.json, so it is not a FLUX.2-klein folder")
    entries = read_json(index)
    if entries.get("_class_name") != "Flux2KleinPipeline":
        raise ValueError(f"{folder} holds a {entries.get('_class_name')}, not a Flux2KleinPipeline")
    if entries.get("is_distilled"):
        raise ValueError(
            f"{folder} is a distilled klein, made for few steps without guidance; give a klein-base folder"
        )
    EditorSettings.read(path)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; `ValueError` that names the file for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value
