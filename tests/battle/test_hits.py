"""What the planner knows of a hit beyond the plain reckoning, factor by factor."""

import pytest

from battle.hits import faster, speed, taken
from battle.judgement import damage, stat
from tests.battle.fighters import move, pokemon

SLASH, BEAM, NORMAL = move("cut", "dark", 70), move("beam", "fire", 70, "special"), move("pound", "normal", 70)
QUAKE, SURF = move("earthquake", "ground", 100), move("surf", "water", 95, "special")
BOLT = move("bolt", "electric", 90, "special")
FIELD = {
    "weather": "noweather", "battle_field": "nofield", "player_conditions": "noconditions",
    "opponent_conditions": "noconditions",
}  # fmt: skip
# The move, what else of its user, of its target and of the state, the generation, and the factor upon `damage`.
FACTORS = {
    "rain": (SURF, {}, {}, {"weather": "raindance"}, 4, 1.5),
    "no fire in heavy rain": (BEAM, {}, {}, {"weather": "primordialsea"}, 6, 0),
    "sand guards rock": (BEAM, {}, {"types": "rock notype"}, {"weather": "sandstorm"}, 4, 2 / 3),
    "but not in generation 3": (BEAM, {}, {"types": "rock notype"}, {"weather": "sandstorm"}, 3, 1),
    "snow guards ice": (SLASH, {}, {"types": "ice notype"}, {"weather": "snowscape"}, 9, 2 / 3),
    "terrain": (BOLT, {}, {}, {"battle_field": "electricterrain"}, 8, 1.3),
    "terrain, generation 7": (BOLT, {}, {}, {"battle_field": "electricterrain"}, 7, 1.5),
    "grass dampens a quake": (QUAKE, {}, {}, {"battle_field": "grassyterrain"}, 9, 0.5),
    "mist guards from dragons": (move("claw", "dragon", 80), {}, {}, {"battle_field": "mistyterrain"}, 9, 0.5),
    "reflect": (SLASH, {}, {}, {"opponent_conditions": "reflect"}, 4, 0.5),
    "reflect, special hit": (BEAM, {}, {}, {"opponent_conditions": "reflect"}, 4, 1),
    "one's own reflect": (SLASH, {}, {}, {"player_conditions": "reflect"}, 4, 1),
    "aurora veil": (BEAM, {}, {}, {"opponent_conditions": "auroraveil"}, 9, 0.5),
    "huge power": (SLASH, {"ability": "hugepower"}, {}, {}, 4, 2),
    "a torrent when hurt": (SURF, {"ability": "torrent", "hp_pct": 0.3}, {}, {}, 4, 1.5),
    "no torrent when well": (SURF, {"ability": "torrent", "hp_pct": 0.4}, {}, {}, 4, 1),
    "water bubble": (SURF, {"ability": "waterbubble"}, {}, {}, 7, 2),
    "sharpness": (move("xscissor", "bug", 80), {"ability": "sharpness"}, {}, {}, 9, 1.5),
    "sharpness on a beam": (BEAM, {"ability": "sharpness"}, {}, {}, 9, 1),
    "toxic boost": (SLASH, {"ability": "toxicboost", "status": "tox"}, {}, {}, 6, 1.5),
    "solar power": (SURF, {"ability": "solarpower"}, {}, {"weather": "desolateland"}, 6, 0),
    "charcoal": (BEAM, {"item": "charcoal"}, {}, {}, 4, 1.2),
    "charcoal, generation 3": (BEAM, {"item": "charcoal"}, {}, {}, 3, 1.1),
    "charcoal on water": (SURF, {"item": "charcoal"}, {}, {}, 4, 1),
    "thick club": (SLASH, {"item": "thickclub", "base_species": "marowak"}, {}, {}, 4, 2),
    "thick club of another": (SLASH, {"item": "thickclub"}, {}, {}, 4, 1),
    "a sure critical hit": (move("stormthrow", "fighting", 60), {}, {}, {}, 6, 1.5),
    "critical hits of the fast, generation 1": (QUAKE, {"base_spe": 128}, {}, {}, 1, 1.25),
    "slash, generation 1": (move("slash", "normal", 70), {"base_spe": 64}, {}, {}, 1, 2),
    "fur coat": (SLASH, {}, {"ability": "furcoat"}, {}, 6, 0.5),
    "fluffy and fire": (BEAM, {}, {"ability": "fluffy"}, {}, 7, 2),
    "marvel scale": (SLASH, {}, {"ability": "marvelscale", "status": "par"}, {}, 4, 2 / 3),
    "bulletproof": (move("shadowball", "ghost", 80, "special"), {}, {"ability": "bulletproof"}, {}, 6, 0),
    "mold breaker": (SLASH, {"ability": "moldbreaker"}, {"ability": "furcoat"}, {}, 6, 1),
    "assault vest": (BEAM, {}, {"item": "assaultvest"}, {}, 6, 2 / 3),
    "assault vest, physical": (SLASH, {}, {"item": "assaultvest"}, {}, 6, 1),
    "eviolite": (SLASH, {}, {"item": "eviolite"}, {}, 6, 2 / 3),
    "air balloon": (QUAKE, {}, {"item": "airballoon"}, {}, 6, 0),
    "but not in the sun": (move("solarbeam", "grass", 120, "special"), {}, {}, {"weather": "sunnyday"}, 4, 1),
    "only an answer": (move("counter", "fighting", 1), {}, {}, {}, 4, 0),
    "snoring awake": (move("snore", "normal", 50), {}, {}, {}, 4, 0),
    "snoring": (move("snore", "normal", 50), {"status": "slp"}, {}, {}, 4, 1),
}  # fmt: skip


