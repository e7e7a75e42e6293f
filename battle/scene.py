"""A state as a page shows it: the field, both benches and what can be done, in the words that people use."""

from __future__ import annotations

import re
from typing import Any

from data.schema import FIRST_SWITCH, FIRST_TERA, N_MOVES, Pokemon, State

BOOSTS = ("atk", "def", "spa", "spd", "spe", "accuracy", "evasion")
_NOTHING = {
    "noweather", "nofield", "noconditions", "noeffect", "nostatus", "nomove", "notype", "noability", "unknownability",
    "noitem", "unknownitem", "",
}  # fmt: skip
_ITEM_ENDS = re.compile(
    "(?<=[a-z]{3})(band|scarf|specs|boots|orb|berry|sash|vest|helmet|balloon|glasses|plate|club|gem|herb|rock|claw|"
    "policy|goggles|cloak|dice|mask|energy|powder|lens|belt|button|root|seed|pack|coat|water|magnet|spoon)$"
)
_ITEMS = {"heavydutyboots": "Heavy-Duty Boots", "kingsrock": "King's Rock", "nevermeltice": "Never-Melt Ice"}


class Names:
    """Names as people write them ("ironvaliant" → "Iron Valiant"), where the game's data of the format knows them."""

    def __init__(self, battle_format: str):
        from poke_env.data import GenData  # here: it takes a while to import, and only pages need it

        digit = battle_format[3:4]
        data = GenData.from_gen(int(digit) if digit.isdigit() and digit != "0" else 9)
        self._known = {name: entry["name"] for name, entry in data.pokedex.items() if "name" in entry}
        self._base = {name: entry["baseSpecies"] for name, entry in data.pokedex.items() if "baseSpecies" in entry}
        for entry in data.pokedex.values():
            for ability in entry.get("abilities", {}).values():
                self._known.setdefault(re.sub("[^a-z]", "", ability.lower()), ability)
        self._known |= {name: entry["name"] for name, entry in data.moves.items() if "name" in entry} | _ITEMS

    def base(self, name: str) -> str:
        """The species of a forme, however it is written, as letters alone ("Aegislash-Blade" → "aegislash")."""
        name = _letters(name)
        return _letters(self._base.get(name, name))

    def __call__(self, name: str) -> str:
        """Empty for the words that stand for nothing."""
        if name in _NOTHING:
            return ""
        return self._known.get(name) or _ITEM_ENDS.sub(r" \1", name).title()


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def field_of(state: State, write: Names) -> dict[str, Any]:
    """Both active Pokémon, and what lies on the field."""
    return {
        "me": pokemon_of(state.player_active_pokemon, write),
        "foe": pokemon_of(state.opponent_active_pokemon, write),
        "left": state.opponents_remaining,
        "field": [write(word) for word in (state.weather, state.battle_field) if word not in _NOTHING],
        "sides": [write(state.player_conditions), write(state.opponent_conditions)],
        "moved": [write(state.player_prev_move.name), write(state.opponent_prev_move.name)],
        "forced": state.forced_switch,
    }


def pokemon_of(pokemon: Pokemon, write: Names) -> dict[str, Any]:
    """What a page shows of a Pokémon on the field."""
    boosts = {stat: getattr(pokemon, f"{stat}_boost") for stat in BOOSTS}
    return {
        "name": write(pokemon.name),
        "hp": round(pokemon.hp_pct, 4),
        "status": "" if pokemon.status in _NOTHING else pokemon.status,
        "types": _types(pokemon),
        "tera": "" if pokemon.tera_type in _NOTHING else pokemon.tera_type,
        "level": pokemon.lvl,
        "item": write(pokemon.item),
        "ability": write(pokemon.ability),
        "effect": write(pokemon.effect),
        "boosts": {stat: stage for stat, stage in boosts.items() if stage},
        "moves": [write(move.name) for move in pokemon.moves[:N_MOVES]],
    }


def _types(pokemon: Pokemon) -> list[str]:
    return [kind for kind in pokemon.types.split() if kind not in _NOTHING]


class Benches:
    """Both teams as they become known: the own bench from each state, the opponent's from who was seen."""

    def __init__(self, write: Names):
        self.write = write
        self.own: dict[str, dict[str, Any]] = {}
        self.seen: dict[str, dict[str, Any]] = {}

    def add(self, state: State) -> dict[str, Any]:
        active, foe = state.player_active_pokemon, state.opponent_active_pokemon
        here = {pokemon.base_species: self._brief(pokemon) for pokemon in state.available_switches}
        self.own |= here | {active.base_species: self._brief(active)}
        self.seen[foe.base_species] = self._brief(foe)
        bench = [
            # Who is known and cannot come in is down, or held back (a trap).
            {**brief, "out": species not in here}
            for species, brief in self.own.items()
            if species != active.base_species
        ]
        foes = [{**brief} for species, brief in self.seen.items() if species != foe.base_species]
        return {"bench": bench, "foes": foes}

    def _brief(self, pokemon: Pokemon) -> dict[str, Any]:
        return {
            "name": self.write(pokemon.name),
            "hp": round(pokemon.hp_pct, 4),
            "status": "" if pokemon.status in _NOTHING else pokemon.status,
        }


def action_of(state: State, action: int, write: Names) -> dict[str, Any]:
    """An action by what it is: its kind, name, and what is known of the move or the Pokémon that comes in.

    Kind "other", named by its id, where the state has no such slot.
    """
    switch, tera = FIRST_SWITCH <= action < FIRST_TERA, action >= FIRST_TERA
    found = state.available_switches if switch else state.player_active_pokemon.moves[:N_MOVES]
    slot = action - (FIRST_SWITCH if switch else FIRST_TERA if tera else 0)
    if slot >= len(found):
        return {"kind": "other", "name": f"action {action}", "types": []}
    chosen = sorted(found, key=lambda choice: choice.name)[slot]
    if switch:
        return {
            "kind": "switch",
            "name": write(chosen.name),
            "types": _types(chosen),
            "hp": chosen.hp_pct,
            "moves": [write(move.name) for move in chosen.moves[:N_MOVES]],
        }
    return {
        "kind": "tera" if tera else "move",
        "name": write(chosen.name),
        "types": [chosen.move_type],
        "category": chosen.category,
        "power": chosen.base_power,
        "accuracy": chosen.accuracy,
        "pp": chosen.current_pp,
    }
