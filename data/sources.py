"""Folders and token caches behind a data set: opened, joined into one index, split, filtered and weighted."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .archive import archives_under
from .cache import CacheJob, make_cache, refuse_inside
from .cache_manifest import CACHE_VERSION, is_cache
from .data_config import DataConfig, SourceConfig
from .encode import EncodedBattle, Encoder
from .expression import filter_mask, weights
from .folders import DataError, refuse_no_folder
from .index import FormatIndex, cache_root, folder_for, open_index, set_turns
from .index_table import REJECTED_TURNS, SCHEMA, UNKNOWN_TURNS, pair_draws
from .lock import locked
from .observation import space_named
from .parallel import map_pieces
from .rejects import Reject, RejectLedger
from .replay_file import MAX_BYTES, BadBattleFile, read_lean
from .reward import digests
from .schema import BadBattle
from .space_stamps import space_digest
from .token_cache import INDEX, VOCABULARY, TokenCache
from .tokenizer import Tokenizer

log = logging.getLogger(__name__)

SPLITS = ("train", "heldout", "all")
FILL_TURNS_UP_TO = 20_000
KEPT_EVERY = 60.0  # seconds of reading lengths that a machine which goes down can cost
REFUSED_BEFORE = "states: refused when indexed (data.turns=always reads it again)"


@dataclass
class Source:
    """One open folder or cache: its rows are [first, first + rows) of the joined index."""

    config: SourceConfig
    root: Path
    cache: TokenCache | None
    first: int
    rows: int


@dataclass
class Sources:
    """The open sources and their joined index, one row per battle."""

    parts: list[Source]
    index: datasets.Dataset

    def find(self, row: int) -> tuple[Source, int]:
        """The source of a row, and its place there."""
        for source in self.parts:
            if row < source.first + source.rows:
                return source, row - source.first
        raise IndexError(f"row {row} of {len(self.index)}")


def open_sources(config: DataConfig, tokenizer: Tokenizer, ledger: RejectLedger, scan: bool = True) -> Sources:
    """Open every source; find battles' lengths where the configuration asks for it. Not to `scan`: see `open_index`.

    Raises:
        DataError: nothing to read, or a cache that doesn't fit the run.
        TooManyRejects: too many names or files cannot be used.
    """
    parts: list[Source] = []
    tables: list[datasets.Dataset] = []
    first = 0
    _refuse_at_once(config)
    with ledger.together():
        for source in config.all_sources():
            root = Path(source.path)
            formats = source.formats or tuple(config.formats)
            cached = root if is_cache(root) else _cached_archives(root, formats, config, tokenizer, scan)
            if cached is not None:
                cache = TokenCache(cached)
                cache.check(config.space, tokenizer, config.reward, config.illegal_actions)
                cache.check_formats(formats)
                battles, rejected, named = cache.counts(formats)
                ledger.add_names(battles + rejected, [])
                ledger.add(battles + rejected, [Reject(*one) for one in named], unnamed=rejected - len(named))
                pieces = [datasets.Dataset.from_file(os.fspath(cached / INDEX)).select_columns(SCHEMA.names)]
            else:
                cache = None
                pieces = _open_folder(root, formats, config, ledger, scan)
            rows = sum(len(piece) for piece in pieces)
            parts.append(Source(source, root, cache, first, rows))
            tables += pieces
            first += rows
    if not first:
        raise DataError(f"data.path {config.path}: no battle file with a good name in the formats asked for")
    return Sources(parts, datasets.concatenate_datasets(tables) if len(tables) > 1 else tables[0])


def _refuse_at_once(config: DataConfig) -> None:
    """Raises DataError where a slip can be seen without a battle: to open a source may take an hour."""
    nothing = SCHEMA.empty_table()
    filter_mask(config.filter, nothing, "data.filter")
    filter_mask(config.clone, nothing, "data.clone")
    weights(config.weight, nothing, "data.weight", np.arange(0))
    for number, source in enumerate(config.all_sources()):
        filter_mask(source.filter, nothing, f"data.sources[{number}].filter")
        if not Path(source.path).is_file():  # an archive
            refuse_no_folder(Path(source.path))


def index_table(index: datasets.Dataset) -> pa.Table:
    """The Arrow table behind an index."""
    return index.data.table if hasattr(index.data, "table") else index.data


def choose_rows(sources: Sources, config: DataConfig, split: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows of one side of the split that pass the filters, and how often each is drawn.

    Returns:
        rows uint32 [n] of the index, on the train side without those that a weight of 0 leaves out; rates float64 [n]
        in [0, 1], times per epoch, or none: once each.
    """
    table = index_table(sources.index)
    if config.split_by == "players":
        draws = pair_draws(table["player"], table["opponent"])
    else:
        draws = table["split"].to_numpy()
    heldout = draws < config.heldout_share * 2.0**32
    chosen = np.ones(len(draws), dtype=bool) if split == "all" else heldout == (split == "heldout")
    if config.filter.strip():
        chosen &= filter_mask(config.filter, table, "data.filter")
    for number, source in enumerate(sources.parts):
        mine = slice(source.first, source.first + source.rows)
        part = table.slice(source.first, source.rows)
        if source.config.filter.strip():
            chosen[mine] &= filter_mask(source.config.filter, part, f"data.sources[{number}].filter")
        if source.cache is not None and (wanted := source.config.formats or tuple(config.formats)):
            chosen[mine] &= pc.is_in(part["format"], value_set=pa.array(wanted)).to_numpy()
    rows = np.flatnonzero(chosen).astype(np.uint32)
    if not len(rows):  # which is the caller's to judge
        return rows, None
    # Held-out scores are of all held-out battles, so weights are nothing to them.
    rates = None if split == "heldout" else _rates(sources, config, table, rows)
    for number, source in enumerate(sources.parts):
        # Held out, a small source may have none.
        mine = (rows >= source.first) & (rows < source.first + source.rows)
        if split != "heldout" and not (mine.any() if rates is None else rates[mine].any()):
            raise DataError(
                f"data.sources[{number}]: none of its battles ({source.root}) is drawn; look at its filter and "
                "formats, data.filter, data.weight and what was rejected, or leave it out"
            )
    if rates is not None and split == "train":
        drawn = rates > 0  # what is never trained on must not count as seen
        rows, rates = rows[drawn], rates[drawn]
    return rows, rates


