"""Evaluation by play: `python -m battle.evaluate --agent CHECKPOINT --against all --formats gen1ou --battles 200`.

Battles come in pairs with the same teams and dice and the sides swapped; the teams are the ones kept for evaluation.
Who plays whom: the agents against every opponent, or everybody against everybody with --round-robin. The same seed
gives the same result. Ctrl-C lets the battles under way end and shows what came of those played; with --json the same
command, given again, goes on behind them.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from battle.errors import BattleError
from battle.interface import Agent
from battle.journal import Journal, fingerprint, remove_unnoted, weights_of
from battle.play import TURN_LIMIT, Match, Outcome, play
from battle.players import ALL_BASELINES, make_player, parse_players
from battle.rating import bradley_terry, elo_margins, gxe, wilson
from battle.recorder import Recorder, claim, open_journal, run_id
from battle.schedule import LEAD_RULES, pair, seed_of
from battle.simulator import Simulator
from battle.stop import listen
from battle.teams import Team, load_teams
from data.arguments import at_least_one
from data.progress import progress_bar
from data.report_file import report_file, writable_folder, write_report
from data.terminal import first_line, say, steady_output

JOURNAL = "battles.jsonl"
NOTED = {"battle", "format", "kind", "winner", "turns", "refused"}  # keys of a line of the journal


@dataclass
class Tally:
    """Battles of one player against another in one format, from the first one's chair."""

    wins: int = 0
    losses: int = 0
    ties: int = 0
    void: int = 0
    turns: int = 0
    refused: int = 0

    @property
    def battles(self) -> int:
        return self.wins + self.losses + self.ties

    @property
    def score(self) -> float:
        """Points: a tie, or a battle cut by the turn limit, is half a win for each."""
        return self.wins + self.ties / 2

    @classmethod
    def together(cls, tallies: Iterable[Tally]) -> Tally:
        return cls(*map(sum, zip(*map(astuple, tallies), strict=True)))

    def row(self) -> dict[str, Any]:
        low, high = wilson(self.score, self.battles)
        return {
            "battles": self.battles,
            "wins": self.wins,
            "losses": self.losses,
            "ties": self.ties,
            "void": self.void,
            "win_rate": self.score / self.battles if self.battles else None,
            "interval95": [low, high],
            "turns_mean": self.turns / self.battles if self.battles else None,
            "refused_choices": self.refused,
        }


class Counted:
    """An agent whose decisions and thinking time are counted; everything else is the agent's own."""

    def __init__(self, agent: Agent):
        self.agent = agent
        self.decisions = 0
        self.seconds = 0.0
        self.masses: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.agent, name)

    def choose(self, observations: list) -> list[int]:
        started = time.perf_counter()
        actions = self.agent.choose(observations)
        self.seconds += time.perf_counter() - started
        self.decisions += len(observations)
        self.masses += list(getattr(self.agent, "refused_mass", None) or [])
        return actions


