"""What play asks of an agent: `choose(batch of observations) → action ids`.

Everything that plays is one of these: baselines, the trained model, a person's own code. An agent is asked once for all
the battles that wait for it, so that a model can run them as one batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np

from data.schema import N_ACTIONS


def bits_to_mask(bits: int) -> np.ndarray:
    """Bit a of `bits` is action a: bool [13]."""
    return ((bits >> np.arange(N_ACTIONS)) & 1).astype(bool)


@dataclass(slots=True)
class Observation:
    """One decision that waits for an agent.

    lane: stable name of this battle side from its first state to its last ("battle/side"); the key of per-battle caches.
    state: universal state dict of this moment.
    legal: bool [13], the state's legal set intersected with what the request allows. May be all False (a forced switch
        with nobody left): any answer will do then, the battle's default is taken.
    first: True on the first state of a battle.
    request: Showdown's request, for those that ask for it (`wants_requests`), else None.
    lines: protocol lines since this side's last decision, for those that ask for them (`wants_lines`), else [].
    retry: the battle took the last choice back (a hidden trap showed itself): same state, smaller legal set.
    """

    lane: str
    state: dict[str, Any]
    legal: np.ndarray
    first: bool
    request: dict[str, Any] | None = None
    lines: list[str] = field(default_factory=list)
    retry: bool = False
    seed: int = 0
    """Seed of this battle side: an agent that draws draws from (seed, its own count), never from a shared generator."""


@runtime_checkable
class Agent(Protocol):
    """Optional attributes: `wants_requests`, `wants_lines` (bool), `masses` (float per observation of the last call: the
    probability that the policy had put on choices which the request refuses), `finished(lane)` (the battle is over)."""

    name: str

    def choose(self, observations: list[Observation]) -> list[int]:
        """One action id (0–12) per observation, in their order."""


_decoder = msgspec.json.Decoder()


def decode(raw: bytes | msgspec.Raw) -> Any:
    """JSON bytes to Python objects."""
    return _decoder.decode(raw)
