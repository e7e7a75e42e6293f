"""Windows of unlike lengths, in their order, into packs of a fixed size: how a plan fills each to the brim."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from itertools import accumulate, compress, islice
from typing import NamedTuple

MIN_WINDOW = 2
KEPT = 65_536  # windows taken already that are kept before they are forgotten


class PackShape(NamedTuple):
    """The fixed sizes of every pack of a run."""

    turns: int  # N
    segments: int  # R
    max_turns: int  # M, the longest segment


class Window(NamedTuple):
    """States [start, start + length) of the battle at place `battle` of the data set; length 0: not known yet.

    `draw` in [0, 1) then chooses the window, once the battle is read.
    """

    battle: int
    start: int
    length: int
    epoch: int
    draw: float = 0.0


def fits(length: int, room: int, count: int, shape: PackShape) -> bool:
    """Whether a window can be added: rows are left, and segments for it and for the padding behind it."""
    return length <= room and count + 1 + -(-(room - length) // shape.max_turns) <= shape.segments


class Piece(NamedTuple):
    """Some thousands of an epoch's windows, in their order."""

    battles: list[int]
    starts: list[int]
    lengths: list[int]
    epoch: int


def fill(
    pieces: Iterator[Piece], shapes: Iterable[PackShape], pool: int, first: int = 0, every: int = 1
) -> Iterator[list[Window]]:
    """Pack an endless stream of windows into packs of the given sizes, one after the other.

    A pack begins with the oldest windows of the next `pool`, so none waits longer than that is deep; where little room
    is left, the longest that fits follows. Every process plans the packs of all and needs its own, those numbered
    `first`, `first + every`, …: the others are not made, but for what they take.
    """
    waiting = _Pool(pieces, pool)
    for number, shape in enumerate(shapes):
        tickets = waiting.take(shape)
        if number >= first and (number - first) % every == 0:
            yield [waiting.window(ticket) for ticket in tickets]
        waiting.forget()


class _Pool:
    """The windows that wait, a ticket each, which is their place in the lists: `oldest`, before which none is left, and
    those behind it up to `end`. Some of them are taken."""

    def __init__(self, pieces: Iterator[Piece], size: int):
        self.pieces = pieces
        self.battles: list[int] = []
        self.starts: list[int] = []
        self.lengths: list[int] = []
        self.epochs: list[int] = []
        self.free = bytearray()  # 1: not taken
        self.oldest, self.end = 0, size

    def window(self, ticket: int) -> Window:
        return Window(self.battles[ticket], self.starts[ticket], self.lengths[ticket], self.epochs[ticket])

    def take(self, shape: PackShape) -> list[int]:
        """The tickets of one pack. For each that is taken another window joins those that wait."""
        tickets, room, full = self._take_oldest(shape)
        self.end += len(tickets)
        waiting = sorted(compress(self.lengths[self.oldest : self.end], self.free[self.oldest : self.end]))
        while room >= MIN_WINDOW and not full:
            longest = bisect_right(waiting, room) - 1  # that finds room
            full = longest < 0 or not fits(waiting[longest], room, len(tickets), shape)
            if not full:
                length = waiting.pop(longest)
                tickets.append(self._oldest_of(length))
                room -= length
                self.end += 1
                insort(waiting, self.lengths[self.end - 1])
        return tickets

    def _take_oldest(self, shape: PackShape) -> tuple[list[int], int, bool]:
        """What a pack begins with, one window in any case, as long as two of the longest find room; the room that is
        left; whether segments are too few for another (of a pack that an earlier run drew, by other windows, for any).
        """
        here, end = self.oldest, self.end + shape.segments
        self._fetch(end)  # all that this pack may take, more than wait perhaps, and all that will wait after it
        free = self.free[here:end]
        turns = list(accumulate(compress(self.lengths[here:end], free)))
        count = 1 + bisect_right(turns, shape.turns - 2 * shape.max_turns)
        # Each window takes a segment, and no more than one from the padding: where one fits, those before it do.
        few = bisect_left(range(count), True, key=lambda n: not fits(0, shape.turns - turns[n], n, shape))
        tickets = list(islice(compress(range(here, end), free), few))
        if not tickets:
            return [], shape.turns, True
        self.oldest = tickets[-1] + 1
        self.free[here : self.oldest] = bytes(self.oldest - here)
        return tickets, shape.turns - turns[few - 1], few < count

    def _oldest_of(self, length: int) -> int:
        ticket = self.lengths.index(length, self.oldest)
        while not self.free[ticket]:
            ticket = self.lengths.index(length, ticket + 1)
        self.free[ticket] = 0
        return ticket

    def _fetch(self, end: int) -> None:
        while len(self.lengths) < end:
            piece = next(self.pieces)
            self.battles += piece.battles
            self.starts += piece.starts
            self.lengths += piece.lengths
            self.epochs += [piece.epoch] * len(piece.lengths)
            self.free += b"\1" * len(piece.lengths)

    def forget(self) -> None:
        """Let go of windows that were taken, now and then: an epoch may have millions."""
        gone = self.oldest
        if gone < KEPT:
            return
        for column in (self.battles, self.starts, self.lengths, self.epochs, self.free):
            del column[:gone]
        self.oldest, self.end = 0, self.end - gone
