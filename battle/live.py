"""A player on a Showdown server whose choices are an agent's: rooms, requests, and coming back after a break.

poke-env's `Player` keeps the connection, the challenges and the ladder; what the server says goes to the very
translator that serves self-play (`node/view.js`), so the agent sees here what it was taught on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
import zlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from poke_env.data import to_id_str
from poke_env.player import Player

from battle.interface import Agent, Observation, bits_to_mask, decode
from battle.local_server import ServerTrouble
from battle.play import Match, Outcome, View
from battle.recorder import Recorder, run_id, word
from battle.replay_page import replay_page
from battle.simulator import Event, Simulator
from battle.teams import Team

log = logging.getLogger(__name__)
LOGIN = 20.0  # seconds for a server to let us in: poke-env's own question for a password takes up to 10
# What Showdown (server/room-battle.ts, sim/side.ts) says of a choice where one was made before: that one stands.
MADE = tuple(f"[Invalid choice] {words}" for words in ("Sorry, too late", "There's nothing to choose", "Can't undo"))


@dataclass
class Room:
    """One battle on the server: what came in since the last decision, and the view recorded so far.

    tag: its name there, which changes when a player hides it. name: its first one, by which the agent knows it.
    fed: what the translator was told so far, lines and the request that followed from them. unseen: lines since the
    agent's last decision. met: the agent knows the room. retry: the server took the last choice back. blind: the
    default was played for want of a state, so the battle has no result of the agent's. winner: whom the server named,
    "" for a tie. rating: ours, as the ladder says. chair: the opponent's, p1 or p2. left: they are not there. timed: we
    asked for the server's timer.
    """

    tag: str
    name: str
    lane: str
    lines: list[str] = field(default_factory=list)
    request: str | None = None
    rqid: int = 0
    view: View = field(default_factory=View)
    fed: list[tuple[list[str], str | None]] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    opponent: str = "opponent"
    rating: str = "Unrated"
    chair: str = ""
    left: bool = False
    timed: bool = False
    lead: int = 0
    joined: int = 0
    answered: tuple[int, str] = (-1, "")  # the last request answered (its number), and how
    repeated: tuple[int, str] = (-1, "")  # the same of before the connection broke: the answer may never have arrived
    refused: list[str] = field(default_factory=list)
    met: bool = False
    retry: bool = False
    blind: bool = False
    winner: str = ""
    over: bool = False

    @property
    def history(self) -> list[str]:
        """All lines of the battle."""
        return [line for lines, _ in self.fed for line in lines] + self.lines


class LivePlayer(Player):
    """A poke-env player whose choices are an agent's, by our own translator.

    out: folder for battle files (None: none). replays: folder for replay pages. lead: first, random or value.
    patience: seconds to wait for a server that is gone. begun: battles so far; sought: how many there were when the
    ladder was asked for the next (−1: it was not).
    """

    def __init__(
        self,
        agent: Agent,
        sim: Simulator,
        teams: list[Team],
        out: Path | None,
        replays: Path | None,
        lead: str,
        patience: float,
        **rest: Any,
    ):
        self.agent, self.sim, self.teams, self.lead, self.patience = agent, sim, teams, lead, patience
        self.recorder = Recorder(out, run=run_id(), version=sim.version) if out else None
        self.replays = replays
        self.rooms: dict[str, Room] = {}
        self.results: list[str] = []
        self.random = random.Random(0)
        self.begun, self.sought = 0, -1
        self.closing = False
        super().__init__(start_listening=False, team=teams[0].packed, **rest)
        self.connection = asyncio.run_coroutine_threadsafe(self._stay(), self.ps_client.loop)

    def choose_move(self, battle: Any) -> Any:
        raise NotImplementedError("rooms are answered by _handle_battle_message")

    @property
    def next_team(self) -> str | None:
        return self.random.choice(self.teams).packed

    async def _stay(self) -> None:
        """Keeps the connection; after a break it logs in again and goes back to its battles.

        Raises ServerTrouble once nobody has let us in for `patience` seconds, or a server that is there refuses to.
        """
        pause, last_in, parted = 1.0, time.monotonic(), False
        while not self.closing:
            entry, began = asyncio.create_task(self._come_in(parted)), time.monotonic()
            await self.ps_client.listen()
            entry.cancel()
            if self.closing:
                return
            let_in = self.ps_client.logged_in.is_set()
            self.ps_client.logged_in.clear()  # at once: who waits for it shall send nothing down a line that is gone
            if not parted and not let_in and time.monotonic() - began >= LOGIN:
                raise ServerTrouble(
                    f"{self.ps_client.websocket_url}: did not let {self.username!r} in within {LOGIN:.0f} s: give a "
                    "--name of at most 18 characters that nobody there has, on a public server the right PS_USERNAME "
                    "and PS_PASSWORD; what it said stands above"
                )
            now = time.monotonic()
            if let_in:
                pause, last_in, parted = 1.0, now, True
            if now - last_in > self.patience:
                open_ = sum(not room.over for room in self.rooms.values())
                raise ServerTrouble(
                    f"{self.ps_client.websocket_url}: no server there for {self.patience:.0f} s; battles without a "
                    f"result: {open_}; start the server again, then this command (--patience says how long to wait)"
                )
            log.warning("connection lost: trying again in %.0f s", pause)
            await asyncio.sleep(pause)
            pause = min(30.0, pause * 2)

    async def _come_in(self, again: bool) -> None:
        """Waits to be let in, and hangs up where we are not: refused by name or password, nothing more would be said.

        Back after a break: into the battles that go on; a search ends with its connection, and is made again."""
        try:
            await asyncio.wait_for(self.ps_client.logged_in.wait(), LOGIN)
        except TimeoutError:
            await self._hang_up()
            return
        if not again:
            return
        for room in list(self.rooms.values()):
            if not room.over:
                await self.ps_client.send_message(f"/join {room.tag}")
        if self.sought == self.begun:
            await self.ps_client.search_ladder_game(self._format, self.next_team)

    async def seek(self) -> None:
        """One battle of the ladder, whatever breaks in between."""
        await self._on_its_loop(self._seek())

    async def challenge(self, opponent: str, battles: int, again: float = 5.0) -> None:
        """Challenges a named player, every `again` seconds until they are there and accept, to the player's
        `battles`-th battle, and plays it."""
        await self._on_its_loop(self._challenge(opponent, battles, again))

    async def accept(self, opponent: str | None, battles: int, within: float = 5.0) -> None:
        """Accepts challenges, of `opponent` alone where one is named, to the player's `battles`-th battle, and plays
        them. One of which no battle comes `within` seconds was taken back meanwhile: the next one's turn."""
        await self._on_its_loop(self._accept(opponent, battles, within))

    async def _on_its_loop(self, work: Coroutine[Any, Any, None]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.ps_client.loop))

    async def _seek(self) -> None:
        await self.ps_client.logged_in.wait()
        self.sought = self.begun
        await self._ladder(1)

    async def _challenge(self, opponent: str, battles: int, again: float) -> None:
        while self.begun < battles:  # a challenge made once too often is the next battle's
            await self.ps_client.logged_in.wait()
            await self.ps_client.challenge(opponent, self._format, self.next_team)
            await self._begins(battles, again)
        await self._battle_count_queue.join()

    async def _accept(self, opponent: str | None, battles: int, within: float) -> None:
        while self.begun < battles:
            challenger = await self._challenge_queue.get()
            if opponent and to_id_str(challenger) != to_id_str(opponent):
                continue
            await self.ps_client.logged_in.wait()
            begun = self.begun
            await self.ps_client.accept_challenge(challenger, self.next_team)
            await self._begins(begun + 1, within)
        await self._battle_count_queue.join()

    async def _begins(self, battles: int, within: float) -> None:
        """Waits for the player's `battles`-th battle to begin, for so many seconds."""
        begins = self._battle_start_condition
        async with begins:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(begins.wait_for(lambda: self.begun >= battles), within)

    async def close(self) -> None:
        self.closing = True
        await self._on_its_loop(self._hang_up())

    async def _hang_up(self) -> None:
        if hasattr(self.ps_client, "websocket"):  # where there was ever a connection
            await self.ps_client.websocket.close()

    async def _handle_battle_message(self, split_messages: list[list[str]]) -> None:
        """A room's message: lines and requests to the translator, an answer where one is due."""
        tag = split_messages[0][0][1:]
        begins = any(len(parts) > 1 and parts[1] == "init" for parts in split_messages[1:2])
        if begins:
            await self._create_battle(split_messages[0][0].split("-"))
            self._enter(tag)
        room = self.rooms.get(tag)
        if room is None or room.over:
            return
        ended = False
        for parts in split_messages[1:]:
            if len(parts) < 2:
                continue
            kind = parts[1]
            if kind == "noinit" and parts[2:3] == ["rename"]:
                await self._rename(room, parts[3])
            elif kind in ("deinit", "noinit"):
                log.error("%s: the server no longer has it (%s): it is void", tag, "|".join(parts[1:]))
                await self._close(room, "void")
                return
            elif kind == "request":
                if "|".join(parts[2:]):
                    room.request = "|".join(parts[2:])
            elif kind == "error":
                await self._error(room, "|".join(parts[2:]))
            else:
                room.lines.append("|".join(parts))
                room.unseen.append("|".join(parts))
                if kind == "player" and parts[3:4] == [self.username] and "".join(parts[5:6]).isdecimal():
                    room.rating = parts[5]
                elif kind == "player" and len(parts) > 3 and parts[3] and parts[3] != self.username:
                    room.opponent, room.chair, room.left = parts[3], parts[2], False
                elif kind == "player" and parts[2:3] == [room.chair] and not "".join(parts[3:]):
                    room.left = True
                if kind in ("win", "tie"):
                    ended, room.winner = True, parts[2] if kind == "win" else ""
        if ended:
            await self._finish(room)
            return
        if room.left and not room.timed:  # the server waits for them without end, unless somebody asks for its timer
            room.timed = True
            await self.ps_client.send_message("/timer on", room.tag)
        if room.request and (any(self._decisive(line) for line in room.lines) or room.joined > 1 or room.retry):
            await self._answer(room)  # asked again, nothing has happened since: chat and timer may have spoken

    @staticmethod
    def _decisive(line: str) -> bool:
        """A line after which the server has said all that leads up to a request."""
        return line.startswith(("|turn|", "|teampreview", "|upkeep")) or line in ("|", "|start")

    async def _rename(self, room: Room, tag: str) -> None:
        """A player has hidden the battle: its name got a password. poke-env does not follow."""
        self.rooms[tag] = self.rooms.pop(room.tag)
        self._battles[tag] = self._battles.pop(room.tag)
        room.tag = tag
        number, choice = room.answered
        if number == room.rqid:  # it may have gone to a room that was no longer there
            await self._send(room, choice)

    def _enter(self, tag: str) -> None:
        known = self.rooms.get(tag)
        joined, name = (known.joined + 1, known.name) if known else (1, tag)
        room = Room(tag, name, f"{name}#{joined}", joined=joined)
        self.begun += not known
        if known:  # back after a break: the server tells the battle from its beginning; what was recorded stays
            self.sim.drop(known.lane)
            room.view, room.lead, room.refused, room.blind = known.view, known.lead, known.refused, known.blind
            room.repeated = known.answered
            if getattr(self.agent, "wants_lines", False):  # it follows the lines, so it begins anew with them
                self._end(known)
            else:
                room.met = known.met
        self.rooms[tag] = room

    def _translate(self, room: Room) -> Event:
        """What follows from the newest lines and request: the translator's event, "void" where it fails twice.

        A view that was lost with its Node process, at this room's turn or unnoticed at another's, is built again from
        all that it was told: fed with the newest alone, it would tell of a battle in which nothing had happened yet.
        """
        room.fed.append((room.lines, room.request))
        if room.request:
            room.rqid = decode(room.request.encode()).get("rqid", 0)
        room.lines, room.request = [], None
        event = self._feed(room, room.fed if room.lane not in self.sim.home else room.fed[-1:])
        if event.event == "void" and not room.blind:
            log.warning("%s: the translator failed: %s: telling it the battle again", room.tag, event.message)
            event = self._feed(room, room.fed)
        return event

    def _feed(self, room: Room, told: list[tuple[list[str], str | None]]) -> Event:
        battle_format = room.tag.split("-")[1]
        for lines, request in told:
            self.sim.command("feed", room.lane, battle_format, lines, request)
            event = next(event for event in self.sim.step() if event.lane == room.lane)
            if event.event == "void":  # the rest would begin a view of its own
                break
        return event

    async def _answer(self, room: Room) -> None:
        event = self._translate(room)
        (number, choice), room.repeated = room.repeated, (-1, "")
        if number == room.rqid:  # decided, recorded, and perhaps lost on the way
            await self._send(room, choice)
        elif event.event == "preview":
            try:
                room.lead = self._choose_lead(event)
            except Exception as error:
                self._note(room, "the agent failed, the first leads", error)
            order = [room.lead, *(n for n in range(6) if n != room.lead)]
            size = len(decode(event.views))
            await self._send(room, "team " + "".join(str(n + 1) for n in order if n < size))
        elif event.event == "ask":
            await self._send(room, self._choose(room, event))
        elif event.event == "void":
            room.blind = True
            log.error("%s: the translator failed: %s: playing the default; it is void", room.tag, event.message)
            await self._send(room, "default")

    def _choose(self, room: Room, event: Event) -> str:
        """Showdown's choice for the agent's action; the default where the agent fails or chooses what there is not."""
        view, raw = room.view, bytes(event.state)
        view.add(raw, event.legal, room.retry)
        observation = Observation(
            lane=room.name,
            raw=raw,
            legal=bits_to_mask(event.legal),
            first=not room.met,
            request=decode(room.fed[-1][1].encode()) if getattr(self.agent, "wants_requests", False) else None,
            lines=(room.unseen if room.met else room.history) if getattr(self.agent, "wants_lines", False) else [],
            retry=room.retry and room.met,
            seed=zlib.crc32(f"{room.name} {self.username}".encode()),
        )
        room.unseen, room.retry = [], False
        choices = dict(enumerate(event.choices))
        try:
            action = int(self.agent.choose([observation])[0])
            room.met = True
        except Exception as error:  # whatever it is, the server waits for an answer
            action = -1
            self._note(room, "the agent failed, the default is played", error)
            self._end(room)  # nobody knows what it has taken in: it begins anew
        else:
            if action not in choices or (event.legal and choices[action] is None):
                self._note(room, f"action {action} is not legal here, the default is played")
                action = -1
        view.actions[-1] = action
        return choices.get(action) or "default"

    @staticmethod
    def _note(room: Room, words: str, error: Exception | None = None) -> None:
        """Notes a choice that the agent failed to make; their number stands in the battle's file."""
        room.refused.append(words)
        log.error("%s: %s", room.tag, words, exc_info=error)

    def _end(self, room: Room) -> None:
        """Tells an agent that has met the room to forget it; asked again, it is told all from the beginning."""
        if room.met and hasattr(self.agent, "end"):
            try:
                self.agent.end(room.name)
            except Exception as error:
                log.error("%s: the agent failed to forget the battle", room.tag, exc_info=error)
        room.met = False

    def _choose_lead(self, event: Event) -> int:
        """Place of the lead: the first, a drawn one, or whose mean value over the opponent's leads is the highest."""
        rows = decode(event.views)
        if self.lead == "random":
            return self.random.randrange(len(rows))
        if self.lead == "value" and hasattr(self.agent, "decide"):
            gamma = self.agent.gamma
            values = [np.mean([self.agent.decide([state]).values[gamma] for state in row]) for row in rows]
            return int(np.argmax(values))
        return 0

    async def _send(self, room: Room, choice: str) -> None:
        room.answered = (room.rqid, choice)
        await self.ps_client.send_message(f"/choose {choice}", room.tag, str(room.rqid))

    async def _error(self, room: Room, message: str) -> None:
        if message.startswith("[Unavailable choice]"):
            room.retry = True
            return  # a request with what is now known follows
        log.warning("%s: %s", room.tag, message)
        if message.startswith("[Invalid choice]") and not message.startswith(MADE):
            room.refused.append(message)
            if room.view.actions:
                room.view.actions[-1] = -1  # another one is played
            await self.ps_client.send_message("/choose default", room.tag)

    async def _finish(self, room: Room) -> None:
        room.request = None
        event = self._translate(room)
        if room.blind or event.event == "void":
            await self._close(room, "void")
        else:
            self._battles[room.tag].won_by(room.winner) if room.winner else self._battles[room.tag].tied()
            try:
                if event.states:
                    self._record(room, event)
                else:
                    log.warning("%s: ended before it began, or while we were away: it has no file", room.tag)
            finally:  # a full disk is no reason to wait for this battle for ever
                won = "won" if room.winner == self.username else "lost"
                await self._close(room, won if room.winner else "tie")
        await self.ps_client.send_message(f"/leave {room.tag}")

    async def _close(self, room: Room, result: str) -> None:
        """The room is over: agent and translator forget it, the result counts, and poke-env waits for it no longer."""
        room.over = True
        self.sim.drop(room.lane)
        self._end(room)
        room.fed, room.view = [], View()  # half a megabyte a battle, for as long as the command lasts
        self.results.append(result)
        if result == "void":  # a server that was started anew may give its name to another battle
            del self.rooms[room.tag], self._battles[room.tag]
        await self._battle_count_queue.get()
        self._battle_count_queue.task_done()
        async with self._battle_end_condition:
            self._battle_end_condition.notify_all()

    def _record(self, room: Room, event: Event) -> None:
        view = room.view
        view.close(bytes(event.states[0]))
        if self.replays:
            self.replays.mkdir(parents=True, exist_ok=True)
            (self.replays / f"{room.name}.html").write_text(replay_page(room.name, room.history), encoding="utf-8")
        if not self.recorder or len(view.states) < 2:
            return
        stranger = _Named(room.opponent)
        match = Match(
            id=word(room.name),
            format=room.tag.split("-")[1],
            agents=(self.agent, stranger),
            seed=0,
            lead_rule=self.lead,
            leads=(room.lead, 0),
        )
        kind = "tie" if event.winner < 0 else "won"
        outcome = Outcome(match, kind, event.winner, event.turns, (view, View()), room.refused)
        self.recorder.record(outcome, (self.username, room.opponent), (room.rating, "Unrated"))


@dataclass
class _Named:
    """The other player of a live battle: only a name."""

    name: str
