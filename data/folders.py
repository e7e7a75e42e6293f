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
    refuse_no_folder(root)
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
    if not folders and archives and not loose:  # other JSON may lie there, as the note that a download leaves
        raise DataError(
            f"data.path {root}: holds {len(archives)} archives and no format folder, where battle files are read; "
            "unpack each to a folder of its name, or give `data.prepare download` its --unpack"
        )
    if not folders and direct:
        return {root.resolve().name: root}
    if not folders:
        raise DataError(f"data.path {root}: holds no battle file; battles lie in {root}/FORMAT/*.json.lz4")
    refuse_loose_files(root, loose, "format folders")
    unread = sorted(name for name in archives if format_of_archive(name) not in folders)
    if unread:
        raise DataError(
            f"data.path {root}: {', '.join(unread)} beside format folders ({', '.join(sorted(folders))}) would be left "
            "unread: unpack each to a folder of its name, or keep archives and folders apart"
        )
    return dict(sorted(folders.items()))


def refuse_no_folder(root: Path) -> None:
    """Raises DataError where no folder is."""
    if not root.is_dir():
        raise DataError(f"data.path {root}: is no folder; give the folder that holds the format folders")


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
    """Raises DataError where a folder whose name is no format's holds battle files, or formats of them as folders or
    archives (a `--subset` of a download): they would be left unread."""
    if _holds_battles(folder):
        raise DataError(
            f"{folder}: holds battle files, and its name is no format's (small letters and digits): they would be "
            "left unread; rename it, or give it as a source of its own (data.sources)"
        )
    if found := _format_in(folder):
        raise DataError(
            f"{found}: lies one folder deeper than what is read and would be left unread: give {folder} as a source of "
            "its own (data.sources), or name the formats to read (data.formats)"
        )


def refuse_deeper(folder: Path) -> None:
    """Raises DataError where a folder in a format's folder holds battle files, or folders of them: they would be left
    unread."""
    deeper = folder if _holds_battles(folder) else _format_in(folder)
    if deeper is None:
        return
    above = deeper.parent
    mend = f"move them up to {folder.parent}"
    if GENERATION.match(deeper.name) and not _holds_battles(folder.parent):  # a tree of years, say
        mend = f"give {above} as data.path, or as one of data.sources"
    raise DataError(
        f"{deeper}: holds battle files deeper than data.path/FORMAT/*.json.lz4, where they would be left unread: {mend}"
    )


def _holds_battles(folder: Path) -> bool:
    return any(is_named_as_battle(entry.name) for entry in _first_entries(folder))


def _format_in(folder: Path) -> Path | None:
    """A folder of battle files in this one, or an archive by a format's name; none where neither is there."""
    for entry in _first_entries(folder):
        if GENERATION.match(entry.name) and entry.name.endswith(ENDINGS):
            return folder / entry.name
        if entry.name[0] != "." and entry.is_dir() and _holds_battles(folder / entry.name):
            return folder / entry.name
    return None


def _first_entries(folder: Path) -> list[os.DirEntry[str]]:
    """Of a folder that is not read; of one that cannot be looked into, as a disk's lost+found, none."""
    try:
        with os.scandir(folder) as entries:
            return list(islice(entries, LOOKED_AT))
    except OSError:
        return []


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
