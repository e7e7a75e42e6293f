"""The token cache: encoded battles in Arrow shards, read by offset, decoded to the raw path's very arrays.

A shard is an Arrow stream with one row per battle (`datasets.load_dataset("arrow", data_files=…)` opens it): the
index's columns, `outcome`, `team`, and per turn `words` (uint16 ids), `codes` (uint8), `hp` (float32), `action` (int8),
`legal` (uint16: bits 0–12 the legal set, bit 15 a forced switch) and every kind of reward (float32, the last 0).

Numbers lie on grids, but for hp and for slots of one's own, which are kept as they are: a code is a place in its slot's
table of float32 values (`Codes.tables`), the same for every cache of a version. A value that is on no table (a level of
300, say) is kept beside as (turn, slot, float32).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from .cache_manifest import read_manifest
from .folders import ENDINGS, DataError
from .index_table import SCHEMA
from .observation import EMPTY_NUMBER, ObservationSpace, space_named
from .reward import REWARDS, digests
from .schema import N_ACTIONS
from .space_stamps import space_digest
from .tokenizer import UNKNOWN_ID, Tokenizer

VOCABULARY = "vocabulary.json"
ILLEGAL = " is illegal in its state"  # in the encoder's reason to reject a battle, by one of its two rules
INDEX = "index.bin"
FORCED_BIT = 15
EMPTY_CODE = 255
# `reward.digests` of the caches that do not say theirs, which are older than that stamp.
UNSTAMPED = {"shaped": "68d8f1d12843", "aggressive": "5b4636e06939", "binary": "560ef5154f46"}
WON, LOST = 1, 0
NO_RESULT = -1

# What the cache's own index adds to an index's columns.
PLACES = (
    ("team", pa.uint64()),
    ("shard", pa.int32()),
    ("batch", pa.int32()),
    ("row", pa.int32()),
)
INDEX_SCHEMA = pa.schema([*SCHEMA, *PLACES])

_BITS = 1 << np.arange(N_ACTIONS, dtype=np.uint16)
_LEGAL = ((np.arange(1 << N_ACTIONS)[:, None] & _BITS) != 0).astype(bool)
_GRIDS = {
    # By a slot's name: (smallest raw value, number of values); see `_grid`.
    "opponents_remaining": (0, 7),
    "lvl": (0, 255),
    "accuracy": (0, 101),
    "priority": (-20, 41),
    "pp": (0, 4),
    "any_slept": (0, 2),
    "any_frozen": (0, 2),
    "can_tera": (0, 2),
}
_RAW_DIVISORS = {"base_power": 200.0, "accuracy": 100.0, "priority": 5.0}


class Codes:
    """How a space's numbers are kept: which slots are codes, which are float32, and each code slot's table.

    Attributes:
        slots: int [C], slots kept as codes; `hp` int [H], slots kept as float32: hp, and what has no grid.
        tables: float32 [C, 256], value per code.
    """

    def __init__(self, space: ObservationSpace) -> None:
        names = [slot.name for slot in space.number_slots]
        self.n = len(names)
        self.hp = np.array([i for i, name in enumerate(names) if _grid(name) is None])
        self.slots = np.array([i for i, name in enumerate(names) if _grid(name) is not None])
        self._low = np.zeros(len(self.slots))
        self._divisor = np.zeros(len(self.slots))
        self._count = np.zeros(len(self.slots))
        self.tables = np.zeros((len(self.slots), 256), dtype=np.float32)
        for place, slot in enumerate(self.slots):
            number = space.number_slots[slot]
            low, count = _grid(number.name)
            divisor = _RAW_DIVISORS.get(number.name, number.divisor)
            self._low[place], self._divisor[place], self._count[place] = low, divisor, count
            self.tables[place, :count] = ((low + np.arange(count)) / divisor).astype(np.float32)
            self.tables[place, EMPTY_CODE] = EMPTY_NUMBER
        self._flat = self.tables.ravel()
        self._base = (np.arange(len(self.slots)) * 256).astype(np.int32)

    def pack(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Numbers float32 [n, F] → codes uint8 [n, C], hp float32 [n, H], and what is on no table."""
        values = numbers[:, self.slots]
        raw = np.rint(values.astype(np.float64) * self._divisor - self._low)
        raw = np.where((raw >= 0) & (raw < self._count), raw, EMPTY_CODE).astype(np.uint8)
        decoded = self._flat[raw + self._base]
        turn, place = np.nonzero(decoded.view(np.uint32) != np.ascontiguousarray(values).view(np.uint32))
        return raw, numbers[:, self.hp], (turn, self.slots[place], values[turn, place])

    def unpack(self, codes: np.ndarray, hp: np.ndarray, out: np.ndarray) -> None:
        """Write codes and hp as numbers float32 [n, F] into `out`."""
        out[:, self.slots] = self._flat.take(codes + self._base)
        out[:, self.hp] = hp


