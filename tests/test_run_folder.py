"""A run's folder: whole files, one writer, one set of options."""

import json
import os
import shutil
import struct
import time

import pytest

from etchr.run_folder import RunFolder, clear_parts, content_digest, whole, whole_folder, write_atomically
from tests.processes import kill_when


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "note.json"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, None)  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["note.json"]


def test_a_folder_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "new" / "folder"
    for name in ("old", "new"):
        with whole_folder(path) as part:
            (part / name).write_text(name)
            (part / "sub").mkdir()
        assert {file.name for file in path.iterdir()} == {name, "sub"}
        with pytest.raises(FileExistsError), whole_folder(path) as part:
            shutil.copytree(path, part)
        assert {file.name for file in path.iterdir()} == {name, "sub"}
        assert os.listdir(path.parent) == ["folder"]


def begin(path, folder):
    with (whole_folder if folder else whole)(path) as part:
        (part / "half" if folder else part).write_text("half of it")
        (path.parent / "begun").touch()
        time.sleep(600)


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_process_left_is_used_again(tmp_path, folder):
    path, begun = tmp_path / "x", tmp_path / "begun"
    kill_when(begun.is_file, begin, path, folder)
    begun.unlink()
    assert not path.exists()
    assert len(os.listdir(tmp_path)) == 1
    with (whole_folder if folder else whole)(path) as part:
        assert not part.exists() or not list(part.iterdir())
        (part / "new" if folder else part).touch()
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("way", [whole, whole_folder])
def test_two_writers_of_one_path_do_not_meet(tmp_path, way):
    path = tmp_path / "x"
    with way(path) as first:
        with way(path) as second:
            assert first != second
            if way is whole:
                first.touch()
                second.touch()
        assert path.exists()
        assert first.exists()
    assert os.listdir(tmp_path) == ["x"]


# -------------------------------------------------------------------------------------------------------- claims


def test_a_folder_goes_on_with_the_same_settings_only(tmp_path):
    folder = RunFolder(tmp_path / "a" / "run")
    assert not folder.exists()
    folder.claim({"seed": 0, "betas": (0.9, 0.99), "data": {"x": 1}})
    assert folder.exists()
    folder.claim({"seed": 0, "betas": [0.9, 0.99], "data": {"x": 1}})
    with pytest.raises(ValueError, match=r"other settings \(data\.x: 1 there, 2 here; seed: 0 there, 1 here\)"):
        folder.claim({"seed": 1, "betas": [0.9, 0.99], "data": {"x": 2}})
    with pytest.raises(ValueError, match=r"data\.y: null there, 2 here"):
        folder.claim({"seed": 0, "betas": [0.9, 0.99], "data": {"x": 1, "y": 2}})
    assert json.loads((folder.path / "run.json").read_text())["data"] == {"x": 1}


def test_what_may_grow_grows_and_stays_what_it_is(tmp_path):
    folder = RunFolder(tmp_path / "run")

    def claim(systems, seed=0):
        folder.claim({"seed": seed, "systems": systems}, may_grow=("systems",))
        return json.loads((folder.path / "run.json").read_text())["systems"]

    assert claim({"a": {"steps": 1}}) == {"a": {"steps": 1}}
    assert claim({"b": {"steps": 2}}) == {"a": {"steps": 1}, "b": {"steps": 2}}
    assert claim({}) == {"a": {"steps": 1}, "b": {"steps": 2}}
    with pytest.raises(ValueError, match=r"systems\.a\.steps: 1 there, 3 here"):
        claim({"a": {"steps": 3}, "c": {"steps": 1}})
    with pytest.raises(ValueError, match="seed: 0 there, 1 here"):
        claim({"c": {"steps": 1}}, seed=1)
    assert claim({}) == {"a": {"steps": 1}, "b": {"steps": 2}}


@pytest.mark.parametrize("there", [{"seed": 0}, {"seed": 0, "systems": None}, {"seed": 0, "systems": ["a"]}])
def test_a_run_of_another_kind_is_refused(tmp_path, there):
    """An evaluation that is sent into the folder of a training, say."""
    folder = RunFolder(tmp_path)
    folder.claim(there)
    with pytest.raises(ValueError, match=r"holds a run with other settings .*systems"):
        folder.claim({"seed": 0, "systems": {"a": 1}}, may_grow=("systems",))


