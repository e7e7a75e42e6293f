"""A window into the agent's mind: one battle as a page that needs nothing beside it.

    python -m battle.view BATTLE_FILE --checkpoint DIR --out FILE.html

Decision by decision: the field, what was chosen, the policy's probability and Q for every legal action, and the win
chance over the battle. Any file of the battle format will do: recorded, self-played or downloaded. Names of the
players are left out unless `--names` asks for them. What the page looks like and does stands in `battle/page/`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from battle.scene import Benches, Names, action_of, field_of
from battle.web_page import web_page
from data.imports import all_at_once
from data.replay_file import BattleName, iso_date, parse_name, read_battle
from data.report_file import report_file, write_report
from data.schema import BadBattle, BattleRecord, State, legal_actions
from data.terminal import steady_output

if TYPE_CHECKING:
    from battle.agents import TurnwiseAgent
    from battle.decision import Decision

log = logging.getLogger(__name__)
LONG = 0.999  # from this discount on a value is about the result, and can be read as a chance to win


def view_data(
    battle: BattleRecord, decisions: Sequence[Decision], agent: TurnwiseAgent, name: BattleName | None, names: bool
) -> dict[str, Any]:
    """What the page shows, JSON-able: `about`, and per state the field, the actions and what the agent thinks.

    decisions: one for each state. name: what the file's name tells, None where it tells nothing. names: the players'.
    """
    states = battle.states
    write = Names(states[0].format)
    story = Benches(write)
    turns = []
    for t, (state, thought) in enumerate(zip(states, decisions, strict=True)):
        played = battle.actions[t] if t < len(states) - 1 else -1
        turn = field_of(state, write) | story.add(state)
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
                "id": a, **action_of(state, a, write),
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


def view_by(agent: TurnwiseAgent, file: Path, names: bool = False) -> str:
    """The page of a battle file as an agent sees it. names: the players' are shown. Raises BadBattle."""
    battle = read_battle(file)
    try:
        name = parse_name(file)
    except BadBattle:
        name = None  # a renamed file is a battle all the same; the page then says less of it
    decisions = agent.decide_all(battle.states, battle.actions)
    return web_page("view", view_data(battle, decisions, agent, name, names))


def view(
    file: Path, checkpoint: str, gamma: float | None = None, beta: float | None = None, names: bool = False
) -> str:
    """`view_by` a saved model. Raises BadBattle, ValueError, FileNotFoundError."""
    read_battle(file)  # before seconds of imports, which a wrong file need not wait for
    with all_at_once():
        from battle.agents import TurnwiseAgent

    return view_by(TurnwiseAgent.from_pretrained(checkpoint, gamma=gamma, beta=beta), file, names)


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
    if not write_report(arguments.out, page):
        return 1
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
