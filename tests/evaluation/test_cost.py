"""Prices and sums."""

import pytest

from evaluation.cost import DEFAULT_PRICES, Price, cost, read_prices


def record(model="m", calls=2, prompt=1000, completion=500, edit=True, **more):
    usage = {model: {"calls": calls, "prompt_tokens": prompt, "completion_tokens": completion}}
    return {"usage": usage, "seconds": {"edit": 0.5, "reason": 1.0}, "edit": {} if edit else None} | more


def test_sums_and_price_by_hand():
    found = cost([record(), record(edit=False), record(attempts=[1, 2, 3])], {"m": Price(0.5, 2.0)})
    assert found["usage"] == {"m": {"calls": 6, "prompt_tokens": 3000, "completion_tokens": 1500}}
    assert found["seconds"] == {"edit": 1.5, "reason": 3.0}
    assert (found["num_samples"], found["num_edits"]) == (3, 4)
    drawn = [{"role": "assistant", "file": "a"}, {"role": "tool", "file": "b"}, {"role": "assistant"}]
    assert cost([record(edit=False, turns=drawn)])["num_edits"] == 1  # what a model drew; a crop is no edit
    assert found["usd"] == pytest.approx((3000 * 0.5 + 1500 * 2.0) / 1e6, abs=1e-4)


def test_what_judges_take_stands_apart():
    grading = {"j": {"calls": 1, "prompt_tokens": 100, "completion_tokens": 10}}
    found = cost([record(judge_usage=grading), record(), record(judge_usage=grading)], {"m": Price(1, 1)})
    assert found["judging"] == {
        "usage": {"j": {"calls": 2, "prompt_tokens": 200, "completion_tokens": 20}},
        "usd": None,  # it has no price, and what the system costs is known all the same
    }
    assert found["usd"] == pytest.approx(3 * 1500 / 1e6, abs=1e-4)
    assert list(found["usage"]) == ["m"]


def test_no_price_for_a_model_without_one_or_without_counted_tokens():
    for rows in [[record("n")], [record(), record("n")], [record(prompt=0)]]:
        assert cost(rows, {"m": Price(1, 1)})["usd"] is None, rows


def test_price_lists_that_can_and_cannot_be_read(tmp_path):
    assert read_prices()["reader"] == Price(0, 0)
    assert DEFAULT_PRICES.is_file()

    path = tmp_path / "prices.yaml"
    for text, match in [
        ("m: 5", "m must be"),
        ("m: {prompt: 1}", "m must be"),
        ("m: {prompt: x, completion: 1}", "m must be"),
        ("[1]", "must map models to prices"),
        ("m: [", "is not YAML"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=match):
            read_prices(path)
    with pytest.raises(ValueError, match="no file of prices at"):
        read_prices(tmp_path / "none.yaml")
