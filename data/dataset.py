"""Battles as a map-style data set over a memory-mapped Arrow index; files are read and encoded when asked for."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .data_config import DataConfig, SourceConfig
from .encode import EncodedBattle, Encoder
from .folders import DataError, EmptySplit
from .index_table import UNKNOWN_TURNS
from .observation import BLANK, ObservationSpace, space_named
from .packing import MIN_WINDOW
from .rejects import Reject, RejectLedger, TooManyRejects
from .replay_file import BadBattleFile
from .sources import SPLITS, choose_rows, cloned_rows, encode_file, open_sources
from .token_cache import CachedBattle
from .tokenizer import Tokenizer

__all__ = [
    "BattleDataset",
    "DataConfig",
    "DataReport",
    "Reject",
    "RejectLedger",
    "SourceConfig",
    "TooManyRejects",
]

log = logging.getLogger(__name__)

INSPECTED = 200


@dataclass
class DataReport:
    """What a look at the data found, for a run's start.

    Attributes:
        files: battles per format in this split.
        turns: states in all; none where lengths aren't known.
        unknown_share, blank_share: shares of all words that the vocabulary lacks, and that are `<blank>`.
        missing_share: share of decisions whose action isn't recorded.
        rejected: files left out by name or content so far.
    """

    files: dict[str, int]
    turns: int | None
    unknown_share: float
    blank_share: float
    missing_share: float
    rejected: int


class BattleDataset:
    """One side of the split of a folder of battles: `dataset[i]` is the i-th battle, encoded.

    `index` is a Hugging Face `datasets.Dataset` over memory-mapped Arrow files; `rows` are this split's rows in it.
    `lengths` is int32 [len(self)]: states per battle, 0 where it was rejected; or none where lengths aren't known.
    `cloned` is bool [len(self)]: battles whose actions the policy clones (`data.clone`).
    """

    def __init__(
        self,
        config: DataConfig,
        tokenizer: Tokenizer,
        split: str = "train",
        *,
        scan: bool = True,
        beside: BattleDataset | None = None,
    ) -> None:
        """
        Args:
            config: what to read.
            tokenizer: the vocabulary.
            split: `train`, `heldout`, or `all`.
            scan: look for folders that changed; false: take what another process of the run has just found.
            beside: another side of the same configuration, whose open sources are taken: what was recorded since then
                is on neither.

        Raises:
            DataError: nothing to read under the path; the text says what to do.
            TooManyRejects: lengths were found at the start, and too many files cannot be used.
        """
        if split not in SPLITS:
            raise DataError(f"split {split!r} is unknown; choose one of {', '.join(SPLITS)}")
        self.config = config
        self.tokenizer = tokenizer
        self.split = split
        self.ledger = RejectLedger(config.max_reject_share) if beside is None else beside.ledger.copy()
        self.sources = open_sources(config, tokenizer, self.ledger, scan) if beside is None else beside.sources
        self.index = self.sources.index
        self.rows, self.rates = choose_rows(self.sources, config, split)
        if not len(self.rows):
            raise EmptySplit(
                f"data.path {self.name}: no battle on the {split} side of {len(self.index)}; give more battles, "
                f"another data.filter, or another data.heldout_share than {config.heldout_share}"
            )
        self.cloned = cloned_rows(self.sources, config, self.rows)
        if not self.cloned.any():
            raise DataError(
                f"data.clone: {config.clone!r} holds for none of {len(self)} battles on the {split} side; give one "
                "that holds for some, or leave it empty to clone all"
            )
        turns = self._column("turns")
        self.lengths: np.ndarray | None = None if (turns == UNKNOWN_TURNS).any() else turns
        self.keys = self._column("key")
        if split == "train" and len(self.sources.parts) > 1 and (twice := len(self) - len(np.unique(self.keys))):
            log.warning(
                "data.sources: %d battles stand in more than one of them, and are drawn for each: leave one of those "
                "out, unless that is meant", twice,
            )  # fmt: skip
        self._encoder: Encoder | None = None
        self._measured: np.ndarray | None = None
        self._mean_window: float | None = None

    @property
    def name(self) -> str:
        """The sources' paths, for messages."""
        return ", ".join(os.fspath(source.root) for source in self.sources.parts)

    @property
    def space(self) -> ObservationSpace:
        """The observation space."""
        return space_named(self.config.space)

    def _column(self, name: str) -> np.ndarray:
        """A numeric column of the index for this split's rows."""
        return self.index.data.column(name).to_numpy()[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> EncodedBattle | CachedBattle:
        """The i-th battle, encoded. Raises `BadBattleFile`."""
        row = int(self.rows[i])
        source, place = self.sources.find(row)
        if source.cache is not None:
            return source.cache[place]
        path, size = self.path(i), self.index.data.column("size")[row].as_py()
        try:
            # Checked before reading: a changed file's length may not be the one that packs were planned with.
            now = os.stat(path).st_size
        except OSError as error:
            raise BadBattleFile(path, "file", f"is gone ({error.strerror})", "index the folder again") from error
        if now != size:
            raise BadBattleFile(path, "size", f"was {size} bytes when indexed and is {now}", "index with --rescan")
        if self._encoder is None:
            self._encoder = self.encoder()
        encoded = encode_file(path, self._encoder, self.config.max_bytes)
        if self.lengths is not None and len(encoded) != self.lengths[i]:
            raise BadBattleFile(
                path,
                "states",
                f"were {self.lengths[i]} when indexed and are {len(encoded)}",
                "index with --rescan --turns",
            )
        return encoded

    def __getitems__(self, places: list[int]) -> list[EncodedBattle | CachedBattle]:
        """Several battles. Raises `BadBattleFile`."""
        return [self[i] for i in places]

    def __getstate__(self) -> dict:
        # An encoder holds caches that a worker fills for itself.
        return {**self.__dict__, "_encoder": None}

    def encoder(self) -> Encoder:
        """A new encoder by this data set's rules."""
        return Encoder(self.config.space, self.tokenizer, self.config.illegal_actions)

    def path(self, i: int) -> str:
        """The i-th battle's file (where it was cached from, in a token cache)."""
        row = int(self.rows[i])
        source, _ = self.sources.find(row)
        return os.path.join(source.root, self.index.data.column("path")[row].as_py())

    def fingerprint(self) -> list[int]:
        """Equal for data sets of which the same packs are planned: their number of battles, and a sum over their keys
        and lengths."""
        lengths = b"" if self.lengths is None else self.lengths.tobytes()
        return [len(self), crc32(lengths, crc32(self.keys.tobytes()))]

    def names(self) -> int:
        """A sum over its battles' names, below 2**64: of others, as many perhaps, it is another; it does not hang on
        where they lie, nor on what is known of them."""
        return int(self.keys.sum(dtype=np.uint64))

    def info(self, i: int) -> dict:
        """The i-th battle's row of the index: path, format, battle_id, rating, players, date, won, size, turns."""
        row = int(self.rows[i])
        return {name: self.index.data.column(name)[row].as_py() for name in self.index.column_names}

    def formats(self) -> dict[str, int]:
        """Battles of each format. Counted in Arrow: as Python's texts, those of millions of battles take seconds."""
        counts = pc.value_counts(self.index.data.column("format").take(pa.array(self.rows)))
        return dict(sorted((entry["values"], entry["counts"]) for entry in counts.to_pylist()))

    def mean_window(self) -> float:
        """Mean length of a window, from all lengths or else from a sample of files, read once."""
        if self._mean_window is None:
            longest = self.config.max_turns
            if self.lengths is not None:
                lengths = self.lengths[self.lengths >= MIN_WINDOW]
            else:
                lengths = np.array([len(battle) for _, battle in self.sample(INSPECTED)])
            if not len(lengths):
                raise DataError(f"data.path {self.name}: none of its battles can be read; see `data.prepare verify`")
            windows = np.maximum(1, -(-(lengths - 1) // (longest - 1)))
            # Windows of one battle share a state at each cut.
            self._mean_window = float((lengths + windows - 1).sum() / windows.sum())
        return self._mean_window

    def teams(self, limit: int = 20_000) -> set[int] | None:
        """Hashes of the own teams of every battle; none where that would mean reading more than `limit` files (a token
        cache holds them as a column)."""
        if all(source.cache is not None for source in self.sources.parts):
            columns = [source.cache.table["team"].to_numpy() for source in self.sources.parts]
            return set(np.unique(np.concatenate(columns)[self.rows]).tolist())
        if len(self) > limit:
            return None
        found = set()
        for i in range(len(self)):
            if self.lengths is None or self.lengths[i] >= MIN_WINDOW:
                try:
                    found.add(self[i].team)
                except BadBattleFile as error:
                    self.ledger.add(0, [Reject(error.path, f"{error.field}: {error.reason}")])
        return found

    def some(self, n: int | None) -> BattleDataset:
        """A data set of the `n` of its battles with the lowest keys: of all formats and sources, as they are shared out
        in it, and the same ones whatever else is added. None, or no more than that: all of them."""
        if n is None or n >= len(self):
            return self
        places = np.sort(np.argsort(self.keys, kind="stable")[:n])
        part = copy.copy(self)
        part.rows, part.keys, part.cloned = self.rows[places], self.keys[places], self.cloned[places]
        part.rates = None if self.rates is None else self.rates[places]
        part.lengths = None if self.lengths is None else self.lengths[places]
        part._measured = part._mean_window = None
        return part

    def sample(self, n: int) -> list[tuple[int, EncodedBattle]]:
        """Up to `n` readable battles, evenly spread over the data set, with their places; others are counted."""
        places = np.unique(np.linspace(0, len(self) - 1, num=min(n, len(self))).round().astype(int))
        found: list[tuple[int, EncodedBattle]] = []
        rejects: list[Reject] = []
        for i in places.tolist():
            if self.lengths is not None and self.lengths[i] < MIN_WINDOW:
                continue
            try:
                found.append((i, self[i]))
            except BadBattleFile as error:
                rejects.append(Reject(error.path, f"{error.field}: {error.reason}"))
        self.ledger.add(0 if self.lengths is not None else len(places), rejects)
        return found

    def iter_lengths(self) -> Iterator[int]:
        """States per battle in order, 0 where it is rejected; where they aren't known, found by reading, each once."""
        if self.lengths is not None:
            yield from self.lengths.tolist()
            return
        if self._measured is None:
            self._measured = np.full(len(self), UNKNOWN_TURNS, dtype=np.int32)
        for i in range(len(self)):
            if self._measured[i] == UNKNOWN_TURNS:
                rejects = []
                try:
                    self._measured[i] = len(self[i])
                except BadBattleFile as error:
                    self._measured[i] = 0
                    rejects.append(Reject(error.path, f"{error.field}: {error.reason}"))
                self.ledger.add(1, rejects)
            yield int(self._measured[i])

    def inspect(self, n: int = INSPECTED) -> DataReport:
        """Read a sample and refuse data that cannot teach.

        Raises:
            DataError: too many unknown words, or observations that are all `<blank>`.
            TooManyRejects: too many files of the sample cannot be used.
        """
        battles = [battle for _, battle in self.sample(n)]
        if not battles:
            raise DataError(f"data.path {self.name}: none of its battles can be read; see `data.prepare verify`")
        words = sum(battle.words.size for battle in battles)
        unknown = sum(battle.n_unknown for battle in battles) / words
        blank_id = self.tokenizer.id(BLANK)
        blank = sum(int(np.count_nonzero(battle.words == blank_id)) for battle in battles) / words
        decisions = sum(len(battle) - 1 for battle in battles)
        missing = sum(int(np.count_nonzero(battle.action[:-1] < 0)) for battle in battles) / decisions
        if unknown > self.config.max_unknown_share:
            raise DataError(
                f"data: {unknown:.1%} of the words are unknown to the vocabulary, over data.max_unknown_share of "
                f"{self.config.max_unknown_share:.1%}; build one with `python -m data.prepare vocabulary --corpus`"
            )
        if blank > 0.95:
            raise DataError(f"data: {blank:.1%} of the words are {BLANK}: nothing to learn from; check the files")
        return DataReport(
            files=self.formats(),
            turns=None if self.lengths is None else int(self.lengths.sum()),
            unknown_share=unknown,
            blank_share=blank,
            missing_share=missing,
            rejected=self.ledger.rejected,
        )
