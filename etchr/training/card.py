"""What the model cards of both stages say alike."""

from importlib import metadata
from typing import Any

from etchr.editor.folder import EditorSettings
from etchr.router import Router
from etchr.runtime import PACKAGES

PIPELINE_OPTIONS = ("text_encoder_out_layers", "max_sequence_length")  # a card names those that are not klein's


def common_facts(base: str, settings: EditorSettings, prompt: str, router: Router) -> dict[str, Any]:
    """Fields of `AdapterCard`: the base, how to edit with it, the meta-prompts if `prompt` used them, the versions."""
    usual = EditorSettings()
    options = {name: getattr(settings, name) for name in PIPELINE_OPTIONS}
    return {
        "base": base,
        "meta_prompts": {str(k): v for k, v in router.meta_prompts.items()} if prompt == "question" else {},
        "num_inference_steps": settings.num_inference_steps,
        "guidance_scale": settings.guidance_scale,
        "pipeline_options": {name: value for name, value in options.items() if value != getattr(usual, name)},
        "versions": {package: metadata.version(package) for package in PACKAGES},
    }
