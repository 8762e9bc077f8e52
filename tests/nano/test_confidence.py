"""The reader's confidence that it would answer right from an edit: high for good and soft ones, low for misleading."""

import asyncio
import dataclasses
import itertools
import math

import pytest
from PIL import Image, ImageFilter

from data_prep import procedural_tasks
from data_prep.task import generate
from etchr.families import TASKS
from etchr.mllm.prompts import answer_prompt, verify_prompt
from etchr.mllm.protocol import user_message
from etchr.mllm.settings import ModelConfig, build_model, model_fingerprint
from etchr.nano import confidence
from etchr.nano.reader import Reader
from etchr.nano.reader import main as serve_reader
from etchr.nano.skills import FEATURES
from tests.nano.test_reader import ask

COUNT = 20


@pytest.fixture(scope="module")
def made():
    return {
        name: list(generate(task, split="train", num_samples=COUNT, seed=5, size=64))
        for name, task in procedural_tasks().items()
    }


def verify(sample, edit, reader=None):
    message = user_message(verify_prompt(sample.question, sample.choices), sample.image, edit)
    [reply] = asyncio.run((reader or Reader()).chat([message]))
    return reply


def confidence_in(sample, edit, reader=None):
    return math.exp(verify(sample, edit, reader).logprobs[1].get("1", -math.inf))


def accepted(sample, edit, reader=None):
    return "\\boxed{1}" in verify(sample, edit, reader).text


def answer_text(sample, *images):
    kind = sample.meta["answer_type"]
    prompt = answer_prompt(sample.question, sample.choices, kind, with_edit=len(images) == 2)
    [reply] = asyncio.run(Reader().chat([user_message(prompt, *images)]))
    return reply.text


def quarters_moved(image, order):
    """An image whose quarter q is what lay in quarter order[q]."""
    half = image.width // 2
    moved = Image.new("RGB", image.size)
    for place, piece in enumerate(order):
        box = [(q % 2 * half, q // 2 * half) for q in (piece, place)]
        moved.paste(image.crop((*box[0], box[0][0] + half, box[0][1] + half)), box[1])
    return moved


@pytest.mark.parametrize("name", TASKS)
def test_it_is_sure_of_ground_truth_edits(made, name):
    found = [confidence_in(sample, sample.edit_image) for sample in made[name]]
    assert sum(found) / COUNT > 0.85
    assert min(found) > 0.5


@pytest.mark.parametrize("name", TASKS)
def test_a_picture_that_was_not_edited_is_rejected_and_nothing_is_read_from_it(made, name):
    for sample in made[name]:
        assert confidence_in(sample, sample.image) == 0
        assert "my guess is" in answer_text(sample, sample.image, sample.image)


def test_a_soft_jigsaw_that_is_read_right_is_accepted(made):
    for sample in made["jigsaw"]:
        soft = sample.edit_image.filter(ImageFilter.GaussianBlur(2))
        assert ask(sample, sample.image, soft) == [True]
        assert accepted(sample, soft)


def test_a_jigsaw_whose_pieces_lie_as_before_or_wrongly_is_rejected(made):
    fooled = 0
    for sample in made["jigsaw"]:
        order = [int(piece) for piece in sample.answer.split("-")]
        shuffled = quarters_moved(sample.edit_image, [order.index(place) for place in range(4)])  # no borders
        assert not accepted(sample, shuffled)
        assert "my guess is" in answer_text(sample, sample.image, shuffled)
        fooled += accepted(sample, quarters_moved(sample.edit_image, (1, 0, 2, 3)))
    assert fooled <= 0.2 * COUNT


@pytest.mark.parametrize("name", ["perception", "chart"])
def test_a_box_round_another_thing_is_rejected(name):
    task = procedural_tasks()[name]
    for sample in generate(task, split="train", num_samples=COUNT, seed=6, size=64):
        colour = sample.question.split(" the ")[-1 if name == "chart" else 1].split(" ")[-2 if name == "chart" else 0]
        for other in ("blue", "green", "yellow", "purple", "orange", "teal"):
            if other != colour:
                asked_otherwise = sample.question.replace(colour, other)
                assert not accepted(_asking(sample, asked_otherwise), sample.edit_image)


def _asking(sample, question):
    assert question != sample.question
    return dataclasses.replace(sample, question=question)


@pytest.mark.parametrize("name", ["maze", "frozen_lake"])
def test_a_path_of_another_scene_is_rejected(made, name):
    pairs = [(a, b) for a, b in itertools.permutations(made[name], 2) if a.answer != b.answer]
    assert sum(accepted(sample, other.edit_image) for sample, other in pairs) <= 0.05 * len(pairs)


def test_a_strict_reader_accepts_less_and_its_log_probabilities_say_so(made):
    sample = made["jigsaw"][0]
    blurred = [sample.edit_image.filter(ImageFilter.GaussianBlur(radius / 2)) for radius in range(1, 20)]
    strict, usual, lenient = (Reader(threshold=each) for each in (0.95, 0.5, 0.05))
    counts = [sum(accepted(sample, edit, reader) for edit in blurred) for reader in (strict, usual, lenient)]
    assert counts == sorted(counts)
    for reader, edit in itertools.product((strict, usual, lenient), blurred):
        assert accepted(sample, edit, reader) == (confidence_in(sample, edit, reader) >= 0.5)


def test_by_default_an_edit_is_accepted_where_it_is_surer_than_a_guess(made):
    guess = confidence.read_rules(FEATURES)["view3d"].guess
    seen = set()
    for sample, radius in itertools.product(made["view3d"][:8], range(20)):
        edit = sample.edit_image.filter(ImageFilter.GaussianBlur(radius / 2))
        sure = confidence_in(sample, edit, Reader(threshold=0.5)) >= guess
        assert accepted(sample, edit) == sure
        seen.add(sure)
    assert seen == {True, False}


def test_the_error_rate_is_mixed_into_the_confidence(made):
    sample = made["view3d"][0]
    sure = confidence_in(sample, sample.edit_image)
    assert confidence_in(sample, sample.edit_image, Reader(error_rate=0.25)) == pytest.approx(0.25 + 0.5 * sure)


# ------------------------------------------------------------------------------------------------------- strength


def test_poor_sight_costs_answers_and_changes_nothing_at_full_resolution(made):
    pairs = [(sample, reader) for sample in itertools.chain(*made.values()) for reader in (None, 64, 16)]
    right = dict.fromkeys((None, 64, 16), 0)
    for sample, resolution in pairs:
        right[resolution] += ask(sample, sample.image, sample.edit_image, reader=Reader(resolution=resolution))[0]
    assert right[None] == right[64]
    assert right[16] < 0.85 * right[64]


@pytest.mark.parametrize("name", TASKS)
def test_a_share_of_readings_goes_wrong_at_temperature_zero(name):
    samples = list(generate(procedural_tasks()[name], split="train", num_samples=80, seed=8, size=64))
    reader = Reader(misread_rate=0.3, seed=1)
    right = [ask(sample, sample.image, sample.edit_image, reader=reader)[0] for sample in samples]
    assert right == [ask(sample, sample.image, sample.edit_image, reader=reader)[0] for sample in samples]
    assert 0.55 * 80 <= sum(right) <= 0.85 * 80
    other = Reader(misread_rate=0.3, seed=2)
    assert right != [ask(sample, sample.image, sample.edit_image, reader=other)[0] for sample in samples]
    assert [verify(s, s.edit_image, reader).text for s in samples] == [verify(s, s.edit_image).text for s in samples]


def test_the_options_reach_the_reader_and_its_fingerprint():
    options = {"resolution": 40, "misread_rate": 0.1, "threshold": 0.6}
    reader = build_model(ModelConfig(**options))
    assert isinstance(reader, Reader)
    assert {name: getattr(reader, name) for name in options} == options
    assert reader.name == "reader(resolution=40,misread_rate=0.1,threshold=0.6,seed=0)"
    usual = model_fingerprint(ModelConfig())
    for name, value in options.items():
        assert model_fingerprint(ModelConfig(**{name: value})) != usual
    http = ModelConfig(kind="http", model="m", base_urls=["http://127.0.0.1:1/v1"])
    assert not set(options) & set(model_fingerprint(http))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"misread_rate": 1.5}, "misread_rate=1.5 must lie between 0 and 1"),
        ({"threshold": 0.0}, "threshold=0.0 must lie above 0 and below 1"),
        ({"resolution": 4}, "resolution=4 must be at least 16 px, or null"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said):
    for make in (Reader, ModelConfig):
        with pytest.raises(ValueError, match=said):
            make(**options)


