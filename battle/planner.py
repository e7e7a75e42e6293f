"""`planner`: weighs every legal choice by the exchange that follows, by arithmetic on the universal state alone.

One turn ahead without the simulator: who moves first, what each hit takes and how likely it finishes, what the
opponent's best move does to whoever stands there then, and who wins the race that follows. Worth is told in Pokémon: 1
for one at full health. It decides some hundred times as fast as `search`, which plays every pair of choices out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from battle.baselines import HAZARDS, HEALING, RECHARGE, STATUS_MOVES, Board, RuleAgent
from battle.interface import Observation
from battle.judgement import FAINTS_USER, FIXED, damage, effectiveness, faster, immune

ALIVE = 0.4  # of a Pokémon's worth that goes with its last point of health; the rest goes with its health
AHEAD = 0.45  # of the race that follows, beside what this turn brings
GUESSED_POWER = 80  # of a move that the opponent has not shown, of its own types
PREDICTED = 0.65  # how sure the opponent's move is meant for whoever stands there before a switch
ACTS = {"slp": 0.35, "frz": 0.1, "par": 0.75}  # chance to move at all
STATUS_WORTH = {"par": 0.15, "brn": 0.14, "psn": 0.08, "tox": 0.17, "slp": 0.3}
WEATHER = {
    ("raindance", "water"): 1.5, ("raindance", "fire"): 0.5, ("primordialsea", "water"): 1.5,
    ("sunnyday", "fire"): 1.5, ("sunnyday", "water"): 0.5, ("desolateland", "fire"): 1.5,
}  # fmt: skip
RAISES = {
    "swordsdance": {"atk": 2}, "dragondance": {"atk": 1, "spe": 1}, "nastyplot": {"spa": 2}, "growth": {"spa": 1},
    "calmmind": {"spa": 1, "spd": 1}, "amnesia": {"spd": 2}, "curse": {"atk": 1, "def": 1}, "agility": {"spe": 2},
    "bulkup": {"atk": 1, "def": 1}, "irondefense": {"def": 2}, "quiverdance": {"spa": 1, "spd": 1, "spe": 1},
    "shellsmash": {"atk": 2, "spa": 2, "spe": 2}, "bellydrum": {"atk": 6}, "cosmicpower": {"def": 1, "spd": 1},
    "acidarmor": {"def": 2}, "barrier": {"def": 2}, "rockpolish": {"spe": 2}, "shiftgear": {"atk": 1, "spe": 2},
    "coil": {"atk": 1, "def": 1}, "tailglow": {"spa": 3}, "victorydance": {"atk": 1, "def": 1, "spe": 1},
}  # fmt: skip
SCREENS = {"reflect", "lightscreen", "auroraveil"}
CLEARS = {"defog", "rapidspin"}
PHAZES = {"roar", "whirlwind", "haze"}
LEAVES = {"uturn", "voltswitch", "flipturn"}
DRAINS = {"gigadrain", "drainpunch", "hornleech", "leechlife", "megadrain", "drainingkiss", "bitterblade"}
RECOILS = {"doubleedge", "bravebird", "flareblitz", "woodhammer", "wavecrash", "headsmash", "volttackle"}
TIRES = {"overheat", "dracometeor", "leafstorm", "superpower", "makeitrain", "closecombat"}
OPENERS = {"fakeout", "firstimpression"}


def of_health(health: float, died: float) -> float:
    """Worth of so much health lost, and of a chance to faint of it."""
    return (1 - ALIVE) * health + ALIVE * died


def chance_to_finish(taken: float, accuracy: float, health: float) -> float:
    """Of a hit that takes `taken` of the full health on average where it lands; rolls run from 85% of the most."""
    most = taken / 0.925
    return accuracy * min(1.0, max(0.0, (most - health) / max(0.15 * most, 1e-9)))


class Field:
    """A state opened up for arithmetic, each pair of Pokémon weighed once."""

    def __init__(self, state: dict[str, Any], board: Board):
        self.state, self.board, self.gen = state, board, board.gen
        self.me, self.foe = board.me, board.foe
        # By identity; the Pokémon themselves stand in the entries, so that none is freed and its identity used again.
        self._best: dict[tuple[int, int], tuple] = {}

    def hit(self, move: dict[str, Any], user: dict[str, Any], target: dict[str, Any]) -> float:
        """Share of the target's full health that a move takes on average where it lands; weather, abilities count."""
        if move["name"] == "dreameater" and target["status"] != "slp":
            return 0.0
        share = damage(move, user, target, self.gen) / (move["accuracy"] or 1.0)
        if not share or move["name"] in FIXED:
            return share
        kind, own, other = move["move_type"], user["ability"], target["ability"]
        physical = move["category"] == "physical"
        share *= WEATHER.get((self.state["weather"], kind), 1.0)
        if own in ("hugepower", "purepower") and physical:
            share *= 2
        elif own == "technician" and 0 < move["base_power"] <= 60:
            share *= 1.5
        elif own == "adaptability" and kind in user["types"].split():
            share *= 4 / 3
        elif own == "guts" and user["status"] != "nostatus" and physical:
            share *= 3 if user["status"] == "brn" else 1.5
        whole = other in ("multiscale", "shadowshield") and target["hp_pct"] >= 1
        if whole or (other == "thickfat" and kind in ("fire", "ice")):
            share /= 2
        return share

    def best(self, user: dict[str, Any], target: dict[str, Any]) -> tuple[float, dict[str, Any] | None]:
        """(share of the target's health that the user's best move takes, accuracy and its own status counted in; that
        move). Of the opponent unseen moves of its own types are thought of too."""
        key = id(user), id(target)
        if key not in self._best:
            self._best[key] = (*self._search_best(user, target), user, target)
        return self._best[key][:2]

    def _search_best(self, user: dict[str, Any], target: dict[str, Any]) -> tuple[float, dict[str, Any] | None]:
        most, which = 0.0, None
        for move in self._moves(user):
            if move["name"] in FAINTS_USER or move["current_pp"] == 0:
                continue
            taken = self.hit(move, user, target) * move["accuracy"] * (0.6 if move["name"] in RECHARGE else 1.0)
            if taken > most:
                most, which = taken, move
        return most * (0.35 if user["status"] == "frz" else ACTS.get(user["status"], 1.0)), which

    def _moves(self, user: dict[str, Any]) -> list[dict[str, Any]]:
        known = user["moves"]
        if user is not self.foe or len(known) >= 4:
            return known
        category = "physical" if user["base_atk"] >= user["base_spa"] else "special"
        guess = {"name": "", "category": category, "base_power": GUESSED_POWER, "accuracy": 1.0, "current_pp": 1}
        return known + [{**guess, "move_type": kind} for kind in user["types"].split() if kind != "notype"]

    def race(self, user: dict[str, Any], health: float, foe_health: float) -> float:
        """Who of `user` and the opponent's active one is through with the other first: −1 lost, 1 won."""
        mine = foe_health / max(self.best(user, self.foe)[0], 0.02)  # turns
        theirs = health / max(self.best(self.foe, user)[0], 0.02)
        lead = 0.5 if faster(user, self.foe, self.gen) else -0.5
        return 0.75 * float(np.tanh((theirs - mine + lead) / (1.0 + min(mine, theirs))))


