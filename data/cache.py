"""Makes a token cache from folders of battle files or straight from `.tar.gz` archives, by many processes.

The work is cut into units (a run of battles of one format), each of which becomes one shard: written under a temporary
name, synced, renamed, and noted in `parts/`. A run that was killed goes on with the units that aren't noted; with
`--shard i/n` a machine does every n-th unit. When the last unit is there, index and manifest are written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from . import archive
from .encode import EncodedBattle, Encoder
from .index import SCHEMA, DataError, columns_of, format_folders, scan_format
from .replay_file import MAX_BYTES, decode_lean, read_json_bytes, unpack
from .reward import REWARDS
from .schema import SCHEMA_VERSION, BadBattle
from .token_cache import (
    CACHE_VERSION,
    INDEX,
    INDEX_SCHEMA,
    KIND,
    LOST,
    MANIFEST,
    NO_RESULT,
    PLACES,
    VOCABULARY,
    WON,
    codes_of,
    legal_bits,
)
from .tokenizer import Tokenizer

log = logging.getLogger(__name__)

UNIT_BATTLES = 4096
BATCH_BATTLES = 512
REJECTS_KEPT = 10_000


@dataclass(frozen=True)
class CacheJob:
    """What a cache is made of and how; every machine that works on one cache gives the same.

    Args:
        source: folder of format folders, folder of `{format}.tar.gz`, or one such archive.
        out: folder of the cache.
        formats: formats to take; empty: all.
        space: observation space.
        vocabulary: vocabulary file; none: the one shipped.
        illegal: rule for illegal actions.
        max_bytes: cap on a battle's decompressed size.
        unit: battles per shard.
    """

    source: str
    out: str
    formats: tuple[str, ...] = ()
    space: str = "default"
    vocabulary: str | None = None
    illegal: str = "reject"
    max_bytes: int = MAX_BYTES
    unit: int = UNIT_BATTLES


class Unit(NamedTuple):
    """One shard's work: files of one format by name; with their bytes where they come from an archive."""

    name: str
    format: str
    folder: str  # where the files lie; empty: `contents` holds them
    files: list[str]
    contents: list[bytes]
    rejects: list[tuple[str, str]]


@dataclass
class Part:
    """What a unit became."""

    name: str
    format: str
    file: str
    battles: int
    turns: int
    bytes: int
    sha256: str
    n_unknown: int
    n_words: int
    dropped_tails: int
    rejects: list[tuple[str, str]] = field(default_factory=list)


def make_cache(
    job: CacheJob, processes: int | None = None, shard: tuple[int, int] = (0, 1), progress: bool = True
) -> dict | None:
    """Make a cache, or this machine's share of it.

    Args:
        job: what to make.
        processes: encoding processes; default the number of cores.
        shard: (i, n): take units i, i + n, ….
        progress: show a bar.

    Returns:
        the manifest once every unit is there; none while other machines' shares are missing.

    Raises:
        DataError: nothing to read, another cache's folder, an archive that is cut (what was read of it is kept).
        OSError: the folder is full or cannot be written.
    """
    index, count = shard
    if count < 1 or not 0 <= index < count:
        raise DataError(f"--shard {index}/{count}: give i/n with 0 ≤ i < n")
    out = Path(job.out)
    (out / "parts").mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.load(job.vocabulary)
    _claim(out, job, tokenizer)
    fault: DataError | None = None
    totals = Counter()
    names: list[str] = []
    started = time.perf_counter()
    with tqdm(unit="battles", desc="cache", disable=not progress, smoothing=0.1) as bar:

        def finished(part: Part) -> None:
            bar.update(part.battles + len(part.rejects))
            totals.update(battles=part.battles, turns=part.turns, rejects=len(part.rejects))
            bar.set_postfix(turns=totals["turns"], rejects=totals["rejects"])

        units = _Units(job, out, names, index, count)
        try:
            _work(units, job, processes or os.cpu_count() or 1, finished)
        except DataError as error:
            fault = error
    seconds = time.perf_counter() - started
    log.info("%d battles in %.1f s", totals["battles"], seconds)
    if fault:
        raise fault
    missing = [name for name in names if not (out / "parts" / f"{name}.json").is_file()]
    if missing:
        log.warning("%d of %d units are other machines' and not there yet", len(missing), len(names))
        return None
    return _finish(out, job, tokenizer, names)


class _Units:
    """The units of a job in order; those done, or other machines', are only named."""

    def __init__(self, job: CacheJob, out: Path, names: list[str], index: int, count: int) -> None:
        self.job = job
        self.out = out
        self.names = names
        self.index = index
        self.count = count

    def __iter__(self) -> Iterator[Unit]:
        for unit in _units(self.job, self._wanted):
            if unit.files or unit.rejects:
                yield unit

    def _wanted(self, name: str) -> bool:
        """Note a unit's name; whether this machine has to do it."""
        place = len(self.names)
        self.names.append(name)
        return place % self.count == self.index and not (self.out / "parts" / f"{name}.json").is_file()


