"""Making a token cache: gone on with, of a source that changed, mended, and what is refused."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest

from data.cache import CacheJob, make_cache
from data.cache_end import index_of
from data.folders import DOWNLOADS, DataError
from data.prepare import main
from data.token_cache import INDEX_SCHEMA, TokenCache
from data.tokenizer import Tokenizer
from tests.battle_files import Style, write_battles

from .caches import cache_of, dataset_of, tar_of


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


@pytest.mark.slow
def test_paths_of_over_2_gib_are_put_in_order():
    """Those of 22 million battles: a cache of them failed at its last step, and each time that it was started again."""
    name, tables = "x" * 65_536, {}
    for format_name in ("gen9ou", "gen1ou"):
        rows = {field.name: pa.array(np.zeros(100, np.int8)) for field in INDEX_SCHEMA}
        rows |= {field.name: pa.array([""] * 100) for field in INDEX_SCHEMA if field.type == pa.string()}
        rows["format"] = pa.array([format_name] * 100)
        rows["path"] = pa.array([f"{format_name}/{99 - i:02d}{name}" for i in range(100)])
        tables[format_name] = [pa.table(rows).cast(INDEX_SCHEMA)] * 170  # 1.1 GiB
    paths = [text[:9] for text in index_of(tables)["path"].to_pylist()]
    assert paths == [f"{name}/{i:02d}" for name in ("gen1ou", "gen9ou") for i in range(100)]


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
    from data import cache_end as module

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


def test_a_rejected_file_that_was_fetched_again_is_read_by_the_next(tmp_path, monkeypatch):
    """As long as it was, and as old: it stayed rejected however often the command was given, as its reason asks for."""
    from data import cache as module

    files = write_battles(tmp_path / "b", 12, formats=("gen1ou",), style=Style(max_turns=6))
    spoilt = sorted(files)[:2]
    for file in spoilt:
        os.utime(file, (1, 1))
        (tmp_path / file.name).write_bytes(file.read_bytes())
        file.write_bytes(bytes(file.stat().st_size))
    assert cache_of(tmp_path / "b", tmp_path / "c")["battles"] == 10
    done, real = [], module.do_unit
    monkeypatch.setattr(module, "do_unit", lambda unit, job: done.append(unit.name) or real(unit, job))
    assert cache_of(tmp_path / "b", tmp_path / "c")["battles"] == 10
    assert not done
    time.sleep(0.05)  # a file system's clock goes by hundredths of a second
    spoilt[0].write_bytes((tmp_path / spoilt[0].name).read_bytes())
    os.utime(spoilt[0], (1, 1))
    assert cache_of(tmp_path / "b", tmp_path / "c")["battles"] == 11
    assert done == ["gen1ou-00000"]


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


def test_a_cache_whose_notes_were_removed_is_made_again(tmp_path):
    write_battles(tmp_path / "b", 4, formats=("gen1ou",), style=Style(max_turns=6))
    made = cache_of(tmp_path / "b", tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "parts")
    assert cache_of(tmp_path / "b", tmp_path / "c") == made


@pytest.mark.parametrize("place", ["file", "file/c"])
def test_a_folder_that_cannot_be_made_says_so(folder, tmp_path, capsys, place):
    (tmp_path / "file").write_text("")
    assert main(["cache", "--from", str(folder), "--out", str(tmp_path / place)]) == 1
    assert f"error: {tmp_path / place}: cannot be written (" in capsys.readouterr().err


def test_a_disk_that_fails_is_not_told_to_be_made_writable(folder, tmp_path, monkeypatch, capsys):
    def failing(job, *_):
        raise OSError(errno.EIO, "Input/output error", f"{job.out}/index.bin")

    monkeypatch.setattr("data.cache.make_cache", failing)
    assert main(["cache", "--from", str(folder), "--out", str(tmp_path / "c")]) == 1
    assert f"error: [Errno 5] Input/output error: '{tmp_path}/c/index.bin'" in capsys.readouterr().err


def test_a_slip_is_told_where_the_folder_at_hand_is_written(folder, tmp_path, monkeypatch, capsys):
    """Of what has nothing to do with a file none is named, which passed for the one at hand."""
    monkeypatch.chdir(tmp_path)
    assert main(["cache", "--from", str(folder), "--out", ".", "--formats", "gen8ou"]) == 1
    assert "error: formats gen8ou not under" in capsys.readouterr().err


def test_a_read_only_disk_is_named_with_the_mend(folder, tmp_path):
    """Mounted in a name space of its own, where the system lets one have it."""
    mounted, out = tmp_path / "disk", tmp_path / "disk" / "new" / "c"
    mounted.mkdir()
    inside = 'mount -t tmpfs -o ro tmpfs "$0" && exec "$@"'
    alone = ["unshare", "--mount", "--map-root-user", "sh", "-c", inside, mounted]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount of one's own here")
    for command in (["cache", "--from", folder, "--out", out], ["vocabulary", "--corpus", folder, "--out", out]):
        done = subprocess.run(
            [*alone, sys.executable, "-m", "data.prepare", *command],
            cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode in (1, 2)
        assert "disk/new/c" in done.stderr.splitlines()[-1]
        assert "cannot be written" in done.stderr.splitlines()[-1]


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
