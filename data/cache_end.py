"""Makes a cache of finished shards: its index, its manifest, and what `datasets` reads beside them."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .cache_manifest import CACHE_VERSION, KIND, Manifest, Rejects, ShardFacts, read_manifest
from .cache_shard import CacheJob, Part, digest_of, write_json
from .folders import DOWNLOADS, JOB, MANIFEST, DataError, download_note
from .index_table import SCHEMA
from .replacing import replacing
from .reward import digests
from .schema import SCHEMA_VERSION
from .token_cache import ILLEGAL, INDEX, INDEX_SCHEMA, PLACES
from .tokenizer import Tokenizer

log = logging.getLogger(__name__)

REJECTS_KEPT = 10_000
STATE, INFO = "state.json", "dataset_info.json"  # by which `datasets` reads the folder


def finished(out: Path, parts: list[Part]) -> Manifest | None:
    """The manifest of these very shards, where all that `finish` writes stands; none of one that says less than
    today's, or whose index is damaged."""
    try:
        manifest = read_manifest(out)
        with open(out / INDEX, "rb") as source:
            index = hashlib.file_digest(source, "sha256").hexdigest()
    except (DataError, OSError):
        return None
    told = manifest.keys() == Manifest.__annotations__.keys() and manifest["index"]["sha256"] == index
    told = told and manifest["rejects"].keys() == Rejects.__annotations__.keys()
    whole = told and all((out / name).is_file() for name in (STATE, INFO))
    return manifest if whole and manifest["shards"] == facts_of(parts) else None


def facts_of(parts: list[Part]) -> list[ShardFacts]:
    return [{key: getattr(part, key) for key in ShardFacts.__annotations__} for part in parts]


def finish(out: Path, job: CacheJob, tokenizer: Tokenizer, names: list[str]) -> Manifest:
    """Write the index over all shards, what `datasets` wants, and last the manifest."""
    parts = [Part(**json.loads((out / "parts" / f"{name}.json").read_text(encoding="utf-8"))) for name in names]
    parts = [part for part in parts if part.battles or part.rejects]
    noted = download_note(Path(job.source))
    if noted is not None:  # its licence goes with it
        shutil.copyfile(noted, out / DOWNLOADS)
    # Finished before, by another machine perhaps: a run may open it at this moment, and would find none.
    if manifest := finished(out, parts):
        return manifest
    # First: should what follows be cut short, an older manifest would name shards in another order than the new index.
    (out / MANIFEST).unlink(missing_ok=True)
    # Of units that a source which shrank has no more: whoever opens `shard-*.arrow`, or pushes them, would have them.
    ours = {f"{name}.json" for name in names} | {part.file for part in parts}
    for left in [*(out / "parts").glob("*.json"), *out.glob("shard-*.arrow")]:
        if left.name not in ours:
            left.unlink(missing_ok=True)
    tables: dict[str, list[pa.Table]] = {part.format: [] for part in parts}
    for number, part in enumerate(parts):
        with pa.memory_map(str(out / part.file), "rb") as source:
            for batch_number, batch in enumerate(pa.ipc.open_stream(source)):
                places = [
                    batch.column("team").to_numpy(),
                    np.full(len(batch), number, dtype=np.int32),
                    np.full(len(batch), batch_number, dtype=np.int32),
                    np.arange(len(batch), dtype=np.int32),
                ]
                columns = [batch.column(name) for name in SCHEMA.names]
                columns += [pa.array(place, kind) for place, (_, kind) in zip(places, PLACES, strict=True)]
                tables[part.format].append(pa.Table.from_arrays(columns, schema=INDEX_SCHEMA))
    if not any(tables.values()):
        raise DataError(f"{job.source}: none of its battles can be read; see {out / 'parts'} for the reasons")
    table = index_of(tables)
    with (
        replacing(out / INDEX) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_stream(sink, INDEX_SCHEMA) as writer,
    ):
        writer.write_table(table, max_chunksize=65_536)
    with open(out / INDEX, "rb") as written:
        index = {"file": INDEX, "sha256": hashlib.file_digest(written, "sha256").hexdigest()}
    formats = {part.format: 0 for part in parts}
    formats |= {row["values"]: row["counts"] for row in table["format"].value_counts().to_pylist()}
    rejects = [reject for part in parts for reject in part.rejects]
    reasons = Counter(reason.split(":", 1)[0].split("[", 1)[0] for _, reason in rejects)
    of_format = Counter(part.format for part in parts for _ in part.rejects)
    begun = json.loads((out / JOB).read_text(encoding="utf-8"))
    manifest: Manifest = {
        "kind": KIND,
        "version": CACHE_VERSION,
        "schema": SCHEMA_VERSION,
        "space": job.space,
        "space_digest": begun.get("space_digest"),  # none where units may be older than that stamp
        "vocabulary": tokenizer.hash,
        "rewards": digests(),
        "source": Path(job.source).name,
        "battles": len(table),
        "turns": int(table["turns"].to_numpy().sum()),
        "bytes": sum(part.bytes for part in parts),
        "formats": dict(sorted(formats.items())),
        "unknown_words": sum(part.n_unknown for part in parts),
        "words": sum(part.n_words for part in parts),
        "dropped_tails": sum(part.dropped_tails for part in parts),
        "illegal_actions": sum(part.n_illegal for part in parts),
        "index": index,
        "rejects": {
            "count": len(rejects),
            "by_field": dict(reasons),
            "by_format": dict(of_format),
            "illegal": sum(ILLEGAL in reason for _, reason in rejects),
            "files": rejects[:REJECTS_KEPT],
        },
        "shards": facts_of(parts),
    }
    write_json(out / STATE, _datasets_state(manifest))
    write_json(out / INFO, {})
    write_json(out / MANIFEST, manifest)
    return manifest


def index_of(tables: dict[str, list[pa.Table]]) -> pa.Table:
    """The rows of a cache's index, by format and path, from those of its formats' shards."""
    # Format by format: Arrow joins the texts of a column to order them, and fails where they are over 2 GiB.
    return pa.concat_tables([_in_order(pa.concat_tables(rows)) for _, rows in sorted(tables.items()) if rows])


def _in_order(table: pa.Table) -> pa.Table:
    """Rows by path, of each battle the last: an archive that was added to may hold one twice, as tar has it, and one of
    a folder with battles unpacked in it holds them as `.json` and, which is last, as `.json.lz4`."""
    table = table.sort_by([("path", "ascending")])
    names = pc.replace_substring_regex(table["path"], r"\.lz4$", "")
    last = np.append(pc.not_equal(names.slice(1), names.slice(0, len(names) - 1)).to_numpy(), True)
    if not last.all():
        log.warning("%d battles stand in their archive again: the last of each is taken", np.count_nonzero(~last))
    return table.filter(pa.array(last))


def _datasets_state(manifest: Manifest) -> dict:
    """What `datasets.load_from_disk` reads beside the shards."""
    return {
        "_data_files": [{"filename": shard["file"]} for shard in manifest["shards"] if shard["battles"]],
        # By which it finds what a `map` made of the same battles, in this very folder: of others it must be another.
        "_fingerprint": digest_of([shard["sha256"] for shard in manifest["shards"]]),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
