"""Makes a token cache from folders of battle files or straight from `.tar.gz` archives, by many processes.

The work is cut into units (a run of battles of one format), each of which becomes one shard: written under a temporary
name, synced, renamed, and noted in `parts/`. A run that was killed goes on with the units that aren't noted, one over a
folder that has grown does those again whose battles are others now; with `--shard i/n` a machine does every n-th unit.
When the last unit is there, index and manifest are written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from . import archive
from .cache_manifest import CACHE_VERSION, KIND, Manifest, Rejects, ShardFacts, read_manifest
from .cache_shard import CacheJob, Part, Unit, do_unit, write_json
from .folders import DOWNLOADS, FORMAT, JOB, MANIFEST, DataError, download_note, format_folders
from .index import scan_format
from .index_table import SCHEMA, UNREAD
from .lock import locked
from .observation import space_named
from .parallel import cores, workers
from .progress import progress_bar
from .replacing import replacing
from .replay_file import MAX_BYTES
from .reward import digests
from .schema import SCHEMA_VERSION
from .space_stamps import space_digest
from .token_cache import ILLEGAL, INDEX, INDEX_SCHEMA, PLACES, UNSTAMPED, VOCABULARY
from .tokenizer import Tokenizer

log = logging.getLogger(__name__)

REJECTS_KEPT = 10_000
STATE, INFO = "state.json", "dataset_info.json"  # by which `datasets` reads the folder


def make_cache(
    job: CacheJob, processes: int | None = None, shard: tuple[int, int] = (0, 1), progress: bool = True
) -> Manifest | None:
    """Make a cache, or this machine's share of it.

    Args:
        job: what to make.
        processes: encoding processes; default the number of cores.
        shard: (i, n): take units i, i + n, ….
        progress: show a bar.

    Returns:
        the manifest once every unit is there; none while other machines' shares are missing.

    Raises:
        DataError: nothing to read, a folder of another cache or of the battles, an archive that is cut (what was read
            of it is kept).
        OSError: the folder is full or cannot be written.
    """
    index, count = shard
    if not 0 <= index < count:
        raise DataError(f"--shard {index}/{count}: give i/n with 0 ≤ i < n")
    if job.unit < 1:
        raise DataError(f"--battles-per-shard {job.unit}: give 1 or more")
    out = Path(job.out)
    source, inside = Path(job.source).resolve(), out.resolve()
    if source in inside.parents and FORMAT.fullmatch(inside.relative_to(source).parts[0]):
        raise DataError(
            f"--out {out}: lies in {job.source} and would be read as a format there; give a folder beside it"
        )
    _found(job)  # before the folder is claimed for it: a slip in the command must not stand in its own mend's way
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.load(job.vocabulary)
    # One process at a time: of machines that start or end at once, each is to see what the other has written.
    with locked(out / ".making"):
        _claim(out, job, tokenizer)
    fault: DataError | None = None
    totals = Counter()
    names: list[str] = []
    started = time.perf_counter()
    with progress_bar(desc="cache", show=progress) as bar:

        def finished(part: Part) -> None:
            bar.update(part.battles + len(part.rejects))
            totals.update(battles=part.battles, turns=part.turns, rejects=len(part.rejects))
            bar.set_postfix(turns=totals["turns"], rejects=totals["rejects"])

        units = _Units(job, out, names, index, count)
        try:
            _work(units, job, processes or cores(), finished)
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
    with locked(out / ".making"):
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
        return _units(self.job, self._wanted)

    def _wanted(self, name: str, source: str, folder: Path | None = None) -> bool:
        """Note a unit's name; whether this machine has to do it, as yet or because its battles are others now. Where
        they are no archive's, they lie in `folder`."""
        place = len(self.names)
        self.names.append(name)
        part = self.out / "parts" / f"{name}.json"
        mine = place % self.count == self.index
        done = part.is_file() and self._is_done(part, source, mine, folder)
        if part.is_file() and not done:
            (self.out / MANIFEST).unlink(missing_ok=True)  # no finished cache any more
            part.unlink(missing_ok=True)
        return mine and not done

    def _is_done(self, part: Path, source: str, mine: bool, folder: Path | None) -> bool:
        """Whether a unit's note tells of the battles that it has now, its shard is there, and, of this machine's, all
        files could be read: what a disk did not give then it may give now. Nor may one that was rejected have been
        written since: fetched again, it can be as long as it was."""
        try:
            made = part.stat().st_mtime
            noted = json.loads(part.read_text(encoding="utf-8"))
            whole = (self.out / noted["file"]).stat().st_size == noted["bytes"]
        except (OSError, ValueError):  # removed, or cut as the machine went down
            return False
        again = mine and any(
            UNREAD in reason or (folder is not None and _written_at(folder / Path(path).name) > made)
            for path, reason in noted["rejects"]
        )
        return whole and noted.get("source") == source and not again


