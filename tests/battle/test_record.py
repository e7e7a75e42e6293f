"""Files of battles played here: law 1, names, ties, faults of the disk, players."""

import json
import os
from contextlib import suppress

import numpy as np
import pytest

from battle.baselines import RandomAgent, TypeSwitchAgent
from battle.interface import Observation, bits_to_mask
from battle.play import Match, Outcome, View, play
from battle.players import BASELINES, UnknownPlayer, make_player, parse_player, parse_players
from battle.recorder import CannotRecord, Recorder
from battle.sample import FORMATS
from battle.teams import load_teams
from data.encode import Encoder
from data.replay_file import BadBattleFile, parse_name, read_battle, read_json_bytes, unpack
from data.tokenizer import Tokenizer


class Watcher(TypeSwitchAgent):
    """Keeps what the encoder made of every state live."""

    def __init__(self, encoder):
        self.encoder, self.live, self.seen = encoder, {}, {}

    def choose(self, observations: list[Observation]):
        for o in observations:
            if o.first:
                self.live[o.lane], self.seen[o.lane] = self.encoder.live(), []
            words, numbers, legal = self.live[o.lane].add(o.state)
            assert not (o.legal & ~legal).any()
            self.seen[o.lane].append((words.copy(), numbers.copy(), legal.copy()))
        return super().choose(observations)


@pytest.mark.parametrize("battle_format", [*FORMATS, "gen9randombattle"])
@pytest.mark.parametrize("space", ["default", "opponentmove"])
def test_a_file_gives_the_arrays_that_the_agent_saw(simulator, tmp_path, battle_format, space):
    encoder = Encoder(space, Tokenizer.load())
    watcher = Watcher(encoder)
    teams = load_teams(simulator, battle_format)
    match = Match("one", battle_format, (watcher, watcher), 11, (teams[0].packed, teams[-1].packed))
    (outcome,) = play(simulator, [match])
    recorder = Recorder(tmp_path, run="test", version=simulator.version)
    paths = recorder.record(outcome)
    assert len(paths) == 2
    for side, path in enumerate(paths):
        name, battle = parse_name(path), read_battle(path)
        assert name.format == battle_format
        assert (name.result == "WIN") == (outcome.winner == side)
        encoded = encoder.encode(battle.states, battle.actions)
        assert encoded.n_unknown == 0
        seen = watcher.seen[f"one/{side}"]
        assert len(seen) == len(encoded) - 1  # the last state asks nobody
        for t, (words, numbers, legal) in enumerate(seen):
            assert np.array_equal(encoded.words[t], words)
            assert np.array_equal(encoded.numbers[t].view(np.uint32), numbers.view(np.uint32))
            assert np.array_equal(encoded.legal[t], legal)
    assert not list(tmp_path.rglob("*.tmp"))


def test_meta_says_how_a_battle_came_about(simulator, tmp_path):
    import lz4.frame

    teams = load_teams(simulator, "gen9ou")
    match = Match(
        "m", "gen9ou", (RandomAgent(), TypeSwitchAgent()), 5, (teams[0].packed, teams[1].packed), ("anchor", "bellows"),
        explore=(0.0, 0.5), lead_rule="random", leads=(2, 3),
    )  # fmt: skip
    (outcome,) = play(simulator, [match])
    paths = Recorder(tmp_path, run="test", version=simulator.version).record(outcome)
    content = json.loads(lz4.frame.decompress(paths[1].read_bytes()))
    meta = content["meta"]
    assert meta["agent"] == "type_switch"
    assert meta["team"] == "bellows"
    assert meta["lead"] == {"rule": "random", "place": 3}
    assert meta["simulator"] == f"pokemon-showdown {simulator.version}"
    assert 0 < len(meta["forced_random"]) < len(content["states"]) - 1
    assert meta["request_legal"] == outcome.views[1].legal
    assert len(meta["request_legal"]) == len(content["states"])
    assert (
        content["states"][0]["player_active_pokemon"]["name"]
        == read_battle(paths[1]).states[0].player_active_pokemon.name
    )


