"""Files of battles played here: law 1, names, ties, faults of the disk, teams, self-play, input logs, the sample."""

import argparse
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

from battle import import_inputlogs, sample, selfplay, soak
from battle.baselines import RandomAgent, TypeSwitchAgent
from battle.errors import BattleError, InvalidTeam
from battle.interface import Observation
from battle.play import Match, Outcome, View, play
from battle.players import BASELINES, UnknownPlayer, make_player, parse_player
from battle.recorder import CannotRecord, Recorder
from battle.simulator import Simulator
from battle.teams import OWN, load_teams, team_files
from data.encode import Encoder
from data.replay_file import parse_name, read_battle
from data.schema import legal_actions
from data.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
OU = ("gen1ou", "gen2ou", "gen3ou", "gen4ou", "gen9ou")


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


@pytest.mark.parametrize("battle_format", [*OU, "gen9randombattle"])
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


@pytest.mark.parametrize("battle_format", OU)
def test_our_teams_are_sound_and_the_evaluation_ones_apart(simulator, battle_format):
    training = load_teams(simulator, battle_format)
    kept = load_teams(simulator, battle_format, purpose="evaluation")
    assert len(training) >= 12
    assert len(kept) >= 4
    assert not {team.packed for team in training} & {team.packed for team in kept}


def test_anybodys_teams(simulator, tmp_path):
    good = team_files("gen1ou", None, "training")[0].read_text()
    (tmp_path / "good.gen1ou_team").write_text(good)
    (tmp_path / "bad.gen1ou_team").write_text("Mew\n- Transform\n")
    with pytest.raises(InvalidTeam, match=r"bad.gen1ou_team: .*Mew"):
        load_teams(simulator, "gen1ou", tmp_path)
    assert [team.name for team in load_teams(simulator, "gen1ou", tmp_path, strict=False)] == ["good"]
    (tmp_path / "bad.gen1ou_team").write_text("Flabébé (Mew)\n- Transform\n", encoding="latin-1")
    with pytest.raises(InvalidTeam, match=r"bad.gen1ou_team: is no UTF-8 text \("):
        load_teams(simulator, "gen1ou", tmp_path)
    with pytest.raises(InvalidTeam, match=r"no \*.gen2ou_team file"):
        load_teams(simulator, "gen2ou", tmp_path)
    for makes_its_own in ("gen9randombattle", "gen9battlefactory", "gen1challengecup"):
        assert [team.packed for team in load_teams(simulator, makes_its_own, tmp_path)] == [None]


def test_players_by_name(tmp_path):
    spec = parse_player("a=runs/x:temperature=1.2,gamma=0.99,beta=0.2,weight=3")
    assert (spec.label, spec.source, spec.weight) == ("a", "runs/x", 3.0)
    assert dict(spec.options) == {"beta": 0.2, "gamma": 0.99, "temperature": 1.2}
    assert make_player(parse_player("strong=type_switch")).name == "strong"
    for text, label in (("runs/lr=0.1/best", "best"), ("runs/lr=0.1:weight=2", "lr=0.1"), ("a=runs/lr=0.1", "a")):
        spec = parse_player(text)
        assert (spec.label, spec.source) == (label, "runs/lr=0.1" + ("/best" if label == "best" else ""))
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


def arguments(out, battles, **changes):
    args = selfplay.parser().parse_args(
        [
            *("--players", "a=type_switch", "b=random:weight=0.5", "--formats", "gen1ou", "gen9randombattle"),
            *("--seed", "3", "--battles", str(battles), "--out", str(out)),
        ]
    )
    return argparse.Namespace(**(vars(args) | changes))


@pytest.mark.parametrize(
    ("option", "value", "mend"),
    [
        ("--explore", "2", "from 0 to 1"),
        ("--explore", "-1", "from 0 to 1"),
        ("--explore", "nan", "from 0 to 1"),
        ("--explore", "some", "from 0 to 1"),
        ("--battles", "0", "of 1 or more"),
        ("--draft", "-3", "of 0 or more"),
    ],
)
def test_selfplay_refuses_what_cannot_be(tmp_path, option, value, mend, capsys):
    command = ["--players", "random", "--formats", "gen1ou", "--battles", "1", "--out", str(tmp_path), option, value]
    with pytest.raises(SystemExit):
        selfplay.main(command)
    assert f"argument {option}: '{value}': give a " in (said := capsys.readouterr().err)
    assert mend in said


