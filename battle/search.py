"""A player that needs no training and looks ahead: every pair of choices is played out on the real simulator.

For each decision the hidden parts of the battle are drawn a few times over (`node/position.js`): what the opponent has
shown is kept, the rest comes from likely sets, those of the recording teams and of Showdown's generator. In each such
battle all own choices meet the opponent's (its moves and best switches), one turn deep or two; what comes of them is
judged by health, status, boosts and threats, and the opponent is taken to answer well (`node/search.js`). It sees what
any agent sees: its own channel's lines and its own request, never the battle that it plays in.
"""

from __future__ import annotations

import weakref

from battle.errors import BattleError
from battle.interface import Observation
from battle.simulator import Simulator
from battle.teams import OWN


class SearchAgent:
    """`search`, or `search:plies=2,determinizations=2,seed=1`.

    plies: turns looked ahead, 1 or 2 (a second one costs some thirty times as much). determinizations: how often the
    hidden parts are drawn for one decision. Equal observations and seeds give equal actions. Raises BattleError where
    an option makes no sense.
    """

    name = "search"
    wants_lines = wants_requests = True

    def __init__(self, plies: int = 1, determinizations: int = 2, seed: int = 0):
        if plies not in (1, 2):
            raise BattleError(f"search: plies={plies}: choose 1 or 2")
        if determinizations < 1:
            raise BattleError(f"search: determinizations={determinizations}: choose 1 or more")
        self.plies, self.determinizations, self.seed = plies, determinizations, seed
        # A Node process of its own: on a live server, too, there is none to share.
        self._sim = Simulator(timeout=600.0)
        self._end = weakref.finalize(self, Simulator.close, self._sim)
        self._begun: set[str] = set()
        self._teams: dict[str, list[str]] = {}

    def choose(self, observations: list[Observation]) -> list[int]:
        actions = []
        for seen in observations:
            fresh = seen.first or seen.lane not in self._begun
            self._begun.add(seen.lane)
            spec = self._spec(seen) if fresh else None
            self._sim.command("search", seen.lane, spec, seen.lines, seen.request)
            # One by one: a process has its time for what it is asked at once, and 64 battles may take longer than that.
            event = next(event for event in self._sim.step() if event.lane == seen.lane)
            if event.event != "searched":
                raise BattleError(f"search: {seen.lane}: the search failed: {event.message}; please report it")
            actions.append(event.action)
        return actions

    def end(self, lane: str) -> None:
        self._begun.discard(lane)
        self._sim.drop(lane)

    def close(self) -> None:
        """Ends the Node process; an agent that nobody holds any more does so by itself."""
        self._end()

    def _spec(self, seen: Observation) -> dict:
        battle_format = seen.state["format"]
        if battle_format not in self._teams:
            self._teams[battle_format] = known_teams(battle_format)
        return {
            "format": battle_format,
            "teams": self._teams[battle_format],
            "seed": [self.seed & 0xFFFF, seen.seed & 0xFFFF],
            "plies": self.plies,
            "determinizations": self.determinizations,
        }


def known_teams(battle_format: str) -> list[str]:
    """Teams that opponents are guessed from, as text: those we record from; none where the generator stands in."""
    folder = OWN / battle_format / "training"
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob(f"*.{battle_format}_team"))]
