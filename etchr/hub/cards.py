"""The model card beside a saved LoRA adapter: what it is, how to load it, how it was made, under which licence.

Everything in it that comes from outside (names, meta-prompts, options) is turned into one escaped line, so it can break
neither the YAML front matter nor a table. Nothing is fetched: the text is made here, huggingface_hub only parses it.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from etchr.run_folder import write_atomically

CARD_FILE = "README.md"  # the name under which the hub looks for a model card
NON_COMMERCIAL = "flux-non-commercial-license"
NON_COMMERCIAL_LINK = "https://huggingface.co/black-forest-labs/FLUX.2-klein-base-9B/blob/main/LICENSE.md"
KLEIN_9B = re.compile(r"(?=.*klein)(?=.*(?<!\d)9b)", re.IGNORECASE)  # what is made from 9B stays under its licence
APACHE = re.compile(r"(black-forest-labs/)?FLUX\.2-klein-(base-)?4B|nano(_base)?", re.IGNORECASE)
PAPER = "[ETCHR (arXiv 2605.23897)](https://arxiv.org/abs/2605.23897)"
ABSOLUTE = re.compile(r"[/~\\]|[A-Za-z]:[/\\]|file:")
SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$#])")


@dataclass(frozen=True)
class AdapterCard:
    """What the card of one adapter says."""

    base: str  # hub id of the base, or its folder, of which only the last part is written
    stage: str  # "SFT" or "RL"
    rank: int
    alpha: float
    num_linears: int  # adapted linear layers
    num_parameters: int  # of the adapter
    steps: int  # optimizer steps
    num_pairs: int  # training pairs seen, repetitions counted
    data: list[str]  # names of the data sets
    meta_prompts: dict[str, str]  # task family -> the sentence in front of every question; may be empty
    settings: dict[str, Any]  # training options worth knowing
    metrics: dict[str, Any]  # name -> value, for example the final validation loss
    num_inference_steps: int
    guidance_scale: float
    versions: dict[str, str]  # library -> version
    pipeline_options: dict[str, Any] = field(default_factory=dict)  # what a small base needs in diffusers' call besides


def write_card(folder: Path, card: AdapterCard) -> Path:
    """Write `folder`/README.md for the adapter in `folder`; the file.

    It is complete or absent. A base that is no hub id is named by the last part of its path
    and left out of the front matter, with its relation, since the hub refuses a `base_model` that it does not have.
    Raises a `ValueError` for a base without a name.
    """
    name, on_hub = _base(card.base)
    licence, sentence = _licence(name)
    front: dict[str, Any] = licence | ({"base_model": name, "base_model_relation": "adapter"} if on_hub else {})
    data = ModelCardData(
        **front,
        library_name="diffusers",
        pipeline_tag="image-to-image",
        tags=["lora", "flux2", "etchr"],
    )
    body = "\n\n".join(
        [
            f"# ETCHR {_cell(card.stage)}: a LoRA for {_cell(name)}",
            sentence,
            _about(card, name),
            _use(card, name, on_hub),
            _prompts(card),
            _training(card),
            _metrics(card),
            _limits(name),
            f"## Licence\n\n{sentence}",
        ]
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"))
    write_atomically(folder / CARD_FILE, text.encode())
    return folder / CARD_FILE


# ------------------------------------------------------------------------------------------------- base and licence


def _base(base: str) -> tuple[str, bool]:
    """The base's public name, and whether that is a hub id (told from a folder as `folder.check_folder` does)."""
    text = str(base).strip()
    path = Path(text)
    if text.count("/") == 1 and not path.exists() and not path.parent.exists():
        try:
            validate_repo_id(text)
        except HFValidationError:
            pass
        else:
            return text, True
    name = _line(PureWindowsPath(text).name)  # the last part after a slash of either kind
    if name in ("", ".", "..", "~"):
        raise ValueError(f"base={base!r} names no model; give a hub id such as org/name or the name of a folder")
    return name, False


def is_non_commercial(base: str) -> bool:
    """Whether a base, by its name, is a klein of 9B, and what is made from it so under the non-commercial licence."""
    return bool(KLEIN_9B.search(base))


def _licence(name: str) -> tuple[dict[str, str], str]:
    """The front matter's licence entries and the sentence that says the same."""
    if is_non_commercial(name):
        front = {"license": "other", "license_name": NON_COMMERCIAL, "license_link": NON_COMMERCIAL_LINK}
        return front, (
            "**Non-commercial.** This adapter is made from FLUX.2-klein 9B and is, like its base, under Black Forest "
            f"Labs' [FLUX Non-Commercial License]({NON_COMMERCIAL_LINK})."
        )
    if APACHE.fullmatch(name):
        return {"license": "apache-2.0"}, "This adapter is, like its base, under Apache-2.0."
    return {}, f"This adapter is under the licence of its base, {_cell(name)}."


# --------------------------------------------------------------------------------------------------------- sections


