"""The fit of the reader's confidence: what it recovers, and the command from questions to rules and report."""

import dataclasses

import numpy as np
import pytest

from data_prep.__main__ import main as prepare
from etchr.nano.confidence import Feature, read_rules, sigmoid
from etchr.nano.skills import FEATURES
from evaluation.calibrate.__main__ import main
from evaluation.calibrate.fit import Example, fit_rule, left_out
from evaluation.calibrate.report import Judged, bins, calibration_error, markdown

TRUE = {"share": 6.0, "cost": -20.0}
SIGNED = {"share": Feature(1, ""), "cost": Feature(-1, ""), "idle": Feature(1, "")}


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    found = []
    for number in range(6000):
        features = {"share": rng.uniform(), "cost": rng.uniform(0, 0.3), "idle": rng.uniform()}
        log_odds = 1 + sum(weight * features[name] for name, weight in TRUE.items())
        found.append(Example(features, rng.uniform() < sigmoid(log_odds), f"question {number // 3}"))
    return found


def test_the_fit_recovers_the_weights_that_made_the_data_within_sign_and_penalty(examples):
    rule = fit_rule(examples, SIGNED, l2=0)
    for name, weight in TRUE.items():
        assert rule.weights[name] == pytest.approx(weight, rel=0.1)
    assert abs(rule.weights["idle"]) < 0.3
    values = {"share": 0.5, "cost": 0.1, "idle": 0.5}
    assert rule.confidence(values) == pytest.approx(sigmoid(1 + 3 - 2), abs=0.02)
    assert rule.worst({"share": 1, "cost": 0.3, "idle": 1}) == "cost"

    turned = SIGNED | {"cost": Feature(1, "")}  # a weight of the wrong sign becomes nothing
    assert fit_rule(examples, turned, l2=0).weights["cost"] == 0

    weak, strong = (sum(abs(w) for w in fit_rule(examples, SIGNED, l2).weights.values()) for l2 in (0.001, 0.3))
    assert strong < 0.7 * weak


def test_a_skill_that_never_errs_is_sure_but_not_infinitely(examples):
    always = [dataclasses.replace(example, is_right=True) for example in examples[:50]]
    assert 0.95 < fit_rule(always, SIGNED, 0.01).confidence(always[0].features) < 0.99
    with pytest.raises(ValueError, match="no edit gave a reading to fit on"):
        fit_rule([], SIGNED, 0.01)


def test_confidences_of_questions_that_were_left_out_are_calibrated(examples):
    judged = [
        Judged("maze", "base asked", True, True, example.is_right, False, confidence, guess=0.5)
        for example, confidence in zip(examples, left_out(examples, SIGNED, 0.001, 5), strict=True)
    ]
    assert calibration_error(judged) < 0.02
    assert sum(each.count for each in bins(judged)) == len(examples)


def test_what_the_verdict_pays_is_counted_by_what_would_be_answered():
    edits = [
        Judged("maze", "e", True, is_read, is_right, guess_is_right, confidence, guess=0.3)
        for is_read, is_right, guess_is_right, confidence in [
            (True, True, False, 0.4),  # used, rightly
            (True, False, True, 0.1),  # rejected, and the guess is right
            (True, True, False, 0.2),  # rejected, wrongly
            (False, False, True, 0.0),  # nothing read: a guess in any case
        ]
    ]
    [line] = [line for line in markdown(edits, 2).splitlines() if line.startswith("| e | all |")]
    assert line == "| e | all | 4 | 50.0 | 75.0 | 75.0 | 100.0 |"


def test_the_command_goes_from_questions_to_rules_and_report(tmp_path, capsys):
    data, rules = tmp_path / "data", tmp_path / "rules.yaml"
    prepare(["all", "split=val", "num_samples=8", "seed=3", f"out={data}"])
    words = [f"data={data}", f"out={rules}", f"report={tmp_path}/report", "num_samples=2", "num_made=8", "folds=2"]
    main(words)
    assert "What the verdict pays" in capsys.readouterr().out
    found = read_rules(FEATURES, rules)
    assert found.keys() == FEATURES.keys()
    assert found["maze"].guess == pytest.approx(1 / 10, abs=1e-4)  # of 8 mazes none is guessed; one more of each kind
    assert rules.read_text().startswith("# How sure the embedded reader is")
    assert "base told" in (tmp_path / "report" / "report.md").read_text()
    assert (tmp_path / "report" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_missing_is_said_before_anything_is_drawn():
    for word, said in [
        ("data=nowhere", "no Parquet data at nowhere/perception"),
        ("loras=[nowhere]", "no LoRA file at nowhere"),
    ]:
        with pytest.raises(SystemExit, match=said):
            main([word])
