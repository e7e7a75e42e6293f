"""States and actions → arrays: the one encoder, for training and for live play.

Every block of words (a move, a benched Pokémon) becomes bytes of uint16 ids once and is found again by its raw JSON
bytes; a turn is the concatenation of its blocks, in the order of `observation.py`'s slots, and a battle is turned into
arrays by one copy. Numbers are collected raw as float64 and divided by their slots' divisors at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from struct import Struct as Packer
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, Raw

from .observation import BLANK, EMPTY_NUMBER, N_TEAM, ObservationSpace, space_named
from .reward import NO_STATUS, REWARDS, Facts, Health, transition
from .schema import (
    N_ACTIONS,
    N_MOVES,
    N_SWITCHES,
    UNRECORDED,
    BadBattle,
    LeanActive,
    LeanBench,
    LeanOpponent,
    LeanState,
    Move,
    State,
    bad_from_validation,
    base_species_of,
    lean_state,
    legal_choices,
)
from .tokenizer import UNKNOWN_ID, Tokenizer

AnyState = Mapping[str, Any] | State | LeanState

_ACTIVE_NUMBERS = Packer("=15d")
_MOVE_NUMBERS = (Packer("=3d"), Packer("=4d"))
_BENCH_NUMBERS = Packer(f"={N_SWITCHES}d")
_ONE_NUMBER = Packer("=d")
_END_NUMBERS = Packer("=3d")
_MOVE = msgspec.json.Decoder(Move)
_BENCH_LIST = msgspec.json.Decoder(Annotated[list[Raw], Meta(max_length=N_SWITCHES)])
_BENCH = msgspec.json.Decoder(LeanBench)
# Bounds on what the caches hold (some MB per process); past them they start afresh.
_MOVES_KEPT = 32_768
_BENCH_KEPT = 8_192
_NAMES_KEPT = 65_536
_BY_NAME = itemgetter(0)
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
        self.blocks = _Blocks(self.space, tokenizer)
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
        walk = _Walk(self.blocks)
        words: list[bytes] = []
        numbers: list[bytes] = []
        for turn, state in enumerate(lean):
            try:
                walk.add(state, words, numbers)
            except BadBattle as error:
                raise BadBattle(f"states[{turn}].{error.field}", error.reason, error.mend) from error
        last = lean[-1]
        self._check_results(lean)
        legal, forced = _legal_arrays(walk)
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

    def _actions(self, actions: Sequence[int], choices: list[_Choice]) -> tuple[np.ndarray, int, int]:
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
        self._walk = _Walk(encoder.blocks)

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


class _Choice(NamedTuple):
    """A legal set: as 13 bytes of 0 and 1, as a set of ids, and whether a switch is forced."""

    row: bytes
    ids: frozenset[int]
    forced: bool


def _choice(n_moves: int, n_switches: int, forced: bool, tera: bool) -> _Choice:
    legal = legal_choices(n_moves, n_switches, forced, tera)
    return _Choice(legal.tobytes(), frozenset(np.flatnonzero(legal).tolist()), forced)


_CHOICES = {
    (moves, switches, forced, tera): _choice(moves, switches, forced, tera)
    for moves in range(N_MOVES + 1)
    for switches in range(N_SWITCHES + 1)
    for forced in (False, True)
    for tera in (False, True)
}


def _legal_arrays(walk: _Walk) -> tuple[np.ndarray, np.ndarray]:
    choices = walk.choices
    legal = np.frombuffer(b"".join([choice.row for choice in choices]), dtype=bool).reshape(-1, N_ACTIONS)
    return legal, np.array([choice.forced for choice in choices], dtype=bool)


class _Bench(NamedTuple):
    """The own bench, encoded: words and numbers of all five slots, health by base species, and their count."""

    words: bytes
    numbers: bytes
    health: dict[str, Health]
    count: int


class _Blocks:
    """Encoded blocks of one space and vocabulary, found again by their raw JSON."""

    def __init__(self, space: ObservationSpace, tokenizer: Tokenizer) -> None:
        self.space = space
        self.word = word = tokenizer.packed()
        self.blank = word[BLANK]
        self.moves: dict[bytes, tuple[str, bytes, bytes]] = {}
        self.bench: dict[bytes, tuple[str, bytes, float, str, str]] = {}
        self.types: dict[str, bytes] = {}
        self.formats: dict[tuple[str, bool], bytes] = {}
        move_slots = 3 if space.move_category else 2
        move_numbers = 4 if space.tera else 3
        self.move_numbers = _MOVE_NUMBERS[space.tera]
        # After k moves (or benched Pokémon): the empty slots up to the full number.
        self.empty_moves = [(word["<move>"] + self.blank * move_slots) * (N_MOVES - k) for k in range(N_MOVES + 1)]
        empty = _ONE_NUMBER.pack(EMPTY_NUMBER)
        self.empty_move_numbers = [empty * move_numbers * (N_MOVES - k) for k in range(N_MOVES + 1)]
        per_switch = 9 if space.tera else 8
        self.empty_bench = [(word["<switch>"] + self.blank * per_switch) * (N_SWITCHES - k) for k in range(6)]
        self.player, self.opponent, self.move = word["<player>"], word["<opponent>"], word["<move>"]
        self.conditions = word["<conditions>"]
        self.player_prev, self.opponent_prev = word["<player_prev>"], word["<opp_prev>"]

    def type_words(self, types: str) -> bytes:
        """The two words of a `types` text."""
        found = self.types.get(types)
        if found is None:
            parts = types.split(" ")
            if len(parts) != 2:
                raise BadBattle("types", f"{types!r} is not two words", "drop the file")
            if len(self.types) >= _NAMES_KEPT:
                self.types.clear()
            found = self.types[types] = self.word[parts[0]] + self.word[parts[1]]
        return found

    def format_words(self, name: str, forced: bool) -> bytes:
        """The first two words of a turn."""
        found = self.formats.get((name, forced))
        if found is None:
            if len(self.formats) >= _NAMES_KEPT:
                self.formats.clear()
            found = self.word[f"<{name}>"] + self.word["<forcedswitch>" if forced else "<anychoice>"]
            self.formats[name, forced] = found
        return found

    def new_move(self, raw: bytes) -> tuple[str, bytes, bytes]:
        """Decode one of the own active moves: its name (to sort by), its words and its numbers."""
        move = _decode(_MOVE, raw, "player_active_pokemon.moves")
        word = self.word
        words = self.move + word[move.name] + word[move.move_type]
        if self.space.move_category:
            words += word[move.category]
        values = (move.base_power / 200, move.accuracy, move.priority / 5)
        if self.space.tera:
            share = move.current_pp / move.max_pp if move.max_pp > 0 else 0.0
            values = (*values, (share >= 0.5) + (share >= 0.25) + (share > 0))
        if len(self.moves) >= _MOVES_KEPT:
            self.moves.clear()
        found = self.moves[raw] = (move.name, words, self.move_numbers.pack(*values))
        return found

    def new_bench(self, raw: bytes) -> tuple[str, bytes, float, str, str]:
        """Decode a benched Pokémon: name (to sort by), words, hp, status, base species."""
        pokemon = _decode(_BENCH, raw, "available_switches")
        word = self.word
        words = [word["<switch>"], word[pokemon.name], word[pokemon.item], word[pokemon.ability], word["<moveset>"]]
        words.append(self.names(sorted([move.name for move in pokemon.moves[:N_MOVES]]), N_MOVES))
        if self.space.tera:
            words.append(word[pokemon.tera_type])
        self.type_words(pokemon.types)  # no slot holds them, but a text that is no two types is another schema
        if len(self.bench) >= _BENCH_KEPT:
            self.bench.clear()
        species = pokemon.base_species or base_species_of(pokemon.name)
        found = self.bench[raw] = (pokemon.name, b"".join(words), pokemon.hp_pct, pokemon.status, species)
        return found

    def whole_bench(self, raw: bytes) -> _Bench:
        """Encode the own bench from the raw JSON list of `available_switches`."""
        known = self.bench
        found = []
        for part in _decode(_BENCH_LIST, raw, "available_switches"):
            text = bytes(part)
            found.append(known.get(text) or self.new_bench(text))
        found.sort(key=_BY_NAME)
        count = len(found)
        words = b"".join([pokemon[1] for pokemon in found]) + self.empty_bench[count]
        hp = [pokemon[2] for pokemon in found] + [EMPTY_NUMBER] * (N_SWITCHES - count)
        health: dict[str, Health] = {}
        for _, _, share, status, species in found:
            health.setdefault(species, (share, status))
        return _Bench(words, _BENCH_NUMBERS.pack(*hp), health, count)

    def names(self, names: Iterable[str], places: int) -> bytes:
        """Words of up to `places` names, padded with `<blank>`."""
        packed = b"".join([self.word[name] for name in names])[: 2 * places]
        return packed + self.blank * (places - len(packed) // 2)


class _Walk:
    """One battle from its first state on: what was seen so far, and the rewards and legal sets as they come."""

    def __init__(self, blocks: _Blocks) -> None:
        self._blocks = blocks
        self._bench_raw = b""
        self._bench: _Bench | None = None
        self._before: Facts | None = None
        self._seen: set[str] = set()
        self._seen_words = b""
        self._preview: list[str] | None = None
        self._preview_words = b""
        self._slept = 0.0
        self._frozen = 0.0
        self.team = 0
        self.rewards: list[tuple[float, ...]] = []
        self.choices: list[_Choice] = []

    def add(self, state: LeanState, words: list[bytes], numbers: list[bytes]) -> None:
        """Append the next state's blocks to `words` and `numbers`, and its legal set and reward to this walk's."""
        blocks = self._blocks
        word = blocks.word
        space = blocks.space
        own = state.player_active_pokemon
        other = state.opponent_active_pokemon
        raw = bytes(state.available_switches)
        if raw != self._bench_raw:
            self._bench = blocks.whole_bench(raw)
            self._bench_raw = raw
        bench = self._bench

        found = []
        known = blocks.moves
        for part in own.moves[:N_MOVES]:
            text = bytes(part)
            found.append(known.get(text) or blocks.new_move(text))
        found.sort(key=_BY_NAME)
        n_moves = len(found)

        words.append(blocks.format_words(state.format, state.forced_switch))
        words.append(blocks.player)
        self._active_words(own, words)
        words += [move[1] for move in found]
        words.append(blocks.empty_moves[n_moves])
        words.append(bench.words)
        words.append(blocks.opponent)
        self._active_words(other, words)
        if space.opponent_moves:
            words.append(blocks.names(sorted([move.name for move in other.moves[:N_MOVES]]), N_MOVES))
        words += (
            blocks.conditions,
            word[state.weather],
            word[state.player_conditions],
            word[state.opponent_conditions],
            blocks.player_prev,
            word[state.player_prev_move.name],
            blocks.opponent_prev,
            word[state.opponent_prev_move.name],
        )

        numbers.append(_ONE_NUMBER.pack(state.opponents_remaining))
        numbers.append(_active_numbers(own))
        numbers += [move[2] for move in found]
        numbers.append(blocks.empty_move_numbers[n_moves])
        numbers.append(bench.numbers)
        numbers.append(_active_numbers(other))

        other_species = other.base_species or base_species_of(other.name)
        if space.tera:
            self._add_seen(state, other_species, words, numbers)
        self.choices.append(_CHOICES[n_moves, bench.count, state.forced_switch, state.can_tera])
        after = Facts(
            own.base_species or base_species_of(own.name),
            own.hp_pct,
            own.status,
            bench.health,
            bench.count,
            other_species,
            other.hp_pct,
            other.status,
            state.opponents_remaining,
            state.battle_won,
            state.battle_lost,
        )
        if self._before is None:
            self.team = _team_hash(after)
        else:
            self.rewards.append(transition(self._before, after))
        self._before = after

    def _active_words(self, pokemon: LeanActive | LeanOpponent, words: list[bytes]) -> None:
        word = self._blocks.word
        words += (
            word[pokemon.name],
            word[pokemon.item],
            word[pokemon.ability],
            self._blocks.type_words(pokemon.types),
            word[pokemon.effect],
            word[pokemon.status],
        )
        if self._blocks.space.tera:
            words.append(word[pokemon.tera_type])

    def _add_seen(self, state: LeanState, species: str, words: list[bytes], numbers: list[bytes]) -> None:
        """What was seen of the opponent up to this state, and its team preview."""
        blocks = self._blocks
        if species not in self._seen:
            self._seen.add(species)
            self._seen_words = blocks.names(sorted(self._seen), N_TEAM)
        words.append(self._seen_words)
        if blocks.space.preview:
            preview = state.opponent_teampreview
            if preview != self._preview:
                self._preview = preview
                self._preview_words = blocks.names(sorted(preview), N_TEAM)
            words.append(self._preview_words)
        status = state.opponent_active_pokemon.status
        if status == "slp":
            self._slept = 1.0
        elif status == "frz":
            self._frozen = 1.0
        numbers.append(_END_NUMBERS.pack(self._slept, self._frozen, state.can_tera))


def _active_numbers(pokemon: LeanActive | LeanOpponent) -> bytes:
    return _ACTIVE_NUMBERS.pack(
        pokemon.hp_pct,
        pokemon.lvl,
        pokemon.base_atk,
        pokemon.base_spa,
        pokemon.base_def,
        pokemon.base_spd,
        pokemon.base_spe,
        pokemon.base_hp,
        pokemon.atk_boost,
        pokemon.spa_boost,
        pokemon.def_boost,
        pokemon.spd_boost,
        pokemon.spe_boost,
        pokemon.accuracy_boost,
        pokemon.evasion_boost,
    )


def _team_hash(first: Facts) -> int:
    species = sorted({first.own, *first.bench})
    return int.from_bytes(hashlib.blake2b("\n".join(species).encode(), digest_size=8).digest(), "little")


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
    for part in _decode(_BENCH_LIST, bytes(state.available_switches), "available_switches"):
        team.append(_decode(_BENCH, bytes(part), "available_switches"))
    return len(team) == N_TEAM and all(pokemon.hp_pct == 1.0 and pokemon.status == NO_STATUS for pokemon in team)


def _decode(decoder: msgspec.json.Decoder, raw: bytes, field: str):
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        bad = bad_from_validation(error)
        raise BadBattle(field + bad.field.removeprefix("$"), bad.reason, bad.mend) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadBattle(field, str(error), "fetch or record the file again") from error
    except RecursionError as error:
        raise BadBattle(field, "is nested too deeply", "fetch or record the file again") from error
