"""The planner: single exchanges whose right answer can be told by hand, and its standing among the baselines."""

import json

import numpy as np
import pytest

from battle.evaluate import Arena, Counted, facts_of
from battle.interface import Observation
from battle.judgement import damage
from battle.planner import (
    AFRESH,
    AHEAD,
    ALIVE,
    BOOSTED,
    FAST_RAISE,
    HEALING_TURN,
    MET,
    MISSED,
    PREDICTED,
    STATUS_WORTH,
    SWITCH,
    TRADED,
    UNFORESEEN,
    PlannerAgent,
    chance_to_finish,
    cost,
    hindered,
    of_affliction,
    of_health,
    of_move,
    of_move_into_switch,
    of_side_effect,
    of_status,
    of_switch,
    of_switch_into_switch,
    standing,
)
from battle.play import play
from battle.players import make_player, parse_player
from battle.teams import load_teams
from tests.battle.fighters import PLAIN, SLASH, SURF, TACKLE, field_of, move, pokemon, state_of


def choice(me, foe, bench=(), legal=None, battle_format="gen4ou", **other):
    """The word of the planner's choice: a move's name, a Pokémon's, or a move's with a plus for terastallization."""
    state = state_of(me, foe, bench, battle_format, **other)
    moves = sorted(each["name"] for each in me["moves"])
    switches = sorted(each["name"] for each in bench)
    if legal is None:
        legal = [*range(len(moves)), *(4 + n for n in range(len(switches)))]
    mask = np.zeros(13, bool)
    mask[legal] = True
    action = PlannerAgent().choose([Observation("lane", json.dumps(state).encode(), mask, True)])[0]
    assert mask[action]
    return switches[action - 4] if 4 <= action < 9 else moves[action] if action < 4 else moves[action - 9] + "+"


FOE = pokemon("foe", "normal notype", move("bodyslam", "normal", 85))
EARTHQUAKE, RECOVER = move("earthquake", "ground", 100), move("recover", "normal")
FIRE_BLAST, WALL = move("fireblast", "fire", 120, "special"), {"types": "rock steel", "base_def": 180}
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


RAISED = {
    "swordsdance": {"atk_boost": 2}, "dragondance": {"atk_boost": 1, "spe_boost": 1}, "bellydrum": {"atk_boost": 6},
    "curse": {"atk_boost": 1, "def_boost": 1},
}  # fmt: skip
STATUS = {
    # The move, and a count: (what else of the user, of the foe, of the state; worth, health gained)
    ("swordsdance", 0): ({}, {}, {}, FAST_RAISE, 0), ("swordsdance", 1): ({"atk_boost": 3}, {}, {}, -0.2, 0),
    ("dragondance", 0): ({"atk_boost": 3}, {}, {}, FAST_RAISE, 0), ("curse", 0): ({}, {}, {}, 0, 0),
    ("bellydrum", 0): ({}, {}, {}, -0.26, 0), ("bellydrum", 1): ({"hp_pct": 0.5}, {}, {}, -0.2, 0),
    ("rest", 0): ({"hp_pct": 0.7}, {}, {}, -0.28, 0.3), ("rest", 1): ({"hp_pct": 0.71}, {}, {}, -0.3, 0),
    ("rest", 2): ({"hp_pct": 0.2, "status": "tox"}, {}, {}, -0.16, 0.8),
    ("rest", 3): ({"hp_pct": 0.2, "status": "slp"}, {}, {}, -0.28, 0.8),
    ("recover", 0): ({"hp_pct": 0.3}, {}, {}, -HEALING_TURN, 0.5),
    ("recover", 1): ({"hp_pct": 0.8}, {}, {}, -HEALING_TURN, 0.2),
    ("recover", 2): ({"hp_pct": 0.81}, {}, {}, -0.2, 0), ("wish", 0): ({"hp_pct": 0.3}, {}, {}, -HEALING_TURN, 0.35),
    ("stealthrock", 0): ({}, {}, {}, 0.45, 0), ("spikes", 0): ({}, {}, {}, 0.36, 0),
    ("spikes", 1): ({}, {}, {"opponent_conditions": "spikes"}, -0.1, 0),
    ("stealthrock", 1): ({}, {}, {"opponents_remaining": 1}, 0, 0),
    ("sleeptalk", 0): ({"status": "slp"}, {}, {}, 0.25, 0), ("sleeptalk", 1): ({}, {}, {}, -0.5, 0),
    ("substitute", 0): ({}, {}, {}, 0.1, 0), ("substitute", 1): ({"hp_pct": 0.4}, {}, {}, -0.3, 0),
    ("substitute", 2): ({"effect": "substitute"}, {}, {}, -0.3, 0), ("substitute", "hit hard"): ({}, {}, {}, -0.3, 0),
    ("leechseed", 0): ({}, {}, {}, 0.14, 0), ("leechseed", 1): ({}, {"types": "grass notype"}, {}, -0.2, 0),
    ("leechseed", 2): ({}, {"effect": "leechseed"}, {}, -0.2, 0),
    ("reflect", 0): ({}, {}, {}, 0.1, 0), ("reflect", 1): ({}, {}, {"player_conditions": "reflect"}, -0.2, 0),
    ("reflect", 2): ({"effect": "reflect"}, {}, {}, -0.2, 0),
    ("defog", 0): ({}, {}, {}, -0.15, 0), ("defog", 1): ({}, {}, {"player_conditions": "spikes"}, 0.15, 0),
    ("roar", 0): ({}, {}, {}, -0.15, 0), ("roar", 1): ({}, {"spe_boost": 1}, {}, 0.2, 0),
    ("splash", 0): ({}, {}, {}, -0.15, 0),
}  # fmt: skip