def finished(kind="tie", winner=-1):
    state = b'{"x":1}'
    views = tuple(View([state, state], [0, -1], [1, 0]) for _ in range(2))
    agent = RandomAgent()
    return Outcome(Match("t", "gen1ou", (agent, agent), 1), kind, winner, 3, views)


def test_both_files_of_a_tie_are_named_a_loss_and_apart(tmp_path):
    paths = Recorder(tmp_path, run="r", version="0").record(finished())
    assert len(set(paths)) == 2
    assert all(parse_name(path).result == "LOSS" for path in paths)


def test_each_file_is_named_from_its_own_chair(tmp_path):
    outcome = finished("won", 1)
    paths = Recorder(tmp_path, run="r", version="0").record(outcome, ("red", "blue"), ("1400", "1600"))
    assert [(name.player, name.opponent, name.rating, name.result) for name in map(parse_name, paths)] == [
        ("red", "blue", 1400, "LOSS"), ("blue", "red", 1600, "WIN"),
    ]  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o644}
    # Names that are one as they are written.
    paths = Recorder(tmp_path, run="s", version="0").record(outcome, ("a_b", "ab"))
    assert [parse_name(path).player for path in paths] == ["ab-1", "ab-2"]
    # A name of no letter that a file's may hold.
    paths = Recorder(tmp_path, run="u", version="0").record(outcome, ("赤", "blue"))
    assert [(name.player, name.opponent) for name in map(parse_name, paths)] == [("player", "blue"), ("blue", "player")]
    # What stands between the parts of a name is in none of them.
    (path, _) = Recorder(tmp_path, run="n", version="0").record(outcome, ("a.b:c-d_e/f", "blue"))
    assert (parse_name(path).player, parse_name(path).opponent) == ("a.b:c-def", "blue")
    # The same battle of two hosts is two.
    names = [path.name for run in "vw" for path in Recorder(tmp_path, run, "0", date="01-01-2026").record(outcome)]
    assert len(set(names)) == 4
    assert all("_01-01-2026_" in name for name in names)
    del outcome.views[0].states[1]  # who was asked once, and saw no end, has learned nothing
    assert len(Recorder(tmp_path, run="t", version="0").record(outcome)) == 1


def test_a_file_says_who_played_it_and_how(tmp_path):
    agents = RandomAgent(), RandomAgent()
    agents[1].gamma, agents[1].beta, agents[1].temperature = 0.9, 0.5, 1.2
    state = {"opponent_teampreview": ["a", "b"]}
    raw = json.dumps(state).encode()
    views = (View([raw] * 3, [4, 5, -1], [16, 32, 0]), View([raw] * 2, [1, -1], [2, 0], [0]))
    match = Match("m", "gen1ou", agents, 7, team_names=("one", "two"), lead_rule="random")
    outcome = Outcome(match, "won", 0, 12, views, refused=["a", "b"], leads=(0, 3))
    first, second = (
        json.loads(read_json_bytes(path)) for path in Recorder(tmp_path, run="r", version="1.2").record(outcome)
    )
    assert second == {
        "states": [state, state],
        "actions": [1, -1],
        "meta": {
            "agent": "random", "gamma": 0.9, "beta": 0.5, "temperature": 1.2, "forced_random": [0], "seed": 7,
            "side": 1, "team": "two", "lead": {"rule": "random", "place": 3}, "request_legal": [2, 0],
            "outcome": "won", "turns": 12, "refused": 2, "simulator": "pokemon-showdown 1.2", "recorder": "turnwise 1",
        },
    }  # fmt: skip
    assert (first["actions"], first["meta"]["side"], first["meta"]["team"]) == ([4, 5, -1], 0, "one")
    assert first["meta"]["lead"]["place"] == 0
    assert [first["meta"][key] for key in ("gamma", "beta", "temperature")] == [None] * 3


def test_what_an_agent_sees_is_read_when_it_is_asked_for_and_nobodys_to_change():
    seen = Observation("m/0", b'{"a":1}', bits_to_mask(0b1000000000101), True)
    assert np.flatnonzero(seen.legal).tolist() == [0, 2, 12]
    assert len(seen.legal) == 13
    with pytest.raises(ValueError, match="read-only"):
        seen.legal[1] = True
    assert seen.state == {"a": 1}
    assert seen.state is seen.state


