"""A token cache that several processes or machines make, at once or one after another, or that one was stopped at."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data.cache import CacheJob, make_cache
from data.folders import DataError
from data.index_table import UNREAD
from data.observation import SPACES
from data.token_cache import TokenCache
from tests.battle_files import Style, write_battles

from .caches import assert_equal, cache_of


def test_machines_share_the_work_and_any_one_finishes(folder, tmp_path, caplog):
    job = CacheJob(str(folder), str(tmp_path / "c"), unit=3)
    results = [make_cache(job, processes=1, shard=(i, 3), progress=False) for i in (2, 0, 1)]
    assert results[0] is None
    assert results[1] is None
    assert "14 of 20 units are other machines' and not there yet" in caplog.text
    whole = cache_of(folder, tmp_path / "whole", unit=3)
    for key in ("battles", "turns", "formats", "rejects"):
        assert results[2][key] == whole[key]
    assert [s["sha256"] for s in results[2]["shards"]] == [s["sha256"] for s in whole["shards"]]


def test_a_share_that_was_made_of_other_battles_is_not_taken_for_the_missing_one(tmp_path):
    """A file can be another under its name: by its size, and with it all that is noted of its unit."""
    files = write_battles(tmp_path / "b", 4, formats=("gen1ou",), style=Style(max_turns=6))
    cache_of(tmp_path / "b", tmp_path / "c", unit=2)
    files.sort()
    shutil.copy(files[0], files[1])
    shutil.copy(files[0], files[2])
    job = CacheJob(str(tmp_path / "b"), str(tmp_path / "c"), unit=2)
    assert make_cache(job, 1, (0, 2), progress=False) is None
    with pytest.raises(DataError, match="not finished"):
        TokenCache(tmp_path / "c")
    assert make_cache(job, 1, (1, 2), progress=False)["battles"] == 4
    cache = TokenCache(tmp_path / "c")
    assert len({len(cache[i].words.tobytes()) for i in range(3)}) == 1


def test_machines_one_after_another_finish_where_a_file_is_never_given(tmp_path):
    files = write_battles(tmp_path / "b", 12, formats=("gen1ou",), style=Style(max_turns=6))
    files[0].unlink()
    files[0].symlink_to("nowhere")
    job = CacheJob(str(tmp_path / "b"), str(tmp_path / "c"), unit=2)
    assert make_cache(job, 1, (0, 2), progress=False) is None
    manifest = make_cache(job, 1, (1, 2), progress=False)
    assert manifest["battles"] == 11
    assert manifest["rejects"]["files"] == [[f"gen1ou/{files[0].name}", f"{UNREAD} (No such file or directory)"]]


def test_machines_that_claim_and_finish_at_once_wait_for_each_other(tmp_path, monkeypatch):
    """The first process of every container has the same number, and with it the same temporary files."""
    from data import cache as module

    write_battles(tmp_path / "b", 4, formats=("gen1ou",), style=Style(max_turns=6))
    inside, met = [], []

    def watched(real):
        def one(*arguments):
            inside.append(real)
            met.append(len(inside))
            time.sleep(0.1)
            try:
                return real(*arguments)
            finally:
                inside.pop()

        return one

    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(module, "_claim", watched(module._claim))
    monkeypatch.setattr(module, "finish", watched(module.finish))
    job = CacheJob(str(tmp_path / "b"), str(tmp_path / "c"), unit=1)
    with ThreadPoolExecutor(3) as pool:
        made = [pool.submit(make_cache, job, 1, (i, 3), progress=False) for i in range(3)]
        assert any(future.result() for future in made)
        again = [pool.submit(make_cache, job, 1, (i, 3), progress=False) for i in range(3)]
        assert all(future.result() for future in again)
    assert set(met) == {1}
    assert len(TokenCache(tmp_path / "c")) == 4


def test_a_finished_cache_is_whole_while_other_machines_finish_it_too(tmp_path, monkeypatch):
    """One is done first, and begins to train."""
    from data import cache_end as module

    write_battles(tmp_path / "b", 4, formats=("gen1ou",), style=Style(max_turns=6))
    job, made = CacheJob(str(tmp_path / "b"), str(tmp_path / "c"), unit=2), []
    monkeypatch.setattr(module, "index_of", lambda tables, real=module.index_of: made.append(1) or real(tables))
    first = make_cache(job, processes=1, progress=False)
    for shard in ((0, 2), (1, 2), (0, 1)):
        (tmp_path / "b" / "downloads.json").write_text(str(shard))
        assert make_cache(job, 1, shard, progress=False) == first
        assert (tmp_path / "c" / "downloads.json").read_text() == str(shard)
    assert made == [1]
    (tmp_path / "c" / "index.bin").write_bytes(b"no index")
    assert make_cache(job, processes=1, progress=False) == first  # and what is gone or spoilt is made again
    for number, gone in enumerate(("index.bin", "state.json", "dataset_info.json"), 3):
        (tmp_path / "c" / gone).unlink()
        assert make_cache(job, processes=1, progress=False) == first
        assert len(made) == number
        assert (tmp_path / "c" / gone).is_file()


def test_machines_that_saw_a_folder_at_different_times_make_no_cache_of_both(tmp_path, monkeypatch):
    """A battle that one took for the other's share, and the other did not, was in neither's."""
    from data import cache as module

    files = sorted(write_battles(tmp_path / "b", 4, formats=("gen1ou",), style=Style(max_turns=6)))
    job, real = CacheJob(str(tmp_path / "b"), str(tmp_path / "c"), unit=2), module.do_unit
    early = []

    def late(unit, job):
        """The second machine's work, at whose end the first is done, which began when all four files were there."""
        part = real(unit, job)
        for one in early:
            real(one, job)
        return part

    monkeypatch.setattr(module, "do_unit", lambda unit, job: early.append(unit))
    with pytest.raises(AttributeError):  # stopped in its unit: its work is done later
        make_cache(job, 1, (0, 2), progress=False)
    files[0].unlink()
    monkeypatch.setattr(module, "do_unit", late)
    assert make_cache(job, 1, (1, 2), progress=False) is None
    monkeypatch.setattr(module, "do_unit", real)
    manifest = make_cache(job, 1, (0, 2), progress=False)
    assert manifest["battles"] == 3
    assert TokenCache(tmp_path / "c").table["path"].to_pylist() == [f"gen1ou/{file.name}" for file in files[1:]]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_at_any_moment_it_goes_on(tmp_path, number):
    """Killed, it leaves whole shards or none; Ctrl-C, which a terminal sends to its workers too, is a line of text."""
    write_battles(tmp_path / "b", 60, seed=40, style=Style(max_turns=40))
    command = [
        sys.executable,
        "-m",
        "data.prepare",
        "cache",
        "--from",
        str(tmp_path / "b"),
        "--out",
        str(tmp_path / "c"),
    ]
    command += ["--battles-per-shard", "2", "--processes", "1" if number == signal.SIGKILL else "2"]
    repository = Path(__file__).parents[2]
    for _ in range(5):  # on a busy machine all may be done before this process is there to tell it
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        process = subprocess.Popen(
            command, cwd=repository, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if len(list((tmp_path / "c" / "parts").glob("*.json"))) >= 1:
                os.killpg(process.pid, number)
                break
            time.sleep(0.002)
        _, errors = process.communicate(timeout=60)
        if process.returncode != 0:
            break
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert "Traceback" not in errors
        assert (
            errors.strip()
            .splitlines()[-1]
            .startswith("stopped; what `cache`, `index --turns` and `download` have is kept")
        )
    for part in (tmp_path / "c" / "parts").glob("*.json"):
        facts = json.loads(part.read_text())
        assert (tmp_path / "c" / facts["file"]).stat().st_size == facts["bytes"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    cache_of(tmp_path / "b", tmp_path / "whole", unit=2)
    killed, whole = TokenCache(tmp_path / "c"), TokenCache(tmp_path / "whole")
    assert killed.table.equals(whole.table)
    assert killed.manifest["turns"] == whole.manifest["turns"]


@pytest.mark.slow
def test_two_processes_may_make_the_same_cache(folder, tmp_path):
    job = [sys.executable, "-m", "data.prepare", "cache", "--from", str(folder), "--out", str(tmp_path / "c")]
    job += ["--battles-per-shard", "4", "--processes", "1"]
    repository = Path(__file__).parents[2]
    both = [subprocess.Popen(job, cwd=repository, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    cache_of(folder, tmp_path / "whole")
    a, b = TokenCache(tmp_path / "c"), TokenCache(tmp_path / "whole")
    assert a.table.equals(b.table)
    for i in range(len(a)):
        assert_equal(a[i], b[i], SPACES["default"])
