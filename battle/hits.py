"""What one hit takes, as the planner reckons it: `judgement.damage`, and all that the universal state tells besides.

Abilities, items, weather, terrain, screens, critical hits, moves whose power hangs on who stands there. The other
baselines keep the plainer reckoning, by which their records stand.
"""

from __future__ import annotations

from typing import Any

from battle.judgement import FIXED, HITS, IMMUNE_ABILITY, damage, immune, stat

ONE_HIT = {"fissure", "guillotine", "horndrill", "sheercold"}
ANSWERS = {"bide", "comeuppance", "counter", "metalburst", "mirrorcoat"}  # nothing by themselves
AWAITS = {"bounce", "dig", "dive", "fly", "phantomforce", "razorwind", "shadowforce", "skullbash", "skyattack",
          "solarbeam", "solarblade", "meteorbeam", "electroshot", "futuresight", "doomdesire"}  # fmt: skip
# Of moves that hit more than once and that `judgement.HITS` does not know: how often on average.
REPEATED = {
    "armthrust": 3, "barrage": 3, "bonerush": 3, "bulletseed": 3, "cometpunch": 3, "doublehit": 2, "doubleslap": 3,
    "dualchop": 2, "dualwingbeat": 2, "furyattack": 3, "furyswipes": 3, "geargrind": 2, "iciclespear": 3,
    "populationbomb": 7, "scaleshot": 3, "spikecannon": 3, "surgingstrikes": 3, "tachyoncutter": 2, "tailslap": 3,
    "tripledive": 3, "triplekick": 4.5, "twinbeam": 2, "twineedle": 2, "watershuriken": 3,
}  # fmt: skip
TWO_TO_FIVE = {name for name, times in (REPEATED | HITS).items() if times == 3} - {"surgingstrikes", "tripledive"}
SURE_CRITICAL = {"flowertrick", "frostbreath", "stormthrow", "surgingstrikes", "wickedblow"}
OFTEN_CRITICAL = {"crabhammer", "karatechop", "razorleaf", "slash"}  # in generation 1
BY_WEIGHT = {"heavyslam": 80, "heatcrash": 80, "lowkick": 70, "grassknot": 70}

WEATHER = {
    ("raindance", "water"): 1.5, ("raindance", "fire"): 0.5, ("primordialsea", "water"): 1.5,
    ("primordialsea", "fire"): 0.0, ("sunnyday", "fire"): 1.5, ("sunnyday", "water"): 0.5,
    ("desolateland", "fire"): 1.5, ("desolateland", "water"): 0.0,
}  # fmt: skip
TERRAIN = {"electricterrain": "electric", "grassyterrain": "grass", "psychicterrain": "psychic"}
SHAKEN = {"earthquake", "bulldoze", "magnitude"}  # halved by grass
SCREENS = {"reflect": "physical", "lightscreen": "special"}

# What an ability makes of its owner's hits: of one category, of one type, of a kind of move.
BY_CATEGORY = {
    ("hugepower", "physical"): 2.0, ("purepower", "physical"): 2.0, ("gorillatactics", "physical"): 1.5,
    ("hustle", "physical"): 1.5, ("orichalcumpulse", "physical"): 1.2, ("hadronengine", "special"): 1.2,
    ("swordofruin", "physical"): 1.33, ("beadsofruin", "special"): 1.33,
}  # fmt: skip
BY_TYPE = {
    ("steelworker", "steel"): 1.5, ("steelyspirit", "steel"): 1.5, ("transistor", "electric"): 1.3,
    ("dragonsmaw", "dragon"): 1.5, ("rockypayload", "rock"): 1.5, ("waterbubble", "water"): 2.0,
    ("darkaura", "dark"): 1.33, ("fairyaura", "fairy"): 1.33,
}  # fmt: skip
PINCH = {"blaze": "fire", "overgrow": "grass", "swarm": "bug", "torrent": "water"}  # stronger below a third of health
CHANGED = {"aerilate": "flying", "galvanize": "electric", "pixilate": "fairy", "refrigerate": "ice"}  # of normal moves
PUNCHES = {"bulletpunch", "drainpunch", "dynamicpunch", "firepunch", "focuspunch", "icepunch", "machpunch", "megapunch",
           "meteormash", "poweruppunch", "ragefist", "shadowpunch", "thunderpunch"}  # fmt: skip
