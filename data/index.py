"""Index of a tree of battle files: one Arrow table per format in a cache folder, memory-mapped by whoever reads it.

Columns: `path` (relative to the root), `format`, `battle_id`, `rating`, `player`, `opponent`, `date` (ISO text, which
sorts), `won` (the name's result), `size` (bytes), `split` (uint32, the first 4 bytes of SHA-256 of format and battle
id: below share · 2**32 is held out), `key` (a hash of format and file name: what orders draw on, so that they don't
hang on where a battle lies) and `turns` (states; −1 not known yet, 0 the file was rejected).
Rows are in the order of their paths, so the index is a function of the set of files. A format's folder is scanned again
when its mtime has changed, or when it was scanned so soon after a change that a later one could hide in the same tick.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .folders import DataError, format_folders, refuse_deeper
from .index_table import SCHEMA, UNKNOWN_TURNS, UNREAD, BadName, columns_of, map_table, read_facts, write_table
from .lock import locked
from .parallel import cores, workers
from .replacing import clear_left
from .replay_file import SUFFIXES

log = logging.getLogger(__name__)
INDEX_VERSION = 2
FIXED_MTIME_NS = 2_000_000_000  # a folder changed less than this before its scan is scanned again next time


@dataclass
class FormatIndex:
    """One format's table, memory-mapped, with the files whose names were no battle's."""

    format: str
    file: Path | None
    table: pa.Table
    bad_names: list[BadName]


def cache_root(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where indexes are kept: the argument, `TURNWISE_CACHE`, or `~/.cache/turnwise`. Raises `DataError` where that
    user has no home, as one that a container knows by number alone."""
    if chosen := cache_dir or os.environ.get("TURNWISE_CACHE"):
        return Path(os.path.expanduser(chosen))  # a file's ~ no shell has read
    try:
        return Path.home() / ".cache" / "turnwise"
    except RuntimeError as error:
        raise DataError(
            "no home folder to keep the index in: set TURNWISE_CACHE, or HOME, to a folder that can be written"
        ) from error


