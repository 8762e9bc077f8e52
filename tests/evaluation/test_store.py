"""What a run never pays for twice: replies by all that decides them, edits by all that decides them."""

import asyncio
import json
from dataclasses import replace

import pytest
from PIL import Image

from etchr.editor.batching import EditFailed
from etchr.editor.settings import RemoteConfig
from etchr.mllm.journal import CallJournal, JournaledModel
from etchr.mllm.protocol import GREEDY, CallFailed, Reply, Sampling, user_message
from evaluation.factory import edit_identity, hub_commit, kept_identity
from evaluation.settings import EditingConfig, SystemConfig
from evaluation.store import EditStore
from tests.evaluation.dialogue import SOURCE, Painter

HUB = "org/klein"
OTHER = Image.new("RGB", (64, 64), "green")


class Counting:
    """A model that numbers its replies."""

    name = "counting"

    def __init__(self):
        self.calls, self.fails = 0, False

    async def chat(self, messages, sampling=GREEDY):
        await asyncio.sleep(0)
        if self.fails:
            raise CallFailed("down")
        self.calls += 1
        return [Reply(f"reply {self.calls}.{i}", "stop", 5, 2, ({"a": -0.5},), (OTHER,)) for i in range(sampling.n)]


def journaled(folder, model, identity=None, rank=0):
    return JournaledModel(model, identity or {"model": "m"}, CallJournal(folder, rank))


def ask(model, text="q", *images, **options):
    return asyncio.run(model.chat([user_message(text, *(images or (SOURCE,)))], Sampling(**options)))


# ----------------------------------------------------------------------------------------------------------- calls


def test_a_reply_comes_back_whole_and_without_a_call_unless_its_picture_is_lost(tmp_path):
    inner = Counting()
    first = ask(journaled(tmp_path, inner), n=2)
    second = ask(journaled(tmp_path, inner), n=2)
    assert [replace(reply, images=()) for reply in second] == [replace(reply, images=()) for reply in first]
    assert inner.calls == 1
    assert first[1].text == "reply 1.1"
    assert [reply.images[0].tobytes() for reply in second] == [OTHER.tobytes()] * 2
    assert first[0].logprobs == ({"a": -0.5},)
    assert first[0].seconds is not None

    for number, damage in enumerate([lambda path: path.unlink(), lambda path: path.write_bytes(b"")]):
        folder = tmp_path / str(number)
        inner = Counting()
        ask(journaled(folder, inner))
        (picture,) = folder.glob("*.png")
        damage(picture)
        again = ask(journaled(folder, inner))
        assert (inner.calls, again[0].images[0].tobytes()) == (2, OTHER.tobytes()), number
        assert ask(journaled(folder, inner))[0].text == again[0].text == "reply 2.0", number


def test_all_that_decides_a_reply_is_in_its_name(tmp_path):
    for number, change in enumerate(
        [
            {"text": "other"},
            {"images": (OTHER,)},
            {"images": (SOURCE, SOURCE)},
            {"n": 2},
            {"temperature": 0.5},
            {"max_tokens": 7},
            {"seed": 1},
            {"identity": {"model": "other"}},
        ]
    ):
        folder = tmp_path / str(number)
        inner = Counting()
        ask(journaled(folder, inner))
        options = {key: value for key, value in change.items() if key not in ("text", "images", "identity")}
        model = journaled(folder, inner, change.get("identity"))
        ask(model, change.get("text", "q"), *change.get("images", ()), **options)
        assert inner.calls == 2, change

    inner = Counting()
    model = journaled(tmp_path, inner)

    def part(*texts, role="user"):
        return [{"role": role, "content": [{"type": "text", "text": text} for text in texts]}]

    for messages in (part("ab"), part("a", "b"), part("ab", role="system"), [*part("a"), *part("b")]):
        asyncio.run(model.chat(messages))
    assert inner.calls == 4


def test_a_question_asked_at_the_same_time_or_by_another_process_is_one_call(tmp_path):
    inner = Counting()
    model = journaled(tmp_path / "together", inner)

    async def together():
        return await asyncio.gather(*(model.chat([user_message("q", SOURCE)]) for _ in range(5)))

    replies = asyncio.run(together())
    assert inner.calls == 1
    assert len({reply[0].text for reply in replies}) == 1

    inner = Counting()
    ask(journaled(tmp_path / "processes", inner, rank=0), "a")
    ask(journaled(tmp_path / "processes", inner, rank=1), "b")
    third = journaled(tmp_path / "processes", inner, rank=2)
    assert [ask(third, text)[0].text for text in ("a", "b")] == ["reply 1.0", "reply 2.0"]
    assert sorted(path.name for path in (tmp_path / "processes").glob("*.jsonl")) == ["calls.1.jsonl", "calls.jsonl"]


def test_a_call_that_failed_or_was_not_written_whole_is_not_kept(tmp_path):
    inner = Counting()
    inner.fails = True
    with pytest.raises(CallFailed):
        ask(journaled(tmp_path / "failed", inner))
    inner.fails = False
    assert ask(journaled(tmp_path / "failed", inner))[0].text == "reply 1.0"

    inner = Counting()
    ask(journaled(tmp_path / "torn", inner), "a")
    ask(journaled(tmp_path / "torn", inner), "b")
    path = tmp_path / "torn" / "calls.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    again = journaled(tmp_path / "torn", inner)
    assert [ask(again, text)[0].text for text in ("a", "b")] == ["reply 1.0", "reply 3.0"]
    assert [json.loads(line)["model"] for line in path.read_text().splitlines()] == ["counting"] * 2


