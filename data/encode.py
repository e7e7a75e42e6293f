"""States and actions → arrays: the one encoder, for training and for live play.

A turn is the concatenation of its blocks (`blocks.py`, `walk.py`), and a battle is turned into arrays by one copy; its
numbers are divided by their slots' divisors at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .blocks import BENCH, BENCH_LIST, Blocks, decoded
from .observation import N_TEAM, ObservationSpace, space_named
from .reward import NO_STATUS, REWARDS
from .schema import N_ACTIONS, UNRECORDED, BadBattle, LeanActive, LeanBench, LeanState, State, lean_state
from .tokenizer import UNKNOWN_ID, Tokenizer
from .walk import Choice, Walk

AnyState = Mapping[str, Any] | State | LeanState
ILLEGAL_RULES = ("reject", "unrecorded")


@dataclass
class EncodedBattle:
    """A battle as arrays; n states, S words and F numbers a state.

    Attributes:
        words: uint16 [n, S], token ids.
        numbers: float32 [n, F].
        legal: bool [n, 13], from the state alone.
        forced: bool [n], a switch is forced.
        action: int8 [n], −1 where not recorded; the last is always −1.
        rewards: per kind float32 [n − 1], unscaled, of the transition t → t + 1.
        won, lost: of the last state; neither: the battle was cut short.
        team: hash of the own team's base species in the first state, below 2**64.
        dropped_tail: a last state that was the first of the next battle was dropped.
        n_unknown: words that the vocabulary doesn't hold.
        n_placeholder: actions recorded where nothing is legal, taken as not recorded.
        n_illegal: illegal actions taken as not recorded (only under that rule).
    """

    words: np.ndarray
    numbers: np.ndarray
    legal: np.ndarray
    forced: np.ndarray
    action: np.ndarray
    rewards: dict[str, np.ndarray]
    won: bool
    lost: bool
    team: int
    dropped_tail: bool
    n_unknown: int
    n_placeholder: int
    n_illegal: int

    def __len__(self) -> int:
        return len(self.action)

    def reward(self, kind: str) -> np.ndarray:
        """Unscaled rewards float32 [n − 1] of a kind."""
        return self.rewards[kind]

    def fill(
        self, start: int, stop: int, words: np.ndarray, numbers: np.ndarray, legal: np.ndarray, forced: np.ndarray
    ) -> None:
        """Write states [start, stop) into the given rows."""
        words[:] = self.words[start:stop]
        numbers[:] = self.numbers[start:stop]
        legal[:] = self.legal[start:stop]
        forced[:] = self.forced[start:stop]


class Encoder:
    """Turns battles into arrays in one observation space with one vocabulary. Not for several threads at once."""

    def __init__(self, space: str | ObservationSpace, tokenizer: Tokenizer, illegal: str = "reject") -> None:
        """
        Args:
            space: observation space, or its name.
            tokenizer: the vocabulary.
            illegal: what to do with a battle that holds a recorded action outside its state's legal set: `reject` it,
                or take such actions as `unrecorded`. Where nothing is legal at all, a recorded action is always taken
                as a placeholder for no choice.

        Raises:
            ValueError: an unknown space or rule.
        """
        if illegal not in ILLEGAL_RULES:
            raise ValueError(f"illegal_actions is {illegal!r}; choose one of {', '.join(ILLEGAL_RULES)}")
        self.space = space_named(space) if isinstance(space, str) else space
        self.tokenizer = tokenizer
        self.illegal = illegal
        self.blocks = Blocks(self.space, tokenizer)
        self._scale = np.array([slot.divisor for slot in self.space.number_slots], dtype=np.float64)

    def live(self) -> LiveEncoder:
        """An encoder of one battle, state by state, by the same code."""
        return LiveEncoder(self)

    def encode(self, states: Sequence[AnyState], actions: Sequence[int]) -> EncodedBattle:
        """Encode a whole battle.

        Args:
            states: n ≥ 2 states, as structs or dicts.
            actions: n or n − 1 action ids, −1 where not recorded; an n-th stands only for shape.

        Raises:
            BadBattle: naming the field (with the turn) and the reason.
        """
        n = len(states)
        if n < 2:
            raise BadBattle("states", f"holds {n} states", "a battle has 2 or more: drop the file")
        if not n - 1 <= len(actions) <= n:
            raise BadBattle("actions", f"{len(actions)} actions for {n} states", "give n or n − 1 actions")
        lean = [state if type(state) is LeanState else lean_state(state) for state in states]
        dropped = _next_battle_at_end(lean)
        if dropped:
            lean.pop()
            n -= 1
            if n < 2:
                raise BadBattle("states", "holds one state of its own battle", "a battle has 2 or more: drop the file")
        walk = Walk(self.blocks)
        words: list[bytes] = []
        numbers: list[bytes] = []
        for turn, state in enumerate(lean):
            try:
                walk.add(state, words, numbers)
            except BadBattle as error:
                raise BadBattle(f"states[{turn}].{error.field}", error.reason, error.mend) from error
        last = lean[-1]
        self._check_results(lean)
        legal, forced = walk.legal_and_forced()
        action, n_placeholder, n_illegal = self._actions(actions, walk.choices)
        rewards = np.array(walk.rewards, dtype=np.float64).T.astype(np.float32)
        word_ids = np.frombuffer(b"".join(words), dtype=np.uint16).reshape(n, self.space.n_words)
        return EncodedBattle(
            words=word_ids,
            numbers=self.scaled(numbers, n),
            legal=legal,
            forced=forced,
            action=action,
            rewards=dict(zip(REWARDS, rewards, strict=True)),
            won=last.battle_won,
            lost=last.battle_lost,
            team=walk.team,
            dropped_tail=dropped,
            n_unknown=int(np.count_nonzero(word_ids == UNKNOWN_ID)),
            n_placeholder=n_placeholder,
            n_illegal=n_illegal,
        )

    def scaled(self, raw: list[bytes], n: int) -> np.ndarray:
        """Raw float64 blocks of n turns → scaled numbers, float32 [n, F]."""
        table = np.frombuffer(b"".join(raw), dtype=np.float64).reshape(n, self.space.n_numbers)
        return (table / self._scale).astype(np.float32)

    @staticmethod
    def _check_results(states: list[LeanState]) -> None:
        last = len(states) - 1
        for turn, state in enumerate(states):
            if state.battle_won or state.battle_lost:
                if turn != last:
                    raise BadBattle(
                        f"states[{turn}].battle_won", "the battle is over before its last state", "drop the file"
                    )
                if state.battle_won and state.battle_lost:
                    raise BadBattle(f"states[{turn}].battle_lost", "the battle is both won and lost", "drop the file")

    def _actions(self, actions: Sequence[int], choices: list[Choice]) -> tuple[np.ndarray, int, int]:
        """The recorded actions int8 [n], checked against the legal sets; counts of placeholders and illegal ones."""
        taken: list[int] = []
        n_placeholder = n_illegal = 0
        last = len(choices) - 1
        for turn, action in enumerate(actions):
            if type(action) is not int or not UNRECORDED <= action < N_ACTIONS:
                raise BadBattle(
                    f"actions[{turn}]", f"{action!r} is no action", f"actions are −1 … {N_ACTIONS - 1}: drop the file"
                )
            if turn >= last:
                continue
            if action >= 0 and action not in choices[turn].ids:
                if not choices[turn].ids:
                    n_placeholder += 1
                elif self.illegal == "reject":
                    raise BadBattle(
                        f"actions[{turn}]",
                        f"{action} is illegal in its state (legal: {sorted(choices[turn].ids)})",
                        "drop the file, or set data.illegal_actions to unrecorded",
                    )
                else:
                    n_illegal += 1
                action = UNRECORDED
            taken.append(action)
        taken.append(UNRECORDED)
        return np.array(taken, dtype=np.int8), n_placeholder, n_illegal


class LiveEncoder:
    """One battle at play: add each state as it comes. The arrays equal, bit by bit, what training reads of the file."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._walk = Walk(encoder.blocks)

    def add(self, state: AnyState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Encode the next state.

        Returns:
            words uint16 [S], numbers float32 [F], legal bool [13].

        Raises:
            BadBattle: naming the field and the reason.
        """
        words: list[bytes] = []
        numbers: list[bytes] = []
        self._walk.add(lean_state(state), words, numbers)
        legal = np.frombuffer(self._walk.choices[-1].row, dtype=bool)
        # Copies: what lies on `bytes` is read-only, which torch warns about.
        return (
            np.frombuffer(b"".join(words), dtype=np.uint16).copy(),
            self._encoder.scaled(numbers, 1)[0],
            legal.copy(),
        )

    def reward(self, kind: str) -> float:
        """The unscaled reward, rounded to float32, of the transition into the last state; 0 at the first state."""
        place = list(REWARDS).index(kind) if kind in REWARDS else None
        if place is None:
            raise ValueError(f"reward {kind!r} is unknown; choose one of {', '.join(REWARDS)}")
        return float(np.float32(self._walk.rewards[-1][place])) if self._walk.rewards else 0.0

    def __len__(self) -> int:
        """How many states were added."""
        return len(self._walk.choices)


def _next_battle_at_end(states: list[LeanState]) -> bool:
    """Whether the last state is the first of the next battle: a race of some recorders. It has no result, and it looks
    like a battle's first state (nothing moved yet, all six opponents, a whole and healthy team) after one that doesn't.
    """
    last = states[-1]
    if last.battle_won or last.battle_lost or not _nothing_moved(last):
        return False
    return _is_fresh(last) and not (_nothing_moved(states[-2]) and _is_fresh(states[-2]))


def _nothing_moved(state: LeanState) -> bool:
    moved = state.player_prev_move.name != "nomove" or state.opponent_prev_move.name != "nomove"
    return state.opponents_remaining == N_TEAM and not state.forced_switch and not moved


def _is_fresh(state: LeanState) -> bool:
    team: list[LeanActive | LeanBench] = [state.player_active_pokemon]
    for part in decoded(BENCH_LIST, bytes(state.available_switches), "available_switches"):
        team.append(decoded(BENCH, bytes(part), "available_switches"))
    return len(team) == N_TEAM and all(pokemon.hp_pct == 1.0 and pokemon.status == NO_STATUS for pokemon in team)
