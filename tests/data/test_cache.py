"""Making a token cache: by several machines, stopped at any moment, gone on with, and mended."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import pytest

from data.cache import CacheJob, make_cache
from data.folders import DOWNLOADS, DataError
from data.index_table import UNREAD
from data.observation import SPACES
from data.token_cache import TokenCache
from data.tokenizer import Tokenizer
from tests.battle_files import Style, write_battles

from .caches import assert_equal, cache_of, dataset_of, tar_of


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


def test_an_unfinished_cache_is_not_opened_and_goes_on(folder, tmp_path, monkeypatch):
    from data import cache as module

    done = []
    real = module.do_unit

    def killed(unit, job):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(unit.name)
        return real(unit, job)

    monkeypatch.setattr(module, "do_unit", killed)
    with pytest.raises(KeyboardInterrupt):
        cache_of(folder, tmp_path / "c")
    with pytest.raises(DataError, match="not finished"):
        TokenCache(tmp_path / "c")
    with pytest.raises(DataError, match="is a token cache that is not finished; run the same"):
        dataset_of(tmp_path / "c", tmp_path)
    again = []
    monkeypatch.setattr(module, "do_unit", lambda unit, job: again.append(unit.name) or real(unit, job))
    cache_of(folder, tmp_path / "c")
    assert not set(done) & set(again)
    assert len(TokenCache(tmp_path / "c")) == 50
    again.clear()
    cache_of(folder, tmp_path / "c")
    assert not again


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_a_source_that_has_grown_is_cached_whole(tmp_path, monkeypatch, kind):
    """The units whose battles are others now are made again, and only those: as many battles as names, none twice."""
    from data import cache as module

    again, real = [], module.do_unit
    monkeypatch.setattr(module, "do_unit", lambda unit, job: again.append(unit.name) or real(unit, job))
    write_battles(tmp_path / "all", 60, seed=301)
    names = sorted(p.name for p in (tmp_path / "all" / "gen1ou").iterdir())
    (tmp_path / "some" / "gen1ou").mkdir(parents=True)

    def cached(chosen):
        for name in chosen:
            shutil.copy(tmp_path / "all" / "gen1ou" / name, tmp_path / "some" / "gen1ou")
        if kind == "archive":
            with tarfile.open(tmp_path / "gen1ou.tar.gz", "w:gz") as tar:
                for file in sorted((tmp_path / "some" / "gen1ou").iterdir()):
                    tar.add(file, arcname=f"gen1ou/{file.name}")
        again.clear()
        cache_of(tmp_path / ("some" if kind == "folder" else "gen1ou.tar.gz"), tmp_path / "c", unit=2)
        return sorted(Path(path).name for path in TokenCache(tmp_path / "c").table["path"].to_pylist())

    late = len(names) // 2
    assert cached(names[:late:2]) == names[:late:2]
    assert cached(names[:late]) == names[:late]
    done = len(again)
    assert cached(names) == names
    assert len(again) == -(-len(names) // 2) - late // 2
    assert done >= late // 2 - 1


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


def test_a_source_that_has_shrunk_leaves_no_shard_behind(tmp_path):
    write_battles(tmp_path / "b", 10, formats=("gen1ou",), style=Style(max_turns=6))
    cache_of(tmp_path / "b", tmp_path / "c")
    for file in sorted((tmp_path / "b" / "gen1ou").iterdir())[:6]:
        file.unlink()
    assert cache_of(tmp_path / "b", tmp_path / "c")["battles"] == 4
    assert [file.name for file in (tmp_path / "c").glob("shard-*.arrow")] == ["shard-gen1ou-00000.arrow"]
    assert [file.name for file in (tmp_path / "c" / "parts").iterdir()] == ["gen1ou-00000.json"]
    write_battles(tmp_path / "b", 10, formats=("gen1ou",), style=Style(max_turns=6))
    assert cache_of(tmp_path / "b", tmp_path / "c")["battles"] == len(TokenCache(tmp_path / "c")) == 10


def test_an_end_cut_short_leaves_no_older_manifest_to_the_new_index(tmp_path, monkeypatch):
    """Its shards' numbers are others where a format was added: battles would be read from each other's places."""
    from data import cache as module

    write_battles(tmp_path / "b", 10, formats=("gen2ou", "gen9ou"), style=Style(max_turns=6))
    cache_of(tmp_path / "b", tmp_path / "c")
    write_battles(tmp_path / "b", 10, formats=("gen1ou",), style=Style(max_turns=6))
    real = module.write_json

    def full(file, content):
        if file.name == "manifest.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, content)

    monkeypatch.setattr(module, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        cache_of(tmp_path / "b", tmp_path / "c")
    with pytest.raises(DataError, match="not finished"):
        TokenCache(tmp_path / "c")
    monkeypatch.setattr(module, "write_json", real)
    assert cache_of(tmp_path / "b", tmp_path / "c")["battles"] == len(TokenCache(tmp_path / "c")) == 20


def _cut(file):
    file.write_bytes(file.read_bytes()[:100])


def _lengthened(file):
    file.write_bytes(file.read_bytes() + b"x")


@pytest.mark.parametrize("damage", [Path.unlink, _cut, _lengthened])
@pytest.mark.parametrize("name", ["shard-gen1ou-00001.arrow", "parts/gen1ou-00001.json"])
def test_the_same_command_makes_again_what_is_gone_or_cut(tmp_path, monkeypatch, name, damage):
    """As its messages say; and no more than that."""
    from data import cache as module

    again, real = [], module.do_unit
    monkeypatch.setattr(module, "do_unit", lambda unit, job: again.append(unit.name) or real(unit, job))
    write_battles(tmp_path / "b", 12, formats=("gen1ou",), style=Style(max_turns=6))
    whole = cache_of(tmp_path / "b", tmp_path / "c")
    again.clear()
    damage(tmp_path / "c" / name)
    assert cache_of(tmp_path / "b", tmp_path / "c") == whole
    assert again == ["gen1ou-00001"]
    assert sum(len(battle) for battle in map(TokenCache(tmp_path / "c").__getitem__, range(12))) == whole["turns"]


def test_a_claim_that_is_cut_names_itself(tmp_path):
    write_battles(tmp_path / "b", 4, formats=("gen1ou",), style=Style(max_turns=6))
    cache_of(tmp_path / "b", tmp_path / "c")
    (tmp_path / "c" / "job.json").write_text("")
    with pytest.raises(DataError, match=r"job\.json: cannot be read .* make the cache in a new folder"):
        cache_of(tmp_path / "b", tmp_path / "c")


def test_a_file_that_the_disk_did_not_give_once_is_read_by_the_next(tmp_path, monkeypatch):
    from data import cache_shard as module

    files = write_battles(tmp_path / "b", 12, formats=("gen1ou",), style=Style(max_turns=6))
    real = module.read_json_bytes

    def faulty(path, max_bytes):
        if Path(path) == files[0]:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, max_bytes)

    monkeypatch.setattr(module, "read_json_bytes", faulty)
    assert cache_of(tmp_path / "b", tmp_path / "c")["battles"] == 11
    monkeypatch.setattr(module, "read_json_bytes", real)
    assert cache_of(tmp_path / "b", tmp_path / "c")["battles"] == 12


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
    monkeypatch.setattr(module, "_finish", watched(module._finish))
    job = CacheJob(str(tmp_path / "b"), str(tmp_path / "c"), unit=1)
    with ThreadPoolExecutor(3) as pool:
        made = [pool.submit(make_cache, job, 1, (i, 3), progress=False) for i in range(3)]
        assert any(future.result() for future in made)
        again = [pool.submit(make_cache, job, 1, (i, 3), progress=False) for i in range(3)]
        assert all(future.result() for future in again)
    assert set(met) == {1}
    assert len(TokenCache(tmp_path / "c")) == 4


def test_a_format_without_a_battle_does_not_keep_a_cache_from_its_end(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "battles")
    (tmp_path / "battles" / "gen5ou").mkdir()
    (tmp_path / "battles" / "gen6ou").mkdir()
    for count, name in enumerate(("oops.json", "again.json"), 3):  # told of, if only by its bad names
        (tmp_path / "battles" / "gen6ou" / name).touch()
        manifest = cache_of(tmp_path / "battles", tmp_path / "c")
        assert (manifest["battles"], manifest["rejects"]["count"]) == (50, count)
    assert manifest["formats"]["gen6ou"] == 0
    assert "gen5ou" not in manifest["formats"]
    assert len(datasets.load_from_disk(str(tmp_path / "c"))) == 50


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_a_source_without_a_sound_battle_makes_no_cache(tmp_path, kind):
    write_battles(tmp_path / "b", 3, formats=("gen1ou",), style=Style(max_turns=30))
    source = tmp_path / "b"
    if kind == "archive":
        source = tmp_path / "gen1ou.tar.gz"
        tar_of(tmp_path / "b", source, "gen1ou")
    cap = max(file.stat().st_size for file in (tmp_path / "b" / "gen1ou").iterdir())  # not of what they unpack to
    with pytest.raises(DataError, match=r"none of its battles can be read; see .*parts for the reasons"):
        cache_of(source, tmp_path / "c", max_bytes=cap)
    (part,) = (tmp_path / "c" / "parts").iterdir()
    reasons = [reason for _, reason in json.loads(part.read_text())["rejects"]]
    assert len(reasons) == 3
    assert all(reason.startswith("size: ") and str(cap) in reason for reason in reasons), reasons


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
    process = subprocess.Popen(
        command, cwd=repository, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if len(list((tmp_path / "c" / "parts").glob("*.json"))) >= 1:
            os.killpg(process.pid, number)
            break
        time.sleep(0.002)
    _, errors = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130
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


def test_another_job_does_not_write_into_it(folder, tmp_path):
    cache_of(folder, tmp_path / "c")
    with pytest.raises(DataError, match="another space"):
        cache_of(folder, tmp_path / "c", space="expanded")
    # Battles refused for their size by one cap would be missing by the other.
    for name, other in (("max_bytes", 1 << 20), ("illegal", "unrecorded"), ("unit", 5), ("formats", ("gen1ou",))):
        with pytest.raises(DataError, match=f"begun with another {name} "):
            cache_of(folder, tmp_path / "c", **{name: other})
    (tmp_path / "other").symlink_to(folder)
    cache_of(tmp_path / "other", tmp_path / "d", formats=("gen9ou", "gen1ou"))
    cache_of(tmp_path / "other", tmp_path / "d", formats=("gen1ou", "gen9ou"))
    with pytest.raises(DataError, match="begun with another source "):
        cache_of(folder, tmp_path / "d", formats=("gen1ou", "gen9ou"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(DataError, match=r"thesis\.txt"):
        cache_of(folder, tmp_path / "mine")


def test_a_slip_in_the_command_claims_no_folder(folder, tmp_path):
    for source, options in ((folder, {"formats": ("gen1uo",)}), (tmp_path / "nowhere", {}), (folder, {"unit": 0})):
        with pytest.raises(DataError):
            cache_of(source, tmp_path / "c", **options)
    for shard in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(DataError, match=r"give i/n with 0 ≤ i < n"):
            make_cache(CacheJob(str(folder), str(tmp_path / "c")), 1, shard, progress=False)
    assert cache_of(folder, tmp_path / "c", formats=("gen1ou",))["battles"] == 10


@pytest.mark.parametrize("kind", ["folder", "archives"])
def test_a_source_given_as_out_is_left_as_it_is(folder, tmp_path, kind):
    """A folder `parts` in it would be a format of its own, and keep archives from being read."""
    source = tmp_path / "b"
    if kind == "folder":
        shutil.copytree(folder, source)
    else:
        source.mkdir()
        tar_of(folder, source / "gen9ou.tar.gz", "gen9ou")
    with pytest.raises(DataError, match="and is no cache; give an empty or new folder"):
        cache_of(source, source)
    assert not (source / "parts").exists()
    assert cache_of(source, tmp_path / "c")["battles"] == (50 if kind == "folder" else 10)


def test_a_cache_is_not_made_among_the_battles(tmp_path, monkeypatch):
    """Where it would pass for a format of theirs; a folder that cannot, as that of the indexes, is let be."""
    write_battles(tmp_path / "b", 5, style=Style(max_turns=6))
    for place in ("cache", "gen1ou", "gen1ou/cache"):
        with pytest.raises(DataError, match="would be read as a format there"):
            cache_of(tmp_path / "b", tmp_path / "b" / place)
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(DataError, match="would be read as a format there"):
        cache_of(tmp_path / "b", "cache")
    assert len(list((tmp_path / "b").iterdir())) == 5
    cache_of(tmp_path / "b", tmp_path / "b" / ".cache" / "tokens-1")
    assert len(dataset_of(tmp_path / "b", tmp_path)) == 5
    with pytest.raises(DataError, match="--battles-per-shard 0: give 1 or more"):
        cache_of(tmp_path / "b", tmp_path / "c", unit=0)


def test_where_downloads_came_from_goes_with_their_cache(folder, tmp_path):
    """A model's licence hangs on it."""
    battles = tmp_path / "downloaded"
    shutil.copytree(folder / "gen9ou", battles / "gen9ou")
    note = '[{"repo": "some/data", "revision": "v4", "licence": "cc-by-nc-4.0"}]'
    (battles / DOWNLOADS).write_text(note)
    cache_of(battles, tmp_path / "cache")
    assert (tmp_path / "cache" / DOWNLOADS).read_text() == note


