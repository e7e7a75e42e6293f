"""`planner`: weighs every legal choice by the exchange that follows, by arithmetic on the universal state alone.

One turn ahead without the simulator: who moves first, what each hit takes and how likely it finishes, what the
opponent's best move does to whoever stands there then, and who wins the race that follows; and what of it stands where
the opponent switches instead, as it does in half of the races that it loses. Worth is told in Pokémon: 1 for one at
full health. It decides some hundred times as fast as `search`, which plays every pair of choices out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from battle.baselines import HAZARDS, HEALING, RECHARGE, STATUS_MOVES, Board, RuleAgent
from battle.effects import (
    CLEARS,
    DRAINS,
    FLINCHES,
    IMMUNE_TO,
    OWN_STATS,
    PHAZES,
    RAISES,
    RECOILS,
    REFUSES,
    SCREENS,
    SIDE_STATUS,
    hazard,
)
from battle.field import ACTS, Field
from battle.interface import Observation
from battle.judgement import FAINTS_USER, immune

ALIVE = 0.55  # of a Pokémon's worth that goes with its last point of health; the rest goes with its health
AHEAD = 0.7  # of the race that follows, beside what this turn brings
# What a Pokémon that comes in takes: so much of the move meant for the one before, so much of the worst for itself.
PREDICTED, UNFORESEEN = 0.65, 0.35
STATUS_WORTH = {"par": 0.36, "brn": 0.24, "psn": 0.1, "tox": 0.2, "slp": 0.42, "frz": 0.42}
HAZARD_WORTH = {"stealthrock": 0.15}  # for each opponent that may still come in
OTHER_HAZARD = 0.12
FAST_RAISE, BOOSTED = 0.1, 0.12  # of a raise by two or of speed; of any, where the opponent switches meanwhile
HEALING_TURN = 0.06  # what a turn spent on healing costs beside the blow it takes
SWITCH = 0.1  # what a switch costs beside the blow it takes
TRADED = 0.1  # an explosion that does something: nobody can answer it, and the next one comes in unhurt
TERA_GAIN = 0.15
# Where the opponent switches: what it has of the damage that a hit does to a plain target; what a status is worth
# beside one that is meant for it; how the matchup is then; what a pivot gains.
STOOD, MISSED, MET, PIVOT = 0.55, 0.6, -0.08, 0.15
AFRESH, WON = 0.15, 1.0  # the race against whoever comes after one that was finished, and where nobody is left
WAIT = 0.15  # of the race: to stay for one more turn, and switch then

LEAVES = {"uturn", "voltswitch", "flipturn"}
OPENERS = {"fakeout", "firstimpression"}


def of_health(health: float, died: float) -> float:
    """Worth of so much health lost, and of a chance to faint of it."""
    return (1 - ALIVE) * health + ALIVE * died


def chance_to_finish(taken: float, accuracy: float, health: float) -> float:
    """Of a hit that takes `taken` of the full health on average where it lands; rolls run from 85% of the most."""
    most = taken / 0.925
    return accuracy * min(1.0, max(0.0, (most - health) / max(0.15 * most, 1e-9)))


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
        worth |= switches(field)
        if leaves := field.leaves():
            meanwhile = {action: of_move_into_switch(field, move) for action, move in board.moves}
            meanwhile |= {action: of_switch_into_switch(field, pokemon) for action, pokemon in board.switches}
            worth = {action: (1 - leaves) * worth[action] + leaves * meanwhile[action] for action in worth}
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
    taken = PREDICTED * at_me + UNFORESEEN * field.best(foe, pokemon)[0]
    if foe["status"] in ("slp", "frz"):
        taken *= 0.35
    if not foe["hp_pct"]:
        taken = 0.0
    taken += hazard(pokemon, field.state["player_conditions"], field.gen)
    health = pokemon["hp_pct"] - taken
    lost = of_health(min(taken, pokemon["hp_pct"]), health <= 0)
    return standing(field, pokemon, health) - lost - of_leaving(me)


def switches(field: Field) -> dict[int, float]:
    """Worth of each switch by its action."""
    if field.switches is None:
        field.switches = {action: of_switch(field, pokemon) for action, pokemon in field.board.switches}
    return field.switches


def rescue(field: Field) -> float:
    """Worth of the best switch there is; far below all where there is none."""
    return max(switches(field).values(), default=-9.0)


def revenge(field: Field, foe_health: float) -> float:
    """The race of whoever comes in after a faint; lost where nobody is left."""
    bench = [pokemon for _, pokemon in field.board.switches]
    return 0.3 * max((field.race(each, each["hp_pct"], foe_health) for each in bench), default=-1.0) - 0.1


def of_leaving(me: dict[str, Any]) -> float:
    """What a switch costs: the turn, and the stages, of which lowered ones are well lost."""
    worst, best = min(0, me["atk_boost"], me["spa_boost"]), max(0, me["atk_boost"], me["spa_boost"], me["spe_boost"])
    return SWITCH + 0.04 * worst + 0.05 * best


def of_move(field: Field, move: dict[str, Any]) -> float:
    """Worth of a move, by either order of the exchange."""
    me, foe, name = field.me, field.foe, move["name"]
    back, _ = field.best(foe, me)
    first = field.first(move)
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
        gain += (1 - finish) * of_side_effect(field, move)
        after = changed(me, OWN_STATS.get(name, {}))
        healed = 0.5 * hit if name in DRAINS else 0.0
        if name in FAINTS_USER:
            lost = of_health(me["hp_pct"], 1.0)
            return acts * (gain - lost + (TRADED if hit > 0.1 else 0.0)) - (1 - acts) * die * lost
        if name in LEAVES and field.board.switches:
            return acts * gain + leave(field, first, back, die, finish)
    spared = acts * finish if first else 0.0  # who moves first and finishes is not hit back
    health = min(1.0, me["hp_pct"] + acts * healed)
    if first and move["category"] != "status":
        spared += (acts - spared) * move["accuracy"] * FLINCHES.get(name, 0.0)
    taken = min(back * (1 - spared), health) if foe["hp_pct"] else 0.0
    died = die * (1 - spared)
    foe_left = max(foe["hp_pct"] - hit * move["accuracy"], 0.03)
    race = max(field.race(after, max(health - taken, 0.03), foe_left), rescue(field) / AHEAD - WAIT)
    fresh = WON if field.state["opponents_remaining"] == 1 else AFRESH
    ahead = (1 - died) * (1 - acts * finish) * race + (1 - died) * acts * finish * fresh
    ahead += died * revenge(field, foe_left)
    return acts * gain + (1 - ALIVE) * acts * healed - of_health(min(taken, me["hp_pct"]), died) + AHEAD * ahead


def of_move_into_switch(field: Field, move: dict[str, Any]) -> float:
    """Worth of a move that meets whoever the opponent brings in instead: somebody fresh who stands it well."""
    me, name = field.me, move["name"]
    acts = ACTS.get(me["status"], 1.0)
    if move["category"] != "status":
        fresh = {**field.foe, "types": "notype notype", "hp_pct": 1.0, "ability": "", "status": "nostatus"}
        gain = (1 - ALIVE) * min(1.0, STOOD * field.hit(move, me, fresh) * move["accuracy"])
        if name in FAINTS_USER:
            return acts * (gain - of_health(me["hp_pct"], 1.0) + TRADED)
        return acts * (gain + (PIVOT if name in LEAVES and field.board.switches else 0.0)) + MET
    if name in STATUS_MOVES:
        return acts * MISSED * STATUS_WORTH[STATUS_MOVES[name]] * move["accuracy"] + MET
    gain, healed, _ = of_status(field, move, 0.0)
    if name in RAISES and gain > -0.2:
        gain += BOOSTED
    return acts * (gain + (1 - ALIVE) * healed) + MET


def of_switch_into_switch(field: Field, pokemon: dict[str, Any]) -> float:
    """Worth of a switch where the opponent switches too: nobody is hit, nobody has the better of it."""
    hurt = min(hazard(pokemon, field.state["player_conditions"], field.gen), pokemon["hp_pct"])
    return -of_leaving(field.me) - of_health(hurt, float(hurt >= pokemon["hp_pct"]))


def leave(field: Field, first: bool, back: float, die: float, finish: float) -> float:
    """Worth of what follows a move that ends in a switch: before the opponent's move, or after it."""
    if first:
        return (1 - finish) * rescue(field) + finish * AFRESH * AHEAD
    best = max(standing(field, pokemon, pokemon["hp_pct"]) for _, pokemon in field.board.switches)
    return best - of_health(min(back, field.me["hp_pct"]), die)


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
        return 0.12
    if name in RECOILS:
        return 0.2 * hit
    return 0.0