def _grid(name: str) -> tuple[int, int] | None:
    """Smallest raw value and number of values of the slots of this name; None: any value, kept as float32."""
    if name.endswith("_boost"):
        return -6, 13
    if name.startswith("base_"):
        return 0, 255
    return _GRIDS.get(name)


@functools.cache
def codes_of(space: str) -> Codes:
    """The number codes of a space, by its name."""
    return Codes(space_named(space))


def legal_bits(legal: np.ndarray, forced: np.ndarray) -> np.ndarray:
    """Legal sets bool [n, 13] and forced bool [n] as uint16 [n]."""
    return (legal @ _BITS + (forced.astype(np.uint16) << FORCED_BIT)).astype(np.uint16)


@dataclass
class _Batch:
    """One record batch's columns, as flat views by turn (no copies)."""

    offsets: np.ndarray
    words: np.ndarray
    codes: np.ndarray
    hp: np.ndarray
    action: np.ndarray
    legal: np.ndarray
    rewards: dict[str, np.ndarray]
    outcome: np.ndarray
    team: np.ndarray
    exact: tuple[pa.Array, pa.Array, pa.Array]
    file: str
    vocabulary: int


class CachedBattle:
    """A battle in a cache; looks like an `EncodedBattle` to whoever lays windows out. Views, not copies."""

    def __init__(self, batch: _Batch, row: int, codes: Codes) -> None:
        start, stop = int(batch.offsets[row]), int(batch.offsets[row + 1])
        self._batch = batch
        self._codes = codes
        self._row = row
        self._start = start
        self._n = stop - start
        outcome = batch.outcome[row]
        self.won = bool(outcome == WON)
        self.lost = bool(outcome == LOST)
        self.action = batch.action[start:stop]

    def __len__(self) -> int:
        return self._n

    @property
    def words(self) -> np.ndarray:
        """Token ids, uint16 [n, S], a view."""
        return self._batch.words[self._start : self._start + self._n]

    @property
    def forced(self) -> np.ndarray:
        """Forced switches, bool [n]."""
        return self._batch.legal[self._start : self._start + self._n] >> FORCED_BIT != 0

    @property
    def n_unknown(self) -> int:
        """Words that the vocabulary lacks."""
        return int(np.count_nonzero(self.words == UNKNOWN_ID))

    @property
    def team(self) -> int:
        """Hash of the own team."""
        return int(self._batch.team[self._row])

    def reward(self, kind: str) -> np.ndarray:
        """Unscaled rewards float32 [n − 1] of a kind."""
        return self._batch.rewards[kind][self._start : self._start + self._n - 1]

    def fill(
        self, start: int, stop: int, words: np.ndarray, numbers: np.ndarray, legal: np.ndarray, forced: np.ndarray
    ) -> None:
        """Write states [start, stop) into the given rows. Raises `DataError` where a word is none of the vocabulary."""
        batch, rows = self._batch, slice(self._start + start, self._start + stop)
        found = batch.words[rows]
        if found.size and int(found.max()) >= batch.vocabulary:
            raise DataError(f"{batch.file}: is spoilt, a word is {int(found.max())}; make the cache again")
        words[:] = found
        self._codes.unpack(batch.codes[rows], batch.hp[rows], numbers)
        bits = batch.legal[rows]
        legal[:] = _LEGAL.take(bits & (1 << N_ACTIONS) - 1, axis=0)
        forced[:] = bits >> FORCED_BIT
        turns, slots, values = batch.exact
        if turns is not None and len(turns[self._row]):
            at = np.array(turns[self._row].as_py()) - start
            inside = (at >= 0) & (at < stop - start)
            slot, value = np.array(slots[self._row].as_py()), np.array(values[self._row].as_py(), dtype=np.float32)
            numbers[at[inside], slot[inside]] = value[inside]


