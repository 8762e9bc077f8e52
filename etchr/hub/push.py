"""Upload an adapter or a whole klein folder to a Hugging Face hub repository, private unless told otherwise.

What leaves the machine is a list of files made here, by name and by folder: checkpoints, logs and keys that lie in the
same folder stay. The login is huggingface_hub's own affair: no token is read, stored or printed here.
"""

import glob
import json
import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import yaml
from huggingface_hub import HfApi, metadata_load
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id

from etchr.editor import lora_files
from etchr.editor.folder import LORA_FILE, check_folder
from etchr.hub.cards import CARD_FILE

MODEL_INDEX = "model_index.json"
TOP_LEVEL = ("*.safetensors", "*.json", "*.jinja", "LICENSE*", "NOTICE*", CARD_FILE)
COMPONENT = ("*.safetensors", "*.json", "*.jinja")  # in each folder that model_index.json lists
TOKENIZER = ("*.txt",)  # and in the one called tokenizer
LOGIN = "log in with `hf auth login` or set HF_TOKEN to a token that may write there"


@dataclass(frozen=True)
class PushPlan:
    """A checked folder and what of it would be uploaded where."""

    folder: Path
    repo_id: str
    sizes: dict[str, int]  # path in the folder and in the repository -> bytes
    licence: str | None  # of the card, if that is "other": its name


def push(
    folder: str | Path, repo_id: str, *, public: bool = False, message: str | None = None, api: HfApi | None = None
) -> str:
    """Upload `folder` to the model repository `repo_id`, which is made if it does not exist; its URL.

    Raises a `ValueError` with the way out: before any network call where the folder or the names are wrong, else where
    the hub refuses or cannot be reached, or where the repository exists and is not as private as asked.
    """
    return upload(plan(folder, repo_id), public=public, message=message, api=api)


def plan(folder: str | Path, repo_id: str) -> PushPlan:
    """Check `folder` and `repo_id` without any network call; what an upload would send."""
    folder = Path(folder)
    _check_repo_id(repo_id)
    if not folder.is_dir():
        raise ValueError(f"no folder at {folder}; give an adapter folder or a klein folder")
    _check_links(folder)
    card = folder / CARD_FILE
    if not card.is_file():
        raise ValueError(f"{folder} has no model card {CARD_FILE}; write one that says what it is and under what terms")
    try:
        metadata = metadata_load(card) or {}
    except (ValueError, yaml.YAMLError):
        raise ValueError(
            f"{card} is not text with valid YAML front matter; correct what is between its --- lines"
        ) from None
    is_adapter, is_model = (folder / LORA_FILE).is_file(), (folder / MODEL_INDEX).is_file()
    if not (is_adapter or is_model):
        raise ValueError(f"{folder} holds neither {LORA_FILE} nor {MODEL_INDEX}; it is no adapter or model")
    if is_model:
        check_folder(folder)
    files = _files(folder, _components(folder) if is_model else [])
    if is_adapter:
        lora_files.read(folder)
    licence = str(metadata.get("license_name") or "other") if metadata.get("license") == "other" else None
    return PushPlan(folder, repo_id, {name: (folder / name).stat().st_size for name in files}, licence)


def upload(plan: PushPlan, *, public: bool = False, message: str | None = None, api: HfApi | None = None) -> str:
    """Make the repository and upload the files of `plan`, no others; the repository's URL. Errors as for `push`."""
    if message is not None and not message.strip():
        raise ValueError("the message of the upload is empty; leave it out or say what changed")
    api = api or HfApi()
    try:
        url = str(api.create_repo(plan.repo_id, private=not public, exist_ok=True))
        _check_visibility(bool(api.repo_info(plan.repo_id).private), public)
        api.upload_folder(
            repo_id=plan.repo_id,
            folder_path=plan.folder,
            commit_message=message or "Upload with etchr push",
            # by exact name: the hub's patterns would take "*.json" from every folder below too
            allow_patterns=[glob.escape(name) for name in plan.sizes],
        )
    except (HTTPError, OSError, RuntimeError, UnicodeEncodeError) as error:  # the last: a token no header can hold
        raise ValueError(_sentence(error, plan.repo_id)) from None
    except ValueError as error:  # what the hub says of the card, on several lines
        raise ValueError(f"the upload to {plan.repo_id} was not taken: {' '.join(str(error).split())}") from None
    return url


# ------------------------------------------------------------------------------------------------------------ checks


def _check_repo_id(repo_id: str) -> None:
    owner, slash, name = repo_id.partition("/")
    if not (owner and slash and name):
        raise ValueError(f"{repo_id!r} is no repository; give owner/name")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no repository; give owner/name ({error})") from None


def _check_links(folder: Path) -> None:
    root = os.path.realpath(folder)
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
            raise ValueError(f"{path} is a symlink that leads outside {folder}; put a copy there or remove it")


def _components(folder: Path) -> list[str]:
    """The component folders that model_index.json lists; nothing else in a model folder belongs to the model."""
    entries = json.loads((folder / MODEL_INDEX).read_text(encoding="utf-8"))  # `check_folder` has read it
    names = [name for name, value in entries.items() if isinstance(value, list) and value != [None, None]]
    for name in names:
        if Path(name).name != name or not (folder / name).is_dir():
            raise ValueError(f"{folder} has no component folder {name!r}, which its {MODEL_INDEX} lists")
    return names


def _files(folder: Path, components: list[str]) -> list[str]:
    """The files to upload, as paths in `folder` with slashes; a symlink among them may only lead to another of them."""
    files = _matching(folder, TOP_LEVEL)
    for name in components:
        files += _matching(folder / name, COMPONENT + (TOKENIZER if name == "tokenizer" else ()))
    root = os.path.realpath(folder)
    names = [path.relative_to(folder).as_posix() for path in files]
    allowed = {os.path.join(root, name) for name in names}
    for path in files:
        if os.path.realpath(path) not in allowed:
            raise ValueError(f"{path} leads to a file that is not uploaded itself; put a copy there or remove it")
    return names


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and any(fnmatchcase(path.name, pattern) for pattern in patterns)
    ]


def _check_visibility(private: bool, public: bool) -> None:
    """`create_repo` leaves an existing repository as it is, so what was asked for may not be what is there."""
    if not private and not public:
        raise ValueError("the repository exists and is public; push with --public, or make it private in its settings")
    if private and public:
        raise ValueError("the repository is private; make it public in its settings, or push without --public")


def _sentence(error: Exception, repo_id: str) -> str:
    """What went wrong, in our words: a transport error's own text may quote a request header, and so the token."""
    if isinstance(error, OfflineModeIsEnabled):
        return "the hub cannot be reached: HF_HUB_OFFLINE is set; unset it to upload"
    if isinstance(error, LocalTokenNotFoundError):
        return f"the hub needs a login to write to {repo_id}: {LOGIN}"
    if isinstance(error, HfHubHTTPError):
        status, said = error.response.status_code, " ".join((error.server_message or "").split())[:200]
        answer = f"HTTP {status}" + (f": {said}" if said else "")
        if status in (401, 403, 404):
            return f"the hub refuses to write to {repo_id} ({answer}); {LOGIN}"
        way_out = "try again later" if status in (408, 429) or status >= 500 else "correct what it names"
        return f"the hub did not take the upload to {repo_id} ({answer}); {way_out}"
    return (
        f"the upload to {repo_id} broke off ({type(error).__name__}); check the network, HF_ENDPOINT and HF_TOKEN, "
        "then run the command again: files already there are not sent twice"
    )
