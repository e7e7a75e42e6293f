"""An index and a folder that changes: what is scanned again, which lengths are kept, what comes or goes meanwhile."""

import os
import time
from dataclasses import replace
from multiprocessing import get_context

import numpy as np

from data import index
from data.dataset import BattleDataset, DataConfig
from data.index import open_index, scan_format
from data.index_table import UNREAD
from data.prepare import main
from data.sources import REFUSED_BEFORE
from data.tokenizer import Tokenizer
from tests.battle_files import Style, make_battle, write_battle, write_battles

from .caches import age, paths


def test_changed_folders_are_scanned_again_and_keep_known_turns(tmp_path):
    root = tmp_path / "b"
    write_battles(root, 10, style=Style(max_turns=6))
    age(root)
    config = DataConfig(path=str(root), cache_dir=str(tmp_path / "c"), heldout_share=0.0, workers=0)
    BattleDataset(config, Tokenizer.load())
    new = write_battle(root, make_battle(999, "gen1ou", Style(max_turns=6)))
    os.utime(root / "gen1ou", (2, 2))
    parts = {part.format: part for part in open_index(root, cache_dir=tmp_path / "c")}
    turns = dict(zip(*(parts["gen1ou"].table[key].to_pylist() for key in ("path", "turns")), strict=True))
    assert turns.pop(f"gen1ou/{new.name}") == -1
    assert len(turns) == 2
    assert min(turns.values()) > 0
    assert min(parts["gen2ou"].table["turns"].to_pylist()) > 0
    (root / "gen1ou" / new.name).unlink()
    os.utime(root / "gen1ou", (3, 3))
    assert f"gen1ou/{new.name}" not in paths(open_index(root, cache_dir=tmp_path / "c"))
    back = write_battle(root, make_battle(998, "gen1ou", Style(max_turns=6)))
    os.utime(root / "gen1ou", (2, 2))  # as a folder that was put back from a copy: older, and another
    assert f"gen1ou/{back.name}" in paths(open_index(root, cache_dir=tmp_path / "c"))
    parts = open_index(root, ["gen9ou", "gen1ou", "gen9ou"], cache_dir=tmp_path / "c")
    assert [part.format for part in parts] == ["gen1ou", "gen9ou"]  # an order of its own: it is the plan's


def test_a_rejected_file_is_read_again_where_lengths_are_asked_for(tmp_path):
    """Its reason, which no index keeps, is told anew; and by then it may have been mended."""
    write_battles(tmp_path / "b", 10, style=Style(max_turns=6))
    victim = sorted(tmp_path.glob("b/*/*.lz4"))[0]
    whole = victim.read_bytes()
    victim.write_bytes(b"x" * len(whole))
    options = {"cache_dir": str(tmp_path / "c"), "heldout_share": 0.0, "max_reject_share": 0.5, "turns": "always"}
    config = DataConfig(path=str(tmp_path / "b"), **options)
    for _ in range(2):
        data = BattleDataset(config, Tokenizer.load())
        assert (data.lengths == 0).sum() == 1
        assert data.ledger.rejects[str(victim)] != REFUSED_BEFORE
    before = BattleDataset(replace(config, turns="never"), Tokenizer.load())
    assert before.ledger.rejects == {str(victim): REFUSED_BEFORE}
    victim.write_bytes(whole)
    assert (BattleDataset(config, Tokenizer.load()).lengths > 0).all()


def test_few_new_files_do_not_cost_the_plan_of_many_known_ones(tmp_path, monkeypatch):
    """`index --turns`, then a round of self-play more: the lengths of all but those are known."""
    monkeypatch.setattr("data.sources.FILL_TURNS_UP_TO", 5)
    write_battles(tmp_path / "b", 10, style=Style(max_turns=6))
    config = DataConfig(path=str(tmp_path / "b"), cache_dir=str(tmp_path / "c"), heldout_share=0.0)
    unread = BattleDataset(config, Tokenizer.load())
    assert (unread.lengths, unread.ledger.seen) == (None, 0)
    bad = tmp_path / "b" / "gen1ou" / "x_1500_a_vs_b_01-01-2024_WIN.json.lz4"
    bad.write_bytes(b"no")
    config.max_reject_share = 0.5
    BattleDataset(replace(config, turns="always"), Tokenizer.load())
    known = BattleDataset(config, Tokenizer.load())  # nothing is read: what was refused isn't, either
    assert known.ledger.rejects == {str(bad): REFUSED_BEFORE}
    assert known.ledger.seen == 11
    bad.unlink()
    write_battles(tmp_path / "b", 5, seed=900, style=Style(max_turns=6))
    data = BattleDataset(config, Tokenizer.load())
    assert len(data.lengths) == 15
    assert data.lengths.min() > 0
    write_battles(tmp_path / "b", 6, seed=950, style=Style(max_turns=6))
    assert BattleDataset(config, Tokenizer.load()).lengths is None