def cloned_rows(sources: Sources, config: DataConfig, rows: np.ndarray) -> np.ndarray:
    """Whether the policy clones each of `rows`, bool [n], by `data.clone`."""
    return filter_mask(config.clone, index_table(sources.index), "data.clone")[rows]


def _rates(sources: Sources, config: DataConfig, table: pa.Table, rows: np.ndarray) -> np.ndarray | None:
    """How often each row is drawn, as a share of epochs; the most frequent once an epoch, none more than that."""
    if len(sources.parts) == 1 and not config.weight.strip() and not config.format_weights:
        return None
    formats = table["format"].unique().to_pylist() if config.format_weights else []
    if absent := [name for name in config.format_weights if name not in formats]:
        raise DataError(
            f"data.format_weights: {', '.join(absent)} is none of the formats read, which are {', '.join(formats)}; "
            "name one of them, or leave it out"
        )
    rates = weights(config.weight, table, "data.weight", rows)
    for name, weight in config.format_weights.items():
        rates[pc.equal(table["format"], name).to_numpy()[rows]] *= weight
    if len(sources.parts) > 1:
        for source in sources.parts:
            mine = (rows >= source.first) & (rows < source.first + source.rows)
            total = rates[mine].sum()
            if total > 0:
                rates[mine] *= source.config.weight / total
    highest = rates.max(initial=0.0)
    if not highest > 0:
        raise DataError("data.weight, data.format_weights: give no battle a weight above 0; raise one")
    return rates / highest


def encode_file(path: str, encoder: Encoder, max_bytes: int = MAX_BYTES) -> EncodedBattle:
    """Read and encode one battle file. Raises `BadBattleFile`."""
    battle = read_lean(path, max_bytes)
    try:
        return encoder.encode(battle.states, battle.actions)
    except BadBattle as error:
        raise BadBattleFile(path, error.field, error.reason, error.mend) from error


def _cached_archives(
    root: Path, formats: tuple[str, ...], config: DataConfig, tokenizer: Tokenizer, scan: bool
) -> Path | None:
    """The token cache of a `{format}.tar.gz`, or of a folder of them as a download leaves it, made at its first use;
    none where the folder holds format folders. It lies beside the indexes, named by the archives' sizes and times and
    by what is made of them: with the words of `tokenizer`, whatever file holds them (a model brings its own to
    evaluation). What caches beside it hold of the same battles is not encoded again.

    Raises:
        DataError: archives that cannot be read, or a cache folder that is full or cannot be written.
    """
    if not root.exists():
        return None
    there = archives_under(root, formats)
    if not there:
        return None
    if missing := [name for name in formats if name not in there]:
        raise DataError(f"formats: {', '.join(missing)} not under {root}; there are {', '.join(there)}")
    archives = {name: file for name, file in there.items() if not formats or name in formats}
    facts = [config.space, tokenizer.hash, config.illegal_actions, config.max_bytes, CACHE_VERSION, digests()]
    facts.append(space_digest(space_named(config.space)))
    for name, file in archives.items():
        status = file.stat()
        facts.append([name, os.fspath(file.resolve()), status.st_size, status.st_mtime_ns])
    caches = cache_root(config.cache_dir)
    out = caches / f"tokens-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]}"
    refuse_inside(root, out, f"data.cache_dir {caches}")
    with locked(out):
        if not is_cache(out) or (config.rescan and scan):
            log.warning("%s holds archives: making a token cache of them in %s, once", root, out)
            job = CacheJob(
                source=os.fspath(root),
                out=os.fspath(out),
                formats=tuple(archives),  # by which it is named: who asks for them in other words goes on with it
                space=config.space,
                vocabulary=os.fspath(out / VOCABULARY),
                illegal=config.illegal_actions,
                max_bytes=config.max_bytes,
            )
            try:
                tokenizer.save(out / VOCABULARY)
                make_cache(job, beside=[cache for cache in sorted(caches.glob("tokens-*")) if cache != out])
            except OSError as error:
                raise DataError(
                    f"{out}: the token cache of {root} cannot be written ({error.strerror}); make room, or give "
                    "another data.cache_dir (what is made is kept)"
                ) from error
    return out


