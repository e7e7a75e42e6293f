"""Live play when things go wrong: connections cut by a proxy in between, a server or a translator killed; the leads."""

import asyncio
import json
import selectors
import shutil
import socket
import threading
import time
from contextlib import ExitStack
from types import SimpleNamespace

import lz4.frame
import pytest

from battle import ladder, live
from battle.baselines import RandomAgent
from battle.connection import ConnectedPlayer
from battle.interface import bits_to_mask
from battle.live import LivePlayer
from battle.local_server import LocalServer, ServerTrouble
from battle.replay_page import replay_page
from battle.simulator import Event
from battle.stop import Stop
from battle.teams import team_files
from data.observation import SPACES
from data.replay_file import parse_name, read_battle
from data.tokenizer import Tokenizer
from model.modeling_turnwise import TurnwiseConfig, TurnwiseForOfflineRL, preset
from trainer.export import export_model
from trainer.setup import free_port


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


@pytest.fixture(scope="module")
def server():
    """A server that outlives these tests' battles."""
    with LocalServer(free_port()) as server:
        yield server


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
def test_a_name_that_the_server_refuses_is_said(server, monkeypatch):
    monkeypatch.setattr("battle.connection.LOGIN", 1.5)
    with pytest.raises(ServerTrouble, match=r"did not let 'A name of far too many letters' in .*: give a --name of at"):
        play(server.port, "A name of far too many letters")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--patience", "0.1"], "ws://127.0.0.1:1/showdown/websocket: no server there for 0 s"),
        (["--mode", "challenge"], "--mode challenge: name the --opponent"),
        (["--lead", "value"], "--lead value: random tells no values: give first or random, or a model as --agent"),
    ],
)
def test_an_end_before_there_was_a_connection_is_said(monkeypatch, capsys, options, said):
    monkeypatch.setenv("PS_USERNAME", "Somebody")
    monkeypatch.setenv("PS_PASSWORD", "secret")
    command = ["--server", "ws://127.0.0.1:1/showdown/websocket", "--agent", "random", *options]
    assert ladder.main(command) == 1
    assert f"error: {said}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "mend"), [("--port=99999999", "a port from 1 to 65535"), ("--battles=0", "a whole number of 1 or more")]
)
def test_a_count_or_port_that_cannot_be_is_refused(capsys, option, mend):
    with pytest.raises(SystemExit):
        ladder.main([option])
    assert f": give {mend}" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--out", "--replays"])
def test_a_folder_that_cannot_be_made_is_said_before_the_first_battle(server, tmp_path, capsys, option):
    (tmp_path / "file").write_text("")
    assert ladder.main(["--port", str(server.port), option, str(tmp_path / "file" / "folder")]) == 1
    assert f"error: {tmp_path / 'file' / 'folder'}: Not a directory: free some" in capsys.readouterr().out


class Watched(RandomAgent):
    """Plays at random; knows its player, and what its rooms' translator was told and said."""

    def __init__(self):
        super().__init__()
        self.left, self.heard, self.ended = {}, {}, []

    def choose(self, observations):
        for seen in observations:
            self.left[seen.lane] = seen.state["opponents_remaining"]
        return super().choose(observations)

    def end(self, lane):
        self.ended.append(lane)


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


def files(out):
    return [json.loads(lz4.frame.decompress(path.read_bytes())) for path in sorted(out.rglob("*.lz4"))]


@pytest.mark.timeout(180)
def test_a_translator_that_is_lost_is_told_the_battles_again(server, tmp_path, watched, simulator):
    class Killer(Watched):
        def choose(self, observations):
            chosen = super().choose(observations)
            # Both battles have something to forget, and only one of them will hear of the loss.
            if self.player.sim.restarts == 0 and len(self.left) == 2 and max(self.left.values()) < 6:
                self.player.sim.workers[0].process.kill()
            return chosen

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


