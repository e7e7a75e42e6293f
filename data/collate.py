"""Windows of battles → one pack of CPU tensors with fixed shapes. The first place in `data/` where torch appears.

Arrays are filled in NumPy and handed over without a copy. All of a pack lies in one buffer: a worker process hands over
one piece of shared memory, not eighteen (each costs the training process a third of a millisecond), and one is pinned.
N rows, S words, F numbers, R segments:

| key | dtype, shape | meaning |
| --- | --- | --- |
| words | int32 [N, S] | token ids; the padding id on padding rows |
| numbers | float32 [N, F] | 0 on padding rows |
| prev_action | int64 [N] | action taken at the state before (0 where not known) |
| prev_action_known | bool [N] | false at a battle's first turn, where unrevealed, on padding |
| prev_reward | float32 [N] | unscaled reward of the transition into this state (0 at a battle's first turn) |
| legal | bool [N, 13] | from the state alone |
| forced | bool [N] | a switch is forced |
| action | int64 [N] | 0 where not known |
| action_known | bool [N] | recorded, and a decision of this window |
| decision | bool [N] | the window holds this state and its successor (row i + 1) |
| reward | float32 [N] | of the transition i → i + 1, unscaled; 0 where no decision |
| cloned | bool [N] | the policy clones this battle (`data.clone`); false on padding |
| done | bool [N] | decision whose successor ends the battle with a result |
| outcome | int8 [N] | 1 won, 0 lost, −1 no result or padding |
| valid | bool [N] | a real turn |
| position | int32 [N] | turn number inside the window, from 0 |
| segment | int32 [N] | segment number in this pack |
| cu_seqlens | int32 [R + 1] | offsets of the segments; padding in pieces of at most max_turns; then N repeated |
| windows | int64 [R, 3] | place in the data set, start, length per window; −1 where none |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from .dataset import BattleDataset, Reject
from .encode import EncodedBattle
from .observation import ObservationSpace
from .packing import PackShape, Window
from .replay_file import BadBattleFile
from .sampler import drawn_window
from .schema import N_ACTIONS
from .token_cache import CachedBattle
from .tokenizer import PAD_ID

Pack = dict[str, torch.Tensor]
ALIGNMENT = 64  # bytes: each array starts on a cache line of its own


class PackReport(NamedTuple):
    """What happened while a pack was made."""

    seen: int  # files read
    rejects: list[Reject]
    dropped_windows: int  # windows that no longer fitted
    dropped_turns: int


class PackLayout:
    """Where each array of a pack lies in its buffer; the same for every pack of a run.

    Attributes:
        nbytes: size of the buffer.
    """

    def __init__(self, shape: PackShape, space: ObservationSpace) -> None:
        n, r = shape.turns, shape.segments
        sizes: dict[str, tuple[type, tuple[int, ...]]] = {
            "words": (np.int32, (n, space.n_words)),
            "numbers": (np.float32, (n, space.n_numbers)),
            "prev_action": (np.int64, (n,)),
            "prev_action_known": (np.bool_, (n,)),
            "prev_reward": (np.float32, (n,)),
            "legal": (np.bool_, (n, N_ACTIONS)),
            "forced": (np.bool_, (n,)),
            "action": (np.int64, (n,)),
            "action_known": (np.bool_, (n,)),
            "decision": (np.bool_, (n,)),
            "reward": (np.float32, (n,)),
            "cloned": (np.bool_, (n,)),
            "done": (np.bool_, (n,)),
            "outcome": (np.int8, (n,)),
            "valid": (np.bool_, (n,)),
            "position": (np.int32, (n,)),
            "segment": (np.int32, (n,)),
            "cu_seqlens": (np.int32, (r + 1,)),
            "windows": (np.int64, (r, 3)),
        }
        self._fields = []
        end = 0
        for name, (dtype, dims) in sizes.items():
            stop = end + int(np.prod(dims)) * np.dtype(dtype).itemsize
            self._fields.append((name, dtype, dims, slice(end, stop)))
            end = -(-stop // ALIGNMENT) * ALIGNMENT
        self.nbytes = end

    def arrays(self, buffer: np.ndarray) -> dict[str, np.ndarray]:
        """Views of a uint8 buffer of `nbytes`."""
        return {name: buffer[place].view(dtype).reshape(dims) for name, dtype, dims, place in self._fields}

    def tensors(self, buffer: torch.Tensor) -> Pack:
        """The same views as tensors."""
        return {
            name: buffer[place].view(torch.from_numpy(np.empty(0, dtype)).dtype).view(dims)
            for name, dtype, dims, place in self._fields
        }


def build_pack(dataset: BattleDataset, windows: Sequence[Window], shape: PackShape) -> tuple[Pack, PackReport]:
    """Read the windows' battles and lay them end to end; see `fill_buffer`."""
    layout = PackLayout(shape, dataset.space)
    buffer, report = fill_buffer(dataset, windows, shape, layout)
    return layout.tensors(buffer), report