def test_lengths_found_before_a_stop_are_kept(tmp_path, monkeypatch, capsys):
    from data import sources as module

    asked, real = [], module._measure

    def stopped(paths, **options):
        asked.extend(paths)
        if len(asked) == 8:
            raise KeyboardInterrupt
        return real(paths, **options)

    monkeypatch.setattr("data.parallel.PIECE", 2)
    monkeypatch.setattr(module, "_measure", stopped)
    write_battles(tmp_path / "b", 10, formats=("gen1ou",), style=Style(max_turns=6))
    command = ["index", str(tmp_path / "b"), "--cache-dir", str(tmp_path / "c"), "--turns", "--processes", "1"]
    assert main(command) == 130
    assert "stopped; what `cache`, `index --turns` and `download` have is kept" in capsys.readouterr().err
    assert main(command) == 0
    assert "10 of known length" in capsys.readouterr().out
    assert len(asked) == 8 + 4


def test_lengths_found_before_a_machine_is_taken_away_are_kept(tmp_path, monkeypatch, capsys):
    """No `finally` runs there: of a million files read over hours nothing was left."""
    from data import sources as module

    asked, real = [], module._measure

    def taken_away(paths, **options):
        asked.extend(paths)
        return os._exit(9) if len(asked) == 8 else real(paths, **options)

    monkeypatch.setattr("data.parallel.PIECE", 2)
    monkeypatch.setattr(module, "KEPT_EVERY", 0.0)
    write_battles(tmp_path / "b", 10, formats=("gen1ou",), style=Style(max_turns=6))
    command = ["index", str(tmp_path / "b"), "--cache-dir", str(tmp_path / "c"), "--turns", "--processes", "1"]
    with monkeypatch.context() as patched:
        patched.setattr(module, "_measure", taken_away)
        killed = get_context("fork").Process(target=main, args=(command,))
        killed.start()
        killed.join()
        assert killed.exitcode == 9
    assert main(command[:-3]) == 0
    assert "10 battles, 6 of known length" in capsys.readouterr().out


def test_lengths_that_another_machine_found_meanwhile_are_kept(tmp_path):
    """Of two that read one folder the slower wrote its own over them, and may be stopped before it comes to those."""
    write_battles(tmp_path / "b", 10, formats=("gen1ou",), style=Style(max_turns=6))
    slower, faster = (open_index(tmp_path / "b", cache_dir=tmp_path / "c")[0] for _ in range(2))
    index.set_turns(faster, np.arange(1, 11, dtype=np.int32))
    written = index.set_turns(slower, np.array([7, 0, *[-1] * 8], dtype=np.int32))
    assert written.table["turns"].to_pylist() == [7, 0, *range(3, 11)]
    assert open_index(tmp_path / "b", cache_dir=tmp_path / "c", scan=False)[0].table.equals(written.table)


def test_an_index_that_is_as_it_was_is_not_written(tmp_path):
    """A bad file is read at each start, for its reason; other processes have the index mapped meanwhile."""
    write_battles(tmp_path / "b", 10, formats=("gen1ou",), style=Style(max_turns=6))
    (tmp_path / "b" / "gen1ou" / "x_1500_a_vs_b_01-01-2024_WIN.json.lz4").write_bytes(b"no")
    age(tmp_path / "b")
    config = DataConfig(path=str(tmp_path / "b"), cache_dir=str(tmp_path / "c"), heldout_share=0.0)
    for _ in range(2):
        data = BattleDataset(config, Tokenizer.load())
        assert "lz4: ends in the middle" in str(data.ledger.rejects)
        (file,) = (tmp_path / "c").rglob("gen1ou.arrow")
        written = file.stat().st_ino
        assert BattleDataset(config, Tokenizer.load(), scan=False).lengths.min() == 0
        assert file.stat().st_ino == written


