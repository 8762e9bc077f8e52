"""What a FLUX.2-klein says about itself, in a folder or on the hub, read before anything heavy is loaded.

Loads without torch.
"""

import functools
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NANO_BASE = Path(__file__).parent.parent / "nano" / "nano_base"  # the base that the repository keeps
INDEX_FILE = "model_index.json"
LORA_FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for in a folder
SETTINGS_FILE = "editor.json"
SHAPES = {  # of a transformer's config -> the most that is built; FLUX.2-dev has 8, 48, 48, 128, 15,360
    **{"num_layers": 1000, "num_single_layers": 1000, "num_attention_heads": 1000, "attention_head_dim": 10_000},
    **{"joint_attention_dim": 1_000_000, "in_channels": 10_000},
}
DISTILLED = {"num_inference_steps": 4, "guidance_scale": 1.0}  # what BFL made the distilled kleins for


@dataclass(frozen=True)
class EditorSettings:
    """How a folder wants to be used; the defaults are the paper's for klein-base (section 5 of the method)."""

    num_inference_steps: int = 40
    guidance_scale: float = 3.5  # 1: no classifier-free guidance
    max_sequence_length: int = 512  # text tokens; the transformer sees all of them, padding included
    text_encoder_out_layers: tuple[int, ...] = (9, 18, 27)
    max_pixels: int = 1024 * 1024
    is_distilled: bool = False  # made for few steps without guidance; what model_index.json says

    def __post_init__(self) -> None:
        for name, least in (("num_inference_steps", 1), ("max_sequence_length", 1), ("max_pixels", 256)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r} must be a whole number of at least {least}")
        if not isinstance(self.guidance_scale, int | float) or not 0 <= self.guidance_scale < math.inf:
            raise ValueError(f"guidance_scale={self.guidance_scale!r} must be a number from 0 up; 1 is no guidance")
        if self.is_distilled and self.guidance_scale > 1:
            raise ValueError(
                f"guidance_scale={self.guidance_scale}: a distilled klein was made to run without guidance; leave "
                "it out, or take klein-base"
            )

    @classmethod
    def read(cls, folder: str | Path, **changes: Any) -> "EditorSettings":
        """The settings in the `editor.json` of a folder or hub id, with `changes` that are not None.

        What the file does not say, or all if there is none, has the defaults, of a distilled klein `DISTILLED`. What a
        newer version wrote into it is passed over; a change that is no setting is a `TypeError`.
        """
        index = described(folder, INDEX_FILE)
        # A hub that gives no index is not asked for more.
        path = None if index is None and is_hub_id(folder) else described(folder, SETTINGS_FILE)
        values = {} if path is None else read_json(path)
        known = {name: values[name] for name in asdict(cls()) if name in values}
        is_distilled = index is not None and bool(read_json(index).get("is_distilled"))
        known = (DISTILLED if is_distilled else {}) | known | {"is_distilled": is_distilled}
        if "text_encoder_out_layers" in known:
            known["text_encoder_out_layers"] = tuple(known["text_encoder_out_layers"])
        return cls(**known | {name: value for name, value in changes.items() if value is not None})


def named_folder(editor: str) -> str:
    """The folder or hub id that an option names; `nano` is the base editor kept in the repository."""
    return str(NANO_BASE) if editor == "nano" else editor


def is_hub_id(folder: str | Path) -> bool:
    """Whether `folder` is no path here, but the name of a model on the Hugging Face hub: org/name."""
    path, text = Path(folder), str(folder)
    return not path.exists() and text.count("/") == 1 and not text.startswith((".", "/")) and not path.parent.exists()


def described(folder: str | Path, name: str) -> Path | None:
    """The file `name` of a folder, or of a hub id, fetched into the hub's cache; None where it is not to be had."""
    if not is_hub_id(folder):
        path = Path(folder) / name
        return path if path.is_file() else None
    return _fetched(str(folder), name)


def find_lora(source: str | Path) -> Path:
    """The file of a LoRA: itself, a folder's `LORA_FILE`, or that of org/name or org/name/path/to/file.safetensors.

    What lies on the hub is fetched into its cache. `ValueError` where there is none.
    """
    path = Path(source)
    path = path / LORA_FILE if path.is_dir() else path
    if path.is_file() and path.suffix == ".safetensors":
        return path
    owner, *names = str(source).split("/")
    if names and owner not in ("", ".", "..", "~") and not Path(owner).exists():
        fetched = _fetched(f"{owner}/{names[0]}", "/".join(names[1:]) or LORA_FILE)
        if fetched is not None:
            return fetched
    raise ValueError(
        f"no LoRA file at {path}; give a .safetensors file, a folder with {LORA_FILE}, or one of the hub: org/name or "
        "org/name/file.safetensors"
    )


@functools.cache  # the hub's client waits long for a network that is not there: once is enough
def _fetched(hub_id: str, name: str) -> Path | None:
    from httpx import HTTPError
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub_id, name))
    except (OSError, ValueError, HTTPError):  # no such file or model, no login, no network, no name of a model
        return None


def check_folder(folder: str | Path, *, hub_must_answer: bool = False) -> None:
    """Refuse, before anything heavy is loaded, what is plainly no FLUX.2-klein.

    A hub id of which nothing is to be had passes, for an edit that is kept needs no weights, unless `hub_must_answer`.
    """
    if not is_hub_id(folder) and not Path(folder).exists():
        raise ValueError(f"no editor folder at {folder}; give a klein folder, a hub id such as org/name, or 'nano'")
    index = described(folder, INDEX_FILE)
    if index is None and is_hub_id(folder):
        if hub_must_answer:
            raise ValueError(
                f"the hub has no {INDEX_FILE} of {folder} for us; is the name right, is there a network, and for a "
                "gated model a login (hf auth login)?"
            )
        return
    if index is None:
        raise ValueError(f"{folder} has no {INDEX_FILE}, so it is not a FLUX.2-klein folder")
    kind = read_json(index).get("_class_name")
    if kind != "Flux2KleinPipeline":
        raise ValueError(f"{folder} holds a {kind}, not a Flux2KleinPipeline: take klein-base, or the distilled klein")
    EditorSettings.read(folder)
    _check_shapes(folder)


def _check_shapes(folder: str | Path) -> None:
    """Refuse a transformer that no machine could hold before anything is made of it."""
    path = Path(folder) / "transformer" / "config.json"
    config = read_json(path) if path.is_file() else {}
    for name, most in SHAPES.items():
        value = config.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise ValueError(f"{path}: {name}={value!r:.60} must be a whole number up to {most:,}")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; `ValueError` that names the file for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value
