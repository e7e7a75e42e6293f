"""A Showdown server on this machine, for people and for live play: started from the npm package, stopped with us."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import subprocess
import time
from pathlib import Path

from battle.errors import BattleError
from battle.node_process import ROOM, node_command, refuse_old_node

log = logging.getLogger(__name__)

PACKAGE = ROOM / "node_modules" / "pokemon-showdown"
LEASH = ROOM / "node" / "leash.js"
FOLDERS = ("logs/repl", "logs/chat", "logs/modlog", "config/chat-plugins", "databases")
# This machine alone; one process, no database, no debugging sockets, no throttling of the bots that play here.
CONFIG = """\
exports.bindaddress = '127.0.0.1';
exports.usesqlite = false;
exports.repl = false;
exports.subprocesses = 0;
exports.nothrottle = true;
exports.noipchecks = true;
exports.reportbattles = false;
exports.loginserver = null;
exports.ofe = false;
"""


class ServerTrouble(BattleError):  # noqa: N818
    """The server does not start, or its port is taken."""


def listening(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


class LocalServer:
    """`with LocalServer(8000) as server:` a server without passwords that listens on this machine only.

    Raises ServerTrouble where the port is taken, or where the server is not up within `timeout` seconds.
    """

    def __init__(self, port: int = 8000, timeout: float = 60.0):
        self.port, self.timeout = port, timeout
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LocalServer:
        if listening(self.port):
            raise ServerTrouble(f"port {self.port} is taken: stop what listens there, or give another --port")
        node = node_command()[0]
        try:
            self._prepare()
        except OSError as error:
            raise ServerTrouble(
                f"{error.filename}: cannot be written ({error.strerror}), where the local server keeps its settings "
                "and logs: use a checkout of your own, or --server with the address of another"
            ) from error
        command = [node, "--require", str(LEASH), "pokemon-showdown", "start", "--no-security", "--skip-build"]
        self.process = subprocess.Popen(
            [*command, str(self.port)],
            cwd=PACKAGE,
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + self.timeout
        while not listening(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = Path(self.log.name).read_text(encoding="utf-8", errors="replace")[-1500:]
                self.__exit__()
                refuse_old_node()
                raise ServerTrouble(f"the server on port {self.port} did not start: {said}")
            time.sleep(0.2)
        return self

    def _prepare(self) -> None:
        for folder in FOLDERS:
            (PACKAGE / folder).mkdir(parents=True, exist_ok=True)
        # The same for every port, and never half written: another server may be about to read it.
        config = PACKAGE / "config" / "config.js"
        new = config.with_name(f"config-{self.port}.tmp")
        new.write_text(CONFIG, encoding="utf-8")
        new.replace(config)
        self.log = (PACKAGE / "logs" / f"turnwise-server-{self.port}.log").open("wb")

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process.stdin.close()
        self.log.close()


def measure_poke_env(battle_format: str, battles: int, port: int = 8021) -> dict[str, float]:
    """poke-env's random players over the websocket of a local server: battles per second of all CPU used."""
    from poke_env import AccountConfiguration, ServerConfiguration
    from poke_env.player import RandomPlayer

    from battle.simulator import Simulator
    from battle.teams import load_teams

    with Simulator() as sim:
        teams = [team.packed for team in load_teams(sim, battle_format)]
    address = ServerConfiguration(f"ws://127.0.0.1:{port}/showdown/websocket", "http://127.0.0.1/")
    with LocalServer(port) as server:
        players = [
            RandomPlayer(
                AccountConfiguration(f"bench{n}", None),
                battle_format=battle_format,
                server_configuration=address,
                max_concurrent_battles=8,
                team=teams[n % len(teams)],
            )
            for n in range(2)
        ]
        used = resource.getrusage(resource.RUSAGE_SELF)
        server_before = _cpu(server.process.pid)
        started = time.monotonic()
        asyncio.run(players[0].battle_against(players[1], n_battles=battles))
        seconds = time.monotonic() - started
        now = resource.getrusage(resource.RUSAGE_SELF)
        cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime + _cpu(server.process.pid) - server_before
        for player in players:  # first, or each prints a traceback as the server goes away
            asyncio.run(player.ps_client.stop_listening())
    return {
        "battles": battles,
        "cpu_seconds": round(cpu, 2),
        "wall_seconds": round(seconds, 2),
        "battles_per_cpu_second": round(battles / cpu, 2),
    }


def _cpu(pid: int) -> float:
    """CPU seconds of a process and its children (Linux)."""
    import os

    total = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, tail = path.read_text(encoding="utf-8").rsplit(")", 1)
        except OSError:
            continue
        fields = tail.split()
        if int(head.split(" ", 1)[0]) == pid or int(fields[1]) == pid:
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total
