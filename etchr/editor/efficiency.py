"""Less memory and less time, for training and inference, mostly through diffusers' own switches.

`checkpoint_blocks`, `compile_blocks` and `use_attention` change how a FLUX.2 transformer runs and nothing about its
weights or their names: adapters attach, save and load as without them. `quantisation` rounds the frozen weights that
`KleinEditor.load` reads. `text_hidden_states` is the text encoder without the layers whose output nobody uses.
"""

import copy
import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

QUANTISATIONS = {"int8": "torchao", "fp8": "torchao", "nf4": "bitsandbytes"}  # name -> the library that does it
# Everything outside the blocks stays as it is: 0.35 of klein 9B's 9 billion weights, shared by all blocks (modulation)
# or between the tokens and the blocks, where rounding costs most.
UNQUANTISED = [
    "time_guidance_embed",
    "double_stream_modulation_img",
    "double_stream_modulation_txt",
    "single_stream_modulation",
    "x_embedder",
    "context_embedder",
    "norm_out",
    "proj_out",
]


def checkpoint_blocks(transformer: Any, every: int) -> None:
    """Recompute blocks in the backward pass instead of keeping their activations.

    `every` 0 recomputes none, 1 every double and single block, n the first and each n-th after it, counted over the
    double and then the single blocks. Gradients stay the same; without gradients nothing is recomputed.
    """
    if not isinstance(every, int) or every < 0:
        raise ValueError(f"every={every!r} must be a whole number: 0 recomputes no block, 1 all, n every n-th")
    if every == 0:
        transformer.disable_gradient_checkpointing()
        return
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    transformer.enable_gradient_checkpointing(functools.partial(_run_block, frozenset(blocks[::every])))


def _run_block(recomputed: frozenset[nn.Module], block: nn.Module, *args: Any) -> Any:
    if block not in recomputed:
        return block(*args)
    return checkpoint(block, *args, use_reentrant=False)


def compile_blocks(transformer: Any, backend: str | None) -> None:
    """Compile the transformer's blocks with `torch.compile`, each kind once; None leaves them as they are.

    Compilation happens at the first forward, and again for the first new image size. Raises `ValueError` for a backend
    that torch does not have.
    """
    if backend is None:
        return
    if backend not in torch._dynamo.list_backends(exclude_tags=()):
        raise ValueError(
            f"torch has no compiler backend {backend!r}; it has {', '.join(torch._dynamo.list_backends())}"
        )
    transformer.compile_repeated_blocks(backend=backend)


def use_attention(transformer: Any, backend: str | None) -> None:
    """Compute attention with one of diffusers' backends; None leaves the current one.

    The backends that quantise (sage...) are for inference: they have no backward pass. Those whose names end in hub
    download a kernel. Raises `ValueError` for a backend that does not exist or is not installed.
    """
    from diffusers.models.attention_dispatch import AttentionBackendName

    if backend is None:
        return
    names = sorted(name.value for name in AttentionBackendName)
    if backend not in names:
        raise ValueError(f"diffusers has no attention backend {backend!r}; it has {', '.join(names)}")
    try:
        transformer.set_attention_backend(backend)
    except RuntimeError as error:  # what diffusers raises for a library that is missing or too old
        raise ValueError(
            f"attention backend {backend!r} cannot be used here ({error}); there are {', '.join(names)}"
        ) from None


def check_quantisation(name: str, device: str) -> None:
    """Raise a `ValueError`, before anything is loaded, unless `name` can be had on `device`."""
    if name not in QUANTISATIONS:
        raise ValueError(f"quantisation={name!r} must be one of {', '.join(QUANTISATIONS)}, or None for none")
    if importlib.util.find_spec(QUANTISATIONS[name]) is None:
        raise ValueError(
            f"quantisation={name!r} needs {QUANTISATIONS[name]}; install it with pip install 'etchr[quant]'"
        )
    if device == "meta":
        raise ValueError(f"quantisation={name!r} needs weights, and there are none on the meta device")
    if name == "nf4" and not device.startswith("cuda"):
        raise ValueError(f"quantisation='nf4' needs a CUDA GPU, not device={device!r}; int8 and fp8 also run on a CPU")


def quantisation(name: str, dtype: torch.dtype) -> Any:
    """diffusers' `PipelineQuantizationConfig` for the linear layers of the transformer's blocks, and nothing else.

    int8 and fp8 are torchao's weight-only kinds: about 1 byte per weight, computed in `dtype`. nf4 is bitsandbytes'
    4 bit normal float, about half a byte (QLoRA, arXiv 2305.14314).
    """
    from diffusers import BitsAndBytesConfig, PipelineQuantizationConfig, TorchAoConfig

    if name == "nf4":
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=list(UNQUANTISED),
        )
    else:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

        kind = {"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig}[name]()
        config = TorchAoConfig(kind, modules_to_not_convert=list(UNQUANTISED))
    return PipelineQuantizationConfig(quant_mapping={"transformer": config})


def check_text_layers(layers: Sequence[int], count: int) -> None:
    """Raise a `ValueError` unless `text_hidden_states` can give `layers` of a text encoder with `count` layers."""
    if not layers or not all(isinstance(layer, int) and 0 <= layer <= count for layer in layers):
        raise ValueError(
            f"text_encoder_out_layers={tuple(layers)} must name layers from 0 to the text encoder's last, {count}"
        )


def text_hidden_states(
    text_encoder: Any, layers: Sequence[int], input_ids: Tensor, attention_mask: Tensor
) -> list[Tensor]:
    """The hidden states (B, L, D) after each of `layers`, as transformers' `output_hidden_states` numbers them.

    0 is the embeddings, k the output of the k-th layer; after the last layer the final norm is applied. Layers past the
    last one asked for do not run, nor does the head: with klein 9B that saves a quarter of the work. `input_ids` and
    `attention_mask` are (B, L).
    """
    decoder = text_encoder.base_model
    total = decoder.config.num_hidden_layers
    # A second face of the same modules, because the number of layers that run is read from the config, and changing
    # the encoder's own would change what is saved. Should a release ignore it, more runs, and the result is the same.
    short = copy.copy(decoder)
    short.config = copy.copy(decoder.config)
    short.config.num_hidden_layers = max(layers)
    kept: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            kept[layer] = output

        return hook

    modules = [decoder.get_input_embeddings(), *decoder.layers]
    handles = [modules[layer].register_forward_hook(keep(layer)) for layer in set(layers)]
    try:
        last = short(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    if total in kept:
        kept[total] = last
    return [kept[layer] for layer in layers]
