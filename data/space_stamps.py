"""What tells an observation space from another of the same name: its sizes, and a digest of what it makes of states.

Caches and models keep it (law 14), so that a slot whose formula was edited is not mixed with what was made before.
"""

from __future__ import annotations

import hashlib
from functools import cache
from random import Random
from typing import Any

from .encode import Encoder
from .observation import N_TEAM, ObservationSpace, space_named
from .schema import BOOSTS, N_MOVES, STATS
from .tokenizer import GrowingTokenizer

_TEAM = ("charizard", "dragonite", "gengar", "rotomwash", "starmie", "tyranitar")
_MOVES = ("bodyslam", "fireblast", "hiddenpower", "quickattack", "recover", "thunderbolt", "toxic", "uturn")
_TYPES = ("dark", "dragon", "electric", "fire", "flying", "normal", "psychic", "water")
_HEALTH = ("nostatus", "brn", "frz", "par", "psn", "slp", "tox")
_SIDES = ("noconditions", "reflect", "spikes", "stealthrock")
N_STATES = 48


def space_stamps(name: str) -> dict[str, int | str]:
    """A space's stamps beside its name, as a model's configuration calls them. Raises `ValueError`: no such space."""
    space = space_named(name)
    return {"n_words": space.n_words, "n_numbers": space.n_numbers, "space_digest": space_digest(space)}


def space_digest(space: ObservationSpace) -> str:
    """A digest of a space's slots by name and of its encoding of fixed states, words as texts: no vocabulary and no
    comment changes it."""
    tokenizer = GrowingTokenizer()
    battle = Encoder(space, tokenizer).live()
    digest = hashlib.sha256(repr([slot.name for slot in (*space.word_slots, *space.number_slots)]).encode())
    for state in _fixed_states():
        words, numbers, _ = battle.add(state)
        digest.update(repr((tokenizer.words_of(words), numbers.tolist())).encode())
    return digest.hexdigest()[:12]


@cache  # half of a digest's time
def _fixed_states() -> list[dict[str, Any]]:
    """States of no real battle, in which every field takes many values: the same ones in every release, or what was
    stamped before would be refused."""
    random = Random(0)  # of it `random` alone: its draws are the same in every Python

    def one_of(values):
        return values[int(random.random() * len(values))]

    def move() -> dict[str, Any]:
        return {
            "name": one_of(_MOVES),
            "move_type": one_of(_TYPES),
            "category": one_of(("physical", "special", "status")),
            "base_power": one_of(range(0, 251, 5)),
            "accuracy": one_of(range(101)) / 100,
            "priority": one_of(range(-7, 6)),
            "current_pp": one_of(range(65)),
            "max_pp": 64,
        }

    def pokemon(name: str) -> dict[str, Any]:
        share = one_of(range(101)) / 100
        return {
            "name": name,
            "base_species": "rotom" if name == "rotomwash" else name,
            "hp_pct": share,
            "types": f"{one_of(_TYPES)} {one_of(('notype', *_TYPES))}",
            "item": one_of(("noitem", "unknownitem", "leftovers", "lifeorb")),
            "ability": one_of(("unknownability", "intimidate", "levitate", "pressure")),
            "lvl": one_of(range(1, 101)),
            "status": one_of(_HEALTH) if share else "fnt",
            "effect": one_of(("noeffect", "confusion", "leechseed", "substitute")),
            "moves": [move() for _ in range(one_of(range(N_MOVES + 1)))],
            "tera_type": one_of(("notype", *_TYPES)),
            **{f"{boost}_boost": one_of(range(-6, 7)) for boost in BOOSTS},
            **{f"base_{stat}": one_of(range(1, 256)) for stat in STATS},
        }

    def state() -> dict[str, Any]:
        active = one_of(_TEAM)
        won, lost = one_of(((False, False), (True, False), (False, True)))
        return {
            "format": one_of(("gen1ou", "gen4ubers", "gen9ou")),
            "player_active_pokemon": pokemon(active),
            "opponent_active_pokemon": pokemon(one_of(_TEAM)),
            "available_switches": [pokemon(name) for name in _TEAM if name != active and random.random() < 0.7],
            "player_prev_move": move(),
            "opponent_prev_move": move(),
            "opponents_remaining": one_of(range(N_TEAM + 1)),
            "player_conditions": one_of(_SIDES),
            "opponent_conditions": one_of(_SIDES),
            "weather": one_of(("noweather", "raindance", "sandstorm", "sunnyday")),
            "battle_field": one_of(("nofield", "electricterrain", "trickroom")),
            "forced_switch": random.random() < 0.2,
            "battle_won": won,
            "battle_lost": lost,
            "can_tera": random.random() < 0.5,
            "opponent_teampreview": list(_TEAM[: one_of(range(N_TEAM + 1))]),
        }

    return [state() for _ in range(N_STATES)]
