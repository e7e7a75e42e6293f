"""Live play while its connection, its server or its translator fails."""

import asyncio
import json
import threading
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from battle import ladder
from battle.baselines import RandomAgent
from battle.local_server import LocalServer, ServerTrouble
from data.replay_file import parse_name
from tests.battle.live_play import Proxy, Saboteur, Watched, against, files, play, recorded
from trainer.world import free_port

pytestmark = pytest.mark.usefixtures("lent")


@pytest.mark.timeout(180)
def test_a_battle_goes_on_after_its_connection_was_cut(server, tmp_path):
    proxy = Proxy(server.port)
    proxy.start()

    agent = Saboteur({3, 9}, proxy.cut)
    results = against(proxy.port, server.port, agent, tmp_path)
    proxy.closing = True
    assert proxy.cuts == 2
    assert {results["a"][0], results["b"][0]} in ({"won", "lost"}, {"tie"})
    battle, meta = recorded(tmp_path)
    assert meta["refused"] == 0
    # What was decided before a cut is sent again, not decided and recorded again.
    assert len(battle.states) == agent.asked + 1
    assert agent.asked > 9
    assert min(battle.actions[:-1]) >= 0
    assert battle.states[-1].battle_won == (results["a"] == ["won"])


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_server_that_goes_for_good_is_said_and_leaves_no_result(tmp_path):
    with LocalServer(free_port()) as server:

        def kill():
            server.process.kill()
            server.process.wait()

        def challenge():
            with pytest.raises(ServerTrouble):
                play(server.port, "Turn B", "--mode", "challenge", "--opponent", "Turn A", "--patience", "2")

        opponent = threading.Thread(daemon=True, target=challenge)
        opponent.start()
        agent = Saboteur({4}, kill)
        said = "no server there for 2 s; battles without a result: 1; start the server"
        with pytest.raises(ServerTrouble, match=said):
            play(server.port, "Turn A", "--out", str(tmp_path), "--patience", "2", agent=agent)
        opponent.join(30)
    assert not opponent.is_alive()
    assert not list(tmp_path.rglob("*.lz4"))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--patience", "0.1"], "ws://127.0.0.1:1/showdown/websocket: no server there for 0 s"),
        (["--mode", "challenge"], "--mode challenge: name the --opponent"),
        (["--lead", "chosen"], "--lead chosen: random chooses no lead: give first or random, or a model as --agent"),
    ],
)
def test_an_end_before_there_was_a_connection_is_said(monkeypatch, capsys, options, said):
    monkeypatch.setenv("PS_USERNAME", "Somebody")
    monkeypatch.setenv("PS_PASSWORD", "secret")
    command = ["--server", "ws://127.0.0.1:1/showdown/websocket", "--agent", "random", *options]
    assert ladder.main(command) == 1
    assert f"error: {said}" in capsys.readouterr().err


