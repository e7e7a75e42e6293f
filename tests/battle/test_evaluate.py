"""Evaluation by play: repeatable, stopped and gone on with, its players named apart, its refusals."""

import itertools
import json
import os
import shutil
import signal
import textwrap
from pathlib import Path

import numpy as np
import pytest

from battle import evaluate, players
from battle.baselines import RandomAgent
from battle.errors import BattleError
from battle.evaluate import part_of
from battle.interface import answers
from battle.play import play
from battle.players import make_player, parse_player, parse_players
from battle.rating import bradley_terry, elo_margins, gxe, wilson
from battle.recorder import CannotRecord, Recorder
from battle.schedule import seed_of
from battle.teams import Team, team_files

pytestmark = pytest.mark.usefixtures("lent")

ROOT = Path(__file__).parents[2]


def test_one_who_ended_no_battle_has_no_rating_and_spoils_none():
    names = ("random", "boss", "planner")
    arena = evaluate.Arena([evaluate.Counted(make_player(parse_player(name))) for name in names])
    arena.tallies["gen1ou", 0, 1] = evaluate.Tally(wins=1, losses=9)
    arena.tallies["gen1ou", 0, 2] = evaluate.Tally(void=10)
    arena.tallies["gen2ou", 0, 2] = evaluate.Tally(void=10)
    report = arena.report(1.0)
    found = json.loads(json.dumps(report, allow_nan=False))["ratings"]
    two = bradley_terry(np.array([[0.0, 1.0], [9.0, 0.0]]))
    assert [found["gen1ou"][name]["elo"] for name in ("random", "boss")] == [round(elo, 1) for elo in two]
    assert found["gen1ou"]["planner"] == found["all"]["planner"] == {"elo": None, "margin95": None, "gxe": None}
    assert {rating["elo"] for rating in found["gen2ou"].values()} == {None}
    said = evaluate.table(report)
    assert "planner –" in said
    assert "nan" not in said


class Stub:
    """A player by name, who says what it was refused as `TurnwiseAgent` does."""

    def __init__(self, name, refused_mass=None):
        self.name, self.refused_mass = name, refused_mass

    def choose(self, observations):
        return [0] * len(observations)