def test_a_claim_cut_in_the_middle_is_made_whole(folder, tmp_path):
    Tokenizer.load().save(tmp_path / "c" / "vocabulary.json")
    (tmp_path / "c" / "parts").mkdir()
    assert cache_of(folder, tmp_path / "c")["battles"] == 50
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "vocabulary.json").write_text("{}")
    Tokenizer(["snorlax"]).save(tmp_path / "e" / "vocabulary.json")
    for place in "de":
        with pytest.raises(DataError, match="is no cache"):
            cache_of(folder, tmp_path / place)


def test_a_folder_that_cannot_be_made_says_so(folder, tmp_path, capsys):
    from data.prepare import main

    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(["cache", "--from", str(folder), "--out", str(blocked / "c")]) == 1
    assert "Not a directory" in capsys.readouterr().err


def test_a_folder_that_fills_up_leaves_no_half_shard(folder, tmp_path, monkeypatch):
    calls = []

    def full(descriptor):
        calls.append(os.fstat(descriptor).st_size)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("data.cache.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache_of(folder, tmp_path / "c")
    assert len(list((tmp_path / "c").glob("shard-*"))) == len(list((tmp_path / "c" / "parts").glob("*.json"))) == 2
    assert not list((tmp_path / "c").glob(".shard-*"))
    assert calls[:2] == [file.stat().st_size for file in sorted((tmp_path / "c").glob("shard-*"))]  # synced whole
    cache_of(folder, tmp_path / "c")
    assert len(TokenCache(tmp_path / "c")) == 50


@pytest.mark.parametrize(
    "name", ["shard-gen1ou-00000.arrow", "gen1ou-00000.json", "index.bin", "vocabulary.json", "job.json"]
)
def test_a_file_that_cannot_be_put_in_its_place_leaves_no_other(tmp_path, monkeypatch, name):
    real = os.replace

    def full(source, target):
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    write_battles(tmp_path / "b", 4, formats=("gen1ou",), style=Style(max_turns=6))
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        cache_of(tmp_path / "b", tmp_path / "c")
    assert {file.name for file in (tmp_path / "c").rglob(".*")} == {".making", ".lock"}
    if name.startswith("shard"):
        assert not list((tmp_path / "c" / "parts").iterdir())  # a note comes after what it tells of
    monkeypatch.setattr(os, "replace", real)
    assert cache_of(tmp_path / "b", tmp_path / "c")["battles"] == 4


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