def _written_at(file: Path) -> float:
    """When a file came to be as it is, whatever a copy says of its age; 0 where it is gone."""
    try:
        return file.stat().st_ctime
    except OSError:
        return 0.0


def _units(job: CacheJob, wanted) -> Iterator[Unit]:
    archives, folders = _found(job)
    for name, file in archives.items():
        yield from _units_of_archive(job, name, file, wanted)
    for name, folder in folders.items():
        table, bad = scan_format(name, folder, "")
        files, sizes = table["path"].to_pylist(), table["size"].to_pylist()
        rejects = [(f"{name}/{item.path}", item.reason) for item in bad]
        # A format without a single file has no unit; one of bad names alone has one, for their reasons.
        for number, at in enumerate(range(0, len(files) or bool(rejects), job.unit)):
            title, chosen = f"{name}-{number:05d}", files[at : at + job.unit]
            named = rejects if not at else []
            source = _digest([*zip(chosen, sizes[at : at + job.unit], strict=True), *named])
            if wanted(title, source, folder):
                yield Unit(title, name, os.fspath(folder), chosen, [], named, source)


def _digest(facts) -> str:
    """Short name of what a unit is made from, equal as long as that stays as it is."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _units_of_archive(job: CacheJob, name: str, file: Path, wanted) -> Iterator[Unit]:
    """Runs of an archive's members."""
    members = archive.members(file, job.max_bytes)
    number = 0
    # Read as they pass: an archive is a stream.
    while run := [(item, b"" if item.reason else item.read()) for item in islice(members, job.unit)]:
        rejects = [(f"{file.name}:{item.name}", item.reason) for item, _ in run if item.reason]
        files = [item.name for item, _ in run if not item.reason]
        contents = [content for item, content in run if not item.reason]
        # The contents too: what a spoilt archive gave is not taken for what a sound one gives.
        sums = [hashlib.sha256(content).hexdigest() for content in contents]
        title, source = f"{name}-{number:05d}", _digest([*zip(files, sums, strict=True), *rejects])
        if wanted(title, source):
            yield Unit(title, name, "", files, contents, rejects, source)
        number += 1


def _found(job: CacheJob) -> tuple[dict[str, Path], dict[str, Path]]:
    """The archives to read by format, or else the folders. Raises `DataError`: nothing there, or not a format asked."""
    archives = archive.archives_under(Path(job.source), job.formats)
    folders = {} if archives else format_folders(Path(job.source), job.formats)
    missing = [name for name in job.formats if name not in archives | folders]
    if missing:
        raise DataError(
            f"formats {', '.join(missing)} not under {job.source}; there are {', '.join(archives | folders)}"
        )
    archives, folders = (
        {name: place for name, place in found.items() if not job.formats or name in job.formats}
        for found in (archives, folders)
    )
    return archives, folders


def _work(units: _Units, job: CacheJob, processes: int, finished) -> None:
    if processes <= 1:
        for unit in units:
            finished(do_unit(unit, job))
        return
    with workers(processes) as pool:
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


