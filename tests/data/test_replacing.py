"""Files that are written whole or not at all, by several processes at once too."""

import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from data.archive import unpack_archive
from data.index import folder_for, open_index
from data.replacing import clear_left, replacing
from data.tokenizer import Tokenizer
from tests.battle_files import Style, write_battles

from .caches import cache_of, tar_of


def test_a_file_takes_its_place_whole_or_leaves_the_old_one(tmp_path):
    target = tmp_path / "kept.json"
    target.write_text("old")

    def half():
        with replacing(target) as temporary:
            temporary.write_text("half of the n")
            assert temporary.name.startswith(".")
            assert os.listdir(tmp_path) != ["kept.json"]
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        half()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["kept.json"]
    with replacing(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["kept.json"]


def test_machines_whose_processes_have_one_number_do_not_meet(tmp_path, monkeypatch):
    """As the first of every container has. Each vocabulary's writer found its own file moved by another one."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    writers = 4
    barrier = Barrier(writers)
    tokenizer = Tokenizer([f"word{i}" for i in range(2000)])

    def save(_):
        barrier.wait()
        tokenizer.save(tmp_path / "vocabulary.json")

    for _ in range(20):
        with ThreadPoolExecutor(writers) as pool:
            list(pool.map(save, range(writers)))
    assert Tokenizer.load(tmp_path / "vocabulary.json").hash == tokenizer.hash
    assert os.listdir(tmp_path) == ["vocabulary.json"]


def test_what_a_killed_writer_left_is_cleared_and_what_a_living_one_writes_is_not(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path; from data.replacing import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    target = tmp_path / "index.bin"
    subprocess.run([sys.executable, "-c", script, target], cwd=Path(__file__).parents[2], check=False)
    (left,) = tmp_path.iterdir()
    clear_left(tmp_path)
    assert left.exists()  # of a machine, perhaps, that our lock does not reach
    others = [tmp_path / name for name in (".lock", ".index.bin.not", "index.bin.0123abcd", ".mine.0123abcd")]
    with replacing(target) as temporary:
        temporary.write_text("half")
        for file in (*others, left, temporary):
            file.touch()
            os.utime(file, (1, 1))
        clear_left(tmp_path)
        assert temporary.exists()
    clear_left(tmp_path)
    assert set(tmp_path.iterdir()) == {*others, target}
    assert target.read_text() == "half"


def test_what_is_written_is_not_locked_itself(tmp_path):
    """On an SMB disk a lock is everybody's law: nothing could be written any more but by who has it (flock(2))."""
    with replacing(tmp_path / "index.bin") as temporary:
        temporary.write_text("half")
        with open(temporary, "r+b") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_folder_that_others_hold_is_written_in_all_the_same(tmp_path):
    """As by flock(1) around a whole command."""
    held = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with replacing(tmp_path / "index.bin") as temporary:
            temporary.write_text("whole")
    finally:
        os.close(held)
    assert (tmp_path / "index.bin").read_text() == "whole"


def test_the_next_run_of_what_was_killed_clears_what_it_left(tmp_path):
    data, out, to = (tmp_path / name for name in ("d", "c", "to"))
    write_battles(data, 2, formats=("gen1ou",), style=Style(max_turns=5))
    tar_of(data, tmp_path / "gen1ou.tar", "gen1ou")
    index = folder_for(data, tmp_path / "i")
    left = [
        *(index / ".gen1ou.arrow.0123abcd", out / ".shard-gen1ou-00000.arrow.0123abcd"),
        *(out / "parts" / ".gen1ou-00000.json.0123abcd", to / ".gen1ou.unpacking" / ".a.json.lz4.0123abcd"),
    ]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (1, 1))
    open_index(data, cache_dir=tmp_path / "i")
    cache_of(data, out)
    unpack_archive(tmp_path / "gen1ou.tar", to)
    assert not list(tmp_path.rglob(".*.0123abcd"))