BITES = {"bite", "crunch", "firefang", "fishiousrend", "icefang", "jawlock", "poisonfang", "psychicfangs",
         "thunderfang"}  # fmt: skip
SLICES = {"aerialace", "airslash", "aquacutter", "behemothblade", "bitterblade", "ceaselessedge", "kowtowcleave",
          "leafblade", "nightslash", "populationbomb", "psyblade", "psychocut", "razorleaf", "sacredsword", "slash",
          "solarblade", "stoneaxe", "xscissor"}  # fmt: skip
PULSES = {"aurasphere", "darkpulse", "dragonpulse", "originpulse", "terrainpulse", "waterpulse"}
KINDS = {
    "ironfist": (PUNCHES, 1.2), "strongjaw": (BITES, 1.5), "sharpness": (SLICES, 1.5), "megalauncher": (PULSES, 1.5),
}  # fmt: skip
SOUNDS = {
    "alluringvoice", "boomburst", "bugbuzz", "chatter", "clangingscales", "disarmingvoice", "echoedvoice", "hypervoice",
    "overdrive", "psychicnoise", "snarl", "snore", "sparklingaria", "torchsong", "uproar",
}  # fmt: skip
BALLS = {"acidspray", "aurasphere", "electroball", "energyball", "focusblast", "gyroball", "iceball", "magnetbomb",
         "mistball", "mudbomb", "octazooka", "pollenpuff", "pyroball", "rockblast", "rockwrecker", "seedbomb",
         "shadowball", "sludgebomb", "syrupbomb", "weatherball", "zapcannon"}  # fmt: skip
# What an ability makes of hits on its owner.
ON_TYPE = {
    ("thickfat", "fire"): 0.5, ("thickfat", "ice"): 0.5, ("heatproof", "fire"): 0.5, ("waterbubble", "fire"): 0.5,
    ("purifyingsalt", "ghost"): 0.5, ("dryskin", "fire"): 1.25, ("fluffy", "fire"): 2.0,
}  # fmt: skip
ON_CATEGORY = {("furcoat", "physical"): 0.5, ("icescales", "special"): 0.5, ("fluffy", "physical"): 0.5}
PIERCING = {"moldbreaker", "teravolt", "turboblaze"}

ITEM_TYPE = {
    "blackbelt": "fighting", "blackglasses": "dark", "charcoal": "fire", "dragonfang": "dragon", "hardstone": "rock",
    "magnet": "electric", "metalcoat": "steel", "miracleseed": "grass", "mysticwater": "water", "nevermeltice": "ice",
    "poisonbarb": "poison", "sharpbeak": "flying", "silkscarf": "normal", "silverpowder": "bug", "softsand": "ground",
    "spelltag": "ghost", "twistedspoon": "psychic",
}  # fmt: skip
OWN_ITEM = {("thickclub", "marowak"): "physical", ("lightball", "pikachu"): ""}  # twice as strong
SPEED_ABILITY = {"chlorophyll": ("sunnyday", "desolateland"), "swiftswim": ("raindance", "primordialsea"),
                 "sandrush": ("sandstorm",), "slushrush": ("hail", "snow", "snowscape")}  # fmt: skip


