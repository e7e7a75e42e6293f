"""Reading archives of battles (`.tar.gz`, `.tar.lz4`, `.tar`) safely: regular files only, capped in size and number."""

from __future__ import annotations

import gzip
import logging
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

import lz4.frame

from .folders import (
    ENDINGS,
    FORMAT,
    DataError,
    format_of_archive,
    has_folders,
    refuse_loose_files,
    refuse_lost_link,
    refuse_misnamed,
    refuse_other_archive,
)
from .replacing import clear_left, replacing
from .replay_file import MAX_BYTES, is_battle_file, is_named_as_battle

log = logging.getLogger(__name__)

MAX_MEMBERS = 50_000_000
_FOLDER = re.compile(r"gen[0-9]+[a-z0-9]+", re.ASCII)  # which can be nothing but a format's
_ID = re.compile(rf"(?:[a-z]+-)?({_FOLDER.pattern})-", re.ASCII)  # of a battle, as gen1ou-123 or smogtours-gen1ou-123


class Member(NamedTuple):
    """A member of an archive: the file name without its folders, how to read it, or why it is left out."""

    name: str
    reason: str
    read: Callable[[], bytes]


def archives_under(source: Path, asked: Sequence[str] = ()) -> dict[str, Path]:
    """Archives by format, where `source` is one or a folder of them; empty where format folders lie there. Where
    formats are `asked` for by name, folders beside the archives are no matter, as in `format_folders`.

    Raises:
        DataError: no such file or folder, a link that leads nowhere, an archive whose name tells no format, two of one
            format, what would be left unread.
    """
    if source.is_file():
        if not source.name.endswith(ENDINGS):
            raise DataError(f"{source}: is no archive of battles; give a folder or a {', '.join(ENDINGS)}")
        files = [source]
    elif not source.is_dir():
        raise DataError(f"{source}: is no folder and no archive; give one of battle files")
    elif has_folders(source):
        return {}
    else:
        named = sorted(file for file in source.iterdir() if file.name.endswith(ENDINGS))
        for file in named:
            refuse_lost_link(file)
        files = [file for file in named if file.is_file()]
        for file in source.iterdir() if files else ():
            refuse_other_archive(file)
            if not asked and file.is_dir() and not file.name.startswith("."):
                refuse_misnamed(file)
        if files:
            refuse_loose_files(source, sum(is_named_as_battle(file.name) for file in source.iterdir()), "archives")
    found: dict[str, Path] = {}
    for file in files:
        name = format_of_archive(file.name)
        if not FORMAT.fullmatch(name):
            raise DataError(f"{file}: its name tells no format; call it FORMAT.tar.gz, such as gen1ou.tar.gz")
        if name in found:
            raise DataError(
                f"{source}: {found[name].name} and {file.name} are both of {name}; keep one, or give each a folder of "
                "its own (data.sources)"
            )
        found[name] = file
    return found


def members(
    file: Path,
    max_bytes: int = MAX_BYTES,
    max_members: int = MAX_MEMBERS,
    wanted: Callable[[str], bool] = is_battle_file,
) -> Iterator[Member]:
    """The members of an archive in its order, streamed; nothing is written.

    Folders and hidden files are passed over in silence, as in a folder (macOS packs a `._name` beside each); links,
    devices, names that lead out of the folder, files too large and files that are no battles come with a reason and
    aren't read.

    Raises:
        DataError: the archive is cut or spoilt, has too many members, or battles of another format, by their folder or,
            in no format's folder, by their ids. Members before that were given.
    """
    count = 0
    try:
        with _opened(file) as opened, tarfile.open(fileobj=(source := _Tail(opened)), mode="r|") as tar:
            for info in tar:
                count += 1
                if count > max_members:
                    raise DataError(f"{file}: has over {max_members} members; not an archive of battles")
                name = PurePosixPath(info.name).name
                if info.isdir() or (info.isreg() and name.startswith(".")):
                    tar.members = []
                    continue
                reason = _reason(info, name, max_bytes, wanted)
                told = "" if reason else _format_told(PurePosixPath(info.name))
                if told and told != format_of_archive(file.name):
                    raise DataError(
                        f"{file}: holds {_printable(info.name)}, of {told}, and its name tells the format of all; "
                        f"call it {told}.tar.gz, or unpack it where it holds several"
                    )
                yield Member(_printable(name), reason, lambda info=info: _read(tar, info, file))
                # tarfile keeps every member it has seen: millions of them would fill the memory.
                tar.members = []
            if not source.only_zeros_from(tar.offset):
                raise EOFError("no end where the last member ends")
    except (tarfile.TarError, EOFError, zlib.error, OSError, RuntimeError) as error:
        raise DataError(
            f"{file}: is cut or spoilt after {count} members ({error}); fetch it again (finished shards are kept)"
        ) from error


