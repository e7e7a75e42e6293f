"""Which windows of which battles stand in which pack: a pure function of (seed, epoch, lengths), and no torch.

A window is a run of states [start, start + length) of one battle, 2 ≤ length ≤ max_turns; it covers length − 1
decisions, and its last state is only bootstrapped from (or is the end). A longer battle's windows share one state at
each cut, so each decision is covered once an epoch; where the first cut falls varies by (seed, epoch, battle).

`packed` (lengths known): the windows of epoch after epoch, each in its permuted order, are packed into rows of N turns
with a look-ahead pool: the oldest window first, and near the end of a pack the longest that still fits. Packs form one
endless stream; the pool runs over the end of an epoch, so no pack is left half empty there.
`battles` (lengths unknown): micro-batch k is the files at places [k·battles, (k + 1)·battles) of the permutations laid
end to end, one drawn window each. In that order each window that no longer fits the pack's rows is dropped, counted.

Micro-batch m of step s on rank r of W, with A micro-batches a step, is pack s·W·A + m·W + r of those that are left of
the stream. What was drawn from it before, by another W with packs of another size perhaps, is told by `Drawn`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import NamedTuple

import numpy as np

from .packing import MIN_WINDOW, PackShape, Piece, Window, fill, fits

POOL = 256
PLANS = ("packed", "battles", "auto")
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass
class BatchConfig:
    """What a step holds.

    Args:
        battles: battles per GPU and micro-step, on average; the unit of every throughput figure.
        turns: turns (rows) of a pack; none: `battles` × the mean window's length, rounded up to a multiple of 128.
        accumulate: micro-steps per optimizer step.
        plan: `packed`, `battles`, or `auto`: packed where the battles' lengths are known.
        segments: most segments of a pack (windows, and the pieces of its padding); none: sized from `battles`.
    """

    battles: int = 128
    turns: int | None = None
    accumulate: int = 1
    plan: str = "auto"
    segments: int | None = None

    def __post_init__(self) -> None:
        for name in ("battles", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"batch.{name} is {getattr(self, name)}; give 1 or more")
        for name in ("turns", "segments"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"batch.{name} is {getattr(self, name)}; give 1 or more, or null")
        if self.plan not in PLANS:
            raise ValueError(f"batch.plan is {self.plan!r}; choose one of {', '.join(PLANS)}")


class Drawn(NamedTuple):
    """Packs taken from the stream by all processes together: how many, and their size (`battles`: files of each, where
    lengths aren't known)."""

    packs: int
    turns: int
    segments: int
    battles: int


def mix(*values: int | np.ndarray) -> np.ndarray:
    """Uniform uint64 from integers: splitmix64's finalizer over their running sum. The same on every platform."""
    state = np.uint64(0)
    with np.errstate(over="ignore"):
        for value in values:
            state = np.asarray(value).astype(np.uint64) + np.uint64(_GOLDEN) * (state + np.uint64(1))
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state = state ^ (state >> np.uint64(31))
    return np.asarray(state)


def permutation(seed: int, epoch: int, keys: np.ndarray, starts: np.ndarray | int = 0) -> np.ndarray:
    """Order of an epoch's windows, int64 [n]: by a hash of seed, epoch, battle key and start, whatever NumPy's own
    generators do. It doesn't hang on where a battle lies among the others."""
    return np.argsort(mix(seed, epoch, 1, keys, starts), kind="stable")


def pack_shape(batch: BatchConfig, max_turns: int, mean_length: float) -> PackShape:
    """Sizes of a run's packs.

    Args:
        batch: the configuration.
        max_turns: longest window.
        mean_length: mean length of a window, in turns.

    Raises:
        ValueError: a pack that doesn't hold one longest window, or too few segments for its rows.
    """
    turns = batch.turns or -(-int(np.ceil(batch.battles * mean_length)) // 128) * 128
    turns = max(turns, max_turns) if batch.turns is None else turns
    if turns < max_turns:
        raise ValueError(f"batch.turns is {turns}, below data.max_turns of {max_turns}; a window would not fit")
    least = -(-turns // max_turns)
    segments = batch.segments or 2 * max(batch.battles, least) + least
    if segments < least + 1:
        raise ValueError(f"batch.segments is {segments}; {turns} rows need {least + 1} or more")
    return PackShape(turns, segments, max_turns)


def first_cut(seed: int, epoch: int, keys: np.ndarray, max_turns: int) -> np.ndarray:
    """Decisions of each battle's first window, 1 … max_turns − 1, were it cut in this epoch."""
    return (mix(seed, epoch, 2, keys) % np.uint64(max_turns - 1)).astype(np.int64) + 1


def cut_windows(
    battles: np.ndarray, lengths: np.ndarray, max_turns: int, cuts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every window of the given battles.

    Args:
        battles: int64 [n], any ids.
        lengths: int [n], states of each (2 or more).
        max_turns: longest window, 2 or more.
        cuts: int64 [n], decisions of the first window where a battle is longer than max_turns.

    Returns:
        battle, start and length per window, int64 each, battle by battle and in order within each.
    """
    decisions = lengths.astype(np.int64) - 1
    step = max_turns - 1
    first = np.where(decisions <= step, decisions, np.minimum(cuts, decisions))
    counts = 1 + -(-(decisions - first) // step)
    owner = np.repeat(np.arange(len(battles)), counts)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = np.where(place == 0, 0, first[owner] + (place - 1) * step)
    stop = np.minimum(first[owner] + place * step, decisions[owner])
    return np.asarray(battles)[owner], start, stop - start + 1


def drawn_window(length: int, max_turns: int, cut: int, draw: float) -> tuple[int, int]:
    """Start and length of the one window drawn of a battle read without its length known; `draw` in [0, 1)."""
    decisions, step = length - 1, max_turns - 1
    if decisions <= step:
        return 0, length
    first = min(cut, decisions)
    chosen = int(draw * (1 + -(-(decisions - first) // step)))
    start = first + (chosen - 1) * step if chosen else 0
    return start, min(first + chosen * step, decisions) - start + 1


class Plan:
    """An endless stream of packs for one data set; each rank cuts its own out of it."""

    def __init__(
        self,
        shape: PackShape,
        *,
        seed: int,
        n: int,
        keys: np.ndarray | None = None,
        lengths: np.ndarray | None = None,
        rates: np.ndarray | None = None,
        battles: int = 64,
    ) -> None:
        """
        Args:
            shape: sizes of a pack.
            seed: of every order and cut.
            n: battles of the data set.
            keys: uint64 [n], a name per battle that its draws hang on; none: its place.
            lengths: int [n], states per battle (0: rejected, left out); none: not known.
            rates: float [n] in [0, 1], how often each battle is drawn, in times per epoch; none: once each.
            battles: files of a micro-batch where lengths aren't known.

        Raises:
            ValueError: nothing to draw from.
        """
        self.shape = shape
        self.seed = seed
        self.battles = battles
        self._keys = np.arange(n, dtype=np.uint64) if keys is None else np.asarray(keys)
        self._lengths = None if lengths is None else np.asarray(lengths)
        self._rates = rates
        usable = np.ones(n, dtype=bool) if lengths is None else self._lengths >= MIN_WINDOW
        if rates is not None:
            usable &= np.asarray(rates) > 0
        if not usable.any():
            raise ValueError("data: no battle is left to draw from; look at the filters and at what was rejected")
        self._usable = np.flatnonzero(usable)

    @property
    def planned(self) -> bool:
        """Whether lengths are known."""
        return self._lengths is not None

    def members(self, epoch: int) -> np.ndarray:
        """Battles drawn in an epoch, without replacement, in data set order. A battle of rate p is in a share p of the
        epochs, evenly spread."""
        if self._rates is None:
            return self._usable
        rates = np.asarray(self._rates, dtype=np.float64)[self._usable]
        phase = mix(self.seed, 3, self._keys[self._usable]).astype(np.float64) / 2.0**64
        drawn = np.floor(phase + (epoch + 1) * rates) - np.floor(phase + epoch * rates)
        return self._usable[drawn >= 1]

    def epoch_windows(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The windows of an epoch (battle, start, length), in their permuted order. Lengths must be known."""
        members = self.members(epoch)
        cuts = first_cut(self.seed, epoch, self._keys[members], self.shape.max_turns)
        battle, start, length = cut_windows(members, self._lengths[members], self.shape.max_turns, cuts)
        order = permutation(self.seed, epoch, self._keys[battle], start)
        # int32: an epoch of millions of windows stays in memory while it lasts.
        return tuple(part[order].astype(np.int32) for part in (battle, start, length))

    def packs(self, past: Sequence[Drawn] = ()) -> Iterator[list[Window]]:
        """Every pack after those of `past`: windows that it took are not taken again, and none of the others is left
        out, whatever size its packs had."""
        return self.for_rank(0, 1, past)

    def for_rank(self, rank: int, world: int, past: Sequence[Drawn] = ()) -> Iterator[list[Window]]:
        """The packs of one rank after those of `past`: step by step, micro-batch by micro-batch."""
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world} processes: give 0 … {world - 1}")
        if self._lengths is None:
            return islice(self._unplanned(sum(drawn.packs * drawn.battles for drawn in past)), rank, None, world)
        # A pool far smaller than an epoch: at the end of one, few windows of the next are let in before its last.
        pool = min(POOL, max(16, len(self._usable) // 4))
        before = (repeat(self.shape._replace(turns=d.turns, segments=d.segments), d.packs) for d in past)
        shapes = chain(*before, repeat(self.shape))
        first = sum(drawn.packs for drawn in past) + rank
        return fill(self._stream(), shapes, pool, first, world)

    def _stream(self) -> Iterator[Piece]:
        epoch = 0
        while True:
            windows = self.epoch_windows(epoch)
            # In pieces: the lists of millions of windows would stay in memory for the whole epoch.
            for at in range(0, len(windows[0]), 8192):
                yield Piece(*(part[at : at + 8192].tolist() for part in windows), epoch)
            epoch += 1

    def _unplanned(self, skip: int) -> Iterator[list[Window]]:
        epoch = 0
        pack: list[Window] = []
        while True:
            members = self.members(epoch)
            if skip >= len(members):
                skip -= len(members)
                epoch += 1
                continue
            order = members[permutation(self.seed, epoch, self._keys[members])][skip:]
            skip = 0
            for at in range(0, len(order), 8192):
                piece = order[at : at + 8192]
                draws = mix(self.seed, epoch, 4, self._keys[piece]).astype(np.float64) / 2.0**64
                cuts = first_cut(self.seed, epoch, self._keys[piece], self.shape.max_turns)
                for battle, cut, draw in zip(piece.tolist(), cuts.tolist(), draws.tolist(), strict=True):
                    # `start` carries the first cut until the battle is read and its window drawn.
                    pack.append(Window(battle, cut, 0, epoch, min(draw, 1.0 - 2.0**-53)))
                    if len(pack) == self.battles:
                        yield pack
                        pack = []
            epoch += 1


def heldout_plan(lengths: Iterable[int], shape: PackShape) -> Iterator[list[Window]]:
    """Every window of every battle once, in order, cuts at offset 0, packed as they come.

    Args:
        lengths: states per battle (below 2: left out), taken one by one: they may be found by reading.
        shape: sizes of a pack.
    """
    pack: list[Window] = []
    room = shape.turns
    step = shape.max_turns - 1
    for battle, n in enumerate(lengths):
        for start in range(0, n - 1, step):
            length = min(step, n - 1 - start) + 1
            if pack and not fits(length, room, len(pack), shape):
                yield pack
                pack, room = [], shape.turns
            pack.append(Window(battle, start, length, 0))
            room -= length
    if pack:
        yield pack
