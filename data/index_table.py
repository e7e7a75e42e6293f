"""Rows of an index: what file names tell, column by column, and the Arrow file that keeps them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .replacing import replacing
from .replay_file import DEFAULT_RATING, BadBattleFile, parse_name
from .sampler import mix

UNKNOWN_TURNS = -1
REJECTED_TURNS = 0
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
UNREAD = "file: cannot be read"  # in the reason to leave out a file that the system did not give


@dataclass(frozen=True)
class BadName:
    """A file left out of the index for its name."""

    path: str
    reason: str


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
    schema = SCHEMA.with_metadata({b"turnwise": json.dumps(facts).encode()})
    with (
        replacing(file) as temporary,
        pa.OSFile(os.fspath(temporary), "wb") as sink,
        pa.ipc.new_stream(sink, schema) as writer,
    ):
        writer.write_table(table.cast(SCHEMA).replace_schema_metadata(schema.metadata), max_chunksize=BATCH_ROWS)
    return file


def map_table(file: Path) -> pa.Table:
    """Memory-map a written table."""
    with pa.memory_map(os.fspath(file), "rb") as source:
        return pa.ipc.open_stream(source).read_all()


def read_facts(table: pa.Table) -> dict:
    """What `write_table` kept beside the columns."""
    return json.loads((table.schema.metadata or {}).get(b"turnwise", b"{}"))


def _name_reason(format_name: str, file: str) -> str:
    try:
        parse_name(f"{format_name}/{file}")
    except BadBattleFile as error:
        return f"{error.field}: {error.reason}"
    return "name: is no battle file's"
