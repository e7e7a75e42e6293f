"""One battle, state by state: each turn in the order of `observation.py`'s slots, its legal set, and the reward of what
led to it."""

from __future__ import annotations

import hashlib
from struct import Struct as Packer
from typing import NamedTuple

import numpy as np

from .blocks import BY_NAME, ONE_NUMBER, Bench, Blocks
from .observation import N_TEAM
from .reward import Facts, transition
from .schema import N_ACTIONS, N_MOVES, N_SWITCHES, LeanActive, LeanOpponent, LeanState, base_species_of, legal_choices

_ACTIVE_NUMBERS = Packer("=15d")
_END_NUMBERS = Packer("=3d")


class Choice(NamedTuple):
    """A legal set: as 13 bytes of 0 and 1, as a set of ids, and whether a switch is forced."""

    row: bytes
    ids: frozenset[int]
    forced: bool


def _choice(n_moves: int, n_switches: int, forced: bool, tera: bool) -> Choice:
    legal = legal_choices(n_moves, n_switches, forced, tera)
    return Choice(legal.tobytes(), frozenset(np.flatnonzero(legal).tolist()), forced)


_CHOICES = {
    (moves, switches, forced, tera): _choice(moves, switches, forced, tera)
    for moves in range(N_MOVES + 1)
    for switches in range(N_SWITCHES + 1)
    for forced in (False, True)
    for tera in (False, True)
}


class Walk:
    """One battle from its first state on: what was seen so far, and the rewards and legal sets as they come."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._bench_raw = b""
        self._bench: Bench | None = None
        self._before: Facts | None = None
        self._seen: set[str] = set()
        self._seen_words = b""
        self._preview: list[str] | None = None
        self._preview_words = b""
        self._slept = 0.0
        self._frozen = 0.0
        self.team = 0
        self.rewards: list[tuple[float, ...]] = []
        self.choices: list[Choice] = []

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
        found.sort(key=BY_NAME)
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

        numbers.append(ONE_NUMBER.pack(state.opponents_remaining))
        numbers.append(_active_numbers(own))
        numbers += [move[2] for move in found]
        numbers.append(blocks.empty_move_numbers[n_moves])
        numbers.append(bench.numbers)
        numbers.append(_active_numbers(other))

        other_species = other.base_species or base_species_of(other.name)
        if space.tera:
            self._add_seen(state, other_species, words, numbers)
        if space.preview:
            self._add_preview(state.opponent_teampreview, words)
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

    def legal_and_forced(self) -> tuple[np.ndarray, np.ndarray]:
        """Legal sets bool [n, 13], and where a switch is forced, bool [n], of the states so far."""
        legal = np.frombuffer(b"".join([choice.row for choice in self.choices]), dtype=bool).reshape(-1, N_ACTIONS)
        return legal, np.array([choice.forced for choice in self.choices], dtype=bool)

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
        """What was seen of the opponent up to this state."""
        blocks = self._blocks
        if species not in self._seen:
            self._seen.add(species)
            self._seen_words = blocks.names(sorted(self._seen), N_TEAM)
        words.append(self._seen_words)
        status = state.opponent_active_pokemon.status
        if status == "slp":
            self._slept = 1.0
        elif status == "frz":
            self._frozen = 1.0
        numbers.append(_END_NUMBERS.pack(self._slept, self._frozen, state.can_tera))

    def _add_preview(self, preview: list[str], words: list[bytes]) -> None:
        if preview != self._preview:
            self._preview = preview
            self._preview_words = self._blocks.names(sorted(preview), N_TEAM)
        words.append(self._preview_words)


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