@pytest.mark.parametrize("case", STATUS)
def test_what_a_status_move_is_worth(case):
    mine, theirs, other, worth, healed = STATUS[case]
    me, foe = pokemon("a", PLAIN) | mine, pokemon("foe", "normal notype") | theirs
    back = 0.25 if case[1] == "hit hard" else 0.2
    gained, health, after = of_status(field_of(me, foe, **other), move(case[0], "normal"), back)
    assert (gained, health) == (pytest.approx(worth), pytest.approx(healed))
    boosts = {key: after[key] - me[key] for key in me if key.endswith("_boost") and after[key] != me[key]}
    assert boosts == ({} if worth == -0.2 else RAISED.get(case[0], {}))


AFFLICTIONS = {
    # name: (what else of the foe, generation, whether it can get the status)
    "thunderwave": [({}, 4, True), ({"types": "ground notype"}, 4, False), ({"types": "electric notype"}, 5, True),
                    ({"types": "electric notype"}, 6, False), ({"effect": "substitute"}, 4, False)],
    "toxic": [({}, 4, True), ({"types": "steel notype"}, 4, False), ({"types": "poison notype"}, 4, False),
              ({"status": "brn"}, 4, False)],
    "poisonpowder": [({"types": "steel notype"}, 4, False), ({"types": "grass notype"}, 5, True),
                     ({"types": "grass notype"}, 6, False)],
    "willowisp": [({"types": "fire notype"}, 4, False), ({"types": "water notype"}, 4, True)],
    "spore": [({"types": "grass notype"}, 6, False), ({"types": "grass notype"}, 5, True)],
    "glare": [({"types": "ghost notype"}, 3, False), ({"types": "ghost notype"}, 4, True)],
}  # fmt: skip


@pytest.mark.parametrize("name", AFFLICTIONS)
def test_a_status_is_for_who_can_get_it(name):
    kind = {"thunderwave": "electric", "toxic": "poison", "willowisp": "fire"}.get(name, "normal")
    for theirs, gen, gets in AFFLICTIONS[name]:
        foe = pokemon("foe", "normal notype") | theirs
        field = field_of(pokemon("a", PLAIN), foe, battle_format=f"gen{gen}ou")
        worth = of_affliction(field, move(name, kind))
        assert worth > 0 if gets else worth == -0.1, (theirs, gen)


