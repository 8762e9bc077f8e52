"""Downloads from a hub on this machine: exactly the files that are read, where they are looked for."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from evaluation.__main__ import main
from evaluation.benchmarks import BENCHMARKS, find_benchmark
from evaluation.benchmarks.benchmark import LoadOptions
from evaluation.download import download, hub_files
from tests.evaluation.benchmarks import charxiv_files
from tests.evaluation.benchmarks.published import png
from tests.evaluation.hub import Hub
from tests.mllm.fake_server import dead_url

ROOT = Path(__file__).parents[2]
VIEW = "lidingm/ViewSpatial-Bench"


def viewspatial(*names: str) -> dict[str, bytes]:
    """The hub's files: a question about each picture, and the archives."""
    rows = [
        {
            "question_type": "Person perspective - Relative Direction",
            "image_path": [f"ViewSpatial-Bench/{name}"],
            "question": "Where is the cup?",
            "answer": "A. left",
            "choices": "A. left\nB. right",
        }
        for name in names
    ]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, png())
    return {
        "ViewSpatial-Bench.json": json.dumps(rows).encode(),
        "val2017.zip": stream.getvalue(),
        "scannetv2_val.zip": b"not wanted for this column",
        "README.md": b"not wanted",
    }


@pytest.fixture
def hub(tmp_path):
    parquet = (charxiv_files.write_hub(tmp_path / "hub") / "val.parquet").read_bytes()
    sets = {
        VIEW: viewspatial("val2017/1.jpg", "val2017/2.jpg"),
        "princeton-nlp/CharXiv": {"val.parquet": parquet, "test.parquet": b"not wanted", "images.zip": b"not wanted"},
    }
    with Hub(sets) as running:
        yield running


@pytest.fixture
def fetch(hub, tmp_path, monkeypatch):
    """`fetch(name)` downloads from the hub; the folder."""
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")

    def run(name):
        benchmark, folder = find_benchmark(name, tmp_path, tmp_path / "b")
        download(benchmark, hub_files(name, tmp_path / "b"), folder, HfApi(endpoint=hub.url))
        return folder

    return run


def files(folder):
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts
    }


def test_the_wanted_files_arrive_archives_unpacked_and_load(hub, fetch, capsys):
    folder = fetch("charxiv_dq")
    assert files(folder) == {"val.parquet"}
    assert hub.fetched == ["val.parquet"]
    assert len(BENCHMARKS["charxiv_rq"].load(folder, LoadOptions())) == 4
    assert "charxiv_dq: 16 samples in" in capsys.readouterr().out

    folder = fetch("viewspatial")
    assert files(folder) == {"ViewSpatial-Bench.json", "val2017.zip", "val2017/1.jpg", "val2017/2.jpg"}
    samples = BENCHMARKS["viewspatial"].load(folder, LoadOptions())
    assert [samples[i].image.size for i in range(2)] == [(64, 48)] * 2


def test_what_is_there_is_not_fetched_again(hub, fetch):
    fetch("viewspatial")
    fetched = list(hub.fetched)
    folder = fetch("viewspatial")
    assert hub.fetched == fetched
    (folder / "ViewSpatial-Bench.json").unlink()
    fetch("viewspatial")
    assert hub.fetched == [*fetched, "ViewSpatial-Bench.json"]
    (folder / "val2017.zip").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"val2017\.zip is not what the hub has; remove it"):
        fetch("viewspatial")


def test_what_the_hub_refuses_is_one_sentence(hub, fetch, tmp_path):
    hub.gated.add(VIEW)
    for name, match in (
        ("viewspatial", "ViewSpatial-Bench asks for consent: accept its terms"),
        ("vstar", r"127\.0\.0\.1:\d+ has no public data set craigwu/vstar_bench"),
    ):
        with pytest.raises(ValueError, match=match) as caught:
            fetch(name)
        assert "\n" not in str(caught.value)
    del hub.datasets[VIEW]["val2017.zip"]
    with pytest.raises(ValueError, match=r"has no file val2017\.zip any more"):
        fetch("viewspatial")
    assert hub.fetched == []


def test_names_that_lead_out_of_the_folder_and_a_file_in_its_way_are_refused(hub, fetch, tmp_path):
    hub.datasets["craigwu/vstar_bench"] = {
        "direct_attributes/a.json": b"{}",
        "direct_attributes/../../../evil.json": b"{}",
        "relative_position/a.json": b"{}",
    }
    with pytest.raises(ValueError, match=r"names a file that lies outside of it: '.*/\.\./\.\./evil.json'"):
        fetch("vstar")
    assert hub.fetched == []

    (tmp_path / "b" / "viewspatial").mkdir(parents=True)
    (tmp_path / "b" / "viewspatial" / "val2017").write_text("a file")
    with pytest.raises(ValueError, match=r"cannot unpack val2017\.zip: .*; the same command goes on"):
        fetch("viewspatial")


def test_a_server_that_is_down_and_data_that_do_not_fit(tmp_path, hub, fetch):
    benchmark = BENCHMARKS["vstar"]
    with pytest.raises(ValueError, match=r"cannot fetch craigwu/vstar_bench: .*; the same command goes on"):
        download(benchmark, benchmark.hub, tmp_path / "b", HfApi(endpoint=dead_url()))

    hub.datasets[VIEW]["ViewSpatial-Bench.json"] = b"[]"
    with pytest.raises(ValueError, match="has no question of type"):
        fetch("viewspatial")


def test_what_cannot_be_downloaded():
    for words, match in [
        ([], "name what to download: .*charxiv_dq"),
        (["nope"], "no benchmark 'nope'; to be downloaded are: .*charxiv_dq"),
        (["vstar", "nope"], "no benchmark 'nope'"),
        (["mazes", "benchmarks=x/y"], "mazes is not downloaded but made, with: python -m data_prep mazes .*out=x/y"),
        (["maze"], "maze is not downloaded but made, with: python -m data_prep maze"),
    ]:
        with pytest.raises(SystemExit, match=match):
            main(["download", *words])


def test_the_command_fetches_from_the_endpoint_of_the_environment(hub, tmp_path):
    words = [sys.executable, "-m", "evaluation", "download", "charxiv_dq", "charxiv_rq", f"benchmarks={tmp_path / 'b'}"]
    done = subprocess.run(words, cwd=ROOT, env=os.environ | {"HF_ENDPOINT": hub.url}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "b") == {"charxiv/val.parquet"}
    assert "charxiv_rq: 4 samples in" in done.stdout
    assert "it/s" in done.stderr  # a bar of the files
