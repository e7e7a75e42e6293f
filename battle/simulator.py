"""Showdown battles in Node processes: many at once, in lockstep, over pipes.

A `Simulator` keeps a few Node processes, each hosting many battles (`node/bridge.js`). Commands go out as one line per
process and come back as one line of events. A process that dies or does not answer in time is killed and started anew;
the battles it held come back as `void` events: they have no result, and count as none.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
from dataclasses import dataclass
from typing import Any

import msgspec

from battle.errors import InvalidTeam, NoSimulator, UnknownFormat
from battle.node_process import INSTALL, Worker

log = logging.getLogger(__name__)

BENCH = b'"available_switches":['


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
