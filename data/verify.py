"""Checks battle files against the format, more strictly than the loader: every key, every word, every rule."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .encode import Encoder
from .replay_file import MAX_BYTES, decode_full, decode_lean, parse_name, read_json_bytes
from .schema import BadBattle, BattleRecord, Move, Pokemon, State
from .token_cache import VOCABULARY, TokenCache
from .tokenizer import Tokenizer

STATUSES = frozenset(["nostatus", "brn", "par", "psn", "tox", "slp", "frz", "fnt"])
CATEGORIES = frozenset(["physical", "special", "status", "nomove"])
_WORD = re.compile(r"[a-z0-9]+", re.ASCII)
# Old files keep a forme's hyphen.
_SPECIES = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)


class Finding(NamedTuple):
    """A file at fault: which, the field, and why."""

    path: str
    field: str
    reason: str


def verify_files(paths: Sequence[str], max_bytes: int = MAX_BYTES) -> list[Finding | None]:
    """The first fault of each file, or none where it is sound."""
    return [verify_file(path, max_bytes) for path in paths]


def verify_file(path: str | Path, max_bytes: int = MAX_BYTES) -> Finding | None:
    """The first fault of a file, or none where it is sound."""
    try:
        name = parse_name(path)
        text = read_json_bytes(path, max_bytes)
        record = decode_full(text, path)
        battle = decode_lean(text, path)
        encoded = Encoder("opponentmove", Tokenizer(())).encode(battle.states, battle.actions)
        # What the encoder drops is another battle's: only this battle's states are held to its rules.
        own = BattleRecord(record.states[: len(encoded)], record.actions)
        for field, reason in _faults(own):
            return Finding(str(path), field, reason)
    except BadBattle as error:
        return Finding(str(path), error.field, error.reason)
    if record.states[0].format != name.format:
        return Finding(
            str(path), "states[0].format", f"is {record.states[0].format!r}, the folder says {name.format!r}"
        )
    if (encoded.won and name.result == "LOSS") or (encoded.lost and name.result == "WIN"):
        return Finding(str(path), "name.result", f"is {name.result}, the last state says otherwise")
    return None


def verify_cache(path: Path) -> Iterator[Finding]:
    """Vocabulary, index and every shard of a token cache, where they aren't what its manifest says (of the index an
    older one says nothing). Raises `DataError`: no readable cache there; `ValueError`: a vocabulary that is none."""
    manifest = TokenCache(path).manifest
    words = Tokenizer.load(path / VOCABULARY).hash
    if words != manifest["vocabulary"]:
        yield Finding(
            str(path / VOCABULARY), "vocabulary", f"is {words[:12]}, the manifest says {manifest['vocabulary'][:12]}"
        )
    for shard in [*([manifest["index"]] if "index" in manifest else []), *manifest["shards"]]:
        file = path / shard["file"]
        try:
            with open(file, "rb") as source:
                digest = hashlib.file_digest(source, "sha256").hexdigest()
        except OSError as error:
            yield Finding(str(file), "file", f"cannot be read ({error.strerror})")
            continue
        if digest != shard["sha256"]:
            yield Finding(str(file), "sha256", f"is {digest[:12]}, the manifest says {shard['sha256'][:12]}")


def _faults(record: BattleRecord) -> Iterator[tuple[str, str]]:
    first = record.states[0]
    for turn, state in enumerate(record.states):
        for field, reason in _state_faults(state):
            yield f"states[{turn}].{field}", reason
        if state.format != first.format:
            yield f"states[{turn}].format", f"is {state.format!r}, the first state's is {first.format!r}"


def _state_faults(state: State) -> Iterator[tuple[str, str]]:
    for key in ("format", "player_conditions", "opponent_conditions", "weather", "battle_field"):
        if not _WORD.fullmatch(getattr(state, key)):
            yield key, f"{getattr(state, key)!r} is no word of lower-case letters and digits"
    for key in ("player_prev_move", "opponent_prev_move"):
        for field, reason in _move_faults(getattr(state, key)):
            yield f"{key}.{field}", reason
    for key in ("player_active_pokemon", "opponent_active_pokemon"):
        for field, reason in _pokemon_faults(getattr(state, key)):
            yield f"{key}.{field}", reason
    for place, pokemon in enumerate(state.available_switches):
        for field, reason in _pokemon_faults(pokemon):
            yield f"available_switches[{place}].{field}", reason
    for place, species in enumerate(state.opponent_teampreview):
        if not _SPECIES.fullmatch(species):
            yield f"opponent_teampreview[{place}]", f"{species!r} is no species' name"
    if len(state.opponent_teampreview) > 6:
        yield "opponent_teampreview", f"holds {len(state.opponent_teampreview)} species"


def _pokemon_faults(pokemon: Pokemon) -> Iterator[tuple[str, str]]:
    for key in ("item", "ability", "effect", "tera_type"):
        if not _WORD.fullmatch(getattr(pokemon, key)):
            yield key, f"{getattr(pokemon, key)!r} is no word of lower-case letters and digits"
    for key in ("name", "base_species"):
        if not _SPECIES.fullmatch(getattr(pokemon, key)):
            yield key, f"{getattr(pokemon, key)!r} is no species' name"
    if pokemon.status not in STATUSES:
        yield "status", f"{pokemon.status!r} is none of {', '.join(sorted(STATUSES))}"
    types = pokemon.types.split(" ")
    # That they are two the encoder has seen to.
    if types != sorted(types) or not all(map(_WORD.fullmatch, types)):
        yield "types", f"{pokemon.types!r} is not two words in alphabetical order"
    for place, move in enumerate(pokemon.moves):
        for field, reason in _move_faults(move):
            yield f"moves[{place}].{field}", reason


def _move_faults(move: Move) -> Iterator[tuple[str, str]]:
    for key in ("name", "move_type"):
        if not _WORD.fullmatch(getattr(move, key)):
            yield key, f"{getattr(move, key)!r} is no word of lower-case letters and digits"
    if move.category not in CATEGORIES:
        yield "category", f"{move.category!r} is none of {', '.join(sorted(CATEGORIES))}"
