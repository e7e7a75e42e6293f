"""Many battles between the baselines, each file read back: `python -m battle.soak --battles 1000 --json report.json`.

What must hold: no void battle, no refused choice, every file valid by the own reader of `data/` with every action
legal in its state, under 0.01% words that the vocabulary does not know.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from battle.errors import BattleError
from battle.interface import Agent
from battle.play import Match, Outcome, play
from battle.players import BASELINES
from battle.recorder import Recorder
from battle.schedule import pair, seed_of
from battle.simulator import Simulator
from battle.stop import Stop, listen
from battle.teams import Team, load_teams
from data.arguments import at_least_one
from data.encode import Encoder
from data.replay_file import parse_name, read_battle
from data.report_file import report_file, write_report
from data.schema import BadBattle
from data.terminal import first_line, steady_output
from data.tokenizer import Tokenizer

FORMATS = ("gen1ou", "gen2ou", "gen3ou", "gen4ou", "gen9ou", "gen9randombattle")
MAX_UNKNOWN = 1e-4


@dataclass
class Findings:
    """Counts over the battles of one format."""

    battles: int = 0
    kinds: collections.Counter = field(default_factory=collections.Counter)
    turns: int = 0
    files: int = 0
    states: int = 0
    words: int = 0
    unknown: int = 0
    refused: list[str] = field(default_factory=list)
    unavailable: int = 0
    invalid: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (self.kinds["void"] or self.refused or self.invalid) and self.unknown <= MAX_UNKNOWN * self.words

    def report(self) -> dict[str, Any]:
        return {
            "battles": self.battles,
            "outcomes": dict(self.kinds),
            "turns_mean": round(self.turns / max(1, self.battles), 1),
            "files": self.files,
            "states": self.states,
            "words": self.words,
            "unknown_words": self.unknown,
            "refused_choices": len(self.refused),
            "choices_made_again": self.unavailable,
            "invalid_files": len(self.invalid),
            "examples": (self.refused + self.invalid)[:5],
            "sound": self.sound,
        }


def matches(battle_format: str, agents: list[Agent], teams: list[Team], battles: int, seed: int) -> Iterator[Match]:
    """Pairs of all agents in turn, sides swapped within a pair."""
    pairings = itertools.cycle(itertools.combinations_with_replacement(agents, 2))
    for number in range((battles + 1) // 2):
        couple = pair(
            f"{number:05d}",
            battle_format,
            next(pairings),
            teams,
            seed_of("soak", seed, battle_format, number),
            lead_rule="random",
        )
        yield from couple[: battles - 2 * number]


def examine(outcome: Outcome, recorder: Recorder, encoder: Encoder, findings: Findings) -> None:
    """Counts an outcome, records it, reads its files back and takes them away again."""
    findings.battles += 1
    findings.kinds[outcome.kind] += 1
    findings.turns += outcome.turns
    findings.refused += [f"{outcome.match.id}: {message}" for message in outcome.refused]
    findings.unavailable += outcome.unavailable
    for path in recorder.record(outcome):
        findings.files += 1
        try:
            parse_name(path)
            battle = read_battle(path)
            encoded = encoder.encode(battle.states, battle.actions)
        except BadBattle as error:
            findings.invalid.append(f"{path.name}: {error}")
            continue
        findings.states += len(battle.states)
        findings.words += encoded.words.size
        findings.unknown += encoded.n_unknown
        path.unlink()


def soak(
    sim: Simulator,
    battle_format: str,
    battles: int,
    out: Path,
    seed: int = 0,
    teams: Path | None = None,
    stop: Stop | None = None,
) -> Findings:
    """Plays `battles` battles of a format between all pairs of baselines, or those until a stop, and examines every
    file."""
    findings = Findings()
    # The opponentmove space holds the words of all the others.
    encoder = Encoder("opponentmove", Tokenizer.load())
    recorder = Recorder(out, run="soak", version=sim.version)
    agents = [make() for make in BASELINES.values()]
    loaded = load_teams(sim, battle_format, teams, strict=teams is None)
    plan = (stop or Stop()).upto(matches(battle_format, agents, loaded, battles, seed))
    for outcome in play(sim, plan, lanes=32, turn_limit=1000):
        examine(outcome, recorder, encoder, findings)
    return findings


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Soak every format asked for and print what was found. Raises BattleError, OSError."""
    report: dict[str, Any] = {}
    with Simulator() as sim, tempfile.TemporaryDirectory() as folder, listen() as stop:
        sim.check_formats(args.formats)
        for battle_format in stop.upto(args.formats):
            started, used = time.monotonic(), os.times()
            findings = soak(sim, battle_format, args.battles, Path(folder), args.seed, args.teams, stop)
            now = os.times()
            report[battle_format] = findings.report() | {
                "seconds": round(time.monotonic() - started, 1),
                "python_cpu_seconds": round(now.user + now.system - used.user - used.system, 1),
            }
            print(json.dumps({battle_format: report[battle_format]}), flush=True)
        report |= {"restarts": sim.restarts, "stopped": stop.asked}
    return report


def main(argv: Sequence[str] | None = None) -> int:
    steady_output()
    parser = argparse.ArgumentParser(prog="python -m battle.soak", description=first_line(__doc__))
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--battles", type=at_least_one, default=1000, help="per format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--teams", type=Path, help="a folder of teams instead of our own")
    parser.add_argument("--json", type=report_file, help="write the report here too")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        report = run(args)
    except (BattleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if report.pop("stopped"):
        print("stopped: these battles were played out, and no others" + (f"; no {args.json}" if args.json else ""))
        return 130
    written = not args.json or write_report(args.json, json.dumps(report, indent=1) + "\n")
    return 0 if written and all(entry["sound"] for entry in report.values() if isinstance(entry, dict)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