def test_a_status_is_worth_more_where_it_does_more():
    def worth(name, accuracy=1.0, **theirs):
        field = field_of(pokemon("a", PLAIN), pokemon("foe", "normal notype") | theirs)
        return of_affliction(field, move(name, "fire", accuracy=accuracy))

    assert worth("toxic") == pytest.approx(STATUS_WORTH["tox"])
    assert worth("toxic", 0.5) == pytest.approx(STATUS_WORTH["tox"] / 2)
    assert worth("toxic", hp_pct=0.0) == pytest.approx(0.35 * STATUS_WORTH["tox"])
    assert worth("stunspore") == pytest.approx(STATUS_WORTH["par"] + 0.06)
    assert worth("stunspore", base_spe=99) == pytest.approx(STATUS_WORTH["par"])
    assert worth("willowisp") == pytest.approx(STATUS_WORTH["brn"])
    assert worth("willowisp", base_atk=101) == pytest.approx(STATUS_WORTH["brn"] + 0.12)


def test_attacks_that_come_to_nothing_and_attacks_that_cost():
    me, foe = pokemon("a", PLAIN), pokemon("foe", "normal notype")

    def share(name, back=0.3, prev="nomove", **theirs):
        field = field_of(me, foe | theirs, player_prev_move={"name": prev})
        hit = move(name, "dark", 80)
        return round(hindered(field, hit, back) / damage(hit, me, foe, 4), 3)

    assert [share("focuspunch"), share("focuspunch", 0.05), share("focuspunch", status="slp")] == [0.3, 1, 1]
    assert [share("suckerpunch"), share("suckerpunch", status="frz"), share("crunch", status="slp")] == [1, 0, 1]
    assert [share("fakeout"), share("fakeout", prev="tackle"), share("tackle", prev="tackle")] == [1, 0.3, 1]
    assert [cost("hyperbeam", 0.5, 0.79), cost("hyperbeam", 0.5, 0.8)] == [0.12, 0]
    assert [cost("flareblitz", 0.5, 1), cost("surf", 0.5, 0)] == [0.1, 0]


def test_what_it_takes_to_come_in():
    me, foe = pokemon("a", PLAIN), pokemon("foe", "normal notype", *[SLASH] * 4)
    other = pokemon("other", "ghost flying", SURF, hp_pct=0.5)

    def worth(pokemon=other, mine=None, theirs=None, **state):
        field = field_of(me | (mine or {}), foe | (theirs or {}), [pokemon], **state)
        return of_switch(field, pokemon)

    assert worth() > worth({**other, "types": "water flying"})  # a hit lands
    hit = {**other, "types": "water flying"}
    assert worth(hit, theirs={"status": "slp"}) > worth(hit)
    field = field_of(me, foe | {"hp_pct": 0.0}, [hit])
    assert of_switch(field, hit) == pytest.approx(standing(field, hit, 0.5) - SWITCH)  # nobody is there to hit it
    rocks, spikes = {"player_conditions": "stealthrock"}, {"player_conditions": "spikes"}
    assert worth(**rocks) < worth()
    assert worth({**other, "types": "ghost steel"}, **rocks) > worth({**other, "types": "ghost notype"}, **rocks)
    assert worth(**spikes) == worth()
    grounded = {**other, "types": "ghost notype"}
    assert worth(grounded, **spikes) < worth(grounded)
    assert worth({**grounded, "hp_pct": 0.12}, **spikes) < worth({**grounded, "hp_pct": 0.13}, **spikes) - 0.3  # faints
    assert worth(mine={"atk_boost": -2}) - worth() == pytest.approx(0.08)
    assert worth(mine={"spa_boost": -2}) - worth() == pytest.approx(0.08)
    assert worth() - worth(mine={"spe_boost": 2}) == pytest.approx(0.1)
    assert worth({**grounded, "hp_pct": 0.24}) < worth({**grounded, "hp_pct": 0.25}) - 0.05
    # The foe's move is meant for who stands there: its best against that one, as it lands on who comes in.
    quake = [*[SLASH] * 3, EARTHQUAKE]
    steel, bird = {"types": "steel notype"}, pokemon("bird", "flying notype", SURF)
    for status, share in (("nostatus", 1), ("slp", 0.35)):
        for mine, moves in ((steel, quake), ({}, quake), ({}, [{**SLASH, "accuracy": 0.9}] * 4)):
            theirs = {"moves": moves, "status": status}
            field = field_of(me | mine, foe | theirs, [bird])
            meant = field.best(field.foe, field.me)[1]
            at = field.hit(meant, field.foe, bird) * meant["accuracy"]
            taken = share * (PREDICTED * at + UNFORESEEN * field.best(field.foe, bird)[0])
            assert of_switch(field, bird) == pytest.approx(
                standing(field, bird, 1 - taken) - (1 - ALIVE) * taken - SWITCH
            )
    weak = {**hit, "hp_pct": 0.01}
    assert worth(weak) == pytest.approx(-2 * ALIVE - (1 - ALIVE) * 0.01 - SWITCH)


