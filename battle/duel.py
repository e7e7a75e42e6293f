"""You against an agent, in a browser on this machine: nothing is fetched from anywhere else.

    python -m battle.duel --agent battle/starter --formats gen1ou gen9ou --out runs/duel

The page shows the field, what happened and what you may do. A model can be asked what it would do in your place, and
shows afterwards what it thought of your choices and of its own. Every battle is recorded like any other, from both
sides. Ctrl-C ends the command.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from battle.duel_server import serving
from battle.errors import BattleError
from battle.person import NotAsked, Person
from battle.play import Match, Outcome, play
from battle.players import make_player, parse_player
from battle.recorder import CannotRecord, Recorder, run_id, word
from battle.schedule import seed_of
from battle.simulator import Simulator
from battle.teams import load_teams, pack_file
from battle.view import LONG, view_by
from data.terminal import first_line, steady_output

FORMATS = ("gen1ou", "gen2ou", "gen3ou", "gen4ou", "gen9ou", "gen1randombattle", "gen4randombattle", "gen9randombattle")
TURN_LIMIT = 1000


class Duel:
    """Battles of a person against an agent, one after the other.

    person: asks for them. tally: battles won, lost and tied by the person.
    """

    def __init__(self, args: argparse.Namespace, sim: Simulator):
        self.args, self.sim = args, sim
        spec = parse_player(args.agent)
        self.agent = make_player(spec)
        self.names = (word(args.name), word(spec.label))
        if self.names[0] == self.names[1]:
            raise BattleError(f"--name {self.names[0]}: the agent is called so, too: give yourself another name")
        self.person = Person(self.names[0])
        self.recorder = Recorder(args.out, run=run_id(), version=sim.version)
        self.seed = secrets.randbits(62) if args.seed is None else args.seed
        self.tally = [0, 0, 0]
        self.files: list[Path] = []
        self.team = pack_file(sim, args.formats[0], args.team) if args.team else None

    @property
    def coach(self) -> Any:
        """The agent, where it is one that can tell what it thinks; else None."""
        return self.agent if hasattr(self.agent, "decide") else None

    def about(self) -> dict[str, Any]:
        """What does not change while the page is open."""
        return {"players": self.names, "formats": self.args.formats, "coach": self.coach is not None}

    def run(self) -> None:
        """Battles as the person asks for them, until interrupted."""
        for number in itertools.count():
            self.battle(number, self.person.wish())

    def battle(self, number: int, battle_format: str) -> None:
        """One battle; whatever became of it is said on the page."""
        try:
            match = self.match(number, battle_format)
        except BattleError as error:
            self.person.idle(result="void", note=str(error), tally=self.tally, review=False)
            return
        (outcome,) = play(self.sim, [match], turn_limit=TURN_LIMIT)
        note = outcome.message
        try:
            self.files = self.recorder.record(outcome, self.names)
        except CannotRecord as error:
            self.files, note = [], str(error)
        states = outcome.views[0].states
        self.person.idle(
            states[-1] if states else None, outcome.lines[0], result=self.result(outcome), note=note, tally=self.tally,
            review=bool(self.files) and self.coach is not None,
        )  # fmt: skip

    def match(self, number: int, battle_format: str) -> Match:
        """Battle `number` of the seed: teams that no agent was recorded with, drawn, or the person's own."""
        seed = seed_of("duel", self.seed, number)
        teams = load_teams(self.sim, battle_format, self.args.teams, purpose="evaluation")
        mine, its = np.random.default_rng([seed, 1]).choice(len(teams), size=2, replace=len(teams) < 2)
        drawn = (self.team or teams[mine], teams[its])
        return Match(
            id=str(number),
            format=battle_format,
            agents=(self.person, self.agent),
            seed=seed,
            teams=tuple(team.packed for team in drawn),
            team_names=tuple(team.name for team in drawn),
            names=self.names,
        )

    def result(self, outcome: Outcome) -> str:
        """won, lost, tie, cut or void, from the person's side; counted."""
        result = outcome.kind if outcome.winner < 0 else "won" if outcome.winner == 0 else "lost"
        counted = {"won": 0, "lost": 1, "tie": 2}
        if result in counted:
            self.tally[counted[result]] += 1
        return result

    def thoughts(self, version: int) -> dict[str, Any]:
        """What the agent would do in the person's place. Raises NotAsked."""
        if self.coach is None:
            raise NotAsked(f"{self.names[1]} is no model: it cannot tell what it thinks")
        decision = self.coach.decide(*self.person.so_far(version))
        chance = decision.win_chance if decision.gamma >= LONG else None
        return {
            "best": decision.action,
            "chance": chance,
            "actions": {a: round(p, 4) for a, p in enumerate(decision.probabilities) if p > 0},
        }

    def review(self, side: int) -> str:
        """The page of the last battle from one side, as the agent sees it. Raises NotAsked."""
        if self.coach is None or len(self.files) <= side:
            raise NotAsked("there is no battle to look back on")
        return view_by(self.coach, self.files[side], names=True)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m battle.duel", description=first_line(__doc__))
    made.add_argument("--agent", default="battle/starter", help="a saved model's folder, a run's, or a baseline")
    made.add_argument("--formats", nargs="+", default=list(FORMATS), help="formats to choose from on the page")
    made.add_argument("--out", type=Path, required=True, help="where the battles are recorded")
    made.add_argument("--name", default="Player", help="yours, in the battles and their files")
    made.add_argument("--team", type=Path, help="your own team's file, for the one format given")
    made.add_argument("--teams", type=Path, help="a folder of teams to draw from (default: our own evaluation teams)")
    made.add_argument("--port", type=int, default=8765)
    made.add_argument("--seed", type=int, help="fixes teams and dice")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    steady_output()
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        if args.team and len(args.formats) != 1:
            raise BattleError("--team: it is of one format: give that as --formats")
        with Simulator() as sim:
            sim.check_formats(args.formats)
            duel = Duel(args, sim)
            with serving(duel, args.port) as address:
                print(f"you against {duel.names[1]}: open {address} in a browser (Ctrl-C ends)", flush=True)
                try:
                    duel.run()
                except KeyboardInterrupt:
                    won, lost, tied = duel.tally
                    print(f"\nwon {won}, lost {lost}, tied {tied}; the battles are in {args.out}")
    except (BattleError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