def fill_buffer(
    dataset: BattleDataset, windows: Sequence[Window], shape: PackShape, layout: PackLayout
) -> tuple[torch.Tensor, PackReport]:
    """Read the windows' battles and lay them end to end in a new uint8 buffer [layout.nbytes].

    Windows of a rejected file are left out, as is each that doesn't fit the rows or segments left; what remains of the
    rows is padding.
    """
    builder = _Builder(dataset, shape, layout)
    rejects: list[Reject] = []
    dropped_windows = dropped_turns = 0
    for window in windows:
        try:
            battle = dataset[window.battle]
        except BadBattleFile as error:
            rejects.append(Reject(error.path, f"{error.field}: {error.reason}"))
            continue
        start, length = window.start, window.length
        if length == 0:
            start, length = drawn_window(len(battle), shape.max_turns, window.start, window.draw)
        if not builder.add(window.battle, battle, start, length):
            dropped_windows += 1
            dropped_turns += length
    return builder.finish(), PackReport(len(windows), rejects, dropped_windows, dropped_turns)


class _Builder:
    """A pack being filled from its first row on."""

    def __init__(self, dataset: BattleDataset, shape: PackShape, layout: PackLayout) -> None:
        self.shape = shape
        self.kind = dataset.config.reward
        self.cloned = dataset.cloned
        self.used = 0
        self.count = 0
        self.buffer = np.zeros(layout.nbytes, dtype=np.uint8)
        self.arrays = layout.arrays(self.buffer)
        self.arrays["words"][:] = PAD_ID
        self.arrays["outcome"][:] = -1
        self.arrays["windows"][:] = -1

    def add(self, place: int, battle: EncodedBattle | CachedBattle, start: int, length: int) -> bool:
        """Lay one window behind the last; false where it doesn't fit."""
        room = self.shape.turns - self.used - length
        if room < 0 or self.count + 1 + -(-room // self.shape.max_turns) > self.shape.segments:
            return False
        a = self.arrays
        rows = slice(self.used, self.used + length)
        decisions = slice(self.used, self.used + length - 1)
        rewards = battle.reward(self.kind)
        battle.fill(start, start + length, a["words"][rows], a["numbers"][rows], a["legal"][rows], a["forced"][rows])
        taken = battle.action[start : start + length - 1]
        a["action"][decisions] = np.maximum(taken, 0)
        a["action_known"][decisions] = taken >= 0
        a["decision"][decisions] = True
        a["reward"][decisions] = rewards[start : start + length - 1]
        # What came before a row is what stands at the row above, but for the window's first: that is before the cut.
        first = max(start - 1, 0)
        before = slice(self.used + (start == 0), self.used + length)
        last = battle.action[first : start + length - 1]
        a["prev_action"][before] = np.maximum(last, 0)
        a["prev_action_known"][before] = last >= 0
        a["prev_reward"][before] = rewards[first : start + length - 1]
        if battle.won or battle.lost:
            a["done"][self.used + length - 2] = start + length == len(battle)
            a["outcome"][rows] = battle.won
        a["cloned"][rows] = self.cloned[place]
        a["valid"][rows] = True
        a["position"][rows] = np.arange(length)
        a["segment"][rows] = self.count
        a["windows"][self.count] = (place, start, length)
        self.used += length
        self.count += 1
        a["cu_seqlens"][self.count] = self.used
        return True

    def finish(self) -> torch.Tensor:
        """Cut the padding into segments and hand the buffer over."""
        a = self.arrays
        count = self.count
        for at in range(self.used, self.shape.turns, self.shape.max_turns):
            stop = min(at + self.shape.max_turns, self.shape.turns)
            a["segment"][at:stop] = count
            a["position"][at:stop] = np.arange(stop - at)
            count += 1
            a["cu_seqlens"][count] = stop
        a["cu_seqlens"][count:] = self.shape.turns
        return torch.from_numpy(self.buffer)
