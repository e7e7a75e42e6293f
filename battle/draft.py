"""Teams drafted from the sets of given ones: many more line-ups than anybody wrote down, of Pokémon as people build."""

from __future__ import annotations

import numpy as np

from battle.errors import InvalidTeam
from battle.schedule import seed_of
from battle.simulator import Simulator
from battle.teams import Team

SIZE = 6
TRIES = 20  # for each team, before the teams are said to be too few


def drafted(sim: Simulator, battle_format: str, teams: list[Team], count: int, seed: int) -> list[Team]:
    """`count` teams of six sets of `teams`, no species twice, each passed by Showdown's validator.

    A function of the seed. None for a format that makes its own teams. Raises InvalidTeam where the sets give fewer.
    """
    if count == 0 or teams[0].packed is None:
        return []
    sets = [one for team in teams for one in team.packed.split("]")]
    rng = np.random.default_rng(seed_of("draft", seed, battle_format))
    found, refusal = [], "fewer than six species among the sets"
    for _ in range(TRIES * count):
        chosen: dict[str, str] = {}
        for place in rng.permutation(len(sets)):
            nickname, species = sets[place].split("|", 2)[:2]
            chosen.setdefault(species or nickname, sets[place])
            if len(chosen) == SIZE:
                break
        else:
            break
        try:
            packed = sim.pack_team(battle_format, "]".join(chosen.values()), f"drafted team {len(found)}")
        except InvalidTeam as error:  # two forms of one species, or what else the format's rules say of whole teams
            refusal = str(error)
            continue
        found.append(Team(f"draft{len(found)}", packed))
        if len(found) == count:
            return found
    raise InvalidTeam(
        f"{battle_format}: {len(found)} of {count} teams could be drafted: ask for fewer, or give more; last: {refusal}"
    )
