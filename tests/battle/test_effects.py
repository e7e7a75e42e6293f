"""What wears a Pokémon down: status, weather, hazards."""

import pytest

from battle.effects import hazard, wear
from tests.battle.fighters import pokemon

PLAIN = pokemon("a", "normal notype")


@pytest.mark.parametrize(
    ("other", "weather", "gen", "share"),
    [
        ({}, "noweather", 4, 0),
        ({"item": "leftovers"}, "noweather", 4, -1 / 16),
        ({"item": "blacksludge"}, "noweather", 5, 1 / 8),
        ({"status": "brn"}, "noweather", 4, 1 / 8),
        ({"status": "brn"}, "noweather", 7, 1 / 16),
        ({"status": "psn"}, "noweather", 1, 1 / 16),
        ({"status": "tox"}, "noweather", 4, 3 / 16),
        ({"status": "tox", "ability": "poisonheal"}, "noweather", 4, -1 / 8),
        ({"status": "tox", "ability": "magicguard"}, "noweather", 4, 0),
        ({"effect": "leechseed"}, "noweather", 4, 1 / 8),
        ({}, "sandstorm", 4, 1 / 16),
        ({}, "sandstorm", 2, 0),
        ({"types": "rock notype"}, "sandstorm", 4, 0),
        ({}, "hail", 4, 1 / 16),
        ({"ability": "overcoat"}, "hail", 5, 0),
    ],
)
def test_what_is_lost_at_the_end_of_a_turn(other, weather, gen, share):
    assert wear({**PLAIN, **other}, weather, gen) == pytest.approx(share)


@pytest.mark.parametrize(
    ("other", "conditions", "share"),
    [
        ({}, "noconditions", 0),
        ({}, "stealthrock", 0.125),
        ({"types": "fire flying"}, "stealthrock", 0.5),
        ({"item": "heavydutyboots"}, "stealthrock", 0),
        ({}, "spikes", 0.125),
        ({"types": "normal flying"}, "spikes", 0),
        ({"ability": "levitate"}, "spikes", 0),
        ({"item": "airballoon"}, "spikes", 0),
        ({}, "toxicspikes", 0.1),
        ({"types": "steel notype"}, "toxicspikes", 0),
        ({"status": "par"}, "toxicspikes", 0),
        ({}, "stickyweb", 0.05),
        ({"ability": "magicguard"}, "spikes", 0),
    ],
)
def test_what_it_costs_to_come_in(other, conditions, share):
    assert hazard({**PLAIN, **other}, conditions, 8) == pytest.approx(share)
