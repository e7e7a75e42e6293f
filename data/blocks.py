"""Parts of a state → words and numbers: a move or a benched Pokémon becomes bytes once, found again by its raw JSON.

Words are uint16 ids; numbers are raw float64, divided by their slots' divisors once a whole battle lies there.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from struct import Struct as Packer
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Raw

from .observation import BLANK, EMPTY_NUMBER, ObservationSpace
from .reward import Health
from .schema import N_MOVES, N_SWITCHES, BadBattle, LeanBench, Move, bad_from_validation, base_species_of
from .tokenizer import Tokenizer

_MOVE_NUMBERS = (Packer("=3d"), Packer("=4d"))
_BENCH_NUMBERS = Packer(f"={N_SWITCHES}d")
ONE_NUMBER = Packer("=d")
_MOVE = msgspec.json.Decoder(Move)
BENCH_LIST = msgspec.json.Decoder(Annotated[list[Raw], Meta(max_length=N_SWITCHES)])
BENCH = msgspec.json.Decoder(LeanBench)
# Bounds on what the caches hold (some MB per process); past them they start afresh.
_MOVES_KEPT = 32_768
_BENCH_KEPT = 8_192
_NAMES_KEPT = 65_536
BY_NAME = itemgetter(0)


class Bench(NamedTuple):
    """The own bench, encoded: words and numbers of all five slots, health by base species, and their count."""

    words: bytes
    numbers: bytes
    health: dict[str, Health]
    count: int


class Blocks:
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
        empty = ONE_NUMBER.pack(EMPTY_NUMBER)
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
        move = decoded(_MOVE, raw, "player_active_pokemon.moves")
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
        pokemon = decoded(BENCH, raw, "available_switches")
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

    def whole_bench(self, raw: bytes) -> Bench:
        """Encode the own bench from the raw JSON list of `available_switches`."""
        known = self.bench
        found = []
        for part in decoded(BENCH_LIST, raw, "available_switches"):
            text = bytes(part)
            found.append(known.get(text) or self.new_bench(text))
        found.sort(key=BY_NAME)
        count = len(found)
        words = b"".join([pokemon[1] for pokemon in found]) + self.empty_bench[count]
        hp = [pokemon[2] for pokemon in found] + [EMPTY_NUMBER] * (N_SWITCHES - count)
        health: dict[str, Health] = {}
        for _, _, share, status, species in found:
            health.setdefault(species, (share, status))
        return Bench(words, _BENCH_NUMBERS.pack(*hp), health, count)

    def names(self, names: Iterable[str], places: int) -> bytes:
        """Words of up to `places` names, padded with `<blank>`."""
        packed = b"".join([self.word[name] for name in names])[: 2 * places]
        return packed + self.blank * (places - len(packed) // 2)


def decoded(decoder: msgspec.json.Decoder, raw: bytes, field: str):
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        bad = bad_from_validation(error)
        raise BadBattle(field + bad.field.removeprefix("$"), bad.reason, bad.mend) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadBattle(field, str(error), "fetch or record the file again") from error
    except RecursionError as error:
        raise BadBattle(field, "is nested too deeply", "fetch or record the file again") from error