class PlannerAgent(RuleAgent):
    """The choice with the greatest worth after one exchange."""

    name = "planner"

    def pick(self, observation: Observation, legal: np.ndarray) -> int:
        board = Board(observation.state, legal)
        field = Field(observation.state, board)
        if not board.moves:
            if not board.switches:
                return int(legal[0])
            return max(board.switches, key=lambda ap: (standing(field, ap[1], ap[1]["hp_pct"]), -ap[0]))[0]
        worth = {action: of_move(field, move) for action, move in board.moves}
        worth |= {action: of_switch(field, pokemon) for action, pokemon in board.switches}
        action = max(worth, key=lambda each: (worth[each], -each))
        return action + 9 if action in board.tera and tera_pays(field, dict(board.moves)[action]) else action


def standing(field: Field, pokemon: dict[str, Any], health: float) -> float:
    """Worth of meeting the opponent's active Pokémon with so much health left."""
    if health <= 0:
        return -ALIVE
    return AHEAD * field.race(pokemon, health, field.foe["hp_pct"]) - (0.05 if health < 0.25 else 0.0)


def of_switch(field: Field, pokemon: dict[str, Any]) -> float:
    """Worth of bringing a Pokémon in: it takes the move meant for the one before it, or one that is meant for it."""
    me, foe = field.me, field.foe
    _, aimed = field.best(foe, me)
    at_me = field.hit(aimed, foe, pokemon) * aimed["accuracy"] if aimed else 0.0
    taken = PREDICTED * at_me + (1 - PREDICTED) * field.best(foe, pokemon)[0]
    if foe["status"] in ("slp", "frz"):
        taken *= 0.35
    if "stealthrock" in field.state["player_conditions"]:
        taken += 0.125 * effectiveness("rock", pokemon["types"], field.gen)
    elif "spikes" in field.state["player_conditions"] and "flying" not in pokemon["types"].split():
        taken += 0.125
    if not foe["hp_pct"]:
        taken = 0.0
    health = pokemon["hp_pct"] - taken
    boosts = -0.04 * min(0, me["atk_boost"], me["spa_boost"])
    boosts -= 0.05 * max(0, me["atk_boost"], me["spa_boost"], me["spe_boost"])
    lost = of_health(min(taken, pokemon["hp_pct"]), health <= 0)
    return standing(field, pokemon, health) - lost + boosts


