"""What a move would do, judged from a universal state alone: types, damage, who is faster. For the baselines.

Damage follows the games' formula with average rolls and the usual spreads (full IVs, 252 EVs in generations 1 and 2,
84 in each stat later): good enough to rank moves and to see a knock-out, and the same for both players.
"""

from __future__ import annotations

from functools import cache
from typing import Any

# Attacking type → (weak to it, resist it, immune to it), as of generation 6.
CHART: dict[str, tuple[str, str, str]] = {
    "normal": ("", "rock steel", "ghost"),
    "fire": ("grass ice bug steel", "fire water rock dragon", ""),
    "water": ("fire ground rock", "water grass dragon", ""),
    "electric": ("water flying", "electric grass dragon", "ground"),
    "grass": ("water ground rock", "fire grass poison flying bug dragon steel", ""),
    "ice": ("grass ground flying dragon", "fire water ice steel", ""),
    "fighting": ("normal ice rock dark steel", "poison flying psychic bug fairy", "ghost"),
    "poison": ("grass fairy", "poison ground rock ghost", "steel"),
    "ground": ("fire electric poison rock steel", "grass bug", "flying"),
    "flying": ("grass fighting bug", "electric rock steel", ""),
    "psychic": ("fighting poison", "psychic steel", "dark"),
    "bug": ("grass psychic dark", "fire fighting poison flying ghost steel fairy", ""),
    "rock": ("fire ice flying bug", "fighting ground steel", ""),
    "ghost": ("psychic ghost", "dark", "normal"),
    "dragon": ("dragon", "steel", "fairy"),
    "dark": ("psychic ghost", "fighting dark fairy", ""),
    "steel": ("ice rock fairy", "fire water electric steel", ""),
    "fairy": ("fighting dragon dark", "fire poison steel", ""),
}
# What was different before: (attacking, defending) → factor.
BEFORE_6 = {("ghost", "steel"): 0.5, ("dark", "steel"): 0.5}
GEN_1 = {("bug", "poison"): 2.0, ("poison", "bug"): 2.0, ("ghost", "psychic"): 0.0, ("ice", "fire"): 1.0}

IMMUNE_ABILITY = {
    "levitate": "ground",
    "eartheater": "ground",
    "flashfire": "fire",
    "wellbakedbody": "fire",
    "waterabsorb": "water",
    "stormdrain": "water",
    "dryskin": "water",
    "voltabsorb": "electric",
    "lightningrod": "electric",
    "motordrive": "electric",
    "sapsipper": "grass",
}
FIXED = {"seismictoss": 1.0, "nightshade": 1.0, "superfang": 0.0, "ruination": 0.0}
HITS = {"doublekick": 2, "bonemerang": 2, "dragondarts": 2, "tripleaxel": 2.4, "pinmissile": 3, "rockblast": 3}
NO_POWER = {
    "return": 102,
    "frustration": 102,
    "lowkick": 60,
    "grassknot": 60,
    "gyroball": 70,
    "heavyslam": 80,
    "hex": 65,
}
FAINTS_USER = {"explosion", "selfdestruct", "memento", "mistyexplosion", "finalgambit"}
STAGES = {n: (2 + max(n, 0)) / (2 - min(n, 0)) for n in range(-6, 7)}


def generation(battle_format: str) -> int:
    """The digit after "gen"."""
    return int(battle_format[3])


@cache
def effectiveness(attack: str, types: str, gen: int) -> float:
    """Factor of an attacking type against "type type" (with `notype`), 0 to 4."""
    if attack not in CHART:
        return 1.0
    weak, resist, immune = CHART[attack]
    factor = 1.0
    for kind in types.split():
        if gen == 1 and (attack, kind) in GEN_1:
            factor *= GEN_1[attack, kind]
        elif gen < 6 and (attack, kind) in BEFORE_6:
            factor *= BEFORE_6[attack, kind]
        elif kind in weak.split():
            factor *= 2
        elif kind in resist.split():
            factor /= 2
        elif kind in immune.split():
            factor = 0.0
    return factor


