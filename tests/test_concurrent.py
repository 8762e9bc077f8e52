"""Work on many things: bounded, in order, stopped by the first error."""

import asyncio

import pytest

from etchr.concurrent import for_each


def test_a_bounded_number_is_at_work_and_all_is_done():
    for limit, count in ((1, 5), (3, 10), (8, 2), (4, 0)):
        begun, at_work, most = [], set(), 0

        async def work(item, begun=begun, at_work=at_work):
            nonlocal most
            begun.append(item)
            at_work.add(item)
            most = max(most, len(at_work))
            await asyncio.sleep(0)
            at_work.remove(item)

        asyncio.run(for_each(work, iter(range(count)), limit))
        assert begun == list(range(count))
        assert most == min(limit, count)


def test_the_first_error_stops_the_rest_and_comes_out_as_it_is():
    begun, cancelled = [], []

    async def work(item):
        begun.append(item)
        if item == 2:
            raise ValueError("two")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    with pytest.raises(ValueError, match="two"):
        asyncio.run(for_each(work, range(100), 3))
    assert (begun, sorted(cancelled)) == ([0, 1, 2], [0, 1])
