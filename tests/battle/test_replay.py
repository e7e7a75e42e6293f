"""A battle played again from its input log gives the states, actions and legal sets that it gave when played."""

import json
import re

import pytest

from battle.baselines import RandomAgent
from battle.play import Match, play
from battle.teams import load_teams


@pytest.fixture(scope="module", params=["gen1ou", "gen3ou", "gen9ou", "gen9randombattle"])
def played(request, simulator):
    """A battle's outcome, and its log as a record to replay."""
    teams = [team.packed for team in load_teams(simulator, request.param)] or [None]
    match = Match("one", request.param, (RandomAgent(), RandomAgent()), 11, (teams[0], teams[-1]), want_log=True)
    (outcome,) = play(simulator, [match])
    begun = json.loads(next(line for line in outcome.log if line.startswith(">start"))[7:])
    seats = [json.loads(line[11:]) for line in outcome.log if line.startswith(">player")]
    return outcome, {
        "format": request.param,
        "word": request.param,
        "seed": begun["seed"],
        "teams": [seat.get("team") for seat in seats],
        "seeds": [seat.get("seed") for seat in seats],
        "choices": [line[1:] for line in outcome.log if re.match(">p[12] ", line)],
    }


def replay(simulator, record):
    simulator.command("replay", "again", record)
    (event,) = simulator.step()
    return event


def told(event):
    """What a replay tells of the battle itself."""
    return event.winner, event.turns, event.sha256, json.loads(bytes(event.views)), json.loads(bytes(event.finals))


def test_states_actions_and_legal_sets_are_those_of_the_battle(simulator, played):
    outcome, record = played
    event = replay(simulator, record)
    assert (event.problem, event.unknown, event.refused) == ("", 0, 0)
    winner, turns, sha256, views, finals = told(event)
    assert (winner, turns, sha256) == (outcome.winner, outcome.turns, outcome.sha256)
    for view, again, final in zip(outcome.views, views, finals, strict=True):
        assert [json.loads(state) for state in view.states] == [*again["states"], final]
        assert (view.actions[:-1], view.legal[:-1]) == (again["actions"], again["legal"])


def test_choices_are_read_as_people_and_other_programs_write_them(simulator, played):
    outcome, record = played
    acts = [iter(zip(view.states, view.actions, strict=True)) for view in outcome.views]
    spelled = []
    for text in record["choices"]:
        side, verb, *words = text.split()
        if verb == "team":
            spelled.append(text)
            continue
        state, action = next(acts[side == "p2"])
        if verb == "switch":
            (*_, bench) = sorted(json.loads(state)["available_switches"], key=lambda known: known["name"])[: action - 3]
            spelled.append(f"{side} switch {bench['name']}")
            continue
        tera = " terastal" if words[1:] else ""
        spelled.append(f"{side} move {words[0][:3].upper()} {words[0][3:]}{tera}")
    assert spelled != record["choices"]
    assert told(replay(simulator, record | {"choices": spelled})) == told(replay(simulator, record))


def test_of_a_choice_taken_back_the_next_one_counts(simulator, played):
    _, record = played
    twice = []
    for text, after in zip(record["choices"], [*record["choices"][1:], ""], strict=True):
        first = text.startswith("p1") and after.startswith("p2")  # the other one has not chosen yet
        twice += [text, "p1 undo", text] if first else [text]
    assert len(twice) > len(record["choices"]) + 8
    event = replay(simulator, record | {"choices": twice})
    assert (event.unknown, told(event)) == (0, told(replay(simulator, record)))


def test_what_is_none_of_our_actions_is_counted_and_unknown(simulator, played):
    _, record = played
    team = [text for text in record["choices"] if " team " in text]
    event = replay(simulator, record | {"choices": [*team, "p1 default", "p2 move 1", "forcewin p2"]})
    assert (event.unknown, event.refused, event.winner) == (1, 0, 1)
    views = json.loads(bytes(event.views))
    assert set(views[0]["actions"]) == {-1}
    moves = [move["name"] for move in views[1]["states"][0]["player_active_pokemon"]["moves"]]
    assert views[1]["actions"][0] == sorted(moves).index(moves[0])


