"""Showdown battles in Node processes: many at once, in lockstep, over pipes.

A `Simulator` keeps a few Node processes, each hosting many battles (`node/bridge.js`). Commands go out as one line per
process and come back as one line of events. A process that dies or does not answer in time is killed and started anew;
the battles it held come back as `void` events: they have no result, and count as none.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import selectors
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from battle.errors import InvalidTeam, NoSimulator, UnknownFormat

log = logging.getLogger(__name__)

ROOM = Path(__file__).parent
BRIDGE = ROOM / "node" / "bridge.js"
OLDEST_NODE = 20
# A round of many battles is more than the usual 64 kB: a full pipe would stop the process halfway through.
PIPE_BYTES = 1 << 20
BENCH = b'"available_switches":['
INSTALL = "run `make setup`, or `npm ci --omit=optional --ignore-scripts` in battle/"


class Event(msgspec.Struct):
    """What a battle has to say. Which fields hold something depends on `event`:

    ask (lane, side, turn, legal bits, forced, retry, state; request and lines where wanted), preview (lane, side,
    views: for each own lead the states against each of the opponent's; the action is a place), end (lane, winner
    0/1/−1, turns, states of both sides; sha256 and the input log where wanted), refused (lane, side, message, choice),
    void (lane, message), team, assembled, formats, replayed, searched (lane, action, worth), quiet, warning.
    """

    event: str
    lane: str = ""
    side: int = -1
    turn: int = 0
    legal: int = 0
    forced: bool = False
    retry: bool = False
    state: msgspec.Raw = msgspec.Raw(b"")
    request: msgspec.Raw = msgspec.Raw(b"")
    lines: msgspec.Raw = msgspec.Raw(b"[]")
    bench: list[int] = []
    news: list[msgspec.Raw] = []
    choices: list[str | None] = []
    winner: int = -1
    turns: int = 0
    states: list[msgspec.Raw] = []
    sha256: str = ""
    log: list[str] = []
    message: str = ""
    choice: str | None = ""
    packed: str = ""
    teams: list[str] = []
    problems: list[str] = []
    known: list[str] = []
    generated: list[str] = []
    views: msgspec.Raw = msgspec.Raw(b"[]")
    finals: msgspec.Raw = msgspec.Raw(b"[]")
    action: int = -1
    worth: list[float | None] = []
    unknown: int = 0
    refused: int = 0
    problem: str = ""


class _Reply(msgspec.Struct):
    events: list[Event]


_reply = msgspec.json.Decoder(_Reply)


@dataclass(frozen=True, slots=True)
class BattleSpec:
    """All that a battle is a function of, besides the choices.

    format: Showdown's format id. seed: four 16-bit numbers, "1,2,3,4". teams: packed teams, None where the format makes
    its own, from team_seeds. leads: place (0–5) of each side's lead at team preview, None where it is asked for.
    want_log: the end brings the battle's input log (seed, teams, every choice) and the fingerprint of its lines.
    """

    lane: str
    format: str
    seed: str
    teams: tuple[str | None, str | None] = (None, None)
    names: tuple[str, str] = ("Player 1", "Player 2")
    leads: tuple[int | None, int | None] = (0, 0)
    team_seeds: tuple[str, str] | None = None
    want_requests: tuple[bool, bool] = (False, False)
    want_lines: tuple[bool, bool] = (False, False)
    want_log: bool = False

    def message(self) -> dict[str, Any]:
        return {
            "format": self.format,
            "seed": self.seed,
            "teams": self.teams,
            "names": self.names,
            "seeds": self.team_seeds,
            "leads": self.leads,
            "want": {
                "requests": self.want_requests,
                "lines": self.want_lines if any(self.want_lines) else None,
                "told": True,
                "log": self.want_log,
                "hash": self.want_log,
            },
        }


def node_command() -> list[str]:
    """The Node program with its arguments; raises NoSimulator where Node or the package is missing."""
    node = os.environ.get("TURNWISE_NODE") or shutil.which("node")
    if not node:
        raise NoSimulator(f"no `node` on the path: install Node {OLDEST_NODE} or newer, then {INSTALL}")
    if not (ROOM / "node_modules" / "pokemon-showdown" / "package.json").is_file():
        raise NoSimulator(f"the npm package pokemon-showdown is not installed in {ROOM.name}/: {INSTALL}")
    return [node, "--max-old-space-size=2048", "--max-semi-space-size=64", str(BRIDGE)]


def refuse_old_node() -> None:
    """Raises NoSimulator where Node is older than the simulator's code, of which it says nothing but where it stumbled.
    Asked where that did not start: the answer takes Node some 40 ms."""
    node = node_command()[0]
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=10).stdout.strip()
        if int(version.removeprefix("v").split(".")[0]) < OLDEST_NODE:
            raise NoSimulator(f"{node} is Node {version}, too old: install Node {OLDEST_NODE} or newer")


def _widen(pipe: int) -> None:
    """A pipe to PIPE_BYTES, if it may: all pipes of a user who is not root hold 64 MB together by Linux's default, and
    those of some thirty processes are that much. Any further one stays as it is, and is emptied in more goes."""
    with contextlib.suppress(PermissionError):
        if hasattr(fcntl, "F_SETPIPE_SZ"):  # Linux
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


class Worker:
    """One Node process and the lanes that live in it."""

    def __init__(self, start_timeout: float = 60.0) -> None:
        self.lanes: set[str] = set()
        self.restarts = 0
        self.version = ""
        self._start(start_timeout)

    def _start(self, timeout: float) -> None:
        # In a session of its own, so that a Ctrl-C on the terminal stops us and not the battles that we finish first;
        # it ends by itself when its input closes.
        self.process = subprocess.Popen(
            node_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        for pipe in (self.process.stdin, self.process.stdout):
            _widen(pipe.fileno())
        os.set_blocking(self.process.stdout.fileno(), False)
        os.set_blocking(self.process.stdin.fileno(), False)
        os.set_blocking(self.process.stderr.fileno(), False)
        self.buffer = bytearray()
        hello = self.receive(timeout)
        if hello is None:
            said = self.complaint()
            self.kill()
            refuse_old_node()
            raise NoSimulator(f"the Node bridge did not start: {said or 'no word from it'}; {INSTALL}")
        self.version = json.loads(hello)["version"]

    def complaint(self) -> str:
        """The tail of what the process wrote to standard error."""
        data = self.process.stderr.read() or b""
        return data.decode("utf-8", "replace").strip()[-2000:]

    def send(self, commands: list[list[Any]], timeout: float) -> bool:
        """Writes one line of commands; False where the process takes no more or is gone."""
        deadline = time.monotonic() + timeout
        data = memoryview(msgspec.json.encode({"do": commands}) + b"\n")
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdin, selectors.EVENT_WRITE)
            while data:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return False
                try:
                    data = data[os.write(self.process.stdin.fileno(), data) :]
                except BlockingIOError:
                    continue
                except OSError:
                    return False
        return True

    def receive(self, timeout: float) -> bytes | None:
        """The next line, or None where it does not come in time or the process is gone."""
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            start = 0
            while True:
                at = self.buffer.find(b"\n", start)
                if at >= 0:
                    line = bytes(self.buffer[:at])
                    del self.buffer[: at + 1]
                    return line
                start = len(self.buffer)
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                chunk = os.read(self.process.stdout.fileno(), 1 << 16)
                if not chunk:
                    return None
                self.buffer += chunk

    def drain_complaints(self) -> None:
        """Standard error is read so that its pipe never fills; it goes to the log."""
        said = self.complaint()
        if said:
            log.warning("node: %s", said)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()

    def restart(self) -> None:
        self.kill()
        self.lanes.clear()
        self.restarts += 1
        self._start(60.0)


class Simulator:
    """Battles over a few Node processes. Use as a context manager.

    processes: Node processes. timeout: seconds that a process may take over one batch before it counts as hung.
    """

    def __init__(self, processes: int = 1, timeout: float = 60.0) -> None:
        self.timeout = timeout
        self.workers = [Worker() for _ in range(processes)]
        self.home: dict[str, Worker] = {}
        self.queue: dict[int, list[list[Any]]] = {}
        self.told: dict[str, tuple[list[bytes], list[bytes]]] = {}

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def version(self) -> str:
        """Version of pokemon-showdown."""
        return self.workers[0].version

    @property
    def restarts(self) -> int:
        return sum(worker.restarts for worker in self.workers)

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()

    def start(self, spec: BattleSpec) -> None:
        """Queues the beginning of a battle on the process with the fewest lanes."""
        worker = min(self.workers, key=lambda w: len(w.lanes))
        worker.lanes.add(spec.lane)
        self.home[spec.lane] = worker
        self.told[spec.lane] = ([], [])
        self._queue(worker, ["start", spec.lane, spec.message()])

    def act(self, lane: str, actions: list[int | None]) -> None:
        """Queues both players' actions; None for the one who was not asked."""
        self._queue(self.home[lane], ["act", lane, actions])

    def write(self, lane: str, text: str) -> None:
        """Queues raw lines for the battle's stream (">forcelose p1")."""
        self._queue(self.home[lane], ["write", lane, text])

    def drop(self, lane: str) -> None:
        """Queues the end of a battle that nobody wants to see finished."""
        worker = self.home.pop(lane, None)
        if worker:
            worker.lanes.discard(lane)
            self.told.pop(lane, None)
            # What was not sent yet has nobody left to answer to.
            queue = self.queue.get(id(worker), [])
            queue[:] = [command for command in queue if command[1] != lane]
            self._queue(worker, ["drop", lane])

    def command(self, verb: str, lane: str, *rest: Any, worker: int | None = None) -> None:
        """Queues any other verb of the bridge."""
        home = self.home.get(lane)
        if home is None:
            home = self.workers[worker if worker is not None else hash(lane) % len(self.workers)]
            if verb in ("feed", "search"):
                home.lanes.add(lane)
                self.home[lane] = home
        self._queue(home, [verb, lane, *rest])

    def _queue(self, worker: Worker, command: list[Any]) -> None:
        self.queue.setdefault(id(worker), []).append(command)

    def step(self) -> list[Event]:
        """Sends what is queued to all processes and returns their events; voids for the battles of one that failed."""
        queue, self.queue = self.queue, {}
        busy = [worker for worker in self.workers if queue.get(id(worker))]
        try:
            return self._exchange(busy, queue)
        except BaseException:
            # A Ctrl-C in a notebook: what they still say would be taken for the answer to what they are asked next.
            for worker in busy:
                worker.process.kill()
            raise

    def _exchange(self, busy: list[Worker], queue: dict[int, list[list[Any]]]) -> list[Event]:
        # Each has its own time, from its turn on: one that hangs takes none of that of the others, which may stand in
        # the middle of an answer that is more than a pipe holds.
        sent = [(worker, worker.send(queue[id(worker)], self.timeout)) for worker in busy]
        events: list[Event] = []
        for worker, ok in sent:
            line = worker.receive(self.timeout) if ok else None
            if line is None:
                # A lane dropped in this very batch is nobody's any more; one asked for by a bare command counts too.
                events += self._lost(worker, {command[1] for command in queue[id(worker)] if command[0] != "drop"})
                continue
            for event in _reply.decode(line).events:
                if event.event == "warning":
                    log.warning("protocol: %s", event.message)
                    continue
                if event.event == "ask":
                    self._fill_bench(event)
                elif event.event in ("end", "void"):
                    worker.lanes.discard(event.lane)
                    self.home.pop(event.lane, None)
                    self.told.pop(event.lane, None)
                events.append(event)
            worker.drain_complaints()
        return events

    def _fill_bench(self, event: Event) -> None:
        """Most of a state's text is a bench that stands still: it comes once, then by number."""
        if not event.bench:
            return
        told = self.told[event.lane][event.side]
        told += [bytes(entry) for entry in event.news]
        bench = b",".join([told[number] for number in event.bench])
        event.state = msgspec.Raw(bytes(event.state).replace(BENCH, BENCH + bench, 1))

    def _lost(self, worker: Worker, asked: set[str]) -> list[Event]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(1.0)  # one that ends closes its pipes first
        hung = worker.process.returncode is None
        reason = f"no answer in {self.timeout:.0f} s" if hung else f"exit status {worker.process.returncode}"
        lanes = sorted(worker.lanes | asked)
        log.error("a Node process was lost (%s): %d battles void: %s", reason, len(lanes), worker.complaint())
        worker.restart()
        for lane in lanes:
            self.home.pop(lane, None)
            self.told.pop(lane, None)
        return [Event(event="void", lane=lane, message=f"the Node process was lost: {reason}") for lane in lanes]

    def check_formats(self, formats: list[str]) -> None:
        """Raises UnknownFormat for a name that is no id of a singles format of this Showdown."""
        known = self._formats(formats).known
        for name in formats:
            if name not in known:
                raise UnknownFormat(
                    f"format {name!r}: pokemon-showdown {self.version} has no singles format of that id; "
                    "name one as gen1ou, gen3uu, gen9ou or gen9randombattle"
                )

    def makes_teams(self, battle_format: str) -> bool:
        """True for a format whose teams come from the battle's seed, as those of random battles do."""
        return battle_format in self._formats([battle_format]).generated

    def _formats(self, formats: list[str]) -> Event:
        self.command("formats", "formats", formats)
        event = next(event for event in self.step() if event.lane == "formats")
        if event.event == "void":  # often the first thing that a process is asked, before which it reads its data
            raise NoSimulator(f"Showdown's formats could not be asked: {event.message}; free some memory, or {INSTALL}")
        return event

    def pack_team(self, battle_format: str, text: str, source: str = "team") -> str:
        """A team in export or packed format, packed; raises InvalidTeam with the validator's words."""
        self.command("validate", "validate", battle_format, text)
        event = next(event for event in self.step() if event.lane == "validate")
        if event.event == "void" or event.problems:
            words = "; ".join(event.problems) or event.message
            raise InvalidTeam(f"{source}: not a team for {battle_format}: {words}; mend the team or leave it out")
        return event.packed

    def assemble_teams(self, battle_format: str, count: int, fewest: int) -> list[str]:
        """Up to `count` packed teams of Showdown's random sets of the strongest species that a format allows, passed by
        its validator; the same each time, no line-up twice. Raises InvalidTeam where fewer than `fewest` were made."""
        self.command("assemble", "assemble", battle_format, count, "1,2,3,4")
        event = next(event for event in self.step() if event.lane == "assemble")
        if len(event.teams) < fewest:
            words = "; ".join(event.problems) or event.message
            raise InvalidTeam(
                f"{battle_format}: {len(event.teams)} teams could be made of Showdown's random sets ({words}): "
                f"give --teams a folder that has some *.{battle_format}_team file"
            )
        return event.teams
