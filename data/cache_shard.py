"""One shard of a token cache: a run of battles of one format, encoded and written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from .encode import EncodedBattle, Encoder
from .index_table import SCHEMA, UNREAD, columns_of
from .replacing import replacing
from .replay_file import MAX_BYTES, decode_lean, read_json_bytes, unpack
from .reward import REWARDS
from .schema import BadBattle
from .token_cache import LOST, NO_RESULT, WON, codes_of, legal_bits
from .tokenizer import Tokenizer

UNIT_BATTLES = 4096
BATCH_BATTLES = 512


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
    source: str  # digest of names and sizes


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
    source: str = ""  # its unit's
    n_illegal: int = 0  # illegal actions taken as not recorded


_ZERO = np.zeros(1, dtype=np.float32)


def do_unit(unit: Unit, job: CacheJob) -> Part:
    """Encode one unit, write its shard and note it. Raises `OSError` where the folder is full or cannot be written."""
    tokenizer = Tokenizer.load(job.vocabulary)
    encoder = Encoder(job.space, tokenizer, job.illegal)
    table, bad = columns_of(unit.format, unit.files)
    rejects = [*unit.rejects, *((f"{unit.format}/{item.path}", item.reason) for item in bad)]
    contents = dict(zip(unit.files, unit.contents, strict=True)) if unit.contents else {}
    out = Path(job.out)
    part = Part(unit.name, unit.format, f"shard-{unit.name}.arrow", 0, 0, 0, "", 0, 0, 0, rejects, unit.source)
    with replacing(out / part.file) as temporary:
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
    write_json(out / "parts" / f"{unit.name}.json", asdict(part))
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
            part.rejects.append((f"{unit.format}/{name}", f"{UNREAD} ({error.strerror})"))
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
    part.n_illegal += sum(battle.n_illegal for battle in battles)
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


def digest_of(facts) -> str:
    """Short name of what a unit is made from, equal as long as that stays as it is."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def write_json(file: Path, content: dict | list) -> None:
    """Write a JSON file, whole or not at all."""
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


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