def fighters(mine=None, theirs=None):
    return pokemon("a", "notype notype") | (mine or {}), pokemon("foe", "notype notype") | (theirs or {})


@pytest.mark.parametrize("case", FACTORS)
def test_what_a_hit_takes(case):
    hit, mine, theirs, field, gen, factor = FACTORS[case]
    me, foe = fighters(mine, theirs)
    state = {**FIELD, **field, "opponent_active_pokemon": foe}
    assert taken(hit, me, foe, state, gen) == pytest.approx(factor * damage(hit, me, foe, gen))


POWERS = {
    # name: (power on paper, what else of the user, of the target, the power as things stand)
    "eruption": (150, {"hp_pct": 0.5}, {}, 75),
    "reversal": (0, {"hp_pct": 0.05}, {}, 150),
    "flail": (0, {}, {}, 20),
    "storedpower": (20, {"spa_boost": 2, "spd_boost": 1, "atk_boost": -1}, {}, 80),
    "acrobatics": (55, {}, {}, 110),
    "hex": (65, {}, {"status": "par"}, 130),
    "venoshock": (65, {}, {"status": "tox"}, 130),
    "bulletseed": (25, {}, {}, 75),
    "iciclespear": (25, {"ability": "skilllink"}, {}, 125),
    "electroball": (1, {"base_spe": 200}, {"base_spe": 40}, 120),
    "solarbeam": (120, {}, {}, 60),
}


@pytest.mark.parametrize("name", POWERS)
def test_power_as_things_stand(name):
    paper, mine, theirs, now = POWERS[name]
    me, foe = fighters(mine, theirs)
    state = {**FIELD, "opponent_active_pokemon": foe}
    plain = damage(move("cut", "ice", now, "special"), me, foe, 6)
    assert taken(move(name, "ice", paper or 1, "special"), me, foe, state, 6) == pytest.approx(plain)


def test_damage_that_hangs_on_no_stat():
    me, foe = fighters({"hp_pct": 0.25}, {"types": "ghost notype"})
    state = {**FIELD, "opponent_active_pokemon": foe}
    full = stat(foe, "hp", 4)
    assert taken(move("dragonrage", "dragon", 1, "special"), me, foe, state, 4) == pytest.approx(40 / full)
    assert taken(move("psywave", "psychic", 1, "special"), me, foe, state, 4) == pytest.approx(75 / full)
    assert taken(move("sonicboom", "normal", 1, "special"), me, foe, state, 4) == 0
    assert taken(move("sonicboom", "normal", 1, "special"), me, foe, state, 1) > 0
    assert taken(move("endeavor", "fighting", 1), me, {**foe, "types": "normal notype"}, state, 4) == pytest.approx(
        0.75
    )
    assert taken(move("fissure", "ground", 1), me, foe, state, 4) == 1
    assert taken(move("fissure", "ground", 1), me, {**foe, "lvl": 101}, state, 4) == 0
    assert taken(move("fissure", "ground", 1), me, {**foe, "base_spe": 101}, state, 1) == 0


def test_normal_moves_change_their_type():
    me, foe = fighters({"ability": "pixilate"}, {"types": "dragon notype"})
    state = {**FIELD, "opponent_active_pokemon": foe}
    fairy = damage(move("cut", "fairy", 84), me, foe, 7)
    assert taken(NORMAL, me, foe, state, 7) == pytest.approx(fairy)


def test_who_is_faster_as_things_stand():
    me, foe = fighters({"base_spe": 90}, {})
    state = {**FIELD, "opponent_active_pokemon": foe}
    plain = speed(me, state, 4)
    assert not faster(me, foe, state, 4)
    assert faster(me, foe, {**state, "battle_field": "trickroom"}, 8)
    assert faster({**me, "item": "choicescarf"}, foe, state, 4)
    assert faster({**me, "ability": "swiftswim"}, foe, {**state, "weather": "raindance"}, 4)
    assert not faster({**me, "ability": "swiftswim"}, foe, {**state, "weather": "sunnyday"}, 4)
    assert speed(me, {**state, "player_conditions": "tailwind"}, 4) == 2 * plain
    assert speed(foe, {**state, "player_conditions": "tailwind"}, 4) == speed(foe, state, 4)
    assert speed({**me, "item": "ironball"}, state, 4) == plain / 2
    assert speed({**me, "ability": "quickfeet", "status": "par"}, state, 4) == pytest.approx(0.75 * plain)
