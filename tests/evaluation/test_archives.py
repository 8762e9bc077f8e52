"""Archives from outside: pictures only, below the folder only, all or nothing."""

import os
import zipfile

import pytest

from evaluation import archives
from evaluation.archives import Limits, unpack
from tests.evaluation.benchmarks.published import png


def pack(path, members):
    """A zip of (name or ZipInfo, bytes)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members:
            opened.writestr(name, data)
    return path


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_pictures_come_out_as_they_are(tmp_path):
    archive = pack(
        tmp_path / "a.zip",
        [
            ("val/", b""),
            ("val/1.jpg", png()),
            ("val/deep/2.PNG", png(colour="red")),
            ("run.sh", b"rm"),
            ("__MACOSX/1.jpg", b"x"),
        ],
    )
    out = tmp_path / "out"
    assert unpack(archive, out) == 2
    assert files(out) == ["val/1.jpg", "val/deep/2.PNG"]
    assert (out / "val/deep/2.PNG").read_bytes() == png(colour="red")


def test_the_same_call_goes_on_where_it_was_killed(tmp_path):
    archive = pack(tmp_path / "a.zip", [(f"{i}.png", png(size=(8 + i, 8))) for i in range(4)])
    unpack(archive, tmp_path / "out")
    whole, torn = tmp_path / "out" / "0.png", tmp_path / "out" / "1.png"
    os.utime(whole, (1, 1))
    torn.write_bytes(b"half")
    (tmp_path / "out" / "2.png").unlink()
    assert unpack(archive, tmp_path / "out") == 4
    assert whole.stat().st_mtime == 1  # left alone
    assert torn.read_bytes() == png(size=(9, 8))
    assert files(tmp_path / "out") == ["0.png", "1.png", "2.png", "3.png"]


def link(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


def test_one_bad_name_and_nothing_is_written(tmp_path):
    for member, match in [
        ("../evil.png", "'../evil.png' does not lie below"),
        ("a/../../evil.png", "does not lie below"),
        ("/evil.png", "does not lie below"),
        ("C:\\evil.png", "does not lie below"),
        ("..\\evil.png", "does not lie below"),
        (link("link.png"), "'link.png' is a link"),
        ("./ok.png", "is in it twice"),
    ]:
        archive = pack(tmp_path / "a.zip", [("ok.png", png()), (member, png())])
        with pytest.raises(ValueError, match=match) as caught:
            unpack(archive, tmp_path / "in" / "out")
        assert "\n" not in str(caught.value), member
        assert not (tmp_path / "in").exists(), member
        assert not (tmp_path / "evil.png").exists(), member


def test_what_is_beyond_the_limits_or_the_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    archive = pack(tmp_path / "a.zip", [(f"{i}.png", bytes(1000)) for i in range(4)])
    for number, (limits, match) in enumerate(
        [
            (Limits(bytes_of_a_file=999), "'0.png' has 1,000 bytes, all so far 1,000; at most 999 of a file"),
            (Limits(bytes=3500), "'3.png' has 1,000 bytes, all so far 4,000; at most .* 3,500 of all"),
            (Limits(files=3), "holds 4 files; at most 3"),
        ]
    ):
        out = tmp_path / str(number)
        with pytest.raises(ValueError, match=match):
            unpack(archive, out, limits)
        assert not out.exists(), match
        assert unpack(archive, out, Limits(files=4, bytes=4000, bytes_of_a_file=1000)) == 4

    monkeypatch.setattr(archives, "free_bytes", lambda _: 5)
    with pytest.raises(ValueError, match=r"unpacks to [\d,]+ bytes more, of which 5 are free"):
        unpack(pack(tmp_path / "full.zip", [("1.png", png())]), tmp_path / "full")
    assert not (tmp_path / "full").exists()


def test_a_size_that_lies_writes_no_more_than_it_says(tmp_path):
    """The directory says 10 bytes, the data are a megabyte of zeros: a bomb as small as it pretends to be."""
    archive = pack(tmp_path / "a.zip", [("bomb.png", bytes(2**20))])
    lying = archive.read_bytes().replace((2**20).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    archive.write_bytes(lying)
    with pytest.raises(ValueError, match="is damaged"):
        unpack(archive, tmp_path / "out")
    assert all((tmp_path / "out" / name).stat().st_size <= 10 for name in files(tmp_path / "out"))


def test_damaged_encrypted_and_empty_archives(tmp_path):
    archive = pack(tmp_path / "a.zip", [("1.png", png(size=(99, 99)))])
    data = archive.read_bytes()
    for damaged in (b"junk", b"", data[: len(data) // 2], data.replace(data[60:70], bytes(10))):
        archive.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.zip is damaged .*; remove it and start the same command again"):
            unpack(archive, tmp_path / "out")
    assert not [name for name in files(tmp_path / "out") if name == "1.png"]

    locked = bytearray(pack(archive, [("1.png", png())]).read_bytes())
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(locked)
    with pytest.raises(ValueError, match=r"'1\.png' is encrypted"):
        unpack(archive, tmp_path / "out")
    with pytest.raises(ValueError, match="holds no pictures"):
        unpack(pack(tmp_path / "b.zip", [("readme.txt", b"x")]), tmp_path / "out")