def test_selfplay_goes_on_where_it_was(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert selfplay.run(arguments(whole, 6))["battles"] == 6
    assert selfplay.run(arguments(parts, 4))["battles"] == 4
    assert selfplay.run(arguments(parts, 6))["battles"] == 2
    assert selfplay.run(arguments(parts, 6))["battles"] == 0

    def contents(root):
        return sorted(read_battle(path).actions for path in root.rglob("*.lz4"))

    assert contents(whole) == contents(parts)
    assert len(contents(whole)) == 12
    with pytest.raises(BattleError, match="begun with another players"):
        selfplay.run(arguments(parts, 8, players=["a=random"]))
    with pytest.raises(BattleError, match="begun with another turn_limit, teams"):
        selfplay.run(arguments(parts, 8, turn_limit=3, teams=OWN / "gen1ou" / "evaluation"))
    journal = parts / selfplay.JOURNAL
    head, *rest = journal.read_text().splitlines()
    older = {key: value for key, value in json.loads(head).items() if key not in ("turn_limit", "teams")}
    journal.write_text("\n".join([json.dumps(older), *rest]) + "\n")
    assert selfplay.run(arguments(parts, 6))["battles"] == 0


def test_selfplay_does_not_go_on_with_other_weights_under_the_same_name(tmp_path, monkeypatch):
    """A run that still trains, or was trained again, has other ones in its folder by then."""

    class Model(RandomAgent):
        network = torch.nn.Linear(2, 2)

    monkeypatch.setattr(selfplay, "make_player", lambda spec: Model())
    assert selfplay.run(arguments(tmp_path, 1, players=["runs/x"]))["battles"] == 1
    assert selfplay.run(arguments(tmp_path, 2, players=["runs/x"]))["battles"] == 1
    Model.network = torch.nn.Linear(2, 2)
    with pytest.raises(BattleError, match="begun with another models: repeat that command"):
        selfplay.run(arguments(tmp_path, 3, players=["runs/x"]))


HOLDER = """
import sys, time, pathlib
from data.lock import hold
held = hold(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("command", [selfplay, import_inputlogs])
def test_a_folder_is_one_commands_to_record_in(tmp_path, command, capsys):
    """Two at once would record each battle twice, under two dates."""
    out = tmp_path / "out"
    (tmp_path / "a.jsonl").write_text("")
    asked = {
        selfplay: ["--players", "random", "--formats", "gen1ou", "--battles", "1"],
        import_inputlogs: [str(tmp_path / "a.jsonl")],
    }[command]
    first = subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert first.stdout.readline() == b"held\n"
        assert command.main([*asked, "--out", str(out)]) == 1
        assert f"{out}: another command records there (process {first.pid} on " in capsys.readouterr().out
    finally:
        first.kill()
        first.wait(20)
    assert [path.name for path in out.iterdir()] == [".lock"]
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert command.main([*asked, "--out", str(blocked)]) == 1
    assert f"error: {blocked}: File exists: " in capsys.readouterr().out


def test_selfplay_goes_on_after_a_kill_in_mid_line(tmp_path):
    """Each battle stands once, whatever was recorded and not noted, or noted by half."""
    journal = tmp_path / selfplay.JOURNAL
    selfplay.run(arguments(tmp_path, 4))
    kept = sorted(read_battle(path).actions for path in tmp_path.rglob("*.lz4"))
    lines = journal.read_text().splitlines()
    for path in list(tmp_path.rglob("*-0000003_*")):
        path.rename(path.with_name(re.sub(r"_\d\d-\d\d-\d{4}-[\d:]+_", "_01-01-2020-00:00:00_", path.name)))
    last = next(line for line in lines if '"battle": 3' in line)
    journal.write_text("\n".join(line for line in lines if line != last) + "\n" + last[:20])
    assert selfplay.run(arguments(tmp_path, 4))["battles"] == 1
    assert selfplay.run(arguments(tmp_path, 4))["battles"] == 0
    assert sorted(read_battle(path).actions for path in tmp_path.rglob("*.lz4")) == kept
    assert [line for line in journal.read_text().splitlines() if '"battle": 3' in line][-1] == last

    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / selfplay.JOURNAL).write_text('{"run": "01')
    assert selfplay.run(arguments(empty, 1))["battles"] == 1
    assert selfplay.run(arguments(empty, 1))["battles"] == 0


def test_the_bundled_battles():
    root = Path(__file__).parents[2] / "data" / "sample"
    files = sorted(root.rglob("*.lz4"))
    assert 150 <= len(files) <= 250
    assert sum(path.stat().st_size for path in files) < 2e6
    assert {path.parent.name for path in files} == set(OU)
    encoder = Encoder("opponentmove", Tokenizer.load())
    results = {"WIN": 0, "LOSS": 0}
    for path in files:
        battle, name = read_battle(path), parse_name(path)
        results[name.result] += 1
        encoded = encoder.encode(battle.states, battle.actions)
        assert encoded.n_unknown == 0
        assert encoded.won == (name.result == "WIN")
        assert all(legal_actions(s)[a] for s, a in zip(battle.states[:-1], battle.actions[:-1], strict=True))
        assert len(battle.states[0].available_switches) == 5
    assert min(results.values()) > 50


def test_the_bundled_battles_are_made_anew_and_nobody_elses_taken_away(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sample, "FORMATS", ("gen1ou",))
    folder = tmp_path / "gen1ou"
    folder.mkdir()
    mine = folder / "gen1ou-1_1500_a_vs_b_01-01-2026_WIN.json.lz4"
    for path in (mine, folder / "gen1ou-sample-000a_Unrated_old_vs_old_01-01-2020_WIN.json.lz4"):
        path.write_bytes(b"")
    with monkeypatch.context() as without:
        without.setenv("PATH", "")
        without.delenv("TURNWISE_NODE", raising=False)
        assert sample.main(["--out", str(tmp_path), "--pairs", "1"]) == 1
        assert "error: no `node` on the path" in capsys.readouterr().out
    assert sample.main(["--out", str(tmp_path), "--pairs", "1"]) == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names.pop(0) == mine.name
    assert len(names) == 4
    for name in names:
        bundled = read_battle(ROOT / "data" / "sample" / "gen1ou" / name)
        assert read_battle(folder / name).actions == bundled.actions


@pytest.mark.parametrize(
    "battle_format",
    [*(pytest.param(f"gen{n}ou", marks=pytest.mark.slow) for n in (2, 3)), "gen4ou", "gen9randombattle"],
)
def test_soak(simulator, tmp_path, battle_format):
    findings = soak.soak(simulator, battle_format, 20, tmp_path)
    assert findings.sound, findings.report()
    assert findings.files == 40
    assert findings.states > 500


def test_a_stopped_soak_plays_out_what_is_under_way_and_leaves_no_report(monkeypatch, capsys, tmp_path):
    examine = soak.examine

    def tells(outcome, recorder, encoder, findings):
        if findings.battles == 0:
            signal.raise_signal(signal.SIGINT)
        examine(outcome, recorder, encoder, findings)

    monkeypatch.setattr(soak, "examine", tells)
    place = tmp_path / "soak.json"
    command = ["--battles", "500", "--formats", "gen1ou", "gen9ou", "--json", str(place)]
    assert soak.main(command) == 130
    found, last = capsys.readouterr().out.strip().splitlines()
    assert list(json.loads(found)) == ["gen1ou"]
    assert 1 <= json.loads(found)["gen1ou"]["battles"] <= 40
    assert last == f"stopped: these battles were played out, and no others; no {place}"
    assert not place.exists()


def test_soak_of_a_format_that_is_none_says_so(capsys):
    assert soak.main(["--battles", "2", "--formats", "gen99ou"]) == 1
    assert capsys.readouterr().out.startswith("error: format 'gen99ou'")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_soak_in_full(tmp_path):
    report = tmp_path / "soak.json"
    assert soak.main(["--battles", "1000", "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found.pop("restarts") == 0
    assert set(found) == {*OU, "gen9randombattle"}
    for entry in found.values():
        assert entry["sound"]
        assert entry["battles"] == sum(entry["outcomes"].values()) == 1000
        assert entry["files"] == 2000
        assert set(entry["outcomes"]) <= {"won", "tie"}


@pytest.mark.slow
@pytest.mark.parametrize("battle_format", OU)
def test_soak_with_others_teams(simulator, tmp_path, battle_format):
    if not (SHARED / "teams").is_dir():
        pytest.skip("shared/teams is not here")
    findings = soak.soak(simulator, battle_format, 60, tmp_path, teams=SHARED / "teams")
    assert findings.sound, findings.report()


def human_lines(count):
    source = SHARED / "human" / "gen9randombattle.jsonl.gz"
    if not source.is_file():
        pytest.skip("shared/human is not here")
    with gzip.open(source, "rt") as lines:
        return [next(lines) for _ in range(count)]


def test_input_logs_replay_to_their_hash(tmp_path):
    lines = human_lines(12)
    bad = json.loads(lines[0]) | {"id": "wrong", "lines_sha256": "0" * 64}
    cut = json.loads(lines[1]) | {"id": "cut"}
    cut["choices"] = cut["choices"][:6]
    custom = json.loads(lines[2]) | {"id": "custom", "format": "gen9randombattle@@@sleepclausemod"}
    source = tmp_path / "logs.jsonl"
    source.write_text("".join(lines) + "".join(json.dumps(r) + "\n" for r in (bad, cut, custom)) + "not json\n")
    report = tmp_path / "report.json"
    command = [str(source), "--out", str(tmp_path / "out"), "--json", str(report)]
    assert import_inputlogs.main(command) == 0
    found = json.loads(report.read_text())
    assert found["battles"] == 12
    assert found["choices_unknown"] == 0
    assert sorted(found["dropped"]) == sorted(
        ["other lines than were played", "the log ends before the battle does", "custom rules", "unreadable"]
    )
    paths = list((tmp_path / "out").rglob("*.lz4"))
    assert len(paths) == 24
    encoder = Encoder("opponentmove", Tokenizer.load())
    for path in paths:
        battle = read_battle(path)
        encoded = encoder.encode(battle.states, battle.actions)
        assert encoded.n_unknown == 0
        assert min(battle.actions[:-2], default=0) >= 0  # only the last decision may have been given up
        assert encoded.won or encoded.lost
    journal = tmp_path / "out" / import_inputlogs.JOURNAL
    noted = journal.read_text()
    journal.write_text(noted[: noted.rindex('"')])  # killed in mid-line
    for already_there in (14, 15):
        assert import_inputlogs.main(command) == 0
        found = json.loads(report.read_text())
        assert (found["battles"], found["already_there"]) == (0, already_there)


def test_a_bad_file_is_named_and_the_others_go_on(tmp_path, caplog):
    lines = [line.encode() for line in human_lines(6)]
    names = ("cut.jsonl.gz", "spoilt.jsonl.gz", "logs.tar.gz", "text.jsonl", "a.jsonl")
    files = {name: tmp_path / name for name in names}
    noise = b"".join(os.urandom(40).hex().encode() + b"\n" for _ in range(400))
    whole = gzip.compress(b"".join(lines[:2]) + noise)
    files["cut.jsonl.gz"].write_bytes(whole[: len(whole) - 2000])
    files["spoilt.jsonl.gz"].write_bytes(gzip.compress(b"")[:10] + b"\xff" * 50)
    files["a.jsonl"].write_bytes(b'{"id": "\xff"}\n' + lines[2])
    with tarfile.open(files["logs.tar.gz"], "w:gz") as archive:
        archive.add(files["a.jsonl"], "a.jsonl")
    files["text.jsonl"].write_text("no battle\n")
    report = tmp_path / "report.json"
    command = [*map(str, files.values()), "--out", str(tmp_path / "out"), "--json", str(report)]
    assert import_inputlogs.main(command) == 1
    found = json.loads(report.read_text())
    assert found["battles"] == 3
    assert len(list((tmp_path / "out").rglob("*.lz4"))) == 6
    said = dict(zip(files, found["bad_files"], strict=False))
    assert len(found["bad_files"]) == 4
    assert "cannot be read beyond line" in said["cut.jsonl.gz"]
    assert "cannot be read beyond line 0" in said["spoilt.jsonl.gz"]
    assert "is an archive: unpack it" in said["logs.tar.gz"]
    assert "none of its 1 lines is a battle" in said["text.jsonl"]
    assert all(line in caplog.text for line in found["bad_files"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_battles_of_people_replay(tmp_path):
    human_lines(1)
    report = tmp_path / "human.json"
    source = SHARED / "human" / "gen9randombattle.jsonl.gz"
    assert import_inputlogs.main([str(source), "--out", str(tmp_path / "out"), "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["replayed_share"] >= 0.999
    assert found["choices_unknown"] == 0
    paths = sorted((tmp_path / "out").rglob("*.lz4"))
    assert len(paths) == found["views"] == 2 * found["battles"] > 20_000
    encoder = Encoder("opponentmove", Tokenizer.load())
    unknown = words = 0
    for number, path in enumerate(paths):
        battle, name = read_battle(path), parse_name(path)
        assert min(battle.actions[:-2], default=0) >= 0, path.name
        assert (battle.states[-1].battle_won, battle.states[-1].battle_lost) in (
            (True, False),
            (False, True),
            (False, False),
        )
        if battle.states[-1].battle_won:
            assert name.result == "WIN", path.name
        if number % 4 == 0:
            encoded = encoder.encode(battle.states, battle.actions)
            unknown, words = unknown + encoded.n_unknown, words + encoded.words.size
        path.unlink()
    assert unknown <= 1e-4 * words
    checked = {
        "files_valid": len(paths),
        "words_in_every_fourth_file": words,
        "unknown_words_in_every_fourth_file": unknown,
    }
    report.write_text(json.dumps(found | checked, indent=1))


def write_inputlog(path, record):
    """A record as Showdown's own log of one battle."""
    start = {"formatid": record["format"], "seed": record["seed"]}
    players = [{"name": f"Somebody {n}", "team": team} for n, team in enumerate(record["teams"])]
    text = [">version abc", f">start {json.dumps(start)}"]
    text += [f">player p{n + 1} {json.dumps(player)}" for n, player in enumerate(players)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(text + [f">{choice}" for choice in record["choices"]]))


def test_showdowns_own_input_log(tmp_path):
    write_inputlog(tmp_path / "one.inputlog", json.loads(human_lines(1)[0]))
    (tmp_path / "none.inputlog").write_text(">chat hello\n")
    out = tmp_path / "out"
    command = [str(tmp_path / "none.inputlog"), str(tmp_path / "one.inputlog"), "--out", str(out)]
    assert import_inputlogs.main(command) == 1  # the first is none
    names = [parse_name(path) for path in out.rglob("*.lz4")]
    assert sorted(name.result for name in names) == ["LOSS", "WIN"]
    assert all("Somebody" not in part for name in names for part in map(str, name))


def test_every_baseline_answers_every_state_legally(simulator):
    teams = load_teams(simulator, "gen9ou")
    for make in BASELINES.values():
        agent = make()
        match = Match("b", "gen9ou", (agent, RandomAgent()), 2, (teams[2].packed, teams[3].packed))
        (outcome,) = play(simulator, [match])
        assert outcome.refused == []


def test_of_two_battles_with_one_id_the_second_is_said_to_be_left_out(tmp_path):
    report, out = tmp_path / "report.json", tmp_path / "out"
    files = [tmp_path / server / "1.inputlog" for server in "ab"]
    for file, line in zip(files, human_lines(2), strict=True):
        write_inputlog(file, json.loads(line))
    assert import_inputlogs.main([*map(str, files), "--out", str(out), "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    assert (found["battles"], found["views"]) == (1, len(list(out.rglob("*.lz4"))))
    assert found["dropped"] == {"its id stands twice": 1}
    twice = tmp_path / "twice.jsonl"  # files' names take no "_": these two would be one there
    twice.write_text(
        "".join(
            json.dumps(json.loads(line) | {"id": name}) + "\n"
            for line, name in zip(human_lines(2), ("a_b", "ab"), strict=True)
        )
    )
    assert import_inputlogs.main([str(twice), "--out", str(out), "--json", str(report)]) == 0
    assert json.loads(report.read_text())["dropped"] == {"its id stands twice": 1}


def test_battles_lost_with_their_process_are_replayed_one_by_one(tmp_path):
    """Else those beside the one that it was lost over would be left out, and noted as done."""
    source, steps = tmp_path / "logs.jsonl", []
    source.write_text("".join(human_lines(3)))
    with Simulator() as sim:
        step = sim.step

        def fail():
            if len(steps) in (0, 2):  # all three, and the second of them once more
                sim.workers[0].process.kill()
            steps.append(len(sim.queue))
            return step()

        sim.step = fail
        importer = import_inputlogs.Importer(sim, tmp_path)
        importer.run(import_inputlogs.read_logs([source]))
    assert (importer.battles, dict(importer.reasons)) == (2, {"the simulator failed on it": 1})


@pytest.mark.parametrize(
    "change",
    [
        *({"format": 3}, {"date": "soon"}, {"date": 20240101}, {"date": "2024-13-01"}),
        *({"ratings": {"p1": 1500, "p2": 1400}}, {"ratings": ["high", 1400]}, {"ratings": [1500]}, {"ratings": 3}),
        *({"ratings": [float("inf"), 1400]}, {"seed": None}, {"id": "half a pair: \ud800"}),
    ],
)
def test_a_record_of_no_day_format_or_ratings_is_left_out_by_its_line(tmp_path, change):
    good = {"id": "a", "format": "gen1ou", "seed": "1,2,3,4", "choices": [], "date": "2024-05-01T10:00"}
    file = tmp_path / "logs.jsonl"
    file.write_text("\n".join(json.dumps(record) for record in (good | change, [good], good)))
    bad, no_object, battle = import_inputlogs.read_jsonl(file)
    assert f"{file}:1: not a battle" in str(bad)
    assert f"{file}:2: not a battle" in str(no_object)
    assert battle.date == date(2024, 5, 1)


def played_log(simulator, name):
    """A battle played here as a record of its input log."""
    first, second = (team.packed for team in load_teams(simulator, "gen1ou")[:2])
    match = Match(name, "gen1ou", (TypeSwitchAgent(), RandomAgent()), 3, (first, second), want_log=True)
    (outcome,) = play(simulator, [match])
    lines = [line[1:].split(" ", 1) for line in outcome.log if line.startswith((">start", ">p1", ">p2"))]
    choices = [" ".join(line) for line in lines if line[0] != "start"]
    seed = json.loads(lines[0][1])["seed"]
    return {"id": name, "format": "gen1ou", "seed": seed, "teams": [first, second], "choices": choices}


def test_a_log_runs_no_program(simulator, tmp_path):
    """The simulator's `eval` is for its developers: in a file from anywhere it is no part of a battle."""
    record, mark = played_log(simulator, "a"), tmp_path / "mark"
    evil = (
        f"eval battle.constructor.constructor('return process')().mainModule.require('fs').writeFileSync('{mark}', '')"
    )
    first, *rest = record["choices"]
    source, report = tmp_path / "logs.jsonl", tmp_path / "report.json"
    logs = (
        *(
            record | {"id": f"{n}", "choices": choices}
            for n, choices in enumerate(([evil, first], [f"{first}\n>{evil}"]))
        ),
        record | {"choices": [first, *rest]},
    )
    source.write_text("".join(json.dumps(log) + "\n" for log in logs))
    write_inputlog(tmp_path / "b.inputlog", record | {"choices": [evil, first, *rest]})
    command = [str(source), str(tmp_path / "b.inputlog"), "--out", str(tmp_path / "out"), "--json", str(report)]
    assert import_inputlogs.main(command) == 0
    assert not mark.exists()
    found = json.loads(report.read_text())
    assert (found["battles"], found["dropped"]) == (1, {"a command that is none of a battle": 3})


def test_an_import_that_is_stopped_goes_on_where_it_was(simulator, tmp_path, monkeypatch, capsys):
    record, source, report = played_log(simulator, "a"), tmp_path / "logs.jsonl", tmp_path / "report.json"
    source.write_text("".join(json.dumps(record | {"id": f"{n}"}) + "\n" for n in range(10)))
    command = [str(source), "--out", str(tmp_path / "out"), "--json", str(report)]
    write, told = Recorder.write, []

    def tells(*given):
        if not told:
            told.append(signal.raise_signal(signal.SIGINT))
        return write(*given)

    monkeypatch.setattr(Recorder, "write", tells)
    assert import_inputlogs.main(command) == 130
    assert "stopped: the same command goes on with the rest" in capsys.readouterr().out
    assert not report.exists()
    assert len(list((tmp_path / "out").rglob("*.lz4"))) == 8  # those four of which it was replaying one
    assert import_inputlogs.main(command) == 0
    found = json.loads(report.read_text())
    assert (found["battles"], found["already_there"]) == (6, 4)


def test_a_player_who_takes_another_name_keeps_team_and_rating(simulator, tmp_path):
    log = tmp_path / "one.inputlog"
    write_inputlog(log, played_log(simulator, "one"))
    begun, rest = (
        log.read_text().replace('"name": "Somebody 1",', '"name": "Somebody 1", "rating": 1523,').split(">p1 ", 1)
    )
    log.write_text(f'{begun}>player p2 {{"name":"Other","avatar":"3"}}\n>p1 {rest}')
    assert import_inputlogs.main([str(log), "--out", str(tmp_path / "out")]) == 0
    names = [parse_name(path) for path in (tmp_path / "out").rglob("*.lz4")]
    assert {name.player: name.rating for name in names} == {"p1": 1000, "p2": 1523}  # 1000: unrated
