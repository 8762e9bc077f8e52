"""report.html: self-contained, and safe whatever questions, answers and models say."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from etchr.images import from_data_uri
from etchr.sample import EditSample, write_parquet
from evaluation.report import page
from evaluation.settings import SystemConfig
from tests.evaluation.fakes import Case

HOSTILE = "</script><script>alert(1)</script><!--<script>&lt;\u2028\u2029<img src=x onerror=alert(1)>{{DATA}}{{TITLE}}"


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and self.scripts:
            self.scripts[-1] += data

    @property
    def data(self):
        return json.loads(self.scripts[0])


@pytest.fixture
def run(new_run):
    return new_run([Case("maze", str(i), edited=f"{HOSTILE} \\boxed{{7}}", source=HOSTILE) for i in range(3)])


def html_of(run, systems):
    run(run.config(systems))
    return (run.out / "report.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_anywhere(run):
    text = html_of(run, {"direct": SystemConfig(), "base_evr": run.edits()})
    seen = Page(text)
    (policy,) = [a["content"] for tag, a in seen.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not [tag for tag, _ in seen.tags if tag in ("link", "iframe", "object", "embed", "base", "img", "form")]
    assert not [a for _, a in seen.tags if {"src", "href", "srcset", "action"} & set(a)]
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|WebSocket|\bimport\(", text)
    assert set(re.findall(r"https?://[^\s\"']*", text)) <= {"http://www.w3.org/2000/svg"}  # the name of a namespace
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert sink not in text


def test_hostile_text_stays_text(run):
    systems = {"direct": SystemConfig(), "base_evr": run.edits()}
    harmless = [tag for tag, _ in Page(page(run(run.config(systems)), [])).tags]
    seen = Page(html_of(run, systems))
    assert [tag for tag, _ in seen.tags] == harmless  # not one element more
    assert [a for tag, a in seen.tags if tag == "script"] == [{"type": "application/json", "id": "data"}, {}]
    for mark in "<>&\u2028\u2029":
        assert mark not in seen.scripts[0]
    answers = {name: item["answer_text"] for name, item in seen.data["gallery"][0]["runs"].items()}
    assert answers == {"direct": HOSTILE, "base_evr": f"{HOSTILE} \\boxed{{7}}"}


def test_hostile_questions_and_names_of_samples(new_run):
    run = new_run([Case("maze", "0")])
    sample = run.cases[0].sample()
    values = {f: getattr(sample, f) for f in ("family", "task", "image", "edit_image")} | {"meta": sample.meta}
    hostile = EditSample(f"../../{HOSTILE}", question=HOSTILE, answer="7", choices=(HOSTILE, "8"), **values)
    write_parquet([hostile], run.data / "maze" / "test.parquet")

    class Parrot:
        name = HOSTILE

        async def chat(self, messages, **options):
            from etchr.mllm.protocol import Reply

            return [Reply("\\boxed{7}")]

    run.model = Parrot()
    seen = Page(html_of(run, {"oracle": SystemConfig("oracle_edit")}))
    (item,) = seen.data["gallery"]
    assert (item["question"], item["choices"], item["id"]) == (HOSTILE, [HOSTILE, "8"], f"../../{HOSTILE}")
    assert len(seen.scripts) == 2
    assert [path.name for path in (run.out / "edits").iterdir()] == ["oracle"]
    assert all(re.fullmatch(r"[0-9a-f]{20}\.png", path.name) for path in (run.out / "edits" / "oracle").iterdir())


def test_the_gallery_shows_the_pictures_themselves(run):
    seen = Page(html_of(run, {"direct": SystemConfig(), "base_evr": run.edits()}))
    assert seen.data["report"] == json.loads((run.out / "report.json").read_text())
    item = seen.data["gallery"][1]
    sample = run.cases[1].sample()
    assert from_data_uri(item["source"]).tobytes() == sample.image.tobytes()
    for uri in (item["target"], item["runs"]["base_evr"]["image"]):
        assert from_data_uri(uri).tobytes() == sample.edit_image.tobytes()
    assert item["runs"]["direct"]["image"] is None


def test_a_record_cannot_make_the_page_read_other_files(run):
    html_of(run, {"base_evr": run.edits()})
    (run.folder / "secret.png").write_bytes((run.out / run.records("base_evr")["maze-0"]["edit"]["file"]).read_bytes())
    records = run.out / "records" / "base_evr.jsonl"
    records.write_text(re.sub(r'"file": "[^"]*"', '"file": "../secret.png"', records.read_text()))
    seen = Page(html_of(run, {"base_evr": run.edits()}))
    assert [item["runs"]["base_evr"]["image"] for item in seen.data["gallery"]] == [None] * 3


def test_240_samples_with_noisy_edits_stay_under_10_mb(new_run):
    """40 of each of the six tasks, as many as the quickstart shows, with edits as noisy as a small VAE's."""
    tasks = ("perception", "chart", "maze", "frozen_lake", "jigsaw", "view3d")
    run = new_run([Case(task, str(i)) for task in tasks for i in range(40)])
    rng = np.random.default_rng(0)

    class Noisy:
        name = "noisy"

        def fitted_size(self, image):
            return image.size

        def edit(self, images, prompts, seeds):
            noise = rng.normal(0, 4, (len(images), 64, 64, 3))
            return [
                Image.fromarray((np.asarray(image) * 0.9 + part).clip(0, 255).astype(np.uint8))
                for image, part in zip(images, noise, strict=True)
            ]

    run.editor = Noisy()
    text = html_of(run, {"direct": SystemConfig(), "base_instruction": run.edits(), "base_evr": run.edits()})
    assert len(Page(text).data["gallery"]) == 240
    assert len(text.encode()) < 10_000_000


def test_seeds_of_a_method_get_a_row_of_their_mean_and_may_be_grouped_later(run):
    html_of(run, {"direct": SystemConfig(), "s0": run.edits(), "s1": run.edits()})
    before = (run.out / "records" / "s0.jsonl").read_bytes()
    grouped = {"direct": SystemConfig(), "s0": run.edits(), "s1": run.edits()}
    grouped["s0"].group = grouped["s1"].group = "ours"
    text = html_of(run, grouped)
    assert (run.out / "records" / "s0.jsonl").read_bytes() == before
    report = json.loads((run.out / "report.json").read_text(encoding="utf-8"))
    assert Page(text).data["report"]["groups"] == report["groups"]
    group, single = report["groups"]["ours"], report["systems"]["s0"]
    assert group["systems"] == ["s0", "s1"]
    assert group["tasks"]["maze"] == group["mean"]["value"] == single["mean"]
    assert group["against"]["value"] == report["paired"]["s0"]["difference"]
    assert group["edits"]["value"] == single["tasks"]["maze"]["edit_correct"]
    assert "| ours | 2 |" in (run.out / "report.md").read_text(encoding="utf-8")