# ----------------------------------------------------------------------------------------------------------- edits


def draw(folder, painter, *requests, identity=None):
    """The edits of (image, prompt, seed), asked for together."""

    async def go():
        async with EditStore(identity or {"weights": "a"}, lambda: painter, folder, batch_size=4) as store:
            return await asyncio.gather(*(store.edit(*request) for request in requests))

    return asyncio.run(go())


def test_an_edit_is_made_once_for_all_runs_and_all_who_ask(tmp_path):
    painter = Painter()
    (first,) = draw(tmp_path, painter, (SOURCE, "p", 9))
    (again,) = draw(tmp_path, None, (SOURCE, "p", 9))  # no editor is needed
    assert again.edit.image.tobytes() == first.edit.image.tobytes()
    assert (again.editor, again.edit.seconds, again.file) == ("painter", first.edit.seconds, first.file)
    assert painter.drawn == [("p", 9)]
    note = json.loads(first.file.with_suffix(".json").read_text())
    assert (note["prompt"], note["seed"]) == ("p", 9)

    painter = Painter()
    edits = draw(tmp_path / "together", painter, *[(SOURCE, "p", 9)] * 6)
    assert painter.drawn == [("p", 9)]
    assert len({edit.edit.image.tobytes() for edit in edits}) == 1

    painter = Painter()
    for _ in range(2):
        (made,) = draw(None, painter, (SOURCE, "p", 9))
    assert (len(painter.drawn), made.file) == (2, None)


def test_all_that_decides_an_edit_is_in_its_name(tmp_path):
    given = {"image": SOURCE, "prompt": "p", "seed": 9, "references": ()}
    others = {"image": OTHER}, {"prompt": "q"}, {"seed": 8}, {"identity": {"weights": "b"}}, {"references": [OTHER]}
    for number, change in enumerate(others):
        folder = tmp_path / str(number)
        painter = Painter()
        draw(folder, painter, (SOURCE, "p", 9))
        request = tuple(change.get(name, value) for name, value in given.items())
        draw(folder, painter, request, identity=change.get("identity"))
        assert len(painter.drawn) == 2, change


def test_an_edit_that_failed_or_was_lost_is_not_kept_and_an_editor_that_cannot_be_opened_says_why(tmp_path):
    with pytest.raises(EditFailed, match="no memory"):
        draw(tmp_path, Painter(fails={"p"}), (SOURCE, "p", 9))
    assert not list(tmp_path.rglob("*.png"))

    painter = Painter()
    (made,) = draw(tmp_path, painter, (SOURCE, "p", 9))
    made.file.write_bytes(made.file.read_bytes()[:40])
    (again,) = draw(tmp_path, painter, (SOURCE, "p", 9))
    assert again.edit.image.tobytes() == made.edit.image.tobytes()
    again.file.with_suffix(".json").unlink()  # killed between picture and note
    draw(tmp_path, painter, (SOURCE, "p", 9))
    assert len(painter.drawn) == 3

    async def go():
        def broken():
            raise ValueError("no editor folder at x")

        async with EditStore({}, broken, tmp_path) as store:
            await store.edit(SOURCE, "p", 1)

    with pytest.raises(ValueError, match="no editor folder at x"):
        asyncio.run(go())


# -------------------------------------------------------------------------------------------- weights from the hub


def cached(folder, commit):
    """A hub cache in which the weights lie at a commit."""
    weights = folder / "models--org--klein"
    for path, text in (
        (weights / "refs" / "main", commit),
        (weights / "snapshots" / commit / "model_index.json", "{}"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_weights_on_the_hub_are_known_by_their_commit_and_a_run_by_neither_commit_nor_device(tmp_path):
    assert hub_commit(HUB, tmp_path) is None  # not there yet
    assert hub_commit(HUB, cached(tmp_path, "a" * 40)) == "a" * 40
    assert hub_commit(HUB, cached(tmp_path, "b" * 40)) == "b" * 40  # newer weights by the same name
    assert hub_commit(str(tmp_path), tmp_path) is None  # a folder goes by its content

    system, editing = SystemConfig("evr", HUB), EditingConfig()
    cpu, gpu = (
        kept_identity(system, editing, device, cached(tmp_path / "kept", "a" * 40)) for device in ("cpu", "cuda")
    )
    assert cpu == edit_identity(system, editing) | {"commit": "a" * 40}
    assert gpu == cpu | {"device": "cuda"}
    assert kept_identity(system, editing, "cpu", cached(tmp_path / "kept", "b" * 40)) != cpu
    nano = SystemConfig("evr", "nano")
    assert kept_identity(nano, editing, "cpu", tmp_path / "kept") == edit_identity(nano, editing)
    remote = SystemConfig("evr", remote=RemoteConfig(HUB, ["http://127.0.0.1:9/v1"]))
    assert kept_identity(remote, editing, "cuda", tmp_path / "kept") == edit_identity(remote, editing)
