"""What the frozen parts made once: given back bit by bit, never for other content or another model."""

import resource
import signal
import threading
from contextlib import contextmanager

import pytest
import torch

from etchr.sft.cache import DiskCache, MemoryCache, NoCache, image_key

VALUES = {
    "bfloat16": torch.linspace(-3, 3, 60).bfloat16().view(3, 4, 5),
    "float32": torch.linspace(-1e-30, 1e30, 7),
    "scalar": torch.tensor(3.0),
    "transposed": torch.arange(12.0).view(3, 4).T,
    "empty": torch.zeros(0, 4),
}


@pytest.fixture(params=["memory", "disk"])
def cache(request, tmp_path):
    return MemoryCache() if request.param == "memory" else DiskCache(tmp_path / "cache", {"model": 1})


def entries(folder):
    """Every file of a cache but its note."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "cache.json")


def holds(cache, key, value):
    given = cache.get(key)
    return given is not None and torch.equal(given, value)


# ------------------------------------------------------------------------------------------------------- entries


@pytest.mark.parametrize("kind", VALUES)
def test_what_is_put_is_given_back_bit_by_bit(cache, kind):
    value = VALUES[kind]
    assert cache.get("a") is None
    cache.put("a", value)
    given = cache.get("a")
    assert given.dtype == value.dtype
    assert torch.equal(given, value)
    assert cache.get("b") is None


def test_an_entry_is_independent_of_what_was_put_and_of_what_was_given(cache):
    value = torch.zeros(3)
    cache.put("a", value)
    value += 1
    given = cache.get("a")
    assert torch.equal(given, torch.zeros(3))
    given += 2
    assert holds(cache, "a", torch.zeros(3))


def test_a_later_value_takes_the_place_of_an_earlier_one(cache):
    cache.put("a", torch.zeros(3))
    given = cache.get("a")
    cache.put("a", torch.ones(5))
    assert holds(cache, "a", torch.ones(5))
    assert torch.equal(given, torch.zeros(3))


def test_any_prompt_is_a_key(cache):
    keys = ["", " ", "ß\n\0", "../../x", "q" * 10_000, "a", "A"]
    for number, key in enumerate(keys):
        cache.put(key, torch.tensor([number]))
    assert [int(cache.get(key)) for key in keys] == list(range(len(keys)))


def test_no_cache_keeps_nothing():
    cache = NoCache()
    cache.put("a", torch.zeros(1))
    assert cache.get("a") is None


def test_image_keys_tell_bytes_size_and_way_apart():
    keys = [image_key(*parts) for parts in ((b"a", (1, 23), "t"), (b"b", (1, 23), "t"), (b"a", (12, 3), "t"))]
    keys.append(image_key(b"a", (1, 23), "c"))
    assert len(set(keys)) == 4
    assert image_key(b"a", (1, 23), "t") == keys[0]


# ---------------------------------------------------------------------------------------------------------- disk


def test_entries_are_there_for_the_next_run(tmp_path):
    DiskCache(tmp_path, {"model": 1, "layers": (1, 2)}).put("a", VALUES["bfloat16"])
    assert holds(DiskCache(tmp_path, {"layers": [1, 2], "model": 1}), "a", VALUES["bfloat16"])


def test_an_entry_under_the_path_of_another_key_is_not_returned(tmp_path):
    cache = DiskCache(tmp_path, {})
    cache.put("a", torch.zeros(3))
    (a,) = entries(tmp_path)
    cache.put("b", torch.ones(3))
    (b,) = set(entries(tmp_path)) - {a}
    b.write_bytes(a.read_bytes())
    assert cache.get("b") is None
    assert holds(cache, "a", torch.zeros(3))


def test_an_entry_of_another_model_is_not_returned_however_it_came_there(tmp_path):
    one, two = (DiskCache(tmp_path / str(number), {"model": number}) for number in (1, 2))
    one.put("a", torch.zeros(3))
    two.put("a", torch.ones(3))
    one.folder.rename(tmp_path / "old")
    two.folder.rename(one.folder)
    assert one.get("a") is None
    one.put("a", torch.zeros(3))
    assert holds(one, "a", torch.zeros(3))


DAMAGE = {
    "empty": lambda data: b"",
    "truncated header": lambda data: data[:20],
    "truncated values": lambda data: data[:-4],
    "other bytes": lambda data: b"\xff" * len(data),
    "zeros at the end": lambda data: data[:-4] + bytes(4),
    "a value changed": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "longer": lambda data: data + b"x",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_counts_as_absent_and_is_written_again(tmp_path, damage):
    cache = DiskCache(tmp_path, {})
    cache.put("a", torch.arange(1.0, 100))
    (path,) = entries(tmp_path)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert cache.get("a") is None
    cache.put("a", torch.arange(1.0, 100))
    assert holds(cache, "a", torch.arange(1.0, 100))
    assert entries(tmp_path) == [path]


def test_models_share_a_folder_and_no_entry(tmp_path):
    first, second = DiskCache(tmp_path, {"model": 1}), DiskCache(tmp_path, {"model": 2})
    first.put("a", torch.zeros(3))
    assert second.get("a") is None
    second.put("a", torch.ones(3))
    assert holds(DiskCache(tmp_path, {"model": 1}), "a", torch.zeros(3))
    assert holds(DiskCache(tmp_path, {"model": 2}), "a", torch.ones(3))


def test_many_writers_of_one_key_leave_whole_files(tmp_path):
    """Each with a cache of its own, as processes have.

    A reader gets one of the values that were put, whole; nothing where the file was replaced by another while it read.
    """
    values = [torch.full((20_000,), float(number)) for number in range(4)]
    start, seen, failures = threading.Barrier(4), [], []

    def work(value):
        try:
            start.wait()
            mine = DiskCache(tmp_path / "cache", {"model": 1})
            for _ in range(25):
                mine.put("a", value)
                seen.append(mine.get("a"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(value,)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(seen) == 100
    found = [given for given in seen if given is not None]
    assert all(torch.equal(given, values[int(given[0])]) for given in found)
    last = DiskCache(tmp_path / "cache", {"model": 1}).get("a")
    assert last is not None
    assert torch.equal(last, values[int(last[0])])
    assert len(entries(tmp_path / "cache")) == 1


@contextmanager
def full_disk():
    """Inside, no file may grow past 4 kB, pytest's own log included, so nothing else may happen there."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_is_an_os_error_and_leaves_no_entry(tmp_path):
    cache = DiskCache(tmp_path, {})
    with pytest.raises(OSError, match="cannot write to the cache"), full_disk():
        cache.put("a", torch.zeros(5000))
    assert cache.get("a") is None
    assert entries(tmp_path) == []
    cache.put("b", torch.zeros(5))
    assert cache.get("b") is not None