def folder_for(root: Path, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The cache folder of the index of `root`."""
    key = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:20]
    return cache_root(cache_dir) / f"index-v{INDEX_VERSION}-{key}"


def open_index(
    root: str | os.PathLike[str],
    formats: Sequence[str] = (),
    cache_dir: str | os.PathLike[str] | None = None,
    rescan: bool = False,
    processes: int | None = None,
    scan: bool = True,
) -> list[FormatIndex]:
    """Tables of the formats asked for (all: an empty list), scanning only folders that changed.

    Args:
        root: folder of format folders.
        formats: formats to open.
        cache_dir: see `cache_root`.
        rescan: scan every folder.
        scan: look for changes; false: what another process has just found is taken, where it is kept.
        processes: formats scanned at once; default the number of cores.

    Raises:
        DataError: nothing to index, or a format asked for isn't there.
    """
    root = Path(root)
    folders = format_folders(root, formats)
    missing = [name for name in formats if name not in folders]
    if missing:
        raise DataError(f"formats: {', '.join(missing)} not under {root}; there are {', '.join(folders)}")
    wanted = {name: folders[name] for name in (sorted(formats) or folders)}
    cache = folder_for(root, cache_dir)
    with locked(cache) as writable:
        if writable:
            clear_left(cache)
        found: dict[str, FormatIndex] = {}
        if not (rescan and scan):
            for name, folder in wanted.items():
                kept = _open_kept(cache, name, folder, trust=not scan, writable=writable)
                if kept:
                    found[name] = kept
        stale = [name for name in wanted if name not in found]
        if stale:
            found.update(
                _scan_all({name: wanted[name] for name in stale}, cache if writable else None, root, processes)
            )
    return [found[name] for name in wanted]


def _scan_all(
    folders: dict[str, Path], cache: Path | None, root: Path, processes: int | None
) -> dict[str, FormatIndex]:
    count = min(len(folders), processes or cores())
    jobs = [(name, folder, cache, root) for name, folder in folders.items()]
    if count <= 1 or cache is None:
        return {job[0]: _scan_and_keep(*job) for job in jobs}
    # Processes hand back only whether they could keep a table: it is opened from the file that they wrote.
    kept = {}
    with workers(count) as pool:
        for name, written in zip(folders, pool.map(_scan_in_process, jobs), strict=True):
            kept[name] = written
            log.info("indexed %s", name)
    found = {}
    for name, folder in folders.items():
        # Not kept, an older one may lie there, which lacks the files that have come since.
        entry = _open_kept(cache, name, folder, trust=True) if kept[name] else None
        found[name] = entry or _scan_and_keep(name, folder, cache, root)
    return found


def _scan_in_process(job: tuple[str, Path, Path, Path]) -> bool:
    return _scan_and_keep(*job).file is not None


def _scan_and_keep(name: str, folder: Path, cache: Path | None, root: Path) -> FormatIndex:
    started = time.time_ns()
    mtime = folder.stat().st_mtime_ns
    table, bad = scan_format(name, folder, "" if folder == root else f"{name}/")
    if cache is None:
        return FormatIndex(name, None, table, bad)
    old = _open_kept(cache, name, folder, trust=True)
    if old is not None:
        table = _with_known_turns(table, old.table)
    facts = {
        "version": INDEX_VERSION,
        "folder": os.fspath(folder.resolve()),
        "mtime_ns": mtime,
        "fixed": mtime < started - FIXED_MTIME_NS,
        "rows": len(table),
        "bad_names": [[item.path, item.reason] for item in bad],
    }
    try:
        file = write_table(cache / f"{name}.arrow", table, facts)
    except OSError as error:
        log.warning("the index of %s is not kept: %s cannot be written (%s)", folder, cache, error.strerror)
        return FormatIndex(name, None, table, bad)
    return FormatIndex(name, file, map_table(file), bad)


def scan_format(name: str, folder: Path, prefix: str) -> tuple[pa.Table, list[BadName]]:
    """One folder's battle files as a table, and those whose names are none. One `scandir`, columns parsed at once.

    Raises DataError where battles lie deeper: they would be left unread."""
    names, bad = _list_names(folder, prefix)
    names, sizes = _sizes(folder, names, prefix, bad)
    table, bad_names = columns_of(name, names, sizes, prefix)
    return table, sorted([*bad, *bad_names], key=lambda item: item.path)


def set_turns(entry: FormatIndex, turns: np.ndarray) -> FormatIndex:
    """A format's index with its `turns` column replaced, written back where it is kept; lengths that another process
    found and kept there meanwhile stay known."""
    place = SCHEMA.get_field_index("turns")
    facts = read_facts(entry.table)
    kept = (
        None if entry.file is None else _open_kept(entry.file.parent, entry.format, Path(facts["folder"]), trust=True)
    )
    if kept is not None and kept.table["path"].equals(entry.table["path"]):
        turns = np.where(turns == UNKNOWN_TURNS, kept.table["turns"].to_numpy(), turns)
    table = entry.table.set_column(place, SCHEMA.field("turns"), pa.array(turns, pa.int32()))
    if entry.file is not None:
        try:
            write_table(entry.file, table, facts)
            return FormatIndex(entry.format, entry.file, map_table(entry.file), entry.bad_names)
        except OSError as error:
            log.warning("turns are not kept: %s cannot be written (%s)", entry.file, error.strerror)
    return FormatIndex(entry.format, None, table, entry.bad_names)


def _open_kept(cache: Path, name: str, folder: Path, trust: bool = False, writable: bool = True) -> FormatIndex | None:
    file = cache / f"{name}.arrow"
    try:
        table = map_table(file)
        facts = read_facts(table)
        # Of one that does not tell its rows, from before battles that lie there twice counted once, lengths alone are
        # good; but where none can be kept, each start would scan anew, and know no lengths.
        known = "rows" in facts or not writable
        fresh = trust or (known and facts["fixed"] and facts["mtime_ns"] == folder.stat().st_mtime_ns)
        # Arrow takes zeros, which a machine that went down may leave at a file's end, for the end of the stream.
        if facts.get("rows", len(table)) != len(table):
            raise ValueError(f"holds {len(table)} of {facts['rows']} rows")
        if facts["version"] != INDEX_VERSION or facts["folder"] != os.fspath(folder.resolve()) or not fresh:
            return None
        bad = [BadName(path, reason) for path, reason in facts["bad_names"]]
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        log.warning("%s is no index (%s): scanning again", file, error)
        return None
    return FormatIndex(name, file, table, bad)


def _with_known_turns(table: pa.Table, old: pa.Table) -> pa.Table:
    """Carry over the turns of files whose path and size are as before."""
    place = pc.index_in(table["path"], value_set=old["path"].combine_chunks())
    known = pc.is_valid(place).to_numpy()
    rows = pc.fill_null(place, 0).to_numpy()
    if not known.any():
        return table
    same = known & (old["size"].to_numpy()[rows] == table["size"].to_numpy())
    turns = np.where(same, old["turns"].to_numpy()[rows], UNKNOWN_TURNS).astype(np.int32)
    return table.set_column(SCHEMA.get_field_index("turns"), SCHEMA.field("turns"), pa.array(turns))


def _list_names(folder: Path, prefix: str) -> tuple[list[str], list[BadName]]:
    """Names of the battle files in a folder, sorted, and whatever else lies there."""
    names: list[str] = []
    bad: list[BadName] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.endswith(SUFFIXES) and name[0] != ".":
                names.append(name)
            elif name[0] != "." and entry.is_file():
                bad.append(BadName(prefix + _printable(name), "name: doesn't end in .json.lz4 or .json"))
            elif name[0] != "." and entry.is_dir():
                refuse_deeper(folder / name)
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        bad += [BadName(prefix + _printable(name), "name: is not UTF-8") for name in names if not _is_text(name)]
        names = [name for name in names if _is_text(name)]
    names.sort()
    if plain := [name for name in names if name.endswith(".json")]:
        packed = set(names)
        twice = {name for name in plain if f"{name}.lz4" in packed}
        if twice:
            log.warning("%s: %d battles lie there as .json, too: their .json.lz4 are read", folder, len(twice))
            names = [name for name in names if name not in twice]
    return names, bad


def _sizes(folder: Path, names: list[str], prefix: str, bad: list[BadName]) -> tuple[list[str], list[int]]:
    """Sizes of files, by names relative to an open folder: shorter for the system to look up than full paths."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        stat = os.stat
        try:
            return names, [stat(name, dir_fd=descriptor).st_size for name in names]
        except OSError:
            pass  # one of them vanished: go on file by file
        kept, sizes = [], []
        for name in names:
            try:
                sizes.append(stat(name, dir_fd=descriptor).st_size)
                kept.append(name)
            except OSError as error:
                bad.append(BadName(prefix + name, f"{UNREAD} ({error.strerror})"))
        return kept, sizes
    finally:
        os.close(descriptor)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