@pytest.mark.timeout(180)
def test_a_battle_that_the_translator_fails_has_no_result(server, tmp_path, watched):
    class Fails(Watched):
        def choose(self, observations):
            if len(self.heard[observations[0].lane]) >= 5:
                sim = self.player.sim
                sim.step = lambda: [Event(event="void", lane=lane, message="on purpose") for lane in list(sim.home)]
            return super().choose(observations)

    agent = Fails()
    results = against(server.port, server.port, agent, tmp_path)
    assert results["a"] == ["void"]
    assert results["b"] in (["won"], ["lost"], ["tie"])
    assert len(agent.ended) == 1
    assert not list(tmp_path.rglob("*.lz4"))


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_an_opponent_who_leaves_is_waited_for_by_the_servers_timer(server, tmp_path):
    """Without one the battle, and the command, would last for as long as they stay away."""
    proxy = Proxy(server.port)
    proxy.start()
    pages = tmp_path / "pages"

    results = against(server.port, proxy.port, Saboteur({3}, proxy.cut), tmp_path, "--replays", str(pages))
    proxy.closing = True
    assert {results["a"][0], results["b"][0]} in ({"won", "lost"}, {"tie"})
    (page,) = (path.read_text() for path in pages.iterdir())
    assert page.count("|inactive|Battle timer is ON: inactive players will automatically lose") == 1


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_challenge_that_is_taken_back_keeps_no_other_waiting(server, tmp_path, monkeypatch):
    players = []

    class Wavers(LivePlayer):
        def __init__(self, *rest, **more):
            super().__init__(*rest, **more)
            players.append(self)

        async def _challenge(self, opponent, battles, again):
            while len(players) < 2 or not all(player.ps_client.logged_in.is_set() for player in players):
                await asyncio.sleep(0.02)
            await self.ps_client.challenge(opponent, self._format, self.next_team)
            await asyncio.sleep(0.3)
            await self.ps_client.send_message(f"/cancelchallenge {opponent}")
            await asyncio.sleep(0.7)  # by now the other has tried to accept it
            await super()._challenge(opponent, battles, 1.0)

        async def _handle_challenge_request(self, split_message):
            await asyncio.sleep(0.6)  # busy in another battle
            await super()._handle_challenge_request(split_message)

        async def _accept(self, opponent, battles, within):
            await super()._accept(opponent, battles, 1.0)

    monkeypatch.setattr(ladder, "LivePlayer", Wavers)
    results = against(server.port, server.port, RandomAgent(), tmp_path)
    assert {results["a"][0], results["b"][0]} in ({"won", "lost"}, {"tie"})


@pytest.mark.timeout(60)
def test_a_stop_lets_the_battle_under_way_end(server, tmp_path):
    """It was left, with no file and no word, and its opponent waited."""
    stop = Stop()
    agent = Saboteur({3}, lambda: setattr(stop, "asked", True))
    base = ["--port", str(server.port), "--format", "gen9ou", "--name", "Turn A", "--out", str(tmp_path)]
    rival = ("Turn B", "--mode", "challenge", "--opponent", "Turn A")
    threading.Thread(daemon=True, target=play, args=(server.port, *rival)).start()
    results = ladder.live(ladder.parser().parse_args([*base, "--battles", "5"]), agent, stop)
    assert len(results) == 1
    assert len(recorded(tmp_path)[0].states) > 3


