"""`etchr bench`: every bench has a name and says what it does."""

import pytest

from etchr.bench.__main__ import BENCHES, main


def test_each_bench_is_listed_and_explains_itself(capsys):
    main([])
    listed = capsys.readouterr().out
    for name, (_, what) in BENCHES.items():
        assert f"  {name:5} {what}" in listed
        with pytest.raises(SystemExit) as left:
            main([name, "--help"])
        assert not left.value.code
        assert f"python -m etchr.bench {name}" in capsys.readouterr().out


def test_an_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(SystemExit, match=r"(?s)no bench 'gpu'.*  rl "):
        main(["gpu"])
