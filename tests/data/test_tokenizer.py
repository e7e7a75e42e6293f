"""The vocabulary: fixed ids, reserved words, the reference's form, building."""

import json

import numpy as np
import pytest

from data import vocabulary
from data.prepare import main
from data.tokenizer import Tokenizer
from tests.battle_files import Style, make_battle, write_battle


def test_shipped_vocabulary_holds_the_game():
    tokenizer = Tokenizer.load()
    for word in (
        "<blank>",
        "<gen1ou>",
        "<gen9randombattle>",
        "leftovers",
        "rotomheat",
        "10000000voltthunderbolt",
        "snow",
    ):
        assert word in tokenizer
    assert tokenizer.words[0] == "<pad>"
    assert len(tokenizer) < 65_536
    assert not any("_" in word for word in tokenizer.words if not word.startswith("<"))


def test_unknown_words_map_to_the_reserved_id():
    tokenizer = Tokenizer(["a", "b"])
    ids = tokenizer.ids(["a", "frog", "b"])
    assert ids.dtype == np.uint16
    assert ids.tolist() == [2, 1, 3]
    assert tokenizer.words_of(ids) == ["a", "<unknown>", "b"]


def test_save_and_load_keep_ids_and_hash(tmp_path):
    tokenizer = Tokenizer(["b", "a", "<blank>"])
    tokenizer.save(tmp_path / "v.json")
    again = Tokenizer.load(tmp_path / "v.json")
    assert again.words == tokenizer.words
    assert again.hash == tokenizer.hash
    assert Tokenizer(["a", "b", "<blank>"]).hash != tokenizer.hash


def test_the_references_form_loads_in_its_order(tmp_path):
    (tmp_path / "v.json").write_text(json.dumps({"pikachu": 1, "<blank>": 0, "surf": 2}))
    assert Tokenizer.load(tmp_path / "v.json").words[2:] == ["<blank>", "pikachu", "surf"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "cannot be read"),
        ("[]", "neither"),
        ("{}", "neither"),
        ('{"a": 0, "b": 0}', "share an id"),
        ('{"kind": "turnwise-vocabulary", "version": 9, "words": []}', "another version"),
        ('{"kind": "turnwise-vocabulary", "version": 1, "words": ["a", "a"]}', "twice"),
        ('{"kind": "turnwise-vocabulary", "version": 1, "words": ["a b"]}', "white space"),
        ('{"kind": "turnwise-vocabulary", "version": 1, "words": [3]}', "no word"),
        ('{"kind": "turnwise-vocabulary", "version": 1, "words": ["<pad>"]}', "reserved"),
    ],
)
def test_bad_vocabularies_name_the_file_and_the_fault(tmp_path, content, match):
    (tmp_path / "v.json").write_text(content)
    with pytest.raises(ValueError, match=match) as error:
        Tokenizer.load(tmp_path / "v.json")
    assert "v.json" in str(error.value)


def test_missing_vocabulary_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        Tokenizer.load(tmp_path / "nowhere.json")


def test_building_keeps_the_ids_of_the_base():
    words = vocabulary.build(["zzz", "aaa"], {"new", "aaa"})
    assert words[:2] == ["zzz", "aaa"]
    assert "new" in words
    assert len(words) == len(set(words))


def test_the_command_adds_a_corpus_but_no_player(tmp_path, capsys):
    battle = make_battle(4, "gen1ou", Style(max_turns=8))
    battle.states[0]["weather"] = "frogs"
    battle.player = "Secretname"
    write_battle(tmp_path / "battles", battle)
    out = tmp_path / "v.json"
    assert main(["vocabulary", "--out", str(out), "--corpus", str(tmp_path / "battles")]) == 0
    built, shipped = Tokenizer.load(out), Tokenizer.load()
    assert "frogs" in built
    assert "secretname" not in {word.lower() for word in built.words}
    # Everything but the items comes from poke-env: shipped words that it lacks came from the simulator's package.
    assert len(set(shipped.words) - set(built.words)) < 0.15 * len(shipped)
    assert "frogs" not in shipped
    assert "1 battle files, 0 bad" in capsys.readouterr().out


def test_a_corpus_is_what_the_index_finds_and_never_nothing(tmp_path, capsys):
    """Formats may be links; archives are not read, which no word added would not tell."""
    battle = make_battle(4, "gen1ou", Style(max_turns=8))
    battle.states[0]["weather"] = "frogs"
    file = write_battle(tmp_path / "elsewhere", battle)
    (tmp_path / "battles").mkdir()
    (tmp_path / "battles" / "gen1ou").symlink_to(file.parent)
    (file.parent / "x_1_a_vs_b_01-01-2024_WIN.json.lz4").write_bytes(b"no")
    out = tmp_path / "v.json"
    assert main(["vocabulary", "--out", str(out), "--corpus", str(tmp_path / "battles")]) == 0
    assert "frogs" in Tokenizer.load(out)
    assert "2 battle files, 1 bad" in capsys.readouterr().out
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "gen1ou.tar.gz").write_bytes(b"")
    assert main(["vocabulary", "--out", str(out), "--corpus", str(tmp_path / "archives")]) == 1
    assert "holds 1 archives and no format folder" in capsys.readouterr().err


def test_rebuilding_the_shipped_vocabulary_changes_nothing(tmp_path):
    shipped = Tokenizer.load()
    shipped.save(tmp_path / "v.json")
    assert main(["vocabulary", "--out", str(tmp_path / "v.json")]) == 0
    assert Tokenizer.load(tmp_path / "v.json").hash == shipped.hash


def test_a_folder_that_is_no_package_is_refused(tmp_path, capsys):
    assert main(["vocabulary", "--out", str(tmp_path / "v.json"), "--showdown", str(tmp_path)]) == 1
    assert "npm install" in capsys.readouterr().err
