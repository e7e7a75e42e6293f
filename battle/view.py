"""A window into the agent's mind: one battle as a page that needs nothing beside it.

    python -m battle.view BATTLE_FILE --checkpoint DIR --out FILE.html

Decision by decision: the field, what was chosen, the policy's probability and Q for every legal action, and the win
chance over the battle. Any file of the battle format will do: recorded, self-played or downloaded. Names of the
players are left out unless `--names` asks for them. What the page looks like and does stands in `battle/page/`.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.replay_file import BattleName, iso_date, parse_name, read_battle
from data.report_file import report_file
from data.schema import FIRST_SWITCH, FIRST_TERA, N_MOVES, BadBattle, BattleRecord, Pokemon, State, legal_actions
from data.terminal import steady_output

if TYPE_CHECKING:
    from battle.agents import Decision, TurnwiseAgent

log = logging.getLogger(__name__)
PAGE = Path(__file__).parent / "page"
LONG = 0.999  # from this discount on a value is about the result, and can be read as a chance to win
BOOSTS = ("atk", "def", "spa", "spd", "spe", "accuracy", "evasion")
_NOTHING = {
    "noweather", "nofield", "noconditions", "noeffect", "nostatus", "nomove", "notype", "noability", "unknownability",
    "noitem", "unknownitem", "",
}  # fmt: skip
_ITEM_ENDS = re.compile(
    "(?<=[a-z]{3})(band|scarf|specs|boots|orb|berry|sash|vest|helmet|balloon|glasses|plate|club|gem|herb|rock|claw|"
    "policy|goggles|cloak|dice|mask|energy|powder|lens|belt|button|root|seed|pack|coat|water|magnet|spoon)$"
)


class Names:
    """Names as people write them ("ironvaliant" → "Iron Valiant"), where the game's data of the format knows them."""

    def __init__(self, battle_format: str):
        from poke_env.data import GenData  # here: it takes a while to import, and only pages need it

        digit = battle_format[3:4]
        data = GenData.from_gen(int(digit) if digit.isdigit() and digit != "0" else 9)
        self._known = {name: entry["name"] for name, entry in data.pokedex.items() if "name" in entry}
        for entry in data.pokedex.values():
            for ability in entry.get("abilities", {}).values():
                self._known.setdefault(re.sub("[^a-z]", "", ability.lower()), ability)
        self._known |= {name: entry["name"] for name, entry in data.moves.items() if "name" in entry}

    def __call__(self, name: str) -> str:
        """Empty for the words that stand for nothing."""
        if name in _NOTHING:
            return ""
        return self._known.get(name) or _ITEM_ENDS.sub(r" \1", name).title()


def view_data(
    battle: BattleRecord, decisions: Sequence[Decision], agent: TurnwiseAgent, name: BattleName | None, names: bool
) -> dict[str, Any]:
    """What the page shows, JSON-able: `about`, and per state the field, the actions and what the agent thinks.

    decisions: one for each state. name: what the file's name tells, None where it tells nothing. names: the players'.
    """
    states = battle.states
    write = Names(states[0].format)
    story = _Benches(write)
    turns = []
    for t, (state, thought) in enumerate(zip(states, decisions, strict=True)):
        played = battle.actions[t] if t < len(states) - 1 else -1
        turn = _field(state, write) | story.add(state)
        turn |= _thoughts(state, thought, played, agent, write, last=t == len(states) - 1)
        turns.append(turn)
    judged = [turn["agrees"] for turn in turns if turn["agrees"] is not None]
    return {
        "about": {
            "format": states[0].format,
            "result": "won" if states[-1].battle_won else "lost" if states[-1].battle_lost else "no result",
            "date": iso_date(name.date) if name else "",
            "players": [name.player, name.opponent] if name and names else ["Player", "Opponent"],
            "agent": Path(agent.name).resolve().name if Path(agent.name).exists() else agent.name,
            "gamma": agent.gamma,
            "beta": agent.beta,
            "agreed": [sum(judged), len(judged)],
        },
        "gammas": [
            {"gamma": gamma, "calibrated": gamma >= LONG and agent.win_chance(0.0, gamma) is not None}
            for gamma in decisions[0].values
        ],
        "turns": turns,
    }


def _thoughts(
    state: State, thought: Decision, played: int, agent: TurnwiseAgent, write: Names, last: bool
) -> dict[str, Any]:
    """What the agent makes of a state: per legal action probability and Q; value or win chance per discount."""
    legal = [] if last else [a for a, allowed in enumerate(legal_actions(state)) if allowed]
    legal = [a for a in legal if a < len(thought.probabilities)]
    if 0 <= played < len(thought.probabilities) and played not in legal:
        legal.append(played)  # a file may hold what the state alone does not allow: it is shown all the same
    best = max(legal, key=lambda a: thought.probabilities[a], default=-1)
    curve = []
    for gamma, value in thought.values.items():
        chance = agent.win_chance(value, gamma) if gamma >= LONG else None
        curve.append(round(value, 3) if chance is None else round(chance, 4))
    return {
        "actions": [
            {
                "id": a, **_action(state, a, write),
                "p": round(thought.probabilities[a], 4), "q": round(thought.q_values[a], 2),
            }
            for a in legal
        ],
        "played": played,
        "best": best,
        "agrees": None if played < 0 or len(legal) < 2 else played == best,
        "value": round(thought.values[thought.gamma], 2),
        "curve": curve,
    }  # fmt: skip


