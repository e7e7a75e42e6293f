"""The commands that look at data: index, stats, show, verify; and the import directions inside the room."""

import ast
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import lz4.frame
import pytest

from data.dataset import BattleDataset, DataConfig
from data.folders import DataError
from data.prepare import main
from data.replay_file import BadBattleFile
from data.tokenizer import Tokenizer
from data.verify import verify_file
from tests.battle_files import Style, make_battle, write_battle, write_battles

from .caches import tar_of
from .shared import shared_folder

ROOM = Path(__file__).parents[2] / "data"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    write_battles(tmp_path / "b", 20, seed=60)
    return tmp_path / "b"


def test_generated_battles_are_sound(folder, capsys):
    assert main(["verify", str(folder)]) == 0
    assert "20 files, 20 sound, 0 bad" in capsys.readouterr().out


def test_a_folder_may_be_named_from_within(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder / "gen1ou")
    assert main(["verify", "."]) == 0
    assert " 0 bad" in capsys.readouterr().out
    assert main(["stats", ".", "--json", "../s.json"]) == 0
    assert json.loads((folder / "s.json").read_text())["formats"] == {"gen1ou": 4}


def test_real_battles_are_sound():
    for file in sorted(shared_folder("battles").glob("*/*.lz4"))[::40]:
        assert verify_file(file) is None


def test_verify_names_every_bad_file(folder, capsys):
    files = sorted(folder.glob("*/*.lz4"))
    files[0].write_bytes(b"")
    (folder / "gen1ou" / "oops.json.lz4").write_bytes(b"")
    battle = make_battle(7, "gen1ou", Style(max_turns=5))
    battle.states[2]["player_active_pokemon"]["item"] = "Life Orb"
    wordy = write_battle(folder, battle)
    assert main(["verify", str(folder)]) == 1
    out = capsys.readouterr().out
    assert f"{files[0]}: lz4: ends" in out
    assert "oops.json.lz4: name: splits into 1" in out
    assert f"{wordy}: states[2].player_active_pokemon.item: 'Life Orb'" in out
    assert "22 files, 19 sound, 3 bad" in out


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda s: s[1].update(weather="Rain Dance"), "states[1].weather"),
        (lambda s: s[1]["player_active_pokemon"].update(types="water fire"), "types"),
        (lambda s: s[1]["player_active_pokemon"].update(status="tired"), "status"),
        (lambda s: s[1]["player_prev_move"].update(category="magic"), "category"),
        (lambda s: s[1].update(format="gen2ou"), "states[1].format"),
        (lambda s: s[0]["player_active_pokemon"]["moves"][0].pop("max_pp"), "moves[0]"),
        (lambda s: s[0]["available_switches"][0].pop("base_atk"), "available_switches[0]"),
        (lambda s: s[1].update(battle_field="Trick Room"), "states[1].battle_field"),
        (lambda s: s[1].update(player_conditions="spikes,reflect"), "states[1].player_conditions"),
        (lambda s: s[1].update(opponent_conditions=""), "states[1].opponent_conditions"),
        (lambda s: s[1].update(opponent_teampreview=["snorlax", "Mr. Mime"]), "states[1].opponent_teampreview[1]"),
        (lambda s: s[1].update(opponent_teampreview=["snorlax"] * 7), "states[1].opponent_teampreview"),
        (lambda s: s[1]["opponent_prev_move"].update(name="Body Slam"), "states[1].opponent_prev_move.name"),
        (lambda s: s[1]["player_prev_move"].update(move_type="???"), "states[1].player_prev_move.move_type"),
        (lambda s: s[1]["opponent_active_pokemon"].update(ability="Thick Fat"), "opponent_active_pokemon.ability"),
        (lambda s: s[1]["available_switches"][1].update(status="tired"), "available_switches[1].status"),
        (lambda s: s[1]["player_active_pokemon"].update(name="Snorlax"), "player_active_pokemon.name"),
        (lambda s: s[1]["player_active_pokemon"].update(base_species="rotom-"), "player_active_pokemon.base_species"),
        (lambda s: s[1]["player_active_pokemon"].update(effect="leech_seed"), "player_active_pokemon.effect"),
        (lambda s: s[1]["player_active_pokemon"].update(tera_type="Fire"), "player_active_pokemon.tera_type"),
        (lambda s: s[1]["player_active_pokemon"].update(types="fire ice water"), "states[1].types"),
        (lambda s: s[1]["player_active_pokemon"].update(types="fire water!"), "player_active_pokemon.types"),
        (lambda s: s[1]["player_active_pokemon"]["moves"][1].update(category="magic"), "moves[1].category"),
    ],
)
def test_verify_is_strict(tmp_path, change, field):
    battle = make_battle(8, "gen1ou", Style(max_turns=6))
    change(battle.states)
    finding = verify_file(write_battle(tmp_path, battle))
    assert finding
    assert field in finding.field