def test_no_flipped_bit_of_a_file_is_read_as_another_battle(tmp_path):
    path = Recorder(tmp_path, run="r", version="0").record(finished())[0]
    packed, whole = path.read_bytes(), read_json_bytes(path)
    for place in range(len(packed)):
        spoilt = bytearray(packed)
        spoilt[place] ^= 1 << place % 8
        with suppress(BadBattleFile):
            assert unpack(bytes(spoilt), path) == whole


def test_a_higher_level_packs_smaller_what_reads_the_same(tmp_path):
    outcome = finished()
    outcome.views[0].states[0] = json.dumps({str(number % 97): number for number in range(999)}).encode()
    (fast, _), (small, _) = (Recorder(tmp_path, f"l{level}", "0", level=level).record(outcome) for level in (0, 12))
    assert read_json_bytes(small) == read_json_bytes(fast)
    assert small.stat().st_size < fast.stat().st_size


def test_a_void_battle_leaves_no_file(tmp_path):
    assert Recorder(tmp_path, run="r", version="0").record(finished("void")) == []
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CannotRecord, match="No space left on device: free some space"):
        Recorder(tmp_path, run="r", version="0").record(finished())
    assert list(tmp_path.rglob("*.*")) == []


def test_players_by_name(tmp_path, monkeypatch):
    spec = parse_player("a=runs/x:temperature=1.2,gamma=0.99,beta=0.2,weight=3")
    assert (spec.label, spec.source, spec.weight) == ("a", "runs/x", 3.0)
    assert dict(spec.options) == {"beta": 0.2, "gamma": 0.99, "temperature": 1.2}
    assert make_player(parse_player("strong=type_switch")).name == "strong"
    for text, label in (("runs/lr=0.1/best", "best"), ("runs/lr=0.1:weight=2", "lr=0.1"), ("a=runs/lr=0.1", "a")):
        spec = parse_player(text)
        assert (spec.label, spec.source) == (label, "runs/lr=0.1" + ("/best" if label == "best" else ""))
    odd = tmp_path / "run:2"
    odd.mkdir()
    for text in (str(odd), f"{odd}:temperature=2"):
        spec = parse_player(text)
        assert (spec.source, dict(spec.options)) == (str(odd), {"temperature": 2.0} if "=" in text else {})
    spec = parse_player("a=runs/x:temperature=1.2,device=cuda:0")
    assert (spec.source, dict(spec.options)["device"]) == ("runs/x", "cuda:0")
    assert dict(parse_player(f"{odd}:device=cuda:1").options) == {"device": "cuda:1"}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1" / "model").mkdir(parents=True)
    assert [parse_player(f"lr=0.1/model{more}").source for more in ("", ":beta=0.2")] == ["lr=0.1/model"] * 2
    with pytest.raises(UnknownPlayer, match="both would be called 'ab'"):
        parse_players(["a_b=random", "ab=boss"])  # as their files would write them
    with pytest.raises(UnknownPlayer, match="no such folder"):
        make_player(parse_player(str(tmp_path / "nowhere")))
    with pytest.raises(UnknownPlayer, match="temperature"):
        parse_player("runs/x:heat=3")
    with pytest.raises(UnknownPlayer, match="no number"):
        parse_player("runs/x:temperature=hot")
    with pytest.raises(UnknownPlayer, match="option 'temperature=1' is not one of weight="):
        parse_player("random:temperature=1")  # it has none, and would play as ever
    with pytest.raises(UnknownPlayer, match="temperature='nan' is no number"):
        parse_player("runs/x:temperature=nan")


def test_every_baseline_answers_every_state_legally(simulator):
    teams = load_teams(simulator, "gen9ou")
    for make in BASELINES.values():
        agent = make()
        match = Match("b", "gen9ou", (agent, RandomAgent()), 2, (teams[2].packed, teams[3].packed))
        (outcome,) = play(simulator, [match])
        assert outcome.refused == []