def _action(state: State, action: int, write: Names) -> dict[str, Any]:
    """An action by what it is: its kind, name, and what is known of the move or the Pokémon that comes in.

    Kind "other", named by its id, where the state has no such slot.
    """
    switch, tera = FIRST_SWITCH <= action < FIRST_TERA, action >= FIRST_TERA
    found = state.available_switches if switch else state.player_active_pokemon.moves[:N_MOVES]
    slot = action - (FIRST_SWITCH if switch else FIRST_TERA if tera else 0)
    if slot >= len(found):
        return {"kind": "other", "name": f"action {action}", "types": []}
    chosen = sorted(found, key=lambda choice: choice.name)[slot]
    if switch:
        return {"kind": "switch", "name": write(chosen.name), "types": _types(chosen), "hp": chosen.hp_pct}
    return {
        "kind": "tera" if tera else "move",
        "name": write(chosen.name),
        "types": [chosen.move_type],
        "power": chosen.base_power,
    }


def _field(state: State, write: Names) -> dict[str, Any]:
    """Both active Pokémon, and what lies on the field."""
    return {
        "me": _pokemon(state.player_active_pokemon, write),
        "foe": _pokemon(state.opponent_active_pokemon, write),
        "left": state.opponents_remaining,
        "field": [write(word) for word in (state.weather, state.battle_field) if word not in _NOTHING],
        "sides": [write(state.player_conditions), write(state.opponent_conditions)],
        "moved": [write(state.player_prev_move.name), write(state.opponent_prev_move.name)],
        "forced": state.forced_switch,
    }


def _pokemon(pokemon: Pokemon, write: Names) -> dict[str, Any]:
    boosts = {stat: getattr(pokemon, f"{stat}_boost") for stat in BOOSTS}
    return {
        "name": write(pokemon.name),
        "hp": round(pokemon.hp_pct, 4),
        "status": "" if pokemon.status in _NOTHING else pokemon.status,
        "types": _types(pokemon),
        "tera": "" if pokemon.tera_type in _NOTHING else pokemon.tera_type,
        "level": pokemon.lvl,
        "item": write(pokemon.item),
        "ability": write(pokemon.ability),
        "effect": write(pokemon.effect),
        "boosts": {stat: stage for stat, stage in boosts.items() if stage},
        "moves": [write(move.name) for move in pokemon.moves[:N_MOVES]],
    }


def _types(pokemon: Pokemon) -> list[str]:
    return [kind for kind in pokemon.types.split() if kind not in _NOTHING]


class _Benches:
    """Both teams as they become known: the own bench from each state, the opponent's from who was seen."""

    def __init__(self, write: Names):
        self.write = write
        self.own: dict[str, dict[str, Any]] = {}
        self.seen: dict[str, dict[str, Any]] = {}

    def add(self, state: State) -> dict[str, Any]:
        active, foe = state.player_active_pokemon, state.opponent_active_pokemon
        here = {pokemon.base_species: self._brief(pokemon) for pokemon in state.available_switches}
        self.own |= here | {active.base_species: self._brief(active)}
        self.seen[foe.base_species] = self._brief(foe)
        bench = [
            # Who is known and cannot come in is down, or held back (a trap).
            {**brief, "out": species not in here}
            for species, brief in self.own.items()
            if species != active.base_species
        ]
        foes = [{**brief} for species, brief in self.seen.items() if species != foe.base_species]
        return {"bench": bench, "foes": foes}

    def _brief(self, pokemon: Pokemon) -> dict[str, Any]:
        return {
            "name": self.write(pokemon.name),
            "hp": round(pokemon.hp_pct, 4),
            "status": "" if pokemon.status in _NOTHING else pokemon.status,
        }


def page_of(data: dict[str, Any]) -> str:
    """The page as one text: template, style, script and data, nothing fetched."""
    parts = {name: (PAGE / f"view.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    # Nothing in the data may end the script element that holds it.
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    page = parts["html"]
    for mark, content in (("/*css*/", parts["css"]), ("/*js*/", parts["js"]), ("/*data*/", text)):
        page = page.replace(mark, content)
    return page


def view(
    file: Path, checkpoint: str, gamma: float | None = None, beta: float | None = None, names: bool = False
) -> str:
    """The page of a battle file as an agent sees it. Raises BadBattle, ValueError, FileNotFoundError."""
    battle = read_battle(file)
    from battle.agents import TurnwiseAgent  # here: seconds of imports, which a wrong file need not wait for

    agent = TurnwiseAgent.from_pretrained(checkpoint, gamma=gamma, beta=beta)
    try:
        name = parse_name(file)
    except BadBattle:
        name = None  # a renamed file is a battle all the same; the page then says less of it
    decisions = agent.decide_all(battle.states, battle.actions)
    return page_of(view_data(battle, decisions, agent, name, names))


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page of a battle as an agent sees it, decision by decision."""
    steady_output()
    parser = argparse.ArgumentParser(prog="python -m battle.view", description=main.__doc__)
    parser.add_argument("battle", type=Path, help="a battle file, .json.lz4 or .json")
    parser.add_argument("--checkpoint", required=True, help="a saved model's folder, a run's, or a name on the Hub")
    parser.add_argument("--out", type=report_file, required=True, help="the page to write, .html")
    parser.add_argument("--gamma", type=float, help="whose policy and Q are shown (default: the model's)")
    parser.add_argument("--beta", type=float, help="how far the policy leans on its critics (default: the model's)")
    parser.add_argument("--names", action="store_true", help="show the players' names")
    arguments = parser.parse_args(argv)
    try:
        page = view(arguments.battle, arguments.checkpoint, arguments.gamma, arguments.beta, arguments.names)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        arguments.out.write_text(page, encoding="utf-8")
    except OSError as error:
        print(f"error: {arguments.out}: {error.strerror}: free some space or choose another --out", file=sys.stderr)
        return 1
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
