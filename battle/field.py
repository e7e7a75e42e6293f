"""A universal state opened up for arithmetic: what each hits whom with, who is through with whom first, who leaves."""

from __future__ import annotations

import math
from typing import Any

from battle.baselines import RECHARGE, Board
from battle.effects import wear
from battle.hits import faster, taken
from battle.judgement import FAINTS_USER

LEAD = 1.0  # turns of the race that moving first is worth
GUESSED_POWER = 80  # of a move that the opponent has not shown, of its own types
ACTS = {"slp": 0.35, "frz": 0.1, "par": 0.75}  # chance to move at all
LEAVING = 0.56  # of the opponents whose race is lost, those that switch


class Field:
    """A state opened up for arithmetic, each pair of Pokémon weighed once."""

    def __init__(self, state: dict[str, Any], board: Board):
        self.state, self.board, self.gen = state, board, board.gen
        self.me, self.foe = board.me, board.foe
        # By identity; the Pokémon themselves stand in the entries, so that none is freed and its identity used again.
        self._best: dict[tuple[int, int], tuple] = {}
        self.switches: dict[int, float] | None = None  # worth of each switch by its action, once it is asked for

    def hit(self, move: dict[str, Any], user: dict[str, Any], target: dict[str, Any]) -> float:
        """Share of the target's full health that a move takes on average where it lands."""
        return taken(move, user, target, self.state, self.gen)

    def first(self, move: dict[str, Any]) -> bool:
        """Whether the own move comes before the opponent's; a quick move of its that finishes is reckoned with."""
        me, foe = self.me, self.foe
        own = move["priority"] + (me["ability"] == "prankster" and move["category"] == "status")
        quick = max((m["priority"] for m in foe["moves"] if m["priority"] > 0 and m["category"] != "status"
                     and self.hit(m, foe, me) >= me["hp_pct"]), default=0)  # fmt: skip
        return own > quick if own != quick else self.faster(me, foe)

    def faster(self, user: dict[str, Any], target: dict[str, Any]) -> bool:
        return faster(user, target, self.state, self.gen)

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
            share = self.hit(move, user, target) * move["accuracy"] * (0.6 if move["name"] in RECHARGE else 1.0)
            if share > most:
                most, which = share, move
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
        weather = self.state["weather"]
        mine = foe_health / max(self.best(user, self.foe)[0] + wear(self.foe, weather, self.gen), 0.02)  # turns
        theirs = health / max(self.best(self.foe, user)[0] + wear(user, weather, self.gen), 0.02)
        lead = LEAD if self.faster(user, self.foe) else -LEAD
        return 0.75 * math.tanh((theirs - mine + lead) / (0.5 + min(mine, theirs)))

    def leaves(self) -> float:
        """Chance that the opponent switches: the likelier, the worse its race is."""
        if self.state["opponents_remaining"] <= 1 or not self.foe["hp_pct"] or not self.me["hp_pct"]:
            return 0.0
        race = self.race(self.me, self.me["hp_pct"], self.foe["hp_pct"]) / 0.75
        return LEAVING / (1 + math.exp(-5.5 * (race - 0.13)))
