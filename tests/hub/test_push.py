"""What `push` sends where: with a fake hub in memory, and with the real HfApi against one on the loopback."""

import base64
import inspect
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelInfo, RepoUrl, constants
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import save_file
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from etchr.editor.folder import NANO_BASE
from etchr.hub.push import plan, push
from tests.mllm.fake_server import dead_url, serving

LORA = "pytorch_lora_weights.safetensors"
ONE_LINE = r"^[^\n]*$"
TOKEN = "a-token-that-nobody-may-see"
online = pytest.mark.skipif(constants.HF_HUB_OFFLINE, reason="HF_HUB_OFFLINE forbids the loopback too")


class FakeHub:
    """A hub in memory with the methods of `HfApi` that a push calls."""

    def __init__(self, **private):
        self.private = {name.replace("__", "/"): value for name, value in private.items()}
        self.calls, self.uploaded, self.message = [], {}, None

    def create_repo(self, repo_id, *, private=None, exist_ok=False):
        assert exist_ok or repo_id not in self.private
        self.calls.append("create_repo")
        self.private.setdefault(repo_id, private)
        return RepoUrl(f"https://huggingface.co/{repo_id}")

    def repo_info(self, repo_id):
        return ModelInfo(id=repo_id, private=self.private[repo_id])

    def upload_folder(self, *, repo_id, folder_path, commit_message=None, allow_patterns=None):
        self.calls.append("upload_folder")
        names = [path.relative_to(folder_path).as_posix() for path in Path(folder_path).rglob("*") if path.is_file()]
        chosen = filter_repo_objects(names, allow_patterns=allow_patterns)
        self.uploaded = {name: (Path(folder_path) / name).read_bytes() for name in chosen}
        self.message = commit_message


@pytest.mark.parametrize("name", ["create_repo", "repo_info", "upload_folder"])
def test_the_fake_hub_has_the_real_hubs_signatures(name):
    real = inspect.signature(getattr(HfApi, name)).parameters
    for parameter in inspect.signature(getattr(FakeHub, name)).parameters.values():
        there = real[parameter.name]
        assert (parameter.kind, parameter.default) == (there.kind, there.default)


