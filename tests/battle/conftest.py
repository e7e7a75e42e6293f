"""One simulator for the tests of this room, and a server for those of live play; Node and the npm package must be there
(`make` sees to that)."""

import pytest

from battle import ladder
from battle.live import LivePlayer
from battle.local_server import LocalServer
from battle.simulator import Simulator
from tests.battle.live_play import Watched
from trainer.world import free_port


@pytest.fixture(scope="session")
def simulator():
    with Simulator() as sim:
        yield sim


@pytest.fixture(scope="module")
def server():
    """A server that outlives these tests' battles."""
    with LocalServer(free_port()) as server:
        yield server


@pytest.fixture
def watched(monkeypatch):
    """All players; those whose agents are `Watched` note what they hear."""
    players = []

    class Player(LivePlayer):
        def __init__(self, agent, *rest, **more):
            agent.player = self
            super().__init__(agent, *rest, **more)
            players.append(self)  # whole: tests wait for it in another thread

        def _translate(self, room):
            told = room.lines, room.request
            event = super()._translate(room)
            if isinstance(self.agent, Watched):
                self.agent.heard.setdefault(room.tag, []).append((*told, event))
            return event

    monkeypatch.setattr(ladder, "LivePlayer", Player)
    return players
