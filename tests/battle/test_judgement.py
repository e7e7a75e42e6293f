"""Judgement from a state alone: the games' type charts, what a hit takes, who is faster; by hand or by poke-env."""

import pytest
from poke_env.data import GenData

from battle.judgement import best_damage, damage, effectiveness, faster, generation, immune, matchup, stat, threat
from tests.battle.fighters import move, pokemon

FROM = {"DARK": 2, "STEEL": 2, "FAIRY": 6}  # generation; all others: 1


@pytest.mark.parametrize("gen", range(1, 10))
def test_every_type_meets_every_other_as_in_its_generation(gen):
    chart = GenData.from_gen(gen).type_chart
    there = [kind for kind in chart if kind != "STELLAR" and FROM.get(kind, 1) <= gen]
    assert len(there) == {1: 15, 6: 18}.get(gen, 17 if gen < 6 else 18)
    for attack in there:
        for target in there:
            factor = chart[target][attack]
            assert effectiveness(attack.lower(), f"{target.lower()} notype", gen) == factor, (attack, target)
            assert effectiveness(attack.lower(), f"{target.lower()} water", gen) == factor * chart["WATER"][attack]
    assert effectiveness("threequestionmarks", "ghost steel", gen) == 1


def test_the_generation_stands_in_the_formats_name():
    assert [generation(name) for name in ("gen1ou", "gen9randombattle")] == [1, 9]


def test_a_stat_comes_of_base_level_stage_and_status():
    one = pokemon("one", "normal notype", lvl=50, base_hp=80, base_spe=120, spe_boost=2, spa_boost=-3)
    assert stat(one, "hp", 2) == (160 + 94) / 2 + 60
    assert stat(one, "hp", 3) == (160 + 52) / 2 + 60
    assert stat(one, "spe", 9) == ((240 + 52) / 2 + 5) * 2
    assert stat(one, "spa", 9) == ((200 + 52) / 2 + 5) * 0.4
    plain = stat(one, "spe", 9)
    for status, name, factors in (("par", "spe", (4, 4, 2)), ("brn", "atk", (2, 2, 2))):
        for gen, factor in zip((3, 6, 7), factors, strict=True):
            assert stat({**one, "status": status}, name, gen) * factor == stat(one, name, gen)
    assert stat({**one, "status": "par"}, "atk", 9) == stat({**one, "status": "brn"}, "atk", 9) * 2
    assert plain == stat({**one, "status": "slp"}, "spe", 9)


HIT = move("slash", "normal", 100)
BEAM = {**HIT, "category": "special"}
RAISED = {"atk_boost": 2}
# What is another of the move, its user, its target, the generation, and how often a plain hit's share that takes.
HITS = {
    "a plain hit": ({}, {}, {}, 9, 1),
    "a special one goes by the special stats": (BEAM, {"base_spa": 226}, {"base_spd": 226}, 9, 1),
    "of one's own type": ({"move_type": "water"}, {"types": "fire water"}, {}, 9, 1.5),
    "that is super effective": ({"move_type": "rock"}, {}, {"types": "fire flying"}, 9, 4),
    "into an immunity": ({"move_type": "ghost"}, {}, {}, 9, 0),
    "into an ability that is immune": ({"move_type": "water"}, {}, {"ability": "stormdrain"}, 9, 0),
    "of any type but that": ({"move_type": "fire"}, {}, {"ability": "stormdrain"}, 9, 1),
    "that may miss": ({"accuracy": 0.7}, {}, {}, 9, 0.7),
    "by a boosted one": ({}, RAISED, {}, 9, "double"),
    "foul play uses the target's own strength": ({"name": "foulplay"}, {}, RAISED, 9, "double"),
    "body press the user's defence": ({"name": "bodypress"}, {"def_boost": 2}, {}, 9, "double"),
    "psyshock meets the physical defence": ({**BEAM, "name": "psyshock"}, {}, {"def_boost": -2}, 9, "double"),
    "other special hits do not": (BEAM, {}, {"def_boost": -2}, 9, 1),
    "explosion halves the defence": ({"name": "explosion"}, {}, {}, 4, "double"),
    "until generation 4": ({"name": "explosion"}, {}, {}, 5, 1),
    "a choice band is for physical hits": ({}, {"item": "choiceband"}, {}, 9, 1.5),
    "and no others": (BEAM, {"item": "choiceband"}, {}, 9, 1),
    "choice specs for special ones": (BEAM, {"item": "choicespecs"}, {}, 9, 1.5),
    "and no other ones": ({}, {"item": "choicespecs"}, {}, 9, 1),
    "a life orb is for both": (BEAM, {"item": "lifeorb"}, {}, 9, 1.3),
    "knock off hurts who holds something": ({"name": "knockoff"}, {}, {"item": "leftovers"}, 6, 1.5),
    "not who does not": ({"name": "knockoff"}, {}, {}, 6, 1),
    "nor before generation 6": ({"name": "knockoff"}, {}, {"item": "leftovers"}, 5, 1),
    "a status move takes nothing": ({"category": "status"}, {}, {}, 9, 0),
}  # fmt: skip


