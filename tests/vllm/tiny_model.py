"""A Qwen3-VL of two megabytes with random weights, as vLLM loads it: what it says is noise, how it is served is real.

The processors' files are written as JSON, because their classes need torchvision, which the project does without.
"""

import json
from pathlib import Path

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CONTEXT = 32768
OWN_MAX_PIXELS = 512 * 512  # above which the processor scales down by itself; Qwen3-VL-8B-Instruct has 4096 * 4096
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def write_tiny_model(folder: Path, seed: int = 3) -> Path:
    """Write the model into `folder`. With this seed its verdicts and letters differ from question to question."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    ids = _write_tokenizer(folder)
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": max(ids.values()) + 1,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": CONTEXT,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [8, 4, 4],
                "mrope_interleaved": True,
            },
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config).float()
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:  # larger than usual, so that what is said hangs on pictures and words
                weights.normal_(std=0.2)
    model.save_pretrained(folder)
    pixels = {"shortest_edge": 65536, "longest_edge": OWN_MAX_PIXELS}
    shared = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, "processor_class": "Qwen3VLProcessor"}
    shared |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": pixels}
    _write(folder / "preprocessor_config.json", shared | {"image_processor_type": "Qwen2VLImageProcessorFast"})
    _write(folder / "video_preprocessor_config.json", shared | {"video_processor_type": "Qwen3VLVideoProcessor"})
    return folder


def _write_tokenizer(folder: Path) -> dict[str, int]:
    """A tokenizer with a token for every byte; its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT,
        model_max_length=CONTEXT,
    )
    fast.save_pretrained(folder)
    return fast.get_vocab()


def _write(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
