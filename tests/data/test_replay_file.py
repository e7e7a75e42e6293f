"""Reading one file: names, bytes, JSON. Whatever is no battle is refused with file, field, reason and mend."""

import json
import os

import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.encode import Encoder
from data.replay_file import (
    BadBattleFile,
    BattleName,
    battle_path,
    iso_date,
    parse_name,
    read_battle,
    read_json_bytes,
    read_lean,
    unpack,
)
from data.schema import BadBattle
from data.tokenizer import Tokenizer
from tests.battle_files import Style, make_battle, write_battle

NAME = "gen1ou-12_1500_Red_vs_Blue_01-31-2024_WIN.json.lz4"
ENCODER = Encoder("default", Tokenizer(()))


def read_and_encode(path, **options):
    battle = read_lean(path, **options)
    try:
        return ENCODER.encode(battle.states, battle.actions)
    except BadBattle as error:
        raise BadBattleFile(path, error.field, error.reason, error.mend) from error


def write(tmp_path, content, name=NAME):
    path = tmp_path / "gen1ou" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def refused(path, field, reason="", **options):
    with pytest.raises(BadBattleFile) as error:
        read_and_encode(path, **options)
    assert error.value.path == str(path)
    assert str(path) in str(error.value)
    assert field in error.value.field
    assert reason in error.value.reason
    assert error.value.mend
    return error.value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (NAME, BattleName("gen1ou", "gen1ou-12", 1500, "Red", "Blue", "01-31-2024", "WIN")),
        (
            "a [b] C-9_Unrated_R-1_vs_B_12-01-2026-07:38:29_LOSS.json",
            BattleName("gen1ou", "a [b] C-9", 1000, "R-1", "B", "12-01-2026-07:38:29", "LOSS", rated=False),
        ),
        (
            "x_99999999999999999999_a_vs_b_12-01-2026_LOSS.json",
            BattleName("gen1ou", "x", 1000, "a", "b", "12-01-2026", "LOSS", rated=False),
        ),
        ("x_-20_a_vs_b_12-01-2026_LOSS.json", BattleName("gen1ou", "x", -20, "a", "b", "12-01-2026", "LOSS")),
    ],
)
def test_names(name, expected):
    assert parse_name(f"/data/gen1ou/{name}") == expected


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x_1_a_vs_b_12-01-2026.json.lz4", "splits into 6"),
        ("x_1_a_b_vs_c_12-01-2026_WIN.json.lz4", "splits into 8"),
        ("x_1_a_VS_b_12-01-2026_WIN.json.lz4", "splits into 7"),
        ("x_1_a_vs_b_12-01-2026_TIE.json.lz4", "'TIE'"),
        ("x_1_a_vs_b_13-01-2026_WIN.json.lz4", "'13-01-2026'"),
        ("x_1_a_vs_b_2026-01-01_WIN.json.lz4", "'2026-01-01'"),
        ("_1_a_vs_b_12-01-2026_WIN.json.lz4", "empty"),
        ("x_1_a_vs_b_12-01-2026_WIN.txt", "end in"),
    ],
)
def test_bad_names(name, reason):
    with pytest.raises(BadBattleFile, match="name") as error:
        parse_name(name)
    assert reason in error.value.reason


def test_generated_names_round_trip(tmp_path):
    for seed in range(50):
        battle = make_battle(seed, style=Style(max_turns=4))
        path = write_battle(tmp_path, battle)
        name = parse_name(path)
        assert (name.format, name.battle_id, name.player) == (battle.format, battle.battle_id, battle.player)
        assert battle_path(tmp_path, name, battle.rating) == path


def test_dates_sort():
    assert iso_date("01-31-2024") == "2024-01-31"
    assert iso_date("12-01-2026-07:38:29") == "2026-12-01T07:38:29"


def test_plain_json_is_read(tmp_path):
    battle = make_battle(1)
    path = write(tmp_path, battle.json_bytes(), NAME.removesuffix(".lz4"))
    assert len(read_lean(path).states) == len(battle.states)


def test_further_keys_are_ignored(tmp_path):
    battle = make_battle(1)
    content = {"states": battle.states, "actions": battle.actions, "meta": {"agent": [1, {"x": None}]}}
    content["states"][0]["novelty"] = 1
    path = write(tmp_path, lz4.frame.compress(json.dumps(content).encode()))
    assert len(read_battle(path).states) == len(battle.states)


