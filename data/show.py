"""One battle as text, turn by turn, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .encode import Encoder
from .replay_file import MAX_BYTES, BadBattleFile, decode_full, decode_lean, parse_name, read_json_bytes
from .schema import FIRST_SWITCH, FIRST_TERA, N_MOVES, BadBattle, Pokemon, State
from .tokenizer import Tokenizer

BAR = 12


def show_lines(path: Path, max_bytes: int = MAX_BYTES) -> Iterator[str]:
    """The lines of a battle. Raises `BadBattleFile`."""
    text = read_json_bytes(path, max_bytes)
    try:
        name = parse_name(path)
    except BadBattleFile:
        name = None  # a renamed file is a battle all the same, and less is known of it
    record = decode_full(text, path)
    battle = decode_lean(text, path)
    try:
        encoded = Encoder("default", Tokenizer(())).encode(battle.states, battle.actions)
    except BadBattle as error:
        raise BadBattleFile(path, error.field, error.reason, error.mend) from error
    result = "won" if encoded.won else "lost" if encoded.lost else "cut short: no result"
    if name is None:
        yield f"{record.states[0].format}: {result}"
    else:
        yield f"{name.format}  {name.battle_id}  {name.date}"
        rating = name.rating if name.rated else "unrated"
        yield f"{name.player} ({rating}) against {name.opponent}: {result} (the name says {name.result})"
    if encoded.dropped_tail:
        yield "the last state was the next battle's first: dropped"
    for turn in range(len(encoded)):
        state = record.states[turn]
        yield ""
        yield f"turn {turn}{_field(state)}"
        yield f"  own  {_pokemon(state.player_active_pokemon)}"
        bench = sorted(state.available_switches, key=lambda pokemon: pokemon.name)
        if bench:
            yield "       bench: " + ", ".join(f"{pokemon.name} {pokemon.hp_pct:.0%}" for pokemon in bench)
        yield f"  foe  {_pokemon(state.opponent_active_pokemon)}  ({state.opponents_remaining} left)"
        if turn == len(encoded) - 1:
            break
        forced = " (forced)" if state.forced_switch else ""
        choice = action_words(state, int(encoded.action[turn]))
        reward = encoded.rewards["shaped"][turn]
        yield f"  -> {choice}{forced}  of {int(encoded.legal[turn].sum())} legal; reward {reward:+.2f}"


def action_words(state: State, action: int) -> str:
    """An action id as words: `thunderbolt`, `switch to gengar`, `thunderbolt and terastallize`."""
    if action < 0:
        return "not recorded"
    moves = sorted(state.player_active_pokemon.moves[:N_MOVES], key=lambda move: move.name)
    bench = sorted(state.available_switches, key=lambda pokemon: pokemon.name)
    if FIRST_SWITCH <= action < FIRST_TERA:
        return f"switch to {bench[action - FIRST_SWITCH].name}"
    move = moves[action % FIRST_TERA].name
    return f"{move} and terastallize" if action >= FIRST_TERA else move


def _pokemon(pokemon: Pokemon) -> str:
    full = round(pokemon.hp_pct * BAR)
    parts = [f"{pokemon.name:<14} [{'#' * full}{'.' * (BAR - full)}] {pokemon.hp_pct:4.0%}"]
    if pokemon.status != "nostatus":
        parts.append(pokemon.status)
    if pokemon.effect != "noeffect":
        parts.append(pokemon.effect)
    for boost in ("atk", "spa", "def", "spd", "spe", "accuracy", "evasion"):
        value = getattr(pokemon, f"{boost}_boost")
        if value:
            parts.append(f"{boost}{value:+d}")
    moves = sorted(move.name for move in pokemon.moves)
    return "  ".join(parts) + f"  @ {pokemon.item}  {'/'.join(moves) or 'no move seen'}"


def _field(state: State) -> str:
    parts = [state.weather, state.battle_field, state.player_conditions, state.opponent_conditions]
    labels = ["", "", "own side: ", "foe's side: "]
    said = [label + part for label, part in zip(labels, parts, strict=True) if not part.startswith("no")]
    return "  (" + ", ".join(said) + ")" if said else ""
