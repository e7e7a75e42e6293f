"""What moves do beside their damage, and what wears a Pokémon down: facts the planner weighs."""

from __future__ import annotations

from typing import Any

from battle.judgement import effectiveness

# Attacks that may give a status: which, and how often.
SIDE_STATUS = {
    "blizzard": ("frz", 0.1), "bodyslam": ("par", 0.3), "bounce": ("par", 0.3), "discharge": ("par", 0.3),
    "dragonbreath": ("par", 0.3), "fireblast": ("brn", 0.1), "firepunch": ("brn", 0.1), "flamethrower": ("brn", 0.1),
    "flareblitz": ("brn", 0.1), "forcepalm": ("par", 0.3), "gunkshot": ("psn", 0.3), "heatwave": ("brn", 0.1),
    "icebeam": ("frz", 0.1), "icepunch": ("frz", 0.1), "inferno": ("brn", 1.0), "lavaplume": ("brn", 0.3),
    "malignantchain": ("tox", 0.5), "mortalspin": ("psn", 1.0), "nuzzle": ("par", 1.0), "poisonfang": ("tox", 0.5),
    "poisonjab": ("psn", 0.3), "sacredfire": ("brn", 0.5), "scald": ("brn", 0.3), "scorchingsands": ("brn", 0.3),
    "sludge": ("psn", 0.3), "sludgebomb": ("psn", 0.3), "spark": ("par", 0.3), "steameruption": ("brn", 0.3),
    "thunder": ("par", 0.3), "thunderbolt": ("par", 0.1), "thunderpunch": ("par", 0.1), "triattack": ("par", 0.2),
    "zapcannon": ("par", 1.0),
}  # fmt: skip
FLINCHES = {
    "airslash": 0.3, "bite": 0.3, "darkpulse": 0.2, "fakeout": 1.0, "headbutt": 0.3, "iciclecrash": 0.3,
    "ironhead": 0.3, "rockslide": 0.3, "stomp": 0.3, "waterfall": 0.2, "zenheadbutt": 0.2, "hyperfang": 0.1,
}  # fmt: skip
# What an attack does to its user's own stats.
OWN_STATS = {
    "closecombat": {"def": -1, "spd": -1}, "dracometeor": {"spa": -2}, "dragonascent": {"def": -1, "spd": -1},
    "fleurcannon": {"spa": -2}, "hammerarm": {"spe": -1}, "icehammer": {"spe": -1}, "leafstorm": {"spa": -2},
    "makeitrain": {"spa": -1}, "overheat": {"spa": -2}, "psychoboost": {"spa": -2},
    "superpower": {"atk": -1, "def": -1},
    "vcreate": {"def": -1, "spd": -1, "spe": -1}, "armorcannon": {"def": -1, "spd": -1},
    "headlongrush": {"def": -1, "spd": -1}, "clangingscales": {"def": -1},
    "chargebeam": {"spa": 1}, "flamecharge": {"spe": 1}, "meteorbeam": {"spa": 1}, "electroshot": {"spa": 1},
    "poweruppunch": {"atk": 1}, "torchsong": {"spa": 1}, "trailblaze": {"spe": 1}, "aquastep": {"spe": 1},
    "aurawheel": {"spe": 1}, "mysticalpower": {"spa": 1}, "scaleshot": {"spe": 1, "def": -1},
}  # fmt: skip
RAISES = {
    "swordsdance": {"atk": 2}, "dragondance": {"atk": 1, "spe": 1}, "nastyplot": {"spa": 2}, "growth": {"spa": 1},
    "calmmind": {"spa": 1, "spd": 1}, "amnesia": {"spd": 2}, "curse": {"atk": 1, "def": 1}, "agility": {"spe": 2},
    "bulkup": {"atk": 1, "def": 1}, "irondefense": {"def": 2}, "quiverdance": {"spa": 1, "spd": 1, "spe": 1},
    "shellsmash": {"atk": 2, "spa": 2, "spe": 2}, "bellydrum": {"atk": 6}, "cosmicpower": {"def": 1, "spd": 1},
    "acidarmor": {"def": 2}, "barrier": {"def": 2}, "rockpolish": {"spe": 2}, "shiftgear": {"atk": 1, "spe": 2},
    "coil": {"atk": 1, "def": 1}, "tailglow": {"spa": 3}, "victorydance": {"atk": 1, "def": 1, "spe": 1},
}  # fmt: skip
REFUSES = {"goodasgold", "magicbounce", "purifyingsalt"}  # abilities that let no status move through
# Who cannot get a status, or is the better for it.
IMMUNE_TO = {
    "par": {"limber"}, "brn": {"waterveil", "waterbubble", "guts"}, "slp": {"insomnia", "vitalspirit", "sweetveil"},
    "psn": {"immunity", "poisonheal", "magicguard"}, "tox": {"immunity", "poisonheal", "magicguard"},
    "frz": {"magmaarmor"},
}  # fmt: skip
SCREENS = {"reflect", "lightscreen", "auroraveil"}
CLEARS = {"defog", "rapidspin"}
PHAZES = {"roar", "whirlwind", "haze"}
DRAINS = {"gigadrain", "drainpunch", "hornleech", "leechlife", "megadrain", "drainingkiss", "bitterblade"}
RECOILS = {"doubleedge", "bravebird", "flareblitz", "woodhammer", "wavecrash", "headsmash", "volttackle"}
WEATHERED = {"sandstorm": {"rock", "ground", "steel"}, "hail": {"ice"}}  # who is spared
NO_HARM = {"magicguard", "overcoat", "sandveil", "sandrush", "sandforce", "icebody", "snowcloak", "slushrush"}


def wear(pokemon: dict[str, Any], weather: str, gen: int) -> float:
    """Share of its full health that a Pokémon loses at the end of a turn, less what it gains."""
    gained = 1 / 16 if pokemon["item"] == "leftovers" else 0.0
    types = set(pokemon["types"].split())
    if pokemon["item"] == "blacksludge":
        gained = 1 / 16 if "poison" in types else -1 / 8
    if pokemon["ability"] == "poisonheal" and pokemon["status"] in ("psn", "tox"):
        return -gained - 1 / 8
    if pokemon["ability"] == "magicguard":
        return -gained
    status = pokemon["status"]
    lost = {"psn": 1 / 16 if gen == 1 else 1 / 8, "brn": 1 / 16 if gen == 1 or gen >= 7 else 1 / 8, "tox": 3 / 16}
    worn = lost.get(status, 0.0)
    if pokemon["effect"] == "leechseed":
        worn += 1 / 16 if gen == 1 else 1 / 8
    if weather in WEATHERED and gen >= 3 and not types & WEATHERED[weather] and pokemon["ability"] not in NO_HARM:
        worn += 1 / 16
    return worn - gained


def hazard(pokemon: dict[str, Any], conditions: str, gen: int) -> float:
    """Share of its full health that a Pokémon loses as it comes in. The state names the latest hazard alone."""
    if pokemon["item"] == "heavydutyboots" or pokemon["ability"] == "magicguard":
        return 0.0
    if conditions == "stealthrock":
        return 0.125 * effectiveness("rock", pokemon["types"], gen)
    grounded = "flying" not in pokemon["types"].split() and pokemon["ability"] != "levitate"
    if conditions == "spikes" and grounded and pokemon["item"] != "airballoon":
        return 0.125
    if conditions == "toxicspikes" and grounded and not {"poison", "steel"} & set(pokemon["types"].split()):
        return 0.1 if pokemon["status"] == "nostatus" else 0.0
    return 0.05 if conditions == "stickyweb" and grounded else 0.0
