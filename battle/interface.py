"""What play asks of an agent: `choose(batch of observations) → action ids`.

Everything that plays is one of these: baselines, the trained model, a person's own code. An agent is asked once for all
the battles that wait for it, so that a model can run them as one batch.
"""

from __future__ import annotations

import operator
import reprlib
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np

from battle.errors import BattleError
from data.schema import N_ACTIONS

RESIGN = -2  # an answer in the place of an action, in battles of `battle.play`: this one is given up

_MASKS = (np.arange(1 << N_ACTIONS)[:, None] >> np.arange(N_ACTIONS) & 1).astype(bool)
_MASKS.flags.writeable = False


def bits_to_mask(bits: int) -> np.ndarray:
    """Bit a of `bits` is action a: bool [13], read-only."""
    return _MASKS[bits]


@dataclass(slots=True)
class Observation:
    """One decision that waits for an agent.

    lane: stable name of this battle side from its first state to its last ("battle/side"); key of per-battle caches.
    state: universal state dict of this moment (decoded from `raw`, its JSON, when first asked for).
    legal: bool [13], read-only, the state's legal set intersected with what the request allows. May be all False (a
        forced switch with nobody left): any answer will do then, the battle's default is taken.
    first: True on the first state of a battle, and where it is told anew (live, after a cut connection).
    request: Showdown's request, for those that ask for it (`wants_requests`), else None.
    lines: protocol lines since this side's last decision, for those that ask for them (`wants_lines`), else [].
    retry: the battle took the last choice back (a hidden trap showed itself): an equal state, a smaller legal set.
    seed: of this battle side: an agent that draws draws from it and its own count, never from a shared generator.
    """

    lane: str
    raw: bytes
    legal: np.ndarray
    first: bool
    request: dict[str, Any] | None = None
    lines: list[str] = field(default_factory=list)
    retry: bool = False
    seed: int = 0
    _state: dict[str, Any] | None = None

    @property
    def state(self) -> dict[str, Any]:
        if self._state is None:
            self._state = decode(self.raw)
        return self._state


@runtime_checkable
class Agent(Protocol):
    """A player. Optional attributes, used where they are there:

    wants_requests, wants_lines (bool): what observations shall carry. `end(lane)`: the battle is over, free its caches.
    `note_action(lane, action)`: another action than the chosen one was played (−1: nobody knows which). `refused_mass`:
    for each observation of the last call the probability that the policy had put on choices which the state allows and
    the request refuses. `choose_lead(previews)`: the place of the Pokémon that comes to the field first; previews holds
    for each of its own the states that may follow, one against each of the opponent's. Without it the first leads.
    """

    name: str

    def choose(self, observations: list[Observation]) -> list[int]:
        """One action id (0–12), or RESIGN, per observation, in their order."""


def answers(agent: Agent, observations: list[Observation]) -> list[int]:
    """An agent's action ids, one per observation; raises BattleError where it answers more or fewer, or otherwise than
    by a list of whole numbers."""
    actions = agent.choose(observations)
    try:
        chosen = [operator.index(action) for action in actions]
    except TypeError as error:
        raise BattleError(
            f"player {agent.name!r}: choose gave {reprlib.repr(actions)}: give a list of action ids, whole numbers, "
            "one for each observation"
        ) from error
    if len(chosen) != len(observations):
        raise BattleError(
            f"player {agent.name!r}: choose gave {len(chosen)} actions for {len(observations)} observations: it must "
            "answer each"
        )
    return chosen


def lead_of(agent: Agent, views: msgspec.Raw, may_resign: bool = False) -> int:
    """The place of the lead that an agent chooses at team preview, or RESIGN, by the views of a `preview` event. Raises
    BattleError where it names no Pokémon of its own."""
    previews = decode(views)
    given = agent.choose_lead(previews)
    try:
        place = operator.index(given)
    except TypeError as error:
        raise BattleError(
            f"player {agent.name!r}: choose_lead gave {reprlib.repr(given)}: give the place of a Pokémon, an integer"
        ) from error
    if not 0 <= place < len(previews) and not (may_resign and place == RESIGN):
        raise BattleError(f"player {agent.name!r}: choose_lead gave {place}: give 0 to {len(previews) - 1}")
    return place


_decoder = msgspec.json.Decoder()


def decode(raw: bytes | msgspec.Raw) -> Any:
    """JSON bytes to Python objects."""
    return _decoder.decode(raw)