def test_what_a_move_brings_by_either_order_of_the_exchange():
    plain = move("slash", "normal", 100)
    me = pokemon("a", PLAIN, SLASH, base_spe=101)
    foe = pokemon("foe", "normal notype", *[move("slash", "normal", 200)] * 4)
    slow, near = {"base_spe": 99}, {"hp_pct": 0.1}
    hit = damage(plain, me, foe, 5)
    back = 0.65
    assert field_of(me, foe).best(foe, me)[0] == pytest.approx(back, abs=0.02)

    def worth(used, mine=None, theirs=None, bench=(), **state):
        field = field_of(me | (mine or {}), foe | (theirs or {}), bench, battle_format="gen5ou", **state)
        return of_move(field, used)

    # Who finishes the foe off first is not hit back, by whatever more the hit would take.
    finished = (1 - ALIVE) * 0.1 + ALIVE + AHEAD * AFRESH
    assert worth(plain, theirs=near) == worth({**plain, "base_power": 200}, theirs=near) == pytest.approx(finished)
    assert worth(plain, slow, near) < finished - 0.25
    # Who is about to be finished acts only where it is first.
    faint = {"hp_pct": 0.3}
    first, last = worth(plain, faint), worth(plain, faint | slow)
    assert last < first - 0.05
    assert worth({**plain, "priority": 1}, faint | slow) == pytest.approx(first, abs=0.01)
    assert worth({**plain, "priority": -1}, faint) == pytest.approx(last)
    assert worth(plain, slow) == pytest.approx(worth(plain), abs=0.2)  # at full health it acts either way
    # A hit that lands half the time, part by part.
    half = {**plain, "accuracy": 0.5}
    field = field_of(me | faint | {"hp_pct": 0.9}, foe | {"hp_pct": 0.2}, battle_format="gen5ou")
    back = field.best(field.foe, field.me)[0]
    gain = (1 - ALIVE) * 0.2 * 0.5 + ALIVE * 0.5
    taken = back / 2
    race = field.race(field.me, 0.9 - taken, 0.2 - 0.1)
    assert of_move(field, half) == pytest.approx(gain - (1 - ALIVE) * taken + AHEAD * (0.5 * race + 0.5 * AFRESH))
    field = field_of(me | faint, foe | {"hp_pct": 0.2}, battle_format="gen5ou")
    race = field.race(field.me, 0.03, 0.1)
    ahead = (1 - 0.475) * (0.5 * race + 0.5 * AFRESH) - 0.475 * 0.4
    assert of_move(field, half) == pytest.approx(gain - (1 - ALIVE) * 0.3 - ALIVE * 0.475 + AHEAD * ahead)

    named = {name: {**plain, "name": name} for name in ("bravebird", "gigadrain", "explosion", "uturn", "hyperbeam")}
    assert worth(named["bravebird"]) == pytest.approx(worth(plain) - 0.2 * hit)
    assert worth(named["hyperbeam"]) == pytest.approx(worth(plain) - 0.12)
    assert worth(named["gigadrain"], {"hp_pct": 0.8}) > worth(plain, {"hp_pct": 0.8}) + 0.2 * hit
    full, near_dead = (1 - ALIVE) * hit + TRADED - 1, (1 - ALIVE) * (0.1 - 0.5)
    assert worth(named["explosion"], {"hp_pct": 0.5}, near) == pytest.approx(near_dead)
    assert worth(named["explosion"]) == pytest.approx(full)
    assert worth(named["explosion"], theirs={"types": "ghost notype"}) == pytest.approx(-1)
    assert worth(named["uturn"]) == worth(plain)
    bench = [pokemon("other", PLAIN, SLASH)]
    # A move that ends in a switch: who comes in takes the blow where it is first, and none where it is last.
    field = field_of(me, foe, bench, battle_format="gen5ou")
    assert of_move(field, named["uturn"]) == pytest.approx((1 - ALIVE) * hit + of_switch(field, bench[0]))
    field = field_of(me | slow, foe, bench, battle_format="gen5ou")
    unhurt = standing(field, bench[0], 1.0) - (1 - ALIVE) * field.best(field.foe, field.me)[0]
    assert of_move(field, named["uturn"]) == pytest.approx((1 - ALIVE) * hit + unhurt)
    # A race that is lost is no worse than a switch a turn later.
    bad, saviour = {"types": "normal notype", "hp_pct": 0.7}, pokemon("other", "ghost steel", move("s", "fire", 200))
    splash = move("splash", "normal")
    assert worth(splash, bad, bench=[saviour]) > worth(splash, bad) + 0.2
    # Status moves: asleep it acts a third of the time, or by Sleep Talk; a raise shows in the race that follows.
    asleep, calm = {"status": "slp"}, {"moves": [TACKLE] * 4}
    talk, splash, dance = (move(name, "normal") for name in ("sleeptalk", "splash", "swordsdance"))
    assert worth(talk, asleep, calm) == pytest.approx(worth(splash, asleep, calm) + 0.25 + 0.35 * 0.15)
    assert worth(dance, theirs=calm) > worth(splash, theirs=calm) + FAST_RAISE + 0.15 + 0.02


