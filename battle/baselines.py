"""Players that need no training, weakest first. All read the universal state; all draw from the battle side's own seed.

random: uniform over the legal choices. boss: how generation 1's trainers choose (types first, status once, no
switching). most_damage: the biggest hit, always. type_switch: damage, status, hazards, healing, boosts and switching
out of bad matchups by rule. simple_heuristics: poke-env's own player, on its own reading of the protocol
(`battle/pokeenv_agent.py`).
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from battle.interface import Observation
from battle.judgement import (
    FAINTS_USER,
    best_damage,
    damage,
    effectiveness,
    faster,
    generation,
    immune,
    matchup,
    threat,
)

STATUS_MOVES = {
    "thunderwave": "par", "stunspore": "par", "glare": "par", "nuzzle": "par", "toxic": "tox", "poisonpowder": "psn",
    "willowisp": "brn", "spore": "slp", "sleeppowder": "slp", "lovelykiss": "slp", "hypnosis": "slp", "sing": "slp",
    "yawn": "slp",
}  # fmt: skip
HEALING = {
    "recover", "softboiled", "roost", "slackoff", "moonlight", "synthesis", "morningsun", "shoreup", "milkdrink",
    "strengthsap", "wish", "rest",
}  # fmt: skip
BOOSTING = {
    "swordsdance": "atk", "dragondance": "atk", "nastyplot": "spa", "calmmind": "spa", "amnesia": "spa", "curse": "atk",
    "bulkup": "atk", "growth": "spa", "irondefense": "def", "agility": "spe", "shellsmash": "atk",
}  # fmt: skip
HAZARDS = {"spikes", "stealthrock", "toxicspikes", "stickyweb"}
RECHARGE = {"hyperbeam", "gigaimpact"}


def draws(observation: Observation, salt: int = 0) -> np.random.Generator:
    """A generator for this very decision: a function of the battle side's seed and of the state."""
    state = observation.state
    me, foe = state["player_active_pokemon"], state["opponent_active_pokemon"]
    shape = f"{me['name']} {me['hp_pct']} {foe['name']} {foe['hp_pct']} {state['player_prev_move']['current_pp']}"
    return np.random.default_rng([observation.seed & 0xFFFFFFFF, zlib.crc32(shape.encode()), salt])


class RuleAgent:
    """A player of one decision at a time; `pick` gets the observation and its legal action ids (never empty)."""

    name = "rule"

    def choose(self, observations: list[Observation]) -> list[int]:
        picks = []
        for observation in observations:
            legal = observation.legal.nonzero()[0]
            picks.append(self.pick(observation, legal) if len(legal) else 0)
        return picks

    def pick(self, observation: Observation, legal: np.ndarray) -> int:
        raise NotImplementedError


class Board:
    """A state opened up for the rules: who stands where, and which legal action is what."""

    def __init__(self, state: dict[str, Any], legal: np.ndarray):
        self.state = state
        self.gen = generation(state["format"])
        self.me = state["player_active_pokemon"]
        self.foe = state["opponent_active_pokemon"]
        moves = sorted(self.me["moves"][:4], key=lambda move: move["name"])
        bench = sorted(state["available_switches"], key=lambda pokemon: pokemon["name"])
        self.moves = [(int(a), moves[a]) for a in legal if a < 4 and a < len(moves)]
        self.switches = [(int(a), bench[a - 4]) for a in legal if 4 <= a < 9 and a - 4 < len(bench)]
        self.tera = {int(a) - 9 for a in legal if a >= 9}

    def hit(self, move: dict[str, Any]) -> float:
        return damage(move, self.me, self.foe, self.gen)

    def best_switch(self) -> tuple[int, float]:
        """The switch with the best matchup (its action, its worth); asked only where there is one."""
        worth = [(matchup(pokemon, self.foe, self.gen), -action) for action, pokemon in self.switches]
        best = max(worth)
        return -best[1], best[0]


class RandomAgent(RuleAgent):
    """Uniform over the legal choices."""

    name = "random"

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.counts: dict[str, np.random.Generator] = {}

    def pick(self, observation: Observation, legal: np.ndarray) -> int:
        if observation.first or observation.lane not in self.counts:
            self.counts[observation.lane] = np.random.default_rng([self.seed, observation.seed & 0xFFFFFFFF])
        return int(legal[self.counts[observation.lane].integers(len(legal))])

    def end(self, lane: str) -> None:
        self.counts.pop(lane, None)


class MostDamageAgent(RuleAgent):
    """The biggest expected hit; it switches only when made to, to whoever hits hardest.

    A hit takes what is left of the foe and no more: of two moves that finish it off the one that does not cost its user
    the battle's next turn, or itself, is as big, and is taken.
    """

    name = "most_damage"

    def pick(self, observation: Observation, legal: np.ndarray) -> int:
        board = Board(observation.state, legal)
        if board.moves:
            return max(board.moves, key=lambda am: (*self.worth(board, am[1]), -am[0]))[0]
        if board.switches:
            return max(board.switches, key=lambda ap: (best_damage(ap[1], board.foe, board.gen), -ap[0]))[0]
        return int(legal[0])

    @staticmethod
    def worth(board: Board, move: dict[str, Any]) -> tuple[float, bool, bool, float]:
        """Damage done; then whether the user stays, and stays free to act; then accuracy."""
        name = move["name"]
        done = min(board.hit(move), board.foe["hp_pct"])
        return done, name not in FAINTS_USER, name not in RECHARGE, move["accuracy"]


