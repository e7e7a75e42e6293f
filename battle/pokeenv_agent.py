"""poke-env's SimpleHeuristicsPlayer as one of our agents: its own `Battle` reads the protocol, its own rules choose."""

from __future__ import annotations

import logging

import numpy as np
import orjson
from poke_env import AccountConfiguration
from poke_env.battle import Battle, Pokemon
from poke_env.player import Player, SimpleHeuristicsPlayer

from battle.interface import Observation
from battle.judgement import generation

log = logging.getLogger(__name__)


class SimpleHeuristicsAgent:
    """One `Battle` of poke-env per lane. Where poke-env chooses nothing that is legal here, the first legal action is
    played, and it is logged."""

    name = "simple_heuristics"
    wants_lines = True
    wants_requests = True

    def __init__(self) -> None:
        # The player is only asked for its rules; it never connects.
        self.player = SimpleHeuristicsPlayer(
            account_configuration=AccountConfiguration("turnwise-rules", None), start_listening=False
        )
        self.player.logger.setLevel(logging.CRITICAL)
        self.battles: dict[str, Battle] = {}

    def choose(self, observations: list[Observation]) -> list[int]:
        return [self._choose(observation) for observation in observations]

    def end(self, lane: str) -> None:
        self.battles.pop(lane, None)

    def _choose(self, observation: Observation) -> int:
        legal = np.flatnonzero(observation.legal)
        battle = self._follow(observation)
        if len(legal) <= 1:
            return int(legal[0]) if len(legal) else 0
        try:
            action = self._action(self.player.choose_move(battle), observation)
            problem = f"chose action {action}, which is not legal"
        except Exception as error:  # whatever poke-env stumbles over, a battle goes on
            action, problem = None, f"{type(error).__name__}: {error}"
        if action is None or not observation.legal[action]:
            log.warning("%s: poke-env: %s; the first legal action is played", observation.lane, problem)
            return int(legal[0])
        return action

    def _follow(self, observation: Observation) -> Battle:
        """Brings the lane's poke-env battle up to date."""
        if observation.first:
            gen = generation(observation.state["format"])
            me = observation.request["side"]["name"]
            self.battles[observation.lane] = Battle(
                f"battle-{observation.state['format']}-1", me, self.player.logger, gen=gen
            )
        battle = self.battles[observation.lane]
        for line in observation.lines:
            parts = line.split("|")
            if len(parts) < 2 or parts[1] in ("", "t:", "request", "win", "tie", *Player.MESSAGES_TO_IGNORE):
                continue
            try:
                battle.parse_message(parts)
            except Exception as error:  # a message that this poke-env does not know
                log.info("%s: poke-env: %s: %s at %s", observation.lane, type(error).__name__, error, line)
        battle.parse_request(orjson.loads(orjson.dumps(observation.request)))
        return battle

    @staticmethod
    def _action(order: object, observation: Observation) -> int | None:
        """poke-env's order as an action id, None where there is none for it."""
        chosen = getattr(order, "order", None)
        state = observation.state
        if isinstance(chosen, Pokemon):
            team = [p["ident"] for p in observation.request["side"]["pokemon"]]
            bench = sorted(state["available_switches"], key=lambda p: p["name"])
            names = [p["name"] for p in bench]
            for place, name in enumerate(names):
                if name == chosen.species or bench[place]["base_species"] == chosen.base_species:
                    return 4 + place
            log.info("%s: %s is none of %s (%s)", observation.lane, chosen, names, team)
            return None
        if chosen is None:
            return None
        moves = sorted(move["name"] for move in state["player_active_pokemon"]["moves"][:4])
        wanted = "hiddenpower" if chosen.id.startswith("hiddenpower") else chosen.id
        if wanted not in moves:
            return 0 if wanted in ("struggle", "recharge", "fight") else None
        return moves.index(wanted) + (9 if getattr(order, "terastallize", False) else 0)
