"""Battles as a map-style data set over a memory-mapped Arrow index; files are read and encoded when asked for."""

from __future__ import annotations

import logging
import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from .encode import ILLEGAL_RULES, EncodedBattle, Encoder
from .index import (
    REJECTED_TURNS,
    UNKNOWN_TURNS,
    DataError,
    FormatIndex,
    folder_for,
    locked,
    open_index,
    pair_draws,
    set_turns,
)
from .observation import BLANK, ObservationSpace, space_named
from .replay_file import MAX_BYTES, BadBattleFile, read_lean
from .reward import REWARDS
from .sampler import MIN_WINDOW
from .schema import BadBattle
from .tokenizer import Tokenizer

log = logging.getLogger(__name__)

SPLITS = ("train", "heldout", "all")
SPLIT_KEYS = ("battle", "players")
MIN_REJECTS = 2
FILL_TURNS_UP_TO = 20_000
INSPECTED = 200


@dataclass
class DataConfig:
    """What is read, and by which rules.

    Args:
        path: folder of `{format}/*.json.lz4`.
        formats: formats to take; empty: all there are.
        space: observation space.
        reward: reward kind.
        vocabulary: vocabulary file; none: the one shipped.
        max_turns: longest window, in turns.
        heldout_share: share of battles kept from training.
        split_by: what falls on one side together: both views of a `battle`, or all battles of two `players`.
        workers: loader processes per training process; 0: none, in the training process itself.
        prefetch: packs that each worker prepares ahead.
        max_reject_share: a run stops when more of the files seen are rejected (and at least two are).
        max_unknown_share: a run doesn't start with more unknown words.
        max_bytes: cap on a file's decompressed size.
        illegal_actions: `reject` a battle with an action illegal in its state, or take the action as `unrecorded`.
        cache_dir: where indexes are kept; none: `TURNWISE_CACHE` or `~/.cache/turnwise`.
        rescan: scan every folder anew.
        turns: find every battle's length at the start: `auto` (up to 20,000 files), `always` or `never`.
    """

    path: str = ""
    formats: list[str] = field(default_factory=list)
    space: str = "default"
    reward: str = "shaped"
    vocabulary: str | None = None
    max_turns: int = 128
    heldout_share: float = 0.02
    split_by: str = "battle"
    workers: int = 2
    prefetch: int = 4
    max_reject_share: float = 0.01
    max_unknown_share: float = 0.05
    max_bytes: int = MAX_BYTES
    illegal_actions: str = "reject"
    cache_dir: str | None = None
    rescan: bool = False
    turns: str = "auto"

    def __post_init__(self) -> None:
        space_named(self.space)
        checks = [
            (self.reward in REWARDS, "reward", f"one of {', '.join(REWARDS)}"),
            (self.max_turns >= MIN_WINDOW, "max_turns", f"{MIN_WINDOW} or more"),
            (0.0 <= self.heldout_share < 1.0, "heldout_share", "0 or more and below 1"),
            (self.split_by in SPLIT_KEYS, "split_by", f"one of {', '.join(SPLIT_KEYS)}"),
            (self.workers >= 0, "workers", "0 or more"),
            (self.prefetch >= 1, "prefetch", "1 or more"),
            (0.0 <= self.max_reject_share <= 1.0, "max_reject_share", "between 0 and 1"),
            (0.0 <= self.max_unknown_share <= 1.0, "max_unknown_share", "between 0 and 1"),
            (self.max_bytes > 0, "max_bytes", "above 0"),
            (self.illegal_actions in ILLEGAL_RULES, "illegal_actions", f"one of {', '.join(ILLEGAL_RULES)}"),
            (self.turns in ("auto", "always", "never"), "turns", "auto, always or never"),
        ]
        for holds, name, mend in checks:
            if not holds:
                raise DataError(f"data.{name} is {getattr(self, name)!r}; give {mend}")


class Reject(NamedTuple):
    """A file left out, with its reason."""

    path: str
    reason: str


class TooManyRejects(RuntimeError):  # noqa: N818 (it names the finding)
    """More of the files seen were rejected than the configuration allows."""