class BossAgent(RuleAgent):
    """Generation 1's trainers: likes what is super effective, gives a status to who has none, never switches."""

    name = "boss"

    def pick(self, observation: Observation, legal: np.ndarray) -> int:
        board = Board(observation.state, legal)
        if not board.moves:
            return board.switches[0][0] if board.switches else int(legal[0])
        rng = draws(observation)
        return max(board.moves, key=lambda am: (self.score(board, am[1]) + 0.5 * rng.random(), -am[0]))[0]

    @staticmethod
    def score(board: Board, move: dict[str, Any]) -> float:
        factor = effectiveness(move["move_type"], board.foe["types"], board.gen)
        if move["category"] == "status":
            wasted = move["name"] in STATUS_MOVES and board.foe["status"] != "nostatus"
            return -2.0 if wasted else 0.8
        return 0.7 + min(factor, 2.0) + move["base_power"] / 250 - (1.5 if factor < 1 else 0.0)


class TypeSwitchAgent(RuleAgent):
    """Rules of thumb of a sound player: finish off, heal, leave a bad matchup, status, hazards, boost, hit."""

    name = "type_switch"
    leave_below = -0.45
    gain_needed = 0.35

    def pick(self, observation: Observation, legal: np.ndarray) -> int:
        board = Board(observation.state, legal)
        if not board.moves:
            return board.best_switch()[0] if board.switches else int(legal[0])
        return self.with_tera(board, self.move_or_switch(board))

    def move_or_switch(self, board: Board) -> int:
        me, foe, gen = board.me, board.foe, board.gen
        scored = sorted(((self.worth(board, move), -action) for action, move in board.moves), reverse=True)
        best, action = scored[0][0], -scored[0][1]
        danger = threat(foe, me, gen)
        first = faster(me, foe, gen)
        if foe["hp_pct"] and best >= foe["hp_pct"] and (first or danger < me["hp_pct"]):
            return action
        for rule in (self.heal, self.leave, self.support):
            found = rule(board, best, danger, first)
            if found is not None:
                return found
        return action

    @staticmethod
    def worth(board: Board, move: dict[str, Any]) -> float:
        """Damage, less what the move costs its user."""
        name, hit = move["name"], board.hit(move)
        finishes = hit >= board.foe["hp_pct"]
        if name in FAINTS_USER:
            return hit if board.me["hp_pct"] < 0.35 and hit > 0 else -1.0
        if name in RECHARGE and not finishes:
            return hit * 0.5
        if name == "dreameater" and board.foe["status"] != "slp":
            return -1.0
        if name == "focuspunch" and board.foe["status"] not in ("slp", "frz") and board.me["effect"] != "substitute":
            return hit * 0.3
        return hit

    @staticmethod
    def heal(board: Board, best: float, danger: float, first: bool) -> int | None:
        me = board.me
        for action, move in board.moves:
            name = move["name"]
            if name == "rest" and me["hp_pct"] < 0.4 and me["status"] != "slp" and danger < 0.8:
                return action
            if name in HEALING and name != "rest" and me["hp_pct"] < 0.55 and danger < 0.5:
                return action
            if name == "sleeptalk" and me["status"] == "slp":
                return action
        return None

    def leave(self, board: Board, best: float, danger: float, first: bool) -> int | None:
        """Out of a matchup that is lost, into one that is better by enough to pay for the turn."""
        if not board.switches or not board.foe["hp_pct"]:
            return None
        here = matchup(board.me, board.foe, board.gen)
        dropped = min(board.me["atk_boost"], board.me["spa_boost"]) <= -3
        if here > self.leave_below and not dropped and not (best <= 0.02 and danger > 0.25):
            return None
        action, there = board.best_switch()
        return action if there > here + self.gain_needed else None

    @staticmethod
    def support(board: Board, best: float, danger: float, first: bool) -> int | None:
        """Status, hazards and boosts, where there is time for them."""
        me, foe = board.me, board.foe
        calm = danger < 0.5 * max(me["hp_pct"], 0.01)
        for action, move in board.moves:
            name, status = move["name"], STATUS_MOVES.get(move["name"])
            if status and foe["status"] == "nostatus" and foe["effect"] != "substitute" and best < 0.6:
                poisoned = status in ("tox", "psn") and {"poison", "steel"} & set(foe["types"].split())
                burned = status == "brn" and "fire" in foe["types"].split()
                shocked = name == "thunderwave" and immune(move, foe, board.gen)
                grass = name.endswith(("powder", "spore")) and board.gen >= 6 and "grass" in foe["types"].split()
                if not (poisoned or burned or shocked or grass):
                    return action
            bare = board.state["opponent_conditions"] == "noconditions" and board.state["opponents_remaining"] >= 3
            if name in HAZARDS and bare and calm and best < 0.7:
                return action
            if name in BOOSTING and calm and me["hp_pct"] > 0.6 and me[f"{BOOSTING[name]}_boost"] < 2:
                return action
        return None

    @staticmethod
    def with_tera(board: Board, action: int) -> int:
        """Terastallizes for a hit of the tera type that does not finish anyway, or away from a heavy threat."""
        if action not in board.tera:
            return action
        move = dict(board.moves)[action]
        tera, gen = board.me["tera_type"], board.gen
        after = {**board.me, "types": f"{tera} notype"}
        if move["category"] != "status" and move["move_type"] == tera and board.hit(move) < board.foe["hp_pct"]:
            return action + 9
        before = threat(board.foe, board.me, gen)
        if before > 0.6 and threat(board.foe, after, gen) < before / 2 and board.me["hp_pct"] > 0.5:
            return action + 9
        return action
