"""Token caches that runs make of archives: once for whoever asks, not of what is spoilt, and nothing encoded twice."""

import json
import os
import shutil
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from data import cache
from data.dataset import BattleDataset, DataConfig, TooManyRejects
from data.folders import DataError
from data.loader import BatchConfig, make_loader
from data.lock import locked
from data.tokenizer import Tokenizer
from tests.battle_files import Style, make_battle, write_battle, write_battles

from .caches import TOKENIZER, assert_equal, dataset_of, tar_of


def test_a_folder_of_archives_trains_as_it_is(folder, tmp_path, caplog):
    """As a download with --local-dir leaves it: a token cache is made of it once, and found again."""
    (tmp_path / "tars").mkdir()
    for name in ("gen1ou", "gen9ou"):
        tar_of(folder, tmp_path / "tars" / f"{name}.tar.gz", name)
    config = DataConfig(
        path=str(tmp_path / "tars"), cache_dir=str(tmp_path / "i"), heldout_share=0.0, workers=0, max_reject_share=0.5
    )
    data = BattleDataset(config, TOKENIZER)
    assert len(data) == 20
    assert "making a token cache" in caplog.text
    assert any("lz4" in reason for reason in data.ledger.rejects.values())
    caplog.clear()
    again = BattleDataset(config, TOKENIZER)
    assert "making a token cache" not in caplog.text
    assert again.path(0) == data.path(0)
    assert len(list(make_loader(data, BatchConfig(battles=4), seed=0, max_steps=2))) == 2
    config.max_reject_share = 0.01
    with pytest.raises(TooManyRejects):
        BattleDataset(config, TOKENIZER)


def test_one_archive_trains_as_it_is(folder, tmp_path):
    tar_of(folder, tmp_path / "gen1ou.tar.gz", "gen1ou")
    tar_of(folder, tmp_path / "gen9ou.tar.gz", "gen9ou")
    data = dataset_of(tmp_path / "gen1ou.tar.gz", tmp_path)
    assert (data.formats(), len(data[0]) > 1) == ({"gen1ou": 10}, True)
    with pytest.raises(DataError, match=r"gen1ou\.json: is no archive of battles; give a folder or a \.tar\.gz"):
        dataset_of((tmp_path / "gen1ou.tar.gz").rename(tmp_path / "gen1ou.json"), tmp_path)
    with pytest.raises(DataError, match="is no folder; give the folder that holds the format folders"):
        dataset_of(tmp_path / "gen1ou.tar.gz", tmp_path)


def test_archives_are_cached_for_the_words_of_their_reader(folder, tmp_path):
    """Not for the file that holds them: a model brings its own to evaluation, and a vocabulary file may grow."""
    (tmp_path / "tars").mkdir()
    tar_of(folder, tmp_path / "tars" / "gen1ou.tar.gz", "gen1ou")
    grown = Tokenizer([*TOKENIZER.words[2:], "frogs"])
    file = tmp_path / "v.json"
    for words in (TOKENIZER, grown):
        words.save(file)
        config = DataConfig(str(tmp_path / "tars"), vocabulary=str(file), cache_dir=str(tmp_path / "i"))
        config.max_reject_share = 0.5
        for asked in (config, replace(config, vocabulary=None)):
            data = BattleDataset(asked, words)
            assert data.sources.parts[0].cache.manifest["vocabulary"] == words.hash
    for formats in (["gen7ou"], ["gen1ou", "gen7ou"]):
        with pytest.raises(DataError, match=r"formats: gen7ou not under .*; there are gen1ou"):
            BattleDataset(replace(config, formats=formats), TOKENIZER)
    assert len(list((tmp_path / "i").glob("tokens-*"))) == 2


def test_a_cache_that_was_stopped_is_gone_on_with_whichever_words_ask_for_its_archives(folder, tmp_path, monkeypatch):
    """By all formats or by their names: it lies in one place."""
    (tmp_path / "tars").mkdir()
    tar_of(folder, tmp_path / "tars" / "gen1ou.tar.gz", "gen1ou")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("data.cache.finish", killed)
        with pytest.raises(KeyboardInterrupt):
            dataset_of(tmp_path / "tars", tmp_path)
    assert len(dataset_of(tmp_path / "tars", tmp_path, formats=["gen1ou"])) == 10
    assert len(list((tmp_path / "i").glob("tokens-*"))) == 1


