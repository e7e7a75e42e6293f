"""Rewards of one transition s → s′, from few facts of each state. No torch, no file access.

Formulas: the paper's (arXiv 2504.04395) shaped reward and two variants, as the battle file format states them.
`shaped`:     damage done + own hp gained + 0.5·(status given − status taken) + (fainted − lost) + 100·(won − defeat)
`aggressive`: damage done + own hp gained + 2·(fainted − lost) + 200·won
`binary`:     100·(won − defeat)

Another reward is an entry of `REWARDS` and a value more that `transition` returns, both here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import NamedTuple

# (hp share, status) of a Pokémon.
Health = tuple[float, str]
NO_STATUS = "nostatus"


class Facts(NamedTuple):
    """What a reward needs to know of one state."""

    own: str  # base species of the own active Pokémon
    own_hp: float
    own_status: str
    bench: dict[str, Health]  # by base species
    n_bench: int
    opponent: str  # base species of the opponent's active Pokémon
    opponent_hp: float
    opponent_status: str
    opponents_remaining: int
    won: bool
    lost: bool


@dataclass(frozen=True)
class RewardKind:
    """A reward by name, with what a value head's support can be derived from.

    Args:
        name: how configs call it.
        win, loss: added at the last transition of a battle with a result.
        max_abs_step: no transition's shaping (all but win and loss) exceeds this.
        max_abs_return: bound on the undiscounted return of an ordinary battle: the result, and twice what a team of six
            can give without healing (6 hp, 6 fainted, 6 statuses), for what healing adds. Long stalls can pass it.
    """

    name: str
    win: float
    loss: float
    max_abs_step: float
    max_abs_return: float


# Kept in the order of the tuple that `transition` returns.
REWARDS: dict[str, RewardKind] = {
    "shaped": RewardKind("shaped", win=100.0, loss=-100.0, max_abs_step=3.5, max_abs_return=100.0 + 2 * (6 + 6 + 3)),
    "aggressive": RewardKind("aggressive", win=200.0, loss=0.0, max_abs_step=4.0, max_abs_return=200.0 + 2 * (6 + 12)),
    "binary": RewardKind("binary", win=100.0, loss=-100.0, max_abs_step=0.0, max_abs_return=100.0),
}


def transition(before: Facts, after: Facts) -> tuple[float, ...]:
    """The unscaled rewards of before → after, in the order of `REWARDS`.

    The own change compares the Pokémon now active with itself before, active or benched; the opponent's change counts
    only if the same Pokémon stands there.
    """
    if before.own == after.own:
        own: Health | None = (before.own_hp, before.own_status)
    else:
        own = before.bench.get(after.own)
    if own is None:
        gained = 0.0
        taken = 0
    else:
        gained = after.own_hp - own[0]
        taken = int(own[1] == NO_STATUS and after.own_status != NO_STATUS)
    if before.opponent == after.opponent:
        damage = before.opponent_hp - after.opponent_hp
        given = int(before.opponent_status == NO_STATUS and after.opponent_status != NO_STATUS)
    else:
        damage = 0.0
        given = 0
    fainted = int(after.opponents_remaining < before.opponents_remaining)
    lost = int(after.n_bench < before.n_bench)
    result = after.won - after.lost
    shaped = damage + gained + 0.5 * (given - taken) + (fainted - lost) + 100.0 * result
    aggressive = damage + gained + 2.0 * (fainted - lost) + 200.0 * after.won
    return shaped, aggressive, 100.0 * result


def digests() -> dict[str, str]:
    """A digest of each kind's formula: of its values on fixed transitions, so that a comment or a name changes none.

    Raises ValueError where `transition` does not give each kind its value.
    """
    return dict(_digests(transition, tuple(REWARDS)))


def reward_stamp(kind: str) -> dict[str, str]:
    """A kind's stamp beside its name, as a model's configuration calls it; "none" where no reward has the name."""
    return {"reward_digest": digests().get(kind, "none")}


@cache  # 40 ms, for every dataset that a process opens
def _digests(formula: Callable[[Facts, Facts], tuple[float, ...]], kinds: tuple[str, ...]) -> dict[str, str]:
    health = ((1.0, NO_STATUS), (0.375, "par"), (0.0, "fnt"))
    benches = ({}, {"starmie": (0.5, NO_STATUS)}, {"gengar": (0.75, "slp"), "starmie": (0.25, NO_STATUS)})
    results = ((False, False), (True, False), (False, True))
    states = [
        Facts(own, *own_health, bench, len(bench), opponent, *opponent_health, remaining, *result)
        for own, own_health, bench, opponent, opponent_health, remaining, result in product(
            ("gengar", "starmie"), health, benches, ("chansey", "jynx"), health, (1, 2), results
        )
    ]
    # All pairs would take seconds; 29 shares no factor with a count above, so that every 29th state is of any sort.
    values = [formula(before, after) for before in states[::29] for after in states]
    if len(values[0]) != len(kinds):
        raise ValueError(
            f"{__file__}: REWARDS has {len(kinds)} kinds and transition returns {len(values[0])} values: return one "
            "for each, in the same order"
        )
    columns = zip(kinds, zip(*values, strict=True), strict=True)
    return {kind: hashlib.sha256(repr(column).encode()).hexdigest()[:12] for kind, column in columns}
