"""What a finished training leaves: the adapter, its model card, and nothing that cannot be shared."""

from importlib import metadata
from pathlib import Path

from torch import Tensor

from etchr.editor import lora
from etchr.editor.card import AdapterCard, write_card
from etchr.editor.klein import EditorSettings, KleinEditor
from etchr.router import Router
from etchr.runtime import PACKAGES
from etchr.sft.data import PairData
from etchr.sft.settings import SftConfig

MEASURES = ("loss", "val_loss")
PIPELINE_OPTIONS = ("text_encoder_out_layers", "max_sequence_length")  # the card names those that are not klein's


def write_adapter(
    folder: Path,
    config: SftConfig,
    editor: KleinEditor,
    weights: dict[str, Tensor],
    router: Router,
    data: PairData,
    steps: int,
    measures: dict[str, float],
) -> None:
    """Write `pytorch_lora_weights.safetensors` and the model card into `folder`."""
    lora.save(editor.transformer, folder, weights=weights)
    peft_config = editor.transformer.peft_config["default"]
    asked = config.data.prompt == "question"

    def differs(name: str) -> bool:
        return getattr(editor.settings, name) != getattr(EditorSettings(), name)

    card = AdapterCard(
        base=config.model.base,
        stage="SFT",
        rank=peft_config.r,
        alpha=peft_config.lora_alpha,
        num_linears=len(weights) // 2,
        num_parameters=sum(tensor.numel() for tensor in weights.values()),
        steps=steps,
        num_pairs=steps * config.global_batch_size,
        data=sorted(set(data.tasks)),
        meta_prompts={str(family): text for family, text in router.meta_prompts.items()} if asked else {},
        settings={
            "seed": config.seed,
            "global batch": config.global_batch_size,
            "optimizer": f"{config.optim.name}, lr {config.optim.lr:g}, {config.optim.schedule}",
            "warm-up steps": config.optim.warmup_steps,
            "gradient clipping": config.optim.clip,
            "weight average": config.optim.ema,
            "noise levels": config.flow.draw,
            "prompt dropout": config.data.prompt_dropout,
            "geometry": config.data.geometry,
            "base dtype": str(editor.dtype).removeprefix("torch."),
            "adapter dtype": config.adapter.dtype,
        },
        metrics={name: measures[name] for name in MEASURES if name in measures},
        num_inference_steps=editor.settings.num_inference_steps,
        guidance_scale=editor.settings.guidance_scale,
        pipeline_options={name: getattr(editor.settings, name) for name in PIPELINE_OPTIONS if differs(name)},
        versions={package: metadata.version(package) for package in PACKAGES},
    )
    write_card(folder, card)
