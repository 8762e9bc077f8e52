"""The fixtures that several rooms share: a tiny random klein, data for it, an adapter on it; a run of an evaluation.

Nothing heavy is imported before a test asks for it.
"""

import json
import shutil
import signal
from itertools import chain, count
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # what a shell starts behind itself ignores it; tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)

SETTINGS = {
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "max_sequence_length": 16,
    "text_encoder_out_layers": [1, 2, 3],
    "max_pixels": 96 * 96,
}


@pytest.fixture(scope="session")
def klein_folder(tmp_path_factory) -> Path:
    """A klein folder of 1 double and 2 single blocks, width 32; nobody may write into it."""
    from tests.tiny_klein import save_tiny_klein

    return save_tiny_klein(tmp_path_factory.mktemp("model") / "klein")


@pytest.fixture
def transformer():
    """The transformer of `klein_folder`, a fresh copy."""
    from tests.tiny_klein import tiny_transformer

    return tiny_transformer()


@pytest.fixture
def twin():
    """A second fresh copy."""
    from tests.tiny_klein import tiny_transformer

    return tiny_transformer()


@pytest.fixture(scope="session")
def tiny(klein_folder, tmp_path_factory) -> Path:
    """A klein-base folder whose settings keep steps short."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    shutil.copytree(klein_folder, folder)
    (folder / "editor.json").write_text(json.dumps(SETTINGS))
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    """A folder with <task>/<split>.parquet: 12 charts of 64 px and 12 perceptions of 96 px; 4 of each to hold out."""
    from data_prep import procedural_tasks
    from data_prep.task import generate
    from etchr.sample import write_parquet

    folder = tmp_path_factory.mktemp("pairs")
    tasks = procedural_tasks(None)
    for name, size in (("chart", 64), ("perception", 96)):
        for split, number in (("train", 12), ("val", 4)):
            samples = generate(tasks[name], split=split, num_samples=number, seed=0, size=size)
            write_parquet(samples, folder / name / f"{split}.parquet")
    return folder


@pytest.fixture(scope="session")
def stage_one(tiny, tmp_path_factory) -> Path:
    """An adapter on the tiny editor that changes what it draws, as a Stage I run leaves it."""
    import torch

    from etchr.editor import lora
    from etchr.editor.klein import KleinEditor

    editor = KleinEditor.load(tiny, device="cpu")
    lora.attach(editor.transformer, rank=3, alpha=6.0, seed=5)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, parameter in editor.transformer.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return lora.save(editor.transformer, tmp_path_factory.mktemp("stage_one") / "adapter").parent


@pytest.fixture
def new_run(tmp_path):
    """`new_run(cases)` makes an evaluation's `Run`, each in a folder of its own."""
    from tests.evaluation.runs import Run

    folders = chain([tmp_path], map(tmp_path.joinpath, map(str, count(2))))
    return lambda cases: Run(next(folders), cases)
