"""Which battles an expression holds for, named: of folders, of one format's own folder, and of token caches."""

import pytest

from data.prepare import main
from data.replay_file import parse_name
from tests.battle_files import write_battles

from .caches import cache_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("listing") / "battles"
    write_battles(root, 24, seed=5)
    return root


@pytest.fixture
def named(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "cache"))

    def run(*command, status=0):
        capsys.readouterr()
        assert main(["list", *map(str, command)]) == status
        return capsys.readouterr().out.splitlines()

    return run


def holds(name):
    return name.result == "WIN" and name.format in ("gen1ou", "gen9ou")


CHOSEN = ("--filter", "won and format in ['gen1ou', 'gen9ou']")


def test_every_file_that_it_holds_for_is_named_and_can_be_opened(folder, named, monkeypatch):
    files = sorted(folder.glob("*/*.lz4"))
    expected = [str(file) for file in files if holds(parse_name(file))]
    assert 0 < len(expected) < len(files)
    assert named(folder, *CHOSEN) == expected
    assert sorted(named(folder)) == [str(file) for file in files]
    assert named(folder, "--formats", "gen9ou", *CHOSEN) == [name for name in expected if "/gen9ou/" in name]
    monkeypatch.chdir(folder / "gen9ou")
    assert named(".", *CHOSEN) == ["./" + name.rpartition("/")[2] for name in expected if "/gen9ou/" in name]


def test_a_caches_battles_are_named_as_their_files_were(folder, named, tmp_path):
    out = tmp_path / "made"
    cache_of(folder, out)
    below = len(str(folder)) + 1
    assert sorted(named(out, *CHOSEN)) == sorted(name[below:] for name in named(folder, *CHOSEN))
    assert {name.split("/")[0] for name in named(out, "--formats", "gen9ou")} == {"gen9ou"}


def test_none_is_told_by_the_status_and_a_slip_in_words(folder, named, capsys):
    assert named(folder, "--filter", "rating > 90000", status=1) == []
    assert main(["list", str(folder), "--filter", "ratng > 1"]) == 1
    assert "'ratng' is no column" in capsys.readouterr().err
