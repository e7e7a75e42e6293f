"""Self-play: what each battle of a run is, and what its command asks for and tells."""

import collections
import json
from types import SimpleNamespace

import pytest

from battle import selfplay
from battle.errors import BattleError
from battle.players import PlayerSpec
from battle.schedule import leads
from battle.teams import Team
from tests.battle.told import stop_after_each, tell

TEAMS = {name: [Team(f"{name}{n}", f"packed {n}") for n in range(3)] for name in ("gen1ou", "gen9ou")}


def pool(weights=(3.0, 1.0), **changes):
    asked = {"seed": 5, "formats": ["gen1ou", "gen9ou"], "explore": 0.1, "lead": "random"} | changes
    specs = [PlayerSpec(f"p{n}", "random", (), weight) for n, weight in enumerate(weights)]
    return selfplay.Pool(specs, [SimpleNamespace(name=spec.label) for spec in specs], SimpleNamespace(**asked))


def test_a_battle_is_a_function_of_the_seed_and_its_number():
    plan = [pool().match(number, TEAMS) for number in range(400)]
    assert [match.id for match in plan[:2]] == ["5-0000000", "5-0000001"]
    assert [match.format for match in plan[:4]] == ["gen1ou", "gen9ou"] * 2
    again = pool().match(17, TEAMS)
    assert (again.seed, again.team_names, again.leads) == (plan[17].seed, plan[17].team_names, plan[17].leads)
    assert len({match.seed for match in plan} | {pool(seed=6).match(n, TEAMS).seed for n in range(400)}) == 800
    seats = collections.Counter((a.name, b.name) for a, b in (match.agents for match in plan))
    # Three to one, in either chair; a player may meet itself.
    assert 200 <= seats["p0", "p0"] <= 250
    assert 50 <= seats["p0", "p1"] <= 100
    assert 50 <= seats["p1", "p0"] <= 100
    assert 10 <= seats["p1", "p1"] <= 40
    for match in plan:
        assert match.explore == (0.1, 0.1)
        assert (match.lead_rule, match.leads) == ("random", leads(match.seed, "random"))
        assert len(set(match.team_names)) == 2
        assert match.teams == tuple(f"packed {name[-1]}" for name in match.team_names)
        assert all(name.startswith(match.format) for name in match.team_names)
    assert len({match.team_names for match in plan}) == 2 * 6
    first = pool(lead="first").match(0, TEAMS)
    assert (first.lead_rule, first.leads) == ("first", (0, 0))
    assert pool().match(0, {"gen1ou": TEAMS["gen1ou"][:1]}).team_names == ("gen1ou0", "gen1ou0")


@pytest.mark.parametrize("weights", [(1.0, 0.0), (1.0, -1.0)])
def test_a_weight_that_is_none_is_refused(weights):
    with pytest.raises(BattleError, match="every weight must be above 0"):
        pool(weights)


def command(out, *more):
    players = ["--players", "a=random", "b=type_switch"]
    return [*players, "--formats", "gen1ou", "gen9ou", "--battles", "6", "--out", str(out), *more]


def test_what_the_command_is_told_reaches_the_battles(tmp_path, monkeypatch):
    asked, made = tell(monkeypatch, selfplay, ("won", 0)), {}
    recorder = selfplay.Recorder
    monkeypatch.setattr(selfplay, "Recorder", lambda *rest, **more: made.update(more) or recorder(*rest, **more))
    drafted = []
    monkeypatch.setattr(selfplay, "drafted", lambda *asked: drafted.append(asked[1:2] + asked[3:]) or [Team("d", "d")])
    more = ["--lanes", "3", "--turn-limit", "70", "--processes", "2", "--level", "9", "--teams", str(tmp_path / "t")]
    assert selfplay.main(command(tmp_path / "o", *more, "--draft", "1", "--seed", "8")) == 0
    assert asked.options == {"lanes": 3, "turn_limit": 70}
    assert (asked.processes, asked.checked) == (2, ["gen1ou", "gen9ou"])
    assert [(name, folder) for name, folder, _ in asked.loaded] == [(n, tmp_path / "t") for n in ("gen1ou", "gen9ou")]
    assert (made["level"], made["version"]) == (9, "1.2")
    assert drafted == [("gen1ou", 1, 8), ("gen9ou", 1, 8)]
    names = {name for match in asked.matches for name in match.team_names}
    assert "d" in names
    assert names - {"d"}
    assert {match.lead_rule for match in asked.matches} == {"random"}


def test_the_report_tells_of_each_battle_and_a_void_one_is_played_again(tmp_path, monkeypatch, capsys):
    ends = [("won", 0), ("won", 1), ("tie", -1), ("void", -1), ("cut", -1), ("won", 0)]
    asked = tell(monkeypatch, selfplay, *ends, refused=2)
    assert selfplay.main(command(tmp_path)) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["battles"], report["outcomes"]) == (6, {"won": 3, "tie": 1, "void": 1, "cut": 1})
    assert (report["files"], report["refused_choices"]) == (10, 12)
    winners = [match.agents[end[1]].name for match, end in zip(asked.matches, ends, strict=True) if end[1] >= 0]
    assert report["wins"] == collections.Counter(winners)
    head, *notes = map(json.loads, (tmp_path / selfplay.JOURNAL).read_text().splitlines())
    assert [(note["battle"], note["kind"], note["turns"]) for note in notes] == [
        (0, "won", 11), (1, "won", 12), (2, "tie", 13), (4, "cut", 15), (5, "won", 16),
    ]  # fmt: skip
    assert head["simulator"] == "1.2"
    # What a kill left recorded and not noted would stand twice, under two dates.
    left = [tmp_path / "gen9ou" / f"gen9ou-{head['run']}-0-000000{n}_x_01-01-2020_WIN.json.lz4" for n in (1, 3)]
    for file in left:
        file.touch()
    again = tell(monkeypatch, selfplay, ("won", 0))
    assert selfplay.main(command(tmp_path)) == 0
    assert [file.exists() for file in left] == [True, False]
    assert [match.id for match in again.matches] == ["0-0000003"]
    assert "| 5/6 [" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "key"),
    [
        ("--seed=1", "seed"), ("--lead=first", "lead"), ("--explore=0.5", "explore"), ("--draft=1", "draft"),
        ("--turn-limit=9", "turn_limit"), ("--formats=gen1ou", "formats"), ("--players=a=random", "players"),
    ],
)  # fmt: skip
def test_another_command_does_not_go_on_with_these_battles(tmp_path, monkeypatch, capsys, option, key):
    monkeypatch.setattr(selfplay, "drafted", lambda *asked: [])
    tell(monkeypatch, selfplay, ("won", 0))
    assert selfplay.main(command(tmp_path)) == 0
    assert selfplay.main(command(tmp_path, option)) == 1
    assert f"was begun with another {key} (" in capsys.readouterr().err


def test_a_stopped_command_says_so_and_begins_no_further_battle(tmp_path, monkeypatch, capsys):
    asked = tell(monkeypatch, selfplay, ("won", 0))
    stop_after_each(monkeypatch, selfplay)
    assert selfplay.main(command(tmp_path)) == 130
    assert (json.loads(capsys.readouterr().out)["battles"], len(asked.matches)) == (1, 1)
