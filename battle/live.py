"""A player on a Showdown server whose choices are an agent's: what its rooms say, and the answers to their requests.

What the server says goes to the very translator that serves self-play (`node/view.js`), so the agent sees here what it
was taught on.
"""

from __future__ import annotations

import itertools
import logging
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from battle.connection import ConnectedPlayer
from battle.interface import Agent, Observation, bits_to_mask, decode, lead_of
from battle.play import Match, Outcome, View
from battle.recorder import Recorder, run_id, word
from battle.replay_page import replay_page
from battle.room import Room
from battle.simulator import Event, Simulator
from battle.teams import Team

log = logging.getLogger(__name__)
# What Showdown (server/room-battle.ts, sim/side.ts) says of a choice where one was made before: that one stands.
MADE = tuple(f"[Invalid choice] {words}" for words in ("Sorry, too late", "There's nothing to choose", "Can't undo"))


class LivePlayer(ConnectedPlayer):
    """A player whose choices are an agent's, by our own translator.

    out: folder for battle files (None: none). replays: folder for replay pages. lead: first, random or chosen. timer:
    ask for the server's as a battle begins. teams, patience: as in `ConnectedPlayer`.
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
        timer: bool,
        **rest: Any,
    ):
        self.agent, self.sim, self.lead, self.timer = agent, sim, lead, timer
        self.recorder = Recorder(out, run=run_id(), version=sim.version) if out else None
        self.replays = replays
        self.results: list[str] = []
        super().__init__(teams, patience, **rest)

    def choose_move(self, battle: Any) -> Any:
        raise NotImplementedError("rooms are answered by _handle_battle_message")

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
        # The server waits without end for who is away, or sits there and does nothing, but for its timer.
        if (room.left or self.timer) and not room.timed:
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
        # One that begins hidden has a password behind its number: none for names of files that others may read.
        joined, name = (known.joined + 1, known.name) if known else (1, "-".join(tag.split("-")[:3]))
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
            view.actions[-1] = action
            if action not in choices or (event.legal and choices[action] is None):
                self._note(room, f"action {action} is not legal here, the default is played")
                self._correct(room)
        return choices.get(action) or "default"

    def _correct(self, room: Room) -> None:
        """Another action than the agent's is played: nobody knows which, neither the file nor the agent."""
        room.view.actions[-1] = -1
        if room.met and hasattr(self.agent, "note_action"):
            try:
                self.agent.note_action(room.name, -1)
            except Exception as error:
                log.error("%s: the agent failed to take note of another action", room.tag, exc_info=error)

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
        """Place of the lead: the first, a drawn one, or the agent's choice."""
        if self.lead == "random":
            return self.random.randrange(len(decode(event.views)))
        return lead_of(self.agent, event.views) if self.lead == "chosen" else 0

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
                self._correct(room)
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
        if self.recorder:  # first: a page that fails shall not cost the battle
            mine = int(room.chair == "p1")  # the opponent's chair; of it there is no side to record
            seats = slice(None, None, -1 if mine else 1)  # of ours and theirs: p1, p2
            match = Match(
                id=word(room.name),
                format=room.tag.split("-")[1],
                agents=(self.agent, self.agent),
                seed=0,
                lead_rule=self.lead,
            )
            kind, winner = ("tie", -1) if event.winner < 0 else ("won", mine ^ event.winner)
            leads = (room.lead, None)[seats]
            outcome = Outcome(match, kind, winner, event.turns, (view, View())[seats], room.refused, leads=leads)
            recorder = replace(self.recorder, run=room.begun or self.recorder.run)
            recorder.record(outcome, (self.username, room.opponent)[seats], (room.rating, "Unrated")[seats])
        if self.replays:
            self.replays.mkdir(parents=True, exist_ok=True)
            # A server that was set up anew counts its battles from 1 again.
            names = itertools.chain([room.name], (f"{room.name}-{number}" for number in itertools.count(2)))
            page = next(path for name in names if not (path := self.replays / f"{name}.html").exists())
            page.write_text(replay_page(room.name, room.history), encoding="utf-8")
