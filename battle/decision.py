"""What the agent thinks of a state, and an action in words."""

from dataclasses import dataclass
from typing import Any

from data.schema import FIRST_SWITCH, FIRST_TERA, N_MOVES, state_from_dict


@dataclass
class Decision:
    """What the agent thinks of one state; every policy and value names its discount γ.

    action: id, 0–12, of the policy at `gamma` and `beta`; words: the same for a reader ("switch to gengar").
    probabilities: that policy over all actions, illegal ones 0. values: per γ the expected shaped return from here by
    the policy without β, unscaled. q_values: at `gamma`, per action. win_chance: calibrated on training battles, None
    if never fitted.
    """

    action: int
    words: str
    gamma: float
    beta: float
    probabilities: list[float]
    values: dict[float, float]
    q_values: list[float]
    win_chance: float | None


def describe_action(state: Any, action: int) -> str:
    """An action id in words, from the state that it is taken in: "use surf", "switch to gengar",
    "terastallize and use surf"; "action 3" where the state has no such slot."""
    state = state_from_dict(state) if isinstance(state, dict) else state
    switch = FIRST_SWITCH <= action < FIRST_TERA
    found = state.available_switches if switch else state.player_active_pokemon.moves[:N_MOVES]
    slots = sorted(choice.name for choice in found)
    slot = action - (FIRST_SWITCH if switch else FIRST_TERA if action >= FIRST_TERA else 0)
    if slot >= len(slots):
        return f"action {action}"
    verb = "switch to" if switch else "use" if action < FIRST_SWITCH else "terastallize and use"
    return f"{verb} {slots[slot]}"