def _units(job: CacheJob, wanted) -> Iterator[Unit]:
    source = Path(job.source)
    archives = archive.archives_under(source)
    if archives:
        chosen = {name: file for name, file in archives.items() if not job.formats or name in job.formats}
        _check_formats(job, archives)
        for name, file in chosen.items():
            yield from _units_of_archive(job, name, file, wanted)
        return
    folders = format_folders(source)
    _check_formats(job, folders)
    for name, folder in folders.items():
        if job.formats and name not in job.formats:
            continue
        table, bad = scan_format(name, folder, "")
        files = table["path"].to_pylist()
        rejects = [(f"{name}/{item.path}", item.reason) for item in bad]
        for number, at in enumerate(range(0, max(len(files), 1), job.unit)):
            title = f"{name}-{number:05d}"
            if wanted(title):
                yield Unit(title, name, os.fspath(folder), files[at : at + job.unit], [], rejects if not at else [])


def _units_of_archive(job: CacheJob, name: str, file: Path, wanted) -> Iterator[Unit]:
    """Runs of an archive's members. Members of units that aren't wanted are passed over without being kept."""
    number = -1
    unit: Unit | None = None
    in_unit = job.unit
    for member in archive.members(file, job.max_bytes):
        if in_unit >= job.unit:
            if unit:
                yield unit
            number += 1
            in_unit = 0
            title = f"{name}-{number:05d}"
            unit = Unit(title, name, "", [], [], []) if wanted(title) else None
        in_unit += 1
        if unit is None:
            continue
        if member.reason:
            unit.rejects.append((f"{file.name}:{member.name}", member.reason))
        else:
            unit.files.append(member.name)
            unit.contents.append(member.read())
    if unit:
        yield unit


def _check_formats(job: CacheJob, found: dict) -> None:
    missing = [name for name in job.formats if name not in found]
    if missing:
        raise DataError(f"formats {', '.join(missing)} not under {job.source}; there are {', '.join(found)}")


def _work(units: _Units, job: CacheJob, processes: int, finished) -> None:
    if processes <= 1:
        for unit in units:
            finished(do_unit(unit, job))
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        running: set[Future] = set()
        try:
            for unit in units:
                # A unit from an archive carries its bytes: only few may wait at once.
                while len(running) >= processes + 1:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        finished(future.result())
                running.add(pool.submit(do_unit, unit, job))
        finally:
            for future in running:
                finished(future.result())


def do_unit(unit: Unit, job: CacheJob) -> Part:
    """Encode one unit, write its shard and note it. Raises `OSError` where the folder is full or cannot be written."""
    tokenizer = Tokenizer.load(job.vocabulary)
    encoder = Encoder(job.space, tokenizer, job.illegal)
    table, bad = columns_of(unit.format, unit.files)
    rejects = [*unit.rejects, *((f"{unit.format}/{item.path}", item.reason) for item in bad)]
    contents = dict(zip(unit.files, unit.contents, strict=True)) if unit.contents else {}
    out = Path(job.out)
    part = Part(unit.name, unit.format, f"shard-{unit.name}.arrow", 0, 0, 0, "", 0, 0, 0, rejects)
    target = out / part.file
    temporary = out / f".{part.file}.{os.getpid()}"
    try:
        with open(temporary, "wb") as raw:
            sink = pa.PythonFile(_Hashing(raw, part), mode="w")
            with pa.ipc.new_stream(sink, shard_schema(job.space, encoder.space.n_words)) as writer:
                for at in range(0, len(table), BATCH_BATTLES):
                    rows = table.slice(at, BATCH_BATTLES)
                    batch = _encode_rows(rows, unit, contents, encoder, job, part)
                    if batch is not None:
                        writer.write_batch(batch)
            raw.flush()
            os.fsync(raw.fileno())
        part.sha256 = part.sha256.hexdigest()
        os.replace(temporary, target)
        _write_json(out / "parts" / f"{unit.name}.json", asdict(part))
    finally:
        temporary.unlink(missing_ok=True)
    return part


