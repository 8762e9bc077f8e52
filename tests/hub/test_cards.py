"""The model card of an adapter: front matter for the hub, commands that run, and nothing that breaks either."""

import re
import runpy
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from etchr.cli import app
from etchr.editor import lora
from etchr.hub.cards import AdapterCard, write_card

BASE_9B = "black-forest-labs/FLUX.2-klein-base-9B"
BASE_4B = "black-forest-labs/FLUX.2-klein-base-4B"
CARD = AdapterCard(
    base=BASE_9B,
    stage="SFT",
    rank=768,
    alpha=384.0,
    num_linears=144,
    num_parameters=2_089_000_000,
    steps=1500,
    num_pairs=48_000,
    data=["BeichenZhang/ETCHR-SFT-400K", "procedural"],
    meta_prompts={"chart": "Draw a red box for the chart question.", "logic": "Trace the path."},
    settings={"learning_rate": 1e-4, "optimizer": {"name": "adamw", "betas": [0.9, 0.999]}},
    metrics={"validation loss": 0.12345678, "validation pairs": 200},
    num_inference_steps=40,
    guidance_scale=3.5,
    versions={"torch": "2.13.0"},
)
NASTY = "a | b\n| c | d |\n---\nlicense: mit\r\n```\n<b>*x*</b> `y` \x1b[31m\x00 \ud800 {{ z }} \\| \u2028end"


def written(folder: Path, **changes) -> str:
    path = write_card(folder, replace(CARD, **changes))
    assert path == folder / "README.md"
    return path.read_bytes().decode()


def front(text: str) -> dict:
    """The front matter as the hub reads it: what is between the first two lines of dashes."""
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("\n---\n")[0])


def cells(line: str) -> list[str]:
    """The cells of a table row, split as GitHub's Markdown splits it: at pipes without a backslash before them."""
    return [cell.strip() for cell in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]]


