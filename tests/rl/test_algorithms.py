"""An RL algorithm of one's own: a file, and its name in `ALGORITHMS`."""

import pytest

from etchr.rl.algorithms import ALGORITHMS
from etchr.rl.trainer import train
from tests.rl.runs import lines, options

REGRESSION = '''
"""Imitate the edits that were better than the mean of their group, the more so the better they were."""

from etchr.rl.algorithms.nft import Nft
from etchr.rl.algorithms.base import Means


class Regression(Nft):
    def prepare(self):
        self._means = Means("error")

    def loss(self, batch, turn, advantage, iteration, is_first):
        sigma, x, target = self.noised(batch, turn, iteration)
        error = (self.sampler.conditional_velocity(x, sigma, batch.prompt) - target).square().flatten(1).mean(1)
        self._means.note(advantage != 0, error=error)
        return advantage.clamp(min=0) * error

    def about(self):
        return {"objective": "weighted regression"}
'''


def test_an_algorithm_is_one_file_and_its_name(tiny, pairs, tmp_path, monkeypatch):
    (tmp_path / "my_regression.py").write_text(REGRESSION)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ALGORITHMS, "regression", "my_regression:Regression")
    adapter = train(options(tiny, pairs, tmp_path / "run", "objective.kind=regression", "iterations=2"))
    assert "weighted regression" in (adapter / "README.md").read_text()
    for line in lines(tmp_path / "run"):
        assert line["error"] > 0
        assert line["grad_norm"] > 0
        assert "kl" not in line


def test_an_unknown_algorithm_is_named(tiny, pairs, tmp_path):
    with pytest.raises(ValueError, match=r"objective.kind='ppo' must be one of grpo, nft"):
        options(tiny, pairs, tmp_path, "objective.kind=ppo")
