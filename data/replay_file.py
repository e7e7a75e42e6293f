"""One battle file: its name, its bytes, its content. Safe on anything that lies about being one."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

import lz4.frame
import msgspec

from .schema import BadBattle, BattleRecord, LeanBattle, bad_from_validation

MAX_BYTES = 64 << 20
SUFFIXES = (".json.lz4", ".json")
DEFAULT_RATING = 1000

_RATING = re.compile(r"[+-]?[0-9]{1,6}", re.ASCII)
_DATE = re.compile(
    r"(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])-([12][0-9]{3})(?:-([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9]))?",
    re.ASCII,
)
_LEAN = msgspec.json.Decoder(LeanBattle)
_FULL = msgspec.json.Decoder(BattleRecord)


class BadBattleFile(BadBattle):
    """A file that cannot be used as a battle: which file, which field, why, and what to do."""

    def __init__(self, path: str | os.PathLike[str], field: str, reason: str, mend: str) -> None:
        super().__init__(field, reason, mend)
        self.path = os.fspath(path)
        self.args = (f"{self.path}: {field}: {reason}; {mend}",)

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.field, self.reason, self.mend)


class BattleName(NamedTuple):
    """What a battle file's path tells. `rating` is 1000 where it is not `rated`; `date` is as written."""

    format: str
    battle_id: str
    rating: int
    player: str
    opponent: str
    date: str
    result: str
    rated: bool = True


def parse_name(path: str | os.PathLike[str]) -> BattleName:
    """Read `{format}/{battle_id}_{rating}_{player}_vs_{opponent}_{date}_{WIN|LOSS}.json[.lz4]`.

    Raises:
        BadBattleFile: where the stem doesn't split at `_` into its 7 parts, or a part is none.
    """
    folder, file = os.path.split(os.fspath(path))
    for suffix in SUFFIXES:
        if file.endswith(suffix):
            stem = file[: -len(suffix)]
            break
    else:
        raise BadBattleFile(path, "name", "doesn't end in .json.lz4 or .json", "rename it, or move it elsewhere")
    parts = stem.split("_")
    if len(parts) != 7 or parts[3] != "vs":
        raise BadBattleFile(
            path,
            "name",
            f"splits into {len(parts)} parts at '_', not into battle, rating, player, vs, opponent, date, result",
            "rename it by the battle file format (no '_' inside a part)",
        )
    battle_id, rating, player, _, opponent, date, result = parts
    if result not in ("WIN", "LOSS"):
        raise BadBattleFile(path, "name.result", f"is {result!r}", "it must be WIN or LOSS")
    if not _DATE.fullmatch(date):
        raise BadBattleFile(path, "name.date", f"is {date!r}", "it must be MM-DD-YYYY or MM-DD-YYYY-HH:MM:SS")
    if not battle_id:
        raise BadBattleFile(path, "name.battle_id", "is empty", "give the battle an id")
    rated = bool(_RATING.fullmatch(rating))
    elo = int(rating) if rated else DEFAULT_RATING
    return BattleName(os.path.basename(folder), battle_id, elo, player, opponent, date, result, rated)


def iso_date(date: str) -> str:
    """`MM-DD-YYYY[-HH:MM:SS]` as `YYYY-MM-DD[THH:MM:SS]`, which sorts."""
    day, _, clock = date[:10], date[10:11], date[11:]
    iso = f"{day[6:10]}-{day[0:2]}-{day[3:5]}"
    return f"{iso}T{clock}" if clock else iso


