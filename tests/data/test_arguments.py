"""What a command line may count."""

import argparse

import pytest

from data.arguments import at_least_one, none_or_more, share
from data.prepare import main


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (at_least_one, {"1": 1, "20": 20}, ["0", "-1", "1.5", "x", ""]),
        (none_or_more, {"0": 0, "20": 20}, ["-1", "1.5", "x", ""]),
        (share, {"0": 0.0, "0.25": 0.25, "1": 1.0}, ["-0.1", "1.1", "nan", "x", ""]),
    ],
)
def test_counts_and_shares_of_a_command_line(kind, good, bad):
    assert {text: kind(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="give a"):
            kind(text)


@pytest.mark.parametrize(
    "words", [["index", "--processes=-5"], ["verify", "--processes=0"], ["verify", "--max-bytes=x"]]
)
def test_the_data_commands_count_from_one(words, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*words, str(tmp_path)])
    assert "give a whole number of 1 or more" in capsys.readouterr().err
