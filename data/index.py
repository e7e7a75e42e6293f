"""Index of a tree of battle files: one Arrow table per format in a cache folder, memory-mapped by whoever reads it.

Columns: `path` (relative to the root), `format`, `battle_id`, `rating`, `player`, `opponent`, `date` (ISO text, which
sorts), `won` (the name's result), `size` (bytes), `split` (uint32, the first 4 bytes of SHA-256 of format and battle
id: below share · 2**32 is held out), `key` (a hash of format and file name: what orders draw on, so that they don't
hang on where a battle lies) and `turns` (states; −1 not known yet, 0 the file was rejected).
Rows are in the order of their paths, so the index is a function of the set of files. A format's folder is scanned again
when its mtime has changed, or when it was scanned so soon after a change that a later one could hide in the same tick.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .parallel import cores, workers
from .replay_file import DEFAULT_RATING, SUFFIXES, BadBattleFile, is_battle_file, is_named_as_battle, parse_name
from .sampler import mix

log = logging.getLogger(__name__)

INDEX_VERSION = 2
UNKNOWN_TURNS = -1
REJECTED_TURNS = 0
FIXED_MTIME_NS = 2_000_000_000  # a folder changed less than this before its scan is scanned again next time
BATCH_ROWS = 65_536
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("format", pa.string()),
        ("battle_id", pa.string()),
        ("rating", pa.int32()),
        ("player", pa.string()),
        ("opponent", pa.string()),
        ("date", pa.string()),
        ("won", pa.bool_()),
        ("size", pa.int64()),
        ("split", pa.uint32()),
        ("key", pa.uint64()),
        ("turns", pa.int32()),
    ]
)
# The same rule as `replay_file.parse_name`, as one expression over a whole column; a test compares the two.
_NAME = (
    r"^(?P<battle_id>[^_]+)_(?P<rating>[^_]*)_(?P<player>[^_]*)_vs_(?P<opponent>[^_]*)_"
    r"(?P<month>0[1-9]|1[0-2])-(?P<day>0[1-9]|[12][0-9]|3[01])-(?P<year>[12][0-9]{3})"
    r"(?P<clock>-(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])?_(?P<result>WIN|LOSS)\.json(?:\.lz4)?$"
)
ENDINGS = (".tar.gz", ".tgz", ".tar.lz4", ".tar")  # of archives
DOWNLOADS = "downloads.json"  # beside downloaded data: where it came from, and its licence
JOB, MANIFEST = "job.json", "manifest.json"  # of a token cache: written first, and last
FORMAT = re.compile(r"[a-z0-9]+", re.ASCII)
UNREAD = "file: cannot be read"  # in the reason to leave out a file that the system did not give


class DataError(ValueError):
    """A folder that cannot be indexed: which, why, and what to do."""


@dataclass(frozen=True)
class BadName:
    """A file left out of the index for its name."""

    path: str
    reason: str


@dataclass
class FormatIndex:
    """One format's table, memory-mapped, with the files whose names were no battle's."""

    format: str
    file: Path | None
    table: pa.Table
    bad_names: list[BadName]


def cache_root(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where indexes are kept: the argument, `TURNWISE_CACHE`, or `~/.cache/turnwise`."""
    if cache_dir:
        return Path(cache_dir)
    return Path(os.environ.get("TURNWISE_CACHE") or Path.home() / ".cache" / "turnwise")


