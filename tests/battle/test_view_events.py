"""What a view answers beside a state to act on: previews, silence, an early end, a line that makes no sense."""

import json

import pytest

from tests.battle.table import look, preamble, request


def test_at_team_preview_there_is_a_state_for_every_lead_against_every_lead(simulator):
    asked = request(9)
    del asked["active"]
    simulator.command("feed", "preview", "gen9ou", preamble(9)[:-4], json.dumps(asked | {"teamPreview": True}))
    (event,) = simulator.step()
    assert event.event == "preview"
    views = json.loads(bytes(event.views))
    assert b'"hp_pct":1.0,' in bytes(event.views)  # a float in every language
    names = [[(look(state, "me.name"), look(state, "foe.name")) for state in row] for row in views]
    mine = ["snorlax", "gengar", "zapdos", "dragonite", "tauros", "chansey"]
    assert names == [[(own, foe) for foe in views[0][0]["opponent_teampreview"]] for own in mine]
    for state in (state for row in views for state in row):
        assert (look(state, "foe.hp_pct"), look(state, "foe.status"), state["can_tera"]) == (1.0, "nostatus", True)
        assert (state["opponents_remaining"], len(state["available_switches"])) == (6, 5)
        assert not state["forced_switch"]


@pytest.mark.parametrize("asks", [True, False])
def test_where_nobody_came_to_the_field_or_no_request_came_an_end_has_no_state(simulator, asks):
    lines = preamble(9)[:-4] if asks else preamble(9)
    preview = json.dumps({**request(9), "active": None, "teamPreview": True}) if asks else None
    simulator.command("feed", "early", "gen9ou", [*lines, "|win|A"], preview)
    (event,) = simulator.step()
    assert (event.event, event.states, event.winner) == ("end", [], -1)


def test_where_no_choice_is_asked_for_there_is_none(simulator):
    """Chat and a timer come without a request, and one who waits for the other is told so."""
    preview = {**request(9), "active": None, "teamPreview": True}
    waits = {**request(9), "active": None, "wait": True}
    heard = []
    for lines, asked in ((preamble(9)[:-4], preview), (["|c|A|hi"], None), (preamble(9)[-4:], request(9)),
                         (["|c|A|hi"], None), (["|turn|2"], waits)):  # fmt: skip
        simulator.command("feed", "chat", "gen9ou", lines, json.dumps(asked) if asked else None)
        (event,) = simulator.step()
        heard.append((event.event, event.turn))
    simulator.drop("chat")
    assert heard == [("preview", 0), ("quiet", 0), ("ask", 1), ("quiet", 1), ("quiet", 2)]


def test_only_a_line_that_makes_no_sense_is_spoken_of(simulator, caplog):
    sound = ["|", "|-activate||move: Struggle", "|-start|p2a: Foe|Substitute", "|-damage|p2a: Foe|50/100"]
    for lines in ([*preamble(9), *sound], ["|-damage|p9z: Nobody|10/100"]):
        assert not caplog.messages
        simulator.command("feed", "sense", "gen9ou", lines, json.dumps(request(9)))
        simulator.step()
    (said,) = caplog.messages
    assert said.startswith("protocol: live sense: ")
    assert said.endswith(" at |-damage|p9z: Nobody|10/100")


def test_a_battle_that_is_over_is_forgotten(simulator):
    """The Node process of a command that plays for days holds the battles that go on alone."""
    for lines in ([*preamble(9), "|win|A"], preamble(9)):
        simulator.command("feed", "over", "gen9ou", lines, json.dumps(request(9)))
        (event,) = simulator.step()
    simulator.drop("over")
    assert event.event == "ask"
    assert json.loads(bytes(event.state))["opponent_teampreview"][6:] == []
