"""Self-play recorded for training: a pool of players with weights, battles in the format that `data/` reads.

    python -m battle.selfplay --players a=CKPT:temperature=1.2,weight=2 b=type_switch --formats gen1ou --battles 1000 \
        --out DIR

Which battle is played by whom, with which teams and dice, is a function of the seed and the battle's number, so a run
that was stopped goes on where it was (`selfplay.jsonl` in DIR holds the numbers done). Ctrl-C lets the battles under
way end.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from battle.draft import drafted
from battle.errors import BattleError
from battle.interface import Agent
from battle.journal import Journal, fingerprint, remove_unnoted
from battle.play import TURN_LIMIT, Match, play
from battle.players import PlayerSpec, make_player, parse_players
from battle.recorder import Recorder, claim, open_journal
from battle.schedule import LEAD_RULES, leads, seed_of
from battle.simulator import Simulator
from battle.stop import listen
from battle.teams import Team, load_teams
from data.arguments import at_least_one, none_or_more, share
from data.progress import progress_bar
from data.terminal import first_line, steady_output

log = logging.getLogger(__name__)

JOURNAL = "selfplay.jsonl"


class Pool:
    """The players and what each battle of the run is."""

    def __init__(self, specs: list[PlayerSpec], agents: list[Agent], args: argparse.Namespace):
        self.specs, self.agents, self.args = specs, agents, args
        weights = np.array([spec.weight for spec in specs], dtype=float)
        if (weights <= 0).any():
            raise BattleError("--players: every weight must be above 0")
        self.weights = weights / weights.sum()

    def id_of(self, number: int) -> str:
        return f"{self.args.seed}-{number:07d}"

    def match(self, number: int, teams: dict[str, list[Team]]) -> Match:
        """Battle `number` of the run."""
        battle_format = self.args.formats[number % len(self.args.formats)]
        seed = seed_of("selfplay", self.args.seed, number)
        rng = np.random.default_rng([seed, 2])
        seats = rng.choice(len(self.agents), size=2, p=self.weights)
        ours = teams[battle_format]
        drawn = rng.choice(len(ours), size=2, replace=len(ours) < 2)
        return Match(
            id=self.id_of(number),
            format=battle_format,
            agents=(self.agents[seats[0]], self.agents[seats[1]]),
            seed=seed,
            teams=tuple(ours[i].packed for i in drawn),
            team_names=tuple(ours[i].name for i in drawn),
            explore=(self.args.explore, self.args.explore),
            lead_rule=self.args.lead,
            leads=leads(seed, self.args.lead),
        )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m battle.selfplay", description=first_line(__doc__))
    made.add_argument("--players", nargs="+", required=True, help="[label=]baseline or folder[:temperature=…,weight=…]")
    made.add_argument("--formats", nargs="+", required=True)
    made.add_argument("--battles", type=at_least_one, required=True)
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--teams", type=Path, help="a folder of teams (default: our own training teams)")
    made.add_argument(
        "--draft", type=none_or_more, default=0, help="teams of a format to draft from the sets, beside them"
    )
    made.add_argument("--lead", choices=LEAD_RULES, default="random")
    made.add_argument("--explore", type=share, default=0.0, help="share of decisions made at random among the legal")
    made.add_argument("--lanes", type=at_least_one, default=64)
    made.add_argument("--processes", type=at_least_one, default=1)
    made.add_argument("--turn-limit", type=at_least_one, default=TURN_LIMIT)
    made.add_argument(
        "--level", type=int, choices=range(13), metavar="0–12", default=0, help="lz4 compression: 0 is fast"
    )
    return made


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Plays what is still to be played; a report."""
    specs = parse_players(args.players)
    pool = Pool(specs, [make_player(spec) for spec in specs], args)
    asked = ("players", "formats", "seed", "draft", "lead", "explore", "turn_limit")
    kinds: collections.Counter[str] = collections.Counter()
    wins: collections.Counter[str] = collections.Counter()
    refused = files = 0
    started = time.monotonic()
    with claim(args.out), Simulator(processes=args.processes) as sim, ExitStack() as later:
        sim.check_formats(args.formats)
        teams = {name: load_teams(sim, name, args.teams) for name in args.formats}
        teams = {name: [*ours, *drafted(sim, name, ours, args.draft, args.seed)] for name, ours in teams.items()}
        # Not before: a hundred thousand drafts take hours, and leave nothing to end.
        stop = later.enter_context(listen())
        settings = {key: getattr(args, key) for key in asked} | {"simulator": sim.version}
        journal = Journal(args.out / JOURNAL, fingerprint(settings, teams, pool.agents), "--out")
        done = {note["battle"] for note in journal.notes}
        ids = {pool.id_of(number) for number in done}
        there = set().union(*(remove_unnoted(args.out, name, journal.run, ids) for name in args.formats))
        # One that was given up at team preview, before its first turn, never had files.
        gone = {pool.id_of(note["battle"]) for note in journal.notes if note.get("turns")} - there
        if gone:
            log.warning(
                "%s: counts %d battles as recorded and %d of them have no files there, as after a move: they are not "
                "played again; give a fresh --out to record them anew", journal.path, len(done), len(gone),
            )  # fmt: skip
        recorder = Recorder(args.out, run=journal.run, version=sim.version, level=args.level)
        todo = (n for n in range(args.battles) if n not in done)

        upcoming = (pool.match(number, teams) for number in stop.upto(todo))
        bar = progress_bar(args.battles, done=len(done))
        with bar, open_journal(journal.path) as notes:
            for outcome in play(sim, upcoming, lanes=args.lanes, turn_limit=args.turn_limit):
                files += len(recorder.record(outcome))
                kinds[outcome.kind] += 1
                refused += len(outcome.refused)
                if outcome.winner >= 0:
                    wins[outcome.match.agents[outcome.winner].name] += 1
                # A void battle is not noted: the next run plays it again.
                if outcome.kind != "void":
                    number = int(outcome.match.id.rsplit("-", 1)[1])
                    journal.note(notes, number, kind=outcome.kind, turns=outcome.turns)
                bar.update()
    seconds = time.monotonic() - started
    return {
        "battles": sum(kinds.values()),
        "outcomes": dict(kinds),
        "wins": dict(wins),
        "files": files,
        "refused_choices": refused,
        "stopped": stop.asked,
        "seconds": round(seconds, 1),
        "battles_per_second": round(sum(kinds.values()) / seconds, 2),
    }


def main(argv: Sequence[str] | None = None) -> int:
    steady_output()
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        report = run(args)
    except (BattleError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # before the first battle
        return 130
    print(json.dumps(report))
    return 130 if report["stopped"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