class RejectLedger:
    """Counts files seen and rejected, each file once, and stops a run past the allowed share.

    The rule: stop when at least two files and more than `max_share` of the files seen so far are rejected; one bad file
    names itself and never stops a run.
    """

    def __init__(self, max_share: float) -> None:
        self.max_share = max_share
        self.seen = 0
        self.rejects: dict[str, str] = {}

    def add(self, seen: int, rejects: list[Reject]) -> None:
        """Count files. Raises `TooManyRejects`, which tells the first reasons and what to do."""
        self.seen += seen
        new = [reject for reject in rejects if reject.path not in self.rejects]
        for reject in new:
            self.rejects[reject.path] = reject.reason
            log.warning("rejected %s: %s", reject.path, reject.reason)
        count = len(self.rejects)
        if new and count >= MIN_REJECTS and count > self.max_share * max(self.seen, count):
            shown = "\n  ".join(f"{path}: {reason}" for path, reason in list(self.rejects.items())[:5])
            raise TooManyRejects(
                f"{count} of {self.seen} files were rejected, over data.max_reject_share of {self.max_share:.2%}; look "
                f"at them with `python -m data.prepare verify`, or raise the share. The first:\n  {shown}"
            )

    def by_reason(self) -> dict[str, int]:
        """Rejected files by the field at fault."""
        return dict(Counter(reason.split(":", 1)[0].split("[", 1)[0] for reason in self.rejects.values()))


@dataclass
class DataReport:
    """What a look at the data found, for a run's start.

    Attributes:
        files: battles per format in this split.
        turns: states in all; none where lengths aren't known.
        inspected: battles read for the figures below.
        unknown_share, blank_share: shares of all words that the vocabulary lacks, and that are `<blank>`.
        missing_share: share of decisions whose action isn't recorded.
        mean_turns: of the battles read.
        rejects: files left out by name or content so far, with reasons.
    """

    files: dict[str, int]
    turns: int | None
    inspected: int
    unknown_share: float
    blank_share: float
    missing_share: float
    mean_turns: float
    rejects: dict[str, str]