def test_archives_are_cached_anew_where_what_the_cache_hangs_on_is_other(tmp_path, monkeypatch):
    write_battles(tmp_path / "b", 8, formats=("gen1ou", "gen2ou"), style=Style(max_turns=6))
    (tmp_path / "tars").mkdir()
    first, second = (tmp_path / "tars" / f"{name}.tar" for name in ("gen1ou", "gen2ou"))
    for file in (first, second):
        tar_of(tmp_path / "b", file, file.stem)
    seen = set()

    def made(**options):
        before = set(seen)
        assert set(dataset_of(tmp_path / "tars", tmp_path, formats=["gen1ou"], **options).formats()) == {"gen1ou"}
        seen.update((tmp_path / "i").glob("tokens-*"))
        return [json.loads((made_of / "job.json").read_text()) for made_of in seen - before]

    (job,) = made()
    assert job["formats"] == ["gen1ou"]
    for option, fact, value in (
        ("space", "space", "expanded"),
        ("illegal_actions", "illegal", "unrecorded"),
        ("max_bytes", "max_bytes", 1 << 20),
    ):
        (job,) = made(**{option: value})
        assert job[fact] == value
    with tarfile.open(second, "a") as tar:  # which is not asked for
        tar.add(first, arcname="gen2ou/notes.txt")
    assert not made()
    stamp = first.stat()
    os.utime(first, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert len(made()) == 1
    with open(first, "ab") as file:
        file.write(bytes(10240))
    os.utime(first, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert len(made()) == 1
    monkeypatch.setattr("data.sources.digests", lambda: {"shaped": "other"})
    assert len(made()) == 1
    monkeypatch.setattr("data.sources.space_digest", lambda space: "other")
    assert len(made()) == 1


@pytest.fixture
def encoded(monkeypatch):
    """Names of the units that are encoded."""
    names, real = [], cache.do_unit
    monkeypatch.setattr(cache, "do_unit", lambda unit, job: names.append(unit.name) or real(unit, job))
    monkeypatch.setattr(cache, "cores", lambda: 1)  # in this very process
    return names


@pytest.fixture
def written_again(tmp_path, encoded):
    """An archive that a run has read, written again since by its time, with the same battles."""
    write_battles(tmp_path / "b", 4, formats=("gen1ou",), style=Style(max_turns=6))
    file = tmp_path / "gen1ou.tar"
    tar_of(tmp_path / "b", file, "gen1ou")
    dataset_of(file, tmp_path)
    os.utime(file, (1, 1))
    return file


def test_what_is_as_it_was_in_archives_is_not_encoded_again(tmp_path, encoded):
    """Fetched again, copied elsewhere, joined by others, or only some of them read."""
    write_battles(tmp_path / "b", 8, formats=("gen1ou", "gen2ou"), style=Style(max_turns=6))
    (tmp_path / "tars").mkdir()
    first, second = (tmp_path / "tars" / f"{name}.tar" for name in ("gen1ou", "gen2ou"))

    def opened(place, **options):
        encoded.clear()
        data = dataset_of(place, tmp_path, **options)
        whole = dataset_of(tmp_path / "b", tmp_path, formats=list(data.formats()), space=data.space.name)
        assert len(data) == len(whole)
        for i in range(len(data)):
            assert_equal(data[i], whole[i], data.space)
        return encoded.copy()

    tar_of(tmp_path / "b", first, "gen1ou")
    assert opened(tmp_path / "tars") == ["gen1ou-00000"]
    os.utime(first, (1, 1))
    assert opened(tmp_path / "tars") == []
    tar_of(tmp_path / "b", second, "gen2ou")
    assert opened(tmp_path / "tars") == ["gen2ou-00000"]
    shutil.copytree(tmp_path / "tars", tmp_path / "elsewhere")
    assert opened(tmp_path / "elsewhere") == []
    assert opened(tmp_path / "elsewhere", formats=["gen2ou"]) == []
    assert {file.stat().st_nlink for file in (tmp_path / "i").glob("tokens-*/shard-gen2ou-*")} == {3}
    assert opened(tmp_path / "tars", space="expanded") == ["gen1ou-00000", "gen2ou-00000"]
    write_battle(tmp_path / "b", make_battle(77, "gen1ou", Style(max_turns=6)))
    tar_of(tmp_path / "b", first, "gen1ou")
    assert opened(tmp_path / "tars") == ["gen1ou-00000"]
    assert len(dataset_of(tmp_path / "elsewhere", tmp_path)) == 8  # what is another's stays that


def flip(shard):
    """A bit, as a bad disk or memory does: the size stays."""
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


@pytest.mark.parametrize("spoil", [lambda shard: shard.write_bytes(b"cut"), lambda shard: shard.unlink(), flip])
def test_a_shard_that_is_not_what_its_note_tells_is_not_linked_to(tmp_path, encoded, written_again, spoil):
    (shard,) = (tmp_path / "i").glob("tokens-*/shard-*")
    spoil(shard)
    assert len(dataset_of(written_again, tmp_path)[0]) > 1
    assert encoded == ["gen1ou-00000"] * 2


def test_a_shard_that_is_made_anew_as_it_is_linked_to_is_not_taken_for_the_earlier(
    tmp_path, encoded, written_again, monkeypatch
):
    """By another process: its note goes first."""
    (note,) = (tmp_path / "i").glob("tokens-*/parts/*.json")
    real = os.link
    monkeypatch.setattr(cache.os, "link", lambda source, target: note.unlink() or real(source, target))
    dataset_of(written_again, tmp_path)
    assert encoded == ["gen1ou-00000"] * 2


def test_a_spoilt_shard_of_a_cache_that_a_run_made_is_made_again_by_a_rescan(folder, tmp_path):
    (tmp_path / "tars").mkdir()
    tar_of(folder, tmp_path / "tars" / "gen1ou.tar", "gen1ou")
    dataset_of(tmp_path / "tars", tmp_path)
    (shard,) = (tmp_path / "i").glob("tokens-*/shard-*.arrow")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100])
    with pytest.raises(DataError, match="make the cache again"):
        dataset_of(tmp_path / "tars", tmp_path)[0]
    for spoil in (lambda shard: None, flip):
        spoil(shard)
        assert len(dataset_of(tmp_path / "tars", tmp_path, rescan=True)[0])
        assert shard.read_bytes() == whole