def of_status(field: Field, move: dict[str, Any], back: float) -> tuple[float, float, dict[str, Any]]:
    """(worth gained, health gained, the user afterwards) of a status move that is carried out."""
    me, foe, name, state = field.me, field.foe, move["name"], field.state
    if name in STATUS_MOVES:
        return of_affliction(field, move), 0.0, me
    if name in RAISES:
        if all(me[f"{s}_boost"] >= 3 for s in RAISES[name]) or (name == "bellydrum" and me["hp_pct"] <= 0.5):
            return -0.2, 0.0, me
        fast = max(RAISES[name].values()) > 1 or "spe" in RAISES[name]
        worth = -0.26 if name == "bellydrum" else FAST_RAISE if fast else 0.0
        return worth, 0.0, changed(me, RAISES[name])
    if name == "rest":
        cured = 0.12 if me["status"] not in ("nostatus", "slp") else 0.0
        return (cured - 0.28, 1 - me["hp_pct"], me) if me["hp_pct"] <= 0.7 else (-0.3, 0.0, me)
    if name in HEALING:
        amount = min(0.35 if name == "wish" else 0.5, 1 - me["hp_pct"])
        return (-HEALING_TURN, amount, me) if me["hp_pct"] <= 0.8 else (-0.2, 0.0, me)
    if name in HAZARDS:
        each = HAZARD_WORTH.get(name, OTHER_HAZARD)
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


