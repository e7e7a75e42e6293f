"""The observation spaces: which words and numbers a state becomes, slot by slot.

A space is a fixed list of word slots and a fixed list of number slots; `walk.py` fills them in this very order.
Literal slots (`<player>`) are always the same word. Number slots carry the divisor that brings them to their scale:
encoding collects raw values and divides a whole battle at once, in float64, before the cast to float32.

Sizes: default 87 words, 48 numbers; expanded 100, 55; teampreview 106, 55; opponentmove 106, 55.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .schema import BOOSTS, FIRST_SWITCH, FIRST_TERA, N_MOVES, N_SWITCHES, STATS

BLANK = "<blank>"
EMPTY_NUMBER = -2.0
N_TEAM = 6


@dataclass(frozen=True)
class WordSlot:
    """A place for one word: the group and row that it belongs to (group "" for a literal), and its name."""

    group: str
    row: int
    name: str


@dataclass(frozen=True)
class NumberSlot:
    """A place for one number, with the divisor of its raw value."""

    group: str
    row: int
    name: str
    divisor: float


@dataclass(frozen=True)
class ObservationSpace:
    """Recipe state → (words, numbers).

    Args:
        name: how configs call it.
        tera: Pokémon blocks end with their tera type; power points, sleep, freeze, tera and the seen opponents follow.
        preview: the opponent's team preview is appended.
        move_category: the active moves carry their category.
        opponent_moves: the opponent's block is followed by its revealed moves.
    """

    name: str
    tera: bool = False
    preview: bool = False
    move_category: bool = True
    opponent_moves: bool = False
    word_slots: tuple[WordSlot, ...] = field(init=False, repr=False)
    number_slots: tuple[NumberSlot, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "word_slots", tuple(_word_slots(self)))
        object.__setattr__(self, "number_slots", tuple(_number_slots(self)))

    @property
    def n_words(self) -> int:
        """S, words per turn."""
        return len(self.word_slots)

    @property
    def n_numbers(self) -> int:
        """F, numbers per turn."""
        return len(self.number_slots)

    @cached_property
    def layout(self) -> dict[str, Any]:
        """The slots grouped by what they describe, as plain lists: it goes into the model's config.

        Every word slot that isn't a literal and every number slot is in exactly one row of one group; `actions` gives,
        per row, the ids of the actions that the row stands for.
        """
        actions = {
            "move": [[i, FIRST_TERA + i] for i in range(N_MOVES)],
            "switch": [[FIRST_SWITCH + i] for i in range(N_SWITCHES)],
        }
        groups = []
        for name, rows in (("move", N_MOVES), ("switch", N_SWITCHES), ("player", 1), ("opponent", 1), ("field", 1)):
            words: list[list[int]] = [[] for _ in range(rows)]
            numbers: list[list[int]] = [[] for _ in range(rows)]
            for place, slot in enumerate(self.word_slots):
                if slot.group == name:
                    words[slot.row].append(place)
            for place, slot in enumerate(self.number_slots):
                if slot.group == name:
                    numbers[slot.row].append(place)
            groups.append({"name": name, "words": words, "numbers": numbers, "actions": actions.get(name, [])})
        return {"groups": groups}


def _word_slots(space: ObservationSpace) -> list[WordSlot]:
    slots: list[WordSlot] = []

    def literal(word: str) -> None:
        slots.append(WordSlot("", 0, word))

    def add(group: str, row: int, *names: str) -> None:
        slots.extend(WordSlot(group, row, name) for name in names)

    tera = ("tera_type",) if space.tera else ()
    pokemon = ("name", "item", "ability", "type_1", "type_2", "effect", "status", *tera)
    move_names = tuple(f"move_{i}" for i in range(N_MOVES))
    add("field", 0, "format", "choice")
    literal("<player>")
    add("player", 0, *pokemon)
    for i in range(N_MOVES):
        literal("<move>")
        add("move", i, "name", "type", *(("category",) if space.move_category else ()))
    for i in range(N_SWITCHES):
        literal("<switch>")
        add("switch", i, "name", "item", "ability")
        literal("<moveset>")
        add("switch", i, *move_names, *tera)
    literal("<opponent>")
    add("opponent", 0, *pokemon)
    if space.opponent_moves:
        add("opponent", 0, *move_names)
    literal("<conditions>")
    add("field", 0, "weather", "player_conditions", "opponent_conditions")
    literal("<player_prev>")
    add("field", 0, "player_prev_move")
    literal("<opp_prev>")
    add("field", 0, "opponent_prev_move")
    if space.tera:
        add("field", 0, *(f"seen_{i}" for i in range(N_TEAM)))
    if space.preview:
        add("field", 0, *(f"preview_{i}" for i in range(N_TEAM)))
    return slots


def _number_slots(space: ObservationSpace) -> list[NumberSlot]:
    slots = [NumberSlot("field", 0, "opponents_remaining", 6.0)]

    def active(group: str) -> None:
        slots.append(NumberSlot(group, 0, "hp_pct", 1.0))
        slots.append(NumberSlot(group, 0, "lvl", 100.0))
        slots.extend(NumberSlot(group, 0, f"base_{stat}", 255.0) for stat in STATS)
        slots.extend(NumberSlot(group, 0, f"{boost}_boost", 6.0) for boost in BOOSTS)

    active("player")
    for i in range(N_MOVES):
        # Already on their scale: an empty slot's −2 must not be divided.
        names = ("base_power", "accuracy", "priority", *(("pp",) if space.tera else ()))
        slots.extend(NumberSlot("move", i, name, 1.0) for name in names)
    slots.extend(NumberSlot("switch", i, "hp_pct", 1.0) for i in range(N_SWITCHES))
    active("opponent")
    if space.tera:
        slots.extend(NumberSlot("field", 0, name, 1.0) for name in ("any_slept", "any_frozen", "can_tera"))
    return slots


SPACES: dict[str, ObservationSpace] = {
    space.name: space
    for space in (
        ObservationSpace("default"),
        ObservationSpace("expanded", tera=True),
        ObservationSpace("teampreview", tera=True, preview=True),
        ObservationSpace("opponentmove", tera=True, preview=True, move_category=False, opponent_moves=True),
    )
}


def space_named(name: str) -> ObservationSpace:
    """The observation space of this name. Raises `ValueError` naming the ones there are."""
    if name not in SPACES:
        raise ValueError(
            f"observation space {name!r} is unknown; choose one of {', '.join(SPACES)}, or, for a model that was "
            f"trained on it, give {__file__} its entry"
        )
    return SPACES[name]
