"""Live play for tests: two players on a local server, and a line between them that can be cut."""

import json
import selectors
import socket
import threading
import time

import lz4.frame

from battle import ladder
from battle.baselines import RandomAgent
from data.replay_file import read_battle


class Proxy(threading.Thread):
    """Passes bytes between its own port and the server's, until told to cut every connection."""

    def __init__(self, target):
        super().__init__(daemon=True)
        self.target, self.cuts, self.closing = target, 0, False
        self.cutting = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]

    def cut(self):
        """Cuts every connection, and returns once that is done."""
        self.cutting.set()
        while self.cutting.is_set():
            time.sleep(0.001)

    def run(self):
        selector, peers = selectors.DefaultSelector(), {}
        selector.register(self.listener, selectors.EVENT_READ)

        def hang_up(*ends):
            for end in ends:
                if peers.pop(end, None) is not None:
                    selector.unregister(end)
                    end.close()

        while not self.closing:
            for key, _ in selector.select(0.02):
                if key.fileobj is self.listener:
                    ends = self.listener.accept()[0], socket.create_connection(("127.0.0.1", self.target))
                    for end, other in zip(ends, reversed(ends), strict=True):
                        peers[end] = other
                        selector.register(end, selectors.EVENT_READ)
                elif key.fileobj in peers:
                    try:
                        data = key.fileobj.recv(1 << 16)
                        if data:
                            peers[key.fileobj].sendall(data)
                    except OSError:
                        data = b""
                    if not data:
                        hang_up(key.fileobj, peers[key.fileobj])
            if self.cutting.is_set():
                hang_up(*list(peers))
                self.cuts += 1
                self.cutting.clear()
        self.listener.close()


class Saboteur(RandomAgent):
    """Plays at random and, before it gives its answer to some decisions, does something to the line."""

    def __init__(self, at, deed):
        super().__init__()
        self.at, self.deed, self.asked = at, deed, 0

    def choose(self, observations):
        self.asked += 1
        if self.asked in self.at:
            self.deed()
        return super().choose(observations)


def play(port, name, *more, agent=None):
    base = ["--port", str(port), "--format", "gen9ou", "--name", name, "--battles", "1", "--agent", "random"]
    return ladder.live(ladder.parser().parse_args([*base, *more]), agent)


def against(port, opponent_port, agent, out, *more, rival=()):
    """One battle of "Turn A" (at `port`) against "Turn B" (at `opponent_port`); how it went for each."""
    results = {}
    challenge = ("Turn B", "--mode", "challenge", "--opponent", "Turn A", *rival)
    challenger = threading.Thread(daemon=True, target=lambda: results.update(b=play(opponent_port, *challenge)))
    challenger.start()
    results["a"] = play(port, "Turn A", "--out", str(out), *more, agent=agent)
    challenger.join(60)
    return results


def recorded(out):
    (path,) = (out / "gen9ou").glob("*.lz4")
    return read_battle(path), json.loads(lz4.frame.decompress(path.read_bytes()))["meta"]


class Watched(RandomAgent):
    """Plays at random; knows its player, and what its rooms' translator was told and said."""

    def __init__(self):
        super().__init__()
        self.heard, self.ended = {}, []

    def end(self, lane):
        self.ended.append(lane)


def files(out):
    return [json.loads(lz4.frame.decompress(path.read_bytes())) for path in sorted(out.rglob("*.lz4"))]
