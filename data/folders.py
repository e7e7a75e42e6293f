"""What a folder given as data holds: formats, archives, a token cache, a note on where it was downloaded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from .replay_file import is_battle_file, is_named_as_battle

ENDINGS = (".tar.gz", ".tgz", ".tar.lz4", ".tar")  # of archives
DOWNLOADS = "downloads.json"  # beside downloaded data: where it came from, and its licence
JOB, MANIFEST = "job.json", "manifest.json"  # of a token cache: written first, and last
OTHER_ENDINGS = (".tar.xz", ".tar.bz2", ".tbz", ".tar.zst", ".zip", ".7z", ".rar")  # of archives that nobody here reads
LOOKED_AT = 64  # entries of a folder that is not read, to tell whether it holds battles
FORMAT = re.compile(r"[a-z0-9]+", re.ASCII)
GENERATION = re.compile(r"gen[1-9]")  # how the names of all of Showdown's formats begin


class DataError(ValueError):
    """A folder that cannot be indexed: which, why, and what to do."""


class EmptySplit(DataError):  # noqa: N818 (it names the finding)
    """No battle on the side of the split that was asked for."""


def format_folders(root: Path, asked: Sequence[str] = ()) -> dict[str, Path]:
    """The formats under `root`, each with its folder, sorted. A folder that holds battle files itself is one format.
    Where formats are `asked` for by name, folders of other names and archives that nobody reads are no matter.

    Raises:
        DataError: no such folder, nothing in it that could be a format, what would be left unread, a link that leads
            nowhere, or a token cache, finished or not.
    """
    if not root.is_dir():
        raise DataError(f"data.path {root}: is no folder; give the folder that holds the format folders")
    if (root / MANIFEST).is_file():
        raise DataError(f"{root}: is a token cache, where battle files are read; give the folder it was made from")
    if (root / JOB).is_file():
        raise DataError(f"{root}: is a token cache that is not finished; run the same `data.prepare cache` again")
    folders: dict[str, Path] = {}
    archives: list[str] = []
    direct = loose = 0
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.is_dir() and FORMAT.fullmatch(entry.name):
                folders[entry.name] = root / entry.name
            elif entry.is_dir() and entry.name[0] != "." and not asked:
                refuse_misnamed(root / entry.name)
            elif entry.is_symlink() and FORMAT.fullmatch(entry.name):
                refuse_lost_link(root / entry.name)
            elif entry.name.endswith(ENDINGS):
                archives.append(entry.name)
            elif is_battle_file(entry.name):
                direct += 1
                loose += is_named_as_battle(entry.name)
            elif not asked:
                refuse_other_archive(root / entry.name)
    if not folders and direct:
        return {root.resolve().name: root}
    if not folders and archives:
        raise DataError(
            f"data.path {root}: holds {len(archives)} archives and no format folder, where battle files are read; "
            "unpack each to a folder of its name, or give `data.prepare download` its --unpack"
        )
    if not folders:
        raise DataError(f"data.path {root}: holds no battle file; battles lie in {root}/FORMAT/*.json.lz4")
    refuse_loose_files(root, loose, "format folders")
    unread = sorted(name for name in archives if format_of_archive(name) not in folders)
    if unread:
        raise DataError(
            f"data.path {root}: {', '.join(unread)} beside format folders would be left unread: unpack each "
            "to a folder of its name, or keep archives and folders apart"
        )
    return dict(sorted(folders.items()))


def format_of_archive(name: str) -> str:
    """The format that an archive's file name tells, which ends with one of `ENDINGS`."""
    return name.removesuffix(next(ending for ending in ENDINGS if name.endswith(ending)))


def refuse_loose_files(root: Path, count: int, beside: str) -> None:
    """Raises DataError where battle files lie beside what is read of a folder."""
    if count:
        raise DataError(
            f"data.path {root}: {count} battle files beside {beside} would be left unread: move them to a folder of "
            "their format's name, or give them as a source of their own (data.sources)"
        )


def refuse_misnamed(folder: Path) -> None:
    """Raises DataError where a folder whose name is no format's holds battle files: they would be left unread."""
    if _holds_battles(folder):
        raise DataError(
            f"{folder}: holds battle files, and its name is no format's (small letters and digits): they would be "
            "left unread; rename it, or give it as a source of its own (data.sources)"
        )


def refuse_deeper(folder: Path) -> None:
    """Raises DataError where a folder in a format's folder holds battle files: they would be left unread."""
    if _holds_battles(folder):
        above = folder.parent
        mend = f"move them up to {above}"
        if GENERATION.match(folder.name) and not _holds_battles(above):  # a tree of years, say
            mend = f"give {above} as data.path, or as one of data.sources"
        raise DataError(
            f"{folder}: holds battle files one folder deeper than data.path/FORMAT/*.json.lz4, where they would be "
            f"left unread: {mend}"
        )


def _holds_battles(folder: Path) -> bool:
    """By its first entries; one that cannot be looked into, as a disk's lost+found, holds none."""
    try:
        with os.scandir(folder) as entries:
            return any(is_named_as_battle(entry.name) for entry in islice(entries, LOOKED_AT))
    except OSError:
        return False


def refuse_other_archive(file: Path) -> None:
    """Raises DataError where an archive by a format's name is none of those that are read: it would be left unread."""
    if file.name.endswith(OTHER_ENDINGS) and GENERATION.match(file.name):
        raise DataError(
            f"{file}: is an archive of a kind that is not read, which are {', '.join(ENDINGS)}: unpack it to a folder "
            "of its format's name, or move it elsewhere"
        )


def refuse_lost_link(path: Path) -> None:
    """Raises DataError where a format's folder or archive is a link to what is not there: it would be left unread."""
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path}: leads to {os.readlink(path)}, which is not there; mount it, or remove the link")


def has_folders(root: Path) -> bool:
    """Whether a folder holds one that could be a format's."""
    with os.scandir(root) as entries:
        return any(entry.is_dir() and FORMAT.fullmatch(entry.name) for entry in entries)


def download_note(source: Path) -> Path | None:
    """The file that tells where `source` was downloaded from; none where nothing does. It lies in a folder of formats,
    of archives, or of a token cache; for one format's folder or archive, which lie in those, in the folder above."""
    places = [source] if source.is_dir() else []
    if not places or not ((source / MANIFEST).is_file() or has_folders(source)):
        places.append(Path(os.path.abspath(source)).parent)
    return next((place / DOWNLOADS for place in places if (place / DOWNLOADS).is_file()), None)


def read_origins(note: Path) -> list[dict[str, str]]:
    """What a download's note says: {"repo", "revision", "licence"} each. Raises `DataError` where it cannot be read."""
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{note}: cannot be read ({error}); remove it, and download again: it tells the licence"
        ) from error
