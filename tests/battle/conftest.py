"""One simulator for the tests of this room, and a server for those of live play; Node and the npm package must be there
(`make` sees to that)."""

from contextlib import suppress
from functools import partial

import pytest

from battle import ladder
from battle import simulator as simulators
from battle.live import LivePlayer
from battle.local_server import LocalServer
from battle.node_process import Worker
from battle.simulator import Simulator
from tests.battle.live_play import Watched
from trainer.world import free_port


@pytest.fixture(scope="session")
def simulator():
    with Simulator() as sim:
        yield sim


@pytest.fixture(scope="session")
def idle():
    """Node processes that are lent to no simulator now."""
    workers = []
    yield workers
    for worker in workers:
        worker.kill()


@pytest.fixture
def lent(idle):
    """Simulators are lent the Node processes that earlier ones have closed: a new one takes most of a second to start
    and to read the data of its first battle. Whoever tests the start or the end of one calls `lent.undo()`."""
    closed = set()  # once: what a simulator gave back may be another's by the next time

    def take():
        with suppress(IndexError):  # also where players in several threads take the last one
            while True:
                worker = idle.pop()
                if worker.process.poll() is None:
                    worker.restarts = 0
                    return worker
        return Worker()

    def close(sim):
        workers = [] if sim in closed else sim.workers
        closed.add(sim)
        sim.step = partial(pytest.fail, "a simulator was asked after its end")  # where its process would be gone
        for worker in workers:
            forget = [["drop", lane] for lane in worker.lanes]
            if worker.send(forget, sim.timeout) and worker.receive(sim.timeout):
                worker.lanes.clear()
                idle.append(worker)
            else:
                worker.kill()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulators, "Worker", take)
        patch.setattr(Simulator, "close", close)
        yield patch


@pytest.fixture(scope="session")
def server():
    """A server that outlives all battles of these tests."""
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