def unpack(data: bytes, path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> bytes:
    """Decompress one lz4 frame, never to more than `max_bytes`.

    Raises:
        BadBattleFile: not lz4, cut short, followed by other bytes, or larger than the cap.
    """
    decompressor = lz4.frame.LZ4FrameDecompressor()
    # Battle files compress about 30 to 1. Asking for the cap at once would make it the buffer's size for every file.
    room = min(max_bytes + 1, 48 * len(data) + 4096)
    try:
        text = decompressor.decompress(data, max_length=room)
        while not decompressor.eof and not decompressor.needs_input and len(text) <= max_bytes:
            text += decompressor.decompress(b"", max_length=min(max_bytes + 1 - len(text), len(text) + 4096))
    except (RuntimeError, MemoryError, EOFError, ValueError) as error:
        raise BadBattleFile(path, "lz4", f"doesn't decompress ({error})", "fetch or record the file again") from error
    if len(text) > max_bytes:
        raise _too_large(path, f"over {max_bytes}", max_bytes)
    if not decompressor.eof:
        raise BadBattleFile(path, "lz4", "ends in the middle of its frame", "fetch or record the file again")
    if decompressor.unused_data:
        raise BadBattleFile(path, "lz4", "has bytes after its frame", "fetch or record the file again")
    return text


def read_json_bytes(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> bytes:
    """A battle file's JSON, from `.json.lz4` or `.json`, capped before and after decompression.

    Raises:
        BadBattleFile: unreadable, larger than the cap, or not an lz4 frame.
    """
    name = os.fspath(path)
    try:
        # A regular file only: a pipe or a device under a data folder must not hang a run.
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadBattleFile(path, "file", "is no regular file", "restore it, or index the folder again")
            if status.st_size > max_bytes:
                raise _too_large(path, str(status.st_size), max_bytes)
            with open(descriptor, "rb", buffering=0, closefd=False) as file:
                data = file.read(max_bytes + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BadBattleFile(
            path, "file", f"cannot be read ({error.strerror})", "restore it, or index the folder again"
        ) from error
    if name.endswith(".json"):
        if len(data) > max_bytes:
            raise _too_large(path, f"over {max_bytes}", max_bytes)
        return data
    return unpack(data, path, max_bytes)


def decode_lean(text: bytes, path: str | os.PathLike[str]) -> LeanBattle:
    """A battle file's JSON with only the fields that observations need. Raises `BadBattleFile`."""
    return _decode(_LEAN, text, path)


def decode_full(text: bytes, path: str | os.PathLike[str]) -> BattleRecord:
    """A battle file's JSON with every field of the format checked. Raises `BadBattleFile`."""
    return _decode(_FULL, text, path)


def read_lean(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> LeanBattle:
    """The loader's way to read a battle file. Raises `BadBattleFile`."""
    return decode_lean(read_json_bytes(path, max_bytes), path)


def read_battle(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> BattleRecord:
    """A battle file with every field, checked; old files' missing keys filled with their defaults.

    Raises:
        BadBattleFile: naming the file, the field, the reason and the mend.
    """
    record = decode_full(read_json_bytes(path, max_bytes), path)
    if len(record.states) < 2:
        raise BadBattleFile(path, "states", f"holds {len(record.states)} states", "a battle has 2 or more: drop it")
    return record


def is_battle_file(name: str) -> bool:
    """Whether a file of this name is meant as a battle (hidden and temporary files are not)."""
    return name.endswith(SUFFIXES) and not name.startswith(".")


def is_named_as_battle(name: str) -> bool:
    """Whether a name tells of a battle, as that of other JSON beside battles (`downloads.json`) does not."""
    return is_battle_file(name) and "_vs_" in name


def battle_path(root: str | os.PathLike[str], name: BattleName, rating: str | None = None) -> Path:
    """Where a battle of this name belongs under `root`; `rating` overrides the number, as in `Unrated`."""
    elo = str(name.rating) if rating is None else rating
    parts = (name.battle_id, elo, name.player, "vs", name.opponent, name.date, name.result)
    return Path(root) / name.format / ("_".join(parts) + ".json.lz4")


def _decode(decoder: msgspec.json.Decoder, text: bytes, path: str | os.PathLike[str]):
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        bad = bad_from_validation(error)
        raise BadBattleFile(path, bad.field, bad.reason, bad.mend) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadBattleFile(path, "json", str(error), "fetch or record the file again") from error
    except RecursionError as error:
        raise BadBattleFile(path, "json", "is nested too deeply", "fetch or record the file again") from error


def _too_large(path: str | os.PathLike[str], size: str, max_bytes: int) -> BadBattleFile:
    return BadBattleFile(
        path, "size", f"is {size} bytes, over the cap of {max_bytes}", "drop the file, or raise data.max_bytes"
    )