def folder_for(root: Path, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The cache folder of the index of `root`."""
    key = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:20]
    return cache_root(cache_dir) / f"index-v{INDEX_VERSION}-{key}"


def format_folders(root: Path) -> dict[str, Path]:
    """The formats under `root`, each with its folder, sorted. A folder that holds battle files itself is one format.

    Raises:
        DataError: no such folder, nothing in it that could be a format, a link that leads nowhere, or a token cache,
            finished or not.
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
            elif entry.is_symlink() and FORMAT.fullmatch(entry.name):
                refuse_lost_link(root / entry.name)
            elif entry.name.endswith(ENDINGS):
                archives.append(entry.name)
            elif is_battle_file(entry.name):
                direct += 1
                loose += is_named_as_battle(entry.name)
    if not folders and direct:
        return {root.resolve().name: root}
    if not folders and archives:
        raise DataError(
            f"data.path {root}: holds {len(archives)} archives and no format folder; make a token cache of them with "
            f"`python -m data.prepare cache --from {root} --out DIR`, or unpack them with `download --unpack`"
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
    folders = format_folders(root)
    missing = [name for name in formats if name not in folders]
    if missing:
        raise DataError(f"data.formats: {', '.join(missing)} not under {root}; there are {', '.join(folders)}")
    wanted = {name: folders[name] for name in (sorted(set(formats)) or folders)}
    cache = folder_for(root, cache_dir)
    with locked(cache) as writable:
        found: dict[str, FormatIndex] = {}
        if not (rescan and scan):
            for name, folder in wanted.items():
                kept = _open_kept(cache, name, folder, trust=not scan)
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
        "bad_names": [[item.path, item.reason] for item in bad],
    }
    try:
        file = write_table(cache / f"{name}.arrow", table, facts)
    except OSError as error:
        log.warning("the index of %s is not kept: %s cannot be written (%s)", folder, cache, error.strerror)
        return FormatIndex(name, None, table, bad)
    return FormatIndex(name, file, map_table(file), bad)


def scan_format(name: str, folder: Path, prefix: str) -> tuple[pa.Table, list[BadName]]:
    """One folder's battle files as a table, and those whose names are none. One `scandir`, columns parsed at once."""
    names, bad = _list_names(folder, prefix)
    names, sizes = _sizes(folder, names, prefix, bad)
    table, bad_names = columns_of(name, names, sizes, prefix)
    return table, sorted([*bad, *bad_names], key=lambda item: item.path)


def columns_of(
    name: str, files: Sequence[str], sizes: Sequence[int] | None = None, prefix: str = ""
) -> tuple[pa.Table, list[BadName]]:
    """File names of one format as rows of an index, in their order, and those that are no battle's.

    Args:
        name: the format.
        files: file names without folders.
        sizes: bytes of each; none: 0.
        prefix: what `path` has before the file name.
    """
    column = pa.array(files, pa.string())
    size_column = pa.array(np.zeros(len(files), dtype=np.int64) if sizes is None else sizes, pa.int64())
    bad: list[BadName] = []
    parts = pc.extract_regex(column, _NAME)
    good = pc.is_valid(parts)
    if pc.sum(good, min_count=0).as_py() != len(column):
        for file in column.filter(pc.invert(good)).to_pylist():
            bad.append(BadName(prefix + file, _name_reason(name, file)))
        column, size_column, parts = column.filter(good), size_column.filter(good), parts.filter(good)
    return _columns(name, prefix, column, size_column, parts), bad


def _columns(name: str, prefix: str, files: pa.Array, sizes: pa.Array, parts: pa.StructArray) -> pa.Table:
    def part(key: str) -> pa.Array:
        return parts.field(key)

    number = pc.match_substring_regex(part("rating"), r"^[+-]?[0-9]{1,6}$")
    rating = pc.if_else(number, pc.replace_substring_regex(part("rating"), r"^\+", ""), str(DEFAULT_RATING))
    day = pc.binary_join_element_wise(part("year"), part("month"), part("day"), "-")
    clock = pc.replace_substring_regex(pc.fill_null(part("clock"), ""), "^-", "T")
    rows = len(files)
    draws, keys = draws_and_keys(name, part("battle_id"), files)
    return pa.Table.from_arrays(
        [
            pc.binary_join_element_wise(prefix, files, "") if prefix else files,
            pa.array([name], pa.string()).take(pa.array(np.zeros(rows, dtype=np.int32))),
            part("battle_id"),
            pc.cast(rating, pa.int32()),
            part("player"),
            part("opponent"),
            pc.binary_join_element_wise(day, clock, ""),
            pc.equal(part("result"), "WIN"),
            sizes,
            pa.array(draws, pa.uint32()),
            pa.array(keys, pa.uint64()),
            pa.array(np.full(rows, UNKNOWN_TURNS, dtype=np.int32)),
        ],
        schema=SCHEMA,
    )


def draws_and_keys(name: str, battle_ids: pa.Array, files: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Per file: the draw that decides its side of the split (uint32), and the key that orders draw on (uint64).

    The draw is the first 4 bytes of SHA-256 of `{format}/{battle id}`: both views of a battle share it, so they fall
    on the same side. The key mixes 8 further bytes with the CRC of the file's name, which tells the views apart.
    """
    sha256 = hashlib.sha256
    prefix = f"{name}/".encode()
    digests = b"".join([sha256(prefix + key.encode()).digest()[:12] for key in battle_ids.to_pylist()])
    table = np.frombuffer(digests, dtype=[("draw", ">u4"), ("key", ">u8")])
    checks = np.array([crc32(file.encode()) for file in files.to_pylist()], dtype=np.uint64)
    return table["draw"].astype(np.uint32), mix(table["key"].astype(np.uint64), checks)


def pair_draws(players: pa.ChunkedArray, opponents: pa.ChunkedArray) -> np.ndarray:
    """uint32 per battle: as the split's draw, but of the two players' names, in either order."""
    first, second = pc.min_element_wise(players, opponents), pc.max_element_wise(players, opponents)
    pairs = pc.binary_join_element_wise(first, second, "_")
    # By chunk: as Python's texts, those of millions of battles take a GB.
    digests = b"".join(
        b"".join([hashlib.sha256(pair.encode()).digest()[:4] for pair in chunk.to_pylist()])
        for chunk in pairs.iterchunks()
    )
    return np.frombuffer(digests, dtype=">u4").astype(np.uint32)


def write_table(file: Path, table: pa.Table, facts: dict) -> Path:
    """Write a table as an Arrow stream, which `datasets.Dataset.from_file` maps, whole or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    schema = SCHEMA.with_metadata({b"turnwise": json.dumps(facts).encode()})
    try:
        with pa.OSFile(os.fspath(temporary), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(table.cast(SCHEMA).replace_schema_metadata(schema.metadata), max_chunksize=BATCH_ROWS)
        os.replace(temporary, file)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return file


def map_table(file: Path) -> pa.Table:
    """Memory-map a written table."""
    with pa.memory_map(os.fspath(file), "rb") as source:
        return pa.ipc.open_stream(source).read_all()


def read_facts(table: pa.Table) -> dict:
    """What `write_table` kept beside the columns."""
    return json.loads((table.schema.metadata or {}).get(b"turnwise", b"{}"))


def set_turns(entry: FormatIndex, turns: np.ndarray) -> FormatIndex:
    """A format's index with its `turns` column replaced, written back where it is kept."""
    place = SCHEMA.get_field_index("turns")
    facts = read_facts(entry.table)
    table = entry.table.set_column(place, SCHEMA.field("turns"), pa.array(turns, pa.int32()))
    if entry.file is not None:
        try:
            write_table(entry.file, table, facts)
            return FormatIndex(entry.format, entry.file, map_table(entry.file), entry.bad_names)
        except OSError as error:
            log.warning("turns are not kept: %s cannot be written (%s)", entry.file, error.strerror)
    return FormatIndex(entry.format, None, table, entry.bad_names)


def _lock(descriptor: int, folder: Path) -> None:
    """Take the lock, and say so where that takes longer than to open what is there, as the processes of a run do."""
    for _ in range(20):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
    log.warning("%s: another process is making what is read there; waiting for it", folder)
    return fcntl.flock(descriptor, fcntl.LOCK_EX)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock, so that two processes don't do the same at once. Gives whether it can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)  # a group may share it
    except OSError as error:
        log.warning("%s cannot be written (%s): what it would keep is made anew each time", folder, error.strerror)
        yield False
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks: the writes are atomic anyway
            _lock(descriptor, folder)
        yield True
    finally:
        os.close(descriptor)


def _open_kept(cache: Path, name: str, folder: Path, trust: bool = False) -> FormatIndex | None:
    file = cache / f"{name}.arrow"
    try:
        table = map_table(file)
        facts = read_facts(table)
        fresh = trust or (facts["fixed"] and facts["mtime_ns"] == folder.stat().st_mtime_ns)
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
    if not len(old) or not known.any():
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
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        bad += [BadName(prefix + _printable(name), "name: is not UTF-8") for name in names if not _is_text(name)]
        names = [name for name in names if _is_text(name)]
    names.sort()
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


def _name_reason(format_name: str, file: str) -> str:
    try:
        parse_name(f"{format_name}/{file}")
    except BadBattleFile as error:
        return f"{error.field}: {error.reason}"
    return "name: is no battle file's"


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
