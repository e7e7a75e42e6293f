"""What a folder given as data holds: nothing in it is left unread in silence."""

import os
import shutil
from contextlib import nullcontext

import pytest

from data.dataset import BattleDataset, DataConfig
from data.folders import DOWNLOADS, DataError, format_folders

from .caches import TOKENIZER, cache_of, dataset_of, tar_of


def one_format(folder, data, beside):
    """gen9ou's battles in `data`, as an archive or as a folder."""
    if beside == "archives":
        data.mkdir()
        tar_of(folder, data / "gen9ou.tar.gz", "gen9ou")
    else:
        shutil.copytree(folder / "gen9ou", data / "gen9ou")


@pytest.mark.parametrize("name", ["gen9ou", "gen9ou.tar.gz"])
def test_a_link_that_leads_nowhere_is_not_left_unread_in_silence(folder, tmp_path, name):
    """A volume that is not mounted takes a format with it."""

    def put(place, format_name):
        if name == "gen9ou":
            shutil.copytree(folder / format_name, place / format_name)
        else:
            place.mkdir(exist_ok=True)
            tar_of(folder, place / f"{format_name}.tar.gz", format_name)

    put(tmp_path / "d", "gen1ou")
    (tmp_path / "d" / name).symlink_to(tmp_path / "volume" / name)
    for read in (lambda: cache_of(tmp_path / "d", tmp_path / "c"), lambda: dataset_of(tmp_path / "d", tmp_path)):
        with pytest.raises(DataError, match=f"{name}: leads to .*volume/{name}, which is not there"):
            read()
    put(tmp_path / "volume", "gen9ou")
    assert set(dataset_of(tmp_path / "d", tmp_path).formats()) == {"gen1ou", "gen9ou"}


def test_archives_beside_folders_are_not_left_unread_in_silence(folder, tmp_path):
    shutil.copytree(folder / "gen1ou", tmp_path / "d" / "gen1ou")
    for name in ("gen1ou.tar.gz", "gen1ou.tgz"):  # unpacked already
        tar_of(folder, tmp_path / "gen1ou.tar.gz", "gen1ou")
        shutil.move(tmp_path / "gen1ou.tar.gz", tmp_path / "d" / name)
    battles = cache_of(tmp_path / "d", tmp_path / "c")["battles"]
    assert len(dataset_of(tmp_path / "d", tmp_path)) == battles + 1  # a file is judged when it is read
    tar_of(folder, tmp_path / "d" / "gen9ou.tar.gz", "gen9ou")
    with pytest.raises(DataError, match=r"gen9ou\.tar\.gz beside format folders \(gen1ou\) would"):
        cache_of(tmp_path / "d", tmp_path / "c2")
    with pytest.raises(DataError, match=r"gen9ou\.tar\.gz beside format folders"):
        dataset_of(tmp_path / "d", tmp_path)


@pytest.mark.parametrize("beside", ["archives", "format folders"])
def test_battle_files_beside_what_is_read_are_not_left_unread_in_silence(folder, tmp_path, beside):
    data = tmp_path / "d"
    one_format(folder, data, beside)
    (data / DOWNLOADS).write_text("[]")  # as `data.prepare download` leaves it there: no battle
    cache_of(data, tmp_path / "before")
    assert len(dataset_of(data, tmp_path))
    for file in sorted((folder / "gen1ou").iterdir())[:2]:
        shutil.copy(file, data)
    for read in (lambda: cache_of(data, tmp_path / "c"), lambda: dataset_of(data, tmp_path)):
        with pytest.raises(DataError, match=f"2 battle files beside {beside} would be left unread: move them"):
            read()