def test_a_challenge_is_accepted_once_there_is_a_place_for_its_battle():
    """Accepted before, the battle would begin at once, and the opponent in it wait for another's end."""

    async def meet():
        me = SimpleNamespace(
            begun=0, next_team=None, ps_client=SimpleNamespace(logged_in=asyncio.Event()),
            _challenge_queue=asyncio.Queue(), _battle_count_queue=asyncio.Queue(1),
            _battle_end_condition=asyncio.Condition(),
        )  # fmt: skip

        async def accept(challenger, team):
            me.begun += 1
            me._battle_count_queue.put_nowait(challenger)

        async def begins(battles, within):
            assert me.begun == battles

        me.ps_client.accept_challenge, me._begins = accept, begins
        me.ps_client.logged_in.set()
        for name in ("Ann", "Bob"):
            me._challenge_queue.put_nowait(name)
        accepting = asyncio.create_task(ConnectedPlayer._accept(me, None, 2, 0))
        await asyncio.sleep(0.02)
        assert me.begun == 1
        assert me._battle_count_queue.get_nowait() == "Ann"
        async with me._battle_end_condition:
            me._battle_end_condition.notify_all()
        await asyncio.sleep(0.02)
        assert me.begun == 2
        accepting.cancel()

    asyncio.run(meet())


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


def test_a_hidden_battles_password_stays_out_of_the_names_of_files():
    player = SimpleNamespace(rooms={}, begun=0)
    LivePlayer._enter(player, "battle-gen9ou-7-hswhjcfkaypbnhe4vgwnmnrlpwvyzgxpw")
    (room,) = player.rooms.values()
    assert (room.name, room.tag.count("-")) == ("battle-gen9ou-7", 3)


@pytest.mark.timeout(60)
def test_a_battle_given_up_at_team_preview_is_won_and_has_no_file(server, tmp_path, monkeypatch):
    class Quits(LivePlayer):
        async def _send(self, room, choice):
            if self.username == "Turn B":
                await self.ps_client.send_message("/forfeit", room.tag)
            else:
                await super()._send(room, choice)

    monkeypatch.setattr(ladder, "LivePlayer", Quits)
    results = against(server.port, server.port, RandomAgent(), tmp_path)
    assert results == {"a": ["won"], "b": ["lost"]}
    assert not list(tmp_path.rglob("*.lz4"))


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


@pytest.mark.timeout(180)
def test_a_battle_that_is_hidden_goes_on_by_its_new_name(server, tmp_path, watched):
    class Hides(Watched):
        def choose(self, observations):
            (room,) = self.player.rooms.values()
            if len(room.view.states) == 4:
                message = self.player.ps_client.send_message("/hiddenroom", room.tag)
                sent.append(asyncio.get_running_loop().create_task(message))
            return super().choose(observations)

    agent, sent = Hides(), []
    results = against(server.port, server.port, agent, tmp_path)
    assert len(sent) == 1
    assert {results["a"][0], results["b"][0]} in ({"won", "lost"}, {"tie"})
    (room,) = agent.player.rooms.values()
    assert room.tag.startswith(f"{room.name}-")
    assert room.tag.endswith("pw")
    assert agent.ended == [room.name]
    assert (room.view.states, room.fed) == ([], [])
    assert not any(player.sim.home for player in watched)
    battle, meta = recorded(tmp_path)
    assert meta["refused"] == 0
    assert len(battle.states) > 4


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


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["restarted", pytest.param("left", marks=pytest.mark.slow)])
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


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "name", ["simple_heuristics", pytest.param("search:determinizations=1", marks=pytest.mark.slow)]
)
def test_an_agent_gets_the_lines_and_requests_that_it_wants(server, tmp_path, name):
    proxy = Proxy(server.port)
    proxy.start()
    agent, turns, heard, wrong = ladder.make_player(ladder.parse_player(name)), [], [], []
    choose = agent.choose

    def watch(observations):
        (seen,) = observations
        if seen.first:  # again after the cut: the server tells the battle from its beginning
            turns.clear()
        turns.extend(int(line[6:]) for line in seen.lines if line.startswith("|turn|"))
        heard.append((seen.first, list(turns), seen.request["side"]["name"], seen.seed))
        if len(heard) == 5:
            proxy.cut()
        (action,) = choose(observations)
        wrong.extend([action] if not seen.legal[action] else [])
        return [action]

    agent.choose = watch
    results = against(proxy.port, server.port, agent, tmp_path)
    proxy.closing = True
    assert {results["a"][0], results["b"][0]} in ({"won", "lost"}, {"tie"})
    assert [first for first, *_ in heard].count(True) == 2
    assert all(seen == list(range(1, len(seen) + 1)) for _, seen, *_ in heard)
    assert len(heard[-1][1]) > 5
    assert {name for _, _, name, _ in heard} == {"Turn A"}
    assert len({seed for *_, seed in heard} - {0}) == 1
    assert wrong == []
    battle, meta = recorded(tmp_path)
    assert meta["refused"] == 0
    assert len(battle.states) == len(heard) + 1


