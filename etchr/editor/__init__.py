"""What draws: FLUX.2-klein in all sizes (`klein.py`), an images-edit endpoint (`remote.py`), and whom `EDITORS` names.

Loads without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from etchr.editor.folder import check_folder, named_folder

if TYPE_CHECKING:
    from etchr.editor.protocol import Editor

EDITORS = {  # name, as editor= and --editor take it: module and function; any other word is a klein folder or hub id
    "unedited": "etchr.editor.unedited:load",
}


def check_editor(name: str, lora: str | None = None) -> None:
    """`ValueError` for what is plainly no editor, or takes no LoRA; nothing is loaded."""
    if name not in EDITORS:
        check_folder(named_folder(name))
    elif lora is not None:
        raise ValueError(f"editor {name} takes no LoRA, got {lora}; leave it out, or give a klein folder")


def load_editor(name: str, lora: str | None = None, **settings: Any) -> "Editor":
    """The editor that an option names.

    `settings`: batch_size, num_inference_steps, guidance_scale, max_pixels; what is None or absent is the editor's own.
    """
    check_editor(name, lora)
    if name not in EDITORS:
        from etchr.editor.klein import KleinEditor

        return KleinEditor.load(named_folder(name), lora=lora, **settings)
    module, function = EDITORS[name].split(":")
    made: Editor = getattr(import_module(module), function)(**settings)
    return made