@dataclass
class Arena:
    """The players of an evaluation and what came of it."""

    players: list[Counted]
    tallies: dict[tuple[str, int, int], Tally] = field(default_factory=lambda: collections.defaultdict(Tally))

    def matches(
        self, battle_format: str, couples: list[tuple[int, int]], teams: list[Team], battles: int, seed: int, lead: str
    ) -> Iterator[Match]:
        """Battles of every couple in turn, in pairs with sides swapped."""
        for number, (i, j) in itertools.product(range((battles + 1) // 2), couples):
            # The seed does not depend on who plays: every couple meets the same teams and dice.
            both = pair(
                f"{i}.{j}.{number}",
                battle_format,
                (self.players[i], self.players[j]),
                teams,
                seed_of("evaluate", seed, battle_format, number),
                lead,
            )
            yield from both[: battles - 2 * number]

    def count(self, battle: str, format: str, kind: str, winner: int, turns: int, refused: int) -> None:
        """Of a match by its id, as `facts_of` tells it; refused: how many choices were."""
        i, j, swapped = self.seats(battle)
        tally = self.tallies[format, i, j]
        tally.refused += refused
        if kind == "void":
            tally.void += 1
            return
        tally.turns += turns
        if winner < 0:
            tally.ties += 1
        elif (winner == 0) != swapped:
            tally.wins += 1
        else:
            tally.losses += 1

    @staticmethod
    def seats(match: str) -> tuple[int, int, bool]:
        i, j, number = match.split(".")
        return int(i), int(j), number.endswith("b")

    def report(self, seconds: float) -> dict[str, Any]:
        names = [player.name for player in self.players]
        rows = [
            {"format": battle_format, "player": names[i], "opponent": names[j], **tally.row()}
            for (battle_format, i, j), tally in sorted(self.tallies.items())
        ]
        return {
            "results": rows,
            "over_formats": self.over_formats(names),
            "ratings": self.ratings(names),
            "players": {
                player.name: {
                    "decisions": player.decisions,
                    "decisions_per_second": round(player.decisions / player.seconds, 1) if player.seconds else None,
                    "refused_mass_mean": float(np.mean(player.masses)) if player.masses else None,
                    "weights": weights_of(player.agent),
                }
                for player in self.players
            },
            "seconds": round(seconds, 1),
        }

    def over_formats(self, names: list[str]) -> list[dict[str, Any]]:
        """A row for each couple over all formats; none where one format was played, whose rows say it."""
        if len({battle_format for battle_format, _, _ in self.tallies}) < 2:
            return []
        couples: dict[tuple[int, int], list[Tally]] = {}
        for (_, i, j), tally in self.tallies.items():
            couples.setdefault((i, j), []).append(tally)
        return [
            {"format": "all", "player": names[i], "opponent": names[j], **Tally.together(of).row()}
            for (i, j), of in sorted(couples.items())
        ]

    def ratings(self, names: list[str]) -> dict[str, dict[str, dict[str, float | None]]]:
        """Per format and over all: Elo by Bradley–Terry, the half width of its 95% interval, and GXE within this pool;
        None for who ended no battle."""
        found = {}
        formats = sorted({key[0] for key in self.tallies})
        for label in [*formats, *(["all"] if len(formats) > 1 else [])]:
            scores = np.zeros((len(names), len(names)))
            for (battle_format, i, j), tally in self.tallies.items():
                if label in (battle_format, "all"):
                    scores[i, j] += tally.score
                    scores[j, i] += tally.battles - tally.score
            elo = bradley_terry(scores)
            margins, share = elo_margins(scores, elo), gxe(elo)
            found[label] = {
                name: {"elo": _figure(elo[n], 1), "margin95": _figure(margins[n], 1), "gxe": _figure(share[n], 4)}
                for n, name in enumerate(names)
            }
        return found


def facts_of(outcome: Outcome) -> dict[str, Any]:
    """What an evaluation counts of a battle."""
    return {
        "format": outcome.match.format, "kind": outcome.kind, "winner": outcome.winner, "turns": outcome.turns,
        "refused": len(outcome.refused),
    }  # fmt: skip


def _figure(value: float, digits: int) -> float | None:
    """Rounded; None for NaN, which JSON does not have."""
    return None if np.isnan(value) else round(float(value), digits)


def table(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    lines = [
        f"{'format':18} {'player':20} {'opponent':20} {'battles':>7} {'win rate':>8}  {'95% interval':>14} {'turns':>6}"
    ]
    for row in report["results"] + report["over_formats"]:
        low, high = row["interval95"]
        rate = f"{row['win_rate']:8.1%}" if row["win_rate"] is not None else "       –"
        lines.append(
            f"{row['format']:18} {row['player'][:20]:20} {row['opponent'][:20]:20} {row['battles']:7d} {rate}  "
            f"{low:6.1%}–{high:6.1%} {row['turns_mean'] or 0:6.1f}"
            + (f"  refused {row['refused_choices']}" if row["refused_choices"] else "")
            + (f"  void {row['void']}" if row["void"] else "")
        )
    for label, players in report["ratings"].items():
        rated = {n: r for n, r in players.items() if r["elo"] is not None}
        order = sorted(rated.items(), key=lambda item: -item[1]["elo"])
        said = [f"{n} {r['elo']:.0f} ± {r['margin95']:.0f} (GXE {r['gxe']:.0%})" for n, r in order]
        lines.append(
            f"{label}, Elo ± its 95% margin: " + ", ".join(said + [f"{n} –" for n in players if n not in rated])
        )
    speeds = ((n, p["decisions_per_second"]) for n, p in report["players"].items())
    lines.append("decisions/s: " + ", ".join(f"{n} {s:.0f}" for n, s in speeds if s))
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m battle.evaluate", description=first_line(__doc__))
    made.add_argument("--agent", nargs="+", required=True, help="[label=]baseline or model folder[:temperature=1,…]")
    made.add_argument("--against", nargs="+", default=["all"], help="the same, or `all` baselines")
    made.add_argument("--formats", nargs="+", default=["gen1ou"])
    made.add_argument("--battles", type=at_least_one, default=100, help="per couple and format")
    made.add_argument("--round-robin", action="store_true", help="everybody against everybody")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--teams", type=Path, help="a folder of teams (default: our own evaluation teams)")
    made.add_argument("--lead", choices=LEAD_RULES, default="first", help="who leads after team preview")
    made.add_argument("--lanes", type=at_least_one, default=64, help="battles at a time")
    made.add_argument("--processes", type=at_least_one, default=1, help="Node processes")
    made.add_argument("--turn-limit", type=at_least_one, default=TURN_LIMIT)
    made.add_argument("--json", type=report_file, help="write the report here too")
    made.add_argument(
        "--record", type=writable_folder, help="write battle files of the evaluation here (for looking at)"
    )
    return made


def part_of(report: Path | None) -> Path | None:
    """The folder in which battles are noted until a report is whole; None where none can be kept beside it."""
    if report is None or (report.exists() and not report.is_file()) or not os.access(report.parent, os.W_OK):
        return None
    return report.with_name(f"{report.name}.part")


def begin(
    part: Path, args: argparse.Namespace, arena: Arena, teams: dict[str, list[Team]], version: str
) -> tuple[Journal, dict[tuple[str, str], dict[str, Any]]]:
    """The journal by which a stopped evaluation goes on, and what it tells: (format, match) → note."""
    asked = ("agent", "against", "round_robin", "seed", "lead", "turn_limit")
    settings = {key: getattr(args, key) for key in asked} | {"record": str(args.record), "simulator": version}
    settings["players"] = [player.name for player in arena.players]
    agents = [player.agent for player in arena.players]
    journal = Journal(part / JOURNAL, fingerprint(settings, teams, agents), "--json")
    done = {(note["format"], note["battle"]): note for note in journal.notes if note.keys() == NOTED}
    for battle_format in teams if args.record else ():
        noted = {match for name, match in done if name == battle_format}
        remove_unnoted(args.record, battle_format, journal.run, noted)
    return journal, done


def enter(args: argparse.Namespace) -> tuple[Arena, list[tuple[int, int]]]:
    """The players, and the places of each couple that meets."""
    names = [n for text in args.against for n in (ALL_BASELINES if text == "all" else [text])]
    named = parse_players([*args.agent, *names])
    # Who is named twice, as an agent and among `all` baselines, plays once; its label is its own (see parse_players).
    by_label = {spec.label: spec for spec in named}
    ours = len({spec.label for spec in named[: len(args.agent)]})
    arena = Arena([Counted(make_player(spec)) for spec in by_label.values()])
    if len(arena.players) == 1:  # a player against itself
        arena.players.append(Counted(make_player(named[0])))
        arena.players[1].agent.name = f"{named[0].label}'"
    everybody = list(itertools.combinations(range(len(arena.players)), 2))
    return arena, everybody if args.round_robin else [c for c in everybody if c[0] < ours]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Plays what is still to be played; a report of all."""
    # One named twice would have its battles played and counted twice, dice and all.
    formats = list(dict.fromkeys(args.formats))
    arena, couples = enter(args)
    started, failure, part = time.monotonic(), "", part_of(args.json)
    with ExitStack() as held, Simulator(processes=args.processes) as sim, listen() as stop:
        sim.check_formats(formats)
        # All of them now: teams that one format lacks shall not cost the battles of those before it.
        teams = {name: load_teams(sim, name, args.teams, purpose="evaluation") for name in formats}
        asked = (args.battles, args.seed, args.lead)
        plans = {name: list(arena.matches(name, couples, teams[name], *asked)) for name in formats}
        if part:  # not before: a command that is refused leaves nothing beside the report
            held.enter_context(claim(part))
        journal, done = begin(part, args, arena, teams, sim.version) if part else (None, {})
        recorder = None
        if args.record:
            recorder = Recorder(args.record, run=journal.run if journal else run_id(), version=sim.version)
        before = [done[name, match.id] for name, plan in plans.items() for match in plan if (name, match.id) in done]
        for note in before:
            arena.count(**note)
        bar = progress_bar(sum(map(len, plans.values())), done=len(before))
        with bar, open_journal(journal.path) if journal else nullcontext() as notes:
            for battle_format in formats:
                todo = (match for match in plans[battle_format] if (battle_format, match.id) not in done)
                try:
                    for outcome in play(sim, stop.upto(todo), lanes=args.lanes, turn_limit=args.turn_limit):
                        if recorder:
                            recorder.record(outcome)
                        facts = facts_of(outcome)
                        arena.count(outcome.match.id, **facts)
                        # A void battle is not noted: the next start plays it again.
                        if journal and outcome.kind != "void":
                            journal.note(notes, outcome.match.id, **facts)
                        bar.update()
                except (BattleError, OSError, ValueError) as error:  # hours of battles may lie before it
                    failure = str(error) or type(error).__name__
                    break
        version = sim.version
    report = arena.report(time.monotonic() - started)
    report |= {"formats": formats, "battles": args.battles, "seed": args.seed, "lead": args.lead, "simulator": version}
    if before:  # of earlier starts; seconds and decisions are this one's
        report["battles_before"] = len(before)
    report |= {"stopped": stop.asked, "failure": failure}
    return report


def main(argv: Sequence[str] | None = None) -> int:
    steady_output()
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        report = run(args)
    except (BattleError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    text = table(report)
    stopped, failure = report.pop("stopped"), report.pop("failure")
    # Where a report is looked for, a part of one would pass for the whole.
    part = part_of(args.json)
    missing = f"; no {args.json}{' yet: the same command goes on' if part else ''}" if args.json else ""
    written = True
    if args.json and not failure and not stopped:  # before a word is said, which a full disk could refuse
        written = write_report(args.json, json.dumps(report, indent=1) + "\n")
        if written and part:
            shutil.rmtree(part, ignore_errors=True)
    say(text)
    if failure:
        print(f"error: {failure}: these battles were played before, and no others{missing}", file=sys.stderr)
        return 1
    if stopped:
        print(f"stopped: these battles were played out, and no others{missing}")
        return 130
    return 0 if written else 1


if __name__ == "__main__":
    raise SystemExit(main())
