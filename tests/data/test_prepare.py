"""`python -m data.prepare`: each option reaches what it names, and what is said when a command ends otherwise."""

import json
import logging
import os
from pathlib import Path

import pytest

from data import vocabulary
from data.index import cache_root
from data.prepare import main
from data.tokenizer import Tokenizer
from tests.battle_files import Style, make_battle, write_battle, write_battles

from .caches import age


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "i"))


@pytest.fixture
def folder(tmp_path):
    write_battles(tmp_path / "b", 6, formats=("gen1ou", "gen2ou"), style=Style(max_turns=6))
    return tmp_path / "b"


def test_a_reader_that_goes_away_is_no_fault(folder, monkeypatch, capsys):
    """A short answer was written at exit, with a word of Python's about the pipe and status 120."""
    for command in ("index", "stats"):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w", encoding="utf-8") as pipe, monkeypatch.context() as patch:
            patch.setattr("sys.stdout", pipe)
            assert main([command, str(folder)]) == 0
    assert capsys.readouterr().err == ""


def test_a_cap_on_the_size_holds_in_each_command(folder, tmp_path, capsys):
    file = next(folder.glob("*/*.lz4"))
    cap = ["--max-bytes", "100"]
    assert main(["encode", str(file), *cap]) == 1
    assert "over the cap of 100" in capsys.readouterr().err
    assert main(["verify", str(folder), *cap]) == 1
    assert "6 files, 0 sound, 6 bad" in capsys.readouterr().out
    assert main(["cache", "--from", str(folder), "--out", str(tmp_path / "c"), "--processes", "1", *cap]) == 1
    assert "none of its battles can be read" in capsys.readouterr().err


def test_a_battle_that_does_not_hold_together_is_named_with_its_file(tmp_path, capsys):
    battle = make_battle(3, "gen1ou", Style(max_turns=6))
    battle.actions[1] = 12
    file = write_battle(tmp_path, battle)
    for command in ("encode", "show"):
        assert main([command, str(file)]) == 1
        assert f"error: {file}: actions[1]: 12 is illegal" in capsys.readouterr().err


def test_encode_is_of_the_papers_space_unless_another_is_named(folder, capsys):
    file = str(next(folder.glob("*/*.lz4")))
    for options in ([], ["--space", "expanded"]):
        assert main(["encode", file, *options]) == 0
        text = json.loads(capsys.readouterr().out)["text"]
        assert (len(text[0].split()) == 87) == (not options)


def test_what_a_cache_is_asked_to_be_it_is(folder, tmp_path, capsys):
    battle = make_battle(7, "gen1ou", Style(max_turns=6))
    battle.actions[1] = 12
    write_battle(folder, battle)
    words = Tokenizer([*Tokenizer.load().words[2:], "frogs"])
    words.save(tmp_path / "v.json")
    asked = ["--formats", "gen1ou", "--space", "expanded", "--vocabulary", str(tmp_path / "v.json")]
    asked += ["--illegal-actions", "unrecorded", "--battles-per-shard", "3", "--processes", "1"]
    out = tmp_path / "c"
    assert main(["cache", "--from", str(folder), "--out", str(out), "--shard", "0/2", *asked]) == 0
    assert "other shares are missing" in capsys.readouterr().out
    assert main(["cache", "--from", str(folder), "--out", str(out), "--shard", "1/2", *asked]) == 0
    assert f"{out}: 4 battles" in (said := capsys.readouterr().out)
    assert "in 2 shards" in said
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["formats"], manifest["space"]) == ({"gen1ou": 4}, "expanded")
    assert manifest["vocabulary"] == words.hash
    # Unless asked for, an illegal action costs its battle.
    assert main(["cache", "--from", str(folder), "--out", str(tmp_path / "d"), "--processes", "1"]) == 0
    assert "7 battles" not in (said := capsys.readouterr().out)
    assert said.count("actions[1]: 12 is illegal") == 1
    assert main(["cache", "--from", str(folder), "--out", str(tmp_path / "e"), "--shard", "0/x"]) == 1
    assert "--shard is '0/x'; give i/n" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["index"], ["index", "--turns"], ["stats"]])
def test_formats_and_the_place_of_the_index_are_as_asked(folder, tmp_path, command, capsys):
    place = tmp_path / "elsewhere"
    assert main([*command, str(folder), "--formats", "gen2ou", "--cache-dir", str(place)]) == 0
    said = capsys.readouterr().out
    assert "gen2ou" in said
    assert "gen1ou" not in said
    assert any(place.iterdir())
    assert not cache_root(None).exists()


