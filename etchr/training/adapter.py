"""What a finished training leaves: the adapter with its model card, and nothing that cannot be shared."""

from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from etchr.editor import lora, lora_files
from etchr.editor.folder import EditorSettings
from etchr.hub.cards import AdapterCard, write_card
from etchr.run_folder import whole_folder
from etchr.training.hardware import PACKAGES
from etchr.training.run import Run
from etchr.training.state import TrainState

PIPELINE_OPTIONS = ("text_encoder_out_layers", "max_sequence_length")  # a card names those that are not klein's


def write_adapter(
    folder: Path,
    run: Run,
    state: TrainState,
    weights: dict[str, Tensor],
    *,
    stage: str,
    merged: str | None = None,
    steps: int,
    num_samples: int,
    settings: dict[str, Any],
    metrics: dict[str, float],
) -> None:
    """Write `folder` whole: `weights`, joined with the adapter `merged` where there is one, and the model card.

    `stage`, `steps`, `num_samples` seen, `settings` and `metrics` are what the card says of the training.
    """
    editor, config, inputs = state.editor, run.config, run.inputs
    with whole_folder(folder) as part:
        if merged is None:
            lora.save(editor.transformer, part, weights=weights)
        else:
            lora.save_joined(editor.transformer, part, lora_files.read(merged), weights)
        layers = lora_files.read(part).layers.values()
        usual = EditorSettings()
        options = {name: getattr(editor.settings, name) for name in PIPELINE_OPTIONS}
        card = AdapterCard(
            base=config.model.base,
            stage=stage,
            rank=max(layer.rank for layer in layers),
            alpha=max(layer.scale * layer.rank for layer in layers),
            num_linears=len(layers),
            num_parameters=sum(layer.a.numel() + layer.b.numel() for layer in layers),
            steps=steps,
            num_pairs=num_samples,
            data=sorted(set(inputs.data.tasks)),
            meta_prompts=inputs.fingerprint["data"]["meta_prompts"] if config.data.prompt == "question" else {},
            settings={
                "seed": config.seed,
                **settings,
                "optimizer": f"{config.optim.name}, lr {config.optim.lr:g}, {config.optim.schedule}",
                "base dtype": str(editor.dtype).removeprefix("torch."),
            },
            metrics=metrics,
            num_inference_steps=editor.settings.num_inference_steps,
            guidance_scale=editor.settings.guidance_scale,
            versions={package: metadata.version(package) for package in PACKAGES},
            pipeline_options={name: value for name, value in options.items() if value != getattr(usual, name)},
        )
        write_card(part, card)
