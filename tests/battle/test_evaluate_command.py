"""Evaluation's command: who meets whom, what is asked for, what is noted, and how it ends."""

import errno
import json
import os
import re
from pathlib import Path

import pytest

from battle import evaluate
from battle.errors import BattleError
from tests.battle.told import stop_after_each, tell


def met(*words):
    """The couples by name."""
    arena, couples = evaluate.enter(evaluate.parser().parse_args(words))
    names = [player.name for player in arena.players]
    return [f"{names[i]} {names[j]}" for i, j in couples]


def test_the_agents_meet_everybody_and_the_others_each_other_only_if_asked():
    assert met("--agent", "random", "--against", "boss", "planner") == ["random boss", "random planner"]
    assert met("--agent", "random", "boss", "--against", "planner") == ["random boss", "random planner", "boss planner"]
    everybody = ["random boss", "random planner", "boss planner"]
    assert met("--agent", "random", "--against", "boss", "planner", "--round-robin") == everybody
    assert met("--agent", "random") == [
        f"random {name}" for name in ("boss", "most_damage", "type_switch", "planner", "simple_heuristics")
    ]
    # Who is named twice is one player, and as many as are named once.
    assert met("--agent", "random", "random", "--against", "boss", "planner") == ["random boss", "random planner"]
    assert met("--agent", "random", "--against", "random") == ["random random'"]


def asked_for(place, *more):
    base = ["--agent", "random", "--against", "boss", "--formats", "gen1ou", "gen9ou", "--battles", "4"]
    return [*base, *(["--json", str(place)] if place else []), *more]


def test_what_the_command_is_told_reaches_the_battles(tmp_path, monkeypatch):
    asked, made = tell(monkeypatch, evaluate, ("won", 0)), {}
    recorder = evaluate.Recorder
    monkeypatch.setattr(evaluate, "Recorder", lambda *rest, **more: made.update(more) or recorder(*rest, **more))
    place = tmp_path / "r.json"
    more = ["--lanes", "3", "--turn-limit", "70", "--processes", "2", "--lead", "random", "--seed", "8"]
    more += ["--teams", str(tmp_path / "t"), "--record", str(tmp_path / "battles")]
    assert evaluate.main(asked_for(place, *more)) == 0
    assert asked.options == {"lanes": 3, "turn_limit": 70}
    assert (asked.processes, asked.checked) == (2, ["gen1ou", "gen9ou"])
    assert asked.loaded == [(name, tmp_path / "t", {"purpose": "evaluation"}) for name in ("gen1ou", "gen9ou")]
    assert {match.lead_rule for match in asked.matches} == {"random"}
    assert (made["version"], len(list((tmp_path / "battles").rglob("*.lz4")))) == ("1.2", 2 * 8)
    report = json.loads(place.read_text())
    told = {key: report[key] for key in ("formats", "battles", "seed", "simulator")}
    assert told == {"formats": ["gen1ou", "gen9ou"], "battles": 4, "seed": 8, "simulator": "1.2"}
    assert not {"battles_before", "stopped", "failure"} & report.keys()
    seeds = [match.seed for match in asked.matches]
    other = tell(monkeypatch, evaluate, ("won", 0))
    assert evaluate.main(asked_for(None, "--seed", "9")) == 0
    assert not {match.seed for match in other.matches} & set(seeds)
    assert {match.lead_rule for match in other.matches} == {"first"}