class BattleDataset:
    """One side of the split of a folder of battles: `dataset[i]` is the i-th battle, encoded.

    `index` is a Hugging Face `datasets.Dataset` over memory-mapped Arrow files; `rows` are this split's rows in it.
    `lengths` is int32 [len(self)]: states per battle, 0 where it was rejected; or none where lengths aren't known.
    """

    def __init__(self, config: DataConfig, tokenizer: Tokenizer, split: str = "train") -> None:
        """
        Args:
            config: what to read.
            tokenizer: the vocabulary.
            split: `train`, `heldout`, or `all`.

        Raises:
            DataError: nothing to read under the path; the text says what to do.
            TooManyRejects: lengths were found at the start, and too many files cannot be used.
        """
        if split not in SPLITS:
            raise DataError(f"split {split!r} is unknown; choose one of {', '.join(SPLITS)}")
        self.config = config
        self.tokenizer = tokenizer
        self.split = split
        self.root = Path(config.path)
        self.ledger = RejectLedger(config.max_reject_share)
        parts = open_index(self.root, config.formats, config.cache_dir, config.rescan)
        self._note_bad_names(parts)
        total = sum(len(part.table) for part in parts)
        if config.turns == "always" or (config.turns == "auto" and total <= FILL_TURNS_UP_TO):
            parts, reasons = fill_turns(self.root, parts, config)
            self._note_lengths(parts, reasons)
        self.index = _as_dataset(parts)
        self.rows = self._split_rows()
        if not len(self.rows):
            raise DataError(
                f"data.path {self.root}: no battle on the {split} side of {total}; give more battles or another "
                f"data.heldout_share than {config.heldout_share}"
            )
        turns = self.index.data.column("turns").to_numpy()[self.rows]
        self.lengths = None if (turns == UNKNOWN_TURNS).any() else turns
        self.rates: np.ndarray | None = None
        self._encoder: Encoder | None = None

    @property
    def space(self) -> ObservationSpace:
        """The observation space."""
        return space_named(self.config.space)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> EncodedBattle:
        """The i-th battle, encoded. Raises `BadBattleFile`."""
        path, size = self.path(i), self.index.data.column("size")[int(self.rows[i])].as_py()
        try:
            # Checked before reading: a changed file's length may not be the one that packs were planned with.
            now = os.stat(path).st_size
        except OSError as error:
            raise BadBattleFile(path, "file", f"is gone ({error.strerror})", "index the folder again") from error
        if now != size:
            raise BadBattleFile(path, "size", f"was {size} bytes when indexed and is {now}", "index with --rescan")
        battle = read_lean(path, self.config.max_bytes)
        if self._encoder is None:
            self._encoder = self.encoder()
        try:
            encoded = self._encoder.encode(battle.states, battle.actions)
        except BadBattle as error:
            raise BadBattleFile(path, error.field, error.reason, error.mend) from error
        if self.lengths is not None and len(encoded) != self.lengths[i]:
            raise BadBattleFile(
                path, "states", f"were {self.lengths[i]} when indexed and are {len(encoded)}", "index with --rescan"
            )
        return encoded

    def __getitems__(self, places: list[int]) -> list[EncodedBattle]:
        """Several battles. Raises `BadBattleFile`."""
        return [self[i] for i in places]

    def __getstate__(self) -> dict:
        # An encoder holds caches that a worker fills for itself.
        return {**self.__dict__, "_encoder": None}

    def encoder(self) -> Encoder:
        """A new encoder by this data set's rules."""
        return Encoder(self.config.space, self.tokenizer, self.config.illegal_actions)

    def path(self, i: int) -> str:
        """The i-th battle's file."""
        return os.path.join(self.root, self.index.data.column("path")[int(self.rows[i])].as_py())

    def info(self, i: int) -> dict:
        """The i-th battle's row of the index: path, format, battle_id, rating, players, date, won, size, turns."""
        row = int(self.rows[i])
        return {name: self.index.data.column(name)[row].as_py() for name in self.index.column_names}

    def formats(self) -> np.ndarray:
        """Every battle's format, as a NumPy array of text [len(self)]."""
        return np.asarray(self.index.data.column("format").to_numpy()[self.rows])

    def mean_window(self) -> float:
        """Mean length of a window, from all lengths or else from a sample of files."""
        longest = self.config.max_turns
        if self.lengths is not None:
            lengths = self.lengths[self.lengths >= MIN_WINDOW]
        else:
            lengths = np.array([len(battle) for _, battle in self.sample(INSPECTED)])
        if not len(lengths):
            raise DataError(f"data.path {self.root}: none of its battles can be read; see `data.prepare verify`")
        windows = np.maximum(1, -(-(lengths - 1) // (longest - 1)))
        # Windows of one battle share a state at each cut.
        return float((lengths + windows - 1).sum() / windows.sum())

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

    def measured_lengths(self) -> np.ndarray:
        """States per battle, int32 [len(self)], found by reading every file where they aren't in the index."""
        if self.lengths is not None:
            return self.lengths
        lengths = np.zeros(len(self), dtype=np.int32)
        for i in range(len(self)):
            try:
                lengths[i] = len(self[i])
            except BadBattleFile as error:
                self.ledger.add(1, [Reject(error.path, f"{error.field}: {error.reason}")])
            else:
                self.ledger.add(1, [])
        return lengths

    def inspect(self, n: int = INSPECTED) -> DataReport:
        """Read a sample and refuse data that cannot teach.

        Raises:
            DataError: too many unknown words, or observations that are all `<blank>`.
            TooManyRejects: too many files of the sample cannot be used.
        """
        battles = [battle for _, battle in self.sample(n)]
        if not battles:
            raise DataError(f"data.path {self.root}: none of its battles can be read; see `data.prepare verify`")
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
        names, counts = np.unique(self.formats(), return_counts=True)
        return DataReport(
            files=dict(zip(names.tolist(), counts.tolist(), strict=True)),
            turns=None if self.lengths is None else int(self.lengths.sum()),
            inspected=len(battles),
            unknown_share=unknown,
            blank_share=blank,
            missing_share=missing,
            mean_turns=sum(len(battle) for battle in battles) / len(battles),
            rejects=dict(self.ledger.rejects),
        )

    def _split_rows(self) -> np.ndarray:
        table = self.index.data
        if self.config.split_by == "players":
            draws = pair_draws(table.column("player"), table.column("opponent"))
        else:
            draws = table.column("split").to_numpy()
        if self.split == "all":
            return np.arange(len(draws), dtype=np.uint32)
        heldout = draws < self.config.heldout_share * 2.0**32
        return np.flatnonzero(heldout == (self.split == "heldout")).astype(np.uint32)

    def _note_bad_names(self, parts: list[FormatIndex]) -> None:
        bad = [Reject(os.path.join(self.root, item.path), item.reason) for part in parts for item in part.bad_names]
        self.ledger.add(sum(len(part.table) for part in parts) + len(bad), bad)

    def _note_lengths(self, parts: list[FormatIndex], reasons: dict[str, str]) -> None:
        rejects = []
        for part in parts:
            for path in part.table.filter(pc.equal(part.table["turns"], REJECTED_TURNS))["path"].to_pylist():
                rejects.append(Reject(os.path.join(self.root, path), reasons.get(path, "states: cannot be read")))
        self.ledger.add(0, rejects)


def fill_turns(
    root: Path, parts: list[FormatIndex], config: DataConfig, processes: int | None = None, progress: bool = True
) -> tuple[list[FormatIndex], dict[str, str]]:
    """Read every file whose number of turns isn't known, and keep it in the index (0 where the file is rejected).

    Returns:
        the indexes, and the reason of each file rejected (by its path under `root`).
    """
    missing = [np.flatnonzero(part.table["turns"].to_numpy() <= REJECTED_TURNS) for part in parts]
    total = sum(len(rows) for rows in missing)
    reasons: dict[str, str] = {}
    if not total:
        return parts, reasons
    filled = []
    count = processes or min(os.cpu_count() or 1, 8)
    measure = partial(_measure, root=os.fspath(root), illegal=config.illegal_actions, max_bytes=config.max_bytes)
    with tqdm(total=total, unit="battles", desc="turns", disable=not progress or total < 500) as bar:
        for part, rows in zip(parts, missing, strict=True):
            if not len(rows):
                filled.append(part)
                continue
            turns = part.table["turns"].to_numpy().copy()
            paths = part.table["path"].take(pa.array(rows)).to_pylist()
            pieces = [paths[at : at + 256] for at in range(0, len(paths), 256)]
            at = 0
            for result in _run(measure, pieces, count if total > 2000 else 1):
                for path, n, reason in result:
                    turns[rows[at]] = n
                    at += 1
                    if reason:
                        reasons[path] = reason
                bar.update(len(result))
            with locked(folder_for(root, config.cache_dir)):
                filled.append(set_turns(part, turns))
    return filled, reasons


def _run(work, pieces: list[list[str]], processes: int):
    if processes <= 1 or len(pieces) <= 1:
        yield from map(work, pieces)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        yield from pool.map(work, pieces)


def _measure(paths: list[str], root: str, illegal: str, max_bytes: int) -> list[tuple[str, int, str]]:
    """States of each file as a reader will see it, or 0 and the reason of its rejection."""
    # Without a vocabulary: lengths and rejections don't hang on words.
    encoder = Encoder("default", Tokenizer(()), illegal)
    found = []
    for path in paths:
        try:
            battle = read_lean(os.path.join(root, path), max_bytes)
            found.append((path, len(encoder.encode(battle.states, battle.actions)), ""))
        except BadBattle as error:
            found.append((path, REJECTED_TURNS, f"{error.field}: {error.reason}"))
    return found


def _as_dataset(parts: list[FormatIndex]) -> datasets.Dataset:
    """The formats' tables as one data set, memory-mapped where they are kept in files."""
    pieces = []
    for part in parts:
        if not len(part.table):
            continue
        if part.file is not None:
            pieces.append(datasets.Dataset.from_file(os.fspath(part.file)))
        else:
            pieces.append(datasets.Dataset(part.table.replace_schema_metadata(None)))
    if not pieces:
        raise DataError("data.path: no battle file with a good name in the formats asked for; see the rejects above")
    return datasets.concatenate_datasets(pieces) if len(pieces) > 1 else pieces[0]