def test_a_choice_that_the_battle_refuses_is_counted_and_the_one_that_follows_taken(simulator, played):
    _, record = played
    team = [text for text in record["choices"] if " team " in text]
    first, second, *rest = record["choices"][len(team) :]
    # Nothing is chosen in its place, though the other one waits.
    choices = [*team, second, "p1 move brandnewmove", first, *rest, "p1 move 1"]
    event = replay(simulator, record | {"choices": choices})
    assert (event.unknown, event.refused) == (1, 1)
    assert told(event) == told(replay(simulator, record))


def test_a_log_without_an_end_is_no_battle(simulator, played):
    _, record = played
    event = replay(simulator, record | {"choices": record["choices"][:-1]})
    assert event.problem == "the log ends before the battle does"
    event = replay(simulator, record | {"choices": ["forcetie"]})
    assert (event.problem, event.winner) == ("", -1)


def test_a_hidden_power_is_written_with_its_type_or_without(simulator):
    team = "Zapdos||leftovers|pressure|thunderbolt,hiddenpowerice,agility,rest||||30,30,||||"
    record = {"format": "gen3ou", "word": "gen3ou", "seed": "1,2,3,4", "teams": [team, team]}
    choices = ["p1 move Hidden Power Ice", "p2 move hiddenpower", "forcetie"]
    event = replay(simulator, record | {"choices": choices})
    assert event.unknown == event.refused == 0
    assert [view["actions"][0] for view in json.loads(bytes(event.views))] == [1, 1]


def test_who_comes_in_is_named_by_nickname_species_or_place(simulator):
    one = "||voltabsorb|thunderbolt||||||||"
    team = "]".join(["Zapdos" + one, "Sparky|Jolteon" + one[1:], "Raikou" + one])
    record = {"format": "gen3ou", "word": "gen3ou", "seed": "1,2,3,4", "teams": [team, team]}
    choices = ["p1 switch Sparky", "p2 switch jolteon", "p1 switch Raikou", "p2 switch 3", "forcetie"]
    event = replay(simulator, record | {"choices": choices})
    assert event.unknown == event.refused == 0
    # The bench by species: Jolteon, Raikou; then Raikou, Zapdos.
    assert [view["actions"][:2] for view in json.loads(bytes(event.views))] == [[4, 4], [4, 4]]


def test_a_switch_that_a_hidden_trap_forbids_leaves_one_state_with_what_was_chosen_instead(simulator):
    mine = "Snorlax|||immunity|rest||||||||]Zapdos|||pressure|rest||||||||"
    record = {
        "format": "gen3ou",
        "word": "gen3ou",
        "seed": "1,2,3,4",
        "teams": [mine, "Dugtrio|||arenatrap|rest||||||||"],
    }
    event = replay(simulator, record | {"choices": ["p1 switch 2", "p1 move rest", "p2 move rest", "forcetie"]})
    view = json.loads(bytes(event.views))[0]
    assert (event.unknown, event.refused) == (0, 0)
    assert (view["actions"][0], view["legal"][0]) == (0, 1)
    assert len(view["states"]) == len(view["actions"]) == len(view["legal"]) == 2


def test_states_of_a_format_with_rules_of_its_own_bear_its_word(simulator):
    team = "Snorlax|||immunity|outrage,rest||||||||"
    record = {"format": "gen3ou@@@!Sleep Clause Mod", "word": "gen3ou", "seed": "1,2,3,4", "teams": [team, team]}
    event = replay(simulator, record | {"choices": ["p1 move outrage", "p2 move rest", "forcetie"]})
    views, finals = json.loads(bytes(event.views)), json.loads(bytes(event.finals))
    states = [*finals, *(state for view in views for state in view["states"])]
    assert len(states) == 6
    assert {state["format"] for state in states} == {"gen3ou"}
    assert not any(state["battle_won"] or state["battle_lost"] for state in states)
    # Where nothing is asked any more nobody is held to the one move.
    mine = [len(state["player_active_pokemon"]["moves"]) for state in (*views[0]["states"], finals[0])]
    assert mine == [2, 1, 2]
