"""A player's way into a server and to its battles, where what the server does is the test's."""

import asyncio
import random
from types import SimpleNamespace

import pytest
from websockets.exceptions import ConnectionClosedOK

from battle import connection
from battle.connection import LOGIN, ConnectedPlayer
from battle.local_server import ServerTrouble


class Client:
    """Breaks off where the test says so; `said` is what it was told."""

    websocket_url, username = "ws://there", "Me"

    def __init__(self, clock):
        self.clock, self.said, self.connections, self.breaks = clock, [], [], False
        self.logged_in, self.websocket = asyncio.Event(), self

    async def listen(self):
        """One connection: how long it lasts, and whether it lets us in."""
        seconds, let_in = self.connections.pop(0) if self.connections else (0, False)
        if let_in:
            self.logged_in.set()
        for _ in range(5):
            await asyncio.sleep(0)
        self.clock.now += seconds

    async def note(self, *words):
        if self.breaks:
            self.breaks = False
            raise ConnectionClosedOK(None, None)
        self.said.append(words)

    async def asked(self, *words):
        assert self.logged_in.is_set()
        await self.note(*words)

    send_message, search_ladder_game, challenge, accept_challenge = note, asked, asked, asked

    async def close(self):
        self.said.append("hung up")


class Player(ConnectedPlayer):
    def __init__(self, clock):
        self.ps_client, self.patience, self.closing, self.clock = Client(clock), 100.0, False, clock
        self.rooms, self.begun, self.sought, self._format = {}, 0, -1, "gen1ou"
        self.challenging = False
        self.teams, self.random = [SimpleNamespace(packed="team")], random.Random()
        self._battle_start_condition, self._battle_end_condition = asyncio.Condition(), asyncio.Condition()
        self._battle_count_queue, self._challenge_queue = asyncio.Queue(4), asyncio.Queue()

    def choose_move(self, battle):
        raise NotImplementedError


