"""Battles recorded by the thousand, by a command that is stopped, killed and called again."""

import argparse
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from battle import import_inputlogs, selfplay
from battle.baselines import RandomAgent
from battle.errors import BattleError
from battle.teams import OWN
from data.replay_file import read_battle

pytestmark = pytest.mark.usefixtures("lent")

ROOT = Path(__file__).parents[2]


def arguments(out, battles, **changes):
    args = selfplay.parser().parse_args(
        [
            *("--players", "a=type_switch", "b=random:weight=0.5", "--formats", "gen1ou", "gen9randombattle"),
            *("--seed", "3", "--processes", "1", "--battles", str(battles), "--out", str(out)),
        ]
    )
    return argparse.Namespace(**(vars(args) | changes))


@pytest.mark.parametrize(
    ("option", "value", "mend"),
    [
        ("--explore", "2", "from 0 to 1"),
        ("--explore", "-1", "from 0 to 1"),
        ("--explore", "nan", "from 0 to 1"),
        ("--explore", "some", "from 0 to 1"),
        ("--battles", "0", "of 1 or more"),
        ("--draft", "-3", "of 0 or more"),
    ],
)
def test_selfplay_refuses_what_cannot_be(tmp_path, option, value, mend, capsys):
    command = ["--players", "random", "--formats", "gen1ou", "--battles", "1", "--out", str(tmp_path), option, value]
    with pytest.raises(SystemExit):
        selfplay.main(command)
    assert f"argument {option}: '{value}': give a " in (said := capsys.readouterr().err)
    assert mend in said


def test_a_stop_is_heard_at_once_while_teams_are_drafted(tmp_path, monkeypatch):
    """A hundred thousand drafts take hours, and SIGTERM waited for their end."""
    before, heard = signal.getsignal(signal.SIGTERM), []

    def drafted(*_):
        heard.append(signal.getsignal(signal.SIGTERM))
        raise KeyboardInterrupt

    monkeypatch.setattr(selfplay, "drafted", drafted)
    command = ["--players", "random", "--formats", "gen1ou", "--battles", "1", "--out", str(tmp_path), "--draft", "9"]
    assert selfplay.main(command) == 130
    assert heard == [before]


def test_selfplay_goes_on_where_it_was(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert selfplay.run(arguments(whole, 6))["battles"] == 6
    assert selfplay.run(arguments(parts, 4))["battles"] == 4
    assert selfplay.run(arguments(parts, 6))["battles"] == 2
    assert selfplay.run(arguments(parts, 6))["battles"] == 0

    def contents(root):
        return sorted(read_battle(path).actions for path in root.rglob("*.lz4"))

    assert contents(whole) == contents(parts)
    assert len(contents(whole)) == 12
    with pytest.raises(BattleError, match=r"begun with another players \(.* → a=random\), models, acts, code: repeat"):
        selfplay.run(arguments(parts, 8, players=["a=random"]))
    with pytest.raises(BattleError, match=r"begun with another turn_limit \(300 → 3\), teams: repeat"):
        selfplay.run(arguments(parts, 8, turn_limit=3, teams=OWN / "gen1ou" / "evaluation"))
    journal = parts / selfplay.JOURNAL
    head, *rest = journal.read_text().splitlines()
    older = {key: value for key, value in json.loads(head).items() if key not in ("turn_limit", "teams")}
    journal.write_text("\n".join([json.dumps(older), *rest]) + "\n")
    assert selfplay.run(arguments(parts, 6))["battles"] == 0


def test_recorded_battles_whose_files_were_moved_away_are_told(tmp_path, caplog):
    """They are not played again: without a word the command would record nothing and end well."""
    out = tmp_path / "out"
    assert selfplay.run(arguments(out, 4))["battles"] == 4
    assert selfplay.run(arguments(out, 4))["battles"] == 0
    assert caplog.text == ""
    (out / "gen1ou").rename(tmp_path / "gen1ou")
    assert selfplay.run(arguments(out, 5))["battles"] == 1
    assert f"{out / selfplay.JOURNAL}: counts 4 battles as recorded and 2 of them have no files there" in caplog.text


def test_selfplay_does_not_go_on_with_other_weights_under_the_same_name(tmp_path, monkeypatch):
    """A run that still trains, or was trained again, has other ones in its folder by then."""

    class Model(RandomAgent):
        network = torch.nn.Linear(2, 2)

    monkeypatch.setattr(selfplay, "make_player", lambda spec: Model())
    assert selfplay.run(arguments(tmp_path, 1, players=["runs/x"]))["battles"] == 1
    assert selfplay.run(arguments(tmp_path, 2, players=["runs/x"]))["battles"] == 1
    Model.network = torch.nn.Linear(2, 2)
    with pytest.raises(BattleError, match="begun with another models: repeat that command"):
        selfplay.run(arguments(tmp_path, 3, players=["runs/x"]))


HOLDER = """
import sys, time, pathlib
from data.lock import hold
held = hold(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("command", [selfplay, import_inputlogs])
def test_a_folder_is_one_commands_to_record_in(tmp_path, command, capsys):
    """Two at once would record each battle twice, under two dates."""
    out = tmp_path / "out"
    (tmp_path / "a.jsonl").write_text("")
    asked = {
        selfplay: ["--players", "random", "--formats", "gen1ou", "--battles", "1"],
        import_inputlogs: [str(tmp_path / "a.jsonl")],
    }[command]
    first = subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert first.stdout.readline() == b"held\n"
        assert command.main([*asked, "--out", str(out)]) == 1
        assert f"{out}: another command records there (process {first.pid} on " in capsys.readouterr().err
    finally:
        first.kill()
        first.wait(20)
    assert [path.name for path in out.iterdir()] == [".lock"]
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert command.main([*asked, "--out", str(blocked)]) == 1
    assert f"error: {blocked}: File exists: " in capsys.readouterr().err


@pytest.mark.slow
def test_selfplay_goes_on_after_a_kill_in_mid_line(tmp_path):
    """Each battle stands once, whatever was recorded and not noted, or noted by half."""
    journal = tmp_path / selfplay.JOURNAL
    selfplay.run(arguments(tmp_path, 4))
    kept = sorted(read_battle(path).actions for path in tmp_path.rglob("*.lz4"))
    lines = journal.read_text().splitlines()
    for path in list(tmp_path.rglob("*-0000003_*")):
        path.rename(path.with_name(re.sub(r"_\d\d-\d\d-\d{4}-[\d:]+_", "_01-01-2020-00:00:00_", path.name)))
    last = next(line for line in lines if '"battle": 3' in line)
    journal.write_text("\n".join(line for line in lines if line != last) + "\n" + last[:20])
    assert selfplay.run(arguments(tmp_path, 4))["battles"] == 1
    assert selfplay.run(arguments(tmp_path, 4))["battles"] == 0
    assert sorted(read_battle(path).actions for path in tmp_path.rglob("*.lz4")) == kept
    assert [line for line in journal.read_text().splitlines() if '"battle": 3' in line][-1] == last

    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / selfplay.JOURNAL).write_text('{"run": "01')
    assert selfplay.run(arguments(empty, 1))["battles"] == 1
    assert selfplay.run(arguments(empty, 1))["battles"] == 0
