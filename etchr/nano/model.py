"""The nano FLUX.2-klein: shapes and initialisation of a model that a laptop CPU can train.

All parts are diffusers' and transformers' own classes. Sizes and choices follow measurements on two CPU cores; what
they are for is said beside each.
"""

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from etchr.editor.folder import EditorSettings
from etchr.editor.klein import KleinEditor

SETTINGS = EditorSettings(
    num_inference_steps=4,  # edits match as often as with 8: what is wanted leaves nothing to chance
    guidance_scale=1.0,
    max_sequence_length=28,
    text_encoder_out_layers=(0, 1, 2),  # the embeddings themselves, and what random layers mix of neighbours
    max_pixels=64 * 64,
)
# Fixed shift of the noise levels; the dynamic one is made for a thousand tokens and more. Latents of small pictures
# show their layout through much noise: what is drawn is decided near pure noise, and there most levels must lie.
SHIFT = 12.0
PAD = "<|endoftext|>"
# Digits, cells (maze, lake) and placed pieces are one token each: the pre-tokenizer would part letters from digits.
_ATOMS = [
    *"0123456789",
    *(f"{column}{row}" for column in "abcdef" for row in range(1, 7)),
    *(f"{column}{row}" for column in "ABCD" for row in range(1, 5)),
    *(f"{place}{piece}" for place in ("UL", "UR", "LL", "LR") for piece in range(4)),
]
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}<|im_end|>"


def build_tokenizer(prompts: Sequence[str]) -> Any:
    """A byte-level BPE tokenizer of Qwen2's class, trained on `prompts`; bytes it has not seen still encode."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Qwen2TokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=[PAD, "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(sorted(set(prompts)), trainer)
    learned = json.loads(core.to_str())["model"]
    tokenizer = Qwen2TokenizerFast(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        unk_token=PAD,
        eos_token="<|im_end|>",
        pad_token=PAD,
        padding_side="right",
    )
    tokenizer.add_tokens([AddedToken(word, lstrip=True, single_word=True, normalized=False) for word in _ATOMS])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_text_encoder(vocab_size: int) -> Any:
    """A random Qwen3 whose hidden states tell tokens and their neighbours apart; it is never trained."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocab_size,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=512,
            tie_word_embeddings=True,
        )
    )
    for name, weight in model.named_parameters():
        if "embed_tokens" in name:
            nn.init.normal_(weight, std=1.0)
        elif weight.ndim == 2:
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    return model.eval().requires_grad_(False)


def build_vae() -> Any:
    """A VAE that shrinks by 4; with the 2x2 patches of klein one token covers 8x8 pixels."""
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 48),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    for name, weight in vae.named_parameters():
        if name.endswith("conv2.weight"):  # every residual block starts as the identity
            nn.init.zeros_(weight)
    return vae


def build_transformer() -> Any:
    """A one-million-weight `Flux2Transformer2DModel`, initialised so that it starts as a pass-through."""
    from diffusers import Flux2Transformer2DModel

    model = Flux2Transformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=1,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=3,
        joint_attention_dim=192,
        timestep_guidance_channels=64,
        mlp_ratio=3.0,
        axes_dims_rope=(4, 12, 12, 4),
        rope_theta=100,
        guidance_embeds=False,
    )
    with torch.no_grad():
        nn.init.orthogonal_(model.x_embedder.weight)
        model.proj_out.weight.copy_(model.x_embedder.weight.T)
        for name, weight in model.named_parameters():
            if "modulation" in name or "norm_out" in name:
                weight.mul_(0.2)
        for block in model.transformer_blocks:  # queries first attend to keys like themselves
            block.attn.to_k.weight.copy_(block.attn.to_q.weight)
            block.attn.add_k_proj.weight.copy_(block.attn.add_q_proj.weight)
        for block in model.single_transformer_blocks:
            width = block.attn.inner_dim
            fused = block.attn.to_qkv_mlp_proj.weight
            fused[width : 2 * width] = fused[:width]
    return model


def build(prompts: Sequence[str], seed: int) -> KleinEditor:
    """An untrained nano editor."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    torch.manual_seed(seed)  # diffusers and transformers initialise from the global generator
    tokenizer = build_tokenizer(prompts)
    return KleinEditor(
        transformer=build_transformer(),
        vae=build_vae(),
        text_encoder=build_text_encoder(len(tokenizer)),
        tokenizer=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT, use_dynamic_shifting=False),
        settings=SETTINGS,
        name="nano",
    )
