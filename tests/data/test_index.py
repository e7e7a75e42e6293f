"""The index: what a scan finds, warm starts, caches that cannot be written, processes that open it at once."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import datasets
import lz4.frame
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import index
from data.dataset import BattleDataset, DataConfig
from data.folders import DataError
from data.index import folder_for, open_index, scan_format
from data.index_table import map_table, read_facts, write_table
from data.parallel import cores
from data.prepare import main
from data.replay_file import BadBattleFile, is_battle_file, iso_date, parse_name
from data.tokenizer import Tokenizer
from tests.battle_files import Style, write_battles

from .caches import age, paths


def test_columns_say_what_names_say(tmp_path):
    files = write_battles(tmp_path / "b", 25, style=Style(max_turns=4))
    parts = open_index(tmp_path / "b", cache_dir=tmp_path / "c")
    rows = [row for part in parts for row in part.table.to_pylist()]
    assert [row["path"] for row in rows] == sorted(str(file.relative_to(tmp_path / "b")) for file in files)
    for row in rows:
        name = parse_name(tmp_path / "b" / row["path"])
        assert (row["format"], row["battle_id"], row["rating"]) == (name.format, name.battle_id, name.rating)
        assert (row["player"], row["opponent"]) == (name.player, name.opponent)
        assert row["date"] == iso_date(name.date)
        assert row["won"] == (name.result == "WIN")
        assert row["size"] == (tmp_path / "b" / row["path"]).stat().st_size
        assert row["turns"] == -1


part_text = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), max_size=8)


PARTS = [
    "x",
    "1500",
    "vs",
    "WIN",
    "LOSS",
    "01-31-2024",
    "01-31-2024-10:20:30",
    "02-30-2024",
    "",
    "Unrated",
    "-7",
    "+12",
]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(PARTS) | part_text, min_size=5, max_size=9),
    st.sampled_from([".json.lz4", ".json", ".txt"]),
)
def test_the_columns_rule_is_parse_names_rule(tmp_path_factory, parts, suffix):
    name = "_".join(parts) + suffix
    if not is_battle_file(name) or len(name.encode()) > 200:
        return
    folder = tmp_path_factory.mktemp("one") / "gen1ou"
    folder.mkdir()
    (folder / name).touch()
    table, bad = scan_format("gen1ou", folder, "gen1ou/")
    try:
        parsed = parse_name(folder / name)
    except BadBattleFile:
        assert len(table) == 0
        assert [item.path for item in bad] == [f"gen1ou/{name}"]
        assert "is no battle file's" not in bad[0].reason
        return
    row = table.to_pylist()[0]
    assert (row["battle_id"], row["rating"], row["player"], row["opponent"]) == (
        parsed.battle_id,
        parsed.rating,
        parsed.player,
        parsed.opponent,
    )


def test_a_well_formed_name_passes_both_rules(tmp_path):
    folder = tmp_path / "gen1ou"
    folder.mkdir()
    name = "a [b]\n C_+12_é_vs__12-31-2026-23:59:59_LOSS.json.lz4"
    (folder / name).touch()
    table, bad = scan_format("gen1ou", folder, "gen1ou/")
    assert not bad
    assert table.to_pylist()[0]["rating"] == parse_name(folder / name).rating == 12


def test_bad_names_are_listed_with_reasons(tmp_path):
    write_battles(tmp_path / "b", 5, style=Style(max_turns=4))
    (tmp_path / "b" / "gen1ou" / "oops.json.lz4").write_bytes(b"")
    (tmp_path / "b" / "gen1ou" / "notes.txt").write_text("hello")
    (tmp_path / "b" / "gen1ou" / ".hidden.json.lz4").write_bytes(b"")
    (tmp_path / "b" / "gen1ou" / "a folder").mkdir()
    (Path(os.fsencode(tmp_path / "b" / "gen1ou").decode()) / os.fsdecode(b"\xff_1_a_vs_b_01-01-2024_WIN.json")).touch()
    part = next(part for part in open_index(tmp_path / "b", cache_dir=tmp_path / "c") if part.format == "gen1ou")
    reasons = {item.path: item.reason for item in part.bad_names}
    assert len(reasons) == 3
    assert "splits into 1" in reasons["gen1ou/oops.json.lz4"]
    assert "end in" in reasons["gen1ou/notes.txt"]
    assert "name: is not UTF-8" in reasons.values()


@pytest.mark.parametrize("unpacked", [1, 4])
def test_a_battle_that_lies_there_packed_and_unpacked_counts_once(tmp_path, capsys, caplog, unpacked):
    """As after a look into one with `lz4 -d`, which keeps what it unpacks, or into all of them."""
    files = write_battles(tmp_path / "d", 4, formats=("gen1ou",), style=Style(max_turns=5))
    for file in files[:unpacked]:
        file.with_suffix("").write_bytes(lz4.frame.decompress(file.read_bytes()))
    config = DataConfig(path=str(tmp_path / "d"), cache_dir=str(tmp_path / "i"), heldout_share=0.0, workers=0)
    data = BattleDataset(config, Tokenizer.load())  # by the share of rejects that runs have
    assert sorted(data.path(i) for i in range(len(data))) == sorted(map(str, files))
    assert not data.ledger.rejects
    assert f"gen1ou: {unpacked} battles lie there as .json, too" in caplog.text
    assert main(["verify", str(tmp_path / "d")]) == 0
    assert "4 files, 4 sound" in capsys.readouterr().out


def test_an_unpacked_battle_alone_is_read(tmp_path):
    packed, other = write_battles(tmp_path / "d", 2, formats=("gen1ou",), style=Style(max_turns=5))
    other.with_suffix("").write_bytes(lz4.frame.decompress(other.read_bytes()))
    other.unlink()
    (part,) = open_index(tmp_path / "d", cache_dir=tmp_path / "i")
    assert sorted(part.table["path"].to_pylist()) == sorted(f"gen1ou/{f.name}" for f in (packed, other.with_suffix("")))


def test_an_index_that_counted_battles_twice_is_made_anew_with_its_lengths(tmp_path, monkeypatch):
    """Of before they were left out: it passed for good as long as nothing came into the folder."""
    files = write_battles(tmp_path / "d", 2, formats=("gen1ou",), style=Style(max_turns=5))
    files[0].with_suffix("").write_bytes(lz4.frame.decompress(files[0].read_bytes()))
    age(tmp_path / "d")
    config = DataConfig(path=str(tmp_path / "d"), cache_dir=str(tmp_path / "i"), heldout_share=0.0, turns="always")

    def all_of_them(folder, prefix):
        return sorted(os.listdir(folder)), []

    def without_stamp(file, table, facts):
        return write_table(file, table, {key: fact for key, fact in facts.items() if key != "rows"})

    with monkeypatch.context() as patch:
        patch.setattr(index, "_list_names", all_of_them)
        patch.setattr(index, "write_table", without_stamp)
        assert len(BattleDataset(config, Tokenizer.load())) == 3
    assert len(BattleDataset(replace(config, turns="never"), Tokenizer.load()).lengths) == 2


def test_an_older_index_that_nobody_can_write_is_good(tmp_path, monkeypatch):
    """As one that is shared read-only: each start scanned millions of files anew, and knew no lengths."""
    write_battles(tmp_path / "d", 2, formats=("gen1ou",), style=Style(max_turns=5))
    age(tmp_path / "d")
    config = DataConfig(path=str(tmp_path / "d"), cache_dir=str(tmp_path / "i"), heldout_share=0.0)
    lengths = BattleDataset(config, Tokenizer.load()).lengths
    (part,) = open_index(tmp_path / "d", cache_dir=tmp_path / "i")
    facts = read_facts(part.table)
    assert facts.pop("rows") == 2
    write_table(part.file, part.table, facts)
    (part.file.parent / ".lock").unlink()
    (part.file.parent / ".lock").mkdir()
    monkeypatch.setattr(index, "scan_format", None)
    assert BattleDataset(replace(config, turns="never"), Tokenizer.load()).lengths.tolist() == lengths.tolist()


def test_an_index_whose_end_a_machine_lost_is_made_again(tmp_path, monkeypatch, caplog):
    """Zeros are a good end of an Arrow stream: the battles behind them were left out in silence."""
    monkeypatch.setattr("data.index_table.BATCH_ROWS", 2)
    write_battles(tmp_path / "b", 6, formats=("gen1ou",), style=Style(max_turns=4))
    age(tmp_path / "b")
    (part,) = open_index(tmp_path / "b", cache_dir=tmp_path / "c")
    with open(part.file, "r+b") as file:
        stream = pa.ipc.open_stream(file)
        for _ in range(2):
            stream.read_next_batch()
        file.write(bytes(part.file.stat().st_size - file.tell()))
    assert len(map_table(part.file)) == 4
    assert len(paths(open_index(tmp_path / "b", cache_dir=tmp_path / "c"))) == 6
    assert "is no index (holds 4 of 6 rows): scanning again" in caplog.text


def test_warm_start_maps_and_does_not_scan(tmp_path, monkeypatch, caplog):
    write_battles(tmp_path / "b", 10, style=Style(max_turns=4))
    age(tmp_path / "b")
    first = open_index(tmp_path / "b", cache_dir=tmp_path / "c")
    assert not caplog.text  # that no index is there yet is no fault

    def no_scan(*arguments):
        raise AssertionError("scanned again")

    monkeypatch.setattr("data.index.scan_format", no_scan)
    second = open_index(tmp_path / "b", cache_dir=tmp_path / "c")
    assert paths(first) == paths(second)
    assert all(part.file is not None for part in second)
    with pytest.raises(AssertionError):
        open_index(tmp_path / "b", cache_dir=tmp_path / "c", rescan=True, processes=1)


def test_a_killed_leader_leaves_no_process_that_holds_its_locks(tmp_path):
    """The next run would wait for ever for a cache that nobody makes."""
    script = (
        "import sys, time; from pathlib import Path; from data.lock import locked; from data.parallel import workers\n"
        "with locked(Path(sys.argv[1])), workers(2) as pool:\n"
        "    print([pool.submit(time.sleep, 0.1 * i).result() for i in range(2)], flush=True)\n"
        "    pool.submit(time.sleep, 60).result()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as leader:
        assert leader.stdout.readline() == "[None, None]\n"
        leader.kill()
    with open(tmp_path / ".lock") as lock:
        for _ in range(100):
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.1)
    raise AssertionError("still held")


def test_processes_of_a_run_open_what_its_first_one_found(tmp_path):
    """Each would else find what was recorded since, and plan other packs; so would the held-out side."""
    write_battles(tmp_path / "b", 20, style=Style(max_turns=6))
    config = DataConfig(str(tmp_path / "b"), cache_dir=str(tmp_path / "c"), heldout_share=0.5, rescan=True)
    first = BattleDataset(config, Tokenizer.load())
    write_battles(tmp_path / "b", 10, seed=900, style=Style(max_turns=6))
    second = BattleDataset(config, Tokenizer.load(), scan=False)
    assert second.fingerprint() == first.fingerprint()
    sides = [BattleDataset(config, Tokenizer.load(), "heldout", beside=train) for train in (first, second)]
    assert sides[0].fingerprint() == sides[1].fingerprint() != first.fingerprint()
    assert len(first) + len(sides[0]) == 20
    late = BattleDataset(config, Tokenizer.load(), "all")
    assert len(late) == 30
    assert BattleDataset(config, Tokenizer.load(), "all", scan=False).fingerprint() == late.fingerprint()


def test_indexes_lie_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folder_for(Path("b"), "c") == folder_for(tmp_path / "b", "c")  # by either name it is one folder
    monkeypatch.setenv("TURNWISE_CACHE", str(tmp_path / "there"))
    assert index.cache_root() == tmp_path / "there"
    assert index.cache_root(tmp_path / "here") == tmp_path / "here"
    monkeypatch.delenv("TURNWISE_CACHE")
    assert index.cache_root() == Path.home() / ".cache" / "turnwise"
    assert index.cache_root("~/c") == Path.home() / "c"


def test_without_a_home_a_folder_must_be_named(monkeypatch):
    monkeypatch.delenv("TURNWISE_CACHE", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as of a user who is but a number
    with pytest.raises(DataError, match="no home folder to keep the index in: set TURNWISE_CACHE"):
        index.cache_root()
    assert index.cache_root("c") == Path("c")


def test_a_folder_of_one_format(tmp_path):
    write_battles(tmp_path / "b", 4, formats=("gen1ou",), style=Style(max_turns=4))
    (part,) = open_index(tmp_path / "b" / "gen1ou", cache_dir=tmp_path / "c")
    assert part.format == "gen1ou"
    assert all("/" not in path for path in paths([part]))
    config = DataConfig(path=str(tmp_path / "b" / "gen1ou"), cache_dir=str(tmp_path / "c"), heldout_share=0.0)
    assert len(BattleDataset(config, Tokenizer.load())[0]) >= 2


def test_nothing_to_index_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        open_index(tmp_path / "none", cache_dir=tmp_path / "c")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no battle file"):
        open_index(tmp_path / "empty", cache_dir=tmp_path / "c")
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "gen1ou.tar.gz").touch()
    with pytest.raises(DataError, match="unpack each to a folder of its name"):
        open_index(tmp_path / "tars", cache_dir=tmp_path / "c")
    write_battles(tmp_path / "b", 2, style=Style(max_turns=4))
    with pytest.raises(DataError, match="gen3ou not under"):
        open_index(tmp_path / "b", ["gen3ou"], cache_dir=tmp_path / "c")
    (tmp_path / "hollow" / "gen1ou").mkdir(parents=True)
    with pytest.raises(DataError, match="no battle file"):
        BattleDataset(DataConfig(path=str(tmp_path / "hollow"), cache_dir=str(tmp_path / "c")), Tokenizer.load())


def test_a_cache_that_cannot_be_written_is_said_and_done_without(tmp_path, caplog):
    write_battles(tmp_path / "b", 6, style=Style(max_turns=4))
    (tmp_path / "file").write_text("")
    parts = open_index(tmp_path / "b", cache_dir=tmp_path / "file")
    assert len(paths(parts)) == 6
    assert caplog.text.count("cannot be written") == 1  # once, and not for each format
    config = DataConfig(path=str(tmp_path / "b"), cache_dir=str(tmp_path / "file"), heldout_share=0.0, workers=0)
    data = BattleDataset(config, Tokenizer.load())
    assert len(data) == 6
    assert data.lengths is not None


def test_an_older_index_is_not_taken_where_the_new_one_finds_no_room(tmp_path, monkeypatch):
    from data import index as module

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    write_battles(tmp_path / "b", 10, style=Style(max_turns=4))
    assert len(paths(open_index(tmp_path / "b", cache_dir=tmp_path / "c", processes=2))) == 10
    write_battles(tmp_path / "b", 20, seed=50, style=Style(max_turns=4))
    monkeypatch.setattr(module, "write_table", full)
    assert len(paths(open_index(tmp_path / "b", cache_dir=tmp_path / "c", processes=2))) == 30


def test_no_more_processes_than_the_cores_that_were_given(tmp_path, monkeypatch):
    """A scheduler gives some of a machine's, and memory for as many."""
    asked = []

    def counted(count):
        asked.append(count)
        raise OSError

    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7})
    for module in ("index", "cache", "parallel"):
        monkeypatch.setattr(f"data.{module}.workers", counted)
    monkeypatch.setattr("data.parallel.ALONE_UP_TO", 5)
    monkeypatch.setattr("data.parallel.PIECE", 2)
    write_battles(tmp_path / "b", 20, style=Style(max_turns=4))
    for command in (["index"], ["verify"], ["cache", "--out", str(tmp_path / "d"), "--from"]):
        assert main([*command, str(tmp_path / "b")]) == 1
    assert asked == [3, 3, 3]


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("200000 100000\n", 2), ("250000 100000\n", 3), ("max 100000\n", 8), ("9900000 100000\n", 8), (None, 8)],
)
def test_a_containers_share_of_time_is_so_many_cores(quota, expected, tmp_path, monkeypatch):
    """Docker's --cpus leaves every core in sight."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr("data.parallel.QUOTA", tmp_path / "cpu.max")
    if quota:
        (tmp_path / "cpu.max").write_text(quota)
    assert cores() == expected


def test_a_killed_process_is_not_waited_for(tmp_path, monkeypatch, capsys):
    from data import index as module

    def killed(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    write_battles(tmp_path / "b", 10, style=Style(max_turns=4))
    monkeypatch.setattr(module, "scan_format", killed)
    command = ["index", str(tmp_path / "b"), "--cache-dir", str(tmp_path / "c"), "--processes", "2"]
    assert main(command) == 1
    assert "was killed, for want of memory perhaps" in capsys.readouterr().err


def test_processes_that_start_at_once_find_one_index(tmp_path):
    root = tmp_path / "b"
    write_battles(root, 40, style=Style(max_turns=4))
    code = (
        "from data.dataset import BattleDataset, DataConfig; from data.tokenizer import Tokenizer;"
        f"d = BattleDataset(DataConfig(path={str(root)!r}, cache_dir={str(tmp_path / 'c')!r}), Tokenizer.load());"
        "print(len(d), d.lengths.sum())"
    )
    repository = Path(__file__).parents[2]
    three = [subprocess.Popen([sys.executable, "-c", code], cwd=repository, stdout=subprocess.PIPE) for _ in range(3)]
    answers = {process.communicate(timeout=100)[0] for process in three}
    assert len(answers) == 1
    assert answers != {b""}


def test_a_spoilt_index_is_made_again(tmp_path, caplog):
    root = tmp_path / "b"
    write_battles(root, 6, style=Style(max_turns=4))
    age(root)
    open_index(root, cache_dir=tmp_path / "c")
    for file in folder_for(root, tmp_path / "c").glob("*.arrow"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert len(paths(open_index(root, cache_dir=tmp_path / "c"))) == 6
    assert "scanning again" in caplog.text


def test_an_index_of_types_that_arrow_lacks_is_made_again(tmp_path, monkeypatch):
    """One flipped bit of a schema can name one: Arrow then says that it is not implemented, not invalid."""
    from data import index as module

    def spoilt(_):
        raise pa.ArrowNotImplementedError("Integers with less than 8 bits not implemented")

    write_battles(tmp_path / "b", 5, formats=("gen1ou",), style=Style(max_turns=4))
    open_index(tmp_path / "b", cache_dir=tmp_path / "c")
    monkeypatch.setattr(module, "map_table", spoilt)
    assert module._open_kept(folder_for(tmp_path / "b", tmp_path / "c"), "gen1ou", tmp_path / "b" / "gen1ou") is None


def test_a_group_may_share_the_folder_of_indexes(tmp_path):
    write_battles(tmp_path / "b", 2, formats=("gen1ou",), style=Style(max_turns=4))
    before = os.umask(0o002)
    try:
        open_index(tmp_path / "b", cache_dir=tmp_path / "c")
    finally:
        os.umask(before)
    for file in folder_for(tmp_path / "b", tmp_path / "c").iterdir():
        assert file.stat().st_mode & 0o020, file


def test_the_kept_table_opens_as_a_hugging_face_data_set(tmp_path):
    write_battles(tmp_path / "b", 6, formats=("gen1ou",), style=Style(max_turns=4))
    (part,) = open_index(tmp_path / "b", cache_dir=tmp_path / "c")
    rows = datasets.Dataset.from_file(str(part.file))
    assert rows["path"][:] == map_table(part.file)["path"].to_pylist()
    config = DataConfig(path=str(tmp_path / "b"), cache_dir=str(tmp_path / "c"), heldout_share=0.0, workers=0)
    data = BattleDataset(config, Tokenizer.load())
    assert isinstance(data.index, datasets.Dataset)
    assert np.array_equal(data.lengths, [len(data[i]) for i in range(len(data))])