@pytest.mark.parametrize(
    ("where", "match"),
    [
        ("2026/gen1ou", r"2026/gen1ou: holds battle files deeper .* give .*/d/2026 as data\.path"),
        ("gen9ou/more", r"gen9ou/more: holds battle files deeper .* move them up to .*/gen9ou$"),
        ("gen9ou/gen1ou", r"gen9ou/gen1ou: holds battle files deeper .* move them up to .*/gen9ou$"),
        ("selfplay/round1/gen1ou", r"1/gen1ou: holds battle files deeper .* give .*/selfplay/round1 as data\.path"),
        ("gen9ou/2023/more", r"2023/more: holds battle files deeper .* move them up to .*/gen9ou$"),
        ("pac-base/gen1ou", r"pac-base/gen1ou: lies one folder deeper .* give .*/d/pac-base as a source of its own"),
        ("gen1ou-v2", r"gen1ou-v2: holds battle files, and its name is no format's"),
        ("Gen1OU", r"Gen1OU: holds battle files, and its name is no format's"),
        (".hidden", None),
        ("notes-of-mine", None),
    ],
)
def test_folders_of_battles_that_are_not_read_are_told(folder, tmp_path, where, match):
    """Sixty of a hundred battles were missing without a word."""
    data = tmp_path / "d"
    shutil.copytree(folder / "gen9ou", data / "gen9ou")
    shutil.copytree(folder / "gen1ou", data / where)
    if where == "notes-of-mine":
        for file in (data / where).iterdir():
            file.rename(file.with_suffix(".txt"))
    for read in (lambda: cache_of(data, tmp_path / "c"), lambda: dataset_of(data, tmp_path)):
        with pytest.raises(DataError, match=match) if match else nullcontext():
            assert len(read()) > 0
    if match and where in ("gen1ou-v2", "Gen1OU", "pac-base/gen1ou"):  # nobody asked for it
        assert set(
            BattleDataset(
                DataConfig(path=str(data), formats=["gen9ou"], cache_dir=str(tmp_path / "i"), max_reject_share=0.5),
                TOKENIZER,
                "all",
            ).formats()
        ) == {"gen9ou"}


@pytest.mark.parametrize(
    ("where", "match"),
    [
        ("gen1ou-v2", "gen1ou-v2: holds battle files, and its name is no format's"),
        ("pac-base/gen1ou", "pac-base/gen1ou: lies one folder deeper"),
        ("pac-base/gen1ou.tar.gz", r"pac-base/gen1ou\.tar\.gz: lies one folder deeper"),
        (".hidden/gen1ou", None),
    ],
)
def test_folders_beside_archives_are_not_left_unread_in_silence(folder, tmp_path, where, match):
    """A subset of the pile was downloaded to where the replays lie: they were trained on alone."""
    data = tmp_path / "d"
    one_format(folder, data, "archives")
    (data / where).parent.mkdir(exist_ok=True)
    if where.endswith(".tar.gz"):
        tar_of(folder, data / where, "gen1ou")
    else:
        shutil.copytree(folder / "gen1ou", data / where)
    for read in (lambda: cache_of(data, tmp_path / "c"), lambda: dataset_of(data, tmp_path)):
        with pytest.raises(DataError, match=match) if match else nullcontext():
            assert len(read()) > 0
    assert cache_of(data, tmp_path / "asked", formats=("gen9ou",))["formats"].keys() == {"gen9ou"}
    assert set(dataset_of(data, tmp_path, formats=["gen9ou"]).formats()) == {"gen9ou"}


def test_a_folder_that_cannot_be_looked_into_holds_no_battles(folder, tmp_path, monkeypatch):
    """As lost+found of a mounted disk."""
    shutil.copytree(folder / "gen9ou", tmp_path / "gen9ou")
    (tmp_path / "lost+found").mkdir()
    real = os.scandir

    def refused(path):
        if os.fspath(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert list(format_folders(tmp_path)) == ["gen9ou"]


@pytest.mark.parametrize("beside", ["archives", "format folders"])
@pytest.mark.parametrize("name", ["gen1ou.tar.xz", "gen1ou.zip"])
def test_archives_of_another_kind_are_not_left_unread_in_silence(folder, tmp_path, beside, name):
    data = tmp_path / "d"
    one_format(folder, data, beside)
    (data / name).write_bytes(b"")
    for read in (lambda: cache_of(data, tmp_path / "c"), lambda: dataset_of(data, tmp_path)):
        with pytest.raises(DataError, match=rf"{name}: is an archive of a kind that is not read, which are \.tar\.gz"):
            read()
    (data / name).rename(data / "notes.zip")  # which by its name holds no battles
    assert len(dataset_of(data, tmp_path)) > 0