def test_what_is_left_of_a_choice_where_the_opponent_switches():
    me, foe = pokemon("a", PLAIN, SLASH), pokemon("foe", "normal notype")
    other = pokemon("other", PLAIN, SLASH, hp_pct=0.5)

    def worth(used, mine=None, theirs=None, **state):
        return of_move_into_switch(field_of(me | (mine or {}), foe | (theirs or {}), [other], **state), used)

    # Neither its types nor its status count of one that leaves.
    assert worth(SLASH) == worth(SLASH, theirs={"types": "ghost notype"}) > MET
    assert worth(move("toxic", "poison"), theirs={"status": "par"}) == pytest.approx(MISSED * STATUS_WORTH["tox"] + MET)
    assert worth(move("toxic", "poison"), {"status": "par"}) == pytest.approx(0.75 * MISSED * STATUS_WORTH["tox"] + MET)
    assert worth(move("swordsdance", "normal")) == pytest.approx(FAST_RAISE + BOOSTED + MET)
    assert worth(move("swordsdance", "normal"), {"atk_boost": 3}) == pytest.approx(-0.2 + MET)
    healed = (1 - ALIVE) * 0.5 - HEALING_TURN
    assert worth(RECOVER, {"hp_pct": 0.3}) == pytest.approx(healed + MET)
    assert worth({**SLASH, "name": "explosion"}) < worth({**SLASH, "name": "uturn"}) - 0.5

    def switch(mine=None, **state):
        return of_switch_into_switch(field_of(me | (mine or {}), foe, [other], **state), other)

    assert switch() == -SWITCH
    assert switch({"atk_boost": 2}) == pytest.approx(-SWITCH - 0.1)
    assert switch(player_conditions="spikes") == pytest.approx(-SWITCH - (1 - ALIVE) * 0.125)


