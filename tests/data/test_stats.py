"""What a folder holds, counted once more by plain loops over its files."""

import collections

import numpy as np
import pytest

from data.folders import DataError
from data.observation import SPACES
from data.prepare import main
from data.stats import folder_stats, stats_text
from data.token_cache import TokenCache
from tests.battle_files import Style, make_battle, write_battle

from .caches import cache_of, tar_of

KINDS = ("move", "switch", "forced switch", "tera", "not recorded")


def stats_of(root, **options):
    return folder_stats(root, cache_dir=str(root.parent / "i"), bar=False, **{"processes": 1, **options})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Battles of two formats, one of them won by a forfeit, one cut short, one with another battle's state behind it,
    one with words of its own, and three files that are none."""
    styles = [Style(max_turns=n, missing=0.2) for n in (3, 9, 10, 11, 25, 40)]
    styles += [Style(max_turns=12, cut_short=True), Style(max_turns=12, next_battle_tail=True)]
    battles = [make_battle(seed, f"gen{1 + 8 * (seed % 2)}ou", style) for seed, style in enumerate(styles)]
    forfeit, *_, wordy = battles[:6]
    forfeit.states[-1].update(battle_won=True, battle_lost=False, opponents_remaining=1)
    for beaten in battles[1:3]:
        beaten.states[-1].update(battle_won=False, battle_lost=True)
    battles[-1].states[-2].update(battle_won=True, battle_lost=False, opponents_remaining=0)
    for place, state in enumerate(wordy.states[:25]):
        state["weather"] = "frog" + chr(ord("a") + place)
    wordy.states[3]["weather"] = "froga"
    for state in wordy.states[:3]:
        state["opponent_active_pokemon"]["moves"] = [{**state["player_active_pokemon"]["moves"][0], "name": "frogleap"}]
    bad = make_battle(99, "gen1ou", Style(max_turns=6))
    bad.actions[1] = 12
    root = tmp_path_factory.mktemp("made") / "d"
    for battle in (*battles, bad):
        write_battle(root, battle)
    (root / "gen1ou" / "oops.json.lz4").write_bytes(b"")
    (root / "gen1ou" / "x_1_a_vs_b_01-01-2024_WIN.json.lz4").write_bytes(b"no")
    battles[-1].states.pop()
    del battles[-1].actions[-1]
    return battles, root


@pytest.fixture(scope="module")
def made(files):
    battles, root = files
    return battles, stats_of(root)


def test_battles_and_their_lengths(made):
    battles, stats = made
    lengths = [len(battle.states) for battle in battles]
    assert (stats["files"], stats["battles"]) == (len(battles) + 3, len(battles))
    assert stats["formats"] == collections.Counter(battle.format for battle in battles)
    assert stats["years"] == collections.Counter(battle.date[6:10] for battle in battles)
    ratings = [battle.rating if battle.rating == "Unrated" else battle.rating[:-2] + "00" for battle in battles]
    assert stats["ratings"] == collections.Counter(rating.lower() for rating in ratings)
    assert list(stats["ratings"])[1:] == sorted(list(stats["ratings"])[1:], key=int)
    turns = stats["turns"]
    assert (turns["total"], turns["mean"], turns["max"]) == (sum(lengths), sum(lengths) / len(battles), max(lengths))
    assert (turns["p50"], turns["p99"]) == tuple(np.percentile(lengths, [50, 99]))
    tens = collections.Counter(length // 10 * 10 for length in lengths)
    histogram = turns["histogram"]
    assert histogram["counts"] == [tens[edge] for edge in histogram["edges"]]


def test_decisions_by_their_kind(made):
    battles, stats = made
    kinds = collections.Counter()
    for battle in battles:
        for state, action in zip(battle.states[:-1], battle.actions, strict=False):
            switch = "forced switch" if state["forced_switch"] else "switch"
            kinds["not recorded" if action < 0 else "move" if action < 4 else switch if action < 9 else "tera"] += 1
    assert stats["actions"] == {kind: kinds[kind] for kind in KINDS}
    assert all(kinds[kind] for kind in KINDS)
    assert stats["missing_share"] == kinds["not recorded"] / kinds.total()
    line = next(line for line in stats_text(stats).splitlines() if line.startswith("  move "))
    assert line.split() == ["move", str(kinds["move"]), f"{kinds['move'] / kinds.total():.2%}"]


def test_how_battles_ended(made):
    battles, stats = made
    ends = [battle.states[-1] for battle in battles]
    won, lost = (sum(end[key] for end in ends) for key in ("battle_won", "battle_lost"))
    assert 0 < won != lost > 0
    assert stats["results"] == {"won": won, "lost": lost, "cut short": len(battles) - won - lost}
    assert stats["cut_short"] == len(battles) - won - lost >= 2
    assert (stats["forfeit_wins"], stats["dropped_tails"]) == (1, 1)


def test_unknown_words_and_rejects(made):
    _, stats = made
    unknown = stats["unknown_words"]
    assert unknown["count"] == 25 + 3  # the opponent's moves are words of the largest space alone
    assert unknown["share"] == 28 / (stats["turns"]["total"] * SPACES["opponentmove"].n_words)
    assert list(unknown["most"].items())[:2] == [("frogleap", 3), ("froga", 2)]
    assert len(unknown["most"]) == 20
    assert all(word.startswith("frog") for word in unknown["most"])
    assert stats["rejects"]["by_reason"] == {"name": 1, "actions": 1, "lz4": 1}
    assert sorted(path for path, _ in stats["rejects"]["files"])[1:] == [
        "gen1ou/oops.json.lz4", "gen1ou/x_1_a_vs_b_01-01-2024_WIN.json.lz4",
    ]  # fmt: skip


def test_of_nothing_but_bad_files_no_battle_is_counted(tmp_path):
    (tmp_path / "gen1ou").mkdir()
    (tmp_path / "gen1ou" / "x_1_a_vs_b_01-01-2024_WIN.json.lz4").write_bytes(b"no")
    stats = folder_stats(tmp_path, cache_dir=str(tmp_path / "i"), processes=1, bar=False)
    assert (stats["battles"], stats["turns"]["histogram"]["counts"]) == (0, [0])
    assert "0 battles of 1 files, 0 turns" in stats_text(stats)


@pytest.mark.parametrize("command", [["index"], ["stats"], ["stats", "--filter", "rating > 3000"]])
def test_of_no_battle_the_status_tells(files, tmp_path, capsys, command):
    _, root = files
    folder = root if "--filter" in command else tmp_path
    (tmp_path / "gen1ou").mkdir()
    assert main([command[0], str(folder), *command[1:], "--cache-dir", str(tmp_path / "i")]) == 1
    said = capsys.readouterr()
    assert "0 battles" in said.out
    assert f"{folder}: no battle counted" in said.err


@pytest.fixture(scope="module")
def places(files, tmp_path_factory):
    """The folder, and a token cache of the archives of its formats."""
    _, root = files
    home = tmp_path_factory.mktemp("places")
    (home / "archives").mkdir()
    for name in ("gen1ou", "gen9ou"):
        tar_of(root, home / "archives" / f"{name}.tar.gz", name)
    cache_of(home / "archives", home / "cache", space="opponentmove")
    return root, home / "cache"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_token_cache_tells_what_its_battle_files_do(made, places, processes, monkeypatch):
    """All but what it does not keep."""
    monkeypatch.setattr("data.parallel.PIECE", 3)
    _, of_files = made
    of_cache = stats_of(places[1], processes=processes)
    untold = {"forfeit_wins": None, "dropped_tails": None}
    same = {key: value for key, value in of_files.items() if key not in ("unknown_words", "rejects")}
    assert {key: of_cache[key] for key in same} == same | untold
    assert of_cache["unknown_words"] == of_files["unknown_words"] | {"most": {}}
    assert of_cache["rejects"]["by_reason"] == of_files["rejects"]["by_reason"]
    assert of_cache["rejects"]["count"] == 3
    text = stats_text(of_cache)
    assert "forfeits" not in text
    assert [line for line in stats_text(of_files).splitlines() if line not in text] == [
        "  won with opponents standing (forfeits) 1", "  next battle's first state dropped 1",
        *(f"  {word:<20} {n:>12,}" for word, n in of_files["unknown_words"]["most"].items()),
    ]  # fmt: skip


def test_a_token_cache_is_opened_once(places, tmp_path, monkeypatch):
    """Not for each piece of its battles: of four million that would be most of the work."""
    monkeypatch.setattr("data.parallel.PIECE", 1)
    noted, opens = tmp_path / "opened", TokenCache.__init__
    noted.touch()

    def watched(self, path):
        with noted.open("a") as file:
            file.write("o")
        opens(self, path)

    monkeypatch.setattr(TokenCache, "__init__", watched)
    assert stats_of(places[1], processes=2)["battles"] == 8
    assert len(noted.read_text()) <= 1  # none, where this process had opened it before


def test_a_filter_and_formats_choose_battles(made, places):
    battles, of_files = made
    for place in places:
        of_two = {name: stats_of(place, formats=[name]) for name in ("gen1ou", "gen9ou")}
        assert [stats["formats"] for stats in of_two.values()] == [
            {name: of_files["formats"][name]} for name in ("gen1ou", "gen9ou")
        ]
        rejects = {name: stats["rejects"] for name, stats in of_two.items()}
        assert {name: of["count"] for name, of in rejects.items()} == {"gen1ou": 3, "gen9ou": 0}
        assert rejects["gen1ou"]["by_reason"] == {"name": 1, "actions": 1, "lz4": 1}
        assert (rejects["gen9ou"]["by_reason"], rejects["gen9ou"]["files"]) == ({}, [])
        assert stats_of(place, chosen="format == 'gen1ou'")["turns"] == of_two["gen1ou"]["turns"]
        assert stats_of(place, chosen="True")["turns"] == of_files["turns"]
        empty = stats_of(place, chosen="rating > 9000")
        rejected = 1 if place == places[0] else 3  # of a folder that whose name is bad, of a cache all of them
        assert (empty["battles"], empty["files"], empty["turns"]["total"]) == (0, rejected, 0)
        with pytest.raises(DataError, match="--filter: 'elo' is no column"):
            stats_of(place, chosen="elo > 1")
        with pytest.raises(DataError, match=r"gen2ou not (under|in the cache) .*; there are gen1ou, gen9ou"):
            stats_of(place, formats=["gen2ou"])
    longest = stats_of(places[1], chosen="turns > 20")
    assert longest["turns"]["total"] == sum(n for n in (len(battle.states) for battle in battles) if n > 20) > 0
    with pytest.raises(DataError, match=r"'turns' is not known of .* or run `data.prepare index --turns`"):
        stats_of(places[0], chosen="turns > 20")
    with pytest.raises(DataError, match=r"--vocabulary: the words of the token cache .* are of its own"):
        stats_of(places[1], vocabulary="v.json")
