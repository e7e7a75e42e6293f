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
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from pathlib import Path

from . import archive
from .cache_end import finish
from .cache_manifest import CACHE_VERSION, KIND, Manifest
from .cache_shard import CacheJob, Part, Unit, digest_of, do_unit, write_json
from .folders import FORMAT, JOB, MANIFEST, DataError, format_folders
from .index import scan_format
from .index_table import UNREAD
from .lock import locked
from .observation import space_named
from .parallel import cores, workers
from .progress import progress_bar
from .replacing import clear_left
from .replay_file import MAX_BYTES
from .reward import digests
from .schema import SCHEMA_VERSION
from .space_stamps import space_digest
from .token_cache import UNSTAMPED, VOCABULARY
from .tokenizer import Tokenizer

log = logging.getLogger(__name__)


def make_cache(
    job: CacheJob,
    processes: int | None = None,
    shard: tuple[int, int] = (0, 1),
    progress: bool = True,
    beside: Sequence[Path] = (),
) -> Manifest | None:
    """Make a cache, or this machine's share of it.

    Args:
        job: what to make.
        processes: encoding processes; default the number of cores.
        shard: (i, n): take units i, i + n, ….
        progress: show a bar.
        beside: other caches on the same disk, of archives too: where those are made of the same battles by the same
            rules, their shards are linked to.

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
    refuse_inside(Path(job.source), out, f"--out {out}")
    _found(job)  # before the folder is claimed for it: a slip in the command must not stand in its own mend's way
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.load(job.vocabulary)
    # One process at a time: of machines that start or end at once, each is to see what the other has written.
    with locked(out / ".making"):
        facts = _claim(out, job, tokenizer)
        for folder in (out, out / "parts"):
            clear_left(folder)
    fault: DataError | None = None
    totals = Counter()
    sources: dict[str, str] = {}
    started = time.perf_counter()
    with progress_bar(desc="cache", show=progress) as bar:

        def finished(part: Part) -> None:
            bar.update(part.battles + len(part.rejects))
            totals.update(battles=part.battles, turns=part.turns, rejects=len(part.rejects))
            bar.set_postfix(turns=totals["turns"], rejects=totals["rejects"])

        alike = [cache for cache in beside if _rules(_read(cache / JOB)) == _rules(facts)]
        units = _Units(job, out, sources, index, count, alike)
        try:
            _work(units, job, processes or cores(), finished)
        except DataError as error:
            fault = error
    seconds = time.perf_counter() - started
    log.info("%d battles in %.1f s", totals["battles"], seconds)
    if fault:
        raise fault
    # Nor is there what another machine has made meanwhile of other battles, from before the folder changed.
    missing = [name for name, source in sources.items() if _note(out, name).get("source") != source]
    if missing:
        log.warning("%d of %d units are other machines' and not there yet", len(missing), len(sources))
        return None
    with locked(out / ".making"):
        return finish(out, job, tokenizer, list(sources))


def refuse_inside(source: Path, out: Path, told: str) -> None:
    """Raises DataError, which names the setting as `told`, where a cache would lie in the folder that it is made of, by
    a name that a format could have."""
    above, inside = source.resolve(), out.resolve()
    if above in inside.parents and FORMAT.fullmatch(inside.relative_to(above).parts[0]):
        raise DataError(f"{told}: lies in {source} and would be read as a format there; give a folder beside it")


class _Units:
    """The units of a job in order; those done, or other machines', are only named."""

    def __init__(
        self, job: CacheJob, out: Path, sources: dict[str, str], index: int, count: int, alike: list[Path]
    ) -> None:
        """sources: of each unit by its name what it is made from, filled in as they pass; alike: caches made by the
        same rules."""
        self.job = job
        self.out = out
        self.sources = sources
        self.alike = alike
        self.index = index
        self.count = count

    def __iter__(self) -> Iterator[Unit]:
        return _units(self.job, self._wanted)

    def _wanted(self, name: str, source: str, folder: Path | None = None) -> bool:
        """Note a unit; whether this machine has to do it, as yet or because its battles are others now. Where they are
        no archive's, they lie in `folder`."""
        place = len(self.sources)
        self.sources[name] = source
        part = self.out / "parts" / f"{name}.json"
        mine = place % self.count == self.index
        done = part.is_file() and self._is_done(name, source, mine, folder)
        if part.is_file() and not done:
            (self.out / MANIFEST).unlink(missing_ok=True)  # no finished cache any more
            part.unlink(missing_ok=True)
        # Of files in a folder a unit's source tells names and sizes alone: another's may be others.
        linked = mine and not done and folder is None and any(_linked(c, self.out, name, source) for c in self.alike)
        return mine and not done and not linked

    def _is_done(self, name: str, source: str, mine: bool, folder: Path | None) -> bool:
        """Whether a unit's note tells of the battles that it has now, its shard is there, and, of this machine's, all
        files could be read: what a disk did not give then it may give now. Nor may one that was rejected have been
        written since: fetched again, it can be as long as it was. Of an archive, which is read through for it anyway,
        the shard is read, too: a bit that flipped changes no size."""
        try:
            made = (self.out / "parts" / f"{name}.json").stat().st_mtime
            noted = _note(self.out, name)
            whole = _is_whole(self.out / noted["file"], noted, to_the_bit=mine and folder is None)
        except (OSError, KeyError):  # removed, or cut as the machine went down
            return False
        again = mine and any(
            UNREAD in reason or (folder is not None and _written_at(folder / Path(path).name) > made)
            for path, reason in noted["rejects"]
        )
        return whole and noted.get("source") == source and not again