def changed(pokemon: dict[str, Any], stats: dict[str, int]) -> dict[str, Any]:
    """A Pokémon with its stages raised or lowered."""
    if not stats:
        return pokemon
    return {**pokemon, **{f"{s}_boost": max(-6, min(6, pokemon[f"{s}_boost"] + by)) for s, by in stats.items()}}


def of_side_effect(field: Field, move: dict[str, Any]) -> float:
    """Worth of what an attack that lands may do beside its damage."""
    name = move["name"]
    if name in SIDE_STATUS:
        status, chance = SIDE_STATUS[name]
        return chance * max(0.0, of_status_given(field, move, status)) * move["accuracy"]
    if name == "knockoff" and field.foe["item"] != "noitem":
        return 0.06
    if name in CLEARS and field.state["player_conditions"] in HAZARDS and field.board.switches:
        return 0.12
    return 0.0


def of_affliction(field: Field, move: dict[str, Any]) -> float:
    """Worth of a move that gives a status."""
    worth = of_status_given(field, move, STATUS_MOVES[move["name"]])
    return worth * move["accuracy"] if worth > 0 else worth


def of_status_given(field: Field, move: dict[str, Any], status: str) -> float:
    """Worth of a status that a move gives, where the opponent's active Pokémon can get it."""
    foe, gen, name = field.foe, field.gen, move["name"]
    types = set(foe["types"].split())
    if (
        foe["status"] != "nostatus" or foe["effect"] == "substitute"
        or (status in ("tox", "psn") and types & {"poison", "steel"}) or (status == "brn" and "fire" in types)
        or (status == "frz" and "ice" in types) or (gen == 1 and name == "bodyslam" and "normal" in types)
        or foe["ability"] in IMMUNE_TO[status] or (move["category"] == "status" and foe["ability"] in REFUSES)
        or (name == "thunderwave" and immune(move, foe, gen)) or (status == "par" and gen >= 6 and "electric" in types)
        or (name.endswith(("powder", "spore")) and gen >= 6 and "grass" in types)
        or (name == "glare" and gen < 4 and "ghost" in types)
    ):  # fmt: skip
        return -0.1
    worth = STATUS_WORTH[status] * (0.35 + 0.65 * foe["hp_pct"])
    worth += 0.06 if status == "par" and not field.faster(field.me, foe) else 0.0
    worth += 0.12 if status == "brn" and foe["base_atk"] > foe["base_spa"] else 0.0
    return worth


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
    return more + 0.8 * (min(taken, me["hp_pct"]) - min(less, me["hp_pct"])) > TERA_GAIN
