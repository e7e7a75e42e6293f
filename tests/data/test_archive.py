"""Archives of battles: read as they pass, and never taken as whole where they are not."""

import gzip
import io
import shutil
import tarfile
import zlib
from contextlib import nullcontext

import lz4.frame
import numpy as np
import pytest

from data import archive
from data.folders import DataError
from data.observation import SPACES
from data.token_cache import TokenCache
from tests.battle_files import Style, make_battle, write_battle, write_battles

from .caches import assert_equal, cache_of, dataset_of, tar_of


@pytest.mark.parametrize("kind", [".tar.gz", ".tar", ".tar.lz4"])
def test_straight_from_archives(folder, tmp_path, kind):
    tars = tmp_path / "tars"
    tars.mkdir()
    for name in ("gen1ou", "gen9ou"):
        if kind == ".tar.lz4":
            tar_of(folder, tars / f"{name}.tar", name)
            (tars / f"{name}.tar.lz4").write_bytes(lz4.frame.compress((tars / f"{name}.tar").read_bytes()))
            (tars / f"{name}.tar").unlink()
        else:
            tar_of(folder, tars / f"{name}{kind}", name, prefix="some/where/")
    cache_of(tars, tmp_path / "from tars")
    cache_of(folder, tmp_path / "from files", formats=("gen1ou", "gen9ou"))
    a, b = TokenCache(tmp_path / "from tars"), TokenCache(tmp_path / "from files")
    for column in ("path", "key", "split", "turns", "size", "rating"):
        assert a.table[column].to_pylist() == b.table[column].to_pylist()
    for i in range(len(a)):
        assert_equal(a[i], b[i], SPACES["default"])
    assert b.table["size"].to_pylist() == [(folder / path).stat().st_size for path in b.table["path"].to_pylist()]
    one = cache_of(tars / f"gen9ou{kind}", tmp_path / "one")
    assert one["formats"] == {"gen9ou": 10}


def test_files_that_are_not_compressed_are_read_from_an_archive_too(tmp_path):
    path = write_battle(tmp_path / "b", make_battle(5, "gen1ou", Style(max_turns=9)))
    path.with_name(path.name.removesuffix(".lz4")).write_bytes(lz4.frame.decompress(path.read_bytes()))
    path.unlink()
    tar_of(tmp_path / "b", tmp_path / "gen1ou.tar", "gen1ou")
    cache_of(tmp_path / "b", tmp_path / "from files")
    cache_of(tmp_path / "gen1ou.tar", tmp_path / "from tar")
    a, b = TokenCache(tmp_path / "from files"), TokenCache(tmp_path / "from tar")
    assert a.table["path"].to_pylist() == b.table["path"].to_pylist() == [f"gen1ou/{path.name.removesuffix('.lz4')}"]
    assert np.array_equal(a[0].words, b[0].words)


def test_a_cut_archive_keeps_what_was_whole(folder, tmp_path):
    tar_of(folder, tmp_path / "gen1ou.tar.gz", "gen1ou")
    content = (tmp_path / "gen1ou.tar.gz").read_bytes()
    (tmp_path / "gen1ou.tar.gz").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(DataError, match="cut or spoilt"):
        cache_of(tmp_path / "gen1ou.tar.gz", tmp_path / "c", unit=2)
    kept = sorted((tmp_path / "c" / "parts").glob("*.json"))
    assert kept
    (tmp_path / "gen1ou.tar.gz").write_bytes(content)
    assert cache_of(tmp_path / "gen1ou.tar.gz", tmp_path / "c", unit=2)["formats"] == {"gen1ou": 10}


def read_whole(file):
    return [member.reason or member.read() for member in archive.members(file)]


def gzip_reads_as(spoilt, whole):
    try:
        return gzip.decompress(spoilt) == gzip.decompress(whole)
    except (OSError, EOFError, zlib.error):
        return False


def test_a_battle_that_stands_twice_in_an_archive_is_one(folder, tmp_path, caplog):
    """`tar --append` of a folder that has grown puts all of its files behind the older ones; unpacked, they win."""
    file = tmp_path / "gen2ou.tar"
    tar_of(folder, file, "gen2ou")
    first = min((folder / "gen2ou").iterdir())
    other = max((folder / "gen2ou").iterdir())
    with tarfile.open(file, "a") as tar:
        tar.add(other, arcname=f"gen2ou/{first.name}")
    manifest = cache_of(file, tmp_path / "c", unit=3)
    assert "1 battles stand in their archive again" in caplog.text
    assert manifest["battles"] == manifest["formats"]["gen2ou"] == 10
    cache = TokenCache(tmp_path / "c")
    paths = cache.table["path"].to_pylist()
    assert len(paths) == len(set(paths)) == 10
    assert len(cache[paths.index(f"gen2ou/{first.name}")]) == len(cache[paths.index(f"gen2ou/{other.name}")])
    assert manifest["turns"] == sum(len(cache[i]) for i in range(10))