def _encode_rows(
    rows: pa.Table, unit: Unit, contents: dict[str, bytes], encoder: Encoder, job: CacheJob, part: Part
) -> pa.RecordBatch | None:
    battles: list[EncodedBattle] = []
    kept: list[int] = []
    sizes: list[int] = []
    for place, name in enumerate(rows["path"].to_pylist()):
        path = os.path.join(unit.folder, name) if unit.folder else f"{unit.format}/{name}"
        try:
            if unit.folder:
                size = os.stat(path).st_size
                text = read_json_bytes(path, job.max_bytes)
            else:
                size = len(contents[name])
                text = unpack(contents[name], path, job.max_bytes) if name.endswith(".lz4") else contents[name]
            battle = decode_lean(text, path)
            encoded = encoder.encode(battle.states, battle.actions)
        except OSError as error:
            part.rejects.append((f"{unit.format}/{name}", f"file: cannot be read ({error.strerror})"))
            continue
        except BadBattle as error:
            part.rejects.append((f"{unit.format}/{name}", f"{error.field}: {error.reason}"))
            continue
        battles.append(encoded)
        kept.append(place)
        sizes.append(size)
    if not battles:
        return None
    part.battles += len(battles)
    part.turns += sum(len(battle) for battle in battles)
    part.n_unknown += sum(battle.n_unknown for battle in battles)
    part.n_words += sum(battle.words.size for battle in battles)
    part.dropped_tails += sum(battle.dropped_tail for battle in battles)
    return _record_batch(rows.take(pa.array(kept)), sizes, battles, encoder, unit.format)


def shard_schema(space: str, n_words: int) -> pa.Schema:
    """Columns of a shard: the index's, and the battle's arrays."""
    codes = codes_of(space)

    def per_turn(kind: pa.DataType, width: int) -> pa.DataType:
        return pa.list_(pa.list_(kind, width))

    return pa.schema(
        [
            *SCHEMA,
            ("outcome", pa.int8()),
            ("team", pa.uint64()),
            ("words", per_turn(pa.uint16(), n_words)),
            ("codes", per_turn(pa.uint8(), len(codes.slots))),
            ("hp", per_turn(pa.float32(), len(codes.hp))),
            ("action", pa.list_(pa.int8())),
            ("legal", pa.list_(pa.uint16())),
            *((f"reward_{kind}", pa.list_(pa.float32())) for kind in REWARDS),
            ("exact_turn", pa.list_(pa.int32())),
            ("exact_slot", pa.list_(pa.int16())),
            ("exact_value", pa.list_(pa.float32())),
        ]
    )


def _record_batch(
    rows: pa.Table, sizes: list[int], battles: list[EncodedBattle], encoder: Encoder, name: str
) -> pa.RecordBatch:
    codes = codes_of(encoder.space.name)
    lengths = np.array([len(battle) for battle in battles], dtype=np.int32)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))

    def lists(flat: np.ndarray) -> pa.Array:
        values = pa.array(np.ascontiguousarray(flat).ravel())
        if flat.ndim == 2:
            values = pa.FixedSizeListArray.from_arrays(values, flat.shape[1])
        return pa.ListArray.from_arrays(offsets, values)

    packed, hp, (turn, slot, value) = codes.pack(np.concatenate([battle.numbers for battle in battles]))
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    owner = np.searchsorted(bounds, turn, side="right") - 1
    exact_offsets = pa.array(np.searchsorted(owner, np.arange(len(battles) + 1)).astype(np.int32))
    exact = [
        pa.ListArray.from_arrays(exact_offsets, pa.array(part))
        for part in ((turn - bounds[owner]).astype(np.int32), slot.astype(np.int16), value.astype(np.float32))
    ]
    legal = legal_bits(
        np.concatenate([battle.legal for battle in battles]), np.concatenate([battle.forced for battle in battles])
    )
    rewards = [
        np.concatenate([part for battle in battles for part in (battle.rewards[kind], _ZERO)]) for kind in REWARDS
    ]
    meta = {column: rows[column].combine_chunks() for column in rows.column_names}
    meta["path"] = pa.array([f"{name}/{path}" for path in rows["path"].to_pylist()])
    meta["size"] = pa.array(sizes, pa.int64())
    meta["turns"] = pa.array(lengths)
    outcome = [WON if battle.won else LOST if battle.lost else NO_RESULT for battle in battles]
    arrays = [
        *(meta[column] for column in SCHEMA.names),
        pa.array(outcome, pa.int8()),
        pa.array([battle.team for battle in battles], pa.uint64()),
        lists(np.concatenate([battle.words for battle in battles])),
        lists(packed),
        lists(hp),
        lists(np.concatenate([battle.action for battle in battles])),
        lists(legal),
        *(lists(reward) for reward in rewards),
        *exact,
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=shard_schema(encoder.space.name, encoder.space.n_words))


_ZERO = np.zeros(1, dtype=np.float32)