def _open_folder(
    root: Path, formats: tuple[str, ...], config: DataConfig, ledger: RejectLedger, scan: bool
) -> list[datasets.Dataset]:
    indexes = open_index(root, formats, config.cache_dir, config.rescan, scan=scan)
    bad = [Reject(os.path.join(root, item.path), item.reason) for part in indexes for item in part.bad_names]
    total = sum(len(part.table) for part in indexes)
    ledger.add_names(total, bad)
    reasons: dict[str, str] = {}
    # A few new files in a folder whose lengths are known must not cost the plan of all the others.
    unknown = sum(int((part.table["turns"].to_numpy() == UNKNOWN_TURNS).sum()) for part in indexes)
    few = total <= FILL_TURNS_UP_TO or 0 < unknown <= FILL_TURNS_UP_TO
    if config.turns == "always" or (config.turns == "auto" and few):
        indexes, reasons = fill_turns(root, indexes, config)
    judged = 0
    rejects = []
    for part in indexes:
        turns = part.table["turns"]
        judged += pc.sum(pc.greater_equal(turns, REJECTED_TURNS)).as_py() or 0
        for path in part.table.filter(pc.equal(turns, REJECTED_TURNS))["path"].to_pylist():
            rejects.append(Reject(os.path.join(root, path), reasons.get(path, REFUSED_BEFORE)))
    ledger.add(judged, rejects)
    return [_as_dataset(part) for part in indexes if len(part.table)]


def _as_dataset(part: FormatIndex) -> datasets.Dataset:
    """A format's table as a data set, memory-mapped where it is kept in a file."""
    if part.file is not None:
        return datasets.Dataset.from_file(os.fspath(part.file))
    return datasets.Dataset(part.table.replace_schema_metadata(None))


def fill_turns(
    root: Path,
    parts: list[FormatIndex],
    config: DataConfig,
    processes: int | None = None,
    progress: bool = True,
    anew: bool = False,
) -> tuple[list[FormatIndex], dict[str, str]]:
    """Read every file whose number of turns isn't known (or `anew` every one: a file can be another at the same size),
    and keep it in the index (0 where the file is rejected).

    What was found is written to the index once a minute, and at the end: a machine may go down, or be taken away.

    Returns:
        the indexes, and the reason of each file rejected (by its path under `root`).
    """
    reasons: dict[str, str] = {}
    filled = []
    measure = partial(_measure, root=os.fspath(root), illegal=config.illegal_actions, max_bytes=config.max_bytes)
    for part in parts:
        # Rejected ones are read again: that is how their reasons are told, and they may have been mended.
        before = part.table["turns"].to_numpy()
        rows = np.flatnonzero(anew | (before <= REJECTED_TURNS))
        if not len(rows):
            filled.append(part)
            continue
        turns = before.copy()
        kept = time.monotonic()
        paths = part.table["path"].take(pa.array(rows)).to_pylist()
        at = 0
        try:
            for result in map_pieces(measure, paths, desc=f"turns of {part.format}", processes=processes, bar=progress):
                for path, n, reason in result:
                    turns[rows[at]] = n
                    at += 1
                    if reason:
                        reasons[path] = reason
                if part.file is not None and time.monotonic() - kept > KEPT_EVERY:
                    written, kept = _with_turns(root, part, turns, config), time.monotonic()
                    part = part if written.file is None else written  # a disk that is full now may have room later
        finally:  # stopped half way, too: what was read is not read again
            part = _with_turns(root, part, turns, config)
        filled.append(part)
    return filled, reasons


def _with_turns(root: Path, part: FormatIndex, turns: np.ndarray, config: DataConfig) -> FormatIndex:
    """A format's index with these lengths. As it is where they are its own: other processes, on other machines perhaps,
    have it mapped."""
    if np.array_equal(turns, part.table["turns"].to_numpy()):
        return part
    with locked(folder_for(root, config.cache_dir)):
        return set_turns(part, turns)


def _measure(paths: list[str], root: str, illegal: str, max_bytes: int) -> list[tuple[str, int, str]]:
    """States of each file as a reader will see it, or 0 and the reason of its rejection."""
    # Without a vocabulary: lengths and rejections don't hang on words.
    encoder = Encoder("default", Tokenizer(()), illegal)
    found = []
    for path in paths:
        try:
            encoded = encode_file(os.path.join(root, path), encoder, max_bytes)
            found.append((path, len(encoded), ""))
        except BadBattleFile as error:
            found.append((path, REJECTED_TURNS, f"{error.field}: {error.reason}"))
    return found