def stat(pokemon: dict[str, Any], name: str, gen: int) -> float:
    """A stat with its stage, from base stat and level."""
    base, level = pokemon[f"base_{name}"], pokemon["lvl"]
    spread = 94 if gen <= 2 else 52
    if name == "hp":
        return (2 * base + spread) * level / 100 + level + 10
    value = ((2 * base + spread) * level / 100 + 5) * STAGES[pokemon.get(f"{name}_boost", 0)]
    if name == "spe" and pokemon["status"] == "par":
        value /= 4 if gen < 7 else 2
    if name == "atk" and pokemon["status"] == "brn":
        value /= 2
    return value


def immune(move: dict[str, Any], target: dict[str, Any], gen: int) -> bool:
    """True where type or a known ability makes the move do nothing."""
    kind = move["move_type"]
    return effectiveness(kind, target["types"], gen) == 0 or IMMUNE_ABILITY.get(target["ability"]) == kind


def damage(move: dict[str, Any], user: dict[str, Any], target: dict[str, Any], gen: int) -> float:
    """Expected share of the target's full HP that a hit takes, accuracy included; 0 for status moves."""
    name = move["name"]
    if name in FIXED and (gen == 1 or not immune(move, target, gen)):  # the first generation asks no type for these
        amount = FIXED[name] * user["lvl"] / stat(target, "hp", gen)
        return amount or target["hp_pct"] / 2
    if move["category"] == "status" or immune(move, target, gen):
        return 0.0
    power = (move["base_power"] or NO_POWER.get(name, 60)) * HITS.get(name, 1)
    physical = move["category"] == "physical"
    attack = stat(target if name == "foulplay" else user, "atk" if physical else "spa", gen)
    if name == "bodypress":
        attack = stat(user, "def", gen)
    defence = stat(target, "def" if physical or name in ("psyshock", "psystrike") else "spd", gen)
    if physical and name in FAINTS_USER and gen <= 4:
        defence /= 2
    amount = ((2 * user["lvl"] / 5 + 2) * power * attack / defence / 50 + 2) * 0.925
    amount *= effectiveness(move["move_type"], target["types"], gen)
    if move["move_type"] in user["types"].split():
        amount *= 1.5
    if (user["item"] == "choiceband" and physical) or (user["item"] == "choicespecs" and not physical):
        amount *= 1.5
    elif user["item"] == "lifeorb":
        amount *= 1.3
    if name == "knockoff" and gen >= 6 and target["item"] not in ("noitem",):
        amount *= 1.5
    return amount / stat(target, "hp", gen) * move["accuracy"]


def faster(user: dict[str, Any], target: dict[str, Any], gen: int) -> bool:
    scarf = 1.5 if user["item"] == "choicescarf" else 1.0
    return stat(user, "spe", gen) * scarf > stat(target, "spe", gen)


def threat(attacker: dict[str, Any], target: dict[str, Any], gen: int) -> float:
    """Share of the target's HP that the best guessed hit takes: known moves, and the own types at power 80."""
    known = max((damage(move, attacker, target, gen) for move in attacker["moves"]), default=0.0)
    physical = attacker["base_atk"] >= attacker["base_spa"]
    guess = {"name": "", "base_power": 80, "accuracy": 1.0, "category": "physical" if physical else "special"}
    guessed = (
        damage({**guess, "move_type": kind}, attacker, target, gen)
        for kind in attacker["types"].split()
        if kind != "notype"
    )
    return max([known, *guessed])


def best_damage(user: dict[str, Any], target: dict[str, Any], gen: int) -> float:
    """Share of the target's HP that the best of the user's moves takes."""
    return max((damage(m, user, target, gen) for m in user["moves"] if m["name"] not in FAINTS_USER), default=0.0)


def matchup(user: dict[str, Any], target: dict[str, Any], gen: int) -> float:
    """How well `user` stands against `target`: what it deals less what it takes, and a little for being faster."""
    dealt = min(best_damage(user, target, gen), target["hp_pct"] or 1.0)
    taken = min(threat(target, user, gen), user["hp_pct"] or 1.0)
    return dealt - taken + (0.1 if faster(user, target, gen) else 0.0) + 0.2 * user["hp_pct"]