@pytest.mark.parametrize("error", [BattleError("on purpose"), OSError(5, "on purpose"), ValueError("on purpose")])
def test_the_same_command_goes_on_behind_a_failure(tmp_path, monkeypatch, capsys, error):
    """A void battle is played again; the next format is not begun by who failed in this one."""
    place = tmp_path / "r.json"
    recorded = ["--record", str(tmp_path / "battles")]
    tell(monkeypatch, evaluate, ("won", 0), ("void", -1), ("tie", -1), error)
    assert evaluate.main(asked_for(place, *recorded)) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[1].split()[:4] == ["gen1ou", "random", "boss", "2"]
    assert "on purpose: these battles were played before, and no others" in said.err
    assert said.err.endswith(f"; no {place} yet: the same command goes on\n")
    # A battle that was recorded and not noted, as a kill leaves it.
    noted = next((tmp_path / "battles" / "gen1ou").glob("*0.1.0a*"))
    left = noted.with_name(re.sub(r"0.1.0a(.*)_..-..-....", r"0.1.1b\1_01-01-2020", noted.name))
    noted.rename(left)
    # Another format's battle of a noted one's id.
    other = tmp_path / "battles" / "gen9ou" / left.name.replace("gen1ou", "gen9ou").replace("0.1.1b", "0.1.0a")
    other.parent.mkdir()
    other.touch()
    asked = tell(monkeypatch, evaluate, ("won", 1), refused=1)
    assert evaluate.main(asked_for(place, *recorded)) == 0
    assert "| 2/8 [" in (bar := capsys.readouterr().err)
    assert "| 8/8 [" in bar
    assert [match.id for match in asked.matches][:2] == ["0.1.0b", "0.1.1b"]
    assert len(asked.matches) == 2 + 4
    report = json.loads(place.read_text())
    row = report["results"][0]
    assert (report["battles_before"], row["battles"], row["void"], row["ties"]) == (2, 4, 0, 1)
    assert (row["wins"], row["refused_choices"], row["turns_mean"]) == (3, 2, (11 + 13 + 11 + 12) / 4)
    assert not (tmp_path / "r.json.part").exists()
    names = {path.name.split("_")[0] for path in (tmp_path / "battles").rglob("*.lz4")}
    assert len(names) == 8
    assert not left.exists()
    assert not other.exists()


def test_a_failure_without_a_word_is_none_the_less_one(tmp_path, monkeypatch, capsys):
    """An agent of one's own may raise a bare ValueError: its report had passed for the whole."""
    tell(monkeypatch, evaluate, ("won", 0), ValueError())
    assert evaluate.main(asked_for(tmp_path / "r.json")) == 1
    assert "error: ValueError: these battles were played before" in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize("place", [None, os.devnull])
def test_nothing_goes_on_where_nothing_can_be_noted(monkeypatch, capsys, place):
    tell(monkeypatch, evaluate, ("won", 0), BattleError("on purpose"))
    assert evaluate.main(asked_for(place)) == 1
    assert capsys.readouterr().err.endswith(f"and no others{f'; no {place}' if place else ''}\n")


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("--seed=1", "seed (0 → 1)"), ("--lead=random", "lead (first → random)"), ("--round-robin", "round_robin"),
        ("--turn-limit=9", "turn_limit"), ("--agent=planner", "agent"), ("--against=planner", "against"),
        ("--record=DIR", "record (None → "),
    ],
)  # fmt: skip
def test_another_command_does_not_go_on_with_these_battles(tmp_path, monkeypatch, capsys, option, key):
    tell(monkeypatch, evaluate, ("won", 0), BattleError("on purpose"))
    assert evaluate.main(asked_for(tmp_path / "r.json")) == 1
    assert evaluate.main(asked_for(tmp_path / "r.json", option.replace("DIR", str(tmp_path / "b")))) == 1
    assert f"was begun with another {key}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "other", "key"),
    [
        ("Simulator.version", "1.3", "simulator (1.2 → 1.3)"),
        ("load_teams", lambda *_, **__: [evaluate.Team("t", "other")], "teams"),
        ("make_player", lambda spec: Named(spec.label + "2"), "players (random boss → random2 boss2)"),
        ("make_player", lambda spec: Named(spec.label, gamma=0.9), "acts"),
    ],
)
def test_nor_does_the_same_where_it_means_another_thing_by_now(tmp_path, monkeypatch, capsys, name, other, key):
    place = tmp_path / "r.json"
    monkeypatch.setattr(evaluate, "make_player", lambda spec: Named(spec.label))
    tell(monkeypatch, evaluate, ("won", 0), BattleError("on purpose"))
    assert evaluate.main(asked_for(place)) == 1
    monkeypatch.setattr(f"battle.evaluate.{name}", other)
    assert evaluate.main(asked_for(place)) == 1
    assert f"was begun with another {key}: repeat" in capsys.readouterr().err