def of_move(field: Field, move: dict[str, Any]) -> float:
    """Worth of a move, by either order of the exchange."""
    me, foe, name = field.me, field.foe, move["name"]
    back, _ = field.best(foe, me)
    first = move["priority"] > 0 if move["priority"] else faster(me, foe, field.gen)
    die = chance_to_finish(back, 0.95, me["hp_pct"])
    acts = 1.0 if me["status"] == "slp" and name == "sleeptalk" else ACTS.get(me["status"], 1.0)
    acts *= 1.0 if first else 1.0 - die
    hit = finish = 0.0
    after = me
    if move["category"] == "status":
        gain, healed, after = of_status(field, move, back)
    else:
        hit = min(foe["hp_pct"], taken := hindered(field, move, back))
        finish = chance_to_finish(taken, move["accuracy"], foe["hp_pct"])
        gain = of_health(hit * move["accuracy"], finish) - cost(name, hit, finish)
        healed = 0.5 * hit if name in DRAINS else 0.0
        if name in FAINTS_USER:
            return acts * (gain - of_health(me["hp_pct"], 1.0)) - (1 - acts) * die * of_health(me["hp_pct"], 1.0)
        if name in LEAVES and field.board.switches:
            gain += 0.05 if first else 0.12
    spared = acts * finish if first else 0.0  # who moves first and finishes is not hit back
    health = min(1.0, me["hp_pct"] + acts * healed)
    taken = min(back * (1 - spared), health) if foe["hp_pct"] else 0.0
    died = die * (1 - spared)
    foe_left = max(foe["hp_pct"] - hit * move["accuracy"], 0.03)
    race = field.race(after, max(health - taken, 0.03), foe_left)
    ahead = (1 - died) * (1 - acts * finish) * race + (1 - died) * acts * finish * 0.15 - died * 0.1
    return acts * gain + (1 - ALIVE) * acts * healed - of_health(min(taken, me["hp_pct"]), died) + AHEAD * ahead


def hindered(field: Field, move: dict[str, Any], back: float) -> float:
    """What an attack takes where it lands, less where it is likely to come to nothing."""
    taken, helpless = field.hit(move, field.me, field.foe), field.foe["status"] in ("slp", "frz")
    if move["name"] == "focuspunch" and back > 0.05 and not helpless:
        return taken * 0.3
    if move["name"] == "suckerpunch" and helpless:
        return 0.0
    if move["name"] in OPENERS and field.state["player_prev_move"]["name"] != "nomove":
        return taken * 0.3
    return taken


def cost(name: str, hit: float, finish: float) -> float:
    """What an attack costs its user, in Pokémon."""
    if name in RECHARGE and finish < 0.8:
        return 0.25
    if name in RECOILS:
        return 0.2 * hit
    return 0.04 if name in TIRES else 0.0