def test_what_old_files_and_recorders_do_is_sound(tmp_path):
    """A forme's hyphen, and at the end the next battle's first state, which no reader takes for this battle's."""
    battle = make_battle(8, "gen1ou", Style(max_turns=30, next_battle_tail=True))
    battle.states[1]["player_active_pokemon"]["name"] = "rotom-wash"
    battle.states[-1].update(weather="Rain Dance", format="gen2ou")
    assert verify_file(write_battle(tmp_path, battle)) is None


def test_verify_believes_neither_name_nor_folder(tmp_path):
    ended = [make_battle(seed, "gen1ou", Style(max_turns=200)) for seed in range(8, 16)]
    assert {battle.result for battle in ended} == {"WIN", "LOSS"}
    for battle in ended:
        battle.result = "LOSS" if battle.states[-1]["battle_won"] else "WIN"
        assert verify_file(write_battle(tmp_path, battle)).field == "name.result"
    path = write_battle(tmp_path, make_battle(8, "gen1ou", Style(max_turns=200)))
    moved = tmp_path / "gen2ou" / path.name
    moved.parent.mkdir()
    path.rename(moved)
    assert verify_file(moved).field == "states[0].format"


@pytest.mark.parametrize("option", ["--json", "--png"])
def test_figures_that_cannot_be_written_are_refused_before_reading(folder, option, capsys):
    with pytest.raises(SystemExit) as end:
        main(["stats", str(folder), option, str(folder)])
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    assert f"argument {option}: '{folder}': cannot be written: give another file" in said.err


def test_stats(folder, tmp_path, capsys):
    battle = make_battle(500, "gen1ou", Style(max_turns=5, cut_short=True))
    battle.states[0]["weather"] = "frogs"
    write_battle(folder, battle)
    (folder / "gen1ou" / "x_1_a_vs_b_01-01-2024_WIN.json.lz4").write_bytes(b"no")
    out = tmp_path / "s.json"
    assert main(["stats", str(folder), "--json", str(out), "--png", str(tmp_path / "s.png")]) == 0
    stats = json.loads(out.read_text())
    assert stats["files"] == 22
    assert stats["battles"] == 21
    assert stats["formats"]["gen1ou"] == 5
    unrated = len(list(folder.glob("*/*_Unrated_*")))
    assert stats["ratings"]["unrated"] == unrated > 0
    assert stats["unknown_words"]["most"] == {"frogs": 1}
    assert stats["rejects"]["by_reason"] == {"lz4": 1}
    assert stats["cut_short"] >= 1
    assert sum(stats["turns"]["histogram"]["counts"]) == 21
    assert sum(stats["actions"].values()) == stats["turns"]["total"] - 21
    assert (tmp_path / "s.png").stat().st_size > 10_000
    text = capsys.readouterr().out
    for said in ("21 battles of 22 files", "frogs", "forfeits", "rejected files 1"):
        assert said in text