def test_what_an_attack_does_beside_its_damage():
    me, foe = pokemon("a", PLAIN), pokemon("foe", "normal notype", item="leftovers")

    def worth(name, kind="fire", bench=(), theirs=None, **state):
        battle_format = state.pop("battle_format", "gen4ou")
        field = field_of(me, foe | (theirs or {}), bench, battle_format, **state)
        return of_side_effect(field, move(name, kind, 80))

    assert worth("lavaplume") == pytest.approx(0.3 * STATUS_WORTH["brn"])
    assert worth("lavaplume", theirs={"status": "par"}) == 0
    assert worth("lavaplume", theirs={"types": "fire notype"}) == 0
    assert worth("lavaplume", theirs={"ability": "waterveil"}) == 0
    assert worth("bodyslam", "normal", theirs={"types": "ghost poison"}) > 0
    assert worth("bodyslam", "normal", battle_format="gen1ou") == 0  # in generation 1 not on its own type
    assert [worth("knockoff"), worth("knockoff", theirs={"item": "noitem"}), worth("tackle")] == [0.06, 0, 0]
    rocks, bench = {"player_conditions": "stealthrock"}, [pokemon("other", PLAIN)]
    assert [worth("rapidspin", bench=bench, **rocks), worth("rapidspin", **rocks)] == [0.12, 0]


def test_a_quick_move_of_the_opponent_that_finishes_comes_first():
    quick = move("quickattack", "normal", 80, priority=1)
    me, foe = pokemon("a", PLAIN, SLASH, base_spe=120, hp_pct=0.05), pokemon("foe", "normal notype", quick)
    assert not field_of(me, foe).first(SLASH)
    assert field_of(me | {"hp_pct": 1.0}, foe).first(SLASH)
    assert field_of(me, foe).first({**SLASH, "priority": 2})
    assert field_of(me | {"base_spe": 20, "ability": "prankster", "hp_pct": 1.0}, foe).first(RECOVER)


def test_worth_is_told_in_pokemon():
    assert of_health(0.5, 0.25) == pytest.approx((1 - ALIVE) * 0.5 + ALIVE * 0.25)
    me, foe = pokemon("a", "normal notype", SLASH, base_spe=101), pokemon("foe", "normal notype", *[SLASH] * 4)
    field = field_of(me, foe | {"hp_pct": 0.5})
    turns, theirs = 0.5 / field.best(field.me, field.foe)[0], 1 / field.best(field.foe, field.me)[0]
    assert field.race(field.me, 1.0, 0.5) == pytest.approx(0.75 * np.tanh((theirs - turns + 1) / (0.5 + turns)))
    assert standing(field, field.me, 1.0) == pytest.approx(AHEAD * field.race(field.me, 1.0, 0.5))
    assert standing(field, field.me, 0.0) == -ALIVE


def test_who_comes_in_after_a_faint_is_not_hit_on_its_way():
    frail = pokemon("frail", PLAIN, move("slash", "normal", 120), base_spe=200, hp_pct=0.2)
    wall = pokemon("wall", "rock steel", move("splash", "normal"), hp_pct=0.5)
    me, foe = pokemon("a", PLAIN, TACKLE, hp_pct=0.0), pokemon("foe", "normal notype", *[SLASH] * 4, hp_pct=0.2)
    field = field_of(me | {"hp_pct": 1.0}, foe, [frail, wall])
    assert of_switch(field, frail) < of_switch(field, wall)
    assert choice(me, foe, [wall, frail], legal=[4, 5]) == "frail"
    assert choice(me, foe, [{**wall, "name": "b"}, {**wall, "name": "a"}], legal=[4, 5]) == "a"


def test_of_two_that_are_worth_the_same_the_first_is_chosen_and_of_none_known_too():
    me = pokemon("a", PLAIN, {**TACKLE, "name": "pound"}, TACKLE)
    assert choice(me, FOE) == "pound"
    mask = np.zeros(13, bool)
    mask[[2, 3]] = True  # the state does not name what these are
    state = json.dumps(state_of(me, FOE)).encode()
    assert PlannerAgent().choose([Observation("lane", state, mask, True)]) == [2]


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