@pytest.mark.timeout(180)
def test_a_translator_that_is_lost_is_told_the_battles_again(server, tmp_path, watched, simulator):
    class Killer(Watched):
        def __init__(self):
            super().__init__()
            self.asked = Counter()

        def choose(self, observations):
            self.asked.update(seen.lane for seen in observations)
            # Both battles have something to forget, and only one of them will hear of the loss.
            if self.player.sim.restarts == 0 and len(self.asked) == 2 and min(self.asked.values()) >= 10:
                self.player.sim.workers[0].process.kill()
            return super().choose(observations)

    agent, results = Killer(), {}

    def challenge(name):
        results[name] = play(server.port, name, "--mode", "challenge", "--opponent", "Turn A")

    challengers = [threading.Thread(daemon=True, target=challenge, args=(f"Turn {name}",)) for name in "BC"]
    for one in challengers:
        one.start()
    won = play(server.port, "Turn A", "--out", str(tmp_path), "--battles", "2", agent=agent)
    for one in challengers:
        one.join(60)
    assert agent.player.sim.restarts == 1
    assert sorted(won) == sorted({"won": "lost", "lost": "won"}.get(result, result) for (result,) in results.values())
    recorded = {json.dumps(file["states"]): file["meta"] for file in files(tmp_path)}
    assert [meta["refused"] for meta in recorded.values()] == [0, 0]
    # A translator that nothing happens to says the same of both battles, state for state.
    for lane, heard in agent.heard.items():
        states = []
        for lines, request, event in heard:
            simulator.command("feed", lane, "gen9ou", lines, request)
            (whole,) = simulator.step()
            assert (event.event, bytes(event.state), event.choices) == (whole.event, bytes(whole.state), whole.choices)
            states += [json.loads(bytes(state)) for state in [whole.state, *whole.states] if bytes(state)]
        assert json.dumps(states) in recorded


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_challenge_that_meets_a_break_is_made_again(server, tmp_path, watched):
    proxy = Proxy(server.port)
    proxy.start()
    rival = threading.Thread(
        daemon=True, target=play, args=(proxy.port, "Turn B", "--mode", "challenge", "--opponent", "Turn A")
    )
    rival.start()
    while not (watched and watched[0].ps_client.logged_in.is_set()):
        time.sleep(0.02)
    proxy.cut()
    noticed = time.monotonic() + 0.8  # before it tries again, a second after the break
    while watched[0].ps_client.logged_in.is_set() and time.monotonic() < noticed:
        time.sleep(0.01)
    assert not watched[0].ps_client.logged_in.is_set()  # so no challenge is sent down a line that is gone
    assert len(play(server.port, "Turn A", "--out", str(tmp_path))) == 1
    proxy.closing = True
    rival.join(20)
    assert not rival.is_alive()


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_battle_that_ends_while_the_connection_is_cut_counts(server, tmp_path, watched):
    proxy = Proxy(server.port)
    proxy.start()

    def cut():
        proxy.cut()
        (rival,) = (player for player in watched if player.username == "Turn B")
        message = rival.ps_client.send_message("/forfeit", *rival.rooms)
        sent.append(asyncio.get_running_loop().create_task(message))

    sent = []
    results = against(proxy.port, server.port, Saboteur({3}, cut), tmp_path)
    proxy.closing = True
    assert results == {"a": ["won"], "b": ["lost"]}
    assert not list(tmp_path.rglob("*.lz4"))


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_search_on_the_ladder_is_made_again_after_a_break(tmp_path, watched):
    results = {}

    def seek(name):
        agent = RandomAgent()
        results[name] = play(server.port, name, "--mode", "ladder", "--out", str(tmp_path / name), agent=agent)

    with ExitStack() as servers:
        server = servers.enter_context(LocalServer(free_port()))
        first, second = (threading.Thread(daemon=True, target=seek, args=(f"Turn {name}",)) for name in "AB")
        first.start()
        while not (watched and watched[0].sought == 0):
            time.sleep(0.05)
        server.__exit__()
        servers.enter_context(LocalServer(server.port))
        second.start()
        first.join(100)
        second.join(20)
    assert {results["Turn A"][0], results["Turn B"][0]} in ({"won", "lost"}, {"tie"})
    # A server's ladder begins at 1000, and says so.
    names = [parse_name(path) for path in tmp_path.rglob("*.lz4")]
    assert [(name.rated, name.rating) for name in names] == [(True, 1000)] * 2


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["restarted", "left"])
def test_a_battle_that_the_server_no_longer_has_is_void(tmp_path, watched, how):
    class Ends(Watched):
        asked = 0

        def choose(self, observations):
            self.asked += 1
            if observations[0].first:
                self.before = self.asked - 1
            if self.asked == 4 and how == "restarted":
                server.__exit__()
                servers.enter_context(LocalServer(server.port))
            elif self.asked == 4:
                for player in watched:
                    message = player.ps_client.send_message(f"/leave {observations[0].lane}")
                    sent.append(asyncio.get_running_loop().create_task(message))
            return super().choose(observations)

    agent, sent = Ends(), []
    with ExitStack() as servers:
        server = servers.enter_context(LocalServer(free_port()))
        both = "--battles", "2"
        results = against(server.port, server.port, agent, tmp_path, *both, rival=both)
    # The battle after it is played to its end, and is the only one with a result and a file.
    assert [result for result, _ in results.values()] == ["void", "void"]
    assert {result for _, result in results.values()} in ({"won", "lost"}, {"tie"})
    assert len(agent.ended) == 2
    battle, _ = recorded(tmp_path)
    assert len(battle.states) == agent.asked - agent.before + 1