class TokenCache:
    """A token cache, open for reading: its manifest, its index, and its battles by place.

    Attributes:
        path: its folder.
        manifest: what `prepare cache` wrote about it.
        table: one row per battle, in the order of format and path.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            DataError: no cache, an unfinished one, or one of another version.
        """
        self.path = Path(path)
        self.manifest = read_manifest(self.path)
        try:
            with pa.memory_map(str(self.path / INDEX), "rb") as source:
                self.table = pa.ipc.open_stream(source).read_all()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{self.path / INDEX}: cannot be read ({error}); make the cache again") from error
        if len(self.table) != self.manifest["battles"]:  # of two moments, as a copy that was stopped leaves them
            raise DataError(
                f"{self.path / INDEX}: holds {len(self.table)} battles, its manifest says {self.manifest['battles']}; "
                "copy the whole cache, or make it again"
            )
        self._codes = codes_of(self.manifest["space"])
        self._places = [self.table[name].to_numpy() for name in ("shard", "batch", "row")]
        self._shards: dict[int, list[_Batch]] = {}
        self._words = len(Tokenizer.load(self.path / VOCABULARY))

    def __len__(self) -> int:
        return len(self.table)

    def __getstate__(self) -> dict:
        return {"path": self.path}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["path"])

    def __getitem__(self, i: int) -> CachedBattle:
        """The i-th battle. Raises `DataError` where its shard is gone or spoilt."""
        shard, batch, row = (int(column[i]) for column in self._places)
        batches = self._shards.get(shard)
        if batches is None:
            batches = self._shards[shard] = self._open(shard)
        return CachedBattle(batches[batch], row, self._codes)

    def check(self, space: str, tokenizer: Tokenizer, reward: str, illegal: str = "reject") -> None:
        """Compare the cache with a run's space, vocabulary, reward kind and rule for illegal actions. Raises
        `DataError`: which differs."""
        if self.manifest["space"] != space:
            raise DataError(
                f"{self.path}: holds observations of space {self.manifest['space']!r}, data.space is {space!r}; make a "
                "cache of that space"
            )
        if self.manifest.get("space_digest") not in (None, space_digest(space_named(space))):
            raise DataError(
                f"{self.path}: observation space {space!r} had other slots or formulas when it was made; make a cache "
                "in a new folder"
            )
        if self.manifest["vocabulary"] != tokenizer.hash:
            raise DataError(
                f"{self.path}: was made with vocabulary {self.manifest['vocabulary'][:12]}, this run's is "
                f"{tokenizer.hash[:12]}; set data.vocabulary to {self.path / VOCABULARY} for a new model; for "
                "one that brings words of its own make a cache in a new folder with --vocabulary and its "
                "vocabulary.json (of fine-tuning OUTPUT's)"
            )
        if self.manifest.get("rewards", UNSTAMPED).get(reward) != digests()[reward]:
            raise DataError(
                f"{self.path}: reward {reward!r} had another formula, or none, when it was made; make a cache in a new "
                "folder"
            )
        if illegal == "reject" and (taken := self.manifest.get("illegal_actions", 0)):
            raise DataError(
                f"{self.path}: holds battles with {taken} illegal actions, and data.illegal_actions is 'reject'; set "
                "it to unrecorded, or make a cache in a new folder without --illegal-actions"
            )
        rejects = self.manifest["rejects"]
        if illegal == "unrecorded" and rejects.get("illegal", sum(ILLEGAL in reason for _, reason in rejects["files"])):
            raise DataError(
                f"{self.path}: lacks battles for their illegal actions, and data.illegal_actions is 'unrecorded'; make "
                "a cache in a new folder with --illegal-actions unrecorded"
            )

    def check_formats(self, wanted: Sequence[str]) -> None:
        """Raises `DataError` where the cache lacks one of the formats."""
        there = self.manifest["formats"]
        if missing := [name for name in wanted if name not in there]:
            raise DataError(f"formats: {', '.join(missing)} not in the cache {self.path}; there are {', '.join(there)}")

    def counts(self, wanted: Sequence[str]) -> tuple[int, int, list[tuple[str, str]]]:
        """Of the formats wanted (none named: all): battles, files that were not taken, and the first of those with
        their reasons. A manifest that does not tell whose those were gives all of them."""
        manifest, rejects = self.manifest, self.manifest["rejects"]
        if not wanted or "by_format" not in rejects:
            return len(self), rejects["count"], rejects["files"]
        # As a folder's files are named, or an archive's members.
        begin = tuple(f"{name}{mark}" for name in wanted for mark in ("/", *(f"{ending}:" for ending in ENDINGS)))
        return (
            sum(manifest["formats"][name] for name in set(wanted)),
            sum(rejects["by_format"].get(name, 0) for name in set(wanted)),
            [(path, reason) for path, reason in rejects["files"] if path.startswith(begin)],
        )

    def _open(self, shard: int) -> list[_Batch]:
        facts = self.manifest["shards"][shard]
        file = self.path / facts["file"]
        try:
            if (size := file.stat().st_size) != facts["bytes"]:
                raise DataError(
                    f"{file}: has {size} bytes, its manifest says {facts['bytes']}; make the cache again, or start "
                    "again where that was done since this run began"
                )
            with pa.memory_map(str(file), "rb") as source:
                reader = pa.ipc.open_stream(source)
                batches = [_views(batch, self._codes, str(file), self._words) for batch in reader]
        except (OSError, pa.ArrowException, KeyError) as error:
            raise DataError(f"{file}: cannot be read ({error}); make the cache again") from error
        # Arrow takes zeros, which a copy that was stopped may leave at a file's end, for the end of the stream.
        if (held := sum(len(batch.outcome) for batch in batches)) != facts["battles"]:
            raise DataError(
                f"{file}: holds {held} battles, its manifest says {facts['battles']}; copy the whole cache, or make it "
                "again"
            )
        return batches


def _views(batch: pa.RecordBatch, codes: Codes, file: str, vocabulary: int) -> _Batch:
    def flat(name: str) -> np.ndarray:
        inner = batch.column(name).values
        width = 1
        if pa.types.is_fixed_size_list(inner.type):
            width, inner = inner.type.list_size, inner.values
        array = inner.to_numpy(zero_copy_only=True)
        return array.reshape(-1, width) if width > 1 else array

    exact = tuple(batch.column(f"exact_{part}") for part in ("turn", "slot", "value"))
    if not len(exact[0].values):
        exact = (None, None, None)
    return _Batch(
        offsets=batch.column("words").offsets.to_numpy(zero_copy_only=True),
        words=flat("words"),
        codes=flat("codes"),
        hp=flat("hp"),
        action=flat("action"),
        legal=flat("legal"),
        rewards={kind: flat(f"reward_{kind}") for kind in REWARDS if f"reward_{kind}" in batch.schema.names},
        outcome=batch.column("outcome").to_numpy(),
        team=batch.column("team").to_numpy(),
        exact=exact,
        file=file,
        vocabulary=vocabulary,
    )
