"""A player whose choices a person makes: the battle asks in its own thread, a page looks and answers in others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from battle.errors import BattleError
from battle.interface import RESIGN, Observation, decode
from battle.scene import Benches, Names, action_of, field_of, pokemon_of
from battle.story import Story, Turn
from data.schema import State, state_from_dict

LONE_CHOICES = {"struggle", "recharge", "fight"}  # as in node/view.js


class NotAsked(BattleError):  # noqa: N818 (names the finding)
    """An answer where nothing, or something else by now, was asked."""


def _must(request: dict[str, Any] | None) -> str:
    """What stands in the place of all moves where none of them can be used, else empty: action 0, though the state
    tells of the Pokémon's own moves then, too."""
    moves = ((request or {}).get("active") or [{}])[0].get("moves", [])
    return moves[0]["move"] if len(moves) == 1 and moves[0]["id"] in LONE_CHOICES else ""


class Person:
    """One battle at a time. What a page may show is `look`'s dict, JSON-able:

    version: grows with every change. phase: "idle" (no battle), "asked" (the person is to choose), "busy". turn: the
    field (at team preview in its place `preview`, the opponent's team) and, where asked, `actions` with their ids, else
    None. story: what happened, [{heading, said: [[text, small]]}]. And whatever `idle` added.
    """

    wants_lines = wants_requests = True

    def __init__(self, name: str):
        self.name = name
        self._changed = threading.Condition()
        self._shown: dict[str, Any] = {"version": 0, "phase": "idle", "turn": None, "story": []}
        self._wish: str | None = None
        self._answer: int | None = None
        self.states: list[dict[str, Any]] = []
        self.actions: list[int] = []
        self.legal: list[bool] = []
        self._previews: list[list[dict[str, Any]]] | None = None  # while the person is asked who shall lead

    # The battle's side.

    def wish(self) -> str:
        """Waits until the person asks for a battle; its format."""
        with self._changed:
            self._until(lambda: self._wish is not None)
            wish, self._wish = self._wish, None
            self.states, self.actions = [], []
            self._story = Story()
            self._show(phase="busy", turn=None, story=[])
            return wish

    def choose_lead(self, previews: list[list[dict[str, Any]]]) -> int:
        """Waits until the person has said who comes to the field first, or has given up."""
        write = Names(previews[0][0]["format"])
        mine = [state_from_dict(row[0]).player_active_pokemon for row in previews]
        foes = [state_from_dict(state).opponent_active_pokemon for state in previews[0]]
        with self._changed:
            self.legal = [True] * len(previews)
            self._shown["turn"] = {
                "preview": [pokemon_of(pokemon, write) for pokemon in foes],
                "actions": [{"id": place, "kind": "lead", **pokemon_of(own, write)} for place, own in enumerate(mine)],
            }
            self._previews = previews
            place = self._asked()
            self._previews = None
        return place

    def choose(self, observations: list[Observation]) -> list[int]:
        """Waits for the person's answer; where nothing is legal there is nothing to ask."""
        (seen,) = observations
        with self._changed:
            self._add(seen)
            action = self._asked() if seen.legal.any() else 0
            self.actions.append(action)
        return [action]

    def idle(self, last: bytes | None = None, lines: Iterable[str] = (), **said: Any) -> None:
        """The battle is over, or none could begin. last: its last state's JSON; lines: the last of the protocol; said:
        for the page."""
        with self._changed:
            self._tell(lines)
            if last is not None and self.states:
                said["turn"] = self._field(state_from_dict(decode(last))) | {"actions": []}
            self._show(phase="idle", story=self._told(), **said)

    def _add(self, seen: Observation) -> None:
        if seen.retry:  # the battle took the last choice back: the same turn is asked again
            self.states.pop()
            self.actions.pop()
        self.states.append(seen.state)
        self.legal = seen.legal.tolist()
        self._tell(seen.lines)
        if seen.first:
            self._write = Names(seen.state["format"])
            self._benches = Benches(self._write)
            self._foe = "p2" if seen.lane.endswith("/0") else "p1"
        state = state_from_dict(seen.state)
        turn = self._field(state)
        turn["actions"] = [
            {"id": action, **action_of(state, action, self._write)} for action, legal in enumerate(self.legal) if legal
        ]
        if (must := _must(seen.request)) and self.legal[0]:
            turn["actions"][0] = {"id": 0, "kind": "must", "name": must, "types": []}
        self._shown["turn"] = turn | {"retry": seen.retry}

    def _field(self, state: State) -> dict[str, Any]:
        turn = field_of(state, self._write) | self._benches.add(state)
        # A state tells of those who are on the field alone: neither who fell since, nor who came and fell between two.
        fallen = {self._write.base(name): name for name in sorted(self._story.sides[self._foe].fallen)}
        for pokemon in turn["foes"]:
            if fallen.pop(self._write.base(pokemon["name"]), None):
                pokemon |= {"hp": 0.0, "status": "fnt"}
        fallen.pop(self._write.base(turn["foe"]["name"]), None)
        turn["foes"] += [{"name": name, "hp": 0.0, "status": "fnt"} for name in fallen.values()]
        return turn

    def _asked(self) -> int:
        self._answer = None
        self._show(phase="asked", story=self._told())
        self._until(lambda: self._answer is not None)
        self._show(phase="busy")
        return self._answer

    def _until(self, met: Callable[[], bool]) -> None:
        """Waits, without end, but looks up each second: a wait of Python's without a limit sleeps through a Ctrl-C that
        comes as it begins, or that another thread hears."""
        while not self._changed.wait_for(met, timeout=1.0):
            pass

    def _tell(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._story.tell(line)

    def _told(self) -> list[dict[str, Any]]:
        now = Turn(self._story.heading, self._story.happened, [])
        return [{"heading": turn.heading, "said": turn.said} for turn in [*self._story.turns, now] if turn.said]

    def _show(self, **changes: Any) -> None:
        self._shown |= changes | {"version": self._shown["version"] + 1}
        self._changed.notify_all()

    # The page's side.

    def look(self, after: int = -1, timeout: float = 20.0) -> dict[str, Any]:
        """What there is to show, once it is newer than version `after`, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._shown["version"] > after, timeout)
            return dict(self._shown)

    def ask_for(self, battle_format: str) -> None:
        """The person wants a battle. Raises NotAsked while one is played."""
        with self._changed:
            if self._shown["phase"] != "idle" or self._wish is not None:
                raise NotAsked("a battle is under way: finish it, or give it up")
            self._wish = battle_format
            self._changed.notify_all()

    def answer(self, version: int, action: int) -> None:
        """The person's choice, RESIGN among them, for what `look` showed under that version. Raises NotAsked."""
        with self._changed:
            self.refuse_stale(version)
            if action != RESIGN and not (0 <= action < len(self.legal) and self.legal[action]):
                raise NotAsked(f"action {action} cannot be chosen here")
            self._answer = action
            self._changed.notify_all()

    def refuse_stale(self, version: int) -> None:
        """Raises NotAsked unless the person is asked, by what `look` showed under that version."""
        if self._shown["phase"] != "asked" or self._answer is not None or version != self._shown["version"]:
            raise NotAsked("the battle has gone on: look again")

    def previews(self, version: int) -> list[list[dict[str, Any]]] | None:
        """What `choose_lead` was given, while the person is asked for that by what `look` showed, else None."""
        with self._changed:
            self.refuse_stale(version)
            return self._previews

    def so_far(self, version: int) -> tuple[list[dict[str, Any]], list[int], list[bool]]:
        """States, actions of all but the last, and the last one's legal set, as an agent's `decide` takes them."""
        with self._changed:
            self.refuse_stale(version)
            return list(self.states), list(self.actions), list(self.legal)
