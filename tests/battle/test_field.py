"""One turn's field: what a hit takes by weather and abilities, the best move of either side, and who wins the race."""

import pytest

from battle.judgement import damage
from tests.battle.fighters import BEAM, PLAIN, SLASH, SURF, TACKLE, field_of, move, pokemon

# The move, what else of its user and of its target, the weather, and by how much that changes what it takes.
FACTORS = {
    "rain on fire": (BEAM, {}, {}, "raindance", 0.5),
    "sun on fire": (BEAM, {}, {}, "sunnyday", 1.5),
    "rain on water": (SURF, {}, {}, "raindance", 1.5),
    "sun on water": (SURF, {}, {}, "sunnyday", 0.5),
    "sand on neither": (SURF, {}, {}, "sandstorm", 1),
    "huge power": (SLASH, {"ability": "hugepower"}, {}, "", 2),
    "huge power on a special hit": (BEAM, {"ability": "hugepower"}, {}, "", 1),
    "huge power on a fixed share": (move("seismictoss", "fighting", 1), {"ability": "hugepower"}, {}, "", 1),
    "technician": (move("slash", "normal", 60), {"ability": "technician"}, {}, "", 1.5),
    "technician on a strong hit": (SLASH, {"ability": "technician"}, {}, "", 1),
    "technician on a power unknown": (SLASH | {"base_power": 0}, {"ability": "technician"}, {}, "", 1),
    "adaptability": (SLASH, {"ability": "adaptability", "types": "normal notype"}, {}, "", 4 / 3),
    "adaptability on another type": (SLASH, {"ability": "adaptability"}, {}, "", 1),
    "guts": (SLASH, {"ability": "guts", "status": "par"}, {}, "", 1.5),
    "guts without a status": (SLASH, {"ability": "guts"}, {}, "", 1),
    "guts on a special hit": (BEAM, {"ability": "guts", "status": "par"}, {}, "", 1),
    "multiscale": (SLASH, {}, {"ability": "multiscale"}, "", 0.5),
    "multiscale once hurt": (SLASH, {}, {"ability": "multiscale", "hp_pct": 0.99}, "", 1),
    "thick fat": (BEAM, {}, {"ability": "thickfat"}, "", 0.5),
    "thick fat on ice": (move("beam", "ice", 70, "special"), {}, {"ability": "thickfat"}, "", 0.5),
    "thick fat on another type": (SLASH, {}, {"ability": "thickfat"}, "", 1),
    "dream eater on one awake": (move("dreameater", "psychic", 100), {}, {}, "", 0),
    "dream eater on one asleep": (move("dreameater", "psychic", 100), {}, {"status": "slp"}, "", 1),
    "a miss is weighed elsewhere": (move("slash", "normal", 70, accuracy=0.5), {}, {}, "", 1),
}  # fmt: skip


@pytest.mark.parametrize("case", FACTORS)
def test_what_weather_and_abilities_make_of_a_hit(case):
    hit, mine, theirs, weather, factor = FACTORS[case]
    me, foe = pokemon("a", PLAIN), pokemon("foe", "normal notype")
    share = damage(hit, me | {"types": mine.get("types", PLAIN)}, foe, 4) / hit["accuracy"]
    field = field_of(me | mine, foe | theirs, weather=weather or "noweather")
    assert field.hit(hit, field.me, field.foe) == pytest.approx(share * factor)


def test_guts_makes_a_burn_an_advantage():
    me, foe = pokemon("a", PLAIN, ability="guts"), pokemon("foe", "normal notype")
    well = damage(SLASH, me, foe, 4)
    field = field_of({**me, "status": "brn"}, foe)
    assert field.hit(SLASH, field.me, field.foe) == pytest.approx(1.5 * well, rel=0.05)


def test_the_best_move_is_one_that_can_be_used_and_of_the_foe_one_that_may_be():
    spent, boom = {**move("outrage", "dragon", 120), "current_pp": 0}, move("explosion", "normal", 250)
    me = pokemon("a", PLAIN, SLASH, spent, boom, {**move("rockblast", "rock", 40), "accuracy": 0.1})
    foe = pokemon("foe", "normal notype", TACKLE)
    field = field_of(me, foe)
    taken, which = field.best(me, foe)
    assert (which["name"], taken) == ("slash", pytest.approx(damage(SLASH, me, foe, 4)))
    slow = field_of({**me, "moves": [SLASH, move("hyperbeam", "normal", 100)]}, foe)
    assert slow.best(slow.me, foe)[1]["name"] == "slash"  # 0.6 of it: the next turn is lost
    assert field_of({**me, "status": "par"}, foe).best({**me, "status": "par"}, foe)[0] == pytest.approx(0.75 * taken)
    assert field_of({**me, "status": "frz"}, foe).best({**me, "status": "frz"}, foe)[0] == pytest.approx(0.35 * taken)
    guess = damage({**SLASH, "name": "", "base_power": 80}, foe, me, 4)
    assert field.best(foe, me)[0] == pytest.approx(guess)  # what it has shown is less
    full = pokemon("foe", "normal notype", TACKLE, TACKLE, TACKLE, TACKLE)
    assert field_of(me, full).best(full, me)[0] == pytest.approx(damage(TACKLE, full, me, 4))
    special = field_of(me, {**foe, "base_spa": 101})
    assert special.best(special.foe, me)[1]["category"] == "special"
    bare = field_of(me, {**foe, "moves": [], "types": PLAIN})
    assert bare.best(bare.foe, me) == (0, None)


def test_a_race_is_won_by_who_hits_harder_has_more_left_or_moves_first():
    me, foe = pokemon("a", "normal notype", SLASH, base_spe=101), pokemon("foe", "normal notype", *[SLASH] * 4)

    def race(health=1.0, left=1.0, **mine):
        field = field_of({**me, **mine}, foe)
        return field.race(field.me, health, left)

    assert 0 < race() == -race(base_spe=99) < 0.2
    assert race(0.5) < race(1.0) < race(1.0, 0.5)
    assert race(base_atk=150) > race() > race(base_def=70)
    assert -0.75 < race(0.1, base_atk=10) < -0.5
    assert 0.5 < race(1.0, 0.1, base_atk=180) < 0.75
    assert race(moves=[]) < -0.5  # who takes nothing loses late, if at all


def test_an_opponent_whose_race_is_lost_is_expected_to_leave():
    strong, weak = move("slash", "dark", 150), move("slash", "dark", 20)
    foe = pokemon("foe", "normal notype", *[TACKLE] * 4)
    chances = [field_of(pokemon("a", PLAIN, each), foe).leaves() for each in (strong, weak)]
    assert 0.5 < chances[0] < 0.56
    assert chances[1] < 0.3
    assert field_of(pokemon("a", PLAIN, strong), foe, opponents_remaining=1).leaves() == 0
    assert field_of(pokemon("a", PLAIN, strong), foe | {"hp_pct": 0.0}).leaves() == 0