@pytest.mark.timeout(180)
def test_a_file_that_cannot_be_written_keeps_no_battle_waiting(server, tmp_path, caplog):
    (tmp_path / "gen9ou").write_text("a file where the folder of battle files belongs")
    results = against(server.port, server.port, RandomAgent(), tmp_path)
    assert {results["a"][0], results["b"][0]} in ({"won", "lost"}, {"tie"})
    assert "CannotRecord" in caplog.text


@pytest.mark.timeout(60)
def test_a_page_that_fails_costs_no_battle_its_file(server, tmp_path, monkeypatch, caplog):
    def fail(title, lines):
        raise ValueError("on purpose")

    monkeypatch.setattr(live, "replay_page", fail)
    against(server.port, server.port, RandomAgent(), tmp_path, "--replays", str(tmp_path / "pages"))
    assert "on purpose" in caplog.text
    assert recorded(tmp_path)


def test_a_page_tells_the_health_of_those_on_the_field():
    """A server may tell it of a bar of 48, with its colour; a cure and health on the bench are not the active one's."""
    field = ["|switch|p1a: Ann|Blissey|50/100 par", "|switch|p2a: Bob|Starmie|100/100", "|-damage|p2a: Bob|24/48g"]
    bench = ["|-curestatus|p1: Cat|slp|[silent]", "|-heal|p1: Cat|50/100|[silent]", "|-heal|p1: Dog|100/100|[silent]"]
    page = replay_page("", [*field, *bench, "|turn|2"])
    assert "Player 1: <b>Blissey</b> 50% par<" in page
    assert "Player 2: <b>Starmie</b> 50% <" in page


@pytest.mark.timeout(180)
def test_where_an_agent_fails_the_default_is_played_and_said(server, tmp_path, caplog):
    class Fails(Saboteur):
        def choose(self, observations):
            action = super().choose(observations)
            return [99] if self.asked == 6 else action

        def end(self, lane):
            raise KeyError(lane)

    def fail():
        raise RuntimeError("on purpose")

    agent = Fails({1, 4}, fail)
    results = against(server.port, server.port, agent, tmp_path)
    assert {results["a"][0], results["b"][0]} in ({"won", "lost"}, {"tie"})
    battle, meta = recorded(tmp_path)
    assert meta["refused"] == 3
    assert len(battle.states) == agent.asked + 1
    assert [place for place, action in enumerate(battle.actions[:-1]) if action < 0] == [0, 3, 5]
    assert "on purpose" in caplog.text


class Timed(LivePlayer):
    """Asks for the server's timer, which says after each request how long there is left."""

    async def _create_battle(self, split_message):
        battle = await super()._create_battle(split_message)
        await self.ps_client.send_message("/timer on", battle.battle_tag)
        return battle