@pytest.mark.parametrize("content", [b"", b"not lz4 at all", b"\x04\x22\x4d\x18", os.urandom(200)])
def test_bytes_that_are_no_lz4_frame(tmp_path, content):
    refused(write(tmp_path, content), "lz4")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_truncation_is_refused(data):
    whole = lz4.frame.compress(make_battle(3, style=Style(max_turns=6)).json_bytes())
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(BadBattleFile):
        unpack(whole[:cut], "x.json.lz4")


def test_bytes_behind_the_frame_are_refused(tmp_path):
    refused(write(tmp_path, lz4.frame.compress(make_battle(1).json_bytes()) + b"x"), "lz4", "after its frame")


def test_a_decompression_bomb_stops_at_the_cap(tmp_path):
    bomb = lz4.frame.compress(b" " * (256 << 20))
    assert len(bomb) < 2 << 20
    refused(write(tmp_path, bomb), "size", "over")


def test_the_cap_counts_plain_files_too(tmp_path):
    path = write(tmp_path, b" " * 2000, NAME.removesuffix(".lz4"))
    refused(path, "size", "2000", max_bytes=1000)


def test_sizes_up_to_the_cap_are_read(tmp_path):
    text = make_battle(1).json_bytes()
    path = write(tmp_path, lz4.frame.compress(text))
    assert read_json_bytes(path, max_bytes=len(text)) == text
    refused(path, "size", max_bytes=len(text) - 1)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b"", "json"),
        (b'{"states": [', "json"),
        (b"[]", "$"),
        (b"{}", "$"),
        (b'{"states": []}', "$"),
        (b'{"states": [], "actions": []}', "states"),
        (b'{"states": {}, "actions": []}', "states"),
        (b'{"states": [{}], "actions": [0]}', "states[0]"),
        (b'\xff\xfe{"states": [], "actions": []}', "json"),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", ""),
        (b'{"states": [], "actions": []} trailing', "json"),
    ],
)
def test_json_that_is_no_battle(tmp_path, text, field):
    refused(write(tmp_path, lz4.frame.compress(text)), field)


def test_nan_is_refused(tmp_path):
    text = make_battle(1).json_bytes().replace(b'"hp_pct": 1.0', b'"hp_pct": NaN', 1)
    refused(write(tmp_path, lz4.frame.compress(text)), "")


def keys_of(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from keys_of(inner, (*path, key))
    elif isinstance(value, list) and value:
        yield from keys_of(value[0], (*path, 0))


OPTIONAL = {"can_tera", "opponent_teampreview", "tera_type", "base_species"}


def test_every_missing_key_is_refused_by_the_strict_reader(tmp_path):
    battle = make_battle(11, "gen9ou", Style(max_turns=12))
    state = next(s for s in battle.states if s["opponent_active_pokemon"]["moves"] and s["available_switches"])
    for path in list(keys_of(state)):
        text = json.dumps({"states": [state, state], "actions": [-1, -1]})
        content = json.loads(text)
        place = content["states"][1]
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        file = write(tmp_path, lz4.frame.compress(json.dumps(content).encode()))
        if path[-1] in OPTIONAL:
            read_battle(file)
            continue
        with pytest.raises(BadBattleFile) as error:
            read_battle(file)
        assert str(path[-1]) in str(error.value)


def test_a_battle_of_one_state_is_none(tmp_path):
    state = make_battle(11, "gen9ou", Style(max_turns=12)).states[0]
    path = write(tmp_path, lz4.frame.compress(json.dumps({"states": [state], "actions": [-1]}).encode()))
    with pytest.raises(BadBattleFile, match="states: holds 1 states; a battle has 2 or more"):
        read_battle(path)


def test_a_missing_file_is_named(tmp_path):
    refused(tmp_path / "gen1ou" / NAME, "file", "No such file")


def test_a_pipe_does_not_hang(tmp_path):
    path = tmp_path / "gen1ou" / NAME
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(BadBattleFile):
        read_lean(path)


def test_a_folder_named_like_a_battle_holds_no_descriptor(tmp_path):
    (tmp_path / "x.json.lz4").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(BadBattleFile, match="no regular file"):
            read_lean(tmp_path / "x.json.lz4")
    assert len(os.listdir("/proc/self/fd")) == before


def test_errors_pickle(tmp_path):
    import pickle

    error = BadBattleFile("a", "b", "c", "d")
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.field, again.reason, again.mend) == ("a", "b", "c", "d")
    assert str(again) == str(error)
