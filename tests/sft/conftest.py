"""A tiny random klein folder with short settings, and a few pairs of two tasks and two sizes."""

import json
import shutil
from pathlib import Path

import pytest

from data_prep import procedural_tasks
from data_prep.task import generate
from etchr.sample import write_parquet
from tests.editor.conftest import klein_folder  # noqa: F401 - a fixture

SETTINGS = {
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "max_sequence_length": 16,
    "text_encoder_out_layers": [1, 2, 3],
    "max_pixels": 96 * 96,
}


@pytest.fixture(scope="session")
def tiny(klein_folder, tmp_path_factory) -> Path:  # noqa: F811
    """A klein-base folder whose settings keep steps short."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    shutil.copytree(klein_folder, folder)
    (folder / "editor.json").write_text(json.dumps(SETTINGS))
    return folder


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    """A folder with <task>/<split>.parquet: 12 charts of 64 px and 12 perceptions of 96 px; 4 of each to hold out."""
    folder = tmp_path_factory.mktemp("pairs")
    tasks = procedural_tasks(None)
    for name, size in (("chart", 64), ("perception", 96)):
        for split, count in (("train", 12), ("val", 4)):
            samples = generate(tasks[name], split=split, num_samples=count, seed=0, size=size)
            write_parquet(samples, folder / name / f"{split}.parquet")
    return folder