def test_an_index_tells_what_it_leaves_out_and_rejects(folder, capsys):
    (folder / "gen1ou" / "oops.json.lz4").write_bytes(b"")
    (folder / "gen1ou" / "x_1_a_vs_b_01-01-2024_WIN.json.lz4").write_bytes(b"no")
    assert main(["index", str(folder)]) == 0
    assert (
        "gen1ou: 4 battles, 0 of known length (0 turns)\n  left out gen1ou/oops.json.lz4: " in capsys.readouterr().out
    )
    assert main(["index", str(folder), "--turns"]) == 0
    said = capsys.readouterr().out
    assert "gen1ou: 4 battles, 3 of known length" in said
    assert "  rejected gen1ou/x_1_a_vs_b_01-01-2024_WIN.json.lz4: lz4: " in said


def test_a_rescan_trusts_no_folders_time(folder, capsys):
    age(folder)
    assert main(["index", str(folder)]) == 0
    write_battle(folder, make_battle(40, "gen1ou", Style(max_turns=6)))
    age(folder)
    capsys.readouterr()
    for more, found in (([], 3), (["--rescan"], 4)):
        assert main(["index", str(folder), *more]) == 0
        assert f"gen1ou: {found} battles" in capsys.readouterr().out


def test_stats_count_unknown_words_by_the_vocabulary_named(folder, tmp_path, capsys):
    battle = make_battle(7, "gen1ou", Style(max_turns=6))
    battle.states[0]["weather"] = "frogs"
    write_battle(folder, battle)
    Tokenizer([*Tokenizer.load().words[2:], "frogs"]).save(tmp_path / "v.json")
    assert main(["stats", str(folder), "--vocabulary", str(tmp_path / "v.json")]) == 0
    assert "unknown words 0 (" in capsys.readouterr().out


def test_what_is_fetched_and_pushed_is_as_asked(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("data.hub.download", lambda *told: asked.append(told))
    monkeypatch.setattr("data.hub.push", lambda *told, **more: asked.append((*told, more)) or "its address")
    assert main(["download", "--to", "d"]) == 0
    words = ["--repo", "me/x", "--revision", "v4", "--formats", "gen1ou", "gen9ou", "--subset", "s", "--unpack"]
    assert main(["download", *words, "--to", "d"]) == 0
    assert asked == [
        ("jakegrigsby/metamon-parsed-replays", "main", [], Path("d"), "", False),
        ("me/x", "v4", ["gen1ou", "gen9ou"], Path("d"), "s", True),
    ]
    asked.clear()
    for more in ([], ["--public"]):
        assert main(["push", "--from", "d", "--to", "me/x", "--licence", "mit", *more]) == 0
    assert asked == [(Path("d"), "me/x", "mit", {"private": private}) for private in (True, False)]
    assert capsys.readouterr().out == "its address\n" * 2


def test_nothing_to_verify_is_no_success(tmp_path, capsys):
    (tmp_path / "b" / "gen1ou").mkdir(parents=True)
    assert main(["verify", str(tmp_path / "b")]) == 1
    assert "0 files, 0 sound, 0 bad" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words", "kept"),
    [
        ([], ["old", "pikachu"], "1 kept from v.json"),
        (["--fresh"], ["pikachu"], "0 kept"),
        (["--base", "base.json"], ["based", "pikachu"], "1 kept from base.json"),
        (["--base", "base.json", "--fresh"], ["based", "pikachu"], "1 kept from base.json"),
        (["--showdown", "package"], ["old", "leftovers", "pikachu"], "1 kept from v.json"),
    ],
)
def test_whose_ids_a_vocabulary_keeps_and_whose_words_it_gets(tmp_path, monkeypatch, capsys, options, words, kept):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vocabulary, "poke_env_words", lambda: {"pikachu"})
    monkeypatch.setattr(vocabulary, "showdown_words", lambda folder: {"leftovers"} if str(folder) == "package" else {})
    monkeypatch.setattr(vocabulary, "build", lambda kept, *sources: [*kept, *sorted(set().union(*sources))])
    Tokenizer(["old"]).save("v.json")
    Tokenizer(["based"]).save("base.json")
    assert main(["vocabulary", "--out", "v.json", *options]) == 0
    assert Tokenizer.load("v.json").words[2:] == words
    assert f"v.json: {len(words) + 2} words ({kept}), 0 battle files" in capsys.readouterr().out


def test_every_corpus_gives_its_words_and_its_bad_files(tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setattr(vocabulary, "poke_env_words", set)
    for name in ("frogs", "toads"):
        battle = make_battle(4, "gen1ou", Style(max_turns=6))
        battle.states[0]["weather"] = name
        (write_battle(tmp_path / name, battle).parent / "oops.json.lz4").write_bytes(b"")
    out = tmp_path / "v.json"
    command = ["vocabulary", "--out", str(out), "--corpus", str(tmp_path / "frogs"), str(tmp_path / "toads")]
    with caplog.at_level(logging.WARNING):
        assert main(command) == 0
    assert {"frogs", "toads"} <= set(Tokenizer.load(out).words)
    assert "4 battle files, 2 bad" in capsys.readouterr().out
    for name in ("frogs", "toads"):
        assert f"left out: {tmp_path / name / 'gen1ou' / 'oops.json.lz4'}: " in caplog.text
