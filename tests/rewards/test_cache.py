"""Scores on disk: what is kept, read back, torn, damaged and pruned."""

import pytest
from PIL import Image

from etchr.rewards.cache import RewardCache, score_key
from etchr.rewards.score import Score
from tests.rewards.fakes import EDIT


def lines(folder, rank=0):
    return (folder / f"rewards{f'.{rank}' if rank else ''}.jsonl").read_bytes().splitlines()


def test_a_key_names_sample_pixels_and_seed():
    other = EDIT.copy()
    other.putpixel((63, 63), (255, 0, 1))
    wide = Image.new("RGB", (128, 32), "red")
    names = {score_key("s", EDIT, 1), score_key("s", EDIT, 2), score_key("t", EDIT, 1), score_key("s", other, 1)}
    assert len(names | {score_key("s", wide, 1)}) == 5
    assert score_key("s", EDIT.copy(), 1) == score_key("s", EDIT, 1)


def test_scores_come_back_whoever_wrote_them(tmp_path):
    first, second = RewardCache(tmp_path, 0), RewardCache(tmp_path, 1)
    first.put("a", Score(0.5, 1.0), 3)
    second.put("b", Score(0.0, None), 4)
    assert first.get("a") == Score(0.5, 1.0)
    assert first.get("b") is None
    first.close()
    second.close()
    after = RewardCache(tmp_path, 5)
    assert (after.get("a"), after.get("b"), len(after)) == (Score(0.5, 1.0), Score(0.0, None), 2)
    assert not (tmp_path / "rewards.5.jsonl").exists()


def test_a_missing_score_is_not_kept(tmp_path):
    cache = RewardCache(tmp_path, 0)
    cache.put("a", Score(0.5, None, "down"), 1)
    assert cache.get("a") is None
    assert not (tmp_path / "rewards.jsonl").exists()


def test_a_torn_last_line_was_never_written(tmp_path):
    cache = RewardCache(tmp_path, 0)
    cache.put("a", Score(0.5, 1.0), 1)
    cache.put("b", Score(1.0, 1.0), 1)
    cache.close()
    path = tmp_path / "rewards.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    again = RewardCache(tmp_path, 0)
    assert (again.get("a"), again.get("b")) == (Score(0.5, 1.0), None)
    again.put("b", Score(0.0, 1.0), 1)
    again.close()
    assert len(lines(tmp_path)) == 2
    assert RewardCache(tmp_path, 0).get("b") == Score(0.0, 1.0)


@pytest.mark.parametrize(
    "line",
    [b"3", b"{}", b'{"key": 1, "iteration": 1}', b'{"key": "a", "iteration": "1"}', b"junk",
     b'{"key": "a", "iteration": 1, "guidance": 7}'],
)  # fmt: skip
def test_a_damaged_line_is_named_before_anything_is_asked(tmp_path, line):
    (tmp_path / "rewards.2.jsonl").write_bytes(line + b"\n")
    with pytest.raises(ValueError, match=r"rewards\.2\.jsonl holds a"):
        RewardCache(tmp_path, 0)


def test_pruning_forgets_earlier_iterations_in_memory_and_in_the_own_file(tmp_path):
    other = RewardCache(tmp_path, 1)
    other.put("c", Score(0.5, 0.5), 1)
    other.close()
    cache = RewardCache(tmp_path, 0)
    for key, iteration in (("a", 1), ("b", 2), ("d", 3)):
        cache.put(key, Score(1.0, 1.0), iteration)
    cache.prune(2)
    assert [key for key in "abcd" if cache.get(key)] == ["b", "d"]
    assert len(lines(tmp_path)) == 2
    assert len(lines(tmp_path, 1)) == 1  # its own process prunes it
    cache.put("e", Score(1.0, 1.0), 4)
    cache.close()
    again = RewardCache(tmp_path, 0)
    assert [key for key in "abcde" if again.get(key)] == ["b", "c", "d", "e"]


def test_pruning_what_is_not_there_writes_nothing(tmp_path):
    cache = RewardCache(tmp_path / "new", 0)
    cache.prune(5)
    assert not (tmp_path / "new").exists()
    cache.put("a", Score(1.0, 1.0), 5)
    before = (tmp_path / "new" / "rewards.jsonl").stat().st_ino
    cache.prune(5)
    assert (tmp_path / "new" / "rewards.jsonl").stat().st_ino == before
    cache.close()