def test_show(tmp_path, capsys):
    battle = make_battle(9, "gen9ou", Style(max_turns=10, missing=0.3))
    path = write_battle(tmp_path, battle)
    assert main(["show", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.count("\nturn ") == len(battle.states)
    assert battle.states[0]["player_active_pokemon"]["name"] in out
    assert "not recorded" in out
    for name in ("none_1_a_vs_b_01-01-2024_WIN.json", "none.json.lz4", "folder"):
        assert main(["show", str(tmp_path / name)]) == 1
        assert "No such file" in capsys.readouterr().err


def test_index_command(folder, capsys):
    assert main(["index", str(folder), "--turns"]) == 0
    assert "gen1ou: 4 battles, 4 of known length" in capsys.readouterr().out
    assert main(["index", str(folder / "nowhere")]) == 1
    assert "no folder" in capsys.readouterr().err


def test_a_file_of_the_same_size_with_other_states_is_indexed_anew(tmp_path, capsys):
    path = write_battle(tmp_path / "b", make_battle(8, "gen1ou", Style(max_turns=9)))
    text = lz4.frame.decompress(path.read_bytes())
    path.unlink()
    path = path.with_name(path.name.removesuffix(".lz4"))
    path.write_bytes(text)
    assert main(["index", str(tmp_path / "b"), "--turns"]) == 0
    battle = json.loads(text)
    states = len(battle["states"])
    shorter = json.dumps({"states": battle["states"][:-2], "actions": battle["actions"][:-2]}).encode()
    path.write_bytes(shorter.ljust(len(text)))
    data = BattleDataset(DataConfig(str(tmp_path / "b"), heldout_share=0.0), Tokenizer.load())
    with pytest.raises(BadBattleFile, match=f"were {states} when indexed and are {states - 2}; index with --rescan --"):
        data[0]
    assert main(["index", str(tmp_path / "b"), "--rescan", "--turns"]) == 0
    assert f"({states - 2} turns)" in capsys.readouterr().out
    assert len(BattleDataset(data.config, data.tokenizer)[0]) == states - 2


def test_cache_command(folder, tmp_path, capsys):
    assert main(["cache", "--from", str(folder), "--out", str(tmp_path / "c"), "--processes", "1"]) == 0
    assert "20 battles" in capsys.readouterr().out
    assert main(["cache", "--from", str(folder), "--out", str(tmp_path / "d"), "--shard", "x"]) == 1
    assert "--shard" in capsys.readouterr().err
    assert main(["cache", "--from", str(tmp_path / "none"), "--out", str(tmp_path / "e")]) == 1
    assert "no folder and no archive" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["cache --from b --out c", "download --to c", "push --from b --to me/b --licence x"]
)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_named_with_its_mend(tmp_path, capsys, monkeypatch, command, number):
    def full(*_, **__):
        error = OSError(number, os.strerror(number))
        if command.startswith("download"):
            raise DataError(str(error)) from error
        raise error

    for name in ("cache.make_cache", "hub.download", "hub.push"):
        monkeypatch.setattr(f"data.{name}", full)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert main(command.split()) == 1
    said = capsys.readouterr().err
    place = tmp_path if command.startswith("push") else "c"
    assert (f"{place}: {os.strerror(number)}: make room there" in said) == (number != errno.EIO)


@pytest.mark.parametrize("command", ["index", "cache --out d --from"])
def test_a_token_cache_is_not_read_as_battle_files(folder, tmp_path, capsys, command):
    """Its notes, in `parts/`, would be taken for a format's files, each with a bad name."""
    assert main(["cache", "--from", str(folder), "--out", str(tmp_path / "c"), "--processes", "1"]) == 0
    asked = [str(tmp_path / word) if word == "d" else word for word in command.split()]
    assert main([*asked, str(tmp_path / "c")]) == 1
    assert "is a token cache, where battle files are read" in capsys.readouterr().err


def test_whoever_has_archives_alone_is_told_what_helps(folder, tmp_path, capsys):
    """`index` reads files; `stats` and `verify` read what `cache` makes of archives too, and of that no other place is
    asked for. `download` leaves a note beside them, which is no battle."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "downloads.json").write_text("[]")
    tar_of(folder, tmp_path / "a" / "gen1ou.tar.gz", "gen1ou")
    for command in ("stats", "verify", "index"):
        assert main([command, str(tmp_path / "a")]) == 1
        said = capsys.readouterr().err
        assert "holds 1 archives and no format folder, where battle files are read; unpack each to a folder" in said
        assert "token cache" not in said
    assert main(["cache", "--from", str(tmp_path / "a"), "--out", str(tmp_path / "c"), "--processes", "1"]) == 0
    assert main(["verify", str(tmp_path / "c")]) == 0
    capsys.readouterr()
    out = tmp_path / "s.json"
    assert main(["stats", str(tmp_path / "c"), "--filter", "won", "--json", str(out)]) == 0
    assert "battles of" in capsys.readouterr().out
    won = len(list((folder / "gen1ou").glob("*_WIN.*")))
    assert json.loads(out.read_text())["battles"] == won > 0


def imports_of(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level


def test_only_collation_and_loader_import_torch():
    with_torch = {
        file.name for file in ROOM.glob("*.py") if any(m.split(".")[0] == "torch" for m, _ in imports_of(file))
    }
    assert with_torch == {"collate.py", "loader.py"}


def test_what_travels_needs_only_numpy_and_msgspec():
    travels = {"schema", "observation", "replacing", "tokenizer", "reward", "blocks", "walk", "encode"}
    allowed = {"numpy", "msgspec"} | set(sys.stdlib_module_names)
    for name in travels:
        for module, level in imports_of(ROOM / f"{name}.py"):
            assert module in travels if level else module.split(".")[0] in allowed, (name, module)


def test_importing_the_room_draws_in_no_torch():
    code = "import sys, data.dataset, data.cache, data.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOM.parent, check=False, timeout=60).returncode == 0
