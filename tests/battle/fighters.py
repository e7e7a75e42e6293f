"""Moves, Pokémon and states of a battle, plain but for what a test says of them."""

import copy
import json
from pathlib import Path

import numpy as np

from battle.baselines import Board
from battle.field import Field

STATE = json.loads((Path(__file__).parents[2] / "launch" / "sample_state.json").read_text())


def move(name, kind, power=0, category="physical", accuracy=1.0, priority=0):
    return {
        "name": name, "move_type": kind, "category": category if power else "status", "base_power": power,
        "accuracy": accuracy, "priority": priority, "current_pp": 10, "max_pp": 16,
    }  # fmt: skip


def pokemon(name, types, *moves, **other):
    base = {f"base_{stat}": 100 for stat in ("hp", "atk", "def", "spa", "spd", "spe")}
    boosts = {f"{stat}_boost": 0 for stat in ("atk", "def", "spa", "spd", "spe", "accuracy", "evasion")}
    return {
        "name": name, "base_species": name, "types": types, "moves": list(moves), "hp_pct": 1.0, "lvl": 100,
        "status": "nostatus", "effect": "noeffect", "item": "noitem", "ability": "pressure", "tera_type": "notype",
        **base, **boosts, **other,
    }  # fmt: skip


def state_of(me, foe, bench=(), battle_format="gen4ou", **other):
    return copy.deepcopy(STATE) | {
        "format": battle_format, "player_active_pokemon": me, "opponent_active_pokemon": foe,
        "available_switches": list(bench), "player_conditions": "noconditions", "opponent_conditions": "noconditions",
        "weather": "noweather", "battle_field": "nofield", "opponents_remaining": 4, **other,
    }  # fmt: skip


def field_of(me, foe, bench=(), battle_format="gen4ou", **other):
    state = state_of(me, foe, bench, battle_format, **other)
    return Field(state, Board(state, np.arange(4 + len(bench))))


PLAIN = "notype notype"
TACKLE = move("tackle", "normal", 40)
SLASH, BEAM = move("slash", "normal", 70), move("beam", "fire", 70, "special")
SURF = move("surf", "water", 95, "special")
