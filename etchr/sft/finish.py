"""What a finished training leaves: the adapter, its model card, and nothing that cannot be shared."""

from pathlib import Path

from torch import Tensor

from etchr.editor import lora
from etchr.editor.card import AdapterCard, write_card
from etchr.editor.klein import KleinEditor
from etchr.router import Router
from etchr.sft.data import PairData
from etchr.sft.settings import SftConfig
from etchr.training.card import common_facts

MEASURES = ("loss", "val_loss")


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

    card = AdapterCard(
        **common_facts(config.model.base, editor.settings, config.data.prompt, router),
        stage="SFT",
        rank=peft_config.r,
        alpha=peft_config.lora_alpha,
        num_linears=len(weights) // 2,
        num_parameters=sum(tensor.numel() for tensor in weights.values()),
        steps=steps,
        num_pairs=steps * config.global_batch_size,
        data=sorted(set(data.tasks)),
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
    )
    write_card(folder, card)
