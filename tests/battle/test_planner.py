"""The planner: single exchanges whose right answer can be told by hand, and its standing among the baselines."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from battle.evaluate import Arena, Counted, facts_of
from battle.interface import Observation
from battle.planner import PlannerAgent, chance_to_finish
from battle.play import play
from battle.players import make_player, parse_player
from battle.teams import load_teams
from tests.battle.fighters import move, pokemon

STATE = json.loads((Path(__file__).parents[2] / "launch" / "sample_state.json").read_text())


def choice(me, foe, bench=(), legal=None, battle_format="gen4ou", **other):
    """The word of the planner's choice: a move's name, a Pokémon's, or a move's with a plus for terastallization."""
    state = copy.deepcopy(STATE[-1] if isinstance(STATE, list) else STATE)
    state |= {
        "format": battle_format, "player_active_pokemon": me, "opponent_active_pokemon": foe,
        "available_switches": list(bench), "player_conditions": "noconditions", "opponent_conditions": "noconditions",
        "weather": "noweather", "opponents_remaining": 4, **other,
    }  # fmt: skip
    moves = sorted(each["name"] for each in me["moves"])
    switches = sorted(each["name"] for each in bench)
    if legal is None:
        legal = [*range(len(moves)), *(4 + n for n in range(len(switches)))]
    mask = np.zeros(13, bool)
    mask[legal] = True
    action = PlannerAgent().choose([Observation("lane", json.dumps(state).encode(), mask, True)])[0]
    assert mask[action]
    return switches[action - 4] if 4 <= action < 9 else moves[action] if action < 4 else moves[action - 9] + "+"


TACKLE = move("tackle", "normal", 40)
FOE = pokemon("foe", "normal notype", move("bodyslam", "normal", 85))
EARTHQUAKE, RECOVER = move("earthquake", "ground", 100), move("recover", "normal")
SURF, FIRE_BLAST = move("surf", "water", 95, "special"), move("fireblast", "fire", 120, "special")
PLAIN, WALL = "notype notype", {"types": "rock steel", "base_def": 180}
# The own moves and what else of the own Pokémon, what of the foe is another, and the word of the right choice.
CASES = {
    "the greater hit": ([TACKLE, move("superpower", "fighting", 120)], {}, {}, "superpower"),
    "no hit into an immunity": ([EARTHQUAKE, TACKLE], {}, {"types": "flying notype"}, "tackle"),
    "nor into an ability that is known": ([EARTHQUAKE, TACKLE], {}, {"ability": "levitate"}, "tackle"),
    "priority where both are nearly gone and the foe is faster": (
        [move("quickattack", "normal", 40, priority=1), move("doubleedge", "normal", 120)],
        {"base_spe": 50, "hp_pct": 0.1}, {"hp_pct": 0.08}, "quickattack",
    ),
    "healing where it lasts": ([TACKLE, RECOVER], {**WALL, "hp_pct": 0.35}, {}, "recover"),
    "no healing at full health": ([TACKLE, RECOVER], WALL, {}, "tackle"),
    "away from what cannot be answered": (
        [move("gigadrain", "grass", 75, "special")], {"types": "grass notype"},
        {"types": "fire flying", "moves": [FIRE_BLAST]}, "other",
    ),
    "no second status": ([TACKLE, move("toxic", "poison")], WALL, {"status": "par"}, "tackle"),
    "a burn for who hits hard": ([TACKLE, move("willowisp", "fire")], WALL, {"base_atk": 130}, "willowisp"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_exchange_with_one_right_answer(case):
    moves, mine, theirs, expected = CASES[case]
    me = pokemon("a", mine.get("types", PLAIN), *moves, **{key: mine[key] for key in mine if key != "types"})
    bench = [pokemon("other", "water rock", SURF)] if expected == "other" else []
    assert choice(me, {**FOE, **theirs}, bench) == expected


def test_terastallizes_to_finish():
    me = pokemon("a", "normal notype", SURF, tera_type="water")
    foe = {**FOE, "hp_pct": 0.25}
    assert choice(me, foe, legal=[0, 9], battle_format="gen9ou") == "surf+"
    assert choice(me, {**foe, "hp_pct": 0.05}, legal=[0, 9], battle_format="gen9ou") == "surf"


def test_the_chance_to_finish_runs_over_the_damage_rolls():
    assert chance_to_finish(0.5, 1.0, 0.9) == 0.0
    assert chance_to_finish(0.925, 0.8, 0.85) == pytest.approx(0.8)
    assert chance_to_finish(0.925, 1.0, 0.925) == pytest.approx(0.5)
    assert chance_to_finish(0.0, 1.0, 0.5) == 0.0


@pytest.mark.slow
def test_it_wins_against_the_baseline_next_to_it(simulator):
    arena = Arena([Counted(make_player(parse_player(name))) for name in ("planner", "simple_heuristics")])
    for battle_format in ("gen2ou", "gen9ou"):
        teams = load_teams(simulator, battle_format)
        for outcome in play(simulator, arena.matches(battle_format, [(0, 1)], teams, 20, 5, "random")):
            arena.count(outcome.match.id, **facts_of(outcome))
    tallies = arena.tallies.values()
    assert sum(t.battles for t in tallies) == 40
    assert sum(t.score for t in tallies) >= 26  # 32 expected
    assert sum(t.refused for t in tallies) == 0