@pytest.mark.timeout(180)
def test_a_choice_that_the_server_takes_back_is_made_again(server, tmp_path, monkeypatch):
    monkeypatch.setattr(ladder, "LivePlayer", Timed)

    class Switches(RandomAgent):
        def choose(self, observations):
            (seen,) = observations
            asked.append(seen)
            if len(asked) == 1:
                time.sleep(0.5)  # the timer's line stands between the request and what the server says of the choice
            return [4] if len(asked) == 1 else super().choose(observations)

    def team(name, lead):
        """One of our own teams with a Pokémon of it in front."""
        source = team_files("gen3ou", None, "training")[0].with_name(f"{name}.gen3ou_team")
        blocks = source.read_text().strip().split("\n\n")
        blocks.sort(key=lambda block: not block.startswith(lead))
        (tmp_path / name).mkdir()
        (tmp_path / name / source.name).write_text("\n\n".join(blocks) + "\n")
        return "--format", "gen3ou", "--teams", str(tmp_path / name)

    asked = []
    out = tmp_path / "out"
    against(server.port, server.port, Switches(), out, *team("cinder", "Metagross"), rival=team("drift", "Dugtrio"))
    first, again = asked[:2]
    assert [seen.retry for seen in asked[:3]] == [False, True, False]
    assert (again.first, again.raw, again.legal[:4].tolist()) == (False, first.raw, first.legal[:4].tolist())
    assert first.legal[4:9].any()
    assert not again.legal[4:9].any()
    (file,) = files(out)
    # The network sees the turn once, so the file holds it once.
    assert len(file["states"]) == len(asked) - sum(seen.retry for seen in asked) + 1
    assert file["actions"][0] in range(4)
    assert bits_to_mask(file["meta"]["request_legal"][0]).tolist() == again.legal.tolist()
    assert file["meta"]["refused"] == 0


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    tokenizer, folder = Tokenizer.load(), tmp_path_factory.mktemp("model")
    sizes = {**preset("tiny"), "layout": SPACES["default"].layout, "vocab_size": len(tokenizer)}
    export_model(TurnwiseForOfflineRL(TurnwiseConfig(**sizes, vocabulary_hash=tokenizer.hash)), tokenizer, folder)
    return folder


def test_a_run_that_still_trains_plays_by_its_newest_checkpoint(tmp_path, saved_model):
    for step, finished in ((1, True), (2, True), (3, False)):
        checkpoint = tmp_path / f"step_{step:08d}"
        (checkpoint / "model").mkdir(parents=True)
        (checkpoint / "model" / "config.json").write_text("{}")  # none that would load
        if finished:
            (checkpoint / "manifest.json").write_text("{}")
    shutil.copytree(saved_model, tmp_path / "step_00000002" / "model", dirs_exist_ok=True)
    assert ladder.make_player(ladder.parse_player(f"mine={tmp_path}")).name == "mine"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("rule", ["random", "value", pytest.param("first", marks=pytest.mark.slow)])
def test_the_lead_follows_its_rule(server, tmp_path, saved_model, rule):
    (tmp_path / "team").mkdir()
    source = team_files("gen9ou", None, "training")[0]
    (tmp_path / "team" / source.name).write_bytes(source.read_bytes())
    agent = ladder.make_player(ladder.parse_player(str(saved_model)))
    agent.decided = []
    decide = agent.decide
    agent.decide = lambda states: agent.decided.append((states[-1], decide(states))) or agent.decided[-1][1]
    against(server.port, server.port, agent, tmp_path / "out", "--lead", rule, "--teams", str(tmp_path / "team"))
    battle, meta = recorded(tmp_path / "out")
    assert meta["lead"]["rule"] == rule
    place = meta["lead"]["place"]
    names = [block.split("\n")[0].split(" @ ")[0].split(" (")[0] for block in source.read_text().strip().split("\n\n")]
    cleaned = ["".join(c for c in name.lower() if c.isalnum()) for name in names]
    assert battle.states[0].player_active_pokemon.name == cleaned[place]
    if rule == "first":
        assert place == 0
    if rule == "value":
        sums = {}
        for state, decision in agent.decided:  # 6 leads × 6 of the opponent's
            sums.setdefault(state["player_active_pokemon"]["name"], []).append(decision.values[agent.gamma])
        assert [len(values) for values in sums.values()] == [6] * 6
        assert max(sums, key=lambda name: sum(sums[name])) == cleaned[place]
    else:
        assert not agent.decided