def test_every_couple_meets_the_same_teams_and_dice_from_both_chairs_and_as_often_as_asked():
    teams = [Team(f"team{n}", str(n)) for n in range(9)]
    arena = evaluate.Arena([evaluate.Counted(Stub(name)) for name in "abc"])

    def met(battles, *, seed=0, battle_format="gen9ou", lead="random"):
        return list(arena.matches(battle_format, [(0, 1), (0, 2)], teams, battles, seed, lead))

    plan = met(3)
    assert [match.id for match in plan] == ["0.1.0a", "0.1.0b", "0.2.0a", "0.2.0b", "0.1.1a", "0.2.1a"]
    seats = [(match.agents[0].name, match.agents[1].name) for match in plan]
    assert seats == [("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("a", "b"), ("a", "c")]

    def dice(plan):
        return [(match.seed, match.teams, match.leads) for match in plan]

    first, second = dice(plan)[0], dice(plan)[4]
    assert dice(plan) == [first] * 4 + [second] * 2
    assert first != second
    assert first[0] == seed_of("evaluate", 0, "gen9ou", 0)  # not self-play's, nor one that breaks with records of old
    assert len({match.leads for match in met(20)}) > 1
    assert {match.leads for match in met(20, lead="first")} == {(0, 0)}
    assert not {match.seed for match in met(20)} & {
        *(match.seed for match in met(20, seed=1)), *(match.seed for match in met(20, battle_format="gen8ou")),
    }  # fmt: skip


def test_the_report_tells_every_battle_from_the_first_ones_chair(monkeypatch):
    monkeypatch.setattr(evaluate.time, "perf_counter", itertools.count(step=0.25).__next__)
    players = [evaluate.Counted(Stub(name, mass)) for name, mass in (("a", [0.25]), ("b", None), ("c", []))]
    arena = evaluate.Arena(players)
    for _ in range(2):  # two decisions in a quarter of a second, twice
        players[0].choose([None, None])
    for number, (kind, winner, turns) in enumerate([("won", 0, 10), ("won", 0, 20), ("won", 1, 30), ("tie", -1, 40)]):
        # Of each pair's second battle the first player sits in the other chair.
        arena.count(f"0.1.{number}a", "gen2ou", kind, winner, turns, refused=number)
    arena.count("0.1.0b", "gen2ou", "won", 1, 50, refused=0)
    arena.count("0.1.1b", "gen2ou", "void", -1, 70, refused=2)
    arena.count("0.2.0b", "gen1ou", "won", 0, 8, refused=0)
    report = arena.report(12.34)
    other, row = report["results"]
    assert (other["format"], other["player"], other["opponent"], other["losses"]) == ("gen1ou", "a", "c", 1)
    low, high = wilson(3.5, 5)
    assert row == {
        "format": "gen2ou", "player": "a", "opponent": "b", "battles": 5, "wins": 3, "losses": 1, "ties": 1, "void": 1,
        "win_rate": 0.7, "interval95": [low, high], "turns_mean": 30.0, "refused_choices": 8,
    }  # fmt: skip
    told = {name: list(each.values()) for name, each in report["players"].items()}
    assert told == {"a": [4, 8.0, 0.25, ""], "b": [0, None, None, ""], "c": [0, None, None, ""]}
    assert report["seconds"] == 12.3
    assert list(report["ratings"]) == ["gen1ou", "gen2ou", "all"]
    scores = np.array([[0, 3.5, 0], [1.5, 0, 0], [1, 0, 0]])
    elo = bradley_terry(scores)
    expected = zip(elo, elo_margins(scores, elo), gxe(elo), strict=True)
    found = [list(rating.values()) for rating in report["ratings"]["all"].values()]
    assert found == [[round(elo, 1), round(margin, 1), round(share, 4)] for elo, margin, share in expected]

    head, first, second, *over, speeds = evaluate.table(report).splitlines()
    over, ratings = over[:2], over[2:]
    assert [line.split()[:5] for line in over] == [["all", "a", "b", "5", "70.0%"], ["all", "a", "c", "1", "0.0%"]]
    assert head.split()[:3] == ["format", "player", "opponent"]
    assert first.split()[:5] == ["gen1ou", "a", "c", "1", "0.0%"]
    assert second.split() == [
        "gen2ou", "a", "b", "5", "70.0%", f"{low:.1%}–", f"{high:.1%}", "30.0", "refused", "8", "void", "1",
    ]  # fmt: skip
    best, *_ = sorted(report["ratings"]["gen2ou"].items(), key=lambda item: -(item[1]["elo"] or 0))
    assert best[0] == "a"
    told = f"a {best[1]['elo']:.0f} ± {best[1]['margin95']:.0f} (GXE {best[1]['gxe']:.0%})"
    assert ratings[1].startswith(f"gen2ou, Elo ± its 95% margin: {told}, b ")
    assert ratings[1].endswith(", c –")
    assert speeds == "decisions/s: a 8"


def test_over_several_formats_each_opponent_has_a_row_of_all_their_battles():
    """Not the mean of the formats' rates: gen2ou has four times the battles."""
    arena = evaluate.Arena([evaluate.Counted(Stub(name)) for name in "abc"])
    arena.tallies["gen1ou", 0, 1] = evaluate.Tally(wins=8, losses=1, ties=1, void=2, turns=300, refused=3)
    assert arena.report(1.0)["over_formats"] == []  # the one format's row says it
    arena.tallies["gen1ou", 0, 2] = evaluate.Tally(void=1)
    arena.tallies["gen2ou", 0, 1] = evaluate.Tally(wins=10, losses=27, ties=3, void=1, turns=900, refused=1)
    report = json.loads(json.dumps(arena.report(1.0), allow_nan=False))
    assert len(report["results"]) == 3
    row, empty = report["over_formats"]
    assert row == {
        "format": "all", "player": "a", "opponent": "b", "battles": 50, "wins": 18, "losses": 28, "ties": 4, "void": 3,
        "win_rate": 0.4, "interval95": list(wilson(20, 50)), "turns_mean": 24.0, "refused_choices": 4,
    }  # fmt: skip
    assert (empty["opponent"], empty["battles"], empty["win_rate"], empty["void"]) == ("c", 0, None, 1)
    (line,) = [line for line in evaluate.table(report).splitlines() if line.startswith("all  ") and " b " in line]
    low, high = wilson(20, 50)
    assert line.split() == [
        "all", "a", "b", "50", "40.0%", f"{low:.1%}–", f"{high:.1%}", "24.0", "refused", "4", "void", "3",
    ]  # fmt: skip


def arguments(*more):
    return evaluate.parser().parse_args(
        ["--agent", "type_switch", "--against", "random", "--formats", "gen1ou", "--battles", "8", *more]
    )


def test_the_same_seed_gives_the_same_evaluation_and_the_better_player_wins():
    first, second = evaluate.run(arguments()), evaluate.run(arguments("--lanes", "3"))
    assert first["results"] == second["results"]
    (row,) = first["results"]
    assert list(first["ratings"]) == ["gen1ou"]
    assert row["battles"] == 8
    assert row["win_rate"] >= 0.8
    assert row["refused_choices"] == 0
    assert evaluate.run(arguments("--seed", "1"))["results"] != first["results"]
    assert "type_switch" in evaluate.table(first)


def test_a_stop_lets_the_battles_under_way_end_and_shows_them_and_the_same_command_goes_on(
    monkeypatch, capsys, tmp_path
):
    choose, told = evaluate.Counted.choose, []

    def tells(self, observations):
        if not told:
            told.append(signal.raise_signal(signal.SIGINT))
        return choose(self, observations)

    monkeypatch.setattr(evaluate.Counted, "choose", tells)
    before, place = signal.getsignal(signal.SIGINT), tmp_path / "play.json"
    asked = ["--agent", "random", "--against", "most_damage", "--formats", "gen9randombattle", "gen1ou"]
    asked += ["--battles", "6", "--lanes", "3", "--json"]
    assert evaluate.main([*asked, str(place)]) == 130
    row, *_, last = capsys.readouterr().out.strip().splitlines()[1:]
    assert row.split()[:4] == ["gen9randombattle", "random", "most_damage", "3"]
    assert last == f"stopped: these battles were played out, and no others; no {place} yet: the same command goes on"
    assert not place.exists()
    assert signal.getsignal(signal.SIGINT) is before
    played = []

    def counted(sim, plan, **options):
        return play(sim, (played.append(match) or match for match in plan), **options)

    monkeypatch.setattr(evaluate, "play", counted)
    assert evaluate.main([*asked, str(place)]) == 0
    assert len(played) == 12 - 3
    assert evaluate.main([*asked, str(tmp_path / "whole.json")]) == 0
    reports = [json.loads(path.read_text()) for path in (place, tmp_path / "whole.json")]
    assert reports[0]["results"] == reports[1]["results"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["play.json", "whole.json"]


@pytest.mark.slow
def test_what_another_command_left_is_no_part_of_this_one(tmp_path):
    place = tmp_path / "play.json"
    base = ["--agent", "random", "--against", "boss", "--formats", "gen1ou", "--json", str(place)]

    def rows(*more, battles="4"):
        return evaluate.run(evaluate.parser().parse_args([*base, "--battles", battles, *more]))

    rows()
    journal = tmp_path / "play.json.part" / evaluate.JOURNAL
    assert len(journal.read_text().splitlines()) == 5
    with pytest.raises(BattleError, match=r"begun with another seed \(0 → 7\): repeat .* a fresh --json"):
        rows("--seed", "7")
    assert len(journal.read_text().splitlines()) == 5
    longer = rows(battles="6")  # no other command: it goes on behind them
    assert (longer["battles_before"], longer["results"][0]["battles"]) == (4, 6)


@pytest.mark.slow
def test_a_resumed_evaluation_records_each_battle_once(tmp_path, monkeypatch):
    """A disk that is full for one file ends the command; that battle is played and recorded by the next start."""
    record, full = Recorder.record, []

    def once(self, outcome, *names):
        written = record(self, outcome, *names)
        if not full:
            full.append(True)
            raise CannotRecord("planted")
        return written

    monkeypatch.setattr(Recorder, "record", once)
    base = ["--agent", "random", "--against", "boss", "--formats", "gen1ou", "--battles", "4", "--lanes", "2"]
    asked = [*base, "--json", str(tmp_path / "play.json"), "--record", str(tmp_path / "battles")]
    assert evaluate.main(asked) == 1
    assert evaluate.main(asked) == 0
    assert len(list((tmp_path / "battles").rglob("*.lz4"))) == 8
    assert not (tmp_path / "play.json.part").exists()


def test_a_failure_shows_what_was_played_before(monkeypatch, capsys, tmp_path):
    choose, calls = evaluate.Counted.choose, []

    def fails(self, observations):
        calls.append(observations[0].lane)
        if calls[-1].startswith("0.1.1"):  # of the second pair, one at a time
            raise BattleError("on purpose")
        return choose(self, observations)

    monkeypatch.setattr(evaluate.Counted, "choose", fails)
    place = tmp_path / "play.json"
    command = ["--agent", "random", "--against", "boss", "--battles", "6", "--lanes", "1", "--json", str(place)]
    assert evaluate.main(command) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[1].split()[:4] == ["gen1ou", "random", "boss", "2"]
    assert "error: on purpose: these battles were played before, and no others; no " in said.err
    assert not place.exists()


def test_a_format_named_twice_is_played_and_counted_once():
    report = evaluate.run(arguments("--battles", "2", "--formats", "gen1ou", "gen1ou"))
    assert [(row["format"], row["battles"]) for row in report["results"]] == [("gen1ou", 2)]
    assert report["formats"] == ["gen1ou"]


@pytest.mark.slow
def test_random_against_itself_is_even():
    args = evaluate.parser().parse_args(
        ["--agent", "random", "--against", "random", "--formats", "gen9randombattle", "--battles", "24"]
    )
    (row,) = evaluate.run(args)["results"]
    low, high = row["interval95"]
    assert low < 0.5 < high


def test_a_baseline_of_ones_own_plays_where_the_docs_put_it(monkeypatch, capsys):
    page = (ROOT / "docs" / "playing.md").read_text(encoding="utf-8")
    told = page[page.index("One of your\nown needs") :]
    code = told[told.index("    class ") : told.index("\n\n###")]
    assert "a place in `BASELINES` of `battle/players.py`" in told
    exec(textwrap.dedent(code), made := {})
    monkeypatch.setitem(players.BASELINES, "first", made["First"])
    assert evaluate.main(["--agent", "first", "--against", "random", "--battles", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["gen1ou", "first", "random", "2"]


def test_evaluation_says_what_is_wrong(capsys):
    assert evaluate.main(["--agent", "nobody", "--battles", "1"]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert evaluate.main(["--agent", "random", "--against", "random", "--formats", "gen77ou", "--battles", "1"]) == 1
    assert "gen77ou" in capsys.readouterr().err


def test_a_command_that_is_refused_leaves_nothing_beside_its_report(tmp_path, capsys):
    command = ["--agent", "random", "--against", "boss", "--formats", "gen99ou", "--json", str(tmp_path / "play.json")]
    assert evaluate.main(command) == 1
    assert "gen99ou" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_teams_that_are_missing_are_said_before_the_first_battle(tmp_path, monkeypatch, capsys):
    for file in team_files("gen1ou", None, "evaluation"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(evaluate, "play", lambda *_, **__: pytest.fail("played"))
    command = ["--agent", "random", "--against", "boss", "--formats", "gen1ou", "gen2ou", "--teams", str(tmp_path)]
    assert evaluate.main([*command, "--battles", "2"]) == 1
    assert "no *.gen2ou_team file" in capsys.readouterr().err


def labels(*texts):
    return [spec.label for spec in parse_players(texts)]


def test_players_of_one_name_are_told_apart():
    assert labels("runs/new/model", "runs/old/model", "random") == ["new/model", "old/model", "random"]
    assert labels("/x/a/model", "/y/a/model", "b/model") == ["x/a/model", "y/a/model", "b/model"]
    assert labels("random", "runs/random") == ["random", "runs/random"]
    assert labels("random", "random:weight=2") == ["random", "random"]  # one player, named twice
    for texts in (("a=random", "a=boss"), ("x/m:temperature=1", "x/m"), ("a=x/m", "a=y/m")):
        with pytest.raises(BattleError, match="give one of them another label"):
            parse_players(texts)


def test_an_agent_that_answers_too_few_is_named(monkeypatch, capsys):
    class Silent(RandomAgent):
        name = "silent"

        def choose(self, observations):
            return []

    monkeypatch.setitem(players.BASELINES, "silent", Silent)
    assert evaluate.main(["--agent", "silent", "--against", "random", "--formats", "gen1ou", "--battles", "2"]) == 1
    assert "player 'silent': choose gave 0 actions for 2 observations" in capsys.readouterr().err


@pytest.mark.parametrize("given", [None, 3, [None], [1.5], ["a"]])
def test_an_agent_that_answers_by_no_list_of_whole_numbers_is_told_what_to_give(given):
    class Own(RandomAgent):
        def choose(self, observations):
            return given

    with pytest.raises(BattleError, match=r"player 'random': choose gave .*: give a list of action ids"):
        answers(Own(), [None])


def test_an_agent_may_answer_by_an_array():
    class Own(RandomAgent):
        def choose(self, observations):
            return np.array([3, 12])

    assert answers(Own(), [None, None]) == [3, 12]


def test_no_opponent_is_left_out_for_its_name(capsys):
    command = ["--formats", "gen1ou", "--battles", "2", "--agent"]
    assert evaluate.main([*command, "a=type_switch", "--against", "a=random", "boss"]) == 1
    assert "'type_switch' and 'random': both would be called 'a'" in capsys.readouterr().err
    report = evaluate.run(evaluate.parser().parse_args([*command, "random", "--against", "random", "boss"]))
    assert [(row["player"], row["opponent"]) for row in report["results"]] == [("random", "boss")]


def test_a_report_that_cannot_be_written_is_refused_before_play(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "report.json"):
        with pytest.raises(SystemExit) as end:
            evaluate.main(["--agent", "random", "--against", "boss", "--json", str(place)])
        assert end.value.code == 2
        assert f"argument --json: '{place}': cannot be written: give another file" in capsys.readouterr().err


def test_battles_are_noted_beside_the_report_where_a_folder_can_stand_there(tmp_path, monkeypatch):
    assert part_of(tmp_path / "report.json") == tmp_path / "report.json.part"
    assert part_of(None) is part_of(Path(os.devnull)) is None
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and mode == os.W_OK)
    assert part_of(tmp_path / "report.json") is None
    assert part_of(tmp_path / "other" / "report.json")


@pytest.mark.parametrize("option", ["--battles", "--lanes", "--processes", "--turn-limit"])
@pytest.mark.parametrize("value", ["0", "-2", "some"])
def test_a_count_of_nothing_is_refused(option, value, capsys):
    with pytest.raises(SystemExit) as end:
        evaluate.main(["--agent", "random", "--against", "boss", f"{option}={value}"])
    assert end.value.code == 2
    assert f"argument {option}: '{value}': give a whole number of 1 or more" in capsys.readouterr().err


def test_report_is_json(tmp_path):
    path = tmp_path / "sub" / "report.json"
    assert (
        evaluate.main(
            [*["--agent", "random", "--against", "boss", "--formats", "gen1ou", "--battles", "2", "--json"], str(path)]
        )
        == 0
    )
    assert json.loads(path.read_text())["results"][0]["battles"] == 2
