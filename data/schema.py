"""The universal state of a battle file, as typed structs, and what is legal in it.

The keys are those of the battle file format (one player's view of one singles battle). Two sets of structs stand here:

- `State`, `Pokemon`, `Move`: every key, with ranges; for people, for play and for `verify`.
- `LeanState` and its parts: only what an observation, a reward or a legal set needs, for the loader's speed. Blocks
  that repeat from turn to turn stay raw JSON there, so that the encoder can know them again without decoding them.

Nothing here needs more than msgspec and numpy: this file travels with a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct

SCHEMA_VERSION = 1
N_ACTIONS = 13
N_MOVES = 4
N_SWITCHES = 5
FIRST_SWITCH = 4
FIRST_TERA = 9
UNRECORDED = -1

BOOSTS = ("atk", "spa", "def", "spd", "spe", "accuracy", "evasion")
STATS = ("atk", "spa", "def", "spd", "spe", "hp")

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Boost = Annotated[int, Meta(ge=-6, le=6)]
# The format gives no upper bound for these; the ranges are far above the games' own and keep float32 exact.
Stat = Annotated[int, Meta(ge=0, le=10_000)]
Level = Annotated[int, Meta(ge=0, le=1_000)]
Points = Annotated[int, Meta(ge=-10_000, le=10_000)]
Power = Annotated[float, Meta(ge=0.0, le=10_000.0)]
Priority = Annotated[int, Meta(ge=-100, le=100)]
Remaining = Annotated[int, Meta(ge=0, le=6)]


class BadBattle(ValueError):  # noqa: N818 (it names the finding; every caller catches it by this name)
    """A battle, state or action that does not follow the format: which field, why, and what to do."""

    def __init__(self, field: str, reason: str, mend: str) -> None:
        super().__init__(f"{field}: {reason}; {mend}")
        self.field = field
        self.reason = reason
        self.mend = mend


class Move(Struct):
    """A move; the blank one has name, type and category `nomove`, numbers 0 and accuracy 1."""

    name: str
    move_type: str
    category: str
    base_power: Power
    accuracy: Share
    priority: Priority
    current_pp: Points
    max_pp: Points


class Pokemon(Struct, kw_only=True):
    """A Pokémon as this player knows it."""

    name: str
    hp_pct: Share
    types: str
    item: str
    ability: str
    lvl: Level
    status: str
    effect: str
    moves: list[Move]
    atk_boost: Boost
    spa_boost: Boost
    def_boost: Boost
    spd_boost: Boost
    spe_boost: Boost
    accuracy_boost: Boost
    evasion_boost: Boost
    base_atk: Stat
    base_spa: Stat
    base_def: Stat
    base_spd: Stat
    base_spe: Stat
    base_hp: Stat
    tera_type: str = "notype"
    base_species: str = ""

    def __post_init__(self) -> None:
        if not self.base_species:
            self.base_species = base_species_of(self.name)


class State(Struct, kw_only=True):
    """One decision point of a battle, from one player's seat."""

    format: str
    player_active_pokemon: Pokemon
    opponent_active_pokemon: Pokemon
    available_switches: Annotated[list[Pokemon], Meta(max_length=N_SWITCHES)]
    player_prev_move: Move
    opponent_prev_move: Move
    opponents_remaining: Remaining
    player_conditions: str
    opponent_conditions: str
    weather: str
    battle_field: str
    forced_switch: bool
    battle_won: bool
    battle_lost: bool
    can_tera: bool = False
    opponent_teampreview: list[str] = msgspec.field(default_factory=list)


class BattleRecord(Struct):
    """A battle file's content: n states and, for each but the last, the action taken there (−1: not recorded)."""

    states: list[State]
    actions: list[int]


class LeanName(Struct, gc=False):
    """Of a move only its name."""

    name: str


class LeanActive(Struct, kw_only=True, gc=False):
    """The own active Pokémon; each move stays raw JSON, to be known again by its bytes."""

    name: str
    hp_pct: Share
    types: str
    item: str
    ability: str
    lvl: Level
    status: str
    effect: str
    moves: list[Raw]
    atk_boost: Boost
    spa_boost: Boost
    def_boost: Boost
    spd_boost: Boost
    spe_boost: Boost
    accuracy_boost: Boost
    evasion_boost: Boost
    base_atk: Stat
    base_spa: Stat
    base_def: Stat
    base_spd: Stat
    base_spe: Stat
    base_hp: Stat
    tera_type: str = "notype"
    base_species: str = ""