def taken(move: dict[str, Any], user: dict[str, Any], target: dict[str, Any], state: dict[str, Any], gen: int) -> float:
    """Share of the target's full health that a move takes on average where it lands."""
    name = move["name"]
    asleep = {"dreameater": target, "snore": user}.get(name)
    if move["category"] == "status" or name in ANSWERS or (asleep and asleep["status"] != "slp"):
        return 0.0
    if name in ONE_HIT:
        can = stat(user, "spe", gen) >= stat(target, "spe", gen) if gen == 1 else user["lvl"] >= target["lvl"]
        return 0.0 if immune(move, target, gen) or target["ability"] == "sturdy" or not can else 1.0
    if name in ("dragonrage", "sonicboom", "psywave", "endeavor"):
        return set_amount(name, user, target, gen) if gen == 1 or not immune(move, target, gen) else 0.0
    own, other, struck = user["ability"], target["ability"], target
    if own in CHANGED and move["move_type"] == "normal":
        move = {**move, "move_type": CHANGED[own], "base_power": move["base_power"] * (1.3 if gen == 6 else 1.2)}
    if own in PIERCING and other in IMMUNE_ABILITY:
        struck = {**target, "ability": ""}
    move = {**move, "base_power": power(move, user, target, state, gen)} if name not in FIXED else move
    share = damage(move, user, struck, gen) / (move["accuracy"] or 1.0)
    if not share or name in FIXED:
        return share
    share *= by_field(move, user, target, state, gen) * by_user(move, user, target, state, gen)
    if own not in PIERCING:
        share *= by_target(move, target, gen)
    return share


def set_amount(name: str, user: dict[str, Any], target: dict[str, Any], gen: int) -> float:
    """Share taken by a move whose damage hangs on no stat."""
    full = stat(target, "hp", gen)
    if name == "endeavor":
        return max(0.0, target["hp_pct"] - user["hp_pct"] * stat(user, "hp", gen) / full)
    return {"dragonrage": 40, "sonicboom": 20, "psywave": 0.75 * user["lvl"]}[name] / full


def power(move: dict[str, Any], user: dict[str, Any], target: dict[str, Any], state: dict[str, Any], gen: int) -> float:
    """Base power as things stand, all its hits together; 0 where nothing is known of it."""
    name, base = move["name"], move["base_power"]
    if name in BY_WEIGHT:
        return BY_WEIGHT[name]
    if name in ("eruption", "waterspout", "dragonenergy"):
        return 150 * user["hp_pct"]
    if name in ("flail", "reversal"):
        return next(p for least, p in ((0.69, 20), (0.35, 40), (0.2, 80), (0.1, 100), (0.04, 150), (0, 200))
                    if user["hp_pct"] >= least)  # fmt: skip
    if name in ("storedpower", "powertrip"):
        return 20 + 20 * sum(max(0, value) for key, value in user.items() if key.endswith("_boost"))
    if name in ("gyroball", "electroball"):
        ratio = stat(target, "spe", gen) / max(1.0, stat(user, "spe", gen))
        if name == "gyroball":
            return min(150.0, 25 * ratio + 1)
        return 150 if ratio <= 0.25 else 120 if ratio <= 1 / 3 else 80 if ratio <= 0.5 else 60
    if name == "acrobatics" and user["item"] == "noitem":
        return 110
    if name == "facade" and user["status"] in ("brn", "par", "psn", "tox"):
        return base * (4 if user["status"] == "brn" and gen >= 6 else 2)  # from then on a burn does not halve it
    if name == "hex" and target["status"] != "nostatus":
        return 2 * base
    if name in ("venoshock", "barbbarrage") and target["status"] in ("psn", "tox"):
        return 2 * base
    if name == "weatherball" and state["weather"] != "noweather":
        return 2 * base
    if name in AWAITS:
        sunny = name in ("solarbeam", "solarblade") and state["weather"] == "sunnyday"
        return base * (1.0 if sunny or user["item"] == "powerherb" else 0.5)
    times = REPEATED.get(name, 1)
    if name in TWO_TO_FIVE and user["ability"] == "skilllink":
        times *= 5 / 3
    return base * times


def by_field(
    move: dict[str, Any], user: dict[str, Any], target: dict[str, Any], state: dict[str, Any], gen: int
) -> float:
    """Factor of weather, terrain and the target's screens."""
    kind, category = move["move_type"], move["category"]
    factor = WEATHER.get((state["weather"], kind), 1.0)
    if state["weather"] == "sandstorm" and gen >= 4 and category == "special" and "rock" in target["types"].split():
        factor /= 1.5
    if state["weather"] in ("snow", "snowscape") and category == "physical" and "ice" in target["types"].split():
        factor /= 1.5
    field = state["battle_field"]
    if TERRAIN.get(field) == kind:
        factor *= 1.5 if gen < 8 else 1.3
    elif (field == "grassyterrain" and move["name"] in SHAKEN) or (field == "mistyterrain" and kind == "dragon"):
        factor /= 2
    side = "player" if user is state["opponent_active_pokemon"] else "opponent"
    screen = target["effect"] if gen == 1 else state[f"{side}_conditions"]
    if SCREENS.get(screen) == category or screen == "auroraveil":
        factor /= 2
    return factor


