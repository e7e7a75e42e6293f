"""A Showdown server of our own: its life, its port, and a battle on it by two commands."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from battle import ladder, local_server
from battle.local_server import LocalServer, ServerTrouble, listening
from data.replay_file import parse_name, read_battle
from trainer.world import free_port

ROOT = Path(__file__).parents[2]


HOST = """
import sys, time
from battle.local_server import LocalServer
with LocalServer(int(sys.argv[1])) as server:
    print(server.process.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.timeout(60)
def test_a_server_does_not_outlive_a_command_that_is_killed():
    port = free_port()
    command = subprocess.Popen([sys.executable, "-c", HOST, str(port)], cwd=ROOT, stdout=subprocess.PIPE)
    pid = int(command.stdout.readline())
    command.kill()
    command.wait(20)
    ended = time.monotonic() + 20
    while listening(port) and time.monotonic() < ended:
        time.sleep(0.05)
    if listening(port):
        os.kill(pid, signal.SIGKILL)
        pytest.fail("the server still listens")


def test_a_taken_port_is_said():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerTrouble, match=f"port {port} is taken"), LocalServer(port):
            pass


def test_a_checkout_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(local_server, "PACKAGE", tmp_path / "file")
    with pytest.raises(ServerTrouble, match=r"file/.*: cannot be written \(Not a directory\), where the local server"):
        LocalServer(free_port()).__enter__()


def test_a_public_server_needs_its_full_name_and_credentials(monkeypatch, capsys):
    monkeypatch.delenv("PS_USERNAME", raising=False)
    assert ladder.main(["--server", "somewhere"]) == 1
    assert "full address" in capsys.readouterr().err
    assert ladder.main(["--server", "wss://example.invalid/showdown/websocket"]) == 1
    assert "PS_USERNAME" in capsys.readouterr().err


def live(port, name, out, *more):
    base = ["--server", "local", "--port", str(port), "--format", "gen9ou", "--name", name, "--battles", "1"]
    args = ladder.parser().parse_args([*base, "--out", str(out), *more])
    return ladder.live(args)


@pytest.mark.timeout(120)
def test_live_battle_on_a_local_server(tmp_path):
    port, results = free_port(), {}
    with LocalServer(port):
        waiting = threading.Thread(
            daemon=True,
            target=lambda: results.update(
                a=live(port, "Turn A", tmp_path, "--agent", "type_switch", "--replays", str(tmp_path / "pages"))
            ),
        )
        waiting.start()
        results["b"] = live(
            port,
            "Turn B",
            tmp_path,
            "--agent",
            "random",
            "--mode",
            "challenge",
            "--opponent",
            "Turn A",
            "--lead",
            "random",
        )
        waiting.join(60)
    assert {results["a"][0], results["b"][0]} == {"won", "lost"}
    files = list((tmp_path / "gen9ou").glob("*.lz4"))
    assert len(files) == 2
    assert len({parse_name(path).battle_id for path in files}) == 1  # else they could lie on both sides of a split
    for path in files:
        battle = read_battle(path)
        assert min(battle.actions[:-1]) >= 0
        assert battle.states[-1].battle_won != battle.states[-1].battle_lost
        assert battle.states[0].opponent_teampreview
    assert "|win|" in next((tmp_path / "pages").glob("*.html")).read_text()