def test_other_archives_do_not_wait_and_the_same_ones_say_that_they_do(folder, tmp_path, caplog):
    """A cache of millions takes minutes to make."""
    for name in ("gen1ou", "gen2ou"):
        (tmp_path / name).mkdir()
        tar_of(folder, tmp_path / name / f"{name}.tar.gz", name)
    assert len(dataset_of(tmp_path / "gen1ou", tmp_path)) == 10
    (made,) = (tmp_path / "i").glob("tokens-*")
    with ThreadPoolExecutor() as threads:
        with locked(made):
            same = threads.submit(dataset_of, tmp_path / "gen1ou", tmp_path)
            assert len(threads.submit(dataset_of, tmp_path / "gen2ou", tmp_path).result(timeout=60)) == 10
            while "another process is making what is read there" not in caplog.text:
                time.sleep(0.01)
            assert not same.done()
        assert len(same.result(timeout=60)) == 10


def test_archives_whose_cache_finds_no_room_say_so(folder, tmp_path):
    (tmp_path / "tars").mkdir()
    tar_of(folder, tmp_path / "tars" / "gen1ou.tar.gz", "gen1ou")
    with pytest.raises(DataError, match=r"cannot be written \(Not a directory\); make room, or give another"):
        dataset_of(tmp_path / "tars", tmp_path, cache_dir=str(tmp_path / "tars" / "gen1ou.tar.gz"))


def test_a_cache_folder_among_the_archives_is_refused_before_it_is_made(folder, tmp_path):
    """It would pass for a format at the next start, and the archives for ones beside it."""
    (tmp_path / "tars").mkdir()
    tar_of(folder, tmp_path / "tars" / "gen1ou.tar.gz", "gen1ou")
    inside = tmp_path / "tars" / "cache"
    with pytest.raises(DataError, match=rf"^data\.cache_dir {inside}: lies in {inside.parent} and would be"):
        dataset_of(tmp_path / "tars", tmp_path, cache_dir=str(inside))
    assert not inside.exists()
    assert len(dataset_of(tmp_path / "tars", tmp_path, cache_dir=str(tmp_path / "tars" / ".cache"))) == 10
