"""A person at the table: asked in one thread, answering in another; and battles that are given up."""

import signal
import threading

import msgspec
import pytest

from battle.baselines import RandomAgent
from battle.interface import RESIGN, Observation, bits_to_mask
from battle.person import NotAsked, Person
from battle.play import Match, play
from battle.teams import load_teams
from tests.battle_files import Style, make_battle

STATES = make_battle(5, "gen9ou", Style(max_turns=20)).states


def observation(state, legal, **more):
    return Observation("0/0", msgspec.json.encode(state), bits_to_mask(legal), first=False, **more)


@pytest.fixture
def person():
    """At a battle whose first state has been answered with action 1."""
    person = Person("Ann")
    person.ask_for("gen9ou")
    assert person.wish() == "gen9ou"
    first = Observation("0/0", msgspec.json.encode(STATES[0]), bits_to_mask(0b110), first=True, lines=["|turn|1"])
    assert asked(person, first)(1) == [1]
    return person


def asked(person, seen):
    """Asks in another thread; returns how to answer, which gives what was chosen."""
    before, chosen = person.look()["version"], []
    thread = threading.Thread(target=lambda: chosen.extend(person.choose([seen])), daemon=True)
    thread.start()
    version = person.look(before)["version"]

    def answer(action):
        person.answer(version, action)
        thread.join(5)
        return chosen

    return answer


def test_a_choice_that_was_taken_back_is_asked_again_in_its_place(person):
    assert asked(person, observation(STATES[1], 0b11))(0) == [0]
    answer = asked(person, observation(STATES[1], 0b10, retry=True))
    table = person.look()
    assert table["turn"]["retry"]
    assert [action["id"] for action in table["turn"]["actions"]] == [1]
    states, actions, legal = person.so_far(table["version"])
    assert (states, actions, legal) == (STATES[:2], [1], [False, True, *[False] * 11])
    assert answer(1) == [1]


def test_an_answer_must_be_legal_and_to_what_is_asked_now(person):
    with pytest.raises(NotAsked, match="gone on"):
        person.answer(person.look()["version"], 1)  # between two turns
    with pytest.raises(NotAsked, match="under way"):
        person.ask_for("gen1ou")
    answer = asked(person, observation(STATES[1], 0b110))
    version = person.look()["version"]
    for action in (0, 3, 13, -1):
        with pytest.raises(NotAsked, match="cannot be chosen"):
            person.answer(version, action)
    with pytest.raises(NotAsked, match="gone on"):
        person.answer(version - 1, 1)
    assert answer(2) == [2]


@pytest.mark.parametrize("must", ["Struggle", "Recharge"])
def test_what_stands_in_the_place_of_all_moves_is_called_by_its_name(person, must):
    request = {"active": [{"moves": [{"move": must, "id": must.lower()}]}]}
    asked(person, observation(STATES[1], 0b10001, request=request))
    must_do, switch = person.look()["turn"]["actions"]
    assert must_do == {"id": 0, "kind": "must", "name": must, "types": []}
    assert switch["kind"] == "switch"


def test_foes_that_fell_in_another_forme_or_between_two_decisions_are_down(person):
    foe = STATES[1]["opponent_active_pokemon"]
    seen = STATES[1] | {"opponent_active_pokemon": foe | {"name": "aegislashblade", "base_species": "aegislash"}}
    assert asked(person, observation(seen, 0b10, lines=["|switch|p2a: A|Aegislash|100/100"]))(1) == [1]
    unseen = ["|switch|p2a: Y|Yanmega|100/100", "|faint|p2a: Y"]
    gone = STATES[2] | {"opponent_active_pokemon": foe | {"name": "blissey", "base_species": "blissey"}}
    asked(person, observation(gone, 0b10, lines=["|faint|p2a: A", *unseen, "|switch|p2a: B|Blissey|100/100"]))
    down = {pokemon["name"]: pokemon for pokemon in person.look()["turn"]["foes"] if pokemon["status"] == "fnt"}
    assert set(down) == {"Aegislash-Blade", "Yanmega"}
    assert not any(pokemon["hp"] for pokemon in down.values())


@pytest.mark.timeout(20)
def test_a_ctrl_c_that_the_waiting_thread_does_not_hear_itself_ends_the_wait():
    threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()  # heard by the timer's thread
    with pytest.raises(KeyboardInterrupt):
        Person("Ann").wish()


def test_nothing_is_asked_where_nothing_can_be_chosen(person):
    version = person.look()["version"]
    assert person.choose([observation(STATES[1], 0)]) == [0]
    assert person.look()["version"] == version


def test_a_look_waits_for_what_is_newer(person):
    now = person.look()
    assert person.look(now["version"], timeout=0.05) == now
    threading.Timer(0.1, lambda: person.idle(result="won")).start()
    assert person.look(now["version"], timeout=10)["result"] == "won"


class Resigns(RandomAgent):
    """Gives up at its third decision."""

    asked = 0

    def choose(self, observations):
        self.asked += 1
        return [RESIGN] if self.asked == 3 else super().choose(observations)


@pytest.mark.parametrize("side", [0, 1])
def test_a_battle_given_up_is_lost_and_its_last_choices_are_not_recorded(simulator, side):
    agents = (Resigns(), RandomAgent()) if side == 0 else (RandomAgent(), Resigns())
    team = load_teams(simulator, "gen1ou")[0].packed
    match = Match("given-up", "gen1ou", agents, seed=3, teams=(team, team), explore=(1.0, 1.0))
    (outcome,) = play(simulator, [match])
    assert (outcome.kind, outcome.winner, outcome.refused) == ("won", 1 - side, [])
    mine, its = outcome.views[side], outcome.views[1 - side]
    assert len(mine.states) == 4
    assert mine.actions[2:] == [-1, -1]
    assert min(mine.actions[:2]) >= 0
    assert its.actions[-2:] == [-1, -1]
    assert b'"battle_lost":true' in mine.states[-1]
    assert b'"battle_won":true' in its.states[-1]
