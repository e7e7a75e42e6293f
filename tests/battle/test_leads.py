"""Team preview: who is asked for a lead, what comes to the field, and by which values a model chooses."""

import json
from pathlib import Path

import numpy as np
import pytest

from battle import evaluate
from battle.agents import TurnwiseAgent
from battle.baselines import RandomAgent
from battle.errors import BattleError
from battle.interface import RESIGN
from battle.play import Match, play
from battle.recorder import Recorder
from battle.teams import Team, load_teams
from data.replay_file import read_json_bytes

STARTER = Path(__file__).parents[2] / "battle" / "starter"


class Leads(RandomAgent):
    """Sends a Pokémon of a given place, and keeps what it was shown."""

    def __init__(self, place):
        super().__init__()
        self.place, self.shown = place, []

    def choose_lead(self, previews):
        self.shown.append(previews)
        return self.place


@pytest.fixture(scope="module")
def teams(simulator):
    return load_teams(simulator, "gen9ou")[:2]


def matched(agents, teams, battle_format="gen9ou", leads=(None, None)):
    packed = tuple(team.packed for team in teams)
    return Match("m", battle_format, agents, 5, packed, lead_rule="chosen", leads=leads)


def species(team):
    return ["".join(c for c in entry.split("|")[1] or entry.split("|")[0] if c.isalnum()).lower()
            for entry in team.packed.split("]")]  # fmt: skip


def test_each_side_is_asked_for_its_lead_and_that_one_comes(simulator, teams, tmp_path):
    agents = Leads(4), Leads(2)
    (outcome,) = play(simulator, [matched(agents, teams)])
    mine, its = (agent.shown[0] for agent in agents)
    for previews, own, other in ((mine, *teams), (its, *teams[::-1])):
        assert [len(row) for row in previews] == [6] * 6
        for name, row in zip(species(own), previews, strict=True):
            assert {state["player_active_pokemon"]["name"] for state in row} == {name}
            assert [state["opponent_active_pokemon"]["name"] for state in row] == species(other)
            assert len(row[0]["available_switches"]) == 5
            assert row[0]["can_tera"]
    assert [len(agent.shown) for agent in agents] == [1, 1]
    metas = []
    for path, team, place in zip(Recorder(tmp_path, run="r", version="0").record(outcome), teams, (4, 2), strict=True):
        file = json.loads(read_json_bytes(path))
        assert file["states"][0]["player_active_pokemon"]["name"] == species(team)[place]
        metas.append(file["meta"]["lead"])
    assert metas == [{"rule": "chosen", "place": 4}, {"rule": "chosen", "place": 2}]


@pytest.mark.parametrize(("size", "battle_format", "place"), [(3, "gen9ou", 1), (6, "gen7battlespotsingles", 4)])
def test_the_place_noted_is_that_in_the_team_however_many_it_has_or_brings(
    simulator, tmp_path, size, battle_format, place
):
    """A rule draws from six; of a Battle Spot team three of six come along."""
    packed = "]".join(load_teams(simulator, battle_format)[0].packed.split("]")[:size])
    match = Match("m", battle_format, (RandomAgent(), RandomAgent()), 5, (packed, packed), leads=(4, 4))
    (outcome,) = play(simulator, [match])
    for path in Recorder(tmp_path, run="r", version="0").record(outcome):
        file = json.loads(read_json_bytes(path))
        assert file["meta"]["lead"]["place"] == place
        assert file["states"][0]["player_active_pokemon"]["name"] == species(Team("t", packed))[place]


def test_who_does_not_choose_leads_with_the_first_and_a_given_lead_is_not_asked_for(simulator, teams):
    (outcome,) = play(simulator, [matched((Leads(3), RandomAgent()), teams)])
    assert outcome.leads == (3, 0)
    first = [json.loads(view.states[0])["player_active_pokemon"]["name"] for view in outcome.views]
    assert first == [species(teams[0])[3], species(teams[1])[0]]
    agents = Leads(3), Leads(3)
    (outcome,) = play(simulator, [matched(agents, teams, leads=(1, 7))])
    assert agents[0].shown == agents[1].shown == []
    assert json.loads(outcome.views[1].states[0])["player_active_pokemon"]["name"] == species(teams[1])[1]


def test_where_no_team_is_shown_nobody_is_asked_and_no_lead_is_noted(simulator, tmp_path):
    agents = Leads(3), Leads(3)
    (outcome,) = play(simulator, [matched(agents, load_teams(simulator, "gen1ou")[:2], "gen1ou")])
    assert agents[0].shown == agents[1].shown == []
    files = Recorder(tmp_path, run="r", version="0").record(outcome)
    assert [json.loads(read_json_bytes(file))["meta"]["lead"]["place"] for file in files] == [None, None]


@pytest.mark.parametrize("side", [0, 1])
def test_a_battle_given_up_at_team_preview_is_lost_and_has_no_file(simulator, teams, tmp_path, side):
    agents = (Leads(RESIGN), RandomAgent()) if side == 0 else (Leads(0), Leads(RESIGN))
    (outcome,) = play(simulator, [matched(agents, teams)])
    assert (outcome.kind, outcome.winner) == ("won", 1 - side)
    assert [view.states for view in outcome.views] == [[], []]
    assert Recorder(tmp_path, run="r", version="0").record(outcome) == []


@pytest.mark.parametrize(("place", "told"), [(6, "6: give 0 to 5"), (None, "None: give the place of a Pokémon")])
def test_a_place_that_the_team_has_not_is_refused(simulator, teams, place, told):
    with pytest.raises(BattleError, match=f"player 'random': choose_lead gave {told}"):
        list(play(simulator, [matched((Leads(place), RandomAgent()), teams)]))
    simulator.drop("m")


@pytest.fixture(scope="module")
def starter():
    return TurnwiseAgent.from_pretrained(STARTER)


def test_a_model_leads_with_whom_it_values_most(simulator, teams, starter):
    watcher = Leads(0)
    list(play(simulator, [matched((watcher, RandomAgent()), teams)]))
    (previews,) = watcher.shown
    previews = [row[: 6 - place % 2] for place, row in enumerate(previews)]  # rows need not be of one length
    one_by_one = [np.mean([starter.decide([state]).values[starter.gamma] for state in row]) for row in previews]
    assert starter.lead_values(previews) == pytest.approx(one_by_one, rel=1e-4, abs=1e-3)
    assert np.ptp(one_by_one) > 1
    assert starter.choose_lead(previews) == np.argmax(one_by_one)
    assert starter.choose_lead(previews[::-1]) == 5 - np.argmax(one_by_one)


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("lent")
def test_an_evaluation_has_its_model_choose_leads_and_its_baselines_lead_with_the_first(tmp_path):
    command = ["--agent", str(STARTER), "--against", "random", "--formats", "gen9ou", "--battles", "4", "--seed", "2"]
    out = tmp_path / "files"
    assert evaluate.main([*command, "--lead", "chosen", "--record", str(out)]) == 0
    places = {"starter": [], "random": []}
    for path in out.rglob("*.lz4"):
        meta = json.loads(read_json_bytes(path))["meta"]
        places[meta["agent"]].append(meta["lead"]["place"])
    assert places["random"] == [0] * 4
    assert len(places["starter"]) == 4
    assert any(places["starter"])
