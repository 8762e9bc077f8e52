"""The order of the training pairs: complete, balanced, reproducible."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard

from etchr.training.plan import Plan, share


def make(num_rows=203, num_buckets=5, size=8, seed=3, repeats=None):
    rng = np.random.default_rng(0)
    buckets = rng.integers(0, num_buckets, num_rows)
    return Plan(buckets, 100 * (buckets + 1), np.ones(num_rows) if repeats is None else repeats, size, seed)


def test_an_epoch_holds_every_row_once_except_less_than_one_batch():
    plan = make()
    rows = plan.epoch(0).ravel()
    assert plan.epoch(0).shape == (plan.batches_per_epoch, 8) == (203 // 8, 8)
    assert len(set(rows)) == len(rows) == 200


@pytest.mark.parametrize(("rows", "size"), [(203, 8), (200, 8), (3, 8), (9, 8), (17, 1)])
def test_a_wrapped_epoch_is_that_of_accelerate_s_shards(rows, size):
    """The last round of 8 processes is filled with the first rows of the epoch, as in the released code."""
    made = make(rows, size=size)
    plan = dataclasses.replace(made, bucketing=False, wrap=True)
    batches = plan.epoch(0)
    order = batches.ravel()[:rows].tolist()
    assert sorted(order) == list(range(rows))
    one_each = [[row] for row in order]  # batches of one, which the processes take in turn
    shards = [list(BatchSamplerShard(one_each, size, process)) for process in range(size)]
    assert batches.tolist() == [[row for (row,) in step] for step in zip(*shards, strict=True)]
    assert plan.batches_per_epoch == len(batches) == -(-rows // size)
    mixed = dataclasses.replace(made, wrap=True).epoch(0)  # sizes kept together: every row is there too
    assert mixed.shape == batches.shape
    assert set(mixed.ravel()) == set(range(rows))


def test_epochs_differ_in_order_and_in_what_is_left_out_and_repeat_with_the_seed():
    plan = make()
    first, second = plan.epoch(0), plan.epoch(1)
    assert not np.array_equal(first, second)
    assert set(first.ravel()) != set(second.ravel())
    assert np.array_equal(first, make().epoch(0))
    assert not np.array_equal(first, make(seed=4).epoch(0))


def test_without_bucketing_sizes_mix_freely():
    plan = Plan(*(getattr(make(1000), name) for name in ("buckets", "costs", "repeats")), 8, 3, bucketing=False)
    batches = plan.epoch(0)
    assert len(set(batches.ravel())) == batches.size == 1000
    assert sum(len(set(plan.buckets[batch])) > 1 for batch in batches) > 120


def test_nearly_all_global_batches_hold_one_size():
    plan = make(num_rows=1000)
    mixed = [batch for batch in plan.epoch(0) if len(set(plan.buckets[batch])) > 1]
    assert len(mixed) <= 5  # the remainders of five buckets
    spread = [np.ptp(plan.costs[batch]) for batch in mixed]
    assert max(spread, default=0) <= 200  # sizes that are alike go together


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0, 2.5])
def test_weights_say_how_often_a_row_comes_in_an_epoch(weight):
    repeats = np.where(np.arange(400) < 200, weight, 1.0)
    plan = make(400, num_buckets=1, size=4, repeats=repeats)
    for epoch in (0, 1):
        counts = Counter(plan.epoch(epoch).ravel().tolist())
        heavy = [counts[row] for row in range(200)]
        assert abs(sum(heavy) - 200 * weight) <= 4  # less than one batch is left out
        assert max(heavy) <= np.ceil(weight)
    assert plan.batches_per_epoch == int(200 + 200 * weight) // 4


@pytest.mark.parametrize("num_processes", [1, 2, 4, 8])
def test_processes_share_a_global_batch_evenly(num_processes):
    rng = np.random.default_rng(1)
    buckets = rng.integers(0, 4, 16).tolist()
    costs = [100 * (bucket + 1) for bucket in buckets]
    shares = share(buckets, costs, num_processes, batch_size=2)
    every = [position for mine in shares for batch in mine for position in batch]
    assert sorted(every) == list(range(16))
    assert {sum(map(len, mine)) for mine in shares} == {16 // num_processes}
    assert len({len(mine) for mine in shares}) == 1  # equally many forwards
    loads = [sum(costs[p] for batch in mine for p in batch) for mine in shares]
    assert max(loads) - min(loads) <= max(costs)


def test_a_micro_batch_holds_one_size_and_at_most_batch_size_pairs():
    buckets = [0, 1, 0, 0, 1, 2]
    for batch in share(buckets, [5, 7, 5, 5, 7, 9], 1, batch_size=2)[0]:
        assert len({buckets[p] for p in batch}) == 1
        assert 1 <= len(batch) <= 2


def test_processes_that_need_fewer_forwards_get_empty_ones():
    shares = share([0, 0, 1, 2], [9, 9, 1, 1], 2, batch_size=1)
    assert [len(mine) for mine in shares] == [2, 2]
    shares = share([0, 0, 0, 1], [4, 4, 4, 4], 2, batch_size=2)
    assert sorted(len([b for b in mine if b]) for mine in shares) == [1, 2]
    assert len({len(mine) for mine in shares}) == 1