def _about(card: AdapterCard, name: str) -> str:
    return (
        f"{PAPER} trains an image editor that turns (image, question) into an intermediate image in which the answer "
        "is visible: a box round the evidence, a traced path, a restored picture, another viewpoint. An understanding "
        "model then verifies the edit and answers from it, or falls back to the original image. This adapter makes "
        f"{_cell(name)} such an editor: it is asked a *question* and is to find out itself what to draw. Stage of "
        f"training: {_cell(card.stage)}."
    )


def _use(card: AdapterCard, name: str, on_hub: bool) -> str:
    family, sentence = next(iter(card.meta_prompts.items()), ("perception", ""))
    question = "What does the sign say?"
    options = "".join(f", {key}={value!r}" for key, value in card.pipeline_options.items())
    words = ["etchr", "ask", "--editor", "nano" if name == "nano_base" else name, "--lora", "FOLDER"]
    words += ["--image", "photo.jpg", "--question", question, "--family", _line(family)]
    words += ["--steps", str(card.num_inference_steps), "--guidance", f"{card.guidance_scale:g}"]
    where = "" if on_hub else " The base is a folder here, not a repository of the hub: give the path of yours."
    return f"""## Use

FOLDER is the folder of this file, for example from `hf download OWNER/NAME --local-dir FOLDER`.{where}

With diffusers:

```python
import torch
from diffusers import Flux2KleinPipeline
from PIL import Image

device = "cuda" if torch.cuda.is_available() else "cpu"
pipeline = Flux2KleinPipeline.from_pretrained({name!r}, torch_dtype=torch.bfloat16).to(device)
pipeline.load_lora_weights("FOLDER")
image = Image.open("photo.jpg").convert("RGB")
prompt = {f"{_line(sentence)} {question}".strip()!r}
steps, guidance = {card.num_inference_steps}, {card.guidance_scale}
edit = pipeline(image=image, prompt=prompt, num_inference_steps=steps, guidance_scale=guidance{options}).images[0]
edit.save("edit.png")
```

With ETCHR, which verifies the edit and answers the question (`--base-url` and `--model` name the understanding model):

```bash
{shlex.join(words)}
```"""


def _prompts(card: AdapterCard) -> str:
    sentences = {family: sentence for family, sentence in card.meta_prompts.items() if _line(sentence)}
    if not sentences:
        return (
            "## Prompts\n\nThe prompt is the question alone; no meta-prompt was used in training. `etchr ask` puts one "
            "in front unless the file given with `--router` has an empty sentence for each family."
        )
    return (
        "## Prompts\n\nEvery prompt must start with the meta-prompt of its family, then a space and the question:\n\n"
        + _table(("family", "meta-prompt"), card.meta_prompts)
        + "\n\n`etchr ask` puts the sentences of its `configs/router/default.yaml` in front; where these differ, give "
        "a YAML of lines `family: sentence` with `--router`."
    )


def _training(card: AdapterCard) -> str:
    facts = {
        "stage": card.stage,
        "rank, alpha": f"{card.rank}, {card.alpha:g}",
        "adapted linear layers": card.num_linears,
        "parameters": f"{card.num_parameters:,}",
        "optimizer steps": f"{card.steps:,}",
        "training pairs seen": f"{card.num_pairs:,}",
        "data": card.data,
    }
    text = "## Training\n\n" + _table(("what", "value"), facts)
    for title, values in (("option", card.settings), ("library", card.versions)):
        if values:
            text += "\n\n" + _table((title, "value"), values)
    return text


def _metrics(card: AdapterCard) -> str:
    table = _table(("metric", "value"), card.metrics) if card.metrics else "None were recorded."
    return f"## Metrics\n\n{table}"


def _limits(name: str) -> str:
    small = " This base draws 64x64 pictures of the project's procedural tasks only." if name.startswith("nano") else ""
    return (
        "## Limits\n\nAn edit can be wrong and look right: it is a step towards an answer, to be verified, and no "
        "evidence by itself. The adapter knows the families of questions and the kinds of pictures in its training "
        f"data; of others, expect nothing. The metrics above are all that was measured.{small}"
    )


# ------------------------------------------------------------------------------------------------------------- text


def _table(head: tuple[str, str], rows: Mapping[str, Any]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "| --- | --- |"]
    lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in _flat(rows)]
    return "\n".join(lines)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(key, value) pairs; the keys of nested options are joined with dots."""
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return pairs


def _cell(value: Any) -> str:
    """A value as one line of Markdown that shows exactly it: nothing in it formats, links or ends a cell."""
    return SPECIAL.sub(r"\\\1", _shown(value)) or "-"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple | set):
        return ", ".join(_shown(part) for part in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    text = _line(str(value))
    if isinstance(value, PurePath) or ABSOLUTE.match(text):  # a place on one machine tells a reader nothing
        return PureWindowsPath(text).name
    return text


def _line(text: str) -> str:
    """`text` on one line, without control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
