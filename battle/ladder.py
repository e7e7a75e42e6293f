"""Live play on a Showdown server: `python -m battle.ladder --server local --agent CHECKPOINT --format gen9ou …`.

Who goes where, as whom, and whom it plays; the player itself is in `battle/live.py`. `--server local` starts a server
on this machine; a person plays it in a browser at http://localhost:PORT by challenging the agent's name.

A public server is joined only when named in full (`--server wss://…`), with PS_USERNAME and PS_PASSWORD from the
environment; bots there are contested: ask its staff first. Ctrl-C lets the battles under way end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from poke_env import AccountConfiguration, ServerConfiguration

from battle.errors import BattleError
from battle.interface import Agent
from battle.live import LivePlayer
from battle.local_server import LocalServer, listening
from battle.players import make_player, parse_player
from battle.recorder import CannotRecord
from battle.schedule import LEAD_RULES
from battle.simulator import Simulator
from battle.stop import Stop, listen
from battle.teams import load_teams
from data.arguments import at_least_one
from data.terminal import first_line, steady_output

log = logging.getLogger(__name__)

PUBLIC_LOGIN = "https://play.pokemonshowdown.com/action.php?"
PUBLIC_PAUSE = 10.0


def port(text: str) -> int:
    """A port on the command line."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: give a port from 1 to 65535")
    return int(text)


def seconds(text: str) -> float:
    """A wait on the command line."""
    try:
        if 0 <= float(text) < math.inf:  # not NaN
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r}: give a number of seconds, 0 or more")


def as_named(text: str) -> str:
    """A name on the command line as the server writes it, which gathers blanks: another one is not known for ours."""
    return " ".join(text.split())


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m battle.ladder", description=first_line(__doc__))
    made.add_argument("--server", default="local", help="local, or the full ws(s):// address of a server")
    made.add_argument("--port", type=port, default=8000, help="of the local server")
    made.add_argument("--agent", default="type_switch", help="a baseline, or a model's folder with options")
    made.add_argument("--format", default="gen9randombattle")
    made.add_argument("--name", type=as_named, default="Turnwise", help="its name on a server without passwords")
    made.add_argument("--battles", type=at_least_one, default=1)
    made.add_argument("--mode", choices=("accept", "ladder", "challenge"), default="accept")
    made.add_argument("--opponent", help="whom to challenge, or whose challenges alone to accept")
    made.add_argument("--teams", type=Path, help="a folder of teams (default: our own training teams)")
    made.add_argument("--lead", choices=LEAD_RULES, default="first", help="who leads after team preview")
    made.add_argument("--patience", type=seconds, default=300.0, help="seconds to wait for a server that is gone")
    made.add_argument("--out", type=Path, help="write battle files here")
    made.add_argument("--replays", type=Path, help="write replay pages here")
    return made


def address(args: argparse.Namespace) -> tuple[ServerConfiguration, AccountConfiguration]:
    """Where to go and as whom. A public server needs its full address and credentials from the environment."""
    if args.server == "local":
        where = ServerConfiguration(f"ws://127.0.0.1:{args.port}/showdown/websocket", "http://127.0.0.1/")
        return where, AccountConfiguration(args.name, None)
    if not args.server.startswith(("ws://", "wss://")):
        raise BattleError(f"--server {args.server!r}: give `local` or a full address as wss://HOST/showdown/websocket")
    name, password = os.environ.get("PS_USERNAME"), os.environ.get("PS_PASSWORD")
    if not name or not password:
        raise BattleError("a public server: set PS_USERNAME and PS_PASSWORD in the environment")
    print(
        f"Joining {args.server} as {name}. Bots on a public ladder are contested: play there only where its staff and "
        "its rules allow them."
    )
    return ServerConfiguration(args.server, PUBLIC_LOGIN), AccountConfiguration(name, password)


async def go(player: LivePlayer, args: argparse.Namespace) -> None:
    if args.mode == "ladder":
        for number in range(args.battles):
            if number and args.server != "local":
                await asyncio.sleep(PUBLIC_PAUSE)  # no faster than a person would
            await player.seek()
    elif args.mode == "challenge":
        for number in range(1, args.battles + 1):
            await player.challenge(args.opponent, number, again=1.0 if args.server == "local" else 5.0)
    else:
        await player.accept(args.opponent, args.battles)


def live(args: argparse.Namespace, agent: Agent | None = None, stop: Stop | None = None) -> list[str]:
    """Plays as the command line says, by `agent` where one is given, until it is done or told to `stop`; how each
    battle went.

    Raises CannotRecord before the first one where its folders cannot be made, BattleError where the options do not fit
    together."""
    if args.mode == "challenge" and not args.opponent:
        raise BattleError("--mode challenge: name the --opponent")
    if args.mode == "ladder" and args.opponent:
        raise BattleError("--mode ladder: its server chooses whom to play: leave --opponent out, or --mode challenge")
    where, account = address(args)
    for folder in filter(None, (args.out, args.replays)):  # now, and not when the first battle is over
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotRecord(f"{folder}: {error.strerror}: free some space or choose another --out") from error
    agent = agent or make_player(parse_player(args.agent))
    if args.lead == "chosen" and not hasattr(agent, "choose_lead"):
        raise BattleError(f"--lead chosen: {agent.name} chooses no lead: give first or random, or a model as --agent")
    with Simulator() as sim:
        sim.check_formats([args.format])
        player = LivePlayer(
            agent,
            sim,
            load_teams(sim, args.format, args.teams),
            args.out,
            args.replays,
            args.lead,
            args.patience,
            timer=args.mode == "ladder" or args.server != "local",  # strangers; who plays at home may think
            account_configuration=account,
            server_configuration=where,
            battle_format=args.format,
            max_concurrent_battles=4,
        )
        if args.server == "local" and args.mode == "accept":
            print(
                f"{args.name} waits for challenges in {args.format}: open http://localhost:{args.port} and "
                f"/challenge {args.name}, {args.format}"
            )
        elif args.mode == "challenge":
            print(f"{account.username} challenges {args.opponent} in {args.format} until they accept; Ctrl-C ends it")
        try:
            asyncio.run(_play(player, args, stop or Stop()))
        except KeyboardInterrupt:
            log.warning("stopped at once; battles without a result: %d", player.under_way)
    return player.results


async def _play(player: LivePlayer, args: argparse.Namespace, stop: Stop) -> None:
    playing = asyncio.create_task(go(player, args))
    connected = asyncio.wrap_future(player.connection)
    stopping = False
    try:
        while not playing.done():
            await asyncio.wait([playing, connected], timeout=0.2, return_when=asyncio.FIRST_COMPLETED)
            if connected.done():
                connected.result()  # raises what ended it
            if stop.asked and not stopping:
                stopping = True
                log.warning("stopped; battles that are played out: %d; Ctrl-C again ends at once", player.under_way)
                playing.cancel()
                playing = asyncio.create_task(player.play_out())
        await playing
    finally:
        playing.cancel()
        await player.close()


def main(argv: Sequence[str] | None = None) -> int:
    steady_output()
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        own = args.server == "local" and not listening(args.port)
        with listen() as stop, LocalServer(args.port) if own else contextlib.nullcontext():
            results = live(args, stop=stop)
    except (BattleError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({name: results.count(name) for name in ("won", "lost", "tie", "void")}))
    return 130 if stop.asked else 0


if __name__ == "__main__":
    raise SystemExit(main())
