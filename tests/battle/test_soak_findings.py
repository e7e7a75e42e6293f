"""What a soak plays, what it finds in the files, and what it calls sound."""

import collections
import json
from types import SimpleNamespace

import pytest

from battle import soak
from battle.play import Outcome, View
from battle.teams import Team
from tests.battle.told import tell
from tests.battle_files import Style, make_battle, write_battle


def views_of(*battles):
    return tuple(
        View([json.dumps(state).encode() for state in battle.states], list(battle.actions), [0] * len(battle.states))
        for battle in battles
    )


@pytest.fixture
def views():
    return views_of(*(make_battle(seed, "gen1ou", Style(max_turns=6)) for seed in (1, 2)))


def test_everybody_plays_everybody_from_both_chairs_as_often_as_asked():
    agents, teams = [SimpleNamespace(name=name) for name in "xy"], [Team(name, name) for name in "abc"]

    def plan(battles, seed=0):
        return list(soak.matches("gen9ou", agents, teams, battles, seed))

    met = ["".join(agent.name for agent in match.agents) for match in plan(7)]
    assert met == ["xx", "xx", "xy", "yx", "yy", "yy", "xx"]
    assert len({match.id for match in plan(7)}) == 7
    assert {match.lead_rule for match in plan(7)} == {"random"}
    assert len({match.seed for match in plan(8)} | {match.seed for match in plan(8, seed=1)}) == 8


@pytest.mark.parametrize(
    ("fault", "sound"),
    [
        ({}, True), ({"unknown": 1}, True), ({"unknown": 2}, False), ({"refused": ["x"]}, False),
        ({"invalid": ["x"]}, False), ({"kinds": collections.Counter(void=1)}, False),
    ],
)  # fmt: skip
def test_one_fault_is_enough(fault, sound):
    findings = soak.Findings(battles=1, words=10_000)
    vars(findings).update(fault)
    assert findings.sound is findings.report()["sound"] is sound


def command(*more):
    return ["--formats", "gen1ou", "gen9ou", "--battles", "3", *more]


def test_what_is_found_is_told_and_the_files_go(tmp_path, monkeypatch, capsys, views):
    kept = []
    examine = soak.examine

    def watched(outcome, recorder, encoder, findings):
        examine(outcome, recorder, encoder, findings)
        kept.extend(recorder.root.rglob("*.lz4"))

    monkeypatch.setattr(soak, "examine", watched)
    asked = tell(monkeypatch, soak, ("won", 0), ("tie", -1), views=views)
    place, teams = tmp_path / "r.json", tmp_path / "t"
    assert soak.main(command("--json", str(place), "--teams", str(teams))) == 0
    assert not kept
    report = json.loads(place.read_text())
    assert report.pop("restarts") == 0
    assert list(report) == asked.checked == ["gen1ou", "gen9ou"]
    states = sum(len(view.states) for view in views)
    found = report["gen1ou"]
    assert (found["battles"], found["outcomes"], found["turns_mean"]) == (3, {"won": 2, "tie": 1}, 12.0)
    assert (found["files"], found["states"], found["words"]) == (6, 3 * states, 3 * states * 106)
    assert (found["unknown_words"], found["sound"]) == (0, True)
    assert asked.loaded == [(name, teams, {"strict": False}) for name in report]
    seeds = {match.seed for match in asked.matches}
    other = tell(monkeypatch, soak, ("won", 0), views=views)
    assert soak.main(command("--seed", "1")) == 0
    assert not seeds & {match.seed for match in other.matches}
    assert [options for *_, options in other.loaded] == [{"strict": True}] * 2


def test_words_that_nobody_knows_count(monkeypatch, capsys, views):
    frogs = make_battle(3, "gen1ou", Style(max_turns=6))
    frogs.states[0]["weather"] = "frogs"
    tell(monkeypatch, soak, ("won", 0), views=(views[0], *views_of(frogs)))
    assert soak.main(command()) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[0])["gen1ou"]["unknown_words"] == 3


def test_a_file_that_cannot_be_read_back_is_a_finding(tmp_path, monkeypatch, capsys, views):
    """And one format's is enough for the status, whatever the others say."""
    broken = make_battle(3, "gen1ou", Style(max_turns=6))
    broken.actions[1] = 12
    bad = views_of(broken)[0]
    ends = [("won", 0)]
    tell(monkeypatch, soak, *ends, views=(bad, views[0]))
    place = tmp_path / "r.json"
    assert soak.main(command("--json", str(place), "--battles", "6")) == 1
    found = json.loads(place.read_text())["gen1ou"]
    assert (found["files"], found["invalid_files"], len(found["examples"]), found["sound"]) == (12, 6, 5, False)
    assert "actions[1]: 12 is illegal" in found["examples"][0]
    tell(monkeypatch, soak, *[("void", -1)] * 3, *[("won", 0)] * 3, views=views)
    assert soak.main(command("--json", str(place))) == 1
    report = json.loads(place.read_text())
    assert [report[name]["sound"] for name in ("gen1ou", "gen9ou")] == [False, True]
    assert (report["gen1ou"]["files"], report["gen1ou"]["outcomes"]) == (0, {"void": 3})


def test_a_name_that_readers_refuse_is_a_finding_and_a_choice_made_again_is_none(tmp_path, views):
    file = write_battle(tmp_path, make_battle(3, "gen1ou", Style(max_turns=6)))
    odd = file.rename(file.with_name("odd.json.lz4"))
    findings, encoder = soak.Findings(), soak.Encoder("default", soak.Tokenizer.load())
    outcome = Outcome(SimpleNamespace(id="0a"), "won", 0, 5, views, unavailable=2)
    soak.examine(outcome, SimpleNamespace(record=lambda outcome: [odd]), encoder, findings)
    assert "odd.json.lz4: " in findings.invalid[0]
    assert findings.report()["choices_made_again"] == 2
    soak.examine(outcome, SimpleNamespace(record=lambda outcome: []), encoder, sound := soak.Findings())
    assert sound.sound


def test_a_refused_choice_is_told_with_its_battle(monkeypatch, capsys, views):
    tell(monkeypatch, soak, ("won", 0), refused=1, views=views)
    assert soak.main(command()) == 1
    found = json.loads(capsys.readouterr().out.splitlines()[0])["gen1ou"]
    assert (found["refused_choices"], found["examples"][0]) == (3, "00000a: no")
