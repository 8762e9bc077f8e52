"""The `etchr` command: photographs of any kind, the reader in process and over HTTP, and bad input."""

import json
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from data_prep import procedural_tasks
from data_prep.task import generate
from etchr.cli import COMMANDS, app
from etchr.editor.folder import NANO_BASE
from etchr.editor.klein import KleinEditor
from etchr.http import listening
from etchr.images import open_image
from etchr.nano.reader import Reader
from etchr.serving.chat import build_app
from tests.hub.test_push import ADAPTER_FILES, FakeHub, adapter
from tests.mllm.fake_server import MODEL, FakeImages, FakeServer, dead_url, refusal, serving
from tests.serving import edit_server as serve

ROOT = Path(__file__).parent.parent
PHOTOS = sorted((ROOT.parent / "shared" / "data" / "photos").glob("*.*"))


def etchr(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def chart(tmp_path_factory):
    sample = next(generate(procedural_tasks()["chart"], split="val", num_samples=1, seed=0, size=64))
    path = tmp_path_factory.mktemp("chart") / "chart.png"
    sample.image.save(path)
    return sample, path


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_goes_by_one_name(name):
    """With its own options and help, and its own mistakes."""
    about = COMMANDS[name][1]
    assert about.split(":")[0].split(".")[0] in " ".join(etchr("--help").output.replace("│", " ").split())
    done = etchr(name, "--help")
    assert done.exit_code == 0
    assert "usage:" in done.output
    assert etchr(name, "no_such_option=1").exit_code != 0


def record(out):
    (path,) = out.rglob("record.json")
    return json.loads(path.read_text()), path.parent


def test_ask_shows_verdict_answer_and_where_the_edit_lies(chart, tmp_path):
    sample, path = chart
    done = etchr("ask", "--image", path, "--question", sample.question, "--family", "chart", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    kept, folder = record(tmp_path)
    assert open_image(folder / "edit.png").size == (64, 64)
    assert str(folder / "edit.png") in done.output
    assert f"verdict  {kept['verdict']}" in done.output
    assert f"answer   {kept['answer']}" in done.output
    assert kept["edit"]["prompt"] == f"Draw a red box for the chart question. {sample.question}"


@pytest.mark.parametrize(("bar", "verdict"), [(3, "accepted"), (2, "rejected")])
def test_the_readmes_example(bar, verdict, tmp_path):
    done = etchr(
        "ask", "--image", ROOT / "docs" / "chart.png", "--family", "chart", "--out", tmp_path,
        "--question", "What is the value of the green bar?", "--instruction", f"Red box round the value of bar {bar}.",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    kept, _ = record(tmp_path)
    assert kept["verdict"] == verdict
    assert kept["answer"] == ("1" if verdict == "accepted" else None)


@pytest.fixture(scope="module")
def sideways(tmp_path_factory):
    """A 12-megapixel JPEG that lies on its side, as phones write them."""
    path = tmp_path_factory.mktemp("photo") / "sideways.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to view
    Image.linear_gradient("L").resize((4032, 3024)).convert("RGB").save(path, exif=exif)
    return path


@pytest.mark.parametrize("photo", [None, *PHOTOS], ids=lambda path: path.name if path else "sideways")
def test_photographs_go_through_an_http_endpoint_and_fall_back(photo, sideways, tmp_path):
    photo = photo or sideways
    with serving_reader() as url:
        done = etchr(
            "ask", "--image", photo, "--question", "On which side of the red circle is its dot?", "--choice", "top",
            "--choice", "left", "--base-url", url, "--model", "reader", "--out", tmp_path,
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    kept, folder = record(tmp_path)
    source, edit = open_image(photo), open_image(folder / "edit.png")
    assert edit.width % 16 == edit.height % 16 == 0
    assert (edit.width > edit.height) == (source.width > source.height)  # upright like the source
    assert edit.width / edit.height == pytest.approx(source.width / source.height, rel=0.35)
    assert kept["verdict"] == "rejected"
    assert not kept["used_edit"]
    assert kept["answer"] in ("A", "B")


def test_http_and_in_process_give_the_same_record(chart, tmp_path):
    sample, path = chart
    words = ["ask", "--image", path, "--question", sample.question, "--family", "chart", "--out"]
    etchr(*words, tmp_path / "here")
    with serving_reader() as url:
        etchr(*words, tmp_path / "there", "--base-url", url, "--model", "reader")
    here, there = (record(tmp_path / name)[0] for name in ("here", "there"))
    for key in ("verdict", "verdict_text", "answer", "answer_text", "used_edit", "finish_reasons", "unscored"):
        assert here[key] == there[key]


@contextmanager
def serving_reader():
    with serving(build_app(Reader())) as url:
        yield f"{url}/v1"


def test_edit_writes_a_picture(chart, tmp_path):
    out = tmp_path / "new" / "edit.png"
    done = etchr("edit", "--image", chart[1], "--prompt", "Red box round the value of bar 1.", "--out", out)
    assert done.exit_code == 0, done.output
    assert Image.open(out).size == (64, 64)


@pytest.fixture(scope="module")
def editor_url():
    """The nano editor behind HTTP, under a name of its own."""
    with serving(serve.build_app(KleinEditor.load(NANO_BASE, device="cpu"), "me/nano"), lifespan="on") as url:
        yield f"{url}/v1"


def test_a_remote_editor_draws_what_a_local_one_does(chart, editor_url, tmp_path):
    remote = ["--editor-url", editor_url, "--editor-model", "me/nano"]
    for steps in ([], ["--steps", "3", "--guidance", "2"]):
        words = ["edit", "--image", chart[1], "--prompt", "Red box round the value of bar 1.", *steps, "--out"]
        for out, more in ((tmp_path / "here.png", []), (tmp_path / "there.png", remote)):
            done = etchr(*words, out, *more)
            assert done.exit_code == 0, done.output
        assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()


def test_ask_with_both_editor_and_model_elsewhere(chart, editor_url, tmp_path):
    sample, path = chart
    words = ["ask", "--image", path, "--question", sample.question, "--family", "chart", "--out"]
    etchr(*words, tmp_path / "here")
    with serving_reader() as url:
        more = ["--base-url", url, "--model", "reader", "--editor-url", editor_url, "--editor-model", "me/nano"]
        done = etchr(*words, tmp_path / "there", *more)
    assert done.exit_code == 0, done.output
    (here, here_folder), (there, there_folder) = (record(tmp_path / name) for name in ("here", "there"))
    assert (here_folder / "edit.png").read_bytes() == (there_folder / "edit.png").read_bytes()
    assert there["edit"] == here["edit"] | {"editor": "nano"}
    assert there["answer"] == here["answer"]


def test_further_images_are_references_of_the_first(chart, editor_url, tmp_path):
    _, path = chart
    small = tmp_path / "small.png"
    Image.new("RGB", (32, 48), "red").save(small)
    editor, drawn = KleinEditor.load(NANO_BASE, device="cpu"), set()
    for files in ([path], [path, small], [path, small, path]):
        words = [word for file in files for word in ("--image", file)]
        pictures = [open_image(file) for file in files]
        expected = editor.edit(pictures[:1], ["Red box."], [126], [pictures[1:]])[0].tobytes()
        remote = ["--editor-url", editor_url, "--editor-model", "me/nano"]
        for more in ([], remote):
            done = etchr("edit", *words, "--prompt", "Red box.", "--out", tmp_path / "edit.png", *more)
            assert done.exit_code == 0, done.output
            assert open_image(tmp_path / "edit.png").tobytes() == expected
        drawn.add(expected)
    assert len(drawn) == 3

    ask = ["ask", "--question", "Which bar is red?", "--instruction", "Red box.", "--out", tmp_path / "ask"]
    with FakeServer.running() as server:
        endpoint = server.endpoint()
        done = etchr(*ask, "--image", path, "--image", small, "--base-url", endpoint.base_url, "--model", MODEL)
        assert done.exit_code == 0, done.output
        shown = [part for part in endpoint.requests[-1]["messages"][0]["content"] if part["type"] == "image_url"]
    assert len(shown) >= 2
    assert f"source   {small} (32x48)" in done.output
    for words, message in (
        ([*ask, "--image", path, "--image", small], "the embedded reader knows questions about one picture only"),
        (["edit", "--prompt", "x", *["--image", path] * 5], "--image is given 5 times; an edit takes 4 pictures"),
    ):
        done = etchr(*words)
        assert done.exit_code == 1
        assert done.output.startswith(f"etchr: {message}")


def test_a_remote_editor_that_fails_is_one_sentence(chart, tmp_path):
    with FakeServer.running() as server:
        endpoint = server.endpoint(always=refusal(400, "no such model"), kind=FakeImages)
        remote = ["--editor-url", endpoint.base_url, "--editor-model", MODEL]
        for command in (["edit", "--prompt", "x"], ["ask", "--question", "What colour is the car?"]):
            done = etchr(*command, "--image", chart[1], *remote, "--out", tmp_path / command[0])
            assert done.exit_code == 1
            last = done.output.strip().splitlines()[-1]
            assert last.startswith("etchr: ")
            assert f"{MODEL} at {endpoint.base_url} answered HTTP 400: no such model" in last


def test_serve_says_where_serves_and_ends(chart, tmp_path):
    command = [sys.executable, "-m", "etchr.cli", "serve", "--port", "0", "--name", "nano", "--steps", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            said = server.stdout.readline().split()
            assert said[:3] == ["serving", "nano", "at"], server.stderr.read()
            words = ["edit", "--image", chart[1], "--prompt", "Red box round the value of bar 1.", "--out"]
            done = etchr(*words, tmp_path / "there.png", "--editor-url", said[3], "--editor-model", "nano")
            assert done.exit_code == 0, done.output
            etchr(*words, tmp_path / "here.png", "--steps", "2")
            server.send_signal(signal.SIGINT)
            assert "Traceback" not in server.communicate(timeout=30)[1]
        finally:
            server.kill()  # or the end of this block would wait for it for ever
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()


def test_a_server_takes_connections_when_it_says_where_it_is(monkeypatch):
    def run(app, listener):
        socket.create_connection(listener.getsockname(), timeout=5).close()

    monkeypatch.setattr(listening, "run", run)
    done = etchr("serve", "--port", "0")
    assert (done.exit_code, done.exception) == (0, None)
    assert done.stdout.startswith("serving")


def test_bad_input_is_one_sentence(chart, tmp_path):
    path = chart[1]
    text = tmp_path / "notes.png"
    text.write_text("not a picture")
    question = ["--question", "What is the value of the green bar?"]
    url, host = dead_url(), ["--model", "m", "--out", tmp_path / "x"]
    draw, remote = ["edit", "--image", path, "--prompt", "x"], ["--editor-url", url, "--editor-model", "m"]
    for words, message in [
        (["ask", "--image", tmp_path / "no.png", *question], "no image file at"),
        (["ask", "--image", text, *question], "not an image"),
        (["ask", "--image", path, *question, "--family", "sudoku"], "unknown task family 'sudoku'"),
        (["ask", "--image", path, *question, "--editor", tmp_path / "none"], "no editor folder at"),
        (["ask", "--image", path, *question, "--editor", tmp_path], "no model_index.json"),
        (["ask", "--image", path, *question, "--base-url", url], "--base-url needs --model"),
        (["ask", "--image", path, *question, "--base-url", url, *host], url.split("//")[1].split("/")[0]),
        (["ask", "--image", path, *question, "--editor-url", url], "--editor-url and --editor-model, the name"),
        ([*draw, "--editor-model", "m"], "--editor-url and --editor-model, the name"),
        ([*draw, *remote], url.split("//")[1].split("/")[0]),
        ([*draw, *remote, "--lora", "l"], "in the place of --editor and --lora"),
        ([*draw, *remote, "--editor", "e"], "in the place of --editor and --lora"),
        ([*draw, *remote, "--steps", "0"], "num_inference_steps=0"),
        ([*draw, *remote, "--editor-api-key-env", "a key"], "NAME of an environment"),
        ([*draw, "--lora", tmp_path / "l"], "no LoRA file at"),
        (["serve", "--editor", tmp_path / "none"], "no editor folder at"),
        (["serve", "--host", "no.such.host.invalid"], "lets others ask: put a key for them into ETCHR_API_KEY first"),
        (["ask", "--image", path, *question, "--router", tmp_path / "r.yaml"], "no router file at"),
        (["ask", "--image", path, *question, "--steps", "0"], "num_inference_steps=0"),
        (["merge", "--base", tmp_path, "--lora", path, "--out", tmp_path / "m"], "model_index.json"),
        (["export", "--lora", tmp_path / "none", "--out", tmp_path / "e.safetensors"], "none"),
    ]:
        done = etchr(*words)
        assert done.exit_code == 1, (words, done.output)
        last = done.output.strip().splitlines()[-1]
        assert last.startswith("etchr: "), done.output
        assert message in last
        assert "Traceback" not in done.output


@pytest.mark.parametrize("public", [False, True])
def test_push_lists_the_files_and_then_prints_the_url(public, tmp_path):
    hub, words = FakeHub(), ["--public"] if public else []
    folder = adapter(tmp_path / "a", "license: other\nlicense_name: flux-non-commercial-license")
    done = CliRunner().invoke(app, ["push", str(folder), "me/it", "--message", "First", *words], obj=hub)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert {line.split()[-1] for line in lines[:3]} == ADAPTER_FILES
    assert "   2.00B  training.json" in lines
    assert lines[3] == f"3 files to me/it, {'public' if public else 'private'}"
    assert ("flux-non-commercial-license: " in lines[4]) == public
    assert len(lines) == 5 + public
    assert lines[-1] == "https://huggingface.co/me/it"
    assert (hub.message, hub.private) == ("First", {"me/it": not public})


def test_a_public_apache_adapter_is_pushed_without_a_word_on_its_licence(tmp_path):
    done = CliRunner().invoke(app, ["push", str(adapter(tmp_path / "a")), "me/it", "--public"], obj=FakeHub())
    assert done.exit_code == 0, done.output
    assert "licence" not in done.output


def test_a_push_that_cannot_be_is_one_sentence(tmp_path):
    hub, folder = FakeHub(me__it=False), adapter(tmp_path / "a")
    for words, message in [
        ([tmp_path / "none", "me/it"], "no folder at"),
        ([folder, "it"], "give owner/name"),
        ([folder, "me/it"], "the repository exists and is public"),
        ([folder, "me/new", "--message", ""], "the message of the upload is empty"),
    ]:
        done = CliRunner().invoke(app, ["push", *map(str, words)], obj=hub)
        assert done.exit_code == 1, (words, done.output)
        last = done.output.strip().splitlines()[-1]
        assert last.startswith("etchr: "), done.output
        assert message in last
        assert "Traceback" not in done.output
    assert hub.uploaded == {}


def test_help_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-m", "etchr.cli", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert "ask" in done.stdout
    code = "import sys, etchr.cli; assert not {'torch', 'PIL', 'hydra', 'openai', 'starlette'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