def test_a_folder_for_battles_is_looked_at_before_the_first_one(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        evaluate.main([*asked_for(tmp_path / "r.json"), "--record", str(tmp_path / "file" / "b")])
    assert "b': cannot be written: give another folder" in capsys.readouterr().err


class Named:
    def __init__(self, name, **facts):
        self.name = name
        vars(self).update(facts)


def test_a_note_that_says_less_than_is_counted_is_no_note(tmp_path, monkeypatch):
    place = tmp_path / "r.json"
    tell(monkeypatch, evaluate, ("won", 0), ("won", 1), BattleError("on purpose"))
    assert evaluate.main(asked_for(place)) == 1
    journal = tmp_path / "r.json.part" / evaluate.JOURNAL
    head, first, second = journal.read_text().splitlines()
    second = json.loads(second)
    del second["refused"]
    journal.write_text("\n".join([head, first, json.dumps(second)]) + "\n")
    asked = tell(monkeypatch, evaluate, ("won", 0))
    assert evaluate.main(asked_for(place)) == 0
    assert asked.matches[0].id == "0.1.0b"
    assert len(asked.matches) == 7


def test_the_report_is_kept_where_its_table_cannot_be_said(tmp_path, monkeypatch, capsys):
    tell(monkeypatch, evaluate, ("won", 0))
    place = tmp_path / "r.json"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stdout.write", full)
    monkeypatch.setattr("data.terminal.silence_output", lambda: None)  # it would be pytest's own
    with pytest.raises(SystemExit, match="standard output: No space left on device"):
        evaluate.main(asked_for(place))
    assert json.loads(place.read_text())["battles"] == 4
    assert "win rate" in capsys.readouterr().err


def test_a_stop_begins_no_further_battle_and_no_further_format(tmp_path, monkeypatch, capsys):
    asked = tell(monkeypatch, evaluate, ("won", 0))
    stop_after_each(monkeypatch, evaluate)
    assert evaluate.main(asked_for(tmp_path / "r.json")) == 130
    assert len(asked.matches) == 1
    assert "stopped: these battles were played out" in capsys.readouterr().out


def test_the_folder_of_notes_is_held(tmp_path, monkeypatch, capsys):
    def held(folder):
        raise BattleError(f"{folder.name} is another's")

    asked = tell(monkeypatch, evaluate, ("won", 0))
    monkeypatch.setattr(evaluate, "claim", held)
    assert evaluate.main(asked_for(tmp_path / "r.json")) == 1
    assert "r.json.part is another's" in capsys.readouterr().err
    assert not asked.matches


def test_the_table_is_shown_where_the_report_cannot_be_written_and_nothing_is_played_again(
    tmp_path, monkeypatch, capsys
):
    write = Path.write_text

    def no_room(path, *rest, **more):
        raise OSError(28, "No space left on device")

    place = tmp_path / "r.json"
    tell(monkeypatch, evaluate, ("won", 0))
    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", lambda p, *a, **k: (no_room if p == place else write)(p, *a, **k))
        assert evaluate.main(asked_for(place)) == 1
    out, err = capsys.readouterr()
    assert f"error: {place}: No space left on device: " in err
    assert "gen9ou" in out
    asked = tell(monkeypatch, evaluate, ("won", 0))
    assert evaluate.main(asked_for(place)) == 0
    assert not asked.matches
    assert json.loads(place.read_text())["results"][0]["battles"] == 4