def shown(cell: str) -> str:
    """What a reader sees of a cell: a backslash before punctuation is not shown."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell)


def rows(text: str) -> dict[str, str]:
    """Every row of every table."""
    table = [cells(line) for line in text.splitlines() if line.startswith("|")]
    assert all(len(row) == 2 for row in table), table
    return {shown(name): shown(value) for name, value in table}


def block(text: str, language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return found


def test_the_front_matter_of_a_9b_adapter(tmp_path):
    text = written(tmp_path / "new")
    assert front(text) == {
        "base_model": BASE_9B,
        "base_model_relation": "adapter",
        "library_name": "diffusers",
        "pipeline_tag": "image-to-image",
        "tags": ["lora", "flux2", "etchr"],
        "license": "other",
        "license_name": "flux-non-commercial-license",
        "license_link": f"https://huggingface.co/{BASE_9B}/blob/main/LICENSE.md",
    }
    assert text.split("\n\n")[2].startswith("**Non-commercial.**")  # front matter, title, then this
    assert ModelCard(text).data.to_dict() == front(text)


@pytest.mark.parametrize(
    ("base", "licence", "sentence"),
    [
        (BASE_4B, "apache-2.0", "under Apache-2.0."),
        ("some/models/FLUX.2-klein-base-4B", "apache-2.0", "under Apache-2.0."),
        ("nano", "apache-2.0", "under Apache-2.0."),
        ("etchr/nano/nano_base", "apache-2.0", "under Apache-2.0."),
        ("somebody/Klein-9b-stage-one", "other", "FLUX Non-Commercial License"),
        ("merged/klein_base_9B_sft/", "other", "FLUX Non-Commercial License"),
        ("klein-4b-distilled-from-9b", "other", "FLUX Non-Commercial License"),
        ("black-forest-labs/FLUX.2-dev", None, "under the licence of its base, black-forest-labs/FLUX.2-dev."),
        ("somebody/FLUX.2-klein-base-4B", None, "under the licence of its base, somebody/FLUX.2-klein-base-4B."),
        ("somebody/nano", None, "under the licence of its base"),
        ("klein-19B", None, "under the licence of its base"),
    ],
)
def test_the_licence_is_that_of_the_base(base, licence, sentence, tmp_path):
    text = written(tmp_path, base=base)
    assert front(text).get("license") == licence
    assert ("license_name" in front(text)) == (licence == "other")
    assert text.count(sentence) == 2  # at the top and in its own section
    assert ("**Non-commercial.**" in text) == (licence == "other")


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("/data/alice/models/klein-sft", "klein-sft"),
        ("/data/alice/models/klein-sft/", "klein-sft"),
        ("../alice/klein-sft", "klein-sft"),
        ("~/klein-sft", "klein-sft"),
        ("C:\\alice\\klein-sft", "klein-sft"),
        ("alice/models/klein-sft", "klein-sft"),
        ("klein-sft", "klein-sft"),
    ],
)
def test_a_local_base_is_named_without_its_place(base, name, tmp_path):
    text = written(tmp_path, base=base)
    assert not {"base_model", "base_model_relation"} & set(front(text))
    assert "alice" not in text
    assert text.count(name) >= 4  # title, description, both commands


def test_a_folder_of_two_parts_that_is_there_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert front(written(tmp_path, base="alice/klein-sft"))["base_model"] == "alice/klein-sft"
    Path("alice/klein-sft").mkdir(parents=True)
    text = written(tmp_path, base="alice/klein-sft")
    assert "base_model" not in front(text)
    assert "alice" not in text


@pytest.mark.parametrize("base", ["", " ", "/", ".", "..", "some/..", "~"])
def test_a_base_without_a_name_is_refused(base, tmp_path):
    with pytest.raises(ValueError, match="names no model; give a hub id such as org/name or the name of a folder"):
        write_card(tmp_path / "new", replace(CARD, base=base))
    assert not (tmp_path / "new").exists()


def test_the_tables_hold_every_value(tmp_path):
    table = rows(written(tmp_path))
    for name, value in {
        "chart": "Draw a red box for the chart question.",
        "logic": "Trace the path.",
        "stage": "SFT",
        "rank, alpha": "768, 384",
        "adapted linear layers": "144",
        "parameters": "2,089,000,000",
        "optimizer steps": "1,500",
        "training pairs seen": "48,000",
        "data": "BeichenZhang/ETCHR-SFT-400K, procedural",
        "learning_rate": "0.0001",
        "optimizer.name": "adamw",
        "optimizer.betas": "0.9, 0.999",
        "validation loss": "0.123457",
        "validation pairs": "200",
        "torch": "2.13.0",
    }.items():
        assert table[name] == value


def test_places_of_the_machine_stay_out_of_the_tables(tmp_path):
    data, settings = ["/data/alice/pairs", "org/set"], {"out": Path("/data/alice/run-1"), "cache": "~/alice/cache"}
    text = written(tmp_path, data=data, settings=settings)
    assert "alice" not in text
    assert rows(text)["data"] == "pairs, org/set"
    assert (rows(text)["out"], rows(text)["cache"]) == ("run-1", "cache")


def test_nothing_from_outside_breaks_the_card(tmp_path):
    plain = written(tmp_path)
    text = written(
        tmp_path,
        base=NASTY,
        stage=NASTY,
        data=[NASTY],
        meta_prompts={NASTY: NASTY},
        settings={NASTY: NASTY},
        metrics={NASTY: NASTY},
        versions={NASTY: NASTY},
    )
    seen = "a | b | c | d | --- license: mit ``` <b>*x*</b> `y` [31m {{ z }} \\| end"
    assert set(front(text)) == set(front(plain)) - {f for f in front(plain) if f.startswith(("base_", "license"))}
    table = rows(text)
    assert table[seen] == seen
    assert table["stage"] == table["data"] == seen
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [line for line in plain.splitlines() if line.startswith("## ")]
    assert text.count("\n```") == plain.count("\n```") == 4
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u2028]", text)
    compile(block(text, "python"), "card", "exec")
    assert shlex.split(block(text, "bash"))[:3] == ["etchr", "ask", "--editor"]


def test_a_card_without_prompts_metrics_and_options_says_so(tmp_path):
    for prompts in ({}, {"chart": ""}):
        text = written(tmp_path, meta_prompts=prompts, metrics={}, settings={}, versions={})
        assert "no meta-prompt was used in training" in text
        assert "None were recorded." in text
        assert "| option |" not in text
        assert "prompt = 'What does the sign say?'" in block(text, "python")


@pytest.mark.parametrize(("base", "editor"), [(BASE_4B, BASE_4B), ("nano_base", "nano"), ("my klein", "my klein")])
def test_the_command_is_one_that_etchr_understands(base, editor, tmp_path):
    words = shlex.split(block(written(tmp_path, base=base), "bash"))
    group = typer.main.get_command(app)
    assert words[:2] == ["etchr", "ask"]
    context = group.get_command(None, "ask").make_context("ask", words[2:])  # raises for an option it does not have
    options = context.params
    assert (options["editor"], options["lora"], options["family"]) == (editor, "FOLDER", "chart")
    assert (options["steps"], options["guidance"]) == (40, 3.5)


def test_the_python_of_the_card_runs(klein_folder, transformer, tmp_path, monkeypatch):
    lora.attach(transformer, rank=2)
    lora.save(transformer, tmp_path)
    settings = {"num_inference_steps": 1, "guidance_scale": 1.0}
    options = {"text_encoder_out_layers": (1, 2, 3), "max_sequence_length": 64}
    text = written(tmp_path, base=str(klein_folder), pipeline_options=options, **settings)
    monkeypatch.chdir(tmp_path)
    (tmp_path / klein_folder.name).symlink_to(klein_folder)
    Image.new("RGB", (64, 64), "teal").save("photo.jpg")
    code = block(text, "python")
    assert "prompt = 'Draw a red box for the chart question. What does the sign say?'" in code
    Path("card.py").write_text(code.replace("FOLDER", str(tmp_path)))
    names = runpy.run_path("card.py")
    assert Image.open("edit.png").size == (64, 64)
    assert any(".lora_A." in name for name, _ in names["pipeline"].transformer.named_parameters())
    assert names["pipeline"].transformer.dtype == torch.bfloat16


def test_a_card_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    written(tmp_path)
    assert front(written(tmp_path, base=BASE_4B))["base_model"] == BASE_4B
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_nothing_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail(f"the card opened a connection: {args}"))
    written(tmp_path)