def unpack_archive(
    file: Path,
    to: Path,
    max_bytes: int = MAX_BYTES,
    max_members: int = MAX_MEMBERS,
    wanted: Callable[[str], bool] = is_battle_file,
) -> tuple[int, int]:
    """Write an archive's files to `to/{format}/`, a new folder as a whole: until then it has a hidden name, by which
    nobody reads half of them for all. Files already there, by either name, with the same content are kept; those that
    the archive lacks are left and told of.

    Returns:
        files written or kept, and members left out (each is logged with its reason).

    Raises:
        DataError: as `members`.
        OSError: the folder is full or cannot be written.
    """
    whole = to / format_of_archive(file.name)
    folder = whole if whole.is_dir() else to / f".{whole.name}.unpacking"
    folder.mkdir(parents=True, exist_ok=True)
    clear_left(folder)
    written = left_out = 0
    others = {name for name in os.listdir(folder) if wanted(name)}
    for member in members(file, max_bytes, max_members, wanted):
        if member.reason:
            left_out += 1
            log.warning("%s: %s left out: %s", file, member.name, member.reason)
            continue
        target = folder / member.name
        content = member.read()
        others.discard(member.name)
        # Not by its size alone: of another revision, a battle can be as long and not the same.
        if target.is_symlink() or not target.is_file() or target.read_bytes() != content:
            with replacing(target) as temporary:
                temporary.write_bytes(content)
        written += 1
    if others:
        log.warning(
            "%s: %d files there are not in %s, as %s: of another revision perhaps, and read with its battles; move "
            "them elsewhere, unless they are meant", whole, len(others), file.name, min(others),
        )  # fmt: skip
    if folder != whole:
        os.replace(folder, whole)
    return written, left_out


def _opened(file: Path) -> BinaryIO:
    """The archive's bytes, decompressed. gzip's own sums are looked at once its end is read."""
    with open(file, "rb") as raw:
        start = raw.read(4)
    if start[:2] == b"\x1f\x8b":
        return gzip.open(file, "rb")
    return lz4.frame.open(file, "rb") if start == b"\x04\x22\x4d\x18" else open(file, "rb")


class _Tail:
    """A stream that remembers the last of what was read: tarfile takes any header that is none for a good end."""

    KEPT = 4 * tarfile.RECORDSIZE

    def __init__(self, source: BinaryIO) -> None:
        self.source, self.count, self.tail = source, 0, b""

    def read(self, size: int) -> bytes:
        data = self.source.read(size)
        self.count += len(data)
        self.tail = (self.tail + data)[-self.KEPT :]
        return data

    def only_zeros_from(self, offset: int) -> bool:
        """Whether nothing but an archive's end follows: a block of zeros or more. Reads the stream to its end."""
        rest = self.tail[offset - (self.count - len(self.tail)) :]
        zeros, blank = len(rest), not any(rest)
        while data := self.source.read(1 << 20):
            zeros, blank = zeros + len(data), blank and not any(data)
        return blank and zeros >= tarfile.BLOCKSIZE


def _format_told(path: PurePosixPath) -> str:
    """The format that a member's folder tells, or where that is none's, a battle's id; empty where neither does."""
    if _FOLDER.fullmatch(path.parent.name):
        return path.parent.name
    found = _ID.match(path.name) if is_named_as_battle(path.name) else None
    return found[1] if found else ""


def _reason(info: tarfile.TarInfo, name: str, max_bytes: int, wanted: Callable[[str], bool]) -> str:
    path = PurePosixPath(info.name)
    if info.issym() or info.islnk():
        return "archive: is a link"
    if not info.isreg():
        return "archive: is no regular file"
    if path.is_absolute() or ".." in path.parts:
        return "archive: leads out of its folder"
    if info.size > max_bytes:
        return f"archive: is {info.size} bytes, over the cap of {max_bytes}"
    if _printable(name) != name:
        return "name: is not UTF-8"
    if not wanted(name):
        return "name: is none of the files looked for"
    return ""


def _read(tar: tarfile.TarFile, info: tarfile.TarInfo, file: Path) -> bytes:
    try:
        return tar.extractfile(info).read()
    except (tarfile.TarError, EOFError, zlib.error, OSError, RuntimeError) as error:
        raise DataError(
            f"{file}: is cut or spoilt in member {_printable(info.name)!r} ({error}); fetch it again (finished shards "
            "are kept)"
        ) from error


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
