"""The command that plays live: its options, whom it plays, whose model, and the lead."""

import asyncio
import logging
import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from battle import ladder
from battle.baselines import RandomAgent
from battle.connection import ConnectedPlayer, NotTwice
from battle.live import LivePlayer
from battle.local_server import ServerTrouble
from battle.stop import Stop
from battle.teams import team_files
from data.observation import SPACES
from data.tokenizer import Tokenizer
from model.modeling_turnwise import TurnwiseConfig, TurnwiseForOfflineRL, preset
from tests.battle.live_play import Saboteur, against, play, recorded
from trainer.export import export_model

pytestmark = pytest.mark.usefixtures("lent")


@pytest.mark.timeout(60)
def test_a_name_that_the_server_refuses_is_said(server, monkeypatch):
    monkeypatch.setattr("battle.connection.LOGIN", 1.5)
    with pytest.raises(ServerTrouble, match=r"did not let 'A name of far too many letters' in .*: give a --name of at"):
        play(server.port, "A name of far too many letters")


@pytest.mark.parametrize(
    ("option", "mend"),
    [
        ("--port=99999999", "a port from 1 to 65535"),
        ("--battles=0", "a whole number of 1 or more"),
        ("--patience=nan", "a number of seconds, 0 or more"),
    ],
)
def test_a_count_or_port_that_cannot_be_is_refused(capsys, option, mend):
    with pytest.raises(SystemExit):
        ladder.main([option])
    assert f": give {mend}" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--out", "--replays"])
def test_a_folder_that_cannot_be_made_is_said_before_the_first_battle(server, tmp_path, capsys, option):
    (tmp_path / "file").write_text("")
    assert ladder.main(["--port", str(server.port), option, str(tmp_path / "file" / "folder")]) == 1
    assert f"error: {tmp_path / 'file' / 'folder'}: Not a directory: free some" in capsys.readouterr().err


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


def test_a_challenge_that_stands_is_not_made_again(monkeypatch):
    """The server answered each further one with a popup, two of them a second while a person made up their mind."""
    monkeypatch.setattr("battle.connection.LOST", 0.5)
    made = []

    async def meet():
        me = SimpleNamespace(
            begun=0, challenging=False, next_team=None, _format="gen9ou", _battle_count_queue=asyncio.Queue(),
            ps_client=SimpleNamespace(logged_in=asyncio.Event()),
        )  # fmt: skip

        async def challenge(*whom):
            made.append(whom)
            me.challenging = True

        async def begins(battles, within):
            await asyncio.sleep(0.01)

        me.ps_client.challenge, me._begins = challenge, begins
        me.ps_client.logged_in.set()
        challenging = asyncio.create_task(ConnectedPlayer._challenge(me, "Ann", 1, 1.0))
        await asyncio.sleep(0.1)
        assert made == [("Ann", "gen9ou", None)]
        me.challenging = False  # turned down, or taken back
        await asyncio.sleep(0.1)
        assert len(made) == 2
        await asyncio.sleep(0.5)  # no answer at all
        assert len(made) == 3
        me.begun = 1
        await challenging

    asyncio.run(meet())


def test_what_the_server_says_of_challenges(caplog):
    """As it says it to both (server/ladders-challenges.ts): one in another format was passed over without a word."""
    me = LivePlayer.__new__(LivePlayer)
    me.ps_client, me._format = SimpleNamespace(username="Turn A"), "gen9ou"
    me._challenge_queue, me.challenging = asyncio.Queue(), False

    def told(text):
        asyncio.run(me._handle_challenge_request(text.split("|")))
        return me.challenging

    assert told("|pm| Turn A| Ann|/challenge gen9ou|gen9ou|||")
    assert not told("|pm| Turn A| Ann|/challenge")
    told("|pm| Ann| Turn A|/challenge")
    told("|pm| Ann| Turn A|/challenge gen1ou|gen1ou|||")
    assert me._challenge_queue.empty()
    assert [record.getMessage() for record in caplog.records] == [
        "Ann challenges in gen1ou, and this plays gen9ou: left unanswered"
    ]
    told("|pm| Ann| Turn A|/challenge gen9ou|gen9ou|||")
    assert me._challenge_queue.get_nowait() == "Ann"
    assert not me.challenging


def test_a_word_of_the_servers_is_passed_on_once(caplog):
    log = logging.getLogger("once")
    log.addFilter(NotTwice())
    for words in ("nobody there", "nobody there", "nobody there", "another", "nobody there"):
        log.warning(words)
    assert caplog.messages == ["nobody there", "another", "nobody there"]


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    tokenizer, folder = Tokenizer.load(), tmp_path_factory.mktemp("model")
    sizes = {**preset("tiny"), "layout": SPACES["default"].layout, "vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    network = TurnwiseForOfflineRL(TurnwiseConfig(**sizes, vocabulary_hash=tokenizer.hash))
    for parameter in network.critics.parameters():  # fresh critics value everything alike
        torch.nn.init.normal_(parameter, std=0.1)
    export_model(network, tokenizer, folder)
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
@pytest.mark.parametrize("rule", ["random", "chosen", pytest.param("first", marks=pytest.mark.slow)])
def test_the_lead_follows_its_rule(server, tmp_path, saved_model, rule):
    (tmp_path / "team").mkdir()
    source = team_files("gen9ou", None, "training")[0]
    (tmp_path / "team" / source.name).write_bytes(source.read_bytes())
    agent = ladder.make_player(ladder.parse_player(str(saved_model)))
    valued, values_of = [], agent.lead_values
    agent.lead_values = lambda previews: valued.append((previews, values_of(previews))) or valued[-1][1]
    against(server.port, server.port, agent, tmp_path / "out", "--lead", rule, "--teams", str(tmp_path / "team"))
    battle, meta = recorded(tmp_path / "out")
    assert meta["lead"]["rule"] == rule
    place = meta["lead"]["place"]
    names = [block.split("\n")[0].split(" @ ")[0].split(" (")[0] for block in source.read_text().strip().split("\n\n")]
    cleaned = ["".join(c for c in name.lower() if c.isalnum()) for name in names]
    assert battle.states[0].player_active_pokemon.name == cleaned[place]
    if rule == "first":
        assert place == 0
    if rule == "chosen":
        ((previews, values),) = valued
        assert [row[0]["player_active_pokemon"]["name"] for row in previews] == cleaned
        assert [len(row) for row in previews] == [6] * 6
        assert place == np.argmax(values)
        assert np.diff(sorted(values))[-1] > 1e-3
    else:
        assert not valued