def test_a_battle_that_stands_packed_and_unpacked_in_an_archive_is_one(tmp_path, caplog):
    """As of a folder in which `lz4 -d` unpacked battles beside themselves."""
    files = write_battles(tmp_path, 3, formats=("gen1ou",), style=Style(max_turns=5))
    files[1].with_suffix("").write_bytes(lz4.frame.decompress(files[1].read_bytes()))
    tar_of(tmp_path, tmp_path / "gen1ou.tar", "gen1ou")
    assert cache_of(tmp_path / "gen1ou.tar", tmp_path / "c", unit=2)["battles"] == 3
    assert "1 battles stand in their archive again" in caplog.text
    assert TokenCache(tmp_path / "c").table["path"].to_pylist() == sorted(f"gen1ou/{file.name}" for file in files)


@pytest.mark.parametrize("kind", ["tar", "gz"])
def test_no_cut_or_flipped_bit_is_taken_for_the_end(folder, tmp_path, kind):
    """tarfile ends quietly at any header that is none, and does not look at gzip's sums."""
    file = tmp_path / f"gen1ou.tar{'.gz' if kind == 'gz' else ''}"
    tar_of(folder, file, "gen1ou")
    whole, step = file.read_bytes(), file.stat().st_size // 60
    sound = read_whole(file)
    assert len(sound) > 9
    if kind == "tar":
        # It has sums of its headers alone; what lies in a member is its battle's to judge.
        second = 512 * next(n for n in range(2, len(whole) // 512) if whole[512 * n :].startswith(b"gen1ou/"))
        flips = range(second, second + 500, 7)
    else:
        flips = range(64, len(whole), step)  # gzip's own header holds a time and a name
    for place in flips:
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << place % 8
        file.write_bytes(spoilt)
        # Up to seven bits of gzip mean nothing, which fill up its last byte; how many varies with the times in it.
        harmless = kind == "gz" and gzip_reads_as(spoilt, whole)
        with nullcontext() if harmless else pytest.raises(DataError, match="cut or spoilt"):
            assert read_whole(file) == sound
    for place in (place for place in range(0, len(whole), step) if whole[place:].strip(b"\0")):
        file.write_bytes(whole[:place])
        with pytest.raises(DataError, match="cut or spoilt"):
            read_whole(file)


def test_a_sound_archive_in_a_spoilt_ones_place_is_encoded_anew(folder, tmp_path, monkeypatch):
    from data import cache as module

    again, real = [], module.do_unit
    monkeypatch.setattr(module, "do_unit", lambda unit, job: again.append(unit.name) or real(unit, job))
    shutil.copytree(folder / "gen1ou", tmp_path / "gen1ou")
    file = tmp_path / "gen1ou.tar"
    spoilt = max(p for p in (tmp_path / "gen1ou").iterdir() if p.stat().st_size > 100)
    spoilt.write_bytes(bytes(spoilt.stat().st_size))
    tar_of(tmp_path, file, "gen1ou")
    few = cache_of(file, tmp_path / "c", unit=3)["battles"]
    again.clear()
    tar_of(folder, file, "gen1ou")
    assert cache_of(file, tmp_path / "c", unit=3)["battles"] == few + 1
    assert len(again) == 1


def test_half_an_unpacked_archive_is_not_read_for_all_of_it(folder, tmp_path, monkeypatch):
    """Told to stop in the midst, or out of disk: the archive beside it is still what is read."""
    to = tmp_path / "d"
    to.mkdir()
    tar_of(folder, to / "gen2ou.tar.gz", "gen2ou")
    real = archive.members

    def stopped(*arguments):
        for number, member in enumerate(real(*arguments)):
            if number == 4:
                raise KeyboardInterrupt
            yield member

    monkeypatch.setattr(archive, "members", stopped)
    with pytest.raises(KeyboardInterrupt):
        archive.unpack_archive(to / "gen2ou.tar.gz", to)
    monkeypatch.setattr(archive, "members", real)
    assert len(dataset_of(to, tmp_path)) == 10
    first = min((to / ".gen2ou.unpacking").iterdir())
    kept = first.stat().st_ino
    assert archive.unpack_archive(to / "gen2ou.tar.gz", to) == (10, 0)
    assert (to / "gen2ou" / first.name).stat().st_ino == kept
    assert not (to / ".gen2ou.unpacking").exists()


def test_an_archive_is_unpacked_over_what_is_other_there_and_nothing_else(folder, tmp_path):
    to, elsewhere = tmp_path / "d" / "gen2ou", tmp_path / "elsewhere"
    to.mkdir(parents=True)
    files = sorted((folder / "gen2ou").iterdir())
    tar_of(folder, tmp_path / "gen2ou.tar", "gen2ou")
    with tarfile.open(tmp_path / "gen2ou.tar", "a") as tar:
        link = tarfile.TarInfo("gen2ou/link.json.lz4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    same, shorter, linked, as_long = (to / file.name for file in files[:4])
    shutil.copy(files[0], same)
    shorter.write_bytes(b"half of it")
    as_long.write_bytes(bytes(files[3].stat().st_size))
    elsewhere.write_bytes(bytes(files[2].stat().st_size))
    linked.symlink_to(elsewhere)
    kept = same.stat().st_ino
    largest = max(file.stat().st_size for file in files)  # which is not over the cap
    assert archive.unpack_archive(tmp_path / "gen2ou.tar", tmp_path / "d", largest) == (len(files), 1)
    assert same.stat().st_ino == kept
    assert {file.name: file.read_bytes() for file in to.iterdir()} == {file.name: file.read_bytes() for file in files}
    assert not linked.is_symlink()
    assert not any(elsewhere.read_bytes())
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["gen2ou"]


def test_battles_of_another_revision_are_told_of_where_one_is_unpacked_over_it(folder, tmp_path, caplog):
    """What v4 no longer had was trained on as v4's, without a word."""
    tar_of(folder, tmp_path / "gen1ou.tar", "gen1ou")
    archive.unpack_archive(tmp_path / "gen1ou.tar", tmp_path / "d", wanted=lambda name: name.endswith(".lz4"))
    assert "are not in" not in caplog.text
    later = tmp_path / "later"
    shutil.copytree(folder / "gen1ou", later / "gen1ou")
    gone = sorted((later / "gen1ou").iterdir())[:3]
    for file in gone:
        file.unlink()
    tar_of(later, tmp_path / "gen1ou.tar", "gen1ou")
    count = len(list((later / "gen1ou").iterdir()))
    assert archive.unpack_archive(tmp_path / "gen1ou.tar", tmp_path / "d") == (count, 0)
    assert f"d/gen1ou: 3 files there are not in gen1ou.tar, as {gone[0].name}: of another revision" in caplog.text


@pytest.mark.parametrize(
    ("name", "inside", "match"),
    [
        (
            "all.tar.gz",
            ("gen1ou", "gen9ou"),
            r"holds parsed/gen1ou/.*, of gen1ou, .* call it gen1ou\.tar\.gz",
        ),
        ("gen1ou.tar.gz", ("gen1ou", "gen9ou"), r"holds parsed/gen9ou/.*, of gen9ou"),
        ("gen1ou_plain.tar", ("gen1ou",), r"gen1ou_plain\.tar: its name tells no format"),
    ],
)
def test_an_archive_of_another_format_than_its_name_is_refused(folder, tmp_path, name, inside, match):
    """It would be taken, all of it, for battles of its name's format: filters and tables would be wrong in silence."""
    file = tmp_path / "tars" / name
    file.parent.mkdir()
    with tarfile.open(file, "w:gz" if name.endswith("gz") else "w") as tar:
        for battle_format in inside:
            tar.add(folder / battle_format, arcname=f"parsed/{battle_format}")
    with pytest.raises(DataError, match=match):
        cache_of(file, tmp_path / "c")
    with pytest.raises(DataError, match=match):
        dataset_of(file.parent, tmp_path)


@pytest.mark.parametrize("name", ["all.tar.gz", "gen9ou.tar.gz"])
def test_a_flat_archive_is_of_the_format_that_its_battles_ids_tell(folder, tmp_path, name):
    for file in (tmp_path / name, tmp_path / "gen1ou.tar.gz"):
        with tarfile.open(file, "w:gz") as tar:
            for battle in sorted((folder / "gen1ou").iterdir()):
                tar.add(battle, arcname=f"smogtours-{battle.name}")
    with pytest.raises(DataError, match=r"holds .*, of gen1ou, .* call it gen1ou\.tar\.gz"):
        cache_of(tmp_path / name, tmp_path / "c")
    assert cache_of(tmp_path / "gen1ou.tar.gz", tmp_path / "one")["formats"] == {"gen1ou": 10}


def test_two_archives_of_one_format_are_refused(folder, tmp_path):
    (tmp_path / "tars").mkdir()
    tar_of(folder, tmp_path / "tars" / "gen1ou.tar", "gen1ou")
    tar_of(folder, tmp_path / "tars" / "gen1ou.tar.gz", "gen1ou")
    with pytest.raises(DataError, match=r"gen1ou\.tar and gen1ou\.tar\.gz are both of gen1ou; keep one"):
        cache_of(tmp_path / "tars", tmp_path / "c")
    with pytest.raises(DataError, match="both of gen1ou"):
        dataset_of(tmp_path / "tars", tmp_path)
    assert cache_of(tmp_path / "tars" / "gen1ou.tar", tmp_path / "one")["battles"] == 10


def test_hidden_files_in_an_archive_are_passed_over_as_in_a_folder(folder, tmp_path):
    """macOS packs a `._name` beside each name: half of the members, which would stop any run as rejects."""
    with tarfile.open(tmp_path / "gen9ou.tar.gz", "w:gz") as tar:
        for file in sorted((folder / "gen9ou").iterdir()):
            hidden = tarfile.TarInfo(f"gen9ou/._{file.name}")
            hidden.size = 3
            tar.addfile(hidden, io.BytesIO(b"abc"))
            tar.add(file, arcname=f"gen9ou/{file.name}")
    manifest = cache_of(tmp_path / "gen9ou.tar.gz", tmp_path / "c")
    assert (manifest["battles"], manifest["rejects"]["count"]) == (10, 0)


def test_a_hidden_link_in_an_archive_is_told_of(folder, tmp_path):
    """Nobody packs one by chance. It is added to an archive that is cached already: its unit is another then."""
    tar_of(folder, tmp_path / "gen9ou.tar", "gen9ou")
    assert cache_of(tmp_path / "gen9ou.tar", tmp_path / "c", unit=20)["rejects"]["count"] == 0
    with tarfile.open(tmp_path / "gen9ou.tar", "a") as tar:
        link = tarfile.TarInfo("gen9ou/.link.json.lz4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    manifest = cache_of(tmp_path / "gen9ou.tar", tmp_path / "c", unit=20)
    assert manifest["rejects"]["files"] == [["gen9ou.tar:.link.json.lz4", "archive: is a link"]]


def test_hostile_members_are_left_out_with_reasons(folder, tmp_path):
    good = next((folder / "gen1ou").glob("gen1ou-*"))
    archive = tmp_path / "gen1ou.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(good, arcname=f"gen1ou/{good.name}")
        for name, kind, link in (
            ("gen1ou/link.json.lz4", tarfile.SYMTYPE, "/etc/passwd"),
            ("gen1ou/hard.json.lz4", tarfile.LNKTYPE, f"gen1ou/{good.name}"),
            ("gen1ou/device.json.lz4", tarfile.CHRTYPE, ""),
            ("gen1ou/pipe.json.lz4", tarfile.FIFOTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info)
        for name in (
            "/etc/x_1_a_vs_b_01-01-2024_WIN.json.lz4",
            "../z_1_a_vs_b_01-01-2024_WIN.json.lz4",
            "gen1ou/n.txt",
        ):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
        big = tarfile.TarInfo("gen1ou/y_1_a_vs_b_01-01-2024_WIN.json.lz4")
        big.size = 3_000_000
        tar.addfile(big, io.BytesIO(b"\0" * big.size))
    manifest = cache_of(archive, tmp_path / "c", max_bytes=2_000_000)
    assert manifest["battles"] == 1
    reasons = dict(manifest["rejects"]["files"])
    assert manifest["rejects"]["count"] == 8
    for name in "xz":  # by either way
        assert "leads out" in reasons[f"gen1ou.tar.gz:{name}_1_a_vs_b_01-01-2024_WIN.json.lz4"]
    text = " ".join(reasons.values())
    for expected in ("is a link", "no regular file", "leads out", "over the cap", "none of the files"):
        assert expected in text