class Clock:
    """asyncio whose sleeps only move this clock on, by which the room goes too."""

    def __init__(self):
        self.now, self.slept = 1000.0, []

    def __getattr__(self, name):
        return getattr(asyncio, name)

    def monotonic(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def player(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(connection, "asyncio", clock)
    monkeypatch.setattr(connection, "time", clock)
    return Player(clock)


def room(tag, over=False):
    return SimpleNamespace(tag=tag, over=over)


async def begin(player):
    async with player._battle_start_condition:
        player.begun += 1
        player._battle_start_condition.notify_all()


def test_a_server_that_is_gone_is_tried_ever_more_rarely_until_patience_ends(player):
    player.rooms = {"a": room("a"), "b": room("b", over=True), "c": room("c")}
    with pytest.raises(ServerTrouble, match=r"ws://there: no server there for 100 s; battles without a result: 2;"):
        asyncio.run(player._stay())
    assert player.clock.slept == [1, 2, 4, 8, 16, 30, 30, 30]


def test_once_let_in_all_begins_anew(player):
    player.ps_client.connections = [(0, False), (0, False), (50, True), (LOGIN + 1, False), (5, True)]
    with pytest.raises(ServerTrouble, match="no server there"):
        asyncio.run(player._stay())
    assert player.clock.slept == [1, 2, 1, 2, 1, 2, 4, 8, 16, 30, 30, 30]
    assert not player.ps_client.logged_in.is_set()


@pytest.mark.parametrize(("seconds", "said"), [(LOGIN, "did not let 'Me' in within 20 s"), (LOGIN - 1, "no server")])
def test_a_server_that_listens_to_us_without_letting_us_in_is_not_tried_again(player, seconds, said):
    player.ps_client.connections = [(seconds, False)]
    with pytest.raises(ServerTrouble, match=said):
        asyncio.run(player._stay())


def test_back_after_a_break_it_goes_on_where_it_was(player):
    player.rooms = {"a": room("battle-a"), "b": room("battle-b", over=True)}
    player.sought = 0
    player.ps_client.connections = [(0, True), (0, False), (0, True)]
    with pytest.raises(ServerTrouble):
        asyncio.run(player._stay())
    assert player.ps_client.said == [("/join battle-a",), ("gen1ou", "team")]


def test_who_is_not_let_in_hangs_up(player, monkeypatch):
    monkeypatch.setattr(connection, "LOGIN", 0.01)
    player.rooms, player.sought = {"a": room("battle-a")}, 0
    asyncio.run(player._come_in(True))
    assert player.ps_client.said == ["hung up"]


def test_a_battle_that_was_found_is_not_searched_again(player):
    player.begun, player.sought = 1, 0
    player.ps_client.logged_in.set()
    asyncio.run(player._come_in(True))
    assert player.ps_client.said == []


def test_each_battle_gets_a_team_that_is_drawn(player):
    player.teams = [SimpleNamespace(packed=name) for name in ("one", "two")]
    assert {player.next_team for _ in range(40)} == {"one", "two"}


def test_a_player_that_closes_does_not_come_back(player):
    async def leave():
        player.closing = True

    player.ps_client.listen = leave
    asyncio.run(asyncio.wait_for(player._stay(), 1))
    assert player.clock.slept == []


async def finished(player, work, *events):
    """Does the work while we are let in and these things happen; fails where it is not done by then."""

    async def let_in():
        player.ps_client.logged_in.set()

    task = asyncio.create_task(work)
    for event in (let_in, *events):
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        await asyncio.wait_for(event(), 1)
    await asyncio.wait_for(task, 1)


async def end(player):
    player._battle_count_queue.get_nowait()
    player._battle_count_queue.task_done()


@pytest.mark.parametrize("breaks", [False, True])
def test_a_search_is_over_with_its_battle_whatever_breaks(player, breaks):
    async def battle():
        player._battle_count_queue.put_nowait(None)
        await begin(player)

    player.begun, player.ps_client.breaks = 2, breaks
    asyncio.run(finished(player, player._seek(), battle, lambda: end(player)))
    assert player.ps_client.said == ([] if breaks else [("gen1ou", "team")])
    assert player.sought == 2


def test_a_search_that_finds_no_battle_is_made_again_and_leaves_none_behind(player):
    async def refused():
        while len(player.ps_client.said) < 3:
            await asyncio.sleep(0.005)

    async def battle():
        player._battle_count_queue.put_nowait(None)
        await begin(player)

    asyncio.run(finished(player, player._seek(again=0.02), refused, battle, lambda: end(player)))
    assert set(player.ps_client.said[:-1]) == {("gen1ou", "team")}
    assert player.ps_client.said[-1] == ("/cancelsearch",)


@pytest.mark.parametrize("breaks", [False, True])
def test_a_challenge_is_made_until_its_battle_begins(player, breaks):
    async def later():
        await asyncio.sleep(0.01)
        while len(player.ps_client.said) < 2:
            await asyncio.sleep(0.005)
        player._battle_count_queue.put_nowait(None)
        await begin(player)

    player.ps_client.breaks = breaks
    asyncio.run(finished(player, player._challenge("You", 1, 0.02), later, lambda: end(player)))
    assert set(player.ps_client.said) == {("You", "gen1ou", "team")}
    assert len(player.ps_client.said) < 10


@pytest.mark.parametrize("breaks", [False, True])
def test_only_challenges_of_the_named_opponent_are_accepted_until_there_were_enough(player, breaks):
    async def later():
        player._battle_count_queue.put_nowait(None)
        await begin(player)

    player.ps_client.breaks = breaks
    for name in ("Somebody", "youtoo", "You Too", "You too!"):
        player._challenge_queue.put_nowait(name)
    work = player._accept("You Too", 1, 5.0 if not breaks else 0.02)
    asyncio.run(
        finished(player, work, *([] if not breaks else [lambda: asyncio.sleep(0.03)]), later, lambda: end(player))
    )
    assert player.ps_client.said == [("You Too" if breaks else "youtoo", "team")]
    assert player._challenge_queue.qsize() == (1 if breaks else 2)