@pytest.mark.parametrize("damage", [b"", b"[1]", b"{", b"\xff"])
def test_a_damaged_note_is_refused_and_kept(tmp_path, damage):
    (tmp_path / "run.json").write_bytes(damage)
    with pytest.raises(ValueError, match=r"run\.json is damaged; choose another out=FOLDER"):
        RunFolder(tmp_path).claim({"seed": 0})
    assert (tmp_path / "run.json").read_bytes() == damage


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "a" / "run"
    with RunFolder(path).locked():
        with pytest.raises(ValueError, match=r"another process is writing to .*run"), RunFolder(path).locked():
            pass
        with RunFolder(tmp_path / "other").locked():
            pass
    with pytest.raises(KeyError), RunFolder(path).locked():
        raise KeyError  # a run that fails lets the next one in
    with RunFolder(path).locked():
        pass


# ------------------------------------------------------------------------------------------------------- digests


def test_a_digest_is_of_the_content_wherever_it_lies(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "a").write_bytes(b"content")
        (tmp_path / name / "b").write_bytes(b"")
    first = content_digest(tmp_path / "one")
    assert first == content_digest(tmp_path / "two")
    assert content_digest(tmp_path / "one" / "sub" / "a") != content_digest(tmp_path / "one" / "b")
    (tmp_path / "alone").write_bytes(b"content")
    assert content_digest(tmp_path / "alone") == content_digest(tmp_path / "one" / "sub" / "a")
    assert content_digest(tmp_path / "none") is None
    seen = {first}
    for change in (
        lambda: (tmp_path / "two" / "sub" / "a").write_bytes(b"Content"),
        lambda: (tmp_path / "two" / "sub" / "a").rename(tmp_path / "two" / "a"),
        lambda: (tmp_path / "two" / "c").write_bytes(b""),
    ):
        change()
        seen.add(content_digest(tmp_path / "two"))
    assert len(seen) == 4


def test_a_large_file_is_known_by_its_size_and_both_ends(tmp_path):
    path, size, seen = tmp_path / "large", 70 * 2**20, set()
    for place, length in ((0, size), (10, size), (size - 1, size), (0, size + 1)):
        with path.open("wb") as stream:  # sparse: holes cost nothing
            stream.truncate(length)
            stream.seek(place)
            stream.write(b"x")
        seen.add(content_digest(path))
    assert len(seen) == 4


def test_a_digest_is_of_tensors_not_of_the_order_in_which_they_lie(tmp_path):
    def written(name, tensors, **header):
        table, data = dict(header), b""
        for key, (shape, values) in tensors.items():
            table[key] = {"dtype": "U8", "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
            data += values
        head = json.dumps(table).encode()
        (tmp_path / name).mkdir()
        (tmp_path / name / "w.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + data)
        return content_digest(tmp_path / name)

    one, two = {"a": ([4], b"1234"), "b": ([2], b"56")}, {"b": ([2], b"56"), "a": ([4], b"1234")}
    same = {written("1", one), written("2", two)}
    assert len(same) == 1
    other = [
        written("3", {"a": ([2, 2], b"1234"), "b": ([2], b"56")}),
        written("4", {"a": ([4], b"1235"), "b": ([2], b"56")}),
        written("5", {"a": ([4], b"1234"), "c": ([2], b"56")}),
        written("6", one, __metadata__={"alpha": "2"}),
    ]
    assert len({*same, *other}) == 5
    damaged = [b"", b"12345678", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 2**63)]
    damaged.append(struct.pack("<Q", 9) + b'{"a": {}}')
    for data in damaged:  # as any other file
        (tmp_path / "1" / "w.safetensors").write_bytes(data)
        other.append(content_digest(tmp_path / "1"))
    assert len(set(other)) == 4 + len(damaged)


def test_what_a_killed_write_left_does_not_count_and_goes(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "w").write_text("1")
    before = content_digest(tmp_path / "adapter")
    left, held = tmp_path / "adapter" / ".w.part", tmp_path / "edits" / ".a.png.part"
    left.mkdir()
    (left / "w.part").write_text("half")
    assert content_digest(tmp_path / "adapter") == before
    with whole(tmp_path / "adapter" / "b") as part:
        part.write_text("2")
        with RunFolder(tmp_path).locked():
            assert not left.exists()
            assert part.exists()  # a write under way keeps what is its own
    assert (tmp_path / "adapter" / "b").read_text() == "2"
    held.mkdir(parents=True)
    clear_parts(tmp_path / "none")
    clear_parts(tmp_path)
    assert not held.exists()