def _claim(out: Path, job: CacheJob, tokenizer: Tokenizer) -> None:
    """Mark the folder as this job's, or check that it is. What isn't ours is never written over."""
    facts = {
        "kind": KIND,
        "version": CACHE_VERSION,
        "schema": SCHEMA_VERSION,
        "space": job.space,
        "space_digest": space_digest(space_named(job.space)),
        "vocabulary": tokenizer.hash,
        "formats": sorted(job.formats),
        "illegal": job.illegal,
        "max_bytes": job.max_bytes,
        "rewards": digests(),
        "unit": job.unit,
        "source": Path(job.source).name,
    }
    file = out / JOB
    # Listed before the claim is looked for: another machine may make it, and its first shards, at this moment. Our own
    # vocabulary alone is what a process killed in here has left.
    ours = ("parts", VOCABULARY) if _is_ours(out / VOCABULARY, tokenizer) else ("parts",)
    strangers = [name for name in os.listdir(out) if name not in ours and not name.startswith(".")]
    if file.is_file():
        try:
            kept = {"rewards": UNSTAMPED, "max_bytes": MAX_BYTES, "space_digest": facts["space_digest"]}
            kept |= json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{file}: cannot be read ({error}); make the cache in a new folder") from error
        differing = [key for key in facts if kept.get(key) != facts[key]]
        if differing:
            raise DataError(
                f"{out}: was begun with another {', '.join(differing)} "
                f"({', '.join(str(kept.get(key)) for key in differing)}); give the same, or another --out"
            )
        if not _is_ours(out / VOCABULARY, tokenizer):  # lost or changed since: the words that its tokens stand for
            tokenizer.save(out / VOCABULARY)
        return
    if strangers:
        raise DataError(f"{out}: holds {strangers[0]!r} and is no cache; give an empty or new folder")
    (out / "parts").mkdir(exist_ok=True)  # no sooner: among battles it would pass for a format
    tokenizer.save(out / VOCABULARY)
    write_json(file, facts)


def _is_ours(vocabulary: Path, tokenizer: Tokenizer) -> bool:
    try:
        return Tokenizer.load(vocabulary).hash == tokenizer.hash
    except ValueError:
        return False


def _finished(out: Path, parts: list[Part]) -> Manifest | None:
    """The manifest of these very shards, where all that `_finish` writes stands; none of one that says less than
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
    return manifest if whole and manifest["shards"] == _facts_of(parts) else None


def _facts_of(parts: list[Part]) -> list[ShardFacts]:
    return [{key: getattr(part, key) for key in ShardFacts.__annotations__} for part in parts]


def _finish(out: Path, job: CacheJob, tokenizer: Tokenizer, names: list[str]) -> Manifest:
    """Write the index over all shards, what `datasets` wants, and last the manifest."""
    parts = [Part(**json.loads((out / "parts" / f"{name}.json").read_text(encoding="utf-8"))) for name in names]
    parts = [part for part in parts if part.battles or part.rejects]
    noted = download_note(Path(job.source))
    if noted is not None:  # its licence goes with it
        shutil.copyfile(noted, out / DOWNLOADS)
    # Finished before, by another machine perhaps: a run may open it at this moment, and would find none.
    if manifest := _finished(out, parts):
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
        "shards": _facts_of(parts),
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
    """Rows by path, of each path the last: an archive that was added to may hold a battle twice, as tar has it."""
    table = table.sort_by([("path", "ascending")])
    paths = table["path"]
    last = np.append(pc.not_equal(paths.slice(1), paths.slice(0, len(paths) - 1)).to_numpy(), True)
    if not last.all():
        log.warning("%d battles stand in their archive again: the last of each is taken", np.count_nonzero(~last))
    return table.filter(pa.array(last))


def _datasets_state(manifest: Manifest) -> dict:
    """What `datasets.load_from_disk` reads beside the shards."""
    return {
        "_data_files": [{"filename": shard["file"]} for shard in manifest["shards"] if shard["battles"]],
        # By which it finds what a `map` made of the same battles, in this very folder: of others it must be another.
        "_fingerprint": _digest([shard["sha256"] for shard in manifest["shards"]]),
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
