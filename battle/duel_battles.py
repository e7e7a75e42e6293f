"""Battles of a person against an agent, one after the other, recorded like any other; and what the agent thinks."""

from __future__ import annotations

import argparse
import itertools
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from battle.errors import BattleError
from battle.person import NotAsked, Person
from battle.play import Match, Outcome, play
from battle.players import make_player, parse_player
from battle.recorder import CannotRecord, Recorder, run_id, word
from battle.schedule import seed_of
from battle.simulator import Simulator
from battle.teams import load_teams, pack_file
from battle.view import LONG, view_by
from data.schema import BadBattle

TURN_LIMIT = 1000
LONGEST_NAME = 18  # Showdown's own


class Duel:
    """A person's evening with an agent.

    args: `battle.duel`'s. person: who asks for battles. tally: those won, lost and tied by the person. files: of the
    last one, the person's view first. Raises UnknownPlayer, InvalidTeam, BattleError where the two have one name.
    """

    def __init__(self, args: argparse.Namespace, sim: Simulator):
        self.args, self.sim = args, sim
        spec = parse_player(args.agent)
        self.agent = make_player(spec)
        self.names = (word(args.name), word(spec.label))
        if len(self.names[0]) > LONGEST_NAME:  # a file's name that holds it would be too long, after the battle
            raise BattleError(f"--name {self.names[0]}: give one of at most {LONGEST_NAME} characters")
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
        return {
            "run": self.recorder.run,
            "players": self.names,
            "formats": self.args.formats,
            "coach": self.coach is not None,
        }

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
            lead_rule="chosen",
            leads=(None, None),
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
        if (previews := self.person.previews(version)) is not None:
            return self._of_leads(self.coach.lead_values(previews))
        decision = self.coach.decide(*self.person.so_far(version))
        chance = decision.win_chance if decision.gamma >= LONG else None
        return {
            "best": decision.action,
            "chance": chance,
            "actions": {a: round(p, 4) for a, p in enumerate(decision.probabilities) if p > 0},
        }

    def _of_leads(self, values: list[float]) -> dict[str, Any]:
        gamma = self.coach.gamma
        chances = [self.coach.win_chance(value, gamma) if gamma >= LONG else None for value in values]
        return {
            "best": int(np.argmax(values)),
            "chance": None,
            "actions": {place: round(chance, 4) for place, chance in enumerate(chances) if chance is not None},
        }

    def review(self, side: int) -> str:
        """The page of the last battle from one side, as the agent sees it. Raises NotAsked."""
        if self.coach is None or len(self.files) <= side:
            raise NotAsked("there is no battle to look back on")
        try:
            return view_by(self.coach, self.files[side], names=True)
        except (BadBattle, OSError) as error:
            raise NotAsked(f"the battle cannot be read back: {error}") from error
