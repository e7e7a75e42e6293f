"""The command that plays live, without a server: where it goes, as whom, whom it plays, and how it ends."""

import asyncio
import concurrent.futures
import contextlib
import json
from types import SimpleNamespace

import pytest

from battle import ladder
from battle.errors import BattleError
from battle.stop import Stop


def asked_for(*words):
    return ladder.parser().parse_args(words)


@pytest.mark.parametrize(("option", "good"), [("--port", ["1", "65535"]), ("--patience", ["0", "2.5"])])
def test_ports_and_waits_that_can_be(option, good):
    assert [vars(asked_for(option, text))[option[2:]] for text in good] == [float(text) for text in good]


@pytest.mark.parametrize(
    ("option", "bad"), [("--port", ["0", "65536", "-1", "x"]), ("--patience", ["-1", "inf", "nan", "x"])]
)
def test_ports_and_waits_that_cannot_be(option, bad, capsys):
    for text in bad:
        with pytest.raises(SystemExit):
            asked_for(f"{option}={text}")
        assert f"argument {option}: '{text}': give a " in capsys.readouterr().err


def test_a_local_server_asks_no_password():
    where, account = ladder.address(asked_for("--port", "8123", "--name", "Me"))
    assert where.websocket_url == "ws://127.0.0.1:8123/showdown/websocket"
    assert (account.username, account.password) == ("Me", None)


