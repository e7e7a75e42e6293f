"""A player's way into a Showdown server: logged in, back after a break, and to battles by ladder and challenges."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Coroutine
from typing import Any

from poke_env.data import to_id_str
from poke_env.player import Player
from websockets.exceptions import ConnectionClosed

from battle.local_server import ServerTrouble
from battle.room import Room
from battle.teams import Team

log = logging.getLogger(__name__)
LOGIN = 20.0  # seconds for a server to let us in: poke-env's own question for a password takes up to 10
LOST = 60.0  # seconds after which a challenge or search of ours without an answer is taken for lost, and made again


class NotTwice(logging.Filter):
    """Lets what was said just before pass once: the server's word that somebody is not there, at every try."""

    last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        said, self.last = self.last, record.getMessage()
        return said != self.last


class ConnectedPlayer(Player):
    """A poke-env player that stays connected; what it does in its rooms is its subclass's.

    teams: of which each battle gets one, drawn anew by every command. patience: seconds to wait for a server that is
    gone. rooms: by their tags there. begun: battles so far; sought: how many there were when the ladder was asked for
    the next (−1: it was not). challenging: whether a challenge of ours stands there.
    """

    def __init__(self, teams: list[Team], patience: float, **rest: Any):
        self.teams, self.patience = teams, patience
        self.rooms: dict[str, Room] = {}
        self.random = random.Random()
        self.begun, self.sought = 0, -1
        self.closing = self.challenging = False
        super().__init__(start_listening=False, team=teams[0].packed, **rest)
        self.logger.propagate = False  # it has a handler of its own: each word of the server's stood there twice
        self.logger.addFilter(NotTwice())
        self.connection = asyncio.run_coroutine_threadsafe(self._stay(), self.ps_client.loop)

    @property
    def next_team(self) -> str | None:
        return self.random.choice(self.teams).packed

    @property
    def under_way(self) -> int:
        """Battles that have begun and have no result."""
        return sum(not room.over for room in self.rooms.values())

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
            self.challenging = False  # a challenge ends with its connection
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
                raise ServerTrouble(
                    f"{self.ps_client.websocket_url}: no server there for {self.patience:.0f} s; battles without a "
                    f"result: {self.under_way}; start the server again, then this command (--patience says how long "
                    "to wait)"
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

    async def challenge(self, opponent: str, battles: int, again: float) -> None:
        """Challenges a named player, every `again` seconds until they are there and accept, to the player's
        `battles`-th battle, and plays it."""
        await self._on_its_loop(self._challenge(opponent, battles, again))

    async def accept(self, opponent: str | None, battles: int, within: float = 5.0) -> None:
        """Accepts challenges, of `opponent` alone where one is named, to the player's `battles`-th battle, and plays
        them. One of which no battle comes `within` seconds was taken back meanwhile: the next one's turn."""
        await self._on_its_loop(self._accept(opponent, battles, within))

    async def play_out(self) -> None:
        """The battles under way, and no further one."""
        await self._on_its_loop(self._battle_count_queue.join())

    async def _on_its_loop(self, work: Coroutine[Any, Any, None]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.ps_client.loop))

    async def _seek(self, again: float = LOST) -> None:
        self.sought, searches = self.begun, 0
        while self.begun == self.sought:  # a server refuses one, for battles too fast in a row, by a mere popup
            await self.ps_client.logged_in.wait()
            searches += 1
            with contextlib.suppress(ConnectionClosed):  # a break that nobody has noticed yet: made again after it
                await self.ps_client.search_ladder_game(self._format, self.next_team)
            await self._begins(self.sought + 1, again)
        if searches > 1:  # the last one may have come as the one before was met: it would be met in its turn
            with contextlib.suppress(ConnectionClosed):
                await self.ps_client.send_message("/cancelsearch")
        await self._battle_count_queue.join()

    async def _challenge(self, opponent: str, battles: int, again: float) -> None:
        made = -LOST
        while self.begun < battles:  # a challenge made once too often is the next battle's
            await self.ps_client.logged_in.wait()
            if not self.challenging or time.monotonic() - made >= LOST:
                made = time.monotonic()
                with contextlib.suppress(ConnectionClosed):
                    await self.ps_client.challenge(opponent, self._format, self.next_team)
            await self._begins(battles, again)
        await self._battle_count_queue.join()

    async def _handle_challenge_request(self, split_message: list[str]) -> None:
        """`|pm|FROM|TO|/challenge FORMAT|FORMAT|…`, to both of them; without a format where it is over."""
        challenger, battle_format = split_message[2].strip(), split_message[4].partition(" ")[2]
        if to_id_str(challenger) == to_id_str(self.username):
            self.challenging = bool(battle_format)
        elif battle_format and battle_format != self._format:
            log.warning(
                "%s challenges in %s, and this plays %s: left unanswered", challenger, battle_format, self._format
            )
        else:
            await super()._handle_challenge_request(split_message)

    async def _accept(self, opponent: str | None, battles: int, within: float) -> None:
        while self.begun < battles:
            challenger = await self._challenge_queue.get()
            if opponent and to_id_str(challenger) != to_id_str(opponent):
                continue
            async with self._battle_end_condition:  # accepted now, a battle too many would begin and get no answer
                await self._battle_end_condition.wait_for(lambda: not self._battle_count_queue.full())
            await self.ps_client.logged_in.wait()
            begun = self.begun
            with contextlib.suppress(ConnectionClosed):
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
