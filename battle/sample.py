"""The battles that the repository brings along: `python -m battle.sample --out data/sample`.

The better baselines with our own training teams, both views of each battle; the same command writes the same files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from battle.baselines import MostDamageAgent, TypeSwitchAgent
from battle.errors import BattleError
from battle.play import play
from battle.recorder import Recorder
from battle.schedule import pair, seed_of
from battle.simulator import Simulator
from battle.teams import load_teams
from data.terminal import first_line, steady_output

FORMATS = ("gen1ou", "gen2ou", "gen3ou", "gen4ou", "gen9ou")


def main(argv: Sequence[str] | None = None) -> int:
    steady_output()
    parser = argparse.ArgumentParser(prog="python -m battle.sample", description=first_line(__doc__))
    parser.add_argument("--out", type=Path, default=Path("data/sample"))
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--pairs", type=int, default=10, help="pairs of battles per format, four files each")
    parser.add_argument("--turns", type=int, default=80, help="longest battle kept")
    try:
        make(parser.parse_args(argv))
    except (BattleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def make(args: argparse.Namespace) -> None:
    """Plays, and writes the files in the place of those of before. Raises BattleError, OSError."""
    strong, plain = TypeSwitchAgent(), MostDamageAgent()
    files = size = 0
    with Simulator() as sim:
        recorder = Recorder(args.out, run="sample", version=sim.version, date="11-22-2026", level=12)
        for battle_format in FORMATS:
            # Those of before, and nobody else's.
            for path in (args.out / battle_format).glob(f"{battle_format}-{recorder.run}-*"):
                path.unlink()
            teams = load_teams(sim, battle_format)
            kept = 0
            for number in range(20 * args.pairs):
                seed = seed_of("sample", args.seed, battle_format, number)
                # Every fourth pair against the plain hitter, so that both wins and losses of either kind are there.
                agents = (strong, plain if number % 4 == 3 else strong)
                matches = pair(f"{number:03d}", battle_format, agents, teams, seed, lead_rule="random")
                outcomes = sorted(play(sim, matches[: 1 if agents[0] is agents[1] else 2]), key=lambda o: o.match.id)
                if any(o.kind != "won" or o.turns > args.turns for o in outcomes):
                    continue
                for outcome in outcomes:
                    written = recorder.record(outcome)
                    files, size = files + len(written), size + sum(path.stat().st_size for path in written)
                kept += len(outcomes)
                if kept >= 2 * args.pairs:
                    break
    print(f"{files} files, {size / 1e6:.2f} MB in {args.out}")


if __name__ == "__main__":
    raise SystemExit(main())