class LeanOpponent(LeanActive, kw_only=True, gc=False):
    """The opponent's active Pokémon; of its moves only the names."""

    moves: list[LeanName]


class LeanBench(Struct, kw_only=True, gc=False):
    """A Pokémon that can be switched in."""

    name: str
    hp_pct: Share
    types: str
    item: str
    ability: str
    status: str
    moves: list[LeanName]
    tera_type: str = "notype"
    base_species: str = ""


class LeanState(Struct, kw_only=True, gc=False):
    """What an observation needs of a state; `available_switches` stays one raw JSON list."""

    format: str
    player_active_pokemon: LeanActive
    opponent_active_pokemon: LeanOpponent
    available_switches: Raw
    player_prev_move: LeanName
    opponent_prev_move: LeanName
    opponents_remaining: Remaining
    player_conditions: str
    opponent_conditions: str
    weather: str
    battle_field: str
    forced_switch: bool
    battle_won: bool
    battle_lost: bool
    can_tera: bool = False
    opponent_teampreview: list[str] = msgspec.field(default_factory=list)


class LeanBattle(Struct, gc=False):
    """A battle file's content, lean."""

    states: list[LeanState]
    actions: list[int]


_LEAN_STATE = msgspec.json.Decoder(LeanState)


def base_species_of(name: str) -> str:
    """Species without its forme, for old files that lack `base_species`: the name up to the first `-`."""
    return name.split("-", 1)[0]


def state_from_dict(state: Mapping[str, Any]) -> State:
    """A state given as plain dicts and lists, checked.

    Raises:
        BadBattle: naming the field that is missing, of another type or out of its range.
    """
    try:
        return msgspec.convert(state, State)
    except msgspec.ValidationError as error:
        raise bad_from_validation(error) from error


def lean_state(state: Mapping[str, Any] | State | LeanState) -> LeanState:
    """Any form of a state as the struct that the encoder reads; JSON is the common ground of all of them.

    Raises:
        BadBattle: as `state_from_dict`, and for a number that JSON cannot hold (NaN, infinity).
    """
    if isinstance(state, LeanState):
        return state
    try:
        return _LEAN_STATE.decode(msgspec.json.encode(state))
    except msgspec.ValidationError as error:
        raise bad_from_validation(error) from error
    except (msgspec.MsgspecError, TypeError, OverflowError) as error:
        raise BadBattle("state", str(error), "give a state of the battle file format") from error


def bad_from_validation(error: msgspec.ValidationError) -> BadBattle:
    """msgspec's report as ours: its text ends in the path of the field, `… - at `$.states[3].weather``."""
    text = str(error)
    reason, at, path = text.rpartition(" - at `")
    field = path.rstrip("`") if at else "$"
    if not at:
        reason = text
    return BadBattle(field, reason, "the file must follow the battle file format's schema")


def legal_choices(n_moves: int, n_switches: int, forced_switch: bool, can_tera: bool) -> np.ndarray:
    """Legal set of a state, bool [13]: moves unless a switch is forced, the same with tera, and the switches."""
    legal = np.zeros(N_ACTIONS, dtype=bool)
    legal[FIRST_SWITCH : FIRST_SWITCH + n_switches] = True
    if not forced_switch:
        legal[:n_moves] = True
        if can_tera:
            legal[FIRST_TERA : FIRST_TERA + n_moves] = True
    return legal


def legal_actions(state: State) -> np.ndarray:
    """Legal set of a state from the state alone, bool [13]. All false where a switch is forced and none is left."""
    n_moves = min(len(state.player_active_pokemon.moves), N_MOVES)
    n_switches = min(len(state.available_switches), N_SWITCHES)
    return legal_choices(n_moves, n_switches, state.forced_switch, state.can_tera)


def minimal_action(action: int) -> int:
    """The minimal action space of generations 1–4: 9–12 (tera) folded onto 0–3."""
    return action - FIRST_TERA if action >= FIRST_TERA else action


def minimal_legal(legal: np.ndarray) -> np.ndarray:
    """A legal set bool [..., 13] folded into the minimal action space, bool [..., 9]."""
    folded = legal[..., :FIRST_TERA].copy()
    folded[..., :N_MOVES] |= legal[..., FIRST_TERA:]
    return folded