def of_status(field: Field, move: dict[str, Any], back: float) -> tuple[float, float, dict[str, Any]]:
    """(worth gained, health gained, the user afterwards) of a status move that is carried out."""
    me, foe, name, state = field.me, field.foe, move["name"], field.state
    if name in STATUS_MOVES:
        return of_affliction(field, move), 0.0, me
    if name in RAISES:
        raised = {**me, **{f"{s}_boost": min(6, me[f"{s}_boost"] + by) for s, by in RAISES[name].items()}}
        if all(me[f"{s}_boost"] >= 3 for s in RAISES[name]) or (name == "bellydrum" and me["hp_pct"] <= 0.5):
            return -0.2, 0.0, me
        return (-0.26 if name == "bellydrum" else 0.04), 0.0, raised
    if name == "rest":
        cured = 0.12 if me["status"] not in ("nostatus", "slp") else 0.0
        return (cured - 0.28, 1 - me["hp_pct"], me) if me["hp_pct"] <= 0.7 else (-0.3, 0.0, me)
    if name in HEALING:
        amount = min(0.35 if name == "wish" else 0.5, 1 - me["hp_pct"])
        return (0.0, amount, me) if me["hp_pct"] <= 0.8 else (-0.2, 0.0, me)
    if name in HAZARDS:
        each = 0.1 if name == "stealthrock" else 0.08
        bare = state["opponent_conditions"] == "noconditions"
        return (each * max(0, state["opponents_remaining"] - 1) if bare else -0.1), 0.0, me
    worth = {
        "sleeptalk": 0.25 if me["status"] == "slp" else -0.5,
        "substitute": 0.1 if me["hp_pct"] > 0.4 and me["effect"] != "substitute" and back < 0.25 else -0.3,
        "leechseed": 0.14 if "grass" not in foe["types"].split() and foe["effect"] != "leechseed" else -0.2,
    }
    if name in SCREENS:
        gained = 0.1 if name not in (state["player_conditions"], me["effect"]) else -0.2
    elif name in CLEARS and state["player_conditions"] != "noconditions":
        gained = 0.15
    elif name in PHAZES and max(foe["atk_boost"], foe["spa_boost"], foe["spe_boost"]) > 0:
        gained = 0.2
    else:
        gained = worth.get(name, -0.15)
    return gained, 0.0, me


def of_affliction(field: Field, move: dict[str, Any]) -> float:
    """Worth of a move that gives a status, where the opponent's active Pokémon can get one."""
    foe, gen, name, status = field.foe, field.gen, move["name"], STATUS_MOVES[move["name"]]
    types = set(foe["types"].split())
    if (
        foe["status"] != "nostatus" or foe["effect"] == "substitute"
        or (status in ("tox", "psn") and types & {"poison", "steel"}) or (status == "brn" and "fire" in types)
        or (name == "thunderwave" and immune(move, foe, gen)) or (status == "par" and gen >= 6 and "electric" in types)
        or (name.endswith(("powder", "spore")) and gen >= 6 and "grass" in types)
        or (name == "glare" and gen < 4 and "ghost" in types)
    ):  # fmt: skip
        return -0.1
    worth = STATUS_WORTH[status] * (0.35 + 0.65 * foe["hp_pct"])
    worth += 0.06 if status == "par" and not faster(field.me, foe, gen) else 0.0
    worth += 0.12 if status == "brn" and foe["base_atk"] > foe["base_spa"] else 0.0
    return worth * move["accuracy"]


def tera_pays(field: Field, move: dict[str, Any]) -> bool:
    """Whether terastallizing with this move finishes the foe, saves the user, or gains much."""
    me, foe = field.me, field.foe
    after = {**me, "types": f"{me['tera_type']} notype"}
    hit, greater = field.hit(move, me, foe), field.hit(move, after, foe)
    if me["tera_type"] in me["types"].split() and move["move_type"] == me["tera_type"]:
        greater *= 4 / 3
    taken, less = field.best(foe, me)[0], field.best(foe, after)[0]
    if hit < foe["hp_pct"] <= greater or taken >= me["hp_pct"] > less:
        return True
    more = min(greater, foe["hp_pct"]) - min(hit, foe["hp_pct"])
    return more + 0.8 * (min(taken, me["hp_pct"]) - min(less, me["hp_pct"])) > 0.3