def test_a_public_server_is_joined_by_its_address_and_ones_own_account_alone(monkeypatch, capsys):
    for name in ("PS_USERNAME", "PS_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BattleError, match="give `local` or a full address"):
        ladder.address(asked_for("--server", "example.org"))
    public = asked_for("--server", "wss://example.org/showdown/websocket", "--name", "Other")
    for name in ("PS_USERNAME", "PS_PASSWORD"):
        with pytest.raises(BattleError, match="set PS_USERNAME and PS_PASSWORD"):
            ladder.address(public)
        monkeypatch.setenv(name, name.lower())
    where, account = ladder.address(public)
    assert where.websocket_url == "wss://example.org/showdown/websocket"
    assert where.authentication_url == "https://play.pokemonshowdown.com/action.php?"
    assert (account.username, account.password) == ("ps_username", "ps_password")
    assert "Joining wss://example.org/showdown/websocket as ps_username. Bots" in capsys.readouterr().out
    assert ladder.address(asked_for("--server", "ws://example.org/"))[0].websocket_url == "ws://example.org/"


class Player:
    """Notes what it is told to do."""

    def __init__(self):
        self.done = []

    async def seek(self):
        self.done.append("seek")

    async def challenge(self, opponent, number, again):
        self.done.append((opponent, number, again))

    async def accept(self, opponent, battles):
        self.done.append((opponent, battles))


@pytest.mark.parametrize(
    ("words", "done"),
    [
        (["--mode=ladder", "--battles=2"], ["seek", "seek"]),
        (["--mode=ladder", "--battles=3", "--server=wss://x"], ["seek", 10.0, "seek", 10.0, "seek"]),
        (["--mode=challenge", "--battles=2", "--opponent=Ann"], [("Ann", 1, 1.0), ("Ann", 2, 1.0)]),
        (["--mode=challenge", "--opponent=Ann", "--server=wss://x"], [("Ann", 1, 5.0)]),
        (["--battles=2"], [(None, 2)]),
        (["--opponent=Ann"], [("Ann", 1)]),
    ],
)
def test_whom_it_plays_and_how_often(monkeypatch, words, done):
    """On a public server no faster than a person would."""
    player = Player()

    async def sleep(seconds):
        player.done.append(seconds)

    monkeypatch.setattr(ladder.asyncio, "sleep", sleep)
    asyncio.run(ladder.go(player, asked_for(*words)))
    assert player.done == done


class Fake:
    """A player that waits until it is told to play out; `made` holds what each was made of."""

    made = None
    under_way = 1

    def __init__(self, *rest, **more):
        self.rest, self.more, self.done, self.results = rest, more, [], ["won", "won", "lost", "void"]
        self.connection = concurrent.futures.Future()
        self.made.append(self)

    async def accept(self, opponent, battles):
        self.done.append("accept")
        try:
            await asyncio.sleep(30 if battles > 1 else 0)
        except asyncio.CancelledError:
            self.done.append("accept no more")
            raise

    async def seek(self):
        self.done.append("seek")

    async def challenge(self, opponent, number, again):
        self.done.append("challenge")

    async def play_out(self):
        self.done.append("play out")

    async def close(self):
        self.done.append("close")


@pytest.fixture
def fake(monkeypatch):
    """The command with a player of ours, no simulator and no server; what it asked for."""
    told = SimpleNamespace(served=[], checked=[], loaded=[], made=[])

    class Simulator:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def check_formats(self, names):
            told.checked += names

    class Server(Simulator):
        def __init__(self, port):
            told.served.append(port)

    monkeypatch.setattr(Fake, "made", told.made)
    monkeypatch.setattr(ladder, "LivePlayer", Fake)
    monkeypatch.setattr(ladder, "Simulator", Simulator)
    monkeypatch.setattr(ladder, "LocalServer", Server)
    monkeypatch.setattr(ladder, "listening", lambda port: port == 8001)
    monkeypatch.setattr(ladder, "load_teams", lambda sim, *asked: told.loaded.append(asked) or ["team"])
    return told


def test_what_the_command_is_told_reaches_the_player(fake, tmp_path, capsys):
    words = ["--agent=me=boss", "--format=gen1ou", "--name= The  one ", "--lead=random", "--patience=7", "--port=8002"]
    words += [f"--{name}={tmp_path / 'new' / name}" for name in ("teams", "out", "replays")]
    assert ladder.main(words) == 0
    (player,) = fake.made
    agent, _, teams, *rest = player.rest
    assert (agent.name, teams) == ("me", ["team"])
    assert rest == [tmp_path / "new" / "out", tmp_path / "new" / "replays", "random", 7.0]
    assert player.more["account_configuration"].username == "The one"
    assert player.more["server_configuration"].websocket_url.startswith("ws://127.0.0.1:8002/")
    assert player.more["battle_format"] == "gen1ou"
    assert (fake.checked, fake.loaded) == (["gen1ou"], [("gen1ou", tmp_path / "new" / "teams")])
    assert (tmp_path / "new" / "out").is_dir()
    assert (tmp_path / "new" / "replays").is_dir()
    waits, counts = capsys.readouterr().out.splitlines()
    assert waits == "The one waits for challenges in gen1ou: open http://localhost:8002 and /challenge The one, gen1ou"
    assert json.loads(counts) == {"won": 2, "lost": 1, "tie": 0, "void": 1}
    assert player.done == ["accept", "close"]


@pytest.mark.parametrize(
    ("words", "timer"),
    [(["--mode=ladder"], True), (["--server=ws://there/"], True), (["--mode=challenge", "--opponent=You"], False)],
)
def test_only_who_plays_strangers_asks_for_the_timer(fake, monkeypatch, words, timer):
    for name in ("PS_USERNAME", "PS_PASSWORD"):
        monkeypatch.setenv(name, name)
    assert ladder.main(["--port=8001", *words]) == 0
    assert fake.made[0].more["timer"] is timer


def test_a_server_is_started_only_where_none_is(fake, monkeypatch, capsys):
    for port in ("8000", "8001"):
        assert ladder.main(["--port", port]) == 0
    assert fake.served == [8000]
    monkeypatch.setenv("PS_USERNAME", "me")
    monkeypatch.setenv("PS_PASSWORD", "secret")
    capsys.readouterr()
    assert ladder.main(["--server", "wss://example.org/"]) == 0
    assert fake.served == [8000]
    assert "waits for challenges" not in (said := capsys.readouterr().out)
    assert "secret" not in said
    assert ladder.main(["--mode", "ladder"]) == 0
    assert "challenges" not in capsys.readouterr().out
    assert ladder.main(["--mode", "challenge", "--opponent", "You"]) == 0  # who may never accept
    assert "Turnwise challenges You in gen9randombattle until they accept" in capsys.readouterr().out


def test_a_chosen_lead_wants_an_agent_that_chooses(fake, capsys):
    assert ladder.main(["--lead", "chosen", "--agent", "random"]) == 1
    assert "--lead chosen: random chooses no lead" in capsys.readouterr().err
    assert not fake.made


class Stopped(Stop):
    asked = True


def test_a_stop_plays_out_what_is_under_way_and_is_told_by_the_status(fake, monkeypatch, caplog):
    monkeypatch.setattr(ladder, "listen", lambda: contextlib.nullcontext(Stopped()))
    assert ladder.main(["--battles", "9"]) == 130
    assert fake.made[0].done == ["accept", "accept no more", "play out", "close"]
    assert caplog.text.count("stopped; battles that are played out: 1") == 1


def test_a_second_ctrl_c_waits_for_no_battle(fake, monkeypatch, caplog, capsys):
    async def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(ladder, "listen", lambda: contextlib.nullcontext(Stopped()))
    monkeypatch.setattr(Fake, "play_out", interrupted)
    assert ladder.main(["--battles", "9"]) == 130
    assert "stopped at once; battles without a result: 1" in caplog.text
    assert '"won": 2' in capsys.readouterr().out


def test_a_challenge_names_its_opponent_before_anybody_connects(fake, capsys):
    assert ladder.main(["--mode", "challenge"]) == 1
    assert "error: --mode challenge: name the --opponent" in capsys.readouterr().err
    assert ladder.main(["--mode", "ladder", "--opponent", "Somebody"]) == 1
    assert "error: --mode ladder: its server chooses whom to play: leave --opponent out" in capsys.readouterr().err
    assert not fake.made


def test_what_ends_the_connection_ends_the_command(fake, monkeypatch, capsys):
    async def lost(self, opponent, battles):
        self.connection.set_exception(BattleError("the server is gone"))
        await asyncio.sleep(30)

    monkeypatch.setattr(Fake, "accept", lost)
    assert ladder.main([]) == 1
    assert "error: the server is gone" in capsys.readouterr().err
    assert fake.made[0].done == ["close"]