def _linked(cache: Path, out: Path, name: str, source: str) -> bool:
    """Whether a cache has a unit of these very battles, which is `out`'s then, too: both can have one file, for what is
    written anew is another in its place."""
    note = _note(cache, name)
    if note.get("source") != source:
        return False
    shard = out / note["file"]
    try:
        shard.unlink(missing_ok=True)
        os.link(cache / note["file"], shard)
    except OSError:  # of a disk without links, or it is gone
        return False
    # A unit's note goes before its shard is made anew: as long as it is there, the shard is its own.
    if _note(cache, name) != note or not _is_whole(shard, note, to_the_bit=True):
        shard.unlink()
        return False
    write_json(out / "parts" / f"{name}.json", note)
    return True


def _is_whole(shard: Path, note: dict, to_the_bit: bool) -> bool:
    """Whether a shard is there and as long as its note says, or what that says `to_the_bit`."""
    try:
        with open(shard, "rb") as source:
            long = os.fstat(source.fileno()).st_size == note["bytes"]
            return long and (not to_the_bit or hashlib.file_digest(source, "sha256").hexdigest() == note["sha256"])
    except OSError:
        return False


def _note(out: Path, name: str) -> dict:
    """What is noted of a unit."""
    return _read(out / "parts" / f"{name}.json")


def _read(file: Path) -> dict:
    """What `write_json` wrote; nothing where that was removed, or cut as the machine went down."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _rules(facts: dict) -> dict:
    """By what of a job's facts a unit is made of its battles."""
    return {key: fact for key, fact in facts.items() if key not in ("formats", "source")}


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
            source = digest_of([*zip(chosen, sizes[at : at + job.unit], strict=True), *named])
            if wanted(title, source, folder):
                yield Unit(title, name, os.fspath(folder), chosen, [], named, source)


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
        title, source = f"{name}-{number:05d}", digest_of([*zip(files, sums, strict=True), *rejects])
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


def _claim(out: Path, job: CacheJob, tokenizer: Tokenizer) -> dict:
    """Mark the folder as this job's, or check that it is; returns the facts that it is marked by. What isn't ours is
    never written over."""
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
        (out / "parts").mkdir(exist_ok=True)
        return facts
    if strangers:
        raise DataError(f"{out}: holds {strangers[0]!r} and is no cache; give an empty or new folder")
    (out / "parts").mkdir(exist_ok=True)  # no sooner: among battles it would pass for a format
    tokenizer.save(out / VOCABULARY)
    write_json(file, facts)
    return facts


def _is_ours(vocabulary: Path, tokenizer: Tokenizer) -> bool:
    try:
        return Tokenizer.load(vocabulary).hash == tokenizer.hash
    except ValueError:
        return False