def test_a_folder_changed_just_now_is_not_trusted(tmp_path):
    """Two changes can fall in one tick of the clock: the second must not be missed."""
    root = tmp_path / "b"
    write_battles(root, 5, style=Style(max_turns=4))
    open_index(root, cache_dir=tmp_path / "c")
    stamp = (root / "gen1ou").stat()
    write_battle(root, make_battle(999, "gen1ou", Style(max_turns=4)))
    os.utime(root / "gen1ou", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert time.time_ns() - stamp.st_mtime_ns < 60e9
    assert len(paths(open_index(root, cache_dir=tmp_path / "c"))) == 6


def test_a_file_that_comes_during_a_scan_is_found_by_the_next(tmp_path, monkeypatch):
    """The folder's time is taken before its files are: the other way, the index would pass for fresh without it."""
    root = tmp_path / "b"
    write_battles(root, 5, formats=("gen1ou",), style=Style(max_turns=4))
    age(root)

    def slow(*arguments):
        found = scan_format(*arguments)
        write_battle(root, make_battle(999, "gen1ou", Style(max_turns=4)))
        os.utime(root / "gen1ou", (2, 2))
        return found

    monkeypatch.setattr("data.index.scan_format", slow)
    assert len(paths(open_index(root, cache_dir=tmp_path / "c"))) == 5
    monkeypatch.setattr("data.index.scan_format", scan_format)
    assert len(paths(open_index(root, cache_dir=tmp_path / "c"))) == 6


def test_a_link_that_leads_elsewhere_now_is_another_folder(tmp_path):
    """Whose time can be the same: an unpacked archive's often is."""
    (tmp_path / "b").mkdir()
    for name, count in (("first", 3), ("second", 4)):
        write_battles(tmp_path / name, count, seed=count, formats=("gen1ou",), style=Style(max_turns=4))
        age(tmp_path / name)
        (tmp_path / "b" / "gen1ou").unlink(missing_ok=True)
        (tmp_path / "b" / "gen1ou").symlink_to(tmp_path / name / "gen1ou")
        assert len(paths(open_index(tmp_path / "b", cache_dir=tmp_path / "c"))) == count


def test_a_file_of_another_size_under_the_same_name_is_of_unknown_length(tmp_path):
    files = write_battles(tmp_path / "b", 5, formats=("gen1ou",), style=Style(max_turns=6))
    config = DataConfig(path=str(tmp_path / "b"), cache_dir=str(tmp_path / "c"), heldout_share=0.0)
    BattleDataset(config, Tokenizer.load())
    files[2].write_bytes(files[2].read_bytes() + b"x")
    first = min(files)
    new = first.with_name(f"{first.name.split('_')[0]}x_{first.name.split('_', 1)[1]}")  # of a known one's size
    new.write_bytes(first.read_bytes())
    (part,) = open_index(tmp_path / "b", cache_dir=tmp_path / "c", rescan=True)
    turns = dict(zip(*(part.table[key].to_pylist() for key in ("path", "turns")), strict=True))
    assert {path for path, n in turns.items() if n < 0} == {f"gen1ou/{files[2].name}", f"gen1ou/{new.name}"}


def test_files_that_come_into_an_empty_folder_are_found(tmp_path):
    (tmp_path / "b" / "gen1ou").mkdir(parents=True)
    assert not paths(open_index(tmp_path / "b", cache_dir=tmp_path / "c"))
    write_battles(tmp_path / "b", 2, formats=("gen1ou",), style=Style(max_turns=4))
    assert len(paths(open_index(tmp_path / "b", cache_dir=tmp_path / "c"))) == 2


def test_a_file_that_vanishes_during_a_scan_is_left_out_by_name(tmp_path, monkeypatch):
    write_battles(tmp_path / "b", 5, formats=("gen1ou",), style=Style(max_turns=4))
    listed = index._list_names

    def one_more(folder, prefix):
        names, bad = listed(folder, prefix)
        return [*names[:2], "gone.json.lz4", *names[2:]], bad

    monkeypatch.setattr(index, "_list_names", one_more)
    opened = len(os.listdir("/proc/self/fd"))
    table, bad = scan_format("gen1ou", tmp_path / "b" / "gen1ou", "gen1ou/")
    assert len(os.listdir("/proc/self/fd")) == opened
    assert [(item.path, item.reason.startswith(UNREAD)) for item in bad] == [("gen1ou/gone.json.lz4", True)]
    sizes = dict(zip(*(table[key].to_pylist() for key in ("path", "size")), strict=True))
    assert sizes == {path: (tmp_path / "b" / path).stat().st_size for path in sizes}
    assert len(sizes) == 5
