"""Filters and weights: what they give, and what they refuse."""

import numpy as np
import pyarrow as pa
import pytest

from data.expression import filter_mask, weights
from data.folders import DataError
from data.index_table import SCHEMA

TABLE = pa.table(
    {
        "format": ["gen1ou", "gen9ou", "gen9ou", "gen4ou"],
        "rating": pa.array([1000, 1500, 1700, 1200], pa.int32()),
        "player": ["a", "b", "c", "a"],
        "date": ["2019-05-01", "2020-01-01", "2024-03-03T10:00:00", "2023-12-31"],
        "won": [True, False, True, False],
        "turns": pa.array([10, 20, 30, 0], pa.int32()),
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [1, 1, 1, 1]),
        ("rating >= 1500", [0, 1, 1, 0]),
        ("1000 < rating <= 1500", [0, 1, 0, 1]),
        ("format == 'gen9ou' and won", [0, 0, 1, 0]),
        ("not won or rating > 1600", [0, 1, 1, 1]),
        ("date >= '2020-01-01' and date < '2024'", [0, 1, 0, 1]),
        ("date == '2024-03-03T10:00:00'", [0, 0, 1, 0]),
        ("year in (2019, 2023)", [1, 0, 0, 1]),
        ("player not in ('a', 'b')", [0, 0, 1, 0]),
        ("turns * 2 - 10 > rating / 100", [0, 1, 1, 0]),
        ("rating >= 1700 if format == 'gen9ou' else rating >= 1200", [0, 0, 1, 1]),
        ("won if year < 2020 else False", [1, 0, 0, 0]),
        ("True if won else " * 100 + "False", [1, 0, 1, 0]),
        ("True", [1, 1, 1, 1]),
    ],
)
def test_filters(text, expected):
    assert filter_mask(text, TABLE, "data.filter").tolist() == [bool(x) for x in expected]
    assert filter_mask(text, SCHEMA.empty_table(), "data.filter").tolist() == []  # to look for slips before battles


def test_lengths_that_are_not_known_are_not_compared():
    table = TABLE.set_column(5, "turns", pa.array([10, 20, -1, -1], pa.int32()))
    assert filter_mask("rating > 0", table, "data.filter").all()
    unknown = r"2 of 4 battles.*data\.turns=always"
    with pytest.raises(DataError, match=unknown):
        filter_mask("turns <= 10", table, "data.filter")
    with pytest.raises(DataError, match=unknown):
        weights("turns / 100", table, "data.weight", np.arange(4))


def test_weights():
    """Of the rows that are drawn from; of a file that cannot be read (turns 0) it is 0."""
    rows = np.arange(4)
    for text in ("", "won", "2.0 if won else 0.5", "max(0, rating - 1200) / 100", "10 / turns"):
        assert weights(text, SCHEMA.empty_table(), "data.weight", rows[:0]).tolist() == []
    assert weights("2.0 if won else 0.5", TABLE, "data.weight", rows).tolist() == [2.0, 0.5, 2.0, 0]
    assert weights("max(0, rating - 1200) / 100", TABLE, "data.weight", rows).tolist() == [0, 3, 5, 0]
    assert weights("", TABLE, "data.weight", rows).tolist() == [1, 1, 1, 0]
    assert weights("won", TABLE, "data.weight", rows).tolist() == [1, 0, 1, 0]
    assert weights("10 / turns", TABLE, "data.weight", rows).tolist() == [1, 0.5, 10 / 30, 0]
    assert weights("500 / (rating - 1000)", TABLE, "data.weight", rows[1:2]).tolist() == [1]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("rating >=", "no expression"),
        ("elo > 1", "no column"),
        ("rating", "gives numbers"),
        ("rating and won", "neither true nor false"),
        ("format > 3", "text with a number"),
        ("format + 1 > 2", "is a text"),
        ("__import__('os').system('true')", "not allowed"),
        ("(lambda: 1)()", "not allowed"),
        ("won.real", "not allowed"),
        ("[x for x in (1,)]", "not allowed"),
        ("rating in rating", "what follows 'in' is 'rating' and no list of constants"),
        ("format in ('gen1ou')", r"'in' is \"'gen1ou'\" .* give one, as format in \['gen1ou', 'gen2ou'\], or == for a"),
        ("date >= '11-22-2026'", "no date of the index's form"),
        ("'22.11.2026' > date", "no date of the index's form"),
        ("date in ('2020-01-01', '01-01-2020')", "'01-01-2020' is no date"),
        ("player in ('planner', 'type_switch')", "names there have no '_'; give 'typeswitch'"),
        ("'simple_heuristics' != opponent", "names there have no '_'; give 'simpleheuristics'"),
        ("player in (1, 2)", "compares a text with a number in 'player'"),
        ("year in ('2020', '2021')", "compares a text with a number in 'year'"),
        ("not rating in (1500, '1600')", "compares a text with a number in 'rating'"),
        ("(" * 500 + "1" + ")" * 500, "no expression"),
        ("1 +" * 3000 + "1", "characters long"),
        ("2 ** 9999999 > 1", "not allowed"),
    ],
)
def test_refused(text, match):
    with pytest.raises(DataError, match=match):
        filter_mask(text, TABLE, "data.filter")


@pytest.mark.parametrize("text", ["-1", "1 / 0", "0 / 0", "'text'", "format"])
def test_weights_that_are_none(text):
    with pytest.raises(DataError, match=r"data\.weight"):
        weights(text, TABLE, "data.weight", np.arange(4))