def adapter(folder, front="license: apache-2.0"):
    """An adapter folder as a trainer leaves it, with much beside the adapter that is nobody's business."""
    folder.mkdir(parents=True)
    layer = "transformer.transformer_blocks.0.attn.to_q"
    save_file({f"{layer}.lora_A.weight": torch.ones(2, 8), f"{layer}.lora_B.weight": torch.ones(8, 2)}, folder / LORA)
    (folder / "README.md").write_text(f"---\n{front}\n---\n\n# An adapter\n")
    (folder / "training.json").write_text("{}")
    for name in (".env", ".hidden.json", "train.log", "state.pt", "notes.txt", "README.md.part"):
        (folder / name).write_text("private")
    for name in ("checkpoints/7/optimizer.safetensors", "wandb/run.json", "tokenizer/merges.txt", ".cache/a.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("private")
    return folder


ADAPTER_FILES = {LORA, "README.md", "training.json"}


def model(folder):
    shutil.copytree(NANO_BASE, folder)
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    for name in ("vae/notes.txt", "vae/old.bin", "optimizer/state.safetensors", "tokenizer/.secret.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("private")
    return folder


def test_an_adapter_goes_to_a_private_repository_and_nothing_else_does(tmp_path):
    hub = FakeHub()
    folder = adapter(tmp_path / "a[1]*")  # a folder's name is no pattern
    assert push(folder, "me/nano-etchr", api=hub) == "https://huggingface.co/me/nano-etchr"
    assert hub.private == {"me/nano-etchr": True}
    assert set(hub.uploaded) == ADAPTER_FILES
    assert hub.uploaded[LORA] == (folder / LORA).read_bytes()
    assert hub.message == "Upload with etchr push"


def test_a_file_name_is_no_pattern(tmp_path):
    hub = FakeHub()
    folder = adapter(tmp_path / "a")
    (folder / "[w]*.json").write_text("{}")
    push(folder, "me/it", api=hub)
    assert set(hub.uploaded) == ADAPTER_FILES | {"[w]*.json"}


def test_public_and_message(tmp_path):
    hub = FakeHub()
    push(adapter(tmp_path / "a"), "me/it", public=True, message="Longer training", api=hub)
    assert hub.private == {"me/it": False}
    assert hub.message == "Longer training"


def test_a_klein_folder_goes_with_its_components_alone(tmp_path):
    hub = FakeHub()
    folder = model(tmp_path / "klein")
    push(folder, "me/klein", api=hub)
    tracked = {path.relative_to(NANO_BASE).as_posix() for path in NANO_BASE.rglob("*") if path.is_file()}
    assert set(hub.uploaded) == tracked | {"tokenizer/merges.txt"}


def test_an_existing_repository_must_be_as_private_as_asked(tmp_path):
    folder = adapter(tmp_path / "a")
    for there, public, message in [
        (False, False, "is public; push with --public"),
        (True, True, "is private; make it"),
    ]:
        hub = FakeHub(me__it=there)
        with pytest.raises(ValueError, match=message):
            push(folder, "me/it", public=public, api=hub)
        assert "upload_folder" not in hub.calls
    hub = FakeHub(me__it=True)
    push(folder, "me/it", api=hub)  # and again: a repository may be there
    assert set(hub.uploaded) == ADAPTER_FILES


def test_the_plan_has_sizes_and_the_licence_of_the_card(tmp_path):
    folder = adapter(tmp_path / "a", "license: other\nlicense_name: flux-non-commercial-license")
    made = plan(folder, "me/it")
    assert made.sizes == {name: (folder / name).stat().st_size for name in ADAPTER_FILES}
    assert made.licence == "flux-non-commercial-license"
    assert plan(adapter(tmp_path / "b", "license: other"), "me/it").licence == "other"
    assert plan(adapter(tmp_path / "c"), "me/it").licence is None


# --- Refused before any call ----------------------------------------------------------------------------------------


def without(folder, name):
    (folder / name).unlink()
    return folder


def with_text(folder, name, text):
    (folder / name).write_text(text)
    return folder


def linked(folder, name, target):
    (folder / name).symlink_to(target)
    return folder


def listing(folder, **components):
    index = json.loads((folder / "model_index.json").read_text()) | components
    return with_text(folder, "model_index.json", json.dumps(index))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tmp: tmp / "none", "no folder at"),
        (lambda tmp: adapter(tmp / "a") / LORA, "no folder at"),
        (lambda tmp: without(adapter(tmp / "a"), "README.md"), "has no model card README.md"),
        (lambda tmp: adapter(tmp / "a", "license: [other"), "not text with valid YAML front matter"),
        (lambda tmp: without(adapter(tmp / "a"), LORA), f"neither {LORA} nor model_index.json"),
        (lambda tmp: with_text(adapter(tmp / "a"), LORA, "pickle"), "not a readable safetensors file"),
        (lambda tmp: with_text(adapter(tmp / "a"), "model_index.json", "{}"), "not a Flux2KleinPipeline"),
        (lambda tmp: listing(model(tmp / "m"), upscaler=["a", "B"]), "no component folder 'upscaler'"),
        (lambda tmp: listing(model(tmp / "m"), **{"../a": ["a", "B"]}), "no component folder '../a'"),
        (lambda tmp: linked(adapter(tmp / "a"), "more.json", tmp / "outside"), "symlink that leads outside"),
        (lambda tmp: linked(adapter(tmp / "a"), "logs", "../"), "symlink that leads outside"),
        (lambda tmp: linked(adapter(tmp / "a"), "more.json", ".env"), "leads to a file that is not uploaded itself"),
        (lambda tmp: linked(model(tmp / "m"), "vae/x.json", "../tokenizer/.secret.json"), "not uploaded itself"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_before_any_call(make, message, tmp_path):
    (tmp_path / "outside").write_text("{}")
    hub = FakeHub()
    with pytest.raises(ValueError, match=ONE_LINE) as caught:
        push(make(tmp_path), "me/it", api=hub)
    assert message in str(caught.value)
    assert hub.calls == []


def test_a_symlink_to_another_uploaded_file_may_stay(tmp_path):
    hub = FakeHub()
    push(linked(adapter(tmp_path / "a"), "more.json", "training.json"), "me/it", api=hub)
    assert hub.uploaded["more.json"] == b"{}"


@pytest.mark.parametrize(
    "repo_id", ["", "it", "me/", "/it", "me/it/x", "datasets/me/it", "me/i t", "me/it.git", "../it"]
)
def test_a_repository_is_owner_and_name(repo_id, tmp_path):
    hub = FakeHub()
    with pytest.raises(ValueError, match="is no repository; give owner/name"):
        push(adapter(tmp_path / "a"), repo_id, api=hub)
    assert hub.calls == []


def test_an_empty_message_is_refused_before_any_call(tmp_path):
    hub = FakeHub()
    with pytest.raises(ValueError, match="message of the upload is empty"):
        push(adapter(tmp_path / "a"), "me/it", message=" ", api=hub)
    assert hub.calls == []


# --- The real client against a hub on the loopback ------------------------------------------------------------------


def asked_private(request):
    return request["visibility"] == "private" if "visibility" in request else request["private"]


class LoopbackHub:
    """The HTTP routes that a push of small files uses; `refuse` maps a route to (status, body)."""

    def __init__(self, **refuse):
        self.refuse = refuse
        self.created, self.commits, self.tokens = [], [], set()
        self.url = ""

    async def create(self, request):
        self.created.append(await request.json())
        return {"url": f"{self.url}/me/it"}

    async def info(self, request):
        return {"id": "me/it", "private": asked_private(self.created[0])}

    async def validate(self, request):
        return {}

    async def preupload(self, request):
        files = (await request.json())["files"]
        return {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}

    async def commit(self, request):
        self.commits.append([json.loads(line) for line in (await request.body()).splitlines()])
        return {"commitUrl": f"{self.url}/me/it/commit/1", "commitOid": "1"}

    def app(self):
        def route(path, answer, method="POST"):
            async def respond(request):
                self.tokens.add(request.headers.get("authorization"))
                status, body = self.refuse.get(answer.__name__, (200, None))
                return JSONResponse(await answer(request) if body is None else body, status)

            return Route(path, respond, methods=[method])

        return Starlette(
            routes=[
                route("/api/repos/create", self.create),
                route("/api/models/me/it", self.info, "GET"),
                route("/api/validate-yaml", self.validate),
                route("/api/models/me/it/preupload/main", self.preupload),
                route("/api/models/me/it/commit/main", self.commit),
            ]
        )


@contextmanager
def loopback(**refuse):
    hub = LoopbackHub(**refuse)
    with serving(hub.app()) as hub.url:
        yield hub


@online
def test_the_real_client_sends_these_files_and_no_others(tmp_path):
    folder = adapter(tmp_path / "a")
    with loopback() as hub:
        assert push(folder, "me/it", message="First", api=HfApi(hub.url, token=TOKEN)) == f"{hub.url}/me/it"
    (commit,) = hub.commits
    assert commit[0]["value"]["summary"] == "First"
    sent = {item["value"]["path"]: base64.b64decode(item["value"]["content"]) for item in commit[1:]}
    assert sent == {name: (folder / name).read_bytes() for name in ADAPTER_FILES}
    assert hub.created[0]["name"] == "it"
    assert asked_private(hub.created[0]) is True
    assert hub.tokens == {f"Bearer {TOKEN}"}


@online
@pytest.mark.parametrize(
    ("route", "status", "message"),
    [
        ("create", 401, "refuses to write to me/it (HTTP 401: go away); log in with `hf auth login` or set HF_TOKEN"),
        ("create", 403, "refuses to write to me/it (HTTP 403: go away); log in with"),
        ("preupload", 403, "refuses to write to me/it (HTTP 403: go away); log in with"),
        ("create", 400, "did not take the upload to me/it (HTTP 400: go away); correct what it names"),
        ("create", 507, "did not take the upload to me/it (HTTP 507: go away); try again later"),
        ("validate", 400, "was not taken: Invalid metadata in README.md. - no such licence"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence_with_the_way_out(route, status, message, tmp_path):
    body = {"errors": [{"message": "no such licence"}]} if route == "validate" else {"error": "go away"}
    refusals = {route: (status, body)}
    if route == "create":
        refusals["info"] = refusals["create"]  # the client looks whether the repository is there after all
    with loopback(**refusals) as hub, pytest.raises(ValueError, match=ONE_LINE) as caught:
        push(adapter(tmp_path / "a"), "me/it", api=HfApi(hub.url, token=TOKEN))
    assert message in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert hub.commits == []


@online
def test_a_hub_out_of_reach_is_one_sentence(tmp_path):
    api = HfApi(dead_url().removesuffix("/v1"), token=False)
    with pytest.raises(ValueError, match=r"upload to me/it broke off \(ConnectError\); check the network"):
        push(adapter(tmp_path / "a"), "me/it", api=api)


@online
@pytest.mark.parametrize("end", ["\x00", "é"])
def test_a_token_that_no_header_can_hold_is_not_quoted(end, tmp_path):
    with loopback() as hub:
        api = HfApi(hub.url, token=TOKEN + end)
        with pytest.raises(Exception, match=TOKEN if end == "\x00" else "ascii"):
            api.create_repo("me/it")  # what a library says of it
        with pytest.raises(
            ValueError, match=r"broke off \(\w+\); check the network, HF_ENDPOINT and HF_TOKEN"
        ) as caught:
            push(adapter(tmp_path / "a"), "me/it", api=api)
    assert TOKEN not in str(caught.value)
