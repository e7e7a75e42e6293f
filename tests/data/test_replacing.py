"""Files that are written whole or not at all, by several processes at once too."""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from data.replacing import replacing
from data.tokenizer import Tokenizer


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
