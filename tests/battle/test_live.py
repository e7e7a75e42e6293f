"""Battles of live play: what the agent is told, what is kept of them, and what they survive."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from battle import ladder, live
from battle.baselines import RandomAgent
from battle.interface import bits_to_mask
from battle.live import LivePlayer
from battle.replay_page import replay_page
from battle.simulator import Event
from battle.teams import team_files
from tests.battle.live_play import Proxy, Saboteur, Watched, against, files, recorded

pytestmark = pytest.mark.usefixtures("lent")


@pytest.mark.slow
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


def test_a_hidden_battles_password_stays_out_of_the_names_of_files():
    player = SimpleNamespace(rooms={}, begun=0)
    LivePlayer._enter(player, "battle-gen9ou-7-hswhjcfkaypbnhe4vgwnmnrlpwvyzgxpw")
    (room,) = player.rooms.values()
    assert (room.name, room.tag.count("-")) == ("battle-gen9ou-7", 3)


def test_a_page_of_an_earlier_battle_of_that_number_stays(tmp_path):
    """Servers number their battles from 1, and each new one begins there."""
    player = SimpleNamespace(recorder=None, replays=tmp_path / "pages")
    event = SimpleNamespace(states=[b"{}"])
    for turn in (1, 2, 3):
        view = SimpleNamespace(close=lambda state: None)
        LivePlayer._record(player, SimpleNamespace(view=view, name="battle-gen1ou-7", history=[f"|turn|{turn}"]), event)
    pages = {path.name: path.read_text() for path in (tmp_path / "pages").iterdir()}
    assert sorted(pages) == ["battle-gen1ou-7-2.html", "battle-gen1ou-7-3.html", "battle-gen1ou-7.html"]
    assert "|turn|1" in pages["battle-gen1ou-7.html"]
    assert "|turn|3" in pages["battle-gen1ou-7-3.html"]


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
    fallen = [
        "|-end|p1a: Ann|fallen1|[silent]",
        "|-end|p1a: Ann|confusion",
    ]
    page = replay_page("", [*field, *bench, *fallen, "|turn|2"])
    assert "Ann: confusion ends" in page
    assert "fallen1 ends" not in page
    assert "Player 1: <b>Blissey</b> 50% par<" in page
    assert "Player 2: <b>Starmie</b> 50% <" in page


@pytest.mark.timeout(180)
def test_where_an_agent_fails_the_default_is_played_and_said(server, tmp_path, caplog):
    class Fails(Saboteur):
        def choose(self, observations):
            action = super().choose(observations)
            return [99] if self.asked == 6 else action

        def note_action(self, lane, action):
            told.append((self.asked, action))
            raise KeyError(lane)

        def end(self, lane):
            raise KeyError(lane)

    def fail():
        raise RuntimeError("on purpose")

    told = []
    agent = Fails({1, 4}, fail)
    results = against(server.port, server.port, agent, tmp_path)
    assert {results["a"][0], results["b"][0]} in ({"won", "lost"}, {"tie"})
    battle, meta = recorded(tmp_path)
    assert meta["refused"] == 3
    assert told == [(6, -1)]
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
