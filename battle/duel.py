"""You against an agent, in a browser on this machine: nothing is fetched from anywhere else.

    python -m battle.duel --agent battle/starter --formats gen1ou gen9ou --out runs/duel

The page shows the field, what happened and what you may do. A model can be asked what it would do in your place, and
shows afterwards what it thought of your choices and of its own. Every battle is recorded like any other, from both
sides. Ctrl-C ends the command.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from battle.duel_battles import Duel
from battle.duel_server import serving
from battle.errors import BattleError
from battle.recorder import claim
from battle.simulator import Simulator
from data.terminal import first_line, steady_output

FORMATS = ("gen1ou", "gen2ou", "gen3ou", "gen4ou", "gen9ou", "gen1randombattle", "gen4randombattle", "gen9randombattle")


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
        with claim(args.out), Simulator() as sim:  # a folder that takes no files is told before a battle, not after
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
    except KeyboardInterrupt:  # while all that was still loading
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