def _claim(out: Path, job: CacheJob, tokenizer: Tokenizer) -> None:
    """Mark the folder as this job's, or check that it is. What isn't ours is never written over."""
    facts = {
        "kind": KIND,
        "version": CACHE_VERSION,
        "schema": SCHEMA_VERSION,
        "space": job.space,
        "vocabulary": tokenizer.hash,
        "formats": sorted(job.formats),
        "illegal": job.illegal,
        "unit": job.unit,
        "source": Path(job.source).name,
    }
    file = out / "job.json"
    if file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        differing = [key for key in facts if kept.get(key) != facts[key]]
        if differing:
            raise DataError(
                f"{out}: was begun with another {', '.join(differing)} "
                f"({', '.join(str(kept.get(key)) for key in differing)}); give the same, or another --out"
            )
        return
    strangers = [entry.name for entry in os.scandir(out) if entry.name != "parts"]
    if strangers:
        raise DataError(f"{out}: holds {strangers[0]!r} and is no cache; give an empty or new folder")
    tokenizer.save(out / VOCABULARY)
    _write_json(file, facts)


def _finish(out: Path, job: CacheJob, tokenizer: Tokenizer, names: list[str]) -> dict:
    """Write the index over all shards, what `datasets` wants, and last the manifest."""
    parts = [Part(**json.loads((out / "parts" / f"{name}.json").read_text(encoding="utf-8"))) for name in names]
    parts = [part for part in parts if part.battles or part.rejects]
    tables = []
    for number, part in enumerate(parts):
        with pa.memory_map(str(out / part.file), "rb") as source:
            for batch_number, batch in enumerate(pa.ipc.open_stream(source)):
                lengths = batch.column("turns").to_numpy()
                places = [
                    batch.column("team").to_numpy(),
                    np.full(len(lengths), number, dtype=np.int32),
                    np.full(len(lengths), batch_number, dtype=np.int32),
                    np.arange(len(lengths), dtype=np.int32),
                    np.cumsum(lengths, dtype=np.int64) - lengths,
                ]
                columns = [batch.column(name) for name in SCHEMA.names]
                columns += [pa.array(place, kind) for place, (_, kind) in zip(places, PLACES, strict=True)]
                tables.append(pa.Table.from_arrays(columns, schema=INDEX_SCHEMA))
    if not tables:
        raise DataError(f"{job.source}: none of its battles can be read; see {out / 'parts'} for the reasons")
    table = pa.concat_tables(tables).sort_by([("format", "ascending"), ("path", "ascending")])
    temporary = out / f".{INDEX}.{os.getpid()}"
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_stream(sink, INDEX_SCHEMA) as writer:
        writer.write_table(table, max_chunksize=65_536)
    os.replace(temporary, out / INDEX)
    formats = Counter()
    for part in parts:
        formats[part.format] += part.battles
    rejects = [reject for part in parts for reject in part.rejects]
    reasons = Counter(reason.split(":", 1)[0].split("[", 1)[0] for _, reason in rejects)
    manifest = {
        "kind": KIND,
        "version": CACHE_VERSION,
        "schema": SCHEMA_VERSION,
        "space": job.space,
        "vocabulary": tokenizer.hash,
        "source": Path(job.source).name,
        "battles": sum(part.battles for part in parts),
        "turns": sum(part.turns for part in parts),
        "bytes": sum(part.bytes for part in parts),
        "formats": dict(sorted(formats.items())),
        "unknown_words": sum(part.n_unknown for part in parts),
        "words": sum(part.n_words for part in parts),
        "dropped_tails": sum(part.dropped_tails for part in parts),
        "rejects": {"count": len(rejects), "by_field": dict(reasons), "files": rejects[:REJECTS_KEPT]},
        "shards": [
            {
                "file": part.file,
                "battles": part.battles,
                "turns": part.turns,
                "bytes": part.bytes,
                "sha256": part.sha256,
            }
            for part in parts
        ],
    }
    _write_json(out / "state.json", _datasets_state(manifest))
    _write_json(out / "dataset_info.json", {})
    _write_json(out / MANIFEST, manifest)
    return manifest


def _datasets_state(manifest: dict) -> dict:
    """What `datasets.load_from_disk` reads beside the shards."""
    return {
        "_data_files": [{"filename": shard["file"]} for shard in manifest["shards"] if shard["battles"]],
        "_fingerprint": hashlib.sha256(manifest["vocabulary"].encode()).hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }


def _write_json(file: Path, content: dict) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


class _Hashing:
    """A file that counts and hashes what is written."""

    def __init__(self, raw, part: Part) -> None:
        self._raw = raw
        self._part = part
        part.sha256 = hashlib.sha256()
        self.closed = False

    def write(self, data) -> int:
        self._part.sha256.update(data)
        self._part.bytes += len(memoryview(data).cast("B"))
        return self._raw.write(data)

    def flush(self) -> None:
        self._raw.flush()

    def close(self) -> None:
        self.closed = True

    def tell(self) -> int:
        return self._raw.tell()

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False