def test_the_server_takes_them_as_flags_and_refuses_them_in_one_line(capsys):
    with pytest.raises(SystemExit):
        serve_reader(["--resolution", "4"])
    assert "resolution=4 must be at least 16 px" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------- rules


def test_the_kept_rules_weigh_every_feature_in_its_direction_only():
    rules = confidence.read_rules(FEATURES)
    for skill, features in FEATURES.items():
        for name, feature in features.items():
            assert rules[skill].weights[name] * feature.sign >= 0


def test_rules_are_part_of_what_decides_a_readers_replies(monkeypatch, tmp_path):
    before = model_fingerprint(ModelConfig())
    other = tmp_path / "confidence.yaml"
    other.write_text(confidence.RULES_FILE.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    monkeypatch.setattr(confidence, "RULES_FILE", other)
    assert model_fingerprint(ModelConfig()) != before


def test_rules_are_written_as_they_are_read(tmp_path):
    rules = confidence.read_rules(FEATURES)
    (tmp_path / "rules.yaml").write_text(confidence.rules_text(rules, "How it was made"), encoding="utf-8")
    assert confidence.read_rules(FEATURES, tmp_path / "rules.yaml") == rules


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jigsaw: {bias: 0}", "must hold perception, .*, got jigsaw; fit it anew: python -m evaluation.calibrate"),
        ("[", "cannot read the reader's confidence from"),
        ("", "got nothing of the kind"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(tmp_path, text, said):
    path = tmp_path / "confidence.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        confidence.read_rules(FEATURES, path)


def test_other_features_than_the_skill_measures_are_named(tmp_path):
    path = tmp_path / "confidence.yaml"
    path.write_text(confidence.RULES_FILE.read_text(encoding="utf-8").replace(" seam:", " glue:"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"jigsaw must weigh match, .*seam.*, got match, .*glue.*; fit it anew"):
        confidence.read_rules(FEATURES, path)