def share(power, attack=257.0, level=100):
    """Of a base-100 Pokémon's health, by the games' formula and the rolls' mean, 92.5%; attack 257 against 257."""
    return ((2 * level / 5 + 2) * power * attack / 257 / 50 + 2) * 0.925 / 362


@pytest.mark.parametrize("case", HITS)
def test_what_a_hit_takes(case):
    other, mine, theirs, gen, factor = HITS[case]
    user = {**pokemon("user", "notype notype"), **mine}
    target = {**pokemon("target", "normal notype"), **theirs}
    expected = share(100, 514) if factor == "double" else share(100) * factor
    assert damage({**HIT, **other}, user, target, gen) == pytest.approx(expected)


def test_hits_without_a_power_of_their_own():
    user, target = pokemon("user", "notype notype", lvl=50), pokemon("target", "normal notype", hp_pct=0.6)

    def taken(name, kind="dark", power=0, gen=9, **other):
        return damage({**move(name, kind, 1), "base_power": power}, user, {**target, **other}, gen)

    assert taken("seismictoss") == taken("nightshade") == 50 / 362
    assert taken("seismictoss", "fighting", types="ghost notype") == 0
    assert taken("seismictoss", "fighting", gen=1, types="ghost notype") > 0  # of whatever type
    assert taken("superfang") == taken("ruination") == 0.3
    # Its stat at level 50 is (200 + 52) / 2 + 5 = 131.
    for name, power in (("return", 102), ("grassknot", 60), ("heavyslam", 80), ("unheardof", 60)):
        assert taken(name) == pytest.approx(share(power, 131, 50)), name
    assert taken("doublekick", power=30) == pytest.approx(share(60, 131, 50))


def test_who_is_faster():
    slow, fast = (pokemon(name, "normal notype", base_spe=base) for name, base in (("slow", 80), ("fast", 100)))
    assert faster(fast, slow, 9)
    assert not faster(slow, fast, 9)
    assert not faster(fast, fast, 9)
    assert faster({**slow, "item": "choicescarf"}, fast, 9)
    assert not faster({**slow, "item": "choiceband"}, fast, 9)


def test_a_threat_is_the_best_of_what_is_known_and_what_its_types_tell():
    target = pokemon("target", "normal notype")
    bat = pokemon("bat", "dark notype", move("slash", "normal", 40), base_atk=60)
    guess = damage({**BEAM, "base_power": 80, "move_type": "dark"}, bat, target, 9)
    assert threat(bat, target, 9) == guess > 0
    known = {**HIT, "base_power": 250}
    assert threat({**bat, "moves": [known]}, target, 9) == damage(known, bat, target, 9) > guess
    strong = {**bat, "base_atk": 100}  # even: it is thought of as physical
    assert threat(strong, {**target, "base_def": 200}, 9) < threat(strong, {**target, "base_spd": 200}, 9)
    assert threat({**bat, "types": "notype notype", "moves": []}, target, 9) == 0


def test_a_matchup_is_what_is_dealt_less_what_is_taken_and_a_little_for_speed():
    foe = pokemon("foe", "dragon notype", base_spe=90)
    me = pokemon("me", "fairy notype", HIT, {**HIT, "name": "explosion", "base_power": 250})
    dealt, taken = damage(HIT, me, foe, 9), threat(foe, me, 9)
    assert best_damage(me, foe, 9) == dealt  # no hit that faints its user
    assert best_damage({**me, "moves": []}, foe, 9) == 0
    assert matchup(me, foe, 9) == pytest.approx(dealt - taken + 0.1 + 0.2)
    assert matchup({**me, "base_spe": 80}, foe, 9) == pytest.approx(dealt - taken + 0.2)
    assert matchup(me, {**foe, "hp_pct": 0.1}, 9) == pytest.approx(0.1 - taken + 0.3)
    hurt = {**me, "types": "dragon notype", "hp_pct": 0.05}
    assert threat(foe, hurt, 9) > 0.05
    assert matchup(hurt, foe, 9) == pytest.approx(damage(HIT, hurt, foe, 9) - 0.05 + 0.1 + 0.01)


def test_abilities_that_are_immune_are_so_to_their_own_type_alone():
    own = {"levitate": "ground", "flashfire": "fire", "voltabsorb": "electric", "sapsipper": "grass"}
    for ability, kind in own.items():
        target = pokemon("target", "normal notype", ability=ability)
        hits = (move("", each, 9) for each in (*own.values(), "water"))
        assert [each["move_type"] for each in hits if immune(each, target, 9)] == [kind]
