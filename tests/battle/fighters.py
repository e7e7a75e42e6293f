"""Moves and Pokémon of a universal state, plain but for what a test says of them."""


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
