"""Which battles a run plays: pure functions of its seed, so that a run can be repeated and resumed."""

from __future__ import annotations

import hashlib

import numpy as np

from battle.interface import Agent
from battle.play import Match
from battle.teams import Team

LEAD_RULES = ("first", "random", "chosen")


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything printable."""
    digest = hashlib.sha256("|".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def leads(seed: int, rule: str) -> tuple[int | None, int | None]:
    """Place of each side's lead at team preview: 0 by the rule "first", drawn from the seed by "random"; None by
    "chosen": the players are asked."""
    if rule == "first":
        return 0, 0
    if rule == "chosen":
        return None, None
    first, second = np.random.default_rng([seed, 3]).integers(6, size=2)
    return int(first), int(second)


def pair(
    name: str, battle_format: str, agents: tuple[Agent, Agent], teams: list[Team], seed: int, lead_rule: str
) -> tuple[Match, Match]:
    """Two battles with the same teams and seed and the sides swapped: the second is the first from the other chair."""
    rng = np.random.default_rng([seed, 1])
    drawn = rng.choice(len(teams), size=2, replace=len(teams) < 2)
    packed = tuple(teams[i].packed for i in drawn)
    names = tuple(teams[i].name for i in drawn)
    common = {
        "format": battle_format,
        "seed": seed,
        "teams": packed,
        "team_names": names,
        "lead_rule": lead_rule,
        "leads": leads(seed, lead_rule),
    }
    return (
        Match(id=f"{name}a", agents=agents, **common),
        Match(id=f"{name}b", agents=(agents[1], agents[0]), **common),
    )