def by_user(
    move: dict[str, Any], user: dict[str, Any], target: dict[str, Any], state: dict[str, Any], gen: int
) -> float:
    """Factor of the user's ability and item, and of critical hits."""
    name, kind, category, own, item = move["name"], move["move_type"], move["category"], user["ability"], user["item"]
    factor = BY_CATEGORY.get((own, category), 1.0) * BY_TYPE.get((own, kind), 1.0)
    hurt = user["status"] not in ("nostatus", "fnt")
    if own == "technician" and 0 < move["base_power"] <= 60:
        factor *= 1.5
    elif own == "adaptability" and kind in user["types"].split():
        factor *= 4 / 3
    elif own == "guts" and hurt and category == "physical":
        factor *= 3 if user["status"] == "brn" else 1.5
    elif PINCH.get(own) == kind and user["hp_pct"] <= 1 / 3:
        factor *= 1.5
    elif own in KINDS and name in KINDS[own][0]:
        factor *= KINDS[own][1]
    elif (
        (own == "toxicboost" and user["status"] in ("psn", "tox"))
        or (own == "flareboost" and user["status"] == "brn")
        or (own == "solarpower" and category == "special" and state["weather"] == "sunnyday")
    ):
        factor *= 1.5
    if ITEM_TYPE.get(item) == kind:
        factor *= 1.2 if gen >= 4 else 1.1
    elif OWN_ITEM.get((item, user["base_species"]), "none") in ("", category):
        factor *= 2
    if gen == 1:
        factor *= 1 + min(1.0, user["base_spe"] / (64 if name in OFTEN_CRITICAL else 512))
    elif name in SURE_CRITICAL:
        factor *= 2 if gen < 6 else 1.5
    return factor


def by_target(move: dict[str, Any], target: dict[str, Any], gen: int) -> float:
    """Factor of the target's ability and item."""
    name, other, category = move["name"], target["ability"], move["category"]
    factor = ON_TYPE.get((other, move["move_type"]), 1.0) * ON_CATEGORY.get((other, category), 1.0)
    if other in ("multiscale", "shadowshield") and target["hp_pct"] >= 1:
        factor /= 2
    elif other == "marvelscale" and category == "physical" and target["status"] != "nostatus":
        factor /= 1.5
    elif (other == "soundproof" and name in SOUNDS) or (other == "bulletproof" and name in BALLS):
        return 0.0
    if (target["item"] == "assaultvest" and category == "special") or target["item"] == "eviolite":
        factor /= 1.5
    elif target["item"] == "airballoon" and move["move_type"] == "ground":
        return 0.0
    return factor


def speed(pokemon: dict[str, Any], state: dict[str, Any], gen: int) -> float:
    """Its speed as things stand: stage, paralysis, item, ability, tailwind."""
    value = stat(pokemon, "spe", gen)
    if pokemon["item"] == "choicescarf":
        value *= 1.5
    elif pokemon["item"] == "ironball":
        value /= 2
    ability = pokemon["ability"]
    if state["weather"] in SPEED_ABILITY.get(ability, ()):
        value *= 2
    elif ability == "quickfeet" and pokemon["status"] != "nostatus":
        value *= 1.5 * (2 if pokemon["status"] == "par" else 1)
    side = "opponent" if pokemon is state["opponent_active_pokemon"] else "player"
    if state[f"{side}_conditions"] == "tailwind":
        value *= 2
    return value


def faster(user: dict[str, Any], target: dict[str, Any], state: dict[str, Any], gen: int) -> bool:
    """Whether `user` acts before `target` where neither move has priority."""
    mine, theirs = speed(user, state, gen), speed(target, state, gen)
    return mine < theirs if state["battle_field"] == "trickroom" else mine > theirs
