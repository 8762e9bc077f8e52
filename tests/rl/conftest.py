"""The tiny editor and data of the Stage I tests, and a Stage I adapter to start from."""

from pathlib import Path

import pytest
import torch

from etchr.editor import lora
from etchr.editor.klein import KleinEditor
from tests.sft.conftest import klein_folder, pairs, tiny  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def stage_one(tiny, tmp_path_factory) -> Path:  # noqa: F811
    """An adapter on the tiny editor that changes what it draws, as a Stage I run leaves it."""
    editor = KleinEditor.load(tiny, device="cpu")
    lora.attach(editor.transformer, rank=3, alpha=6.0, seed=5)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, parameter in editor.transformer.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return lora.save(editor.transformer, tmp_path_factory.mktemp("stage_one") / "adapter").parent
